//! What is kept of authorities, as its file says it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_call::{json::Object, keys::PublicKey};
use deputize_issuer::{
    authority::{AuthorityCertificate, Life, Member, Public, Register, Stage},
    secret::Secret,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use spiffe::TrustDomain;
use std::path::PathBuf;

use super::{
    super::key_files::{KeyFileError, problem, read_private},
    Kept,
};

/// How authorities are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Making {
    /// How long each lives, in seconds.
    pub ttl_seconds: u64,
    /// What vouches for those that sign X.509-SVIDs; nothing where they vouch for themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamFiles>,
}

/// A certification authority on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamFiles {
    /// PEM: its certificate first, then those above it, the self-signed root last.
    pub certificate_file: PathBuf,
    /// PEM: its private key.
    pub key_file: PathBuf,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    v: u8,
    trust_domain: String,
    sequence: u64,
    making: Making,
    authorities: Vec<Stored>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    id: String,
    stage: Stage,
    since: u64,
    not_before: u64,
    not_after: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activates_at: Option<u64>,
    signs: StoredPublic,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum StoredPublic {
    /// Certificates in DER, base64.
    X509 { chain: Vec<String>, anchor: String },
    /// A public JWK.
    Jwt { jwk: Object },
}

impl Document {
    pub(super) fn of(kept: &Kept) -> Self {
        let register = &kept.register;
        Self {
            v: VERSION,
            trust_domain: register.trust_domain().to_string(),
            sequence: register.sequence(),
            making: kept.making.clone(),
            authorities: register.members().iter().map(Stored::of).collect(),
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Kept, String> {
        let document: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if document.v != VERSION {
            return Err(format!("version {} is not known here", document.v));
        }
        let trust_domain = TrustDomain::new(&document.trust_domain).map_err(|error| error.to_string())?;
        let members = document.authorities.into_iter().map(|stored| stored.into_member(&trust_domain));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        let register = Register::restore(trust_domain, document.sequence, members);
        Ok(Kept { register: register.map_err(|error| error.to_string())?, making: document.making })
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }
}

impl Stored {
    fn of(member: &Member) -> Self {
        let life = &member.life;
        let public = match &member.public {
            Public::X509(certificate) => StoredPublic::X509 {
                chain: certificate.chain().iter().map(|der| STANDARD.encode(der)).collect(),
                anchor: STANDARD.encode(certificate.anchor()),
            },
            Public::Jwt(key) => StoredPublic::Jwt { jwk: key.to_jwk() },
        };
        Self {
            id: member.id.clone(),
            stage: life.stage,
            since: life.since_seconds,
            not_before: life.not_before_seconds,
            not_after: life.not_after_seconds,
            activates_at: life.activates_at_seconds,
            signs: public,
        }
    }

    fn into_member(self, trust_domain: &TrustDomain) -> Result<Member, String> {
        let public = self.signs.read(trust_domain).map_err(|error| format!("{}: {error}", self.id))?;
        let id = match &public {
            Public::X509(certificate) => certificate.id(),
            Public::Jwt(key) => key.kid().unwrap_or_default().to_owned(),
        };
        if id != self.id {
            return Err(format!("{}: the key is another's, {id}", self.id));
        }
        let life = Life {
            stage: self.stage,
            since_seconds: self.since,
            not_before_seconds: self.not_before,
            not_after_seconds: self.not_after,
            activates_at_seconds: self.activates_at,
        };
        Ok(Member { id, life, public })
    }
}

impl StoredPublic {
    fn read(self, trust_domain: &TrustDomain) -> Result<Public, String> {
        let der = |text: &String| STANDARD.decode(text).map_err(|error| error.to_string());
        match self {
            Self::X509 { chain, anchor } => {
                let chain = chain.iter().map(der).collect::<Result<Vec<_>, _>>()?;
                let certificate = AuthorityCertificate::read(chain, der(&anchor)?, trust_domain);
                certificate.map(Public::X509).map_err(|error| error.to_string())
            }
            Self::Jwt { jwk } => {
                PublicKey::from_jwk(&jwk).map(Public::Jwt).map_err(|error| error.to_string())
            }
        }
    }
}

/// Certificates and private key, each in DER.
pub(super) type UpstreamDer = (Vec<Vec<u8>>, Secret<Vec<u8>>);

impl UpstreamFiles {
    /// Its certificates and its key, in DER.
    pub(super) fn read_der(&self) -> Result<UpstreamDer, KeyFileError> {
        let file = &self.certificate_file;
        let pem = std::fs::read(file).map_err(|error| problem(file, &error))?;
        let certificates = CertificateDer::pem_slice_iter(&pem)
            .map(|certificate| certificate.map(|der| der.to_vec()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| problem(file, &error))?;
        let file = &self.key_file;
        let pem = read_private(file)?.ok_or_else(|| problem(file, &"there is no such file"))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| problem(file, &error))?;
        Ok((certificates, Secret::new(key.secret_der().to_vec())))
    }
}

const VERSION: u8 = 1;
