//! The guard's own eyes on the server: which versions it speaks, and which tools it lists now.

use super::{
    Proxy,
    failure::{Failure, METHOD_NOT_FOUND, rpc_error},
    screen::LISTS_CHANGED,
    server::{Answer, Channel, Messages, Outgoing, Trace},
    versions::{LEGACY, MODERN},
};
use crate::{Drift, Event, EventKind, ObservedTools, guard::digest_of};
use deputize_call::{action::Action, json::Object};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

/// What is known of the server besides its tools.
#[derive(Debug, Default)]
pub(super) struct Watch {
    again: Notify,
    era: RwLock<Option<Era>>,
    /// The server's tools were listed, and held against a snapshot.
    looked: watch::Sender<bool>,
}

/// Which versions of MCP a server speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Era {
    /// Whether it speaks the stateless version.
    pub(super) modern: bool,
    /// All versions that it is known to speak.
    pub(super) versions: Vec<String>,
    /// What it says of itself.
    pub(super) server_info: Value,
}

/// The guard's own conversation with the server.
struct Own {
    channel: Arc<dyn Channel>,
    modern: bool,
    /// Whether the server says that it has prompts.
    has_prompts: bool,
    next_id: u64,
    listening: Option<JoinHandle<()>>,
}

/// What the server lists.
struct Listed {
    tools: Vec<Object>,
    prompts: Vec<Object>,
}

/// What was seen of one list at the last look.
#[derive(Default)]
struct Seen {
    digests: Option<BTreeSet<String>>,
    drifted: Vec<Drift>,
}

impl Watch {
    /// The server's tools may have changed.
    pub(super) fn look_again(&self) {
        self.again.notify_one();
    }

    /// Waits until the server's tools were listed, and held against what was approved.
    pub(super) async fn looked(&self) {
        // The sender lives as long as this value.
        let _ = self.looked.subscribe().wait_for(|looked| *looked).await;
    }

