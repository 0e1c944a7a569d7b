//! OAuth clients as configured: who may authenticate, and how far each may reach.

mod addressees;
mod decoy;
mod encryption_key;
mod known;
mod names;

pub use addressees::{Addressed, Addressees};
pub use encryption_key::{EncryptionKey, SealingAlgorithm};
pub(crate) use known::Known;
pub use names::{NameClash, clashes};

use deputize_call::{
    action::Action,
    jws::UnverifiedJws,
    keys::{KeySet, PublicKey},
    resource,
};
use serde::{Deserialize, Serialize};
use spiffe::SpiffeId;
use std::{collections::HashMap, sync::Arc};

use crate::certificate::{ExpectedCertificate, OwnCertificate};

/// A configured OAuth client: an agent platform, an agent, or the guard of an MCP server.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// The tenant: decides for everything that this client does.
    pub tenant: String,
    /// What `act.sub` says when this client acts; its `client_id` if not configured.
    pub actor: Option<String>,
    /// Keys of its assertions (`private_key_jwt`, RFC 7523).
    pub keys: KeySet,
    /// The key to which answers with secrets in them are sealed, where it has one.
    pub encryption_key: Option<EncryptionKey>,
    /// SHA-256 of its bootstrap secret, where one is configured (S-08: off by default).
    pub secret_sha256: Option<[u8; 32]>,
    /// The SPIFFE ID by whose SVIDs it proves itself, where it does; then it acts as that.
    pub spiffe_id: Option<SpiffeId>,
    /// The certificates by which it proves itself, where it does (RFC 8705 §2).
    pub certificates: Option<ClientCertificates>,
    /// `aud`, and `azp`/`client_id`, of the user tokens that it may bring.
    pub subject_audiences: Vec<String>,
    /// Actors that it may present by `actor_token`, by the token's issuer and subject.
    pub presents_actors: Vec<PresentedActor>,
    /// Servers and tools that it may ask for; empty means none.
    pub may_call: Vec<Reach>,
    /// The resource URI of the server that this client is, for redemption, introspection and next hops.
    pub server: Option<String>,
    /// Whose users' tokens its guard may bring as they were presented to that server: those of clients that know
    /// nothing of us. A client that accepts any brings no other users' tokens.
    pub accepts_bearer: Vec<AcceptedBearer>,
    /// Whether it may get L0 tokens of its own with `client_credentials`.
    pub client_credentials: bool,
    /// A disabled client is unknown.
    pub enabled: bool,
}

/// Which certificates prove a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// One that an authority vouches for (RFC 8705 §2.1).
    Vouched(Arc<ExpectedCertificate>),
    /// Its own, whoever signed them (RFC 8705 §2.2): several, while one follows another.
    Own(Vec<OwnCertificate>),
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

/// Tokens of one identity provider that a server accepts as they are (RFC 6750).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedBearer {
    /// `iss` of the tokens.
    pub issuer: String,
    /// Whom they were made for (`azp`, `client_id`); `*` for any client of that issuer.
    pub clients: Vec<String>,
}

/// How far a client may reach. Without any of the three lists, to everything that the server has; with one of them, to
/// what is listed and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// Resource URI, or `*` for every server of the tenant.
    pub resource: String,
    /// Tools of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// Prompts of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Vec<String>>,
    /// Resources of it, each a URI or, with `/*` at its end, everything below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<String>>,
}

/// All clients, by id and by actor.
#[derive(Debug, Default)]
pub struct Clients {
    by_id: HashMap<String, Arc<Client>>,
    by_actor: HashMap<String, Arc<Client>>,
    by_spiffe_id: HashMap<SpiffeId, Arc<Client>>,
    /// Who presents the actors of these names.
    by_presented: HashMap<String, Arc<Client>>,
}

impl AcceptedBearer {
    /// Whether tokens made for this client of the issuer are accepted.
    pub fn admits(&self, client: &str) -> bool {
        self.clients.iter().any(|admitted| admitted == "*" || admitted == client)
    }
}

impl Client {
    /// What `act.sub` says when this client acts.
    pub fn actor(&self) -> &str {
        self.actor.as_deref().unwrap_or(&self.id)
    }
    /// Whether a certificate of its TLS connection says who it is.
    pub fn shows_certificates(&self) -> bool {
        self.spiffe_id.is_some() || self.certificates.is_some()
    }
    /// Whether its configuration lets it ask for this server, and for what of it.
    pub fn may_reach(&self, resource: &str, target: Option<(Action, &str)>) -> bool {
        self.may_call.iter().any(|reach| {
            (reach.resource == "*" || reach.resource == resource)
                && target.is_none_or(|(action, name)| reach.lists(action, name))
        })
    }
}

