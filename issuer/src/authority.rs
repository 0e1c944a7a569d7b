//! What signs X.509-SVIDs: authorities that come and go, so that no key signs for long and none is missed by who
//! verifies.
//!
//! An authority is *prepared* (in the bundle, and signs nothing yet), *active* (it signs), *old* (it signs no more; what
//! it signed still holds) or *tainted* (what it signed is replaced); then it is gone from the bundle, and what is left of
//! its work verifies no longer. Each state is long enough that everybody has heard of it before the next ([`Stage`]).

mod certificate;
mod key;
mod register;
mod stage;
mod standing;
#[cfg(test)]
mod tests;
mod upstream;

pub use certificate::AuthorityCertificate;
pub(crate) use certificate::{SERIAL_BYTES, hex, new_serial, organization, set_validity, uri};
pub(crate) use key::CertificateKey;
pub use register::{Made, Member, Public, Register};
pub use stage::{Kind, Life, NotNow, Stage, activation};
pub use standing::Standing;
pub use upstream::Upstream;

use arc_swap::ArcSwap;
use deputize_call::{
    keys::{KeySet, PublicKey},
    sign::SigningKey,
};
use rcgen::{CertificateParams, Issuer, PublicKeyData};
use spiffe::TrustDomain;
use std::sync::Arc;
use tokio::sync::watch;

use crate::{keys::Ring, secret::Secret, svid::Bundle};

/// Why there is no such authority, or no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthorityError(pub(crate) &'static str);

/// An authority that can sign: its certificate, and its private key.
#[derive(Debug)]
pub struct Authority {
    certificate: AuthorityCertificate,
    issuer: Issuer<'static, CertificateKey>,
}

/// The key that signs JWT-SVIDs.
#[derive(Debug, Clone)]
pub struct JwtAuthority {
    /// It, for the mint alone.
    pub(crate) key: Arc<SigningKey>,
    /// Until when it is in the bundle for certain, in Unix seconds: nothing that it signs holds longer.
    pub not_after_seconds: u64,
}

/// Where the mint gets the authority that signs, and everybody else the bundle.
#[derive(Debug)]
pub struct Authorities {
    ring: ArcSwap<AuthorityRing>,
    changes: watch::Sender<u64>,
}

/// One state of the ring: swapped as a whole.
#[derive(Debug)]
pub struct AuthorityRing {
    /// Signs X.509-SVIDs.
    pub active: Arc<Authority>,
    /// Signs JWT-SVIDs.
    pub jwt: JwtAuthority,
    /// What those who verify are given.
    pub bundle: Arc<Bundle>,
    /// SHA-256 of the subject public keys (DER) of authorities whose work is to be replaced.
    pub tainted: Vec<[u8; 32]>,
    /// The same, each with since when, in Unix seconds.
    tainted_since: Vec<([u8; 32], u64)>,
    /// The others, likewise.
    untainted: Vec<[u8; 32]>,
    /// Ids of JWT keys that sign no longer, for what they sign is to be replaced. They are in the bundle still.
    tainted_keys: Vec<String>,
}

impl JwtAuthority {
    /// Id of the key.
    pub fn kid(&self) -> &str {
        self.key.kid()
    }
}

impl Authorities {
    /// Stands at this ring, until it is turned.
    pub fn new(ring: AuthorityRing) -> Self {
        Self { ring: ArcSwap::from_pointee(ring), changes: watch::Sender::new(0) }
    }

    /// The ring as it is now.
    pub fn ring(&self) -> arc_swap::Guard<Arc<AuthorityRing>> {
        self.ring.load()
    }

