//! A key that whoever wants an X.509-SVID makes itself, and the request to certify it (RFC 2986).

use rcgen::{CertificateParams, PublicKeyData as _};
use spiffe::SpiffeId;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::{
    authority::{AuthorityError, CertificateKey, organization, uri},
    secret::Secret,
};

/// A key pair. Its private half leaves it as PKCS#8 alone.
#[derive(Debug)]
pub struct OwnKey {
    key: CertificateKey,
}

impl OwnKey {
    /// A fresh key on P-256.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<Self, AuthorityError> {
        CertificateKey::generate().map(|key| Self { key })
    }

    /// The request, DER: for this ID, or for whichever whoever signs finds to be its holder's.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn request(&self, spiffe_id: Option<&SpiffeId>) -> Result<Vec<u8>, AuthorityError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = organization();
        parameters.subject_alt_names =
            spiffe_id.map(|id| uri(&id.to_string())).transpose()?.into_iter().collect();
        let request = parameters.serialize_request(&self.key);
        request
            .map(|request| request.der().to_vec())
            .map_err(|_| AuthorityError("the request cannot be signed"))
    }

    /// Whether its public half is in this certificate (DER).
    pub fn is_in(&self, certificate: &[u8]) -> bool {
        let parsed = X509Certificate::from_der(certificate);
        parsed.is_ok_and(|(_, found)| found.public_key().raw == self.key.subject_public_key_info())
    }

    /// Its private half, PKCS#8 DER.
    ///
    /// # Errors
    /// If it cannot be written down.
    pub fn to_pkcs8(&self) -> Result<Secret<Vec<u8>>, AuthorityError> {
        self.key.to_pkcs8()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::svid::RequestedKey;

    #[test]
    fn a_request_is_for_its_key_and_its_id_alone() {
        let key = OwnKey::generate().unwrap();
        let id = SpiffeId::new("spiffe://example.org/web").unwrap();
        let read = RequestedKey::read(&key.request(Some(&id)).unwrap()).unwrap();
        assert_eq!(read.names(), ["spiffe://example.org/web"]);
        assert_eq!(read.public().der_bytes(), key.key.der_bytes());
        let nameless = RequestedKey::read(&key.request(None).unwrap()).unwrap();
        assert!(nameless.names().is_empty());
        let other = OwnKey::generate().unwrap();
        assert_ne!(other.key.der_bytes(), key.key.der_bytes());
    }
}
