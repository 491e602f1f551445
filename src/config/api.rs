//! Flags of the operators' API.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::admission::CertificateFiles;

/// Options of the operators' API.
#[derive(Debug, Clone, Args)]
pub struct ApiOptions {
    /// The address of the JSON-RPC API for operators; by default there is none. Beyond the loopback addresses it needs
    /// --api-certificate, --api-private-key and --api-token. Port 0 takes a free one
    #[arg(long, env = "OVN_KUBEVIRT_API", value_name = "ADDRESS:PORT")]
    pub api: Option<SocketAddr>,

    /// The certificate that the API shows, with its intermediates. It is read again after a change
    #[arg(long, env = "OVN_KUBEVIRT_API_CERTIFICATE", value_name = "FILE", requires = "api_private_key")]
    pub api_certificate: Option<PathBuf>,

    /// The key of --api-certificate
    #[arg(long, env = "OVN_KUBEVIRT_API_PRIVATE_KEY", value_name = "FILE", requires = "api_certificate")]
    pub api_private_key: Option<PathBuf>,

    /// A file with the token that callers of the API have to send: 16 characters or more, without blanks. It is read again
    /// after a change, which closes the WebSockets that the former token opened
    #[arg(long, env = "OVN_KUBEVIRT_API_TOKEN", value_name = "FILE")]
    pub api_token: Option<PathBuf>,
}

impl ApiOptions {
    /// The files of the certificate.
    pub fn files(&self) -> Option<CertificateFiles> {
        let (certificate, key) = self.api_certificate.clone().zip(self.api_private_key.clone())?;
        Some(CertificateFiles { certificate, key, owner: "the API", flags: ["--api-certificate", "--api-private-key"] })
    }

    /// Checks that an address which other machines reach is protected.
    ///
    /// # Errors
    /// If it is not; the text says what is missing.
    pub fn check(&self) -> Result<(), String> {
        let Some(address) = self.api.filter(|address| !address.ip().is_loopback()) else { return Ok(()) };
        let missing = [
            (self.api_certificate.is_none(), "--api-certificate"),
            (self.api_private_key.is_none(), "--api-private-key"),
            (self.api_token.is_none(), "--api-token"),
        ];
        let missing: Vec<&str> = missing.iter().filter(|(missing, _)| *missing).map(|(_, flag)| *flag).collect();
        match missing.as_slice() {
            [] => Ok(()),
            missing => Err(format!(
                "{address} can be reached from other machines, and {} is missing. Give it, or listen on 127.0.0.1",
                missing.join(", ")
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Run {
        #[command(flatten)]
        options: ApiOptions,
    }

    fn check(arguments: &[&str]) -> Result<(), String> {
        let arguments = [&["run"], arguments].concat();
        Run::try_parse_from(arguments).map_err(|error| error.to_string())?.options.check()
    }

    #[test]
    fn an_address_beyond_loopback_needs_tls_and_a_token() {
        for plain in
            [&[][..], &["--api", "127.0.0.1:0"], &["--api", "[::1]:9444"], &["--api=127.0.0.1:1", "--api-token=t"]]
        {
            assert_eq!(check(plain), Ok(()), "{plain:?}");
        }
        let tls = ["--api-certificate=c", "--api-private-key=k"];
        let all = [&["--api=0.0.0.0:1", "--api-token=t"], &tls[..]].concat();
        assert_eq!(check(&all), Ok(()));
        for (flags, missing) in [
            (vec!["--api=0.0.0.0:1"], "--api-certificate, --api-private-key, --api-token is missing"),
            (vec!["--api=192.0.2.1:1", "--api-token=t"], "--api-certificate, --api-private-key is missing"),
            ([&["--api=[::]:1"], &tls[..]].concat(), "--api-token is missing"),
            (vec!["--api=127.0.0.1:1", "--api-certificate=c"], "--api-private-key"),
        ] {
            let error = check(&flags).expect_err("refused");
            assert!(error.contains(missing), "{error}");
        }
    }
}
