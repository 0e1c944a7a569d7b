//! Door 2: what it gives, SVIDs and the bundles that verify them, and the line by which it gives them.
//!
//! `parse → authenticate → verify_subject` is the socket's: gRPC, the kernel's word about who is there, the entries
//! that match. Here follows the waist, [`issue`](crate::issue::issue), and what is put on record where it says no.

mod own_key;
mod requested;
mod verify;

pub use own_key::OwnKey;
pub(crate) use requested::RequestedKey;
pub use verify::{
    NotAnSvid, SVID_LEEWAY_SECONDS, VerifiedJwtSvid, verify_jwt_svid, verify_x509_svid, verify_x509_svid_of,
};
pub(crate) use verify::{TracedSvid, trace_x509_svid};

use deputize_call::keys::KeySet;
use spiffe::{SpiffeId, TrustDomain};
use std::sync::Arc;

use crate::{
    authority::{Authorities, AuthorityRing},
    bundle::ForeignBundles,
    certificate::PresentedCertificate,
    clock,
    decide::{JwtSvidApplication, OwnSvidApplication, X509SvidApplication},
    desk::Desk,
    entry::LiveEntries,
    error::IssueError,
    issue::issue,
    keys::KeySource,
    record::{RefusedSvid, SvidKind, record_svid_denial},
    secret::Secret,
    workload::Workload,
};

/// What SVIDs need beyond the rest of the desk.
#[derive(Debug)]
pub struct SpiffeDoor {
    /// Ours.
    pub trust_domain: TrustDomain,
    /// `iss` of JWT-SVIDs: `{base}/spiffe`.
    pub issuer: String,
    /// What signs.
    pub authorities: Arc<Authorities>,
    /// The keys of JWT-SVIDs as `{base}/spiffe` publishes them: always those of the bundle.
    pub jwt_keys: Arc<KeySource>,
    /// Who is entitled to what.
    pub entries: Arc<LiveEntries>,
    /// Bundles of other trust domains.
    pub foreign: Arc<ForeignBundles>,
    /// How long SVIDs live.
    pub settings: SvidSettings,
}

impl SpiffeDoor {
    /// The bundles that are here now.
    pub fn bundles(&self) -> Bundles {
        self.bundles_with(&self.authorities.ring())
    }

    /// Whose X.509-SVID a client shows. One of our own domain says who calls as long as what signed it stands: what is
    /// tainted may be in other hands, though the bundle has it still.
    pub(crate) fn x509_caller(
        &self,
        shown: &PresentedCertificate,
        now_seconds: u64,
    ) -> Result<SpiffeId, NotAnSvid> {
        let ring = self.authorities.ring();
        let svid = shown.svid(&self.bundles_with(&ring), now_seconds)?;
        let stands = !svid.spiffe_id.is_member_of(&self.trust_domain) || ring.stands_by(&svid.authorities);
        if stands { Ok(svid.spiffe_id) } else { Err(NotAnSvid::Withdrawn) }
    }

    /// As [`Self::x509_caller`], of a JWT-SVID for this audience.
    pub(crate) fn jwt_caller(
        &self,
        token: &str,
        (now_seconds, audience): (u64, &str),
    ) -> Result<VerifiedJwtSvid, NotAnSvid> {
        let ring = self.authorities.ring();
        let svid = verify_jwt_svid(token, &self.bundles_with(&ring), now_seconds, audience)?;
        let is_trusted = || svid.kid.as_ref().is_some_and(|kid| ring.trusts_key(kid));
        let stands = !svid.spiffe_id.is_member_of(&self.trust_domain) || is_trusted();
        if stands { Ok(svid) } else { Err(NotAnSvid::Withdrawn) }
    }

    fn bundles_with(&self, ring: &AuthorityRing) -> Bundles {
        Bundles { own: Arc::clone(&ring.bundle), federated: self.foreign.now().to_vec() }
    }

    /// The `htu` of proofs for the exchange of attested processes: `{base}/spiffe/exchange`. Nothing is served there;
    /// what it names is the socket of this issuer, which has no URL.
    pub fn exchange_endpoint(&self) -> String {
        format!("{}/exchange", self.issuer)
    }
}

