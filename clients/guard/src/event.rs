//! What a guard saw, as it tells the broker (S-50).

use deputize_call::action::Action;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something that a guard saw. What does not apply is absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The transaction that it belongs to.
    pub txn: Option<String>,
    /// The token that it was done with.
    pub jti: Option<String>,
    /// The token's place in the broker's log, by which it is found there however long ago it was made.
    pub index: Option<u64>,
    /// The tool, prompt or resource that it is about.
    pub tool: Option<String>,
    /// What was done with it, or of which list it is, where that is not [`Action::CallTool`].
    pub action: Option<Action>,
    /// A class of what happened, in a word: of a result `ok`, `tool_error`, `sensitive`; of a failure its cause.
    pub class: Option<String>,
    /// Size of the result, in bytes.
    pub bytes: Option<u64>,
    /// More, as JSON of at most [`MAX_DETAIL_BYTES`]; of a drift the difference. Never arguments or results.
    pub detail: Option<Value>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The guard, or somebody through it, connected to the server.
    Connected,
    /// The server's tools were listed.
    Discovered,
    /// The list of tools is not what it was.
    ListChanged,
    /// A call ran and was answered.
    Executed,
    /// A call was let through and failed.
    Failed,
    /// The server's definition of a tool is not the approved one: the broker stops issuing for it.
    Drifted,
}

/// An [`Event`] on the wire: `POST /guard/events` takes at most [`MAX_EVENTS`] of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventRecord {
    /// UUIDv7; an id that comes again is not recorded twice.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
    /// When, in milliseconds since the Unix epoch, by the guard's clock.
    pub at_ms: u64,
    /// As [`Event::txn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<String>,
    /// As [`Event::jti`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// As [`Event::index`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// As [`Event::tool`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// As [`Event::action`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// As [`Event::class`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// As [`Event::bytes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// As [`Event::detail`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

impl Event {
    /// As of a tool, prompt or resource.
    #[must_use]
    pub fn about(self, action: Action, name: &str) -> Self {
        let action = Some(action).filter(|action| *action != Action::CallTool);
        Self { tool: Some(name.to_owned()), action, ..self }
    }

    /// An event of this kind; set what else is known of it.
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            txn: None,
            jti: None,
            index: None,
            tool: None,
            action: None,
            class: None,
            bytes: None,
            detail: None,
        }
    }

    /// As the broker takes it: texts cut to what it accepts, a detail that is too long left out.
    pub fn into_record(self, id: String, at_ms: u64) -> EventRecord {
        let cut = |text: Option<String>| text.map(|text| text.chars().take(MAX_TEXT_CHARS).collect());
        let fits = |detail: &Value| detail.to_string().len() <= MAX_DETAIL_BYTES;
        EventRecord {
            id,
            kind: self.kind,
            at_ms,
            txn: cut(self.txn),
            jti: cut(self.jti),
            index: self.index,
            tool: cut(self.tool),
            action: self.action,
            class: cut(self.class),
            bytes: self.bytes,
            detail: self.detail.filter(fits),
        }
    }
}

impl EventKind {
    /// Its word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Discovered => "discovered",
            Self::ListChanged => "list_changed",
            Self::Executed => "executed",
            Self::Failed => "failed",
            Self::Drifted => "drifted",
        }
    }
}

/// Events in one request.
pub const MAX_EVENTS: usize = 100;
/// The longest [`Event::detail`], in bytes of JSON.
pub const MAX_DETAIL_BYTES: usize = 4096;
/// The broker takes texts of 256 bytes; a character has four at most.
const MAX_TEXT_CHARS: usize = 64;
