//! Who is at the other end of the connection: the workload whose X.509-SVID the TLS client has shown, and whether it may
//! call, and for whom.

use crate::{headers::IncomingCall, refusal::Reason};
use deputize_call::claims::ToolCallClaims;

/// What whoever terminates TLS found in the client's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caller<'a>(Found<'a>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Found<'a> {
    /// No certificate, or none that was looked at.
    #[default]
    Nothing,
    /// An X.509-SVID of this SPIFFE ID.
    Svid(&'a str),
    /// No X.509-SVID that holds here, and why.
    NoSvid(&'static str),
    /// Something, and nothing is known by which it could be looked at.
    Undecided,
    /// The guard itself, with a token that it got for somebody at whom it has looked.
    Guard,
}

/// That callers show X.509-SVIDs, and whose. A certificate that is shown has to be one, and the workload has to be the
/// one that acts by the token, where the token names one (S-06).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallerSvids {
    /// Who may call: nobody else, and nobody without. Empty where whoever shows none is let in too.
    pub required: Vec<SpiffeIdPattern>,
    /// Whether a workload that acts by a token may call without showing its SVID, where none is required. Not by default:
    /// another process that got hold of token and key would pass for it.
    pub svidless: bool,
}

/// One SPIFFE ID, or all that begin with the same segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeIdPattern(Box<str>);

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give spiffe://TRUST-DOMAIN/PATH, with /* at the end for all below, or spiffe://* for all")]
pub struct NoPattern;

impl<'a> Caller<'a> {
    /// The workload whose X.509-SVID the client has shown: by the authorities of its own trust domain, in its time, and
    /// TLS has proved that the client has its key.
    pub fn workload(spiffe_id: &'a str) -> Self {
        Self(Found::Svid(spiffe_id))
    }

    /// The client has shown a certificate that is no X.509-SVID here.
    pub fn no_workload(why: &'static str) -> Self {
        Self(Found::NoSvid(why))
    }

    /// The client has shown a certificate, and the bundles by which it could be verified are not known now.
    pub fn undecided() -> Self {
        Self(Found::Undecided)
    }

    /// Whoever brings a token that this guard got for its own use.
    #[cfg(feature = "proxy")]
    pub(crate) fn guard() -> Self {
        Self(Found::Guard)
    }
}

impl CallerSvids {
    /// Whether whoever has sent this may call at all.
    pub(crate) fn admit(&self, call: &IncomingCall<'_>) -> Result<(), Reason> {
        match call.caller.0 {
            Found::NoSvid(why) => Err(Reason::Caller(why)),
            Found::Undecided => Err(Reason::NoBundles),
            Found::Nothing if self.required.is_empty() => Ok(()),
            Found::Nothing => Err(Reason::Caller("no X.509-SVID was shown")),
            Found::Svid(id) if self.required.is_empty() || self.required.iter().any(|it| it.fits(id)) => {
                Ok(())
            }
            Found::Svid(_) => Err(Reason::Caller("not one of the workloads that may call")),
            Found::Guard => Ok(()),
        }
    }

    /// Whether the workload is the one that acts, and has shown that it is. A token whose actor has no SPIFFE ID says
    /// nothing of workloads.
    pub(crate) fn acts(&self, call: &IncomingCall<'_>, claims: &ToolCallClaims) -> Result<(), Reason> {
        let actor = claims.act.as_ref().map(|act| act.sub.as_str());
        match (call.caller.0, actor.filter(|actor| actor.starts_with(SCHEME))) {
            (Found::Svid(id), Some(actor)) if id != actor => {
                Err(Reason::TokenRefused("its actor is another workload than the one that sends it"))
            }
            (Found::Nothing, Some(_)) if !self.svidless => {
                Err(Reason::Caller("the workload that acts has shown no X.509-SVID"))
            }
            _ => Ok(()),
        }
    }
}

impl SpiffeIdPattern {
    /// Reads one.
    ///
    /// # Errors
    /// [`NoPattern`].
    pub fn parse(text: &str) -> Result<Self, NoPattern> {
        let rest = text.strip_prefix(SCHEME).ok_or(NoPattern)?;
        let path = rest.strip_suffix("/*").unwrap_or(rest);
        let mut segments = path.split('/');
        let domain = segments.next().unwrap_or_default();
        // SPIFFE-ID §2.1, §2.2.
        let is_domain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let is_segment = |segment: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            !segment.is_empty() && segment.bytes().all(is_plain) && segment != "." && segment != ".."
        };
        let names_somebody = rest != path || path.contains('/');
        let is_good = !domain.is_empty() && domain.bytes().all(is_domain) && segments.all(is_segment);
        if rest == "*" || (is_good && names_somebody) { Ok(Self(text.into())) } else { Err(NoPattern) }
    }

    /// Whether this SPIFFE ID is meant.
    fn fits(&self, id: &str) -> bool {
        match self.0.strip_suffix('*') {
            // INVARIANT: what stands before the star ends with a slash, so that whole segments are compared.
            Some(beginning) => id.len() > beginning.len() && id.starts_with(beginning),
            None => id == &*self.0,
        }
    }
}

const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_compare_whole_segments() {
        for (pattern, id, fits) in [
            ("spiffe://acme.example/agent/bot", "spiffe://acme.example/agent/bot", true),
            ("spiffe://acme.example/agent/bot", "spiffe://acme.example/agent/bot2", false),
            ("spiffe://acme.example/agent/bot", "spiffe://acme.example/agent/Bot", false),
            ("spiffe://acme.example/agent/*", "spiffe://acme.example/agent/bot", true),
            ("spiffe://acme.example/agent/*", "spiffe://acme.example/agent/eu/bot", true),
            ("spiffe://acme.example/agent/*", "spiffe://acme.example/agent", false),
            ("spiffe://acme.example/agent/*", "spiffe://acme.example/agents/bot", false),
            ("spiffe://acme.example/*", "spiffe://acme.example/agent", true),
            ("spiffe://acme.example/*", "spiffe://acme.example.evil.test/agent", false),
            ("spiffe://*", "spiffe://partner.example/agent", true),
        ] {
            assert_eq!(SpiffeIdPattern::parse(pattern).unwrap().fits(id), fits, "{pattern} {id}");
        }
    }

    #[test]
    fn what_would_mean_something_else_is_no_pattern() {
        for text in [
            "",
            "*",
            "spiffe://",
            "spiffe://acme.example",
            "spiffe://acme.example/",
            "spiffe://acme.example*",
            "spiffe://*/agent",
            "spiffe://acme.example/a*",
            "spiffe://acme.example/*/b",
            "spiffe://acme.example//*",
            "spiffe://acme.example/../*",
            "spiffe://Acme.example/a",
            "spiffe://acme.example:8443/a",
            "spiffe://acme.example/a%2fb",
            "https://acme.example/a",
        ] {
            assert_eq!(SpiffeIdPattern::parse(text), Err(NoPattern), "{text}");
        }
    }
}
