//! Whether an SVID holds: signed by an authority of its own trust domain, and in the form that SPIFFE gives it.
//! (SPIFFE X509-SVID §4, §5; JWT-SVID §2 to §4.)

use deputize_call::{
    json::Object,
    jws::{self, EmbeddedKey, JwsError, Times, UnverifiedJws},
    keys::Algorithm,
};
use rustls_pki_types::CertificateDer;
use spiffe::{SpiffeId, TrustDomain};
use std::sync::Arc;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::{Bundle, Bundles};
use crate::{
    certificate::{Anchor, NotVouched, Shower, check_bounds, verify_path},
    entry::parse_spiffe_id,
};

/// Why something is no SVID that holds here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnSvid {
    /// It cannot be read.
    #[error("{0}")]
    Malformed(&'static str),
    /// It names nobody, or not one alone, or something that is no SPIFFE ID.
    #[error("{0}")]
    Identity(&'static str),
    /// It is something else: an authority's certificate, an access token.
    #[error("{0}")]
    Kind(&'static str),
    /// There is no bundle of its trust domain here.
    #[error("its trust domain is unknown here")]
    TrustDomain,
    /// No authority of its trust domain stands behind it.
    #[error("{0}")]
    Signature(&'static str),
    /// Its time has not come.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Its time is over.
    #[error("it has no time to live left")]
    Expired,
    /// It was made for somebody else to look at.
    #[error("it is for another audience")]
    Audience,
    /// What signed it is to sign for nobody any more, or is gone.
    #[error("what signed it was withdrawn")]
    Withdrawn,
}

/// An X.509-SVID that holds, and who stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TracedSvid {
    /// Whose it is.
    pub(crate) spiffe_id: SpiffeId,
    /// SHA-256 of each authority's subject public key info (DER), the one that signed it first.
    pub(crate) authorities: Vec<[u8; 32]>,
}

/// A JWT-SVID that holds.
#[derive(Debug)]
pub struct VerifiedJwtSvid {
    /// Whose it is.
    pub spiffe_id: SpiffeId,
    /// All that it says.
    pub claims: Object,
    /// From when until when.
    pub times: Times,
    /// Id of the key that signed it, where that has one.
    pub kid: Option<String>,
}

/// Whose X.509-SVID a client shows, the leaf first: by the authorities of its own trust domain, and no others.
///
/// That whoever shows it has its key is for TLS to prove.
///
/// # Errors
/// [`NotAnSvid`].
pub fn verify_x509_svid(
    chain: &[CertificateDer<'_>],
    bundles: &Bundles,
    now_seconds: u64,
) -> Result<SpiffeId, NotAnSvid> {
    verify_x509_svid_of(Shower::Client, chain, bundles, now_seconds)
}

/// As [`verify_x509_svid`], of either end.
///
/// # Errors
/// [`NotAnSvid`].
pub fn verify_x509_svid_of(
    shower: Shower,
    chain: &[CertificateDer<'_>],
    bundles: &Bundles,
    now_seconds: u64,
) -> Result<SpiffeId, NotAnSvid> {
    trace(shower, chain, bundles, now_seconds).map(|(svid, _)| svid.spiffe_id)
}

/// As [`verify_x509_svid`]; and who stands behind it, and until when that authority does (Unix seconds).
pub(crate) fn trace_x509_svid(
    chain: &[CertificateDer<'_>],
    bundles: &Bundles,
    now_seconds: u64,
) -> Result<(TracedSvid, u64), NotAnSvid> {
    trace(Shower::Client, chain, bundles, now_seconds)
}

fn trace(
    shower: Shower,
    chain: &[CertificateDer<'_>],
    bundles: &Bundles,
    now_seconds: u64,
) -> Result<(TracedSvid, u64), NotAnSvid> {
    check_bounds(chain)
        .map_err(|_| NotAnSvid::Malformed("there is no certificate, or there are too many"))?;
    let id = identity(chain.first().ok_or(NotAnSvid::Malformed("there is no certificate"))?)?;
    // SPIFFE Trust Domain and Bundle §3: an authority of one trust domain vouches for nobody of another.
    let bundle = bundles.of(&id).ok_or(NotAnSvid::TrustDomain)?;
    let anchors: Vec<_> = bundle.x509_authorities.iter().filter_map(|der| Anchor::read(der)).collect();
    let is_for = |der: &[u8]| vouches_for(der, id.trust_domain());
    let path = verify_path(shower, chain, &anchors, now_seconds, is_for).map_err(explain_path)?;
    Ok((TracedSvid { spiffe_id: id, authorities: path.authorities }, path.anchored_until_seconds))
}

/// Verifies a JWT-SVID with the authorities of its own trust domain, for this audience among those that it has.
///
/// # Errors
/// [`NotAnSvid`].
pub fn verify_jwt_svid(
    token: &str,
    bundles: &Bundles,
    now_seconds: u64,
    audience: &str,
) -> Result<VerifiedJwtSvid, NotAnSvid> {
    let jws = jws::parse(token, EmbeddedKey::Refused).map_err(explain_token)?;
    check_header(&jws)?;
    let subject = jws::string_claim(&jws.claims, "sub", MAX_ID_BYTES).map_err(explain_token)?;
    let spiffe_id =
        parse_spiffe_id(subject).map_err(|_| NotAnSvid::Identity("its subject is no SPIFFE ID"))?;
    let bundle = bundles.of(&spiffe_id).ok_or(NotAnSvid::TrustDomain)?;
    let key = bundle.jwt_authorities.find(&jws).map_err(explain_token)?;
    key.verify(&jws).map_err(explain_token)?;
    let kid = key.kid().map(str::to_owned);
    // JWT-SVID §3.3: required.
    let times = jws::check_times(&jws.claims, now_seconds, SVID_LEEWAY_SECONDS).map_err(explain_token)?;
    let audiences = jws::audiences(&jws.claims, MAX_AUDIENCES).map_err(explain_token)?;
    if !audiences.contains(&audience) {
        return Err(NotAnSvid::Audience);
    }
    Ok(VerifiedJwtSvid { spiffe_id, claims: jws.claims, times, kid })
}

impl Bundles {
    /// The bundle of the trust domain that this ID is of, and no other (SPIFFE Trust Domain and Bundle §3).
    pub fn of(&self, id: &SpiffeId) -> Option<&Arc<Bundle>> {
        let mut all = [&self.own].into_iter().chain(&self.federated);
        all.find(|bundle| id.is_member_of(&bundle.trust_domain))
    }
}

impl NotAnSvid {
    /// The constant word under which it is counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "svid_malformed",
            Self::Identity(_) => "svid_identity",
            Self::Kind(_) => "svid_kind",
            Self::TrustDomain => "svid_trust_domain",
            Self::Signature(_) => "svid_signature",
            Self::NotYetValid => "svid_not_yet_valid",
            Self::Expired => "svid_expired",
            Self::Audience => "svid_audience",
            Self::Withdrawn => "svid_withdrawn",
        }
    }
}

/// Whom a leaf names, if it is one as X509-SVID §4 has them.
fn identity(leaf: &CertificateDer<'_>) -> Result<SpiffeId, NotAnSvid> {
    let malformed = NotAnSvid::Malformed("it is no certificate in DER");
    let Ok(([], certificate)) = X509Certificate::from_der(leaf) else { return Err(malformed) };
    // X509-SVID §5.2: whatever may sign SVIDs is none that somebody shows.
    if certificate.basic_constraints().map_err(|_| malformed)?.is_some_and(|constraints| constraints.value.ca)
    {
        return Err(NotAnSvid::Kind("it is the certificate of an authority"));
    }
    // X509-SVID §4.3: there on every SVID.
    let usage = certificate.key_usage().map_err(|_| malformed)?.map(|usage| usage.value);
    let usage = usage.ok_or(NotAnSvid::Kind("it does not say what its key is for"))?;
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(NotAnSvid::Kind("its key is for other things than signing for its holder"));
    }
    let uris = uris(&certificate)?;
    let [uri] = uris.as_slice() else {
        // X509-SVID §2: exactly one.
        return Err(NotAnSvid::Identity("it has not exactly one URI"));
    };
    let id = parse_spiffe_id(uri).map_err(|_| NotAnSvid::Identity("its URI is no SPIFFE ID"))?;
    // X509-SVID §3.1: that of a trust domain itself is an authority's.
    if id.path().is_empty() {
        return Err(NotAnSvid::Identity("its SPIFFE ID has no path"));
    }
    Ok(id)
}

/// X509-SVID §3.2, §4.1: an authority that has a SPIFFE ID has that of its trust domain, and signs for nobody else.
fn vouches_for(authority: &[u8], trust_domain: &TrustDomain) -> bool {
    let Ok(([], certificate)) = X509Certificate::from_der(authority) else { return false };
    let own = trust_domain.id_string();
    let is_own = |uri: &str| uri == own || !uri.to_ascii_lowercase().starts_with("spiffe:");
    uris(&certificate).is_ok_and(|uris| uris.into_iter().all(is_own))
}

fn uris<'c>(certificate: &'c X509Certificate<'_>) -> Result<Vec<&'c str>, NotAnSvid> {
    let unreadable = NotAnSvid::Malformed("its names cannot be read");
    let Some(names) = certificate.subject_alternative_name().map_err(|_| unreadable)? else {
        return Ok(Vec::new());
    };
    let mut uris = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            // One that is unreadable may be a second URI.
            GeneralName::Invalid(..) => return Err(unreadable),
            _ => {}
        }
    }
    Ok(uris)
}

fn check_header(jws: &UnverifiedJws<'_>) -> Result<(), NotAnSvid> {
    // JWT-SVID §2.1: those of RFC 7518 §3.3 to §3.5, so not EdDSA.
    if jws.header.alg == Algorithm::EdDSA {
        return Err(NotAnSvid::Kind("its algorithm is not one of a JWT-SVID"));
    }
    // JWT-SVID §2.3. An access token (`at+jwt`) under the same keys would be another thing.
    match jws.header.typ.as_deref() {
        None | Some("jwt" | "jose") => Ok(()),
        Some(_) => Err(NotAnSvid::Kind("its type is not that of a JWT-SVID")),
    }
}

fn explain_token(error: JwsError) -> NotAnSvid {
    match error {
        JwsError::TooLong => NotAnSvid::Malformed("it is too long"),
        JwsError::Malformed(why) | JwsError::Header(why) | JwsError::Key(why) => NotAnSvid::Malformed(why),
        JwsError::Claim("exp", "expired") => NotAnSvid::Expired,
        JwsError::Claim("exp", _) => NotAnSvid::Malformed("it does not say until when it is good"),
        JwsError::Claim("nbf" | "iat", "not yet valid" | "in the future") => NotAnSvid::NotYetValid,
        JwsError::Claim(..) => NotAnSvid::Malformed("a claim is missing or has an unacceptable value"),
        JwsError::Algorithm => NotAnSvid::Kind("its algorithm is not allowed"),
        JwsError::UnknownKey => NotAnSvid::Signature("no key of its trust domain signed it"),
        _ => NotAnSvid::Signature("its signature does not verify"),
    }
}

fn explain_path(error: NotVouched) -> NotAnSvid {
    match error {
        NotVouched::Expired => NotAnSvid::Expired,
        NotVouched::NotYetValid => NotAnSvid::NotYetValid,
        NotVouched::Usage => NotAnSvid::Kind("its key is not for this end of a connection"),
        NotVouched::Authority | NotVouched::Name | NotVouched::Svid => {
            NotAnSvid::Signature("no authority of its trust domain stands behind it")
        }
        NotVouched::Malformed => NotAnSvid::Malformed("it is no certificate that can be used"),
    }
}

/// How long after its end a JWT-SVID is taken, in seconds (JWT-SVID, Appendix A: small).
pub const SVID_LEEWAY_SECONDS: u64 = 5;
const MAX_AUDIENCES: usize = 64;
const MAX_ID_BYTES: usize = 2048;

#[cfg(test)]
mod tests;
