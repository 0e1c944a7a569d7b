//! The certificate that a TLS client showed. TLS has proved that the client has its key, and nothing more: whose it is,
//! and who vouches for it, is for [`authenticate`](crate::authenticate) to say.

mod distinguished_name;
mod expected;
mod path;
#[cfg(test)]
mod tests;

pub use distinguished_name::{DistinguishedName, NotAName};
pub use expected::{ExpectedCertificate, ExpectedName, NotExpectable, OwnCertificate};
pub(crate) use path::{Anchor, Path, leaf_may_sign, verify_path};
pub use path::{NotVouched, Shower};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::digest::sha256;
use rustls_pki_types::CertificateDer;
use spiffe::SpiffeId;
use std::sync::{Arc, Mutex, PoisonError};

use crate::svid::{Bundle, Bundles, NotAnSvid, TracedSvid, trace_x509_svid};

/// What a TLS client showed, in DER, its own certificate first.
///
/// INVARIANT: there is a leaf, and whoever is at the other end of the connection has proved that it has its key; there
/// are [`MAX_CERTIFICATES`] at most, of [`MAX_CHAIN_BYTES`] together.
pub struct PresentedCertificate {
    chain: Vec<CertificateDer<'static>>,
    thumbprint: String,
    found: Mutex<Option<Found>>,
}

/// Who was found to vouch for it. The same connection asks again and again.
struct Found {
    by: By,
    /// When that was found, and until when it holds, in Unix seconds.
    since_seconds: u64,
    until_seconds: u64,
}

/// INVARIANT: what vouched is held, so nothing else is ever at its place.
enum By {
    Bundle(Arc<Bundle>, TracedSvid),
    Expected(Arc<ExpectedCertificate>),
    /// Nobody of these.
    Nobody(Arc<Bundles>, NotAnSvid),
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
            thumbprint: thumbprint(leaf),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            found: Mutex::default(),
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

    /// Whose X.509-SVID it is, and who stands behind it: as [`trace_x509_svid`], which is done once for each bundle.
    pub(crate) fn svid(&self, bundles: &Bundles, now_seconds: u64) -> Result<TracedSvid, NotAnSvid> {
        let known = self.known(now_seconds, |by| match by {
            By::Bundle(bundle, svid)
                if bundles.of(&svid.spiffe_id).is_some_and(|now| Arc::ptr_eq(now, bundle)) =>
            {
                Some(svid.clone())
            }
            By::Bundle(..) | By::Expected(_) | By::Nobody(..) => None,
        });
        if let Some(svid) = known {
            return Ok(svid);
        }
        let (svid, until_seconds) = trace_x509_svid(&self.chain, bundles, now_seconds)?;
        if let Some(bundle) = bundles.of(&svid.spiffe_id) {
            self.remember(By::Bundle(Arc::clone(bundle), svid.clone()), (now_seconds, until_seconds));
        }
        Ok(svid)
    }

    /// Whose X.509-SVID it is: as [`verify_x509_svid`](crate::svid::verify_x509_svid), which is done once for each bundle.
    /// A no is remembered too, for a minute: who asks on and on is not looked at each time.
    ///
    /// # Errors
    /// [`NotAnSvid`].
    pub fn workload(&self, bundles: &Arc<Bundles>, now_seconds: u64) -> Result<SpiffeId, NotAnSvid> {
        let refused = self.known(now_seconds, |by| match by {
            By::Nobody(asked, why) if Arc::ptr_eq(asked, bundles) => Some(*why),
            By::Bundle(..) | By::Expected(_) | By::Nobody(..) => None,
        });
        if let Some(why) = refused {
            return Err(why);
        }
        let found = self.svid(bundles, now_seconds).map(|svid| svid.spiffe_id);
        if let Err(why) = found {
            // Its time may come in the next second.
            let seconds = if why == NotAnSvid::NotYetValid { 0 } else { REFUSAL_SECONDS };
            let until_seconds = now_seconds.saturating_add(seconds);
            let by = By::Nobody(Arc::clone(bundles), why);
            self.find(Found { by, since_seconds: now_seconds, until_seconds });
        }
        found
    }

    /// Whether it is the one that is expected: as [`ExpectedCertificate::check`], which is done once.
    ///
    /// # Errors
    /// [`NotVouched`].
    pub fn vouched_by(
        &self,
        expected: &Arc<ExpectedCertificate>,
        now_seconds: u64,
    ) -> Result<(), NotVouched> {
        let known = self.known(now_seconds, |by| {
            matches!(by, By::Expected(found) if Arc::ptr_eq(found, expected)).then_some(())
        });
        if known.is_none() {
            let path = expected.check(&self.chain, now_seconds)?;
            self.remember(By::Expected(Arc::clone(expected)), (now_seconds, path.anchored_until_seconds));
        }
        Ok(())
    }

    fn known<T>(&self, now_seconds: u64, what: impl FnOnce(&By) -> Option<T>) -> Option<T> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |found: &&Found| (found.since_seconds..=found.until_seconds).contains(&now_seconds);
        found.as_ref().filter(holds).and_then(|found| what(&found.by))
    }

    fn remember(&self, by: By, (now_seconds, anchored_until_seconds): (u64, u64)) {
        // What stands between it and its authority may expire first, and so may that.
        let Some(until_seconds) = path::earliest_end(&self.chain) else { return };
        let until_seconds = until_seconds.min(anchored_until_seconds);
        self.find(Found { by, since_seconds: now_seconds, until_seconds });
    }

    fn find(&self, found: Found) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
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

fn thumbprint(certificate: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(sha256(certificate))
}

/// Names of people may be in a certificate: its thumbprint says which it is.
impl std::fmt::Debug for PresentedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PresentedCertificate").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

/// How long a no is remembered where the bundles stay what they are.
const REFUSAL_SECONDS: u64 = 59;
/// The most certificates in one chain.
pub const MAX_CERTIFICATES: usize = 8;
/// The most bytes of one chain.
pub const MAX_CHAIN_BYTES: usize = 64 * 1024;