    /// Turns with every change of the ring. What it counts means nothing.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes another ring from now on, and tells everybody who waits.
    pub fn turn_to(&self, ring: AuthorityRing) {
        self.ring.store(Arc::new(ring));
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl AuthorityRing {
    /// The ring of what signs, and of all authorities whose anchors are to be trusted, the one that signs among them.
    ///
    /// `jwt_authorities`, each with where it stands, and `sequence` are those of the bundle.
    pub fn new<'c>(
        trust_domain: TrustDomain,
        (active, known): (Arc<Authority>, impl IntoIterator<Item = (&'c AuthorityCertificate, Life)>),
        (jwt, jwt_authorities): (JwtAuthority, Vec<(PublicKey, Stage)>),
        sequence: u64,
    ) -> Self {
        // INVARIANT: what signs is trusted.
        let mut x509_authorities = vec![active.certificate.anchor().to_vec()];
        let (mut tainted, mut untainted) = (Vec::new(), vec![active.certificate.public_key_sha256()]);
        let mut tainted_since = Vec::new();
        for (certificate, life) in known {
            let these = if life.stage == Stage::Tainted {
                tainted_since.push((certificate.public_key_sha256(), life.since_seconds));
                &mut tainted
            } else {
                &mut untainted
            };
            these.push(certificate.public_key_sha256());
            // Authorities under one upstream have one anchor.
            if !x509_authorities.iter().any(|anchor| anchor == certificate.anchor()) {
                x509_authorities.push(certificate.anchor().to_vec());
            }
        }
        let of_tainted = jwt_authorities.iter().filter(|(_, stage)| *stage == Stage::Tainted);
        let tainted_keys = of_tainted.filter_map(|(key, _)| key.kid().map(str::to_owned)).collect();
        let others = jwt_authorities.into_iter().map(|(key, _)| key);
        let others = others.filter(|key| key.kid() != Some(jwt.key.kid()));
        let jwt_authorities = [jwt.key.public().clone()].into_iter().chain(others).collect();
        let bundle = Bundle {
            trust_domain,
            x509_authorities,
            jwt_authorities: KeySet::new(jwt_authorities),
            sequence,
            refresh_hint_seconds: REFRESH_HINT_SECONDS,
        };
        Self { active, jwt, bundle: Arc::new(bundle), tainted, tainted_since, untainted, tainted_keys }
    }

    /// The keys of JWT-SVIDs, as their issuer publishes them: those of the bundle.
    pub fn jwt_ring(&self) -> Ring {
        let others = self.bundle.jwt_authorities.iter().filter(|key| key.kid() != Some(self.jwt.kid()));
        Ring::new(Arc::clone(&self.jwt.key), others.cloned().collect())
    }

    /// Whether what an authority signed still holds and goes on to be used: it is known, and neither it nor one above it
    /// is tainted. Named by their keys (SHA-256, DER), the one that signed first.
    pub fn stands_by(&self, authorities: &[[u8; 32]]) -> bool {
        standing::stands_by(authorities, (&self.untainted, &self.tainted))
    }

    /// Whether what signed is one of these authorities still, tainted or not.
    pub(crate) fn knows(&self, authorities: &[[u8; 32]]) -> bool {
        let known = |signer| self.untainted.contains(signer) || self.tainted.contains(signer);
        authorities.first().is_some_and(known)
    }

    /// Since when what these signed is to be replaced, in Unix seconds, if it is: since the first of them was tainted.
    pub(crate) fn tainted_since(&self, authorities: &[[u8; 32]]) -> Option<u64> {
        let these = self.tainted_since.iter().filter(|(tainted, _)| authorities.contains(tainted));
        these.map(|(_, since)| *since).min()
    }

    /// What tells elsewhere whether [`Self::stands_by`] something.
    pub fn standing(&self) -> Standing {
        let keys = self.bundle.jwt_authorities.iter().filter_map(|key| key.kid());
        Standing {
            untainted: self.untainted.clone(),
            tainted: self.tainted.clone(),
            jwt_keys: keys.filter(|kid| self.trusts_key(kid)).map(str::to_owned).collect(),
        }
    }

    /// Whether what the JWT key of this id signs now would hold.
    pub(crate) fn trusts_key(&self, kid: &str) -> bool {
        let is_tainted = self.tainted_keys.iter().any(|tainted| tainted == kid);
        !is_tainted && self.bundle.jwt_authorities.iter().any(|key| key.kid() == Some(kid))
    }
}

impl Authority {
    /// A new one that vouches for itself, and its private key as PKCS#8 DER.
    ///
    /// # Errors
    /// If it would live too short, or cannot be made.
    pub fn self_signed(
        trust_domain: &TrustDomain,
        now_seconds: u64,
        ttl_seconds: u64,
    ) -> Result<(Self, Secret<Vec<u8>>), AuthorityError> {
        let key = CertificateKey::generate()?;
        let validity_seconds = span(now_seconds, ttl_seconds, u64::MAX)?;
        let parameters = parameters(&key, trust_domain, validity_seconds)?;
        let certificate = parameters.self_signed(&key).map_err(not_made)?.der().to_vec();
        Self::made((vec![certificate.clone()], certificate), parameters, key, trust_domain)
    }

    /// A new one that another vouches for, and its private key as PKCS#8 DER. It ends with that other at the latest.
    ///
    /// # Errors
    /// As [`Self::self_signed`].
    pub fn under(
        upstream: &Upstream,
        trust_domain: &TrustDomain,
        now_seconds: u64,
        ttl_seconds: u64,
    ) -> Result<(Self, Secret<Vec<u8>>), AuthorityError> {
        let key = CertificateKey::generate()?;
        let validity_seconds = span(now_seconds, ttl_seconds, upstream.not_after_seconds)?;
        let mut parameters = parameters(&key, trust_domain, validity_seconds)?;
        parameters.use_authority_key_identifier_extension = true;
        let own = parameters.signed_by(&key, &upstream.issuer).map_err(not_made)?.der().to_vec();
        let chain = [vec![own], upstream.chain.clone()].concat();
        Self::made((chain, upstream.anchor.clone()), parameters, key, trust_domain)
    }

    /// One that was made before, with its private key.
    ///
    /// # Errors
    /// If the key is none, or another's.
    pub fn restore(certificate: AuthorityCertificate, pkcs8: &[u8]) -> Result<Self, AuthorityError> {
        let key = CertificateKey::from_der(pkcs8)?;
        if certificate::public_key_sha256(&key) != certificate.public_key_sha256() {
            return Err(AuthorityError("the key is not that of the certificate"));
        }
        let own = certificate.chain().first().ok_or(AuthorityError("there is no certificate"))?;
        let issuer = Issuer::from_ca_cert_der(&own.as_slice().into(), key).map_err(not_made)?;
        Ok(Self { certificate, issuer })
    }

    /// Its public side.
    pub fn certificate(&self) -> &AuthorityCertificate {
        &self.certificate
    }

    /// Signs a certificate (DER). For the mint alone.
    pub(crate) fn sign(
        &self,
        parameters: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Vec<u8>, AuthorityError> {
        Ok(parameters.signed_by(key, &self.issuer).map_err(not_made)?.der().to_vec())
    }

    /// What was just made is read as it will be read by others.
    fn made(
        (chain, anchor): (Vec<Vec<u8>>, Vec<u8>),
        parameters: CertificateParams,
        key: CertificateKey,
        trust_domain: &TrustDomain,
    ) -> Result<(Self, Secret<Vec<u8>>), AuthorityError> {
        let certificate = AuthorityCertificate::read(chain, anchor, trust_domain)?;
        let pkcs8 = key.to_pkcs8()?;
        Ok((Self { certificate, issuer: Issuer::new(parameters, key) }, pkcs8))
    }
}

fn parameters(
    key: &CertificateKey,
    trust_domain: &TrustDomain,
    validity_seconds: (u64, u64),
) -> Result<CertificateParams, AuthorityError> {
    certificate::parameters(trust_domain, &certificate::public_key_sha256(key), validity_seconds)
}

/// From when until when a new authority is valid, in Unix seconds.
fn span(now_seconds: u64, ttl_seconds: u64, latest_seconds: u64) -> Result<(u64, u64), AuthorityError> {
    let not_after_seconds = now_seconds.saturating_add(ttl_seconds).min(latest_seconds);
    if not_after_seconds < now_seconds.saturating_add(SHORTEST_LIFE_SECONDS) {
        return Err(AuthorityError("it would end at once: the certificate above it is about to expire"));
    }
    Ok((now_seconds.saturating_sub(BACKDATED_SECONDS), not_after_seconds))
}

fn not_made(_: rcgen::Error) -> AuthorityError {
    AuthorityError("a certificate cannot be made")
}

/// How often a bundle is worth asking for again, in seconds (SPIFFE Trust Domain and Bundle §4.1.3).
pub const REFRESH_HINT_SECONDS: u64 = 300;
/// How long before now a certificate begins, in seconds: clocks of others are behind.
pub(crate) const BACKDATED_SECONDS: u64 = 10;
/// Less is no life of an authority, in seconds.
const SHORTEST_LIFE_SECONDS: u64 = 60;