impl Reach {
    fn lists(&self, action: Action, name: &str) -> bool {
        let list = match action {
            Action::CallTool => &self.tools,
            Action::GetPrompt => &self.prompts,
            Action::ReadResource => &self.resources,
        };
        let names_it = |listed: &String| match action {
            Action::CallTool | Action::GetPrompt => listed == name,
            // As an entry of the registry, a prefix is within reach where it is listed itself.
            Action::ReadResource => listed == name || resource::names(listed, name),
        };
        match list {
            Some(listed) => listed.iter().any(names_it),
            None => self.tools.is_none() && self.prompts.is_none() && self.resources.is_none(),
        }
    }
}

impl Clients {
    /// Indexes the clients.
    pub fn new(clients: Vec<Client>) -> Self {
        let mut all = Self::default();
        for client in clients {
            let client = Arc::new(client);
            if let Some(id) = &client.spiffe_id {
                all.by_spiffe_id.insert(id.clone(), Arc::clone(&client));
            }
            for presented in &client.presents_actors {
                all.by_presented.insert(presented.actor.clone(), Arc::clone(&client));
            }
            all.by_actor.insert(client.actor().to_owned(), Arc::clone(&client));
            all.by_id.insert(client.id.clone(), client);
        }
        all
    }
    /// The enabled client of this id.
    pub fn enabled(&self, id: &str) -> Option<Arc<Client>> {
        self.by_id.get(id).filter(|client| client.enabled).cloned()
    }
    /// The client that has this name, as its id, as what it acts under, or as that of an actor that it presents, enabled
    /// or not.
    pub fn named(&self, name: &str) -> Option<&Arc<Client>> {
        self.by_actor.get(name).or_else(|| self.by_id.get(name)).or_else(|| self.by_presented.get(name))
    }
    /// The client that acts under this name, enabled or not.
    pub fn acting_as(&self, actor: &str) -> Option<&Arc<Client>> {
        self.by_actor.get(actor)
    }
    /// The enabled client that proves itself by SVIDs of this ID.
    pub fn with_spiffe_id(&self, id: &SpiffeId) -> Option<Arc<Client>> {
        self.by_spiffe_id.get(id).filter(|client| client.enabled).cloned()
    }
    /// All clients.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.by_id.values()
    }
    /// The enabled client of this id, if a key of its own signed this. One signature of the algorithm that the token
    /// names, and of the length that its own has, is verified, whoever is unknown and whatever key it names.
    pub(crate) fn verify(&self, id: &str, jws: &UnverifiedJws<'_>) -> Option<Arc<Client>> {
        let client = self.enabled(id);
        let (key, is_own) = match Key::of(client.as_deref(), jws) {
            Key::Own(key) => (Some(key), true),
            Key::Decoy(key) => (key, false),
        };
        let verified = key.is_some_and(|key| key.verify(jws).is_ok());
        client.filter(|_| verified && is_own)
    }
}

