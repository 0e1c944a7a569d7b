//! May this process have this SVID? Its entry decides: it has to be there now, and everything in it true of the process.

use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;

use deputize_call::sign::SigningKey;
use spiffe::{SpiffeId, TrustDomain};

use super::{Decide, Decision, Grant, Leaf};
use crate::{
    clock,
    desk::Desk,
    entry::Entry,
    error::IssueError,
    node::SeenBy,
    record::asked_by,
    svid::{JwtAsk, RequestedKey, SpiffeDoor, X509Ask},
    workload::Workload,
};

/// An X.509-SVID that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct X509SvidApplication<'a> {
    /// Id of the decision, made at the door.
    pub(crate) decision_id: Uuid,
    /// For what.
    pub(crate) ask: &'a X509Ask<'a>,
    /// The key that whoever asks has, where it has one.
    pub(crate) requested: Option<&'a RequestedKey>,
}

/// A JWT-SVID that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JwtSvidApplication<'a> {
    /// Id of the decision, made at the door.
    pub(crate) decision_id: Uuid,
    /// For what.
    pub(crate) ask: &'a JwtAsk<'a>,
}

/// What was granted: an X.509-SVID. For the record and the mint alone.
#[derive(Debug)]
pub struct X509SvidTerms {
    pub(crate) decision_id: Uuid,
    pub(crate) entry: Arc<Entry>,
    pub(crate) node: SpiffeId,
    pub(crate) seen_by: Option<SeenBy>,
    pub(crate) asked_by: Vec<String>,
    pub(crate) leaf: Leaf,
}

/// What was granted: a JWT-SVID. For the record and the mint alone.
#[derive(Debug)]
pub struct JwtSvidTerms {
    pub(crate) decision_id: Uuid,
    pub(crate) entry: Arc<Entry>,
    pub(crate) node: SpiffeId,
    pub(crate) seen_by: Option<SeenBy>,
    pub(crate) asked_by: Vec<String>,
    pub(crate) claims: JwtSvidClaims,
    pub(crate) key: Arc<SigningKey>,
}

/// What a JWT-SVID says (JWT-SVID §3, RFC 7519 §4.1): this, and nothing else.
#[derive(Debug, Serialize)]
pub(crate) struct JwtSvidClaims {
    pub(crate) sub: String,
    pub(crate) aud: Vec<String>,
    pub(crate) exp: u64,
    pub(crate) iat: u64,
    pub(crate) iss: String,
    pub(crate) jti: String,
}

impl Decide for X509SvidApplication<'_> {
    type Terms = X509SvidTerms;

    fn decide(&self, desk: &Desk) -> Result<Decision<X509SvidTerms>, IssueError> {
        let door = open_door(desk)?;
        let (workload, now) = (self.ask.workload, desk.clock.now_seconds());
        let entry = entitled(door, (workload, self.ask.entry), now)?;
        admit(desk, "x509", workload, &entry)?;
        if let Some(requested) = self.requested {
            check_names(requested, &entry.spiffe_id)?;
        }
        let authority = Arc::clone(&door.authorities.ring().active);
        let ttl = entry.x509_svid_ttl_seconds.unwrap_or(door.settings.x509_svid_ttl_seconds);
        let not_after_seconds = end(&entry, (now, ttl), authority.certificate().not_after_seconds())?;
        let leaf = Leaf::new(entry.spiffe_id.clone(), (now, not_after_seconds), authority, self.requested)?;
        Ok(Decision::Grant(Grant {
            terms: X509SvidTerms {
                decision_id: self.decision_id,
                node: workload.node().clone(),
                seen_by: workload.witness().cloned(),
                asked_by: asked_by(workload),
                leaf: Leaf { dns_names: entry.dns_names.clone(), ..leaf },
                entry,
            },
        }))
    }
}

impl Decide for JwtSvidApplication<'_> {
    type Terms = JwtSvidTerms;

    fn decide(&self, desk: &Desk) -> Result<Decision<JwtSvidTerms>, IssueError> {
        let door = open_door(desk)?;
        let (workload, now) = (self.ask.workload, desk.clock.now_seconds());
        let entry = entitled(door, (workload, self.ask.entry), now)?;
        admit(desk, "jwt", workload, &entry)?;
        check_audiences(desk, self.ask.audiences)?;
        let ring = door.authorities.ring();
        let ttl = entry.jwt_svid_ttl_seconds.unwrap_or(door.settings.jwt_svid_ttl_seconds);
        let claims = JwtSvidClaims {
            sub: entry.spiffe_id.to_string(),
            aud: self.ask.audiences.to_vec(),
            exp: end(&entry, (now, ttl.min(LONGEST_JWT_SVID_SECONDS)), ring.jwt.not_after_seconds)?,
            iat: now,
            iss: door.issuer.clone(),
            jti: clock::new_id(desk.clock.as_ref())?.to_string(),
        };
        Ok(Decision::Grant(Grant {
            terms: JwtSvidTerms {
                decision_id: self.decision_id,
                node: workload.node().clone(),
                seen_by: workload.witness().cloned(),
                asked_by: asked_by(workload),
                claims,
                key: Arc::clone(&ring.jwt.key),
                entry,
            },
        }))
    }
}

