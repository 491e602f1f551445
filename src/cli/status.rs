//! `ovn-kubevirt status`: asks the running service if it is ready, or for the reason why it is not; through its API also
//! for its leader, its databases, its watches and the problems of VMs.
//!
//! It is also the health check of the container, which has neither curl nor a shell.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::plugin::{self, Listener};
use super::table;
use crate::api::rpc::model::{NoParams, NorthboundStatus, Role, ServiceStatus, SouthboundState};
use crate::api::rpc::{ApiClient, ApiUrl, ClientError, Credentials};
use crate::config::DEFAULT_HTTP;

/// The limit for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Options of `status`.
#[derive(Debug, Clone, Args)]
pub(super) struct StatusOptions {
    /// The address at which the service listens, as given to `run` or `node`
    #[arg(long, env = "OVN_KUBEVIRT_HTTP", value_name = "ADDRESS:PORT", default_value = DEFAULT_HTTP)]
    http: SocketAddr,

    /// The API of the service: http://HOST:PORT, https://HOST:PORT, or ADDRESS:PORT as given to `run --api`. It tells
    /// more. Where none answers, --http is asked
    #[arg(long, env = "OVN_KUBEVIRT_API", value_name = "URL")]
    api: Option<ApiUrl>,

    /// The file of the API's token
    #[arg(long, env = "OVN_KUBEVIRT_API_TOKEN", value_name = "FILE")]
    api_token: Option<PathBuf>,

    /// For https: the CA that issued the API's certificate
    #[arg(long, env = "OVN_KUBEVIRT_API_CA", value_name = "FILE")]
    api_ca: Option<PathBuf>,

    /// For the plugin of kubectl, which finds the service by its Lease: the name of the installation
    #[arg(long, env = "OVN_KUBEVIRT_INSTANCE", value_name = "NAME", default_value = "default")]
    instance: String,
}

/// The listener of `--http`, in the pods of the manifests.
const LISTENER: Listener = Listener { variable: "OVN_KUBEVIRT_HTTP", port: Some(9443), has_tls: false };

/// As [`print`], of the process that writes, wherever it is in the cluster.
pub(super) async fn print_of_leader(options: StatusOptions) -> anyhow::Result<()> {
    let forwarded = plugin::forward(&options.instance, &LISTENER).await?;
    print(&StatusOptions { http: forwarded.address, ..options }).await
}

/// Prints `ready, leading` or `ready, following`, with the remark for operators, or fails with the reason.
pub(super) async fn print(options: &StatusOptions) -> anyhow::Result<()> {
    if let Some(url) = &options.api {
        let credentials = Credentials { token: options.api_token.clone(), ca: options.api_ca.clone() };
        match ApiClient::connect(url, &credentials).await {
            Ok(mut client) => {
                let status: ServiceStatus = client.call("status", &NoParams {}).await?;
                table::print(&told(&status))?;
                return match status.reason {
                    Some(reason) if !status.ready => bail!("not ready: {reason}"),
                    _ => Ok(()),
                };
            }
            Err(error @ ClientError::Refused { .. }) => return Err(error.into()),
            Err(error) => eprintln!("{error}."),
        }
    }
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

/// The status in lines: the service, and below its data.
fn told(status: &ServiceStatus) -> String {
    let first = match status.role {
        Role::Leading => "ready, leading",
        Role::Following => "ready, following",
        Role::None => "not ready",
    };
    let remark = status.remark.as_ref().map(|remark| format!("; {remark}")).unwrap_or_default();
    let mut lines = vec![format!("{first}{remark}")];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<14}{value}"));
    line("version", format!("{}, instance {}, up {} s", status.version, status.instance, status.uptime_seconds));
    status.leader.iter().for_each(|leader| line("leader", leader.clone()));
    let NorthboundStatus { silent_seconds, ports, vms } = &status.northbound;
    let heard = silent_seconds.map_or("never heard".to_owned(), |seconds| format!("heard {seconds} s ago"));
    line("northbound", format!("{heard}; {ports} ports, {vms} VMs with ports of this instance"));
    let southbound = match status.southbound {
        SouthboundState::Synced => "in sync",
        SouthboundState::Away => "away: what was last read counts",
        SouthboundState::Unread => "not read (--sb)",
    };
    line("southbound", southbound.to_owned());
    let oldest = status.watches.iter().filter_map(|watch| watch.age_seconds).max();
    line("watches", oldest.map_or("nothing heard yet".to_owned(), |age| format!("each heard within {age} s")));
    let problems: Vec<String> = status.problems.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    line("problems", if problems.is_empty() { "none".to_owned() } else { problems.join(", ") });
    line("subscribers", status.subscriptions.to_string());
    line("log filter", status.log_filter.clone());
    lines.push(String::new());
    lines.join("\n")
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
