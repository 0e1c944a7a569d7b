//! What an agent takes of a state: a member that it cannot read is left out, and said; the rest holds.

use deputize_issuer::{
    entry::{BadEntry, Bounds, Draft, Entries, Origin},
    svid::Bundles,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use spiffe::{SpiffeId, TrustDomain};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{NotUnderstood, State, not_understood, read_bundle};

impl State {
    /// The entries, checked as the broker checks them, and what is wrong with those that are left out. Of two that cannot be
    /// beside each other neither one's word is taken for the other's.
    ///
    /// # Errors
    /// If what is left cannot be put together.
    pub(in crate::node) fn checked_entries(
        &self,
        node: &SpiffeId,
    ) -> Result<(Entries, Vec<NotUnderstood>), NotUnderstood> {
        let mut left_out = Vec::new();
        let mut drafts: Vec<Draft> = Vec::new();
        for entry in &self.entries {
            match Told::deserialize(entry) {
                Ok(Told { draft, others }) if others.is_empty() => drafts.push(draft),
                // It may say who is not to have it.
                Ok(Told { others, .. }) => {
                    let first = others.keys().next().map_or_else(String::new, |name| short(name));
                    left_out.push(not_understood(format!("entry {}: unknown: {first}", name_of(entry))));
                }
                Err(error) => left_out.push(not_understood(format!("entry {}: {error}", name_of(entry)))),
            }
        }
        for _ in 0..ROUNDS {
            let bounds = Bounds { trust_domain: node.trust_domain().clone(), own_node: node.clone() };
            let errors = match Entries::build(bounds, drafts.iter().map(|it| (it.clone(), Origin::Admin))) {
                Ok(entries) => return Ok((entries, left_out)),
                Err(errors) => errors,
            };
            let bad: HashSet<&str> = errors.iter().flat_map(bad_ones).flatten().collect();
            drafts.retain(|draft| !bad.contains(draft.id.as_str()));
            left_out.extend(errors.iter().map(not_understood));
        }
        Err(left_out.pop().unwrap_or_else(|| not_understood("the entries")))
    }

    /// The bundles, and what is wrong with the foreign ones that are left out.
    ///
    /// # Errors
    /// If our own is none.
    pub(in crate::node) fn bundles(
        &self,
        own: &TrustDomain,
    ) -> Result<(Bundles, Vec<NotUnderstood>), NotUnderstood> {
        if self.trust_domain != own.as_str() {
            return Err(not_understood("the state of another trust domain"));
        }
        let (mut federated, mut left_out) = (Vec::new(), Vec::new());
        for (name, document) in &self.federated {
            let domain = TrustDomain::new(name).map_err(|_| not_understood("a trust domain that is none"));
            match domain.and_then(|domain| read_bundle(domain, document)) {
                Ok(bundle) => federated.push(Arc::new(bundle)),
                Err(error) => left_out.push(not_understood(format!("bundle of {}: {error}", short(name)))),
            }
        }
        Ok((Bundles { own: Arc::new(read_bundle(own.clone(), &self.bundle)?), federated }, left_out))
    }
}

/// An entry, and whatever else stands in it: what a newer broker narrowed it by, most likely.
#[derive(Deserialize)]
struct Told {
    #[serde(flatten)]
    draft: Draft,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

/// The entries that an error is about; none where it is about all.
fn bad_ones(error: &BadEntry) -> [Option<&str>; 2] {
    match error {
        BadEntry::Wrong { id, .. }
        | BadEntry::Duplicate { id, .. }
        | BadEntry::IsAClient { id, .. }
        | BadEntry::BringsAnothers { id, .. }
        | BadEntry::OfFilesAlone { id, .. } => [Some(id), None],
        BadEntry::ExchangesOtherwise { id, other, .. } => [Some(id), Some(other)],
        BadEntry::TooMany => [None, None],
    }
}

/// Its name, as far as it has one that can be shown.
fn name_of(entry: &Value) -> String {
    entry.get("id").and_then(Value::as_str).map_or_else(|| "without a name".to_owned(), short)
}

fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

/// Errors of one kind may hide behind those of another: more kinds there are not.
const ROUNDS: usize = 4;
const MAX_SHOWN: usize = 128;
