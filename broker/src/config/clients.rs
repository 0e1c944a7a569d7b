//! Clients: their keys, and how far each may reach.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::keys::KeySet;
use deputize_issuer::{
    client::{AcceptedBearer, Addressees, Client, EncryptionKey, PresentedActor, Reach, clashes},
    entry::parse_spiffe_id,
};
use std::{collections::HashSet, path::Path};

use super::{
    raw,
    read::{self, ConfigError},
    resolved::Check,
};

impl From<raw::Reach> for Reach {
    fn from(raw: raw::Reach) -> Self {
        let raw::Reach { resource, tools, prompts, resources } = raw;
        Self { resource, tools, prompts, resources }
    }
}

impl From<Reach> for raw::Reach {
    fn from(reach: Reach) -> Self {
        let Reach { resource, tools, prompts, resources } = reach;
        Self { resource, tools, prompts, resources }
    }
}

/// What is wrong with clients that would bring what is addressed to a server, or to us.
pub(super) fn bring_anothers(
    clients: &[Client],
    addressees: &Addressees<'_>,
    file: &Path,
) -> Vec<ConfigError> {
    let wrong = |client: &Client| {
        let addressed = addressees.among(&client.subject_audiences)?;
        Some(ConfigError::new(file, format!("client {:?}: {addressed}", client.id)))
    };
    clients.iter().filter_map(wrong).collect()
}

