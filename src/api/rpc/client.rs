//! A client of the API, for the command line: one WebSocket for calls and a subscription.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use soketto::handshake::client::{Client as Handshake, Header, ServerResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// The limit for a connection, and for each answer.
const PATIENCE: Duration = Duration::from_secs(15);
const LARGEST_MESSAGE: usize = 16 * 1_024 * 1_024;

/// Where the API listens, as in `http://127.0.0.1:9444`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiUrl {
    tls: bool,
    host: String,
    port: u16,
}

impl FromStr for ApiUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const HINT: &str = "write http://<host>:<port>, https://<host>:<port>, or the address and port of `run --api`";
        if let Ok(address) = text.parse::<SocketAddr>() {
            // As `run` has it. An unspecified address includes the loopback address.
            let (tls, ip) = (!address.ip().is_loopback(), address.ip());
            let host = match (ip.is_unspecified(), ip) {
                (false, ip) => ip.to_string(),
                (true, std::net::IpAddr::V4(_)) => "127.0.0.1".to_owned(),
                (true, std::net::IpAddr::V6(_)) => "::1".to_owned(),
            };
            return Ok(Self { tls, host, port: address.port() });
        }
        let url: Uri = text.parse().map_err(|_| HINT.to_owned())?;
        let tls = match url.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(HINT.to_owned()),
        };
        let (Some(host), "" | "/" | "/rpc") = (url.host(), url.path()) else { return Err(HINT.to_owned()) };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { tls, host, port: url.port_u16().unwrap_or(if tls { 443 } else { 80 }) })
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl ApiUrl {
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// What a caller has to show, and what it trusts.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The file of the token.
    pub token: Option<PathBuf>,
    /// The CA of the API's certificate.
    pub ca: Option<PathBuf>,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no connection.
    #[error("no API answers at {url}: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// The API refuses the caller.
    #[error("the API at {url} refuses the caller ({code}): {hint}")]
    Refused {
        /// Where.
        url: String,
        /// The status of HTTP.
        code: u16,
        /// What to do.
        hint: &'static str,
    },
    /// The API has answered with an error.
    #[error("{message}")]
    Answered {
        /// The code.
        code: i32,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The connection broke, or the answer cannot be read.
    #[error("the API broke off: {0}. Try again")]
    Broken(String),
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

type Socket = Compat<Box<dyn Transport>>;

/// A connection to the API.
pub struct ApiClient {
    sender: soketto::Sender<Socket>,
    receiver: soketto::Receiver<Socket>,
    last_id: u64,
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiClient").field("last_id", &self.last_id).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Incoming<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Wrong>,
    #[serde(borrow)]
    params: Option<Notice<'a>>,
}

#[derive(Deserialize)]
struct Wrong {
    code: i32,
    message: String,
}

#[derive(Deserialize)]
struct Notice<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Value>,
}

impl ApiClient {
    /// Connects to the API.
    ///
    /// # Errors
    /// If no API answers, or it refuses the caller.
    pub async fn connect(url: &ApiUrl, credentials: &Credentials) -> Result<Self, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable { url: url.to_string(), reason };
        let connecting = async {
            let stream =
                transport(url, credentials.ca.as_deref()).await.map_err(|error| unreachable(error.to_string()))?;
            let token = credentials.token.as_deref().map(token).transpose().map_err(unreachable)?;
            Self::shake_hands(url, stream, token).await
        };
        tokio::time::timeout(PATIENCE, connecting)
            .await
            .unwrap_or_else(|_| Err(unreachable(format!("no answer within {PATIENCE:?}"))))
    }

    async fn shake_hands(url: &ApiUrl, stream: Box<dyn Transport>, token: Option<String>) -> Result<Self, ClientError> {
        let (authority, bearer) = (url.authority(), token.map(|token| format!("Bearer {token}")));
        let headers: Vec<Header<'_>> =
            bearer.iter().map(|bearer| Header { name: "authorization", value: bearer.as_bytes() }).collect();
        let mut handshake = Handshake::new(stream.compat(), &authority, "/rpc");
        handshake.set_headers(&headers);
        let response = handshake.handshake().await;
        let response =
            response.map_err(|error| ClientError::Unreachable { url: url.to_string(), reason: error.to_string() })?;
        let code = match response {
            ServerResponse::Accepted { .. } => {
                let mut builder = handshake.into_builder();
                builder.set_max_message_size(LARGEST_MESSAGE);
                builder.set_max_frame_size(LARGEST_MESSAGE);
                let (sender, receiver) = builder.finish();
                return Ok(Self { sender, receiver, last_id: 0 });
            }
            ServerResponse::Redirect { status_code, .. } | ServerResponse::Rejected { status_code } => status_code,
        };
        let hint = match code {
            401 => "give the file of its token with --api-token",
            403 => "call it by 127.0.0.1, [::1] or localhost",
            404 => "another server listens there: give the address of `run --api`, which is not that of --http",
            429 | 503 => "it has too many connections; try again",
            _ => "is it the address of `run --api`?",
        };
        Err(ClientError::Refused { url: url.to_string(), code, hint })
    }

    /// Calls a method.
    ///
    /// # Errors
    /// If the API answers with an error, or not at all.
    pub async fn call<T: DeserializeOwned>(&mut self, method: &str, params: &impl Serialize) -> Result<T, ClientError> {
        self.last_id += 1;
        let id = self.last_id;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let asking = async {
            self.sender.send_text(request.to_string()).await.map_err(broken)?;
            self.sender.flush().await.map_err(broken)?;
            loop {
                let text = self.next().await?;
                let Incoming { id: answered, result, error, .. } = serde_json::from_slice(&text).map_err(broken)?;
                if let (Some(Wrong { code, message }), true) = (error, answered.is_none_or(|answered| answered == id)) {
                    return Err(ClientError::Answered { code, message });
                }
                if answered == Some(id) {
                    return serde_json::from_str(result.map_or("null", RawValue::get)).map_err(broken);
                }
            }
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err(broken(format!("no answer within {PATIENCE:?}"))))
    }

    /// The next message of the subscription that was called for.
    ///
    /// # Errors
    /// If the API ends it, or the connection breaks.
    pub async fn message<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        loop {
            let text = self.next().await?;
            let Incoming { params, .. } = serde_json::from_slice(&text).map_err(broken)?;
            match params {
                Some(Notice { result: Some(result), .. }) => return serde_json::from_str(result.get()).map_err(broken),
                Some(Notice { error: Some(error), .. }) => {
                    let message = error.get("message").and_then(Value::as_str).unwrap_or("it ended the subscription");
                    return Err(ClientError::Answered { code: 0, message: message.to_owned() });
                }
                Some(_) | None => {}
            }
        }
    }

    async fn next(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut text = Vec::new();
        self.receiver.receive_data(&mut text).await.map_err(broken)?;
        Ok(text)
    }
}

