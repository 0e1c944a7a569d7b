//! Whose tokens nobody brings as a user's token: one rule for clients and for registration entries.

use std::fmt;

use crate::registry::{Registry, audience_key};

/// Those whom tokens are addressed to that are no user's token to exchange: registered servers, and this broker.
///
/// INVARIANT: what was presented to a server as it stands is brought by that server under `accepts_bearer`, or not at
/// all, so that policy always sees that nothing was proved; and what is made for this broker (assertions, actors'
/// tokens) proves who acts, and never for whom.
#[derive(Debug, Clone, Copy)]
pub struct Addressees<'r> {
    registry: &'r Registry,
    issuer: &'r str,
}

/// An audience whose tokens nobody brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    audience: String,
    is_ours: bool,
}

impl<'r> Addressees<'r> {
    /// The servers of this registry, and the broker whose issuer URL this is.
    pub fn new(registry: &'r Registry, issuer: &'r str) -> Self {
        Self { registry, issuer }
    }

    /// The first of these `subject_audiences` that is one of them.
    pub fn among(&self, subject_audiences: &[String]) -> Option<Addressed> {
        subject_audiences.iter().find_map(|audience| {
            let is_ours = self.is_ours(audience);
            let addressed = is_ours || self.registry.is_addressed(audience);
            addressed.then(|| Addressed { audience: audience.clone(), is_ours })
        })
    }

    /// Our issuers and endpoints: what has one of them as audience was made for us.
    fn is_ours(&self, audience: &str) -> bool {
        let (key, own) = (audience_key(audience), audience_key(self.issuer));
        key.strip_prefix(own.as_str()).is_some_and(|rest| OWN_PATHS.contains(&rest))
    }
}

impl fmt::Display for Addressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subject_audiences names {:?}, ", self.audience)?;
        f.write_str(if self.is_ours {
            "which is this broker's own: tokens for it say who acts, not for whom"
        } else {
            "which is a registered server: what is presented there its own guard alone brings (accepts_bearer of its \
             client)"
        })
    }
}

/// What is ours below the issuer URL, and that itself.
const OWN_PATHS: [&str; 5] = ["", "/token", "/spiffe", "/spiffe/exchange", "/web-identity"];
