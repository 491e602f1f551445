//! The table of the methods: the name, parameters and answer of each, in one place.
//!
//! A method is a type. [`visit`] names all of them, to the [`Registrar`] that serves them and to the
//! [`Documenter`](super::openrpc::Documenter) that describes them, so that the description cannot differ from what is
//! served.

use std::sync::Arc;

use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::ErrorObjectOwned;

use super::method::{Known, Method, Subscription, Visitor};
use super::sources::Api;
use super::subscribe::PortsSubscribe;
use super::{decide, leases, log, migrations, ports, status, switches};

/// Names all methods.
pub(super) fn visit(visitor: &mut impl Visitor) {
    visitor.method::<ports::List>();
    visitor.method::<ports::Get>();
    visitor.subscription::<PortsSubscribe>();
    visitor.method::<switches::List>();
    visitor.method::<switches::Map>();
    visitor.method::<migrations::List>();
    visitor.method::<leases::Release>();
    visitor.method::<decide::Decide>();
    visitor.method::<status::Get>();
    visitor.method::<log::SetLevel>();
}

/// The methods, served.
pub(super) fn served(api: Arc<Api>) -> Result<RpcModule<Arc<Api>>, RegisterMethodError> {
    let mut registrar = Registrar { module: RpcModule::new(api), failed: None };
    visit(&mut registrar);
    registrar.failed.map_or(Ok(registrar.module), Err)
}

struct Registrar {
    module: RpcModule<Arc<Api>>,
    failed: Option<RegisterMethodError>,
}

impl Visitor for Registrar {
    fn method<M: Method>(&mut self) {
        let known: Arc<Known> = Arc::new(Known::of::<M::Params>());
        let registered = self.module.register_async_method(M::NAME, move |params, api, _| {
            let params = known.read::<M::Params>(&params);
            async move { M::call(Arc::clone(&api), params?).await.map_err(ErrorObjectOwned::from) }
        });
        self.failed = self.failed.take().or(registered.err());
    }

    fn subscription<S: Subscription>(&mut self) {
        self.failed = self.failed.take().or(super::subscribe::register(&mut self.module).err());
    }
}