pub(super) fn open_door(desk: &Desk) -> Result<&SpiffeDoor, IssueError> {
    let door = desk.spiffe.as_ref().ok_or(IssueError::Internal("no_door_to_spiffe"))?;
    if desk.clock_watch.agrees(desk.clock.as_ref()) {
        Ok(door)
    } else {
        Err(IssueError::Uncertain("clocks_disagree"))
    }
}

/// The entry of this name, if it entitles this process now: where it was deleted, has ended, or its process is another
/// or elsewhere by now, it does not.
pub(crate) fn entitled(
    door: &SpiffeDoor,
    (workload, name): (&Workload, &str),
    now_seconds: u64,
) -> Result<Arc<Entry>, IssueError> {
    if workload.node().trust_domain() != &door.trust_domain {
        return Err(IssueError::NotEntitled("node_of_another_trust_domain"));
    }
    // Its node may have been banned, or evicted, since it was heard.
    workload.witness().map_or(Ok(()), SeenBy::stands)?;
    let entry = door.entries.now().entitled_to(name, workload, now_seconds);
    let entry = entry.ok_or(IssueError::NotEntitled("no_entry"))?;
    // Entries are checked when they are read. This is what must not happen whatever they say.
    if !is_a_workloads(&entry.spiffe_id, &door.trust_domain) {
        return Err(IssueError::NotEntitled("id_not_a_workloads"));
    }
    Ok(entry)
}

/// Who takes too many of one kind still gets the other.
fn admit(desk: &Desk, kind: &str, workload: &Workload, entry: &Entry) -> Result<(), IssueError> {
    let whose = format!("{kind} {} {} {}", workload.node(), entry.id, entry.spiffe_id);
    desk.limits.admit_svid(&whose, desk.clock.uptime())
}

/// In our trust domain, below it, and neither the broker's nor a node's.
fn is_a_workloads(id: &SpiffeId, trust_domain: &TrustDomain) -> bool {
    let mut segments = id.path().split('/').skip(1);
    id.trust_domain() == trust_domain && segments.next().is_some_and(|first| first != RESERVED)
}

/// Until when: as long as it lives, as its entry holds, and as what signs it.
pub(super) fn end(
    entry: &Entry,
    (now_seconds, ttl): (u64, u64),
    signs_until: u64,
) -> Result<u64, IssueError> {
    let entry_ends = entry.expires_at_seconds.unwrap_or(u64::MAX);
    until(now_seconds, now_seconds.saturating_add(ttl).min(entry_ends).min(signs_until))
}

/// That, if it is yet to come.
pub(super) fn until(now_seconds: u64, end: u64) -> Result<u64, IssueError> {
    if end > now_seconds { Ok(end) } else { Err(IssueError::Uncertain("authority_expired")) }
}

/// A request may leave out whose ID it is for; it may not be for another's.
pub(super) fn check_names(requested: &RequestedKey, id: &SpiffeId) -> Result<(), IssueError> {
    let id = id.to_string();
    if requested.names().iter().all(|name| *name == id) {
        Ok(())
    } else {
        Err(IssueError::Request("csr_for_another_id"))
    }
}

/// JWT-SVID §3.2: at least one. None at which another kind of token of ours is due, or where a token would be taken for
/// what it is not: a cloud's token service looks at nothing but issuer and audience.
fn check_audiences(desk: &Desk, audiences: &[String]) -> Result<(), IssueError> {
    let refuse = |reason| Err(IssueError::Request(reason));
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        return refuse("audience_missing");
    }
    let is_too_long = |audience: &String| audience.len() > MAX_AUDIENCE_BYTES;
    let bytes: usize = audiences.iter().map(String::len).sum();
    if audiences.len() > MAX_AUDIENCES || bytes > MAX_BYTES_OF_AUDIENCES || audiences.iter().any(is_too_long)
    {
        return refuse("audience_too_long");
    }
    if audiences.iter().any(|audience| audience.chars().any(char::is_control)) {
        return refuse("audience_malformed");
    }
    let rules = desk.rules.load();
    for audience in audiences {
        let web_identity = desk.aws.as_ref().map(|aws| aws.web_identity.audience.as_str());
        if is_a_clouds(audience) || web_identity == Some(audience.as_str()) {
            return refuse("audience_of_a_cloud");
        }
        if rules.registry.is_addressed(audience) {
            return refuse("audience_is_a_registered_resource");
        }
    }
    Ok(())
}

