//! What a proxy is told by its operator.

use super::ordinary::Exchanger;
use crate::{CredentialSource, GuardConfig};
use std::{path::PathBuf, sync::Arc, time::Duration};
use url::Url;
use zeroize::Zeroizing;

/// Settings of a proxy.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// The guard's own.
    pub guard: GuardConfig,
    /// The server behind it.
    pub upstream: UpstreamKind,
    /// Whether clients can show certificates where TLS ends: tokens may be bound to these then (RFC 8705 §3).
    pub takes_certificates: bool,
    /// How much each caller may.
    pub limits: Limits,
    /// How long a stream of the server's messages may last; a client resumes it.
    pub stream_timeout: Duration,
    /// How much may go over one stream, in bytes.
    pub max_stream_bytes: usize,
    /// How often the guard lists the server's tools, whether told of a change or not.
    pub relist_every: Duration,
    /// How long a session may be idle.
    pub session_idle: Duration,
    /// How many sessions there may be.
    pub max_sessions: usize,
    /// Who exchanges persons' own tokens, where the guard accepts any (`guard.accept_issuers`).
    pub exchanger: Option<Arc<dyn Exchanger>>,
    /// Whether each call of a tool is handed an address on loopback where it finds its AWS credentials. The server has to
    /// be on this machine.
    pub hands_over_aws: bool,
    /// Who asks for those credentials, where they are handed over.
    pub credential_source: Option<Arc<dyn CredentialSource>>,
}

/// The kinds of server that a proxy can stand before.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a guard has one, and moves it once")]
pub enum UpstreamKind {
    /// One that speaks Streamable HTTP.
    Http(HttpUpstream),
    /// A program that speaks over stdin and stdout, started by the guard.
    Stdio(StdioUpstream),
}

/// A server that speaks Streamable HTTP, and how the guard proves itself to it.
#[derive(Clone)]
pub struct HttpUpstream {
    /// Its MCP endpoint.
    pub url: Url,
    /// A header that tells it who asks: name, and a value that nobody else knows.
    pub secret: Option<(String, Zeroizing<String>)>,
    /// Certificates that its own must come from, instead of the system's (PEM).
    pub ca_pem: Option<Vec<u8>>,
    /// The guard's certificate and key (PEM, both in one).
    pub identity_pem: Option<Zeroizing<Vec<u8>>>,
    /// How long an answer may take to begin, and one that is no stream to end.
    pub answer_timeout: Duration,
    /// The longest message from it, in bytes.
    pub max_answer_bytes: usize,
    /// The program that serves there, where the guard starts it, ends it, and starts it again when it has ended.
    pub program: Option<LaunchedProgram>,
}

/// A program that serves HTTP. It is told a secret of its own each time it is started, and the guard sends that with every
/// request: whoever serves in its place while it does not run learns nothing.
#[derive(Debug, Clone)]
pub struct LaunchedProgram {
    /// The program.
    pub program: Program,
    /// The variable in which it finds the secret.
    pub secret_variable: String,
    /// The header in which the guard sends it.
    pub secret_header: String,
}

/// A program that a guard starts.
#[derive(Clone)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// All of its environment.
    pub environment: Vec<(String, Zeroizing<String>)>,
    /// The folder in which it runs; this process's if none.
    pub folder: Option<PathBuf>,
}

/// A program that speaks over stdin and stdout.
#[derive(Debug, Clone)]
pub struct StdioUpstream {
    /// The program.
    pub program: Program,
    /// How many run at once: one for each session, one for the guard itself.
    pub max_processes: usize,
    /// How long an answer may take.
    pub answer_timeout: Duration,
    /// The longest line from it, in bytes.
    pub max_answer_bytes: usize,
}

/// How much each caller may.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls a minute of one tool by one person.
    pub calls_per_minute: u32,
    /// How many of them at once.
    pub burst: u32,
    /// Requests under way of one caller (person and agents).
    pub concurrent: usize,
}

/// Why a proxy cannot be made.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The public URL is none.
    #[error("public URL: {0}")]
    PublicUrl(String),
    /// Certificates or keys for the server cannot be read.
    #[error("certificates for the server: {0}")]
    Certificates(String),
    /// Persons' own tokens are to be accepted, and nobody could exchange them.
    #[error("accept_issuers: nobody could exchange their tokens; set `exchanger`")]
    NoExchanger,
    /// AWS credentials are to be handed over, and nobody could ask for them.
    #[error("hands_over_aws: nobody could ask for credentials; set `credential_source`")]
    NoCredentialSource,
    /// There is no listener on loopback for AWS credentials.
    #[error("loopback: {0}")]
    Loopback(String),
    /// The system has no randomness.
    #[error("no randomness")]
    NoRandomness,
}

impl ProxySettings {
    /// Settings with the defaults.
    pub fn new(guard: GuardConfig, upstream: UpstreamKind) -> Self {
        Self {
            guard,
            upstream,
            takes_certificates: false,
            limits: Limits { calls_per_minute: 120, burst: 30, concurrent: 16 },
            stream_timeout: Duration::from_secs(3600),
            max_stream_bytes: 64 * 1024 * 1024,
            relist_every: Duration::from_secs(30),
            session_idle: Duration::from_secs(1800),
            max_sessions: 10_000,
            exchanger: None,
            hands_over_aws: false,
            credential_source: None,
        }
    }
}

impl HttpUpstream {
    /// The server at `url`, with the defaults.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            secret: None,
            ca_pem: None,
            identity_pem: None,
            answer_timeout: DEFAULT_ANSWER_TIMEOUT,
            max_answer_bytes: DEFAULT_MAX_ANSWER_BYTES,
            program: None,
        }
    }
}

impl Program {
    /// The program, with an empty environment.
    pub fn new(path: PathBuf, arguments: Vec<String>) -> Self {
        Self { path, arguments, environment: Vec::new(), folder: None }
    }
}

impl StdioUpstream {
    /// The program, with the defaults.
    pub fn new(program: Program) -> Self {
        Self {
            program,
            max_processes: 16,
            answer_timeout: DEFAULT_ANSWER_TIMEOUT,
            max_answer_bytes: DEFAULT_MAX_ANSWER_BYTES,
        }
    }
}

// Secrets stay out of logs.
impl std::fmt::Debug for HttpUpstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpUpstream").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("path", &self.path).finish_non_exhaustive()
    }
}

const DEFAULT_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
