//! What a guard knows of its server: what was approved of it and the broker's keys, as a signed snapshot.

mod pin;

use crate::{known::KnownTokens, revocation::Revocation};
use deputize_call::{
    action::Action,
    digest::{Digest, sha256},
    json::{self, Object},
    jws::{self, EmbeddedKey, string_claim},
    keys::KeySet,
    level::Level,
    offers::Offers,
    resource,
    schema::PinnedSchema,
    sign::SigningKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `typ` of the signature over a snapshot.
pub const SNAPSHOT_TYP: &str = "deputize-snapshot+jwt";

/// What the broker serves at `GET /guard/snapshot`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedSnapshot {
    /// A [`SnapshotDocument`] as JSON text: the bytes that are signed.
    pub snapshot: String,
    /// A compact JWS of `iss`, `aud` (the resource), `iat`, `exp` and `sha256` (the text's digest).
    pub signature: String,
}

/// The content of a snapshot, as the broker writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotDocument {
    /// Grows with every change, revocations included; a guard never goes back.
    pub version: u64,
    /// Seconds since the epoch.
    pub issued_at: u64,
    /// Seconds since the epoch; at most an hour after `issued_at`.
    pub expires_at: u64,
    /// The broker.
    pub issuer: String,
    /// Id of the server in the registry.
    pub server_id: String,
    /// The server's resource URI.
    pub resource: String,
    /// The server's tenant.
    pub tenant: String,
    /// Digest of its approved manifest.
    pub manifest_digest: Digest,
    /// The keys that sign tool-call tokens.
    pub jwks: Value,
    /// The tools that may be called now.
    pub tools: Vec<ToolDocument>,
    /// The prompts that may be got now.
    // Left out where there are none: guards from before there were any refuse unknown members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<PromptDocument>,
    /// The resources that may be read now, and those which no prefix may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceDocument>,
    /// What is revoked.
    #[serde(default)]
    pub revocations: Vec<Revocation>,
}

/// One approved tool.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolDocument {
    /// Its definition as approved.
    pub definition: Object,
    /// Digest of that definition.
    pub tool_digest: Digest,
    /// The least level of its tokens.
    pub least_level: Level,
    /// Its risk tier, by name.
    pub tier: String,
}

/// One approved prompt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptDocument {
    /// Its definition as approved.
    pub definition: Object,
    /// Digest of that definition.
    pub prompt_digest: Digest,
    /// The least level of its tokens.
    pub least_level: Level,
    /// Its risk tier, by name.
    pub tier: String,
}

/// One approved resource, or all below a prefix.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceDocument {
    /// What is shown of it: `uri` (with `/*` at its end for everything below), `name`, `title`, `description`.
    pub shown: Object,
    /// The least level of its tokens.
    pub least_level: Level,
    /// Its risk tier, by name.
    pub tier: String,
    /// Not where it is switched off: then it takes what it names out of a wider entry.
    pub enabled: bool,
}

/// A snapshot whose every tool was checked and compiled.
#[derive(Debug)]
pub struct Snapshot {
    document: SnapshotDocument,
    keys: KeySet,
    tools: BTreeMap<String, Pinned>,
    prompts: BTreeMap<String, Pinned>,
    /// By their entries.
    resources: BTreeMap<String, Pinned>,
    offers: Offers,
    known: KnownTokens,
}

/// A tool, prompt or resource as calls are held against it.
#[derive(Debug)]
pub(crate) struct Pinned {
    /// Its definition as approved; of a resource, what is shown of it.
    pub(crate) definition: Object,
    pub(crate) digest: Digest,
    pub(crate) schema: PinnedSchema,
    pub(crate) least_level: Level,
    pub(crate) enabled: bool,
}

/// What a server's live `tools/list` or `prompts/list` is, compared with what was approved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedTools {
    /// Tools that are exactly what was approved: the only ones to be listed.
    pub approved: Vec<String>,
    /// Tools whose definition is no longer the approved one.
    pub drifted: Vec<String>,
    /// Tools that were never approved.
    pub unknown: Vec<String>,
}

