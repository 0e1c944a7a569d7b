//! What processes of an entry may exchange: users' tokens for tool-call tokens, as a client of the configuration may.

use serde::{Deserialize, Serialize};
use spiffe::SpiffeId;
use std::{
    collections::{HashMap, hash_map},
    sync::Arc,
};

use super::{NotAnEntry, Registered};
use crate::{
    ask::ResourceUri,
    client::{Client, Reach},
};

/// What an entry's processes may bring, and what they may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The tenant: decides for everything that they do.
    pub tenant: String,
    /// `aud`, and `azp`/`client_id`, of the user tokens that they may bring.
    pub subject_audiences: Vec<String>,
    /// Servers and tools that they may ask for.
    pub may_call: Vec<Reach>,
}

impl Exchange {
    /// Checks it.
    pub(super) fn check(&self) -> Result<(), NotAnEntry> {
        let wrong = |what| Err(NotAnEntry::Exchange(what));
        if !is_text(&self.tenant, MAX_NAME_BYTES) {
            return wrong("tenant: 1 to 256 bytes, without control characters");
        }
        if self.subject_audiences.is_empty() || self.subject_audiences.len() > MAX_AUDIENCES {
            return wrong("subject_audiences: 1 to 64; without any they could bring no user's token");
        }
        if !self.subject_audiences.iter().all(|audience| is_text(audience, MAX_TEXT_BYTES)) {
            return wrong("subject_audiences: 1 to 2048 bytes each, without control characters");
        }
        if self.may_call.is_empty() || self.may_call.len() > MAX_SERVERS {
            return wrong("may_call: 1 to 256 servers; without any they could ask for nothing");
        }
        let is_resource = |resource: &str| resource == "*" || ResourceUri::parse(resource).is_ok();
        if !self.may_call.iter().all(|reach| is_resource(&reach.resource)) {
            return wrong("may_call: resource is the URI of a server, or *");
        }
        let listed = self.may_call.iter().flat_map(|reach| [&reach.tools, &reach.prompts, &reach.resources]);
        if !listed.flatten().flatten().all(|name| is_text(name, MAX_TEXT_BYTES)) {
            return wrong("may_call: a name has 1 to 2048 bytes, without control characters");
        }
        // It stands whole in the log, whose entries have 64 KiB.
        if serde_json::to_vec(self).map_or(true, |bytes| bytes.len() > MAX_BYTES) {
            return wrong("at most 16 KiB in all");
        }
        Ok(())
    }

    /// The client that processes of this SPIFFE ID are.
    fn client(&self, spiffe_id: &SpiffeId) -> Client {
        let id = spiffe_id.to_string();
        Client {
            tenant: self.tenant.clone(),
            actor: Some(id.clone()),
            keys: Default::default(),
            encryption_key: None,
            secret_sha256: None,
            spiffe_id: None,
            certificates: None,
            subject_audiences: self.subject_audiences.clone(),
            presents_actors: Vec::new(),
            may_call: self.may_call.clone(),
            server: None,
            accepts_bearer: Vec::new(),
            client_credentials: false,
            enabled: true,
            id,
        }
    }
}

/// The clients that processes are, by their SPIFFE IDs.
///
/// INVARIANT: all entries of one SPIFFE ID that let exchange say the same of it: whoever finds a token of that ID in a
/// chain need not know by which of them it was got.
#[derive(Debug, Default)]
pub(super) struct Exchanging(HashMap<Box<str>, Acting>);

#[derive(Debug)]
struct Acting {
    client: Arc<Client>,
    exchange: Exchange,
    /// Name of the first entry that says so.
    entry: Box<str>,
    /// When the last of its entries ends, in Unix seconds; never where one has no end.
    ends_at_seconds: Option<u64>,
}

impl Exchanging {
    /// Takes an entry in; the name of another one of its SPIFFE ID if that says something else.
    pub(super) fn admit(&mut self, registered: &Registered) -> Result<(), Box<str>> {
        let entry = &registered.entry;
        let Some(exchange) = &entry.exchange else { return Ok(()) };
        match self.0.entry(entry.spiffe_id.to_string().into()) {
            hash_map::Entry::Vacant(place) => {
                place.insert(Acting {
                    client: Arc::new(exchange.client(&entry.spiffe_id)),
                    exchange: exchange.clone(),
                    entry: entry.id.clone(),
                    ends_at_seconds: entry.expires_at_seconds,
                });
            }
            hash_map::Entry::Occupied(mut place) => {
                let acting = place.get_mut();
                if acting.exchange != *exchange {
                    return Err(acting.entry.clone());
                }
                acting.ends_at_seconds = match (acting.ends_at_seconds, entry.expires_at_seconds) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    _ => None,
                };
            }
        }
        Ok(())
    }

    /// The client that processes of this SPIFFE ID are now.
    pub(super) fn client(&self, spiffe_id: &str, now_seconds: u64) -> Option<&Arc<Client>> {
        let acting = self.0.get(spiffe_id)?;
        let has_ended = acting.ends_at_seconds.is_some_and(|end| now_seconds >= end);
        (!has_ended).then_some(&acting.client)
    }
}

fn is_text(text: &str, most_bytes: usize) -> bool {
    (1..=most_bytes).contains(&text.len()) && !text.chars().any(char::is_control)
}

const MAX_NAME_BYTES: usize = 256;
const MAX_TEXT_BYTES: usize = 2048;
const MAX_AUDIENCES: usize = 64;
const MAX_SERVERS: usize = 256;
const MAX_BYTES: usize = 16 * 1024;
