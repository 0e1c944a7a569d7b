//! Asks a live MCP server for its tools, prompts and resources, in the protocol versions 2026-07-28, 2025-11-25 and 2025-06-18. Definitions
//! are kept as they came, member for member: their digests depend on it. The server is not trusted: everything that
//! it says is bounded in size and time.

mod http;
mod stdio;

pub use http::Http;
pub use stdio::Stdio;

use deputize_call::json::Object;
use deputize_issuer::registry::publisher::SIGNATURE_MEMBER;
use serde_json::{Value, json};
use std::time::Duration;

/// What a server says of itself and its tools.
#[derive(Debug, Default)]
pub struct Listing {
    /// The protocol version that was spoken.
    pub protocol: String,
    /// Its name and version, as it says.
    pub name: Option<String>,
    /// Its version, as it says.
    pub version: Option<String>,
    /// What it tells models about itself.
    pub instructions: Option<String>,
    /// The definitions of its tools.
    pub tools: Vec<Object>,
    /// The definitions of its prompts.
    pub prompts: Vec<Object>,
    /// Its resources, as it lists them.
    pub resources: Vec<Object>,
    /// A publisher's signature over its tools, where it carries one.
    pub signature: Option<String>,
    /// What it says that it has beside tools.
    pub offers: Beside,
}

/// What a server says that it has beside tools (MCP, "Capabilities").
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside {
    /// Prompts.
    pub prompts: bool,
    /// Resources.
    pub resources: bool,
}

/// Why a server's tools cannot be had; says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// No connection, no process, no answer.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// It wants to know who asks.
    #[error("the server wants authorization (status {0}): give --token")]
    Unauthorized(u16),
    /// It answers with something that is not the protocol.
    #[error("not an answer of an MCP server: {0}")]
    Protocol(String),
    /// It answers with an error.
    #[error("the server refuses {method}: {message} ({code})")]
    Refused {
        /// What was asked.
        method: String,
        /// Its code (JSON-RPC 2.0 §5.1).
        code: i64,
        /// Its message.
        message: String,
    },
    /// It speaks none of our protocol versions.
    #[error("the server speaks {0}, not 2026-07-28, 2025-11-25 or 2025-06-18")]
    Version(String),
    /// It says more than is read.
    #[error("the server says too much: {0}")]
    TooMuch(&'static str),
}

/// A way to a server.
pub enum Way {
    /// Streamable HTTP.
    Http(Http),
    /// A process of our own.
    Stdio(Box<Stdio>),
}

/// How requests look.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Era {
    /// Each request carries its version (2026-07-28, "Versioning and Compatibility").
    Modern,
    /// `initialize` comes first; the version once that has been answered.
    Legacy(Option<String>),
}

/// A response, as JSON-RPC has them.
enum Answer {
    Result(Object),
    Error { code: i64, message: String, data: Value },
}

/// Asks for all tools, and ends the conversation.
///
/// # Errors
/// [`LiveError`].
pub async fn list(mut way: Way) -> Result<Listing, LiveError> {
    let listed = tokio::time::timeout(WHOLE, converse(&mut way)).await;
    way.end().await;
    listed.map_err(|_| LiveError::Unreachable("it took longer than two minutes".to_owned()))?
}

async fn converse(way: &mut Way) -> Result<Listing, LiveError> {
    let mut listing = Listing::default();
    let era = begin(way, &mut listing).await?;
    listing.tools = all(way, &era, "tools", &mut listing).await?;
    if listing.offers.prompts {
        listing.prompts = all(way, &era, "prompts", &mut listing).await?;
    }
    if listing.offers.resources {
        listing.resources = all(way, &era, "resources", &mut listing).await?;
    }
    Ok(listing)
}

/// Every page of a list: `tools`, `prompts` or `resources`.
async fn all(way: &mut Way, era: &Era, what: &str, listing: &mut Listing) -> Result<Vec<Object>, LiveError> {
    let (mut found, mut cursor): (Vec<Object>, Option<Value>) = (Vec::new(), None);
    let method = format!("{what}/list");
    for _ in 0..MAX_PAGES {
        let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
        let mut page = result(way.ask(era, &method, params).await?, &method)?;
        note_signature(&page, listing);
        let Some(Value::Array(items)) = page.remove(what) else {
            return Err(LiveError::Protocol(format!("a page without {what}")));
        };
        for item in items {
            let Value::Object(item) = item else {
                return Err(LiveError::Protocol(format!("one of its {what} is no object")));
            };
            found.push(item);
        }
        if found.len() > MAX_LISTED {
            return Err(LiveError::TooMuch("more than 500 tools, prompts or resources"));
        }
        // An empty string is a cursor too (MCP, "Pagination").
        match page.remove("nextCursor") {
            None | Some(Value::Null) => return Ok(found),
            next if next == cursor => return Err(LiveError::Protocol("the same page again".to_owned())),
            next => cursor = next,
        }
    }
    Err(LiveError::TooMuch("more than 100 pages of a list"))
}

