//! A certificate signing request (RFC 2986): whose key is to be in an X.509-SVID. Nothing else in it is taken.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
    public_key::PublicKey,
};

use crate::error::IssueError;

/// A key whose holder asked for an SVID with it.
///
/// INVARIANT: whoever asked has signed with it, it is of a kind that we certify, and `names` are all URIs that the
/// request wants.
#[derive(Debug, Clone)]
pub(crate) struct RequestedKey {
    public: SubjectPublicKeyInfo,
    names: Vec<String>,
}

impl RequestedKey {
    /// Reads DER.
    pub(crate) fn read(der: &[u8]) -> Result<Self, IssueError> {
        let refuse = |reason| IssueError::Request(reason);
        if der.len() > MAX_BYTES {
            return Err(refuse("csr_too_long"));
        }
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
            return Err(refuse("csr_malformed"));
        };
        // RFC 2986 §4.2 note 2: proof that whoever asks has the private key.
        if !SIGNATURES.contains(&request.signature_algorithm.algorithm.to_id_string().as_str())
            || request.verify_signature().is_err()
        {
            return Err(refuse("csr_not_signed_by_its_key"));
        }
        let info = &request.certification_request_info;
        let key = info.subject_pki.parsed().map_err(|_| refuse("csr_key"))?;
        let public = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| refuse("csr_key"))?;
        if !is_good(&key, &info.subject_pki.subject_public_key.data) {
            return Err(refuse("csr_key"));
        }
        let mut names = Vec::new();
        let requested = info.iter_attributes().filter_map(|attribute| match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => Some(&requested.extensions),
            _ => None,
        });
        for extension in requested.flatten() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(found) => {
                    names.extend(found.general_names.iter().filter_map(|name| match name {
                        GeneralName::URI(uri) => Some((*uri).to_owned()),
                        _ => None,
                    }));
                }
                ParsedExtension::ParseError { .. } => return Err(refuse("csr_malformed")),
                // Usages, constraints, names of hosts: the entry says what an SVID is like.
                _ => {}
            }
        }
        Ok(Self { public, names })
    }

    /// The key.
    pub(crate) fn public(&self) -> &SubjectPublicKeyInfo {
        &self.public
    }

    /// The URIs that the request wants to be in the SVID.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}

/// P-256, P-384, Ed25519, and RSA of 2,048 to 4,096 bits. Points of curves are written out.
fn is_good(key: &PublicKey<'_>, bytes: &[u8]) -> bool {
    match key {
        PublicKey::EC(_) => bytes.first() == Some(&0x04) && matches!(bytes.len(), 65 | 97),
        PublicKey::RSA(rsa) => {
            (2048..=4096).contains(&rsa.key_size())
                && rsa.try_exponent().is_ok_and(|exponent| exponent >= 65_537 && exponent % 2 == 1)
        }
        PublicKey::Unknown(bytes) => bytes.len() == 32,
        PublicKey::DSA(_) | PublicKey::GostR3410(_) | PublicKey::GostR3410_2012(_) => false,
    }
}

/// A request with a key of 4,096 bits has less than 2 KiB.
const MAX_BYTES: usize = 8 * 1024;
/// RSA with SHA-2, ECDSA with SHA-2 and Ed25519 (RFC 4055 §5, RFC 5758 §3.2, RFC 8410 §3); nothing with SHA-1.
const SIGNATURES: [&str; 6] = [
    "1.2.840.113549.1.1.11",
    "1.2.840.113549.1.1.12",
    "1.2.840.113549.1.1.13",
    "1.2.840.10045.4.3.2",
    "1.2.840.10045.4.3.3",
    "1.3.101.112",
];
