//! What door 2 gives: SVIDs, and the bundles that verify them.

use deputize_call::keys::KeySet;
use spiffe::{SpiffeId, TrustDomain};
use std::sync::Arc;

use crate::secret::Secret;

/// An X.509-SVID (SPIFFE X509-SVID).
#[derive(Debug)]
pub struct X509Svid {
    /// Its SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// The entry that it was minted for.
    pub entry: Box<str>,
    /// DER certificates, leaf first, without the trust anchor.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's key, PKCS#8 DER; none where the key was made by who asked, with a CSR.
    pub private_key: Option<Secret<Vec<u8>>>,
    /// From when it is valid, in Unix seconds.
    pub not_before_seconds: u64,
    /// Until when it is valid, in Unix seconds.
    pub not_after_seconds: u64,
    /// The entry's hint.
    pub hint: String,
    /// The authorities that its chain leads to, intermediate ones too: SHA-256 of each one's subject public key info
    /// (DER). If one is tainted, so is this.
    pub authorities: Vec<[u8; 32]>,
}

/// A JWT-SVID (SPIFFE JWT-SVID).
#[derive(Debug)]
pub struct JwtSvid {
    /// Its SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// The compact JWS.
    pub token: Secret<String>,
    /// Until when it is valid, in Unix seconds.
    pub expires_at_seconds: u64,
    /// The entry's hint.
    pub hint: String,
}

/// The trust bundle of one trust domain at one moment (SPIFFE Trust Domain and Bundle §4).
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Whose it is.
    pub trust_domain: TrustDomain,
    /// X.509 authorities, DER, each self-signed or taken as if.
    pub x509_authorities: Vec<Vec<u8>>,
    /// JWT authorities.
    pub jwt_authorities: KeySet,
    /// Grows with each change.
    pub sequence: u64,
    /// How often it is worth asking again, in seconds.
    pub refresh_hint_seconds: u64,
}

/// Our bundle, and those of foreign trust domains. Never merged: who verifies takes the one of the SVID's own domain.
#[derive(Debug, Clone)]
pub struct Bundles {
    /// Ours.
    pub own: Arc<Bundle>,
    /// Of each trust domain that we federate with, and whose bundle is here.
    pub federated: Vec<Arc<Bundle>>,
}