/// Finds out which protocol the server speaks: first without a handshake, then with one.
async fn begin(way: &mut Way, listing: &mut Listing) -> Result<Era, LiveError> {
    match way.ask(&Era::Modern, "server/discover", json!({})).await {
        Ok(Answer::Result(discovered)) if discovered.contains_key("supportedVersions") => {
            match choose(discovered.get("supportedVersions"))? {
                MODERN => {
                    describe(&discovered, listing);
                    MODERN.clone_into(&mut listing.protocol);
                    Ok(Era::Modern)
                }
                legacy => initialize(way, legacy, listing).await,
            }
        }
        // A recognized modern error: the server names what it speaks, and there is nothing to guess.
        Ok(Answer::Error { code: UNSUPPORTED_VERSION, data, .. }) => {
            initialize(way, choose(data.get("supported"))?, listing).await
        }
        Ok(Answer::Error { code: HEADER_MISMATCH, message, .. }) => {
            let method = "server/discover".to_owned();
            Err(LiveError::Refused { method, code: HEADER_MISMATCH, message })
        }
        // Anything else, silence included, is how an older server meets what it does not know.
        Ok(Answer::Result(_) | Answer::Error { .. }) | Err(LiveError::Protocol(_)) => {
            initialize(way, LEGACY, listing).await
        }
        Err(LiveError::Unreachable(_)) if matches!(way, Way::Stdio(_)) => {
            initialize(way, LEGACY, listing).await
        }
        Err(error) => Err(error),
    }
}

async fn initialize(way: &mut Way, version: &str, listing: &mut Listing) -> Result<Era, LiveError> {
    let params = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client_info() });
    let answer = way.ask(&Era::Legacy(None), "initialize", params).await?;
    let mut initialized = result(answer, "initialize")?;
    let spoken = initialized.get("protocolVersion").and_then(Value::as_str).unwrap_or("nothing").to_owned();
    if !VERSIONS.contains(&spoken.as_str()) || spoken == MODERN {
        return Err(LiveError::Version(spoken));
    }
    if let Some(info) = initialized.remove("serverInfo") {
        initialized.insert("_meta".to_owned(), json!({ SERVER_INFO: info }));
    }
    describe(&initialized, listing);
    listing.protocol.clone_from(&spoken);
    let era = Era::Legacy(Some(spoken));
    way.tell(&era, "notifications/initialized").await?;
    Ok(era)
}

/// The newest version that both speak.
fn choose(supported: Option<&Value>) -> Result<&'static str, LiveError> {
    let theirs: Vec<&str> =
        supported.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    VERSIONS
        .into_iter()
        .find(|ours| theirs.contains(ours))
        .ok_or_else(|| LiveError::Version(theirs.join(", ").chars().take(200).collect()))
}

fn describe(said: &Object, listing: &mut Listing) {
    let info = said.get("_meta").and_then(|meta| meta.get(SERVER_INFO));
    let text = |name: &str| info.and_then(|info| info.get(name)).and_then(Value::as_str).map(str::to_owned);
    (listing.name, listing.version) = (text("name"), text("version"));
    let has =
        |name: &str| said.get("capabilities").and_then(|all| all.get(name)).is_some_and(Value::is_object);
    listing.offers = Beside { prompts: has("prompts"), resources: has("resources") };
    listing.instructions = said.get("instructions").and_then(Value::as_str).map(str::to_owned);
    note_signature(said, listing);
}

fn note_signature(said: &Object, listing: &mut Listing) {
    let signature = said.get("_meta").and_then(|meta| meta.get(SIGNATURE_MEMBER)).and_then(Value::as_str);
    if let Some(signature) = signature {
        listing.signature = Some(signature.to_owned());
    }
}

fn result(answer: Answer, method: &str) -> Result<Object, LiveError> {
    match answer {
        Answer::Result(result) => Ok(result),
        Answer::Error { code, message, .. } => {
            Err(LiveError::Refused { method: method.to_owned(), code, message })
        }
    }
}

impl Way {
    async fn ask(&mut self, era: &Era, method: &str, params: Value) -> Result<Answer, LiveError> {
        let params = if *era == Era::Modern { with_metadata(params) } else { params };
        match self {
            Self::Http(http) => http.ask(era, method, params).await,
            Self::Stdio(stdio) => stdio.ask(method, params).await,
        }
    }

    async fn tell(&mut self, era: &Era, method: &str) -> Result<(), LiveError> {
        match self {
            Self::Http(http) => http.tell(era, method).await,
            Self::Stdio(stdio) => stdio.tell(method).await,
        }
    }

    async fn end(self) {
        match self {
            Self::Http(http) => http.end().await,
            Self::Stdio(stdio) => stdio.end().await,
        }
    }
}

/// What every request of 2026-07-28 carries in `_meta`.
fn with_metadata(mut params: Value) -> Value {
    if let Value::Object(params) = &mut params {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": client_info(),
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        params.insert("_meta".to_owned(), meta);
    }
    params
}

fn client_info() -> Value {
    json!({ "name": "deputize", "version": env!("CARGO_PKG_VERSION") })
}

/// A response to the request `id`, or `None` for any other message.
fn answer_in(message: Value, id: u64) -> Option<Answer> {
    let Value::Object(mut message) = message else { return None };
    if message.get("id").and_then(Value::as_u64) != Some(id) || message.contains_key("method") {
        return None;
    }
    if let Some(Value::Object(result)) = message.remove("result") {
        return Some(Answer::Result(result));
    }
    let error = message.remove("error")?;
    let text = error.get("message").and_then(Value::as_str).unwrap_or_default();
    Some(Answer::Error {
        code: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
        message: text.chars().take(300).collect(),
        data: error.get("data").cloned().unwrap_or_default(),
    })
}

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
/// Newest first.
const VERSIONS: [&str; 3] = [MODERN, LEGACY, "2025-06-18"];
/// `UnsupportedProtocolVersionError` and `HeaderMismatchError` (MCP 2026-07-28, "Error Codes").
const UNSUPPORTED_VERSION: i64 = -32022;
const HEADER_MISMATCH: i64 = -32020;
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
const MAX_PAGES: usize = 100;
const MAX_LISTED: usize = 500;
const WHOLE: Duration = Duration::from_secs(120);
/// The largest message, in bytes.
const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// The deepest message: a definition is 32 levels deep at most, and stands a few levels inside.
const MAX_MESSAGE_DEPTH: usize = 48;
