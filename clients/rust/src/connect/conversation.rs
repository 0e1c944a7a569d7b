//! A conversation with one local client: what it asks is served side by side, what it tells goes on in order.

use super::{
    Connector,
    failure::Failure,
    grants::Grants,
    message::{self, Malformed, Manner, Message, Notification, Request},
    outbox::{Outbox, Reply},
    remote::Sending,
    session::{Session, headers_of_notification},
};
use deputize_call::json::Object;
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
};

/// One conversation.
pub(super) struct Conversation {
    pub(super) connector: Arc<Connector>,
    pub(super) grants: Grants,
    pub(super) session: Mutex<Option<Arc<Session>>>,
    pub(super) reopening: tokio::sync::Mutex<()>,
    under_way: Mutex<HashMap<String, UnderWay>>,
    room: Arc<Semaphore>,
    serial: AtomicU64,
    /// Notifications and responses on their way to the server, in their order.
    onward: mpsc::Sender<Object>,
    tasks: Mutex<Vec<AbortHandle>>,
    opened: AtomicBool,
    ids: Ids,
}

/// Whose ids requests have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// One client's: each is in use once at a time.
    OfOneClient,
    /// Those of clients that know nothing of each other: they say nothing.
    OfAnybody,
}

struct UnderWay {
    serial: u64,
    manner: Manner,
    task: AbortHandle,
}

impl Conversation {
    /// Begins a conversation with one client.
    pub(super) fn begin(connector: &Arc<Connector>) -> Arc<Self> {
        Self::with(connector, Ids::OfOneClient)
    }

    /// Begins one for whoever sends requests that stand alone (MCP 2026-07-28, over HTTP): none of them meets another's,
    /// and none cancels another's.
    pub(super) fn of_many(connector: &Arc<Connector>) -> Arc<Self> {
        Self::with(connector, Ids::OfAnybody)
    }

    fn with(connector: &Arc<Connector>, ids: Ids) -> Arc<Self> {
        let (onward, waiting) = mpsc::channel(MAX_ONWARD);
        let conversation = Arc::new(Self {
            grants: connector.grants(),
            connector: Arc::clone(connector),
            session: Mutex::default(),
            reopening: tokio::sync::Mutex::default(),
            under_way: Mutex::default(),
            room: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
            serial: AtomicU64::new(0),
            onward,
            tasks: Mutex::default(),
            opened: AtomicBool::new(false),
            ids,
        });
        conversation.keep(tokio::spawn(Arc::clone(&conversation).send_onward(waiting)).abort_handle());
        conversation
    }

    /// Takes in one message; `out` is where what belongs to it is said. Returns before a request is answered, but
    /// not before one that others rest on.
    pub(super) async fn hear(self: &Arc<Self>, message: Result<Message, Malformed>, out: &Outbox) {
        match message {
            Ok(Message::Request(request)) => self.take(request, out).await,
            Ok(Message::Notification(notification)) => self.take_note(notification).await,
            Ok(Message::Response(whole)) => self.tell(whole).await,
            Err(malformed) => {
                let id = malformed.id.as_ref();
                let text = message::error(id, malformed.code, &malformed.reason, None);
                out.answer(Reply { text, status: BAD_REQUEST }).await;
            }
        }
    }

    /// Whether the client has begun a session and said so: from then on the server may speak unasked.
    pub(super) fn is_open(&self) -> bool {
        self.opened.load(Ordering::Acquire) && self.session().is_some()
    }

    /// Waits until nothing is under way, for as long as this at most.
    pub(super) async fn settle(&self, patience: Duration) {
        let all = u32::try_from(MAX_UNDER_WAY).unwrap_or(u32::MAX);
        // Whoever is not done by then is ended.
        let _ = tokio::time::timeout(patience, self.room.acquire_many(all)).await;
    }

    /// Ends everything that is under way, and the session.
    pub(super) async fn end(&self) {
        for (_, request) in self.all_under_way().drain() {
            request.task.abort();
        }
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(session) = session.filter(|session| session.has_id()) {
            let ended = tokio::time::timeout(FAREWELL, self.send_bare(Method::DELETE, &session, None)).await;
            // The server may refuse to end it, or be gone; it forgets an idle session by itself.
            tracing::debug!(told = matches!(ended, Ok(Ok(_))), "session ended");
        }
    }