/// The key that a signature is verified with.
enum Key<'c> {
    Own(&'c PublicKey),
    Decoy(Option<&'c PublicKey>),
}

impl<'c> Key<'c> {
    fn of(client: Option<&'c Client>, jws: &UnverifiedJws<'_>) -> Self {
        match client.and_then(|client| client.keys.find(jws).ok()) {
            // One of another length it refuses at once: that would tell that it is there.
            Some(key) if key.signature_bytes() == jws.signature.len() => Self::Own(key),
            Some(_) | None => Self::Decoy(decoy::for_signature(jws)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use deputize_call::{
        jws::{self, EmbeddedKey},
        keys::Algorithm,
        sign::{SigningAlgorithm, SigningKey},
    };

    pub(super) fn client(id: &str, keys: Vec<PublicKey>) -> Client {
        Client {
            id: id.to_owned(),
            tenant: "acme".to_owned(),
            actor: None,
            keys: KeySet::new(keys),
            encryption_key: None,
            secret_sha256: None,
            spiffe_id: None,
            certificates: None,
            subject_audiences: Vec::new(),
            presents_actors: Vec::new(),
            may_call: Vec::new(),
            server: None,
            accepts_bearer: Vec::new(),
            client_credentials: false,
            enabled: true,
        }
    }

    #[test]
    fn whoever_is_unknown_costs_a_verification_of_the_algorithm_that_is_named() {
        let stranger = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        let known = client("known", vec![stranger.public().clone()]);
        for algorithm in Algorithm::ALL {
            let lengths: &[usize] = match algorithm {
                Algorithm::ES256 | Algorithm::EdDSA => &[64],
                Algorithm::ES384 => &[96],
                _ => &[256, 384, 512],
            };
            for (kid, bytes) in
                lengths.iter().flat_map(|bytes| [(r#","kid":"nobody's""#, bytes), ("", bytes)])
            {
                let header = format!(r#"{{"alg":"{}"{kid}}}"#, algorithm.as_str());
                let signature = URL_SAFE_NO_PAD.encode(vec![7; *bytes]);
                let token = format!("{}.e30.{signature}", URL_SAFE_NO_PAD.encode(header));
                let token = jws::parse(&token, EmbeddedKey::Refused).unwrap();
                let costs = |key: &PublicKey| key.fits(algorithm) && key.signature_bytes() == *bytes;
                let Key::Decoy(Some(decoy)) = Key::of(None, &token) else { panic!("{algorithm:?}") };
                assert!(costs(decoy), "{algorithm:?} {bytes}");
                match Key::of(Some(&known), &token) {
                    Key::Decoy(Some(decoy)) => assert!(costs(decoy), "{algorithm:?} {bytes}"),
                    Key::Own(own) => assert!(kid.is_empty() && costs(own), "{algorithm:?}"),
                    Key::Decoy(None) => panic!("{algorithm:?} costs nothing"),
                }
            }
        }
    }

    #[test]
    fn a_signature_that_is_too_short_or_too_long_costs_the_same_for_known_and_unknown() {
        let own = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        let known = client("known", vec![own.public().clone()]);
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#);
        for bytes in [63, 65, 256] {
            let token = format!("{header}.e30.{}", URL_SAFE_NO_PAD.encode(vec![7; bytes]));
            let token = jws::parse(&token, EmbeddedKey::Refused).unwrap();
            assert!(matches!(Key::of(Some(&known), &token), Key::Decoy(Some(_))), "{bytes}");
            assert!(matches!(Key::of(None, &token), Key::Decoy(Some(_))), "{bytes}");
        }
    }

    #[test]
    fn a_list_reaches_to_what_it_lists() {
        use Action::{CallTool, GetPrompt, ReadResource};
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let reaching = |tools, prompts, resources| Client {
            may_call: vec![Reach { resource: "https://crm.example/".to_owned(), tools, prompts, resources }],
            ..client("c", Vec::new())
        };
        let reaches =
            |client: &Client, action, name| client.may_reach("https://crm.example/", Some((action, name)));
        let all = reaching(None, None, None);
        assert!(Action::ALL.into_iter().all(|action| reaches(&all, action, "demo://a")));
        assert!(!all.may_reach("https://bank.example/", Some((CallTool, "a"))));
        let tools = reaching(list(&["a"]), None, None);
        assert!(reaches(&tools, CallTool, "a") && !reaches(&tools, CallTool, "b"));
        assert!(!reaches(&tools, GetPrompt, "a") && !reaches(&tools, ReadResource, "demo://a"));
        let reads = reaching(None, list(&["p"]), list(&["demo://docs/*", "demo://a"]));
        assert!(reaches(&reads, GetPrompt, "p") && !reaches(&reads, CallTool, "p"));
        for (uri, is_within) in [
            ("demo://a", true),
            ("demo://docs/x", true),
            ("demo://docs/*", true),
            ("demo://docs/../a", false),
            ("demo://b", false),
            ("demo://docs/", false),
        ] {
            assert_eq!(reaches(&reads, ReadResource, uri), is_within, "{uri}");
        }
    }

    #[test]
    fn only_a_key_of_its_own_proves_a_client() {
        let [own, other] = [(); 2].map(|()| SigningKey::generate(SigningAlgorithm::EdDSA).unwrap());
        let mut disabled = client("disabled", vec![own.public().clone()]);
        disabled.enabled = false;
        let clients = Clients::new(vec![client("known", vec![own.public().clone()]), disabled]);
        let signed = |key: &SigningKey| key.sign("JWT", &serde_json::json!({})).unwrap();
        for (id, key, good) in [
            ("known", &own, true),
            ("known", &other, false),
            ("disabled", &own, false),
            ("unknown", &own, false),
        ] {
            let token = signed(key);
            let token = jws::parse(&token, EmbeddedKey::Refused).unwrap();
            assert_eq!(clients.verify(id, &token).is_some(), good, "{id}");
        }
    }
}
