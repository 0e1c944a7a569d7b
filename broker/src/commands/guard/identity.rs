//! Who a guard is at the broker: as its files say, or the ready file of `deputize dev`.

use deputize_call::{json::Object, keys::KeySet, sign::SigningKey};
use serde_json::Value;
use std::path::Path;

use super::settings::{Raw, bytes, needed};
use crate::commands::{exit::CommandError, input};

/// Who the guard is at the broker.
pub(super) struct Identity {
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) key: SigningKey,
    pub(super) snapshot_keys: KeySet,
}

impl Identity {
    pub(super) fn of(raw: &Raw) -> Result<Self, CommandError> {
        let key_file = needed(raw.key_file.clone(), "--key-file")?;
        let snapshot_keys = needed(raw.snapshot_keys.clone(), "--snapshot-keys")?;
        let keys = KeySet::from_jwks(&bytes(&snapshot_keys)?).map_err(|error| {
            let message = format!("{}: {error}", snapshot_keys.display());
            CommandError::configuration(message, "give the JWKS of the broker's snapshot keys")
        })?;
        Ok(Self {
            issuer: needed(raw.issuer.clone(), "--issuer")?,
            client_id: needed(raw.client_id.clone(), "--client-id")?,
            key: input::private_key(&key_file)?,
            snapshot_keys: keys,
        })
    }

    /// What `deputize dev` says of the server with this resource.
    pub(super) fn from_dev(file: &Path, resource: &str) -> Result<Self, CommandError> {
        let bad = |what: &str| {
            CommandError::configuration(
                format!("{}: {what}", file.display()),
                "start `deputize dev --register RECORD --ready-file FILE` with a record of this server",
            )
        };
        let text = input::file_text(file)?;
        let ready: Value = serde_json::from_str(&text).map_err(|error| bad(&error.to_string()))?;
        let servers = ready.get("servers").and_then(Value::as_array);
        let server = servers.and_then(|servers| {
            servers.iter().find(|server| server.get("resource").and_then(Value::as_str) == Some(resource))
        });
        let server = server.ok_or_else(|| bad(&format!("no server has the resource {resource}")))?;
        let text_at = |value: &Value, pointer: &str| {
            value.pointer(pointer).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| bad(pointer))
        };
        let jwk: &Object = server
            .pointer("/client/private_jwk")
            .and_then(Value::as_object)
            .ok_or_else(|| bad("/client/private_jwk"))?;
        let jwks = ready.get("snapshot_jwks").map(Value::to_string).unwrap_or_default();
        Ok(Self {
            issuer: text_at(&ready, "/issuer")?,
            client_id: text_at(server, "/client/client_id")?,
            key: SigningKey::from_private_jwk(jwk).map_err(|error| bad(&error.to_string()))?,
            snapshot_keys: KeySet::from_jwks(jwks.as_bytes()).map_err(|error| bad(&error.to_string()))?,
        })
    }
}
