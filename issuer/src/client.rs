//! OAuth clients as configured: who may authenticate, and how far each may reach.

use deputize_call::keys::{KeySet, PublicKey};
use std::{collections::HashMap, sync::Arc};

/// A configured OAuth client: an agent platform, an agent, or the guard of an MCP server.
#[derive(Debug, Clone)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// The tenant: decides for everything that this client does.
    pub tenant: String,
    /// What `act.sub` says when this client acts; its `client_id` if not configured.
    pub actor: Option<String>,
    /// Keys of its assertions (`private_key_jwt`, RFC 7523).
    pub keys: KeySet,
    /// SHA-256 of its bootstrap secret, where one is configured (S-08: off by default).
    pub secret_sha256: Option<[u8; 32]>,
    /// `aud`, and `azp`/`client_id`, of the user tokens that it may bring.
    pub subject_audiences: Vec<String>,
    /// Actors that it may present by `actor_token`, by the token's issuer and subject.
    pub presents_actors: Vec<PresentedActor>,
    /// Servers and tools that it may ask for; empty means none.
    pub may_call: Vec<Reach>,
    /// The resource URI of the server that this client is, for redemption, introspection and next hops.
    pub server: Option<String>,
    /// Whether it may get L0 tokens of its own with `client_credentials`.
    pub client_credentials: bool,
    /// A disabled client is unknown.
    pub enabled: bool,
}

/// An actor that a client may present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedActor {
    /// `iss` of the actor token.
    pub issuer: String,
    /// The person's `sub` in our encoding never applies here: this is the token's stable claim.
    pub subject: String,
    /// What `act.sub` then says.
    pub actor: String,
}

/// How far a client may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Resource URI, or `*` for every server of the tenant.
    pub resource: String,
    /// Tools of it; `None` for all.
    pub tools: Option<Vec<String>>,
}

/// All clients, by id and by actor.
#[derive(Debug, Default)]
pub struct Clients {
    by_id: HashMap<String, Arc<Client>>,
    by_actor: HashMap<String, Arc<Client>>,
    decoy: Option<PublicKey>,
}

impl Client {
    /// What `act.sub` says when this client acts.
    pub fn actor(&self) -> &str {
        self.actor.as_deref().unwrap_or(&self.id)
    }
    /// Whether its configuration lets it ask for this server, and tool.
    pub fn may_reach(&self, resource: &str, tool: Option<&str>) -> bool {
        self.may_call.iter().any(|reach| {
            (reach.resource == "*" || reach.resource == resource)
                && match (&reach.tools, tool) {
                    (None, _) | (Some(_), None) => true,
                    (Some(tools), Some(tool)) => tools.iter().any(|name| name == tool),
                }
        })
    }
}

impl Clients {
    /// Indexes the clients. `decoy` is a key of nobody, against which unknown clients' assertions are verified.
    pub fn new(clients: Vec<Client>, decoy: PublicKey) -> Self {
        let mut all = Self { decoy: Some(decoy), ..Self::default() };
        for client in clients {
            let client = Arc::new(client);
            all.by_actor.insert(client.actor().to_owned(), Arc::clone(&client));
            all.by_id.insert(client.id.clone(), client);
        }
        all
    }
    /// The enabled client of this id.
    pub fn enabled(&self, id: &str) -> Option<Arc<Client>> {
        self.by_id.get(id).filter(|client| client.enabled).cloned()
    }
    /// The client that acts under this name, enabled or not.
    pub fn acting_as(&self, actor: &str) -> Option<&Arc<Client>> {
        self.by_actor.get(actor)
    }
    /// All clients.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.by_id.values()
    }
    pub(crate) fn decoy(&self) -> Option<&PublicKey> {
        self.decoy.as_ref()
    }
}
