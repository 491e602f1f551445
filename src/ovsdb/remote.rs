//! Where a database listens, as OVN's tools write it: `unix:/path` or `tcp:host:port`.

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
}

/// A remote that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// It does not begin with a known method.
    #[error("\"{0}\" is no OVSDB remote: write unix:/path/to/socket or tcp:host:port")]
    UnknownMethod(String),
    /// `unix:` alone.
    #[error("\"{0}\" names no socket: write unix:/path/to/socket")]
    NoPath(String),
    /// A `tcp:` remote without a host or a good port.
    #[error("\"{0}\" is no TCP remote: write tcp:host:port, IPv6 addresses as tcp:[address]:port")]
    BadTcp(String),
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
        let Some(address) = text.strip_prefix("tcp:") else {
            return Err(RemoteError::UnknownMethod(text.to_owned()));
        };
        let bad = || RemoteError::BadTcp(text.to_owned());
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(host) => host,
            None if host.contains(':') => return Err(bad()),
            None => host,
        };
        if host.is_empty() {
            return Err(bad());
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "tcp:{host}:{port}"),
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
        for text in ["unix:/run/ovn/ovnnb_db.sock", "tcp:127.0.0.1:6641", "tcp:[::1]:6641,tcp:ovn.example:6641"] {
            assert_eq!(text.parse::<Remotes>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_remote_is_named() {
        for text in ["", "unix:", "tcp:6641", "tcp::6641", "tcp:host:port", "tcp:::1:6641", "ssl:1.2.3.4:1", "/run/x"] {
            let error = text.parse::<Remotes>().expect_err(text).to_string();
            assert!(error.contains(&format!("\"{text}\"")), "{error}");
        }
    }
}
