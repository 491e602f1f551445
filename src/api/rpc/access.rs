//! The permitted callers: those with the token if one is set, and on loopback no page of another site.
//!
//! A browser sends requests to loopback addresses for any page that it shows. Such a page cannot read answers, unless its
//! own name resolves to a loopback address (DNS rebinding); then the browser sends that name as `Host`. So without a token
//! the `Host` has to be a loopback address or `localhost`, and an `Origin` has to be that same host. With a token neither
//! matters, but an `Origin` is compared all the same.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Digest, SHA256, digest};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

/// The subprotocol that a browser asks for, since it cannot set the header `Authorization`.
pub(super) const PROTOCOL: &str = "ovn-kubevirt";
/// The beginning of the subprotocol that has the token.
const BEARER: &str = "bearer.";
/// A token of fewer characters can be guessed.
const SHORTEST: usize = 16;
/// The file of the token is read again this often.
const EVERY: Duration = Duration::from_secs(10);

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: StatusCode,
    pub(super) text: &'static str,
}

const NO_TOKEN: Refused = Refused {
    code: StatusCode::UNAUTHORIZED,
    text: "the token is missing or wrong. Send the header \"Authorization: Bearer <token>\" with the token of --api-token",
};
const OTHER_HOST: Refused = Refused {
    code: StatusCode::FORBIDDEN,
    text: "the Host is not of this machine. Call the API by 127.0.0.1, [::1] or localhost, or set --api-token",
};
const OTHER_ORIGIN: Refused = Refused {
    code: StatusCode::FORBIDDEN,
    text: "the request comes from a page of another site. Open the page of this listener instead",
};

/// The token of `--api-token`, read again when its file changes.
#[derive(Clone)]
pub struct Token {
    file: PathBuf,
    /// The digests of the token and of its subprotocol: a comparison of these does not reveal the length either.
    known: watch::Sender<[Digest; 2]>,
}

impl Token {
    /// Reads the token.
    ///
    /// # Errors
    /// If the file cannot be read, or its token is too short.
    pub fn read(file: &Path) -> Result<Self, String> {
        Ok(Self { file: file.to_owned(), known: watch::Sender::new(digests(file)?) })
    }

    /// Reads the file again, for ever. The former token stays while the file cannot be used.
    pub async fn follow(&self) {
        let mut trouble = None;
        loop {
            tokio::time::sleep(EVERY).await;
            let file = self.file.clone();
            let read = tokio::task::spawn_blocking(move || digests(&file))
                .await
                .unwrap_or_else(|error| Err(error.to_string()));
            match read {
                Ok(read) => {
                    self.replace(read);
                    trouble = None;
                }
                Err(error) if trouble.as_ref() == Some(&error) => {}
                Err(error) => {
                    tracing::warn!(
                        error,
                        "the token of the API cannot be read, and the former one stays in use. Correct the file of --api-token"
                    );
                    trouble = Some(error);
                }
            }
        }
    }

    /// Resolves when the token is replaced by another one.
    pub(super) fn replaced(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut known = self.known.subscribe();
        async move {
            if known.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    fn replace(&self, read: [Digest; 2]) {
        let same = |known: &[Digest; 2]| known.iter().zip(&read).all(|(one, other)| one.as_ref() == other.as_ref());
        self.known.send_if_modified(|known| {
            let is_same = same(known);
            *known = read;
            !is_same
        });
    }

    fn is(&self, which: usize, given: &str) -> bool {
        let known = self.known.borrow();
        let given = digest(&SHA256, given.as_bytes());
        known.get(which).is_some_and(|known| known.as_ref().ct_eq(given.as_ref()).into())
    }
}

fn digests(file: &Path) -> Result<[Digest; 2], String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let token = text.trim();
    if token.len() < SHORTEST || token.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(format!(
            "{} holds no token of {SHORTEST} characters or more without blanks. Write one, as by `openssl rand -hex 32`",
            file.display()
        ));
    }
    Ok([token.to_owned(), URL_SAFE_NO_PAD.encode(token)].map(|text| digest(&SHA256, text.as_bytes())))
}

