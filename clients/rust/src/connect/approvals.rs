//! Calls that wait for a person: the same call, made again, asks for the same decision.

use super::{failure::Waiting, grants::Call};
use deputize_call::digest::{CallInput, Digest, call_digest};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The decisions that are open.
#[derive(Default)]
pub(super) struct Approvals(Mutex<HashMap<Digest, Approval>>);

/// One decision.
#[derive(Debug, Clone)]
pub(super) struct Approval {
    pub(super) id: String,
    /// The call as the server gets it.
    call: Call,
    until: Duration,
}

impl Approvals {
    /// The decision that this call waits for.
    pub(super) fn of(&self, call: &Call, uptime: Duration) -> Option<Approval> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, approval| approval.until > uptime);
        open.get(&digest(call)?).cloned()
    }

    /// From now on this call waits.
    pub(super) fn note(&self, call: &Call, waiting: &Waiting, uptime: Duration) {
        let Some(digest) = digest(call) else { return };
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_OPEN
            && let Some(soonest) = open.iter().min_by_key(|(_, approval)| approval.until).map(|(key, _)| *key)
        {
            open.remove(&soonest);
        }
        let until = uptime + Duration::from_secs(waiting.expires_in_seconds.min(MAX_WAIT_SECONDS));
        open.insert(digest, Approval { id: waiting.approval_id.clone(), call: call.clone(), until });
    }

    /// It was decided, one way or the other.
    pub(super) fn forget(&self, call: &Call) {
        if let Some(digest) = digest(call) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        }
    }

    /// A retry that brings our own `requestState` stands for the call that waits, as it was without it.
    pub(super) fn original(&self, call: &Call) -> Option<Call> {
        let id = call.request_state.as_ref()?.as_str()?.strip_prefix(STATE_PREFIX)?;
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |approval: &&Approval| {
            let other = &approval.call;
            approval.id == id
                && (other.action, &other.name, &other.arguments) == (call.action, &call.name, &call.arguments)
        };
        open.values().find(is_same).map(|approval| approval.call.clone())
    }
}

/// The `requestState` with which a client comes back for this decision.
pub(super) fn request_state(waiting: &Waiting) -> Value {
    Value::String(format!("{STATE_PREFIX}{}", waiting.approval_id))
}

fn digest(call: &Call) -> Option<Digest> {
    let input = CallInput {
        method: call.action.as_str(),
        name: &call.name,
        arguments: &call.arguments,
        input_responses: call.input_responses.as_ref(),
        request_state: call.request_state.as_ref(),
    };
    call_digest(&input).ok()
}

const STATE_PREFIX: &str = "deputize-approval:";
const MAX_OPEN: usize = 64;
const MAX_WAIT_SECONDS: u64 = 3_600;
