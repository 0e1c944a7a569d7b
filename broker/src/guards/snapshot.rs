//! What a guard is told of its server: what may be called, got and read now, our keys, what is revoked.

use bytes::Bytes;
use deputize_guard::{
    PromptDocument, ResourceDocument, Revocation, SignedSnapshot, SnapshotDocument, ToolDocument,
};
use deputize_issuer::{
    error::IssueError,
    registry::{Server, Tool},
    revocation::Revoked,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::Guards;

/// A snapshot as it goes out.
#[derive(Debug, Clone)]
pub struct Signed {
    /// JSON.
    pub text: Bytes,
    /// When the next one is due (uptime).
    pub renewed_at: Duration,
}

/// A snapshot that is kept.
#[derive(Debug, Clone)]
pub(super) struct Built {
    pub(super) signed: Signed,
    pub(super) generation: u64,
}

/// What of all that is revoked concerns one server.
struct Concerning {
    revocations: Vec<Revocation>,
    /// It has become so much that clients stand in place of their tokens.
    is_coarse: bool,
}

impl Guards {
    /// INVARIANT: every change of the rules and every revocation is an entry of the log, durable before a snapshot with
    /// it is announced, so the log's size grows with each, through restarts too; and a log that was put back makes
    /// versions that guards refuse.
    pub(super) fn build(&self, server: &Server, generation: u64) -> Result<Built, IssueError> {
        let version = self.log.size();
        let now = self.desk.clock.now_seconds();
        let concerning = self.concerning(server, now);
        let renewal = if concerning.is_coarse { RENEWAL_WHILE_COARSE } else { RENEWAL };
        let document = self.document(server, (version, now), concerning.revocations);
        let internal = |_| IssueError::Internal("snapshot_not_signed");
        let signed = SignedSnapshot::sign(&document, &self.key).map_err(internal)?;
        let text = serde_json::to_vec(&signed).map_err(|_| IssueError::Internal("snapshot_not_signed"))?;
        gauge("deputize_guard_snapshot_version", server, version);
        let renewed_at = self.desk.clock.uptime() + renewal;
        Ok(Built { signed: Signed { text: text.into(), renewed_at }, generation })
    }

    fn concerning(&self, server: &Server, now: u64) -> Concerning {
        let record = &server.record;
        let mut revocations = Vec::new();
        let mut by_client: BTreeMap<Arc<str>, Vec<String>> = BTreeMap::new();
        for (revoked, place) in self.news.placed(self.desk.revocations.in_force(now)) {
            match (revoked, place) {
                (Revoked::Token(_), Some(place)) if *place.audience != *record.resource => {}
                (Revoked::Token(jti), Some(place)) => by_client.entry(place.client_id).or_default().push(jti),
                (other, _) => revocations.extend(as_guards_say(&other, &record.tenant)),
            }
        }
        if !record.enabled {
            // The kill switch of the whole server.
            revocations.push(Revocation::Everything);
        }
        let coarse = whose_share_is_too_large(&by_client);
        let is_coarse = !coarse.is_empty();
        for (client_id, tokens) in by_client {
            if coarse.contains(&client_id) {
                tracing::warn!(
                    client_id = &*client_id,
                    tokens = tokens.len(),
                    "too many tokens revoked: all are"
                );
                revocations.push(Revocation::Client { client_id: client_id.to_string() });
            } else {
                revocations.extend(tokens.into_iter().map(|jti| Revocation::Token { jti }));
            }
        }
        revocations.sort_unstable();
        Concerning { revocations, is_coarse }
    }

    fn document(
        &self,
        server: &Server,
        (version, now): (u64, u64),
        revocations: Vec<Revocation>,
    ) -> SnapshotDocument {
        let record = &server.record;
        let enabled = |tool: &&Arc<Tool>| tool.record.enabled;
        let tier = |tool: &Tool| tool.record.tier.as_str().to_owned();
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
            tools: server
                .tools()
                .filter(enabled)
                .map(|tool| ToolDocument {
                    definition: tool.record.definition.clone(),
                    tool_digest: tool.tool_digest,
                    least_level: tool.least_level,
                    tier: tier(tool),
                })
                .collect(),
            prompts: server
                .prompts()
                .filter(enabled)
                .map(|prompt| PromptDocument {
                    definition: prompt.record.definition.clone(),
                    prompt_digest: prompt.tool_digest,
                    least_level: prompt.least_level,
                    tier: tier(prompt),
                })
                .collect(),
            // Those that are switched off too: they take what they name out of wider entries.
            resources: server
                .resources()
                .map(|resource| ResourceDocument {
                    shown: resource.record.definition.clone(),
                    least_level: resource.least_level,
                    tier: tier(resource),
                    enabled: resource.record.enabled,
                })
                .collect(),
            revocations,
        }
    }
}

/// Clients of whose tokens so many are revoked that a guard is told of the client instead: whoever brings that about
/// stops his own calls at this server for some minutes, and leaves room for the revocations of others.
fn whose_share_is_too_large(by_client: &BTreeMap<Arc<str>, Vec<String>>) -> Vec<Arc<str>> {
    let mut sizes: Vec<(usize, &Arc<str>)> =
        by_client.iter().map(|(client_id, tokens)| (tokens.len(), client_id)).collect();
    sizes.sort_unstable_by(|one, other| other.cmp(one));
    let mut left: usize = sizes.iter().map(|(tokens, _)| tokens).sum();
    let mut coarse = Vec::new();
    for (tokens, client_id) in sizes {
        if tokens <= MAX_TOKENS_OF_A_CLIENT && left <= MAX_TOKENS {
            break;
        }
        left -= tokens;
        coarse.push(Arc::clone(client_id));
    }
    coarse
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
/// A snapshot is made anew long before it expires.
const RENEWAL: Duration = Duration::from_secs(600);
/// By then the tokens have expired for which a client was stopped.
const RENEWAL_WHILE_COARSE: Duration = Duration::from_secs(180);
/// A guard remembers more than what snapshots name and streams tell while a token lives.
const MAX_TOKENS: usize = 40_000;
const MAX_TOKENS_OF_A_CLIENT: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_issuer::person::Person;

    #[test]
    fn whoever_has_too_many_tokens_revoked_stands_for_them_himself_and_for_nobody_else() {
        let clients = |sizes: &[(&str, usize)]| -> BTreeMap<Arc<str>, Vec<String>> {
            sizes.iter().map(|(client, size)| (Arc::from(*client), vec![String::new(); *size])).collect()
        };
        let coarse = |sizes: &[(&str, usize)]| whose_share_is_too_large(&clients(sizes)).join(" ");
        assert_eq!(coarse(&[]), "");
        assert_eq!(coarse(&[("a", MAX_TOKENS_OF_A_CLIENT), ("b", 1)]), "");
        assert_eq!(coarse(&[("a", MAX_TOKENS_OF_A_CLIENT + 1), ("b", 1)]), "a");
        let each = MAX_TOKENS_OF_A_CLIENT - 1;
        let all = [("a", each), ("b", each), ("c", each), ("d", each), ("e", each + 1), ("f", 1)];
        assert_eq!(coarse(&all), "e", "the largest gives way until there is room");
    }

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
