//! Whose each message is that comes over the one stdout of a process.

use crate::proxy::{failure::Failure, server::Said};
use deputize_call::json::Object;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use tokio::sync::mpsc;

/// Who waits for what.
pub(super) struct Routes {
    /// Requests of all callers share the process, under ids of the guard's own.
    is_shared: bool,
    next_id: u64,
    waiting: HashMap<String, Waiting>,
    /// The newest last.
    order: VecDeque<String>,
    /// Who listens to what is said unasked.
    listener: Option<mpsc::Sender<Said>>,
    /// What was said while nobody listened.
    kept: VecDeque<Said>,
    closed: bool,
}

struct Waiting {
    sender: mpsc::Sender<Said>,
    /// The id as the caller gave it.
    id: Value,
    /// The progress token as the caller gave it.
    progress_token: Option<Value>,
}

/// A request that waits: its key here, and where its messages come in.
pub(super) type Expected = (String, mpsc::Receiver<Said>);

impl Routes {
    pub(super) fn new(is_shared: bool) -> Self {
        let (waiting, order, kept) = (HashMap::new(), VecDeque::new(), VecDeque::new());
        Self { is_shared, next_id: 0, waiting, order, listener: None, kept, closed: false }
    }

    /// Expects the messages that belong to this request. In a shared process its id and progress token are rewritten:
    /// those of two callers could be the same.
    pub(super) fn expect(&mut self, request: &mut Object) -> Result<Expected, Failure> {
        if self.closed {
            // A session ends with its process; a shared one is started anew.
            return Err(if self.is_shared { Failure::Unreachable } else { Failure::UnknownSession });
        }
        let id = request.get("id").cloned().unwrap_or_default();
        let token = request.get_mut("params").and_then(|params| params.pointer_mut("/_meta/progressToken"));
        let progress_token = token.as_deref().cloned();
        let key = if self.is_shared {
            self.next_id += 1;
            let own = Value::String(format!("guard-{}", self.next_id));
            if let Some(token) = token {
                *token = own.clone();
            }
            request.insert("id".to_owned(), own.clone());
            own.to_string()
        } else {
            id.to_string()
        };
        if self.waiting.contains_key(&key) {
            return Err(Failure::IdInUse);
        }
        let (sender, receiver) = mpsc::channel(MESSAGES_AHEAD);
        self.waiting.insert(key.clone(), Waiting { sender, id, progress_token });
        self.order.push_back(key.clone());
        Ok((key, receiver))
    }

    /// Nobody waits for this any more. Whether somebody did.
    pub(super) fn forget(&mut self, key: &str) -> bool {
        self.order.retain(|waiting| waiting != key);
        self.waiting.remove(key).is_some()
    }

    /// Listens to what is said unasked; who listened before no longer does.
    pub(super) fn listen(&mut self) -> Result<mpsc::Receiver<Said>, Failure> {
        if self.closed || self.is_shared {
            return Err(Failure::NoStream);
        }
        let (sender, receiver) = mpsc::channel(MESSAGES_AHEAD);
        for said in self.kept.drain(..) {
            // There is room: less is kept than goes ahead.
            let _ = sender.try_send(said);
        }
        self.listener = Some(sender);
        Ok(receiver)
    }

    /// Brings a message to whoever it is for.
    pub(super) fn route(&mut self, mut message: Object) {
        if !message.contains_key("method") {
            let Some(key) = message.get("id").map(Value::to_string) else { return };
            let Some(waiting) = self.waiting.remove(&key) else { return };
            self.order.retain(|waiting| *waiting != key);
            message.insert("id".to_owned(), waiting.id);
            // Who does not read is told nothing; dropping the sender ends its stream.
            let _ = waiting.sender.try_send(Said { message: Some(message), ..Said::default() });
            return;
        }
        if let Some(key) = self.of_progress(&mut message) {
            self.tell(&key, message);
        } else if !self.is_shared {
            // Between callers who share the process nobody can say whose it is: then it is nobody's.
            self.unasked(message);
        }
    }