/// Checks a request.
pub(super) fn check(head: &HeaderMap, token: Option<&Token>) -> Result<(), Refused> {
    let host = text(head.get(HOST)).and_then(|host| host.parse::<Authority>().ok());
    if token.is_none() && !host.as_ref().is_some_and(is_loopback) {
        return Err(OTHER_HOST);
    }
    if let Some(origin) = head.get(ORIGIN) {
        let of = text(Some(origin)).and_then(|origin| origin.split_once("://"));
        let is_own = |of: &str| host.as_ref().is_some_and(|host| host.as_str().eq_ignore_ascii_case(of));
        if !of.is_some_and(|(scheme, of)| matches!(scheme, "http" | "https") && is_own(of)) {
            return Err(OTHER_ORIGIN);
        }
    }
    match token {
        Some(token) if !has_token(head, token) => Err(NO_TOKEN),
        Some(_) | None => Ok(()),
    }
}

fn has_token(head: &HeaderMap, token: &Token) -> bool {
    let bearer = text(head.get(AUTHORIZATION)).and_then(|value| value.split_once(' '));
    if let Some((scheme, given)) = bearer {
        return scheme.eq_ignore_ascii_case("bearer") && token.is(0, given.trim());
    }
    protocols(head).filter_map(|protocol| protocol.strip_prefix(BEARER)).any(|given| token.is(1, given))
}

/// The subprotocols that a WebSocket client offers.
fn protocols(head: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = head.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|list| text(Some(list)));
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

/// Returns true if a WebSocket client asks for the subprotocol of the API.
pub(super) fn offers_protocol(head: &HeaderMap) -> bool {
    protocols(head).any(|protocol| protocol == PROTOCOL)
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}

fn is_loopback(host: &Authority) -> bool {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |ip: IpAddr| ip.is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn head(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn without_a_token_a_page_of_another_site_cannot_call() {
        let checked =
            |pairs: &[(&'static str, &str)]| check(&head(pairs), None).map_err(|refused| refused.code.as_u16());
        for host in ["127.0.0.1:9444", "localhost:9444", "LOCALHOST", "[::1]:9444", "127.1.2.3"] {
            assert_eq!(checked(&[("host", host)]), Ok(()), "{host}");
        }
        for host in ["evil.example:9444", "127.0.0.1.evil.example", "10.0.0.1:9444", "localhost.evil.example"] {
            assert_eq!(checked(&[("host", host)]), Err(403), "{host}");
        }
        assert_eq!(checked(&[]), Err(403));
        let own = "127.0.0.1:9444";
        assert_eq!(checked(&[("host", own), ("origin", "http://127.0.0.1:9444")]), Ok(()));
        for origin in
            ["http://evil.example", "null", "http://127.0.0.1:8000", "https://localhost:9444", "file://127.0.0.1:9444"]
        {
            assert_eq!(checked(&[("host", own), ("origin", origin)]), Err(403), "{origin}");
        }
    }

    #[test]
    fn a_token_is_taken_from_the_header_or_from_a_subprotocol() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("token");
        std::fs::write(&file, "0123456789abcdef?>\n").expect("a file");
        let token = Token::read(&file).expect("a token");
        let checked = |pairs: &[(&'static str, &str)]| {
            let pairs = [&[("host", "api.example:9444")], pairs].concat();
            check(&head(&pairs), Some(&token)).map_err(|refused| refused.code.as_u16())
        };
        assert_eq!(checked(&[("authorization", "Bearer 0123456789abcdef?>")]), Ok(()));
        assert_eq!(checked(&[("sec-websocket-protocol", "ovn-kubevirt, bearer.MDEyMzQ1Njc4OWFiY2RlZj8-")]), Ok(()));
        for wrong in ["Bearer 0123456789abcdef", "Bearer ", "Basic 0123456789abcdef?>", "0123456789abcdef?>"] {
            assert_eq!(checked(&[("authorization", wrong)]), Err(401), "{wrong}");
        }
        assert_eq!(checked(&[("sec-websocket-protocol", "bearer.0123456789abcdef?>")]), Err(401));
        assert_eq!(checked(&[]), Err(401));
        let (same, others) = (token.replaced(), token.replaced());
        token.replace(digests(&file).expect("a token"));
        assert!(same.now_or_never().is_none(), "the token is the same");
        token.replace([digest(&SHA256, b"another"), digest(&SHA256, b"token")]);
        assert!(others.now_or_never().is_some(), "the token is another one");
        token.replace(digests(&file).expect("a token"));
        let other = [("authorization", "Bearer 0123456789abcdef?>"), ("origin", "https://evil.example")];
        assert_eq!(checked(&other), Err(403));
        for bad in ["", "short", "with a blank in the middle of it"] {
            std::fs::write(&file, bad).expect("a file");
            assert!(Token::read(&file).is_err_and(|error| error.contains("openssl rand")), "{bad}");
        }
    }
}