/// How long SVIDs live where their entry does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SvidSettings {
    /// X.509-SVIDs, in seconds.
    pub x509_svid_ttl_seconds: u64,
    /// JWT-SVIDs, in seconds.
    pub jwt_svid_ttl_seconds: u64,
}

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

/// What a process asks for: an X.509-SVID of one entry.
#[derive(Debug, Clone, Copy)]
pub struct X509Ask<'a> {
    /// Who asks.
    pub workload: &'a Workload,
    /// Name of the entry.
    pub entry: &'a str,
    /// Whose key is in it.
    pub key: SvidKey<'a>,
}

/// Whose key is in an X.509-SVID.
#[derive(Debug, Clone, Copy)]
pub enum SvidKey<'a> {
    /// A new one, delivered with it.
    Mint,
    /// That of this certificate signing request (RFC 2986, DER): whoever asks keeps its private half.
    Csr(&'a [u8]),
}

/// What a process asks for: a JWT-SVID of one entry.
#[derive(Debug, Clone, Copy)]
pub struct JwtAsk<'a> {
    /// Who asks.
    pub workload: &'a Workload,
    /// Name of the entry.
    pub entry: &'a str,
    /// Whom it is for.
    pub audiences: &'a [String],
}

/// An X.509-SVID. Every answer, yes or no, is on record when this returns, or counted.
///
/// # Errors
/// [`IssueError::NotEntitled`] where no entry entitles the process to it; [`IssueError::Request`] where the CSR cannot
/// be used; [`IssueError::RateLimited`]; [`IssueError::RecordUnavailable`] and [`IssueError::Uncertain`] where nothing may
/// be issued now.
pub async fn x509_svid(desk: &Desk, ask: &X509Ask<'_>) -> Result<X509Svid, IssueError> {
    let decision_id = clock::new_id(desk.clock.as_ref())?;
    let requested = match ask.key {
        SvidKey::Mint => Ok(None),
        SvidKey::Csr(der) => RequestedKey::read(der).map(Some),
    };
    let issued = match &requested {
        Ok(requested) => {
            let requested = requested.as_ref();
            issue(desk, &X509SvidApplication { decision_id, ask, requested }).await
        }
        Err(error) => Err(error.clone()),
    };
    let refused = RefusedSvid {
        kind: Some(SvidKind::X509),
        workload: ask.workload,
        entry: Some(ask.entry),
        audiences: &[],
    };
    issued.inspect_err(|error| {
        record_svid_denial(desk, decision_id, &refused, error);
    })
}

/// A JWT-SVID. Every answer, yes or no, is on record when this returns, or counted.
///
/// # Errors
/// [`IssueError::NotEntitled`] where no entry entitles the process to it; [`IssueError::Request`] where an audience
/// cannot be; otherwise as [`x509_svid`].
pub async fn jwt_svid(desk: &Desk, ask: &JwtAsk<'_>) -> Result<JwtSvid, IssueError> {
    let decision_id = clock::new_id(desk.clock.as_ref())?;
    let issued = issue(desk, &JwtSvidApplication { decision_id, ask }).await;
    let refused = RefusedSvid {
        kind: Some(SvidKind::Jwt),
        workload: ask.workload,
        entry: Some(ask.entry),
        audiences: ask.audiences,
    };
    issued.inspect_err(|error| {
        record_svid_denial(desk, decision_id, &refused, error);
    })
}

/// The broker's own X.509-SVID, `spiffe://{trust domain}/deputize/broker`, with a new key, for one of its listeners. It is
/// decided and recorded as every other; `purpose` is what the record says of who asked.
///
/// # Errors
/// [`IssueError::RecordUnavailable`] and [`IssueError::Uncertain`] where nothing may be issued now;
/// [`IssueError::UpstreamUnavailable`] where what signs was just withdrawn.
pub async fn own_svid(desk: &Desk, purpose: &str) -> Result<X509Svid, IssueError> {
    let decision_id = clock::new_id(desk.clock.as_ref())?;
    let issued = issue(desk, &OwnSvidApplication { decision_id, purpose }).await;
    issued.inspect_err(|error| desk.refusals.count(error.reason()))
}