    /// What the server speaks, once it was asked.
    pub(super) fn era(&self) -> Option<Era> {
        self.era.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Looks at the server's tools at once, whenever it says that they changed, and now and then; until `stop`.
pub(super) async fn run(proxy: Arc<Proxy>, mut stop: watch::Receiver<bool>) {
    let (mut own, mut failures) = (None, 0_u32);
    let (mut tools, mut prompts) = (Seen::default(), Seen::default());
    loop {
        let wait = match look(&proxy, &mut own).await {
            Ok(listed) => {
                failures = 0;
                proxy.breaker.looks_well();
                let is_known = proxy.guard.has_snapshot(proxy.clock.now_seconds());
                let (of_tools, of_prompts) =
                    (proxy.guard.observe_tools(&listed.tools), proxy.guard.observe_prompts(&listed.prompts));
                if is_known {
                    note(&proxy, (Action::CallTool, &mut tools), &of_tools, &listed.tools);
                    note(&proxy, (Action::GetPrompt, &mut prompts), &of_prompts, &listed.prompts);
                    proxy.watch.looked.send_replace(true);
                    proxy.relist_every
                } else {
                    // What was approved is not known yet, so nothing can be held against it.
                    proxy.relist_every.min(FIRST_RETRY)
                }
            }
            Err(failure) => {
                tracing::warn!(%failure, "server's tools not listed");
                proxy.breaker.looks_ill();
                end(own.take()).await;
                failures = failures.saturating_add(1);
                proxy.relist_every.min(FIRST_RETRY.saturating_mul(1 << failures.min(6)))
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = proxy.watch.again.notified() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    end(own).await;
}

async fn look(proxy: &Arc<Proxy>, own: &mut Option<Own>) -> Result<Listed, Failure> {
    if own.is_none() {
        *own = Some(connect(proxy).await?);
    }
    let own = own.as_mut().ok_or(Failure::Unreachable)?;
    let tools = own.list(proxy, "tools").await?;
    let prompts = if own.has_prompts { own.list(proxy, "prompts").await? } else { Vec::new() };
    Ok(Listed { tools, prompts })
}

/// Asks as the newest version would; whoever does not understand that is asked as the older ones would.
async fn connect(proxy: &Arc<Proxy>) -> Result<Own, Failure> {
    let channel = proxy.server.open().await?;
    let mut own = Own { channel, modern: true, has_prompts: false, next_id: 0, listening: None };
    let probe = tokio::time::timeout(PROBE_TIMEOUT, own.ask(proxy, "server/discover", json!({}))).await;
    let era = match probe {
        Ok(Ok(result)) if discovered(&result).is_some() => {
            own.has_prompts = says_prompts(&result);
            discovered(&result)
        }
        Ok(Err(failure @ (Failure::Unreachable | Failure::GuardRefused))) => return Err(failure),
        _ => None,
    };
    let era = match era {
        Some(era) => era,
        None => {
            own.modern = false;
            own.initialize(proxy).await?
        }
    };
    own.listen(proxy);
    tracing::info!(versions = ?era.versions, "server found");
    *proxy.watch.era.write().unwrap_or_else(PoisonError::into_inner) = Some(era);
    Ok(own)
}

fn says_prompts(result: &Object) -> bool {
    result
        .get("capabilities")
        .and_then(|capabilities| capabilities.get("prompts"))
        .is_some_and(Value::is_object)
}

fn discovered(result: &Object) -> Option<Era> {
    let versions = result.get("supportedVersions")?.as_array()?;
    let versions: Vec<String> = versions.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let info = result.get("_meta").and_then(|meta| meta.get("io.modelcontextprotocol/serverInfo"));
    let modern = versions.iter().any(|version| version == MODERN);
    modern.then(|| Era { modern, versions, server_info: info.cloned().unwrap_or_default() })
}

impl Own {
    async fn initialize(&mut self, proxy: &Arc<Proxy>) -> Result<Era, Failure> {
        let client = json!({ "name": "deputize-guard", "version": env!("CARGO_PKG_VERSION") });
        // What the guard lets through to clients it says that it can do, so that it is shown what they are shown.
        let capabilities = json!({ "elicitation": {}, "roots": {} });
        let params =
            json!({ "protocolVersion": LEGACY[0], "capabilities": capabilities, "clientInfo": client });
        let result = self.ask(proxy, "initialize", params).await?;
        let version = result.get("protocolVersion").and_then(Value::as_str);
        let version = version.ok_or(Failure::Broken("no protocolVersion"))?.to_owned();
        self.channel.settle_version(&version);
        self.has_prompts = says_prompts(&result);
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        self.channel.send(Outgoing::own(&ready, &trace(proxy, None))).await?;
        // Who speaks one version is held to speak the older ones: what it makes of them is its own to say.
        let known = LEGACY.iter().position(|known| *known == version).unwrap_or_default();
        let versions = LEGACY.iter().skip(known).map(|version| (*version).to_owned()).collect();
        let server_info = result.get("serverInfo").cloned().unwrap_or_default();
        Ok(Era { modern: false, versions, server_info })
    }

    /// Hears that tools changed. A server that offers no stream is only looked at now and then.
    fn listen(&mut self, proxy: &Arc<Proxy>) {
        let (channel, proxy) = (Arc::clone(&self.channel), Arc::clone(proxy));
        let subscription = self.modern.then(|| {
            self.request(
                "subscriptions/listen",
                json!({ "notifications": { "toolsListChanged": true, "promptsListChanged": true } }),
            )
        });
        self.listening = Some(tokio::spawn(async move {
            while let Some(mut messages) = open_stream(&proxy, &channel, subscription.as_ref()).await {
                while let Some(Ok(said)) = messages.next().await {
                    let Some(message) = said.message else { continue };
                    if is_list_changed(&message) {
                        proxy.watch.look_again();
                    }
                    decline(&proxy, &channel, &message).await;
                }
                tokio::time::sleep(LISTEN_AGAIN).await;
                // It broke off: what was missed meanwhile is seen by looking.
                proxy.watch.look_again();
            }
        }));
    }

    /// All pages of a list of definitions: `tools` or `prompts`.
    async fn list(&mut self, proxy: &Arc<Proxy>, what: &str) -> Result<Vec<Object>, Failure> {
        let mut definitions = Vec::new();
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            let params = cursor.map_or_else(|| json!({}), |cursor: Value| json!({ "cursor": cursor }));
            let mut result = self.ask(proxy, &format!("{what}/list"), params).await?;
            let Some(Value::Array(page)) = result.remove(what) else {
                return Err(Failure::Broken("a list without its list"));
            };
            definitions.extend(page.into_iter().filter_map(|definition| match definition {
                Value::Object(definition) => Some(definition),
                _ => None,
            }));
            match result.remove("nextCursor") {
                Some(next @ Value::String(_)) => cursor = Some(next),
                _ => return Ok(definitions),
            }
        }
        Err(Failure::TooLarge)
    }

    /// A request of the guard's own. In the stateless version it says itself who asks, and how.
    fn request(&mut self, method: &str, mut params: Value) -> Value {
        self.next_id += 1;
        if let Some(params) = params.as_object_mut().filter(|_| self.modern) {
            let client = json!({ "name": "deputize-guard", "version": env!("CARGO_PKG_VERSION") });
            params.insert(
                "_meta".to_owned(),
                json!({
                    "io.modelcontextprotocol/protocolVersion": MODERN,
                    "io.modelcontextprotocol/clientInfo": client,
                    "io.modelcontextprotocol/clientCapabilities": {},
                }),
            );
        }
        json!({ "jsonrpc": "2.0", "id": format!("guard-{}", self.next_id), "method": method, "params": params })
    }

    /// Asks for something and waits for its result.
    async fn ask(&mut self, proxy: &Arc<Proxy>, method: &str, params: Value) -> Result<Object, Failure> {
        let message = self.request(method, params);
        let id = message.get("id").cloned().unwrap_or_default();
        let version = self.modern.then_some(MODERN);
        let asked = self.channel.send(Outgoing::own(&message, &trace(proxy, version)));
        let answer = async {
            match asked.await? {
                Answer::One(message) => Ok(message),
                Answer::Many(mut messages) => {
                    while let Some(said) = messages.next().await {
                        match said?.message {
                            Some(message) if message.get("id") == Some(&id) => return Ok(message),
                            // Over stdio what is said unasked may come here.
                            Some(message) if is_list_changed(&message) => proxy.watch.look_again(),
                            _ => {}
                        }
                    }
                    Err(Failure::Broken("a stream without a response"))
                }
                Answer::Accepted | Answer::Rejected(..) => Err(Failure::Broken("no result")),
            }
        };
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| Failure::TimedOut)?;
        match answered? {
            mut message if message.get("id") == Some(&id) => match message.remove("result") {
                Some(Value::Object(result)) => Ok(result),
                _ => Err(Failure::Broken("no result")),
            },
            _ => Err(Failure::Broken("the response to another request")),
        }
    }
}

/// The stream on which the server says unasked what is new: in the stateless version the answer to a subscription,
/// before that a stream of its own. `None` where there is none.
async fn open_stream(
    proxy: &Proxy,
    channel: &Arc<dyn Channel>,
    subscription: Option<&Value>,
) -> Option<Box<dyn Messages>> {
    let Some(subscription) = subscription else {
        return channel.listen(None, &trace(proxy, None)).await.ok();
    };
    match channel.send(Outgoing::own(subscription, &trace(proxy, Some(MODERN)))).await {
        Ok(Answer::Many(messages)) => Some(messages),
        _ => None,
    }
}

fn is_list_changed(message: &Object) -> bool {
    message.get("method").and_then(Value::as_str).is_some_and(|method| LISTS_CHANGED.contains(&method))
}

/// The guard has no roots and fills in no forms.
async fn decline(proxy: &Proxy, channel: &Arc<dyn Channel>, message: &Object) {
    let (Some(id), Some(_)) = (message.get("id"), message.get("method")) else { return };
    let error = rpc_error(id, METHOD_NOT_FOUND, "method not found", None);
    if let Err(failure) = channel.send(Outgoing::own(&error, &trace(proxy, None))).await {
        tracing::debug!(%failure, "server not told of a refusal");
    }
}

async fn end(own: Option<Own>) {
    let Some(own) = own else { return };
    if let Some(listening) = &own.listening {
        listening.abort();
    }
    own.channel.end().await;
}

/// Holds a list against what was approved, and tells what is new about it.
fn note(
    proxy: &Arc<Proxy>,
    (action, seen): (Action, &mut Seen),
    observed: &ObservedTools,
    definitions: &[Object],
) {
    let digest = |definition| digest_of(action, definition).ok().map(|digest| digest.to_string());
    let digests: BTreeSet<String> = definitions.iter().filter_map(digest).collect();
    let of = Some(action).filter(|action| *action != Action::CallTool);
    // A server without prompts needs no word about them.
    let is_news = seen.digests.as_ref() != Some(&digests) && (of.is_none() || !digests.is_empty());
    if is_news {
        let counts = json!({
            "approved": observed.approved.len(), "drifted": observed.drifted.len(), "unknown": observed.unknown.len(),
        });
        tracing::info!(
            what = action.noun(),
            approved = observed.approved.len(),
            drifted = observed.drifted.len(),
            unknown = observed.unknown.len(),
            "server's list read"
        );
        let listed = Event { action: of, detail: Some(counts), ..Event::new(EventKind::ListChanged) };
        proxy.reports.report(listed);
        seen.digests = Some(digests);
    }
    let drifted: Vec<Drift> =
        definitions.iter().filter_map(|definition| proxy.guard.drift_of(action, definition)).collect();
    for drift in drifted.iter().filter(|drift| !seen.drifted.contains(drift)) {
        tracing::warn!(
            what = action.noun(),
            name = drift.tool,
            "no longer what was approved: its calls are refused"
        );
        proxy.reports.report(drift.clone().into_event());
    }
    seen.drifted = drifted;
}

fn trace(proxy: &Proxy, version: Option<&str>) -> Trace {
    let request_id = proxy.clock.unique_id();
    Trace { traceparent: None, request_id, version: version.map(str::to_owned) }
}

const MAX_PAGES: usize = 50;
/// Before a stream that broke off is opened again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
