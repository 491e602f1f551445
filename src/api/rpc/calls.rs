//! A bound on the calls of one connection that are in progress at the same time.

use std::future::Future;
use std::sync::Arc;

use jsonrpsee::core::middleware::{Batch, Notification, RpcServiceT};
use jsonrpsee::server::MethodResponse;
use jsonrpsee::types::{ErrorObjectOwned, Request};
use tokio::sync::Semaphore;

use super::failure::{Failure, Reason};

/// Calls in progress on a connection. A client that sends more without waiting is told so.
const AT_ONCE: usize = 32;

/// Bounds the calls of each connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallsLayer;

impl<S> tower::Layer<S> for CallsLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls { inner, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// The methods of a connection, under the bound.
#[derive(Debug, Clone)]
pub(super) struct Calls<S> {
    inner: S,
    places: Arc<Semaphore>,
}

impl<S> RpcServiceT for Calls<S>
where
    S: RpcServiceT<
            MethodResponse = MethodResponse,
            BatchResponse = MethodResponse,
            NotificationResponse = MethodResponse,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    type MethodResponse = MethodResponse;
    type BatchResponse = MethodResponse;
    type NotificationResponse = MethodResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let (inner, place) = (self.inner.clone(), Arc::clone(&self.places).try_acquire_owned());
        async move {
            match place {
                Ok(_place) => inner.call(request).await,
                Err(_) => {
                    let message = format!("{AT_ONCE} calls of this connection are in progress. Wait for an answer.");
                    let failure = Failure::new(Reason::TooMany, message);
                    MethodResponse::error(request.id, ErrorObjectOwned::from(failure))
                }
            }
        }
    }

    fn batch<'a>(&self, requests: Batch<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let (inner, places) = (self.inner.clone(), Arc::clone(&self.places));
        async move {
            // A batch is answered call by call. It waits for its place, and with it the client.
            let _place = places.acquire_owned().await;
            inner.batch(requests).await
        }
    }

    fn notification<'a>(&self, notification: Notification<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        // It has no answer, and so it is never executed.
        self.inner.notification(notification)
    }
}
