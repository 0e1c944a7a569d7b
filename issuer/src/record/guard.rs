//! What guards saw, on record: as they said it, each with the client that said it.

use deputize_call::action::Action;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Entry, Kind};
use crate::{authenticate::Caller, desk::Desk, drift::Drifted, error::IssueError, log::Class};

/// What a guard saw. The call that it belongs to stands beside it, in `txn`, `jti`, `tool` and `action` of the entry,
/// where it is one of a token for the guard's own server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The guard's id of it.
    pub id: Uuid,
    /// `connected`, `discovered`, `list_changed`, `executed`, `failed`, `drifted`.
    pub event: String,
    /// When, in milliseconds since the Unix epoch, by the guard's clock.
    pub at: u64,
    /// A class of what happened, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Size of the result, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// More; of a drift the difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
    /// The call that it belongs to as the guard named it, where nothing bears that out: then the entry names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<Named>,
}

/// A call as a guard named it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<String>,
    /// The token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
}

/// Records what a guard saw: entries of kind [`Kind::Guard`] with `seen`, `txn`, `jti`, `tool` and `action` set, to which the
/// guard and its server are added. They give way before decisions do when space runs out. All are durable before the
/// answer; on an error some may be.
///
/// # Errors
/// [`IssueError::RecordUnavailable`].
pub async fn record_seen(
    desk: &Desk,
    caller: &Caller,
    server: &str,
    entries: Vec<Entry>,
) -> Result<(), IssueError> {
    let mut spent = caller.spent();
    let mut bytes = Vec::with_capacity(entries.len());
    for entry in entries {
        let client = caller.client();
        let entry = Entry {
            tenant: Some(client.tenant.clone()),
            client: Some(client.id.clone()),
            server: Some(server.to_owned()),
            ..entry.spent(spent.take())
        };
        bytes.push(entry.to_bytes()?);
    }
    desk.audit.append_all(Class::Denial, bytes).await
}

/// Records that nothing is issued for a tool from now on (`stopped`), or that it is again (`lifted`), by whom, and the
/// difference that was seen.
///
/// # Errors
/// [`IssueError::RecordUnavailable`].
pub async fn record_drift(
    desk: &Desk,
    drifted: &Drifted,
    (result, by): (&str, &str),
    difference: Option<&Value>,
) -> Result<(), IssueError> {
    let entry = Entry {
        server: Some(drifted.server.clone()),
        tool: Some(drifted.tool.clone()),
        action: Some(drifted.action).filter(|action| *action != Action::CallTool),
        definition: Some(drifted.approved),
        result: Some(result.to_owned()),
        by: Some(by.to_owned()),
        detail: difference.map(Value::to_string),
        ..Entry::new(Kind::Drift, desk.clock.now_ms())
    };
    desk.audit.append(Class::Vital, entry.to_bytes()?).await.map(drop)
}
