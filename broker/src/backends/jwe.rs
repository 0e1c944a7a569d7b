//! Users' tokens that an identity provider encrypted to us (JWE, RFC 7516), opened with keys from files; and answers
//! that we seal to a client's key.
//!
//! The header is checked before any key is touched: algorithms from an allow-list, no compression, no passwords,
//! nothing critical, an ephemeral key that lies on its curve.

#[cfg(feature = "jwe")]
mod header;
#[cfg(feature = "jwe")]
mod keys;
#[cfg(feature = "jwe")]
mod seal;
#[cfg(test)]
#[cfg(feature = "jwe")]
mod tests;

use std::path::PathBuf;

#[cfg(feature = "jwe")]
pub use self::{keys::JweKeys, seal::JweSeal};

/// A private key for decryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecryptionKeyFile {
    /// A private JWK (`.json`, `.jwk`) or PKCS#8 PEM: RSA of at least 2,048 bits, P-256 or P-384.
    pub file: PathBuf,
    /// The `kid` by which providers name it, where the file does not say.
    pub kid: Option<String>,
    /// Whether `RSA-OAEP` with SHA-1 is accepted too, for providers that know nothing better.
    pub allow_rsa_oaep_sha1: bool,
}

/// Why the decryption keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JweSetupError {
    /// This program was built without the feature `jwe`.
    #[error("encrypted tokens need a build with the feature jwe")]
    #[cfg(not(feature = "jwe"))]
    NotBuilt,
    /// A key file is not usable.
    #[error("{}: {problem}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// What is wrong with it; nothing of the key is in it.
        problem: String,
    },
}

/// Without the feature `jwe` nothing can be sealed, and configurations that want it are refused.
#[cfg(not(feature = "jwe"))]
#[derive(Debug, Clone, Copy, Default)]
pub struct JweSeal;

#[cfg(not(feature = "jwe"))]
impl crate::http::aws::SealAnswer for JweSeal {
    fn seal(
        &self,
        _: &deputize_issuer::client::EncryptionKey,
        _: &[u8],
    ) -> Result<String, crate::http::aws::CannotSeal> {
        Err(crate::http::aws::CannotSeal)
    }
}

/// Without the feature `jwe` nothing can be decrypted, and whoever configures it is told so.
#[cfg(not(feature = "jwe"))]
#[derive(Debug)]
pub enum JweKeys {}

#[cfg(not(feature = "jwe"))]
impl JweKeys {
    /// Always [`JweSetupError::NotBuilt`].
    pub fn load(_: &[DecryptionKeyFile]) -> Result<Self, JweSetupError> {
        Err(JweSetupError::NotBuilt)
    }
}

#[cfg(not(feature = "jwe"))]
impl deputize_issuer::provider::TokenDecrypter for JweKeys {
    fn decrypt(
        &self,
        _: &str,
    ) -> Result<zeroize::Zeroizing<String>, deputize_issuer::provider::UserTokenError> {
        match *self {}
    }
}
