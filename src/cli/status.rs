//! `ovn-kubevirt status`: asks the running service if it is ready, or for the reason why it is not.
//!
//! It is also the health check of the container, which has neither curl nor a shell.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::DEFAULT_HTTP;

/// The limit for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Options of `status`.
#[derive(Debug, Clone, Args)]
pub(super) struct StatusOptions {
    /// The address at which the service listens, as given to `run` or `node`
    #[arg(long, env = "OVN_KUBEVIRT_HTTP", value_name = "ADDRESS:PORT", default_value = DEFAULT_HTTP)]
    http: SocketAddr,
}

/// Prints `ready, leading` or `ready, following`, with the remark for operators, or fails with the reason.
pub(super) async fn print(options: &StatusOptions) -> anyhow::Result<()> {
    let mut address = options.http;
    if address.ip().is_unspecified() {
        // An unspecified address includes the loopback address.
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let (status, body) = tokio::time::timeout(PATIENCE, readyz(address))
        .await
        .with_context(|| format!("the service at {address} did not answer within {PATIENCE:?}"))?
        .with_context(|| {
            format!("no ovn-kubevirt answers at {address}: is `ovn-kubevirt run` up, or `node`, with this --http?")
        })?;
    if status != StatusCode::OK {
        bail!("not ready: {}", body.trim());
    }
    // "ok, leading" or "ok, following".
    println!("{}", body.trim().replacen("ok", "ready", 1));
    Ok(())
}

async fn readyz(address: SocketAddr) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz").header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        ended = connection => bail!("the connection ended before the answer: {ended:?}"),
    }
}
