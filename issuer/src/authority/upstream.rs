//! A certification authority above ours: what signs our authorities where the trust domain has a root of its own.

use super::{
    AuthorityError,
    certificate::{check_can_sign, check_signed, parse, public_key_sha256, validity},
    key::CertificateKey,
};
use deputize_call::digest::sha256;
use rcgen::Issuer;

/// It, as it was read: its key is held no longer than it takes to sign.
#[derive(Debug)]
pub struct Upstream {
    pub(super) issuer: Issuer<'static, CertificateKey>,
    /// Its own certificate and those above it, without the anchor.
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) anchor: Vec<u8>,
    /// When the first of its certificates ends, in Unix seconds.
    pub(super) not_after_seconds: u64,
}

impl Upstream {
    /// Of its certificates in DER, its own first and the self-signed root last, and its private key.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(certificates: Vec<Vec<u8>>, key: &[u8]) -> Result<Self, AuthorityError> {
        let own_der = certificates.first().ok_or(AuthorityError("there is no certificate"))?.clone();
        if certificates.len() > MAX_CERTIFICATES {
            return Err(AuthorityError("there are too many certificates"));
        }
        let parsed = certificates.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
        let mut not_after_seconds = u64::MAX;
        for (below, certificate) in (1..).zip(&parsed) {
            // Ours comes below its own, and counts as one in between.
            check_can_sign(certificate, below)?;
            not_after_seconds = not_after_seconds.min(validity(certificate)?.1);
        }
        for (below, above) in parsed.iter().zip(parsed.iter().skip(1)) {
            check_signed(below, above)?;
        }
        let (own, root) =
            parsed.first().zip(parsed.last()).ok_or(AuthorityError("there is no certificate"))?;
        check_signed(root, root).map_err(|_| {
            AuthorityError(
                "the last certificate is not self-signed: put the whole chain there, the root last",
            )
        })?;
        let key = CertificateKey::from_der(key)?;
        if public_key_sha256(&key) != sha256(own.public_key().raw) {
            return Err(AuthorityError("the key is not that of the first certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(&own_der.as_slice().into(), key)
            .map_err(|_| AuthorityError("the certificate has a name that cannot be repeated"))?;
        let mut chain = certificates;
        let anchor = chain.pop().ok_or(AuthorityError("there is no certificate"))?;
        Ok(Self { issuer, chain, anchor, not_after_seconds })
    }
}

/// As many as an authority below it may have above it.
const MAX_CERTIFICATES: usize = 7;
