//! SPIFFE IDs (SPIFFE-ID §2), read here anew: nothing of what is examined examines itself.

use super::findings::Findings;

/// Looks at a SPIFFE ID wherever one is given.
pub(super) fn examine(findings: &mut Findings, id: &str) {
    let said = |what: &str| format!("{:?}: {what}", id.get(..200).unwrap_or(id));
    findings.holds("SPIFFEID-2.3-1", id.len() <= MAX_BYTES, said("over 2048 bytes"));
    let Some(rest) = id.strip_prefix("spiffe://") else {
        findings.check("SPIFFEID-2-1", Err(said("the scheme is not spiffe")));
        return;
    };
    let whole = !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#']);
    findings.holds("SPIFFEID-2-1", whole, said("no trust domain, or a query or fragment"));
    let (domain, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    findings.holds("SPIFFEID-2.1-1", is_trust_domain(domain), said("not a trust domain's name"));
    findings.holds("SPIFFEID-2.2-1", is_path(path), said("not a path"));
}

/// The trust domain of a SPIFFE ID; empty where there is none.
pub(super) fn trust_domain(id: &str) -> &str {
    id.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

/// Whether it has a path.
pub(super) fn has_path(id: &str) -> bool {
    id.strip_prefix("spiffe://").is_some_and(|rest| rest.contains('/'))
}

/// Whether it is the SPIFFE ID of a trust domain itself.
pub(super) fn is_of_trust_domain(id: &str) -> bool {
    is_trust_domain(trust_domain(id)) && !has_path(id)
}

fn is_trust_domain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=MAX_DOMAIN_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_path(path: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed);
    path.is_empty() || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment))
}

const MAX_BYTES: usize = 2048;
const MAX_DOMAIN_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload_api::{catalogue::Level, findings::Report};

    fn report(id: &str) -> Report {
        let mut findings = Findings::default();
        examine(&mut findings, id);
        findings.report(String::new())
    }

    #[test]
    fn ids_are_told_apart() {
        for good in ["spiffe://example.org", "spiffe://a_b-c.d/x", "spiffe://example.org/a/B.9/_-"] {
            assert_eq!(report(good).failed, 0, "{good}");
        }
        let long = format!("spiffe://example.org/{}", "a".repeat(2028));
        assert_eq!(report(&long).failures(Level::Should), ["SPIFFEID-2.3-1"]);
        for (bad, requirement) in [
            ("https://example.org/a", "SPIFFEID-2-1"),
            ("spiffe:///a", "SPIFFEID-2-1"),
            ("spiffe://example.org/a#b", "SPIFFEID-2-1"),
            ("spiffe://example.org?a", "SPIFFEID-2-1"),
            ("spiffe://Example.org/a", "SPIFFEID-2.1-1"),
            ("spiffe://example.org:80/a", "SPIFFEID-2.1-1"),
            ("spiffe://me@example.org/a", "SPIFFEID-2.1-1"),
            ("spiffe://example.org/", "SPIFFEID-2.2-1"),
            ("spiffe://example.org/a/", "SPIFFEID-2.2-1"),
            ("spiffe://example.org/a//b", "SPIFFEID-2.2-1"),
            ("spiffe://example.org/a/../b", "SPIFFEID-2.2-1"),
            ("spiffe://example.org/%61", "SPIFFEID-2.2-1"),
        ] {
            assert!(report(bad).failures(Level::Must).contains(&requirement), "{bad}");
        }
    }
}
