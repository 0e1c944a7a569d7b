//! How a command proves whose client it is: by a key, or by a certificate.

use deputize_call::sign::SigningKey;
use deputize_client::ClientBuilder;
use std::path::PathBuf;

use super::{exit::CommandError, input};

/// The certificate of a client that has one instead of a key (RFC 8705 §2).
#[derive(Debug, clap::Args)]
pub struct ClientCertificate {
    /// Certificate (PEM) to show instead, with those that lead to its authority: the client's, or its X.509-SVID; read
    /// once, at the start
    #[arg(long, value_name = "FILE", requires = "certificate_key")]
    certificate: Option<PathBuf>,
    /// Private key (PEM) of that certificate
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,
}

impl ClientCertificate {
    /// A client that proves itself by the certificate if one was given, else by the key.
    ///
    /// # Errors
    /// If what it proves itself by cannot be read, or others may read its private half.
    pub fn or_key(
        &self,
        client: ClientBuilder,
        key: impl FnOnce() -> Result<SigningKey, CommandError>,
    ) -> Result<ClientBuilder, CommandError> {
        let (Some(certificate), Some(private)) = (&self.certificate, &self.certificate_key) else {
            return Ok(client.private_key_jwt(key()?));
        };
        let private = input::private_text(private)?;
        Ok(client.client_certificate(input::file_text(certificate)?.as_bytes(), private.as_bytes()))
    }
}
