//! The start of the operators' API.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Ended, listen};
use crate::admission::{CertificateFiles, Certificates, follow_files};
use crate::api::rpc::{self, Access, Replicas, Sources, Token};
use crate::config::ApiOptions;
use crate::controller::{Asker, Health, Leadership, Status};
use crate::telemetry::LogFilter;

/// The data that the API reads, from the tasks that keep it.
pub(super) struct Readers {
    pub(super) replicas: Replicas,
    pub(super) status: Status,
    pub(super) health: Arc<Health>,
    pub(super) leadership: watch::Receiver<Leadership>,
}

impl Readers {
    /// Adds the sources that the API asks, and the settings that it changes.
    pub(super) fn sources(self, asker: Asker, log: LogFilter) -> Sources {
        let Self { replicas, status, health, leadership } = self;
        Sources { replicas, asker, status, health, leadership, log }
    }
}

/// The API's listener, with the certificate and the token.
pub(super) struct Listening {
    listener: TcpListener,
    access: Access,
    certificate: Option<(CertificateFiles, Certificates)>,
}

impl Listening {
    /// Opens the listener, if there is to be one. It is refused where other machines could reach it without TLS and a
    /// token.
    pub(super) async fn open(options: &ApiOptions) -> anyhow::Result<Option<Self>> {
        let Some(address) = options.api else { return Ok(None) };
        options.check().map_err(|error| anyhow!(error))?;
        let mut access = Access::default();
        let mut certificate = None;
        if let Some(files) = options.files() {
            let shown = Certificates::default();
            let error = |error| {
                anyhow!(
                    "the API cannot show its certificate: {error}. Correct the files of --api-certificate and --api-private-key"
                )
            };
            files.show(&shown).await.map_err(error)?;
            access.tls = Some(shown.acceptor().context("TLS cannot be set up for the API")?);
            certificate = Some((files, shown));
        }
        if let Some(file) = &options.api_token {
            access.token = Some(Token::read(file).map_err(|error| anyhow!("the token of --api-token: {error}"))?);
        }
        let listener = listen(address, "the API", "--api")?;
        Ok(Some(Self { listener, access, certificate }))
    }

    /// Serves the API in tasks of its own.
    pub(super) fn serve(self, sources: Sources, tasks: &mut JoinSet<Ended>) -> anyhow::Result<()> {
        let Self { listener, access, certificate } = self;
        let (tls, token) = (access.tls.is_some(), access.token.is_some());
        tracing::info!(address = %listener.local_addr()?, tls, token, "api listening");
        if let Some((files, certificates)) = certificate {
            tasks.spawn(async move {
                follow_files(files, certificates, None).await;
                Ended("files of the API's certificate", Ok(()))
            });
        }
        tasks.spawn(async move {
            let ended = rpc::serve(listener, access, sources).await;
            Ended("api", ended.map_err(Into::into))
        });
        Ok(())
    }
}
