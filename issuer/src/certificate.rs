//! The certificate that a TLS client showed. TLS has proved that the client has its key, and nothing more: whose it is,
//! and who vouches for it, is for [`authenticate`](crate::authenticate) to say.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::digest::sha256;
use rustls_pki_types::CertificateDer;

/// What a TLS client showed, in DER, its own certificate first.
///
/// INVARIANT: there is a leaf, and whoever is at the other end of the connection has proved that it has its key; there
/// are [`MAX_CERTIFICATES`] at most, of [`MAX_CHAIN_BYTES`] together.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentedCertificate {
    chain: Vec<CertificateDer<'static>>,
    thumbprint: String,
}

/// Why a chain of certificates is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client shows a certificate of its own, 8 in all at most, of 64 KiB together")]
pub struct NotPresentable;

impl PresentedCertificate {
    /// Of a TLS connection whose client has proved that it has the key of the first one.
    ///
    /// # Errors
    /// [`NotPresentable`]: none, or too many.
    pub fn proved(chain: &[CertificateDer<'_>]) -> Result<Self, NotPresentable> {
        check_bounds(chain)?;
        let leaf = chain.first().ok_or(NotPresentable)?;
        Ok(Self {
            thumbprint: URL_SAFE_NO_PAD.encode(sha256(leaf)),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        })
    }

    /// The client's own certificate.
    pub fn leaf(&self) -> &[u8] {
        self.chain.first().map(AsRef::as_ref).unwrap_or_default()
    }

    /// All of them, its own first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// `x5t#S256` (RFC 8705 §3.1): SHA-256 of the client's own certificate, base64url.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }
}

/// Whether a chain may be looked at: what it costs to do so grows with its length.
///
/// # Errors
/// [`NotPresentable`]: none, or too many.
pub fn check_bounds(chain: &[CertificateDer<'_>]) -> Result<(), NotPresentable> {
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    let is_bounded = (1..=MAX_CERTIFICATES).contains(&chain.len()) && bytes <= MAX_CHAIN_BYTES;
    if is_bounded { Ok(()) } else { Err(NotPresentable) }
}

/// Names of people may be in a certificate: its thumbprint says which it is.
impl std::fmt::Debug for PresentedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PresentedCertificate").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

/// The most certificates in one chain.
pub const MAX_CERTIFICATES: usize = 8;
/// The most bytes of one chain.
pub const MAX_CHAIN_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_bounded_and_known_by_its_leaf() {
        let of = |bytes: usize| CertificateDer::from(vec![7_u8; bytes]);
        let shown = PresentedCertificate::proved(&[CertificateDer::from(b"abc".to_vec()), of(9)]).unwrap();
        assert_eq!((shown.leaf(), shown.chain().len()), (b"abc".as_slice(), 2));
        // FIPS 180-2, appendix B.1, in base64url.
        assert_eq!(shown.thumbprint(), "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
        assert!(!format!("{shown:?}").contains("97, 98, 99"), "{shown:?}");
        assert!(PresentedCertificate::proved(&[]).is_err());
        assert!(PresentedCertificate::proved(&vec![of(1); MAX_CERTIFICATES]).is_ok());
        assert!(PresentedCertificate::proved(&vec![of(1); MAX_CERTIFICATES + 1]).is_err());
        assert!(PresentedCertificate::proved(&[of(MAX_CHAIN_BYTES)]).is_ok());
        assert!(PresentedCertificate::proved(&[of(MAX_CHAIN_BYTES), of(1)]).is_err());
    }
}