    /// Whether the end has come.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The end: whoever waits or listens learns that nothing more comes.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
        self.order.clear();
        self.listener = None;
        self.kept.clear();
    }

    /// Whose progress a notification tells of, with the token as the caller gave it.
    fn of_progress(&self, message: &mut Object) -> Option<String> {
        if message.get("method").and_then(Value::as_str) != Some("notifications/progress") {
            return None;
        }
        let token = message.get_mut("params")?.get_mut("progressToken")?;
        if self.is_shared {
            let key = token.to_string();
            *token = self.waiting.get(&key)?.progress_token.clone()?;
            return Some(key);
        }
        let known = self.waiting.iter().find(|(_, waiting)| waiting.progress_token.as_ref() == Some(&*token));
        known.map(|(key, _)| key.clone())
    }

    fn unasked(&mut self, message: Object) {
        let said = Said { message: Some(message), ..Said::default() };
        let Some(said) = self.offer(said) else { return };
        // On the stream of the newest request the client reads it at least.
        match self.order.back().and_then(|key| self.waiting.get(key)) {
            Some(newest) => {
                // A full queue loses what was said unasked, never the response.
                let _ = newest.sender.try_send(said);
            }
            None => {
                if self.kept.len() >= MAX_KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back(said);
            }
        }
    }

    /// Gives back what nobody listened to.
    fn offer(&mut self, said: Said) -> Option<Said> {
        let Some(listener) = &self.listener else { return Some(said) };
        match listener.try_send(said) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(said) | mpsc::error::TrySendError::Closed(said)) => {
                self.listener = None;
                Some(said)
            }
        }
    }

    fn tell(&mut self, key: &str, message: Object) {
        if let Some(waiting) = self.waiting.get(key)
            && waiting.sender.capacity() > 1
        {
            // One place is kept for the response.
            let _ = waiting.sender.try_send(Said { message: Some(message), ..Said::default() });
        }
    }
}

/// The notification that a request is no longer wanted.
pub(super) fn cancelled(key: &str) -> Value {
    let id: Value = serde_json::from_str(key).unwrap_or_default();
    json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } })
}

const MESSAGES_AHEAD: usize = 256;
const MAX_KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    fn request(id: Value, token: &str) -> Object {
        object(json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": { "name": "t", "_meta": { "progressToken": token } } }))
    }

    fn heard(receiver: &mut mpsc::Receiver<Said>) -> Option<Value> {
        receiver.try_recv().ok()?.message.map(Value::Object)
    }

    #[test]
    fn callers_who_share_a_process_hear_only_their_own() {
        let mut routes = Routes::new(true);
        let (mut first, mut second) = (request(json!(1), "t"), request(json!(1), "t"));
        let (first_key, mut to_first) = routes.expect(&mut first).unwrap();
        let (second_key, mut to_second) = routes.expect(&mut second).unwrap();
        assert_ne!(first["id"], second["id"], "one id of two callers becomes two");
        assert_eq!(first["params"]["_meta"]["progressToken"], first["id"]);
        let progress = |of: &Object| {
            object(json!({ "jsonrpc": "2.0", "method": "notifications/progress",
                "params": { "progressToken": of["id"], "progress": 1 } }))
        };
        routes.route(progress(&second));
        assert_eq!(heard(&mut to_second).unwrap()["params"]["progressToken"], "t");
        routes.route(object(json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} })));
        assert!(heard(&mut to_first).is_none() && heard(&mut to_second).is_none());
        routes.route(object(json!({ "jsonrpc": "2.0", "id": first["id"], "result": { "of": "first" } })));
        assert_eq!(
            heard(&mut to_first).unwrap(),
            json!({ "jsonrpc": "2.0", "id": 1, "result": { "of": "first" } })
        );
        assert!(!routes.forget(&first_key), "it has its response");
        assert!(routes.forget(&second_key));
        assert_eq!(cancelled(&second_key)["params"]["requestId"], second["id"]);
    }

    #[test]
    fn a_session_hears_what_is_said_unasked_on_whatever_stream_it_has() {
        let mut routes = Routes::new(false);
        let note = |n: u32| {
            object(json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "n": n } }))
        };
        routes.route(note(1));
        let mut listener = routes.listen().unwrap();
        assert_eq!(heard(&mut listener).unwrap()["params"]["n"], 1, "what was kept");
        let mut asked = request(json!("a"), "t");
        let (_, mut waiting) = routes.expect(&mut asked).unwrap();
        assert_eq!(asked["id"], "a", "ids of a session are its client's");
        assert_eq!(routes.expect(&mut request(json!("a"), "t")).err(), Some(Failure::IdInUse));
        routes.route(note(2));
        assert_eq!(heard(&mut listener).unwrap()["params"]["n"], 2);
        drop(listener);
        routes.route(note(3));
        assert_eq!(heard(&mut waiting).unwrap()["params"]["n"], 3);
        routes.close();
        assert_eq!(routes.expect(&mut request(json!("b"), "t")).err(), Some(Failure::UnknownSession));
        assert!(waiting.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Disconnected));
    }
}