impl Check<'_> {
    /// All clients.
    pub(super) fn clients(&mut self, raw: &raw::Config) -> Vec<Client> {
        let (mut clients, mut ids) = (Vec::new(), HashSet::new());
        for client in &raw.clients {
            if client.id.starts_with("user:") || client.id.is_empty() || client.id.len() > 256 {
                self.refuse(format!(
                    "client {:?}: an id is 1-256 characters and does not begin with user:",
                    client.id
                ));
            }
            if !ids.insert(client.id.clone()) {
                self.refuse(format!("client {:?} stands twice", client.id));
            }
            let presented = client.presents_actors.iter().map(|presented| &presented.actor);
            for name in [&client.id].into_iter().chain(&client.actor).chain(presented) {
                // Spelled otherwise, it would be compared as another name.
                if is_like_a_spiffe_id(name) && parse_spiffe_id(name).is_err() {
                    self.refuse(format!("client {:?}: {name:?} is not a valid SPIFFE ID", client.id));
                }
            }
            clients.push(self.client(raw, client));
        }
        for clash in clashes(&clients) {
            self.refuse(clash.to_string());
        }
        self.certificates_are_of_one(&clients);
        self.no_proxys_certificate(raw);
        clients
    }

    fn client(&mut self, config: &raw::Config, raw: &raw::Client) -> Client {
        let other_way = raw.spiffe_id.is_some()
            || raw.tls_client_auth.is_some()
            || raw.certificate_file.is_some()
            || raw.secret_sha256.is_some();
        let keys = raw.jwks_file.as_ref().and_then(|file| self.jwks(&self.folder.join(file), other_way));
        let (keys, encryption_key) = keys.unzip();
        let secret_sha256 = raw.secret_sha256.as_ref().and_then(|text| {
            let digest = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            if digest.is_none() {
                self.refuse(format!("client {:?}: secret_sha256 is 43 characters of base64url", raw.id));
            }
            digest
        });
        if secret_sha256.is_some() && !config.allow_client_secrets {
            self.refuse(format!(
                "client {:?}: has a bootstrap secret, which allow_client_secrets: true would have to permit",
                raw.id
            ));
        }
        self.one_way(raw, keys.as_ref().is_some_and(|keys: &KeySet| keys.iter().next().is_some()));
        let (spiffe_id, certificates) = (self.spiffe_id(config, raw), self.certificates(config, raw));
        Client {
            id: raw.id.clone(),
            tenant: raw.tenant.clone(),
            actor: raw.actor.as_ref().or(raw.spiffe_id.as_ref()).cloned(),
            keys: keys.unwrap_or_default(),
            encryption_key: encryption_key.flatten(),
            secret_sha256,
            spiffe_id,
            certificates,
            subject_audiences: raw.subject_audiences.clone(),
            presents_actors: raw
                .presents_actors
                .iter()
                .map(|actor| PresentedActor {
                    issuer: actor.issuer.clone(),
                    subject: actor.subject.clone(),
                    actor: actor.actor.clone(),
                })
                .collect(),
            may_call: raw.may_call.iter().cloned().map(Reach::from).collect(),
            server: raw.server.clone(),
            accepts_bearer: self.accepts_bearer(config, raw),
            client_credentials: raw.client_credentials,
            enabled: raw.enabled,
        }
    }

    /// Under which rules what is presented to a server as it stands is brought; that it is not brought otherwise, for
    /// clients and entries alike [`Addressees`] says.
    fn accepts_bearer(&mut self, config: &raw::Config, raw: &raw::Client) -> Vec<AcceptedBearer> {
        let own = |audience: &String| raw.server.as_ref() == Some(audience);
        if raw.subject_audiences.iter().any(own) {
            self.refuse(format!(
                "client {:?}: subject_audiences names its own server; say accepts_bearer for users' tokens that are \
                 presented there",
                raw.id
            ));
        }
        if raw.accepts_bearer.is_empty() {
            return Vec::new();
        }
        if raw.server.is_none() {
            self.refuse(format!("client {:?}: accepts_bearer is for servers; say which (server)", raw.id));
        }
        if !raw.subject_audiences.is_empty() || !raw.presents_actors.is_empty() {
            self.refuse(format!(
                "client {:?}: with accepts_bearer it brings no other users' tokens: give subject_audiences and \
                 presents_actors to another client",
                raw.id
            ));
        }
        let mut issuers = HashSet::new();
        for accepted in &raw.accepts_bearer {
            let is_known = |provider: &raw::IdentityProvider| {
                provider.issuer == accepted.issuer && provider.tenant == raw.tenant
            };
            if !config.identity_providers.iter().any(is_known) {
                self.refuse(format!(
                    "client {:?}: accepts_bearer names {:?}, which is no identity provider of its tenant",
                    raw.id, accepted.issuer
                ));
            }
            if !issuers.insert(&accepted.issuer) || accepted.clients.is_empty() {
                self.refuse(format!(
                    "client {:?}: accepts_bearer names each issuer once, with the clients whose tokens it accepts",
                    raw.id
                ));
            }
        }
        let accepted = raw.accepts_bearer.iter();
        accepted
            .map(|accepted| AcceptedBearer {
                issuer: accepted.issuer.clone(),
                clients: accepted.clients.clone(),
            })
            .collect()
    }

    /// The keys that verify, and the one to which answers are sealed; that may be there alone where a client proves itself
    /// in another way.
    fn jwks(&mut self, file: &Path, may_seal_alone: bool) -> Option<(KeySet, Option<EncryptionKey>)> {
        let refuse = |error: &dyn std::fmt::Display| ConfigError::new(file, error.to_string());
        let keys = read::read_text(file).and_then(|text| {
            let sealing = EncryptionKey::from_jwks(text.as_bytes())
                .map_err(|error| refuse(&format!("key with use \"enc\": {error}")))?;
            let verifying = match KeySet::from_jwks(text.as_bytes()) {
                Err(_) if may_seal_alone && sealing.is_some() => KeySet::default(),
                verifying => verifying.map_err(|error| refuse(&error))?,
            };
            if sealing.is_some() && !cfg!(feature = "jwe") {
                return Err(refuse(
                    &"sealing answers to the key with use \"enc\" needs a build with the feature jwe",
                ));
            }
            Ok((verifying, sealing))
        });
        keys.map_err(|error| self.errors.push(error)).ok()
    }
}

fn is_like_a_spiffe_id(name: &str) -> bool {
    name.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("spiffe"))
}
