//! Who comes with a web-identity token: verified as STS would, by what the provider publishes.

use deputize_call::{
    json::{self, Object},
    jws::{self, EmbeddedKey, JwsError},
    keys::KeySet,
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::Mutex;
use url::{Host, Url};

use super::{answer::Refusal, call::plain_client};

/// The one OpenID provider that the account knows.
#[derive(Debug)]
pub(super) struct WebIdentity {
    issuer: String,
    http: reqwest::Client,
    keys: Mutex<Option<KeySet>>,
}

/// What a token says.
#[derive(Debug)]
pub(super) struct Federated {
    pub(super) subject: String,
    pub(super) audience: String,
    /// The roles that it is for, where it says so.
    pub(super) roles: Option<Vec<String>>,
    pub(super) source_identity: Option<String>,
    /// Session tags.
    pub(super) tags: BTreeMap<String, String>,
}

impl WebIdentity {
    pub(super) fn new(issuer: &str) -> Result<Self, reqwest::Error> {
        Ok(Self { issuer: issuer.to_owned(), http: plain_client(TIMEOUT)?, keys: Mutex::default() })
    }

    /// Its URL without the scheme, as AWS names providers.
    pub(super) fn name(&self) -> &str {
        self.issuer.split_once("://").map_or(&self.issuer, |(_, rest)| rest)
    }

    pub(super) async fn verify(&self, token: &str, now_seconds: u64) -> Result<Federated, Refusal> {
        let jws = jws::parse(token, EmbeddedKey::Refused).map_err(|error| invalid(&error))?;
        let claims = &jws.claims;
        if jws::string_claim(claims, "iss", MAX_TEXT).map_err(|error| invalid(&error))? != self.issuer {
            return Err(Refusal::new("InvalidIdentityToken", "no provider of this issuer is known"));
        }
        let mut keys = self.keys.lock().await;
        let verified = keys.as_ref().map_or(Err(JwsError::UnknownKey), |keys| keys.verify(&jws));
        match verified {
            Err(JwsError::UnknownKey) => {
                keys.insert(self.published().await?).verify(&jws).map_err(|error| invalid(&error))?;
            }
            verified => verified.map_err(|error| invalid(&error))?,
        }
        drop(keys);
        jws::check_times(claims, now_seconds, 0).map_err(|error| match error {
            JwsError::Claim("exp", "expired") => {
                Refusal::new("ExpiredTokenException", "the token has expired")
            }
            error => invalid(&error),
        })?;
        federated(claims)
    }

    /// The keys that the provider publishes now.
    async fn published(&self) -> Result<KeySet, Refusal> {
        let metadata = self.fetch(&format!("{}/.well-known/openid-configuration", self.issuer)).await?;
        let metadata = json::parse_object(&metadata).map_err(|_| unreadable("its metadata is no JSON"))?;
        let text = |name| metadata.get(name).and_then(Value::as_str);
        if text("issuer") != Some(self.issuer.as_str()) {
            return Err(unreadable("its metadata names another issuer"));
        }
        let jwks_uri = text("jwks_uri").ok_or_else(|| unreadable("its metadata names no keys"))?;
        let keys = self.fetch(jwks_uri).await?;
        KeySet::from_jwks(&keys).map_err(|_| unreadable("its keys cannot be read"))
    }

    /// From this machine alone.
    async fn fetch(&self, url: &str) -> Result<Vec<u8>, Refusal> {
        let is_here = |url: &Url| match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            _ => false,
        };
        let url = Url::parse(url).ok().filter(is_here).ok_or_else(|| unreadable("it is not on loopback"))?;
        let sent = self.http.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let mut response = sent.map_err(|_| unreadable("it does not answer"))?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| unreadable("its answer breaks off"))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_DOCUMENT_BYTES {
                return Err(unreadable("its answer is too long"));
            }
        }
        Ok(body)
    }
}

fn federated(claims: &Object) -> Result<Federated, Refusal> {
    let missing = |what: &str| Refusal::new("InvalidIdentityToken", what);
    let subject = jws::string_claim(claims, "sub", MAX_TEXT).map_err(|error| invalid(&error))?;
    let audience = jws::string_claim(claims, "aud", MAX_TEXT).map_err(|error| invalid(&error))?;
    if !claims.contains_key("iat") {
        return Err(missing("the token does not say when it was made"));
    }
    let texts = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let roles = match claims.get(ROLES) {
        None => None,
        Some(roles) => Some(texts(roles).ok_or_else(|| missing("the token's roles are no list of texts"))?),
    };
    let source_identity = match claims.get(SOURCE_IDENTITY) {
        None => None,
        Some(Value::String(identity)) => Some(identity.clone()),
        Some(_) => return Err(missing("the token's source identity is no text")),
    };
    let tags = match claims.get(TAGS) {
        None => BTreeMap::new(),
        Some(tags) => read_tags(tags).ok_or_else(|| missing("the token's tags are not one value each"))?,
    };
    Ok(Federated { subject: subject.to_owned(), audience: audience.to_owned(), roles, source_identity, tags })
}

/// IAM User Guide, "Pass session tags in AWS STS": each value stands in an array, alone.
fn read_tags(tags: &Value) -> Option<BTreeMap<String, String>> {
    let members = tags.as_object()?;
    let is_known = |name: &String| matches!(name.as_str(), "principal_tags" | "transitive_tag_keys");
    if !members.keys().all(is_known) {
        return None;
    }
    let tags = members.get("principal_tags")?.as_object()?;
    let one = |(key, values): (&String, &Value)| match values.as_array()?.as_slice() {
        [Value::String(value)] if key.chars().count() <= 128 && value.chars().count() <= 256 => {
            Some((key.clone(), value.clone()))
        }
        _ => None,
    };
    let tags: BTreeMap<_, _> = tags.iter().map(one).collect::<Option<_>>()?;
    (tags.len() <= MAX_TAGS).then_some(tags)
}

fn invalid(error: &JwsError) -> Refusal {
    Refusal::new("InvalidIdentityToken", format!("the web identity token is not valid: {error}"))
}

fn unreadable(why: &str) -> Refusal {
    Refusal::new("IDPCommunicationError", format!("the identity provider could not be asked: {why}"))
}

const TAGS: &str = "https://aws.amazon.com/tags";
const SOURCE_IDENTITY: &str = "https://aws.amazon.com/source_identity";
const ROLES: &str = "https://aws.amazon.com/roles";
const MAX_TAGS: usize = 50;
const MAX_TEXT: usize = 512;
const MAX_DOCUMENT_BYTES: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(2);