fn broken(error: impl fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

fn token(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    Ok(text.trim().to_owned())
}

async fn transport(url: &ApiUrl, ca: Option<&Path>) -> io::Result<Box<dyn Transport>> {
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
    stream.set_nodelay(true)?;
    if !url.tls {
        return Ok(Box::new(stream));
    }
    let ca = ca.ok_or_else(|| io::Error::other("give the CA of its certificate with --api-ca"))?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca).map_err(io::Error::other)? {
        roots.add(root.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_with_or_without_its_scheme() {
        for (text, url) in [
            ("127.0.0.1:9444", "http://127.0.0.1:9444"),
            ("[::1]:9444", "http://[::1]:9444"),
            ("0.0.0.0:9444", "https://127.0.0.1:9444"),
            ("192.0.2.1:9444", "https://192.0.2.1:9444"),
            ("http://localhost:9444/", "http://localhost:9444"),
            ("wss://api.example/rpc", "https://api.example:443"),
            ("https://[2001:db8::1]:9444", "https://[2001:db8::1]:9444"),
        ] {
            assert_eq!(text.parse::<ApiUrl>().map(|url| url.to_string()), Ok(url.to_owned()), "{text}");
        }
        for bad in ["", "localhost:9444", "ftp://a:1", "http://a:1/other", "http://"] {
            assert!(bad.parse::<ApiUrl>().is_err(), "{bad}");
        }
    }
}
