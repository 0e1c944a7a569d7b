//! What a guard is told of its server: the tools that may be called now, our keys, what is revoked.

use bytes::Bytes;
use deputize_guard::{Revocation, SignedSnapshot, SnapshotDocument, ToolDocument};
use deputize_issuer::{error::IssueError, registry::Server, revocation::Revoked};
use std::time::Duration;

use super::Guards;

/// A snapshot as it goes out.
#[derive(Debug, Clone)]
pub(super) struct Built {
    pub(super) text: Bytes,
    pub(super) version: u64,
    pub(super) generation: u64,
    /// Uptime.
    pub(super) at: Duration,
}

impl Guards {
    /// INVARIANT: every change of the rules and every revocation is an entry of the log, durable before a snapshot with
    /// it is announced, so the log's size grows with each, through restarts too; and a log that was put back makes
    /// versions that guards refuse.
    pub(super) fn build(&self, server: &Server, generation: u64) -> Result<Built, IssueError> {
        let version = self.log.size();
        let document = self.document(server, version);
        let internal = |_| IssueError::Internal("snapshot_not_signed");
        let signed = SignedSnapshot::sign(&document, &self.key).map_err(internal)?;
        let text = serde_json::to_vec(&signed).map_err(|_| IssueError::Internal("snapshot_not_signed"))?;
        gauge("deputize_guard_snapshot_version", server, version);
        Ok(Built { text: text.into(), version, generation, at: self.desk.clock.uptime() })
    }

    fn document(&self, server: &Server, version: u64) -> SnapshotDocument {
        let record = &server.record;
        let now = self.desk.clock.now_seconds();
        let in_force = self.desk.revocations.in_force(now);
        let mut revocations: Vec<_> =
            in_force.iter().filter_map(|revoked| as_guards_say(revoked, &record.tenant)).collect();
        if !record.enabled {
            // The kill switch of the whole server.
            revocations.push(Revocation::Everything);
        }
        revocations.sort_unstable();
        let enabled = server.tools().filter(|tool| tool.record.enabled);
        SnapshotDocument {
            version,
            issued_at: now,
            expires_at: now.saturating_add(LIFETIME_SECONDS),
            issuer: self.desk.settings.issuer.clone(),
            server_id: record.id.clone(),
            resource: record.resource.clone(),
            tenant: record.tenant.clone(),
            manifest_digest: server.manifest_digest,
            jwks: self.desk.keys.ring().published.to_jwks(),
            tools: enabled
                .map(|tool| ToolDocument {
                    definition: tool.record.definition.clone(),
                    tool_digest: tool.tool_digest,
                    least_level: tool.least_level,
                    tier: tool.record.tier.as_str().to_owned(),
                })
                .collect(),
            revocations,
        }
    }
}

/// A revocation in the words of guards; `None` for a person of another tenant, whose tokens no guard of this tenant
/// accepts, and whose name is none of its business.
pub(super) fn as_guards_say(revoked: &Revoked, tenant: &str) -> Option<Revocation> {
    match revoked {
        Revoked::Token(jti) => Some(Revocation::Token { jti: jti.clone() }),
        Revoked::Transaction(txn) => Some(Revocation::Transaction { txn: txn.clone() }),
        Revoked::Person(sub) => {
            // Behind the tenant stand the issuer's tag and the claim, neither of which contains a colon.
            let foreign = sub
                .strip_prefix("user:")
                .is_some_and(|rest| rest.rsplitn(3, ':').nth(2).is_some_and(|of| of != tenant));
            (!foreign).then(|| Revocation::Person { sub: sub.clone() })
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn gauge(name: &'static str, server: &Server, value: u64) {
    metrics::gauge!(name, "server" => server.record.id.clone()).set(value as f64);
}

/// The longest that a guard accepts; the broker makes a new one long before.
const LIFETIME_SECONDS: u64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_issuer::person::Person;

    #[test]
    fn persons_of_other_tenants_are_not_named() {
        let person = |tenant| Revoked::Person(Person::encode_sub(tenant, "https://login.example", "alice"));
        assert!(as_guards_say(&person("acme"), "acme").is_some());
        assert!(as_guards_say(&person("acme"), "acme-2").is_none());
        assert!(as_guards_say(&person("acme-2"), "acme").is_none());
        assert!(as_guards_say(&Revoked::Person("some-client".to_owned()), "acme").is_some());
        assert!(as_guards_say(&Revoked::Token("t".to_owned()), "acme").is_some());
    }
}