/// What the token services of AWS, Azure and Google Cloud take as their own.
fn is_a_clouds(audience: &str) -> bool {
    let audience = audience.trim().to_ascii_lowercase();
    let (scheme, rest) = audience.split_once("//").unwrap_or(("", &audience));
    let rest = if matches!(scheme, "" | "https:" | "http:") { rest } else { audience.as_str() };
    let authority = rest.trim_start_matches('/').split(['/', '\\', '?', '#']).next().unwrap_or_default();
    // RFC 3986 §3.2: what stands before the last `@`, and the port, are not the host.
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default().trim_end_matches('.');
    is_aws_sts(host) || audience.starts_with("api://azureadtokenexchange") || CLOUD_HOSTS.contains(&host)
}

/// `sts.amazonaws.com`, of a region or of none, `sts-fips`, and the same below the other domains of AWS.
fn is_aws_sts(host: &str) -> bool {
    let within = |domain: &&str| host.strip_suffix(*domain).and_then(|rest| rest.strip_suffix('.'));
    let Some(service) = AWS_DOMAINS.iter().find_map(within) else { return false };
    // `vpce-0a-1b.sts.us-east-1.vpce` is one as well.
    service.split('.').any(|label| label == "sts" || label == "sts-fips")
}

/// The first segment of the paths of the broker's and its nodes' own IDs.
pub(super) const RESERVED: &str = "deputize";
/// Of all partitions of AWS.
const AWS_DOMAINS: [&str; 9] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "api.aws",
    "api.amazonwebservices.com.cn",
    "api.amazonwebservices.eu",
    "c2s.ic.gov",
    "sc2s.sgov.gov",
    "csp.hci.ic.gov",
];
/// Services that look at the audience of a token from outside.
const CLOUD_HOSTS: [&str; 3] = ["iam.googleapis.com", "sts.googleapis.com", "sts.windows.net"];
/// Longer than any that is presented anew for each use needs to live.
const LONGEST_JWT_SVID_SECONDS: u64 = 3600;
const MAX_AUDIENCES: usize = 16;
const MAX_AUDIENCE_BYTES: usize = 512;
/// Of all together.
const MAX_BYTES_OF_AUDIENCES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_are_known_however_they_are_written_and_their_neighbours_are_not_theirs() {
        for clouds in [
            "sts.amazonaws.com",
            "sts.amazonaws.com.",
            "STS.AmazonAWS.com",
            "sts.amazonaws.com:443",
            "//sts.amazonaws.com",
            "http://sts.amazonaws.com/x",
            "https://sts.amazonaws.com",
            "https://user@sts.amazonaws.com/",
            "https://user:pass@sts.amazonaws.com:443/",
            "https://sts.amazonaws.com?a=b",
            "https://sts-fips.us-east-1.amazonaws.com",
            "sts.us-gov-west-1.amazonaws.com",
            "sts.eusc-de-east-1.amazonaws.eu",
            "sts.us-east-1.api.aws",
            "sts-fips.us-east-1.api.aws",
            "sts.cn-north-1.amazonaws.com.cn",
            "sts.cn-north-1.api.amazonwebservices.com.cn",
            "sts.us-iso-east-1.c2s.ic.gov",
            "vpce-0a-1b.sts.us-east-1.vpce.amazonaws.com",
            "api://AzureADTokenExchange",
            "https://iam.googleapis.com./projects/1",
            "//IAM.googleapis.com:443/projects/1",
            "sts.windows.net",
        ] {
            assert!(is_a_clouds(clouds), "{clouds}");
        }
        for others in [
            "amazonaws.com",
            "sts.amazonaws.com.example.org",
            "sts.amazonaws.org",
            "stsamazonaws.com",
            "sts-amazonaws.com",
            "sts.myamazonaws.com",
            "s3.amazonaws.com",
            "sts.example.org",
            "https://example.org/sts.amazonaws.com",
            "https://sts.amazonaws.com@example.org/",
            "spiffe://sts.amazonaws.com/web",
            "sts.aws",
            "api://crm",
            "",
        ] {
            assert!(!is_a_clouds(others), "{others}");
        }
    }
}