/// Why a snapshot is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Not of the right form.
    #[error("malformed snapshot: {0}")]
    Malformed(String),
    /// The signature does not verify, or is about something else.
    #[error("snapshot signature: {0}")]
    Signature(String),
    /// Made for another guard, or by another broker.
    #[error("snapshot of another {0}")]
    Other(&'static str),
    /// Expired, not yet begun, or good for more than an hour.
    #[error("snapshot outside of its time")]
    Time,
    /// Older than one that was installed before.
    #[error("snapshot version {offered} is below {highest}")]
    Older {
        /// The version offered.
        offered: u64,
        /// The highest installed so far.
        highest: u64,
    },
    /// A tool in it does not hold.
    #[error("snapshot tool {name:?}: {problem}")]
    Tool {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

impl SignedSnapshot {
    /// Signs a snapshot with one of the broker's keys for snapshots.
    pub fn sign(document: &SnapshotDocument, key: &SigningKey) -> Result<Self, SnapshotError> {
        let malformed = |error: &dyn std::fmt::Display| SnapshotError::Malformed(error.to_string());
        let snapshot = serde_json::to_string(document).map_err(|error| malformed(&error))?;
        let claims = json!({
            "iss": document.issuer, "aud": document.resource, "iat": document.issued_at,
            "exp": document.expires_at, "sha256": Digest::from_bytes(sha256(snapshot.as_bytes())),
        });
        let signature = key.sign(SNAPSHOT_TYP, &claims).map_err(|error| malformed(&error))?;
        Ok(Self { snapshot, signature })
    }

    /// Verifies the signature with the configured keys, and reads what is signed.
    pub fn open(self, signers: &KeySet, now_seconds: u64) -> Result<Snapshot, SnapshotError> {
        let refused = |error: jws::JwsError| SnapshotError::Signature(error.to_string());
        let jws = jws::parse(&self.signature, EmbeddedKey::Refused).map_err(refused)?;
        if jws.header.typ.as_deref() != Some(SNAPSHOT_TYP) {
            return Err(SnapshotError::Signature("wrong typ".to_owned()));
        }
        jws::check_times(&jws.claims, now_seconds, CLOCK_SKEW_SECONDS).map_err(|_| SnapshotError::Time)?;
        signers.verify(&jws).map_err(refused)?;
        let digest = Digest::from_bytes(sha256(self.snapshot.as_bytes())).to_string();
        if string_claim(&jws.claims, "sha256", 64).map_err(refused)? != digest {
            return Err(SnapshotError::Signature("it is over another text".to_owned()));
        }
        let snapshot = Snapshot::from_json(self.snapshot.as_bytes(), now_seconds)?;
        let says = |name, value: &str| {
            string_claim(&jws.claims, name, MAX_URI_BYTES).is_ok_and(|claim| claim == value)
        };
        if !says("iss", &snapshot.document.issuer) || !says("aud", &snapshot.document.resource) {
            return Err(SnapshotError::Other("broker or server"));
        }
        Ok(snapshot)
    }
}

impl Snapshot {
    /// Reads a snapshot whose origin the transport already vouches for; from the network use [`SignedSnapshot::open`].
    pub fn from_json(text: &[u8], now_seconds: u64) -> Result<Self, SnapshotError> {
        if text.len() > MAX_SNAPSHOT_BYTES {
            return Err(SnapshotError::Malformed("longer than 16 MiB".to_owned()));
        }
        let value = json::parse_value(text, json::MAX_DEPTH + 4)
            .map_err(|error| SnapshotError::Malformed(error.to_string()))?;
        let document =
            serde_json::from_value(value).map_err(|error| SnapshotError::Malformed(error.to_string()))?;
        Self::from_document(document, now_seconds)
    }

    /// Checks and compiles a snapshot.
    pub fn from_document(mut document: SnapshotDocument, now_seconds: u64) -> Result<Self, SnapshotError> {
        let begins_soon = document.issued_at <= now_seconds + CLOCK_SKEW_SECONDS;
        let is_short = document.expires_at.saturating_sub(document.issued_at) <= MAX_LIFETIME_SECONDS;
        if !begins_soon || !is_short || document.expires_at <= now_seconds {
            return Err(SnapshotError::Time);
        }
        let jwks = document.jwks.to_string();
        let keys = KeySet::from_jwks(jwks.as_bytes())
            .map_err(|error| SnapshotError::Malformed(format!("jwks: {error}")))?;
        if [document.tools.len(), document.prompts.len(), document.resources.len()].iter().max()
            > Some(&MAX_TOOLS)
        {
            return Err(SnapshotError::Malformed("more than 500 tools, prompts or resources".to_owned()));
        }
        let tools = pin::tools(std::mem::take(&mut document.tools))?;
        let prompts = pin::prompts(std::mem::take(&mut document.prompts))?;
        let resources = pin::resources(std::mem::take(&mut document.resources))?;
        let kinds =
            [(Action::CallTool, &tools), (Action::GetPrompt, &prompts), (Action::ReadResource, &resources)];
        let enabled = kinds.into_iter().flat_map(|(action, all)| {
            all.iter().filter(|(_, pinned)| pinned.enabled).map(move |(name, _)| (action, name.as_str()))
        });
        let offers = Offers::new(enabled).map_err(|error| SnapshotError::Malformed(error.to_string()))?;
        Ok(Self { document, keys, tools, prompts, resources, offers, known: KnownTokens::default() })
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.document.version
    }

    /// The server's id in the registry.
    pub fn server_id(&self) -> &str {
        &self.document.server_id
    }

    /// Digest of the server's approved manifest.
    pub fn manifest_digest(&self) -> Digest {
        self.document.manifest_digest
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.document.issuer
    }

    pub(crate) fn resource(&self) -> &str {
        &self.document.resource
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.document.tenant
    }

    pub(crate) fn expires_at(&self) -> u64 {
        self.document.expires_at
    }

    /// Tokens that were verified with [`Snapshot::keys`].
    pub(crate) fn known(&self) -> &KnownTokens {
        &self.known
    }

    pub(crate) fn revocations(&self) -> &[Revocation] {
        &self.document.revocations
    }

    pub(crate) fn keys(&self) -> &KeySet {
        &self.keys
    }

    pub(crate) fn tool(&self, name: &str) -> Option<&Pinned> {
        self.tools.get(name)
    }

    pub(crate) fn prompt(&self, name: &str) -> Option<&Pinned> {
        self.prompts.get(name)
    }

    /// The entry that names this resource, and what it says: the most exact one decides.
    pub(crate) fn entry_of(&self, uri: &str) -> Option<(&str, &Pinned)> {
        resource::find(&self.resources, uri).filter(|(_, pinned)| pinned.enabled)
    }

    /// Entries of resources, those included that are switched off.
    pub(crate) fn resources(&self) -> impl Iterator<Item = (&str, &Pinned)> {
        self.resources.iter().map(|(entry, pinned)| (entry.as_str(), pinned))
    }

    /// What this action acts on, if it is approved.
    pub(crate) fn pinned(&self, action: Action, name: &str) -> Option<&Pinned> {
        match action {
            Action::CallTool => self.tool(name),
            Action::GetPrompt => self.prompt(name),
            Action::ReadResource => self.entry_of(name).map(|(_, pinned)| pinned),
        }
    }

    /// Whether there is anything of this kind.
    pub(crate) fn has(&self, action: Action) -> bool {
        self.offers.iter().any(|(offered, _)| offered == action)
    }

    /// Everything that can be asked for, counted.
    pub(crate) fn offers(&self) -> &Offers {
        &self.offers
    }
}

const CLOCK_SKEW_SECONDS: u64 = 60;
const MAX_LIFETIME_SECONDS: u64 = 3600;
const MAX_SNAPSHOT_BYTES: usize = 16 * 1024 * 1024;
const MAX_TOOLS: usize = 500;
const MAX_URI_BYTES: usize = 2048;