    /// Keeps a task until the end of the conversation.
    pub(super) fn keep(&self, task: AbortHandle) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    /// The present session.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn take(self: &Arc<Self>, request: Request, out: &Outbox) {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            return out.answer(Failure::Busy.answer(&request)).await;
        };
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let key = match self.ids {
            Ids::OfOneClient => request.id.to_string(),
            Ids::OfAnybody => serial.to_string(),
        };
        if self.all_under_way().contains_key(&key) {
            let failure = Failure::Request("another request under way has its id".to_owned());
            return out.answer(failure.answer(&request)).await;
        }
        // What is said before the session stands would miss it.
        let others_rest_on_it = request.method == "initialize";
        let manner = request.manner.clone();
        let leave = Leave { conversation: Arc::clone(self), key: key.clone(), serial };
        let (conversation, out) = (Arc::clone(self), out.clone());
        let task = {
            // Held, so that a task which is done at once finds its entry.
            let mut under_way = self.all_under_way();
            let task = tokio::spawn(async move {
                let _held = (leave, place);
                let stands_alone = request.manner != Manner::InSession;
                tokio::select! {
                    answer = conversation.serve(&request, &out) => out.answer(answer).await,
                    // MCP 2026-07-28: a client that goes away cancels. Before, that said nothing.
                    () = out.closed(), if stands_alone => {}
                }
            });
            under_way.insert(key, UnderWay { serial, manner, task: task.abort_handle() });
            task
        };
        if others_rest_on_it {
            // It says itself what went wrong; one that was ended is over too.
            let _ = task.await;
        }
    }

    async fn serve(self: &Arc<Self>, request: &Request, out: &Outbox) -> Reply {
        let served = self.deliver(request, out);
        let served = match request.method.as_str() {
            // It lasts as long as the client wants.
            "subscriptions/listen" => served.await,
            _ => match tokio::time::timeout(self.connector.request_timeout, served).await {
                Ok(served) => served,
                Err(_) => {
                    self.cancel_at_server(request).await;
                    Err(Failure::TimedOut)
                }
            },
        };
        served.unwrap_or_else(|failure| {
            tracing::info!(method = request.method, error = %failure, "request not answered by the server");
            self.answer_of(request, &failure)
        })
    }

    async fn take_note(self: &Arc<Self>, notification: Notification) {
        match notification.method.as_str() {
            "notifications/cancelled" => self.cancel(notification.whole).await,
            "notifications/initialized" => {
                // What follows may need it to be known.
                self.send_note(&notification.whole).await;
                self.opened.store(true, Ordering::Release);
            }
            _ => self.tell(notification.whole).await,
        }
    }

    /// The client no longer wants an answer.
    async fn cancel(&self, whole: Object) {
        if self.ids == Ids::OfAnybody {
            // Whose request that would be nobody can say. Over HTTP such a client closes the stream.
            return;
        }
        let id = whole.get("params").and_then(|params| params.get("requestId")).map(Value::to_string);
        let Some(cancelled) = id.and_then(|id| self.all_under_way().remove(&id)) else { return };
        // MCP 2026-07-28: to close the stream is to cancel. Before, a stream that closes says nothing.
        if cancelled.manner == Manner::InSession {
            self.tell(whole).await;
        }
        cancelled.task.abort();
    }

    async fn cancel_at_server(&self, request: &Request) {
        if request.manner == Manner::InSession && request.method != "initialize" {
            let params = json!({ "requestId": request.id, "reason": "it takes too long" });
            let note = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
            if let Value::Object(note) = note {
                self.tell(note).await;
            }
        }
    }

    /// Puts a notification or a response on its way.
    async fn tell(&self, whole: Object) {
        // The other end is there as long as the conversation is.
        let _ = self.onward.send(whole).await;
    }

    async fn send_onward(self: Arc<Self>, mut waiting: mpsc::Receiver<Object>) {
        while let Some(whole) = waiting.recv().await {
            self.send_note(&whole).await;
        }
    }

    pub(super) async fn send_note(&self, whole: &Object) {
        let headers = headers_of_notification(whole, self.session().as_deref());
        let body = Value::Object(whole.clone()).to_string();
        let sent = async {
            let token = self.grants.listing().await?;
            let sending =
                Sending { method: Method::POST, body: Some(&body), headers: &headers, token: &token };
            self.connector.remote.send(&sending).await
        };
        let sent = tokio::time::timeout(NOTE_PATIENCE, sent).await.unwrap_or(Err(Failure::TimedOut));
        if let Err(error) = sent {
            tracing::warn!(%error, "notification not delivered");
        }
    }

    fn all_under_way(&self) -> MutexGuard<'_, HashMap<String, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a request out of what is under way, however it ended.
struct Leave {
    conversation: Arc<Conversation>,
    key: String,
    serial: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut under_way = self.conversation.all_under_way();
        // Its id may be in use again.
        if under_way.get(&self.key).is_some_and(|entry| entry.serial == self.serial) {
            under_way.remove(&self.key);
        }
    }
}

/// RFC 9110 §15.5.1: the message is none.
const BAD_REQUEST: u16 = 400;
const MAX_UNDER_WAY: usize = 64;
const MAX_ONWARD: usize = 64;
/// Nobody waits for what comes of a notification, but others wait behind it.
const NOTE_PATIENCE: Duration = Duration::from_secs(30);
const FAREWELL: Duration = Duration::from_secs(1);
