//! The address of a database, as OVN's tools write it: `unix:/path`, `tcp:host:port` or `ssl:host:port`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// One OVSDB remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// `unix:/path/to/socket`
    Unix(PathBuf),
    /// `tcp:host:port`, IPv6 addresses in brackets.
    Tcp {
        /// An address or a name, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `ssl:host:port`, IPv6 addresses in brackets.
    Ssl {
        /// An address or a name, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

/// The error of a remote that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// It does not begin with a known method.
    #[error("\"{0}\" is no OVSDB remote: write unix:/path/to/socket, tcp:host:port or ssl:host:port")]
    UnknownMethod(String),
    /// `unix:` alone.
    #[error("\"{0}\" names no socket: write unix:/path/to/socket")]
    NoPath(String),
    /// A `tcp:` or `ssl:` remote without a host or a valid port.
    #[error("\"{0}\" lacks a host or a port: write tcp:host:port or ssl:host:port, IPv6 addresses in brackets")]
    BadAddress(String),
}

impl FromStr for Remote {
    type Err = RemoteError;
    fn from_str(text: &str) -> Result<Self, RemoteError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(RemoteError::NoPath(text.to_owned()));
            }
            return Ok(Self::Unix(path.into()));
        }
        let bad = || RemoteError::BadAddress(text.to_owned());
        match text.split_once(':') {
            Some(("tcp", address)) => {
                let (host, port) = host_and_port(address).ok_or_else(bad)?;
                Ok(Self::Tcp { host, port })
            }
            Some(("ssl", address)) => {
                let (host, port) = host_and_port(address).ok_or_else(bad)?;
                Ok(Self::Ssl { host, port })
            }
            _ => Err(RemoteError::UnknownMethod(text.to_owned())),
        }
    }
}

/// `host:port`, or `[address]:port` for IPv6.
fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host,
        None if host.contains(':') => return None,
        None => host,
    };
    if host.is_empty() {
        return None;
    }
    Some((host.to_owned(), port.parse().ok()?))
}

impl fmt::Display for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, host, port) = match self {
            Self::Unix(path) => return write!(formatter, "unix:{}", path.display()),
            Self::Tcp { host, port } => ("tcp", host, port),
            Self::Ssl { host, port } => ("ssl", host, port),
        };
        if host.contains(':') {
            write!(formatter, "{method}:[{host}]:{port}")
        } else {
            write!(formatter, "{method}:{host}:{port}")
        }
    }
}

/// The remotes of one database, comma-separated, tried in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remotes(pub Vec<Remote>);

impl FromStr for Remotes {
    type Err = RemoteError;
    fn from_str(text: &str) -> Result<Self, RemoteError> {
        text.split(',').map(|remote| remote.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Remotes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, remote) in self.0.iter().enumerate() {
            write!(formatter, "{}{remote}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_read_and_written_as_ovn_does() {
        for text in ["unix:/run/ovn/ovnnb_db.sock", "tcp:127.0.0.1:6641", "tcp:[::1]:6641,ssl:ovn.example:6641"] {
            assert_eq!(text.parse::<Remotes>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_remote_that_cannot_be_parsed_is_named() {
        for text in [
            "",
            "unix:",
            "tcp:6641",
            "tcp::6641",
            "tcp:host:port",
            "tcp:::1:6641",
            "ssl:1.2.3.4",
            "pssl:6641",
            "/run/x",
        ] {
            let error = text.parse::<Remotes>().expect_err(text).to_string();
            assert!(error.contains(&format!("\"{text}\"")), "{error}");
        }
    }
}
