//! What a guard is told: by its file, with the command line and the environment on top; then checked.

use deputize_call::{keys::KeySet, sign::SigningKey};
use deputize_client::DecryptionKey;
use deputize_guard::{
    GuardConfig,
    proxy::{HttpUpstream, Limits, ProxySettings, UpstreamKind},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use url::Url;
use zeroize::Zeroizing;

use super::{
    Args,
    callers::{self, Trusted},
    identity::Identity,
    upstream,
};
use crate::{
    commands::{exit::CommandError, input},
    config::read,
};

/// What the file says, member for member. Relative paths are relative to where the guard is started.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub(super) upstream: Option<String>,
    pub(super) command: Vec<String>,
    pub(super) folder: Option<PathBuf>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) pass_env: Vec<String>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) tls: Option<RawTls>,
    pub(super) public_url: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) issuer: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) accept_issuers: Vec<String>,
    pub(super) accept_scopes: Vec<String>,
    pub(super) client_id: Option<String>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) snapshot_keys: Option<PathBuf>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) aws_credentials: bool,
    pub(super) decryption_key_file: Option<PathBuf>,
    pub(super) upstream_secret_file: Option<PathBuf>,
    pub(super) upstream_secret_header: Option<String>,
    pub(super) upstream_cert: Option<PathBuf>,
    pub(super) upstream_key: Option<PathBuf>,
    pub(super) upstream_ca: Option<PathBuf>,
    /// Trust domain and file of its bundle.
    pub(super) caller_bundles: BTreeMap<String, PathBuf>,
    pub(super) workload_api: Option<String>,
    pub(super) require_caller_svid: Vec<String>,
    pub(super) allow_svidless_callers: bool,
    pub(super) tls_svid: bool,
    pub(super) limits: RawLimits,
    #[serde(skip)]
    pub(super) from_dev: Option<PathBuf>,
    #[serde(skip)]
    pub(super) insecure_loopback: bool,
}

/// Certificate and key of the listener.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) certificate_file: PathBuf,
    pub(super) key_file: PathBuf,
    /// Authorities whose certificates clients may show.
    pub(super) client_ca_file: Option<PathBuf>,
}

/// Bounds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    pub(super) body_kib: Option<usize>,
    pub(super) answer_kib: Option<usize>,
    pub(super) answer_seconds: Option<u64>,
    pub(super) stream_kib: Option<usize>,
    pub(super) stream_seconds: Option<u64>,
    pub(super) calls_per_minute: Option<u32>,
    pub(super) burst: Option<u32>,
    pub(super) concurrent: Option<usize>,
    pub(super) sessions: Option<usize>,
    pub(super) session_idle_seconds: Option<u64>,
    pub(super) processes: Option<usize>,
    pub(super) relist_seconds: Option<u64>,
    pub(super) connections: Option<usize>,
    pub(super) drain_seconds: Option<u64>,
    /// How long the bundles that the Workload API told hold when it is away.
    pub(super) caller_bundles_seconds: Option<u64>,
}

/// What is true.
pub(super) struct Settings {
    pub(super) proxy: ProxySettings,
    pub(super) listen: SocketAddr,
    pub(super) tls: Option<RawTls>,
    /// By what callers' SVIDs are verified.
    pub(super) trusted: Option<Trusted>,
    /// Whether the listener shows the guard's own SVID.
    pub(super) tls_svid: bool,
    /// Path of the MCP endpoint.
    pub(super) path: String,
    pub(super) client_id: String,
    pub(super) key: SigningKey,
    pub(super) decryption_keys: Vec<DecryptionKey>,
    pub(super) snapshot_keys: KeySet,
    pub(super) state_dir: PathBuf,
    pub(super) ca_pem: Option<Vec<u8>>,
    pub(super) answer_timeout: Duration,
    pub(super) connections: usize,
    pub(super) drain: Duration,
    /// The server behind it, for people.
    pub(super) server: String,
}

impl Raw {
    /// The file, with the command line on top.
    pub(super) fn of(args: Args) -> Result<Self, CommandError> {
        let mut raw = match &args.config {
            None => Self::default(),
            Some(file) => read::read_yaml(file).map_err(wrong)?,
        };
        // A server is one thing: what is said of it here goes before all that the file says of it.
        if args.upstream.is_some() || !args.command.is_empty() {
            (raw.upstream, raw.command) = (args.upstream, args.command);
        }
        for variable in args.env {
            match variable.split_once('=') {
                Some((name, value)) => drop(raw.env.insert(name.to_owned(), value.to_owned())),
                None => raw.pass_env.push(variable),
            }
        }
        raw.listen = args.listen.or(raw.listen);
        raw.public_url = args.public_url.or(raw.public_url);
        raw.resource = args.resource.or(raw.resource);
        raw.issuer = args.issuer.or(raw.issuer);
        raw.client_id = args.client_id.or(raw.client_id);
        if !args.accept_issuer.is_empty() {
            (raw.accept_issuers, raw.accept_scopes) = (args.accept_issuer, args.accept_scope);
        }
        raw.key_file = args.key_file.or(raw.key_file);
        raw.snapshot_keys = args.snapshot_keys.or(raw.snapshot_keys);
        raw.state_dir = args.state_dir.or(raw.state_dir);
        raw.aws_credentials |= args.aws_credentials;
        raw.decryption_key_file = args.decryption_key_file.or(raw.decryption_key_file);
        raw.upstream_secret_file = args.upstream_secret_file.or(raw.upstream_secret_file);
        raw.upstream_cert = args.upstream_cert.or(raw.upstream_cert);
        raw.upstream_key = args.upstream_key.or(raw.upstream_key);
        raw.upstream_ca = args.upstream_ca.or(raw.upstream_ca);
        callers::take(&mut raw, args.callers)?;
        (raw.from_dev, raw.insecure_loopback) = (args.from_dev, args.insecure_loopback);
        Ok(raw)
    }
}

impl Settings {
    /// Checks everything and reads the files that it names.
    pub(super) fn resolve(raw: Raw) -> Result<Self, CommandError> {
        let insecure = raw.insecure_loopback || raw.from_dev.is_some();
        let public_url = needed(raw.public_url.clone(), "--public-url")?;
        let public = secure_url(&public_url, "public_url", insecure)?;
        if public.path() == "/" || public.query().is_some() {
            return Err(wrong_setting("public_url: it needs a path of its own and no query, such as /mcp"));
        }
        let resource = raw.resource.clone().unwrap_or_else(|| public_url.clone());
        let identity = match &raw.from_dev {
            Some(file) => Identity::from_dev(file, &resource)?,
            None => Identity::of(&raw)?,
        };
        secure_url(&identity.issuer, "issuer", insecure)?;
        let (upstream, server) = upstream::resolve(&raw)?;
        let metadata = metadata_url(&public);
        let mut guard = GuardConfig::new(&identity.issuer, &resource, &public_url, &metadata);
        guard.name = format!("{}/{}", identity.client_id, std::process::id());
        (guard.accept_issuers, guard.accept_scopes) = accepted(&raw, &identity.issuer, insecure)?;
        let (trusted, caller_svids) = callers::resolve(&raw)?;
        guard.caller_svids = caller_svids;
        let limits = &raw.limits;
        guard.max_body_bytes = limits.body_kib.map_or(guard.max_body_bytes, |kib| kib.saturating_mul(1024));
        let state_dir = raw.state_dir.clone().map_or_else(|| state_dir(&identity.client_id), Ok)?;
        let ca_pem = raw.ca_file.as_deref().map(bytes).transpose()?;
        let mut proxy = bounded(ProxySettings::new(guard, upstream), limits);
        proxy.hands_over_aws = hands_over_aws(&raw, &proxy.upstream)?;
        let decryption_key = raw.decryption_key_file.as_deref().map(input::decryption_key).transpose()?;
        let asks = raw.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
        proxy.takes_certificates = asks || trusted.is_some();
        Ok(Self {
            proxy,
            listen: raw.listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))),
            tls: raw.tls,
            trusted,
            tls_svid: raw.tls_svid,
            path: public.path().to_owned(),
            client_id: identity.client_id,
            key: identity.key,
            decryption_keys: decryption_key.into_iter().collect(),
            snapshot_keys: identity.snapshot_keys,
            state_dir,
            ca_pem: ca_pem.map(|pem| pem.to_vec()),
            answer_timeout: Duration::from_secs(limits.answer_seconds.unwrap_or(DEFAULT_ANSWER_SECONDS)),
            connections: limits.connections.unwrap_or(DEFAULT_CONNECTIONS),
            drain: Duration::from_secs(limits.drain_seconds.unwrap_or(DEFAULT_DRAIN_SECONDS)),
            server,
        })
    }
}

fn bounded(mut settings: ProxySettings, raw: &RawLimits) -> ProxySettings {
    let seconds = |given: Option<u64>, default: Duration| given.map_or(default, Duration::from_secs);
    settings.limits = Limits {
        calls_per_minute: raw.calls_per_minute.unwrap_or(settings.limits.calls_per_minute),
        burst: raw.burst.unwrap_or(settings.limits.burst),
        concurrent: raw.concurrent.unwrap_or(settings.limits.concurrent),
    };
    settings.stream_timeout = seconds(raw.stream_seconds, settings.stream_timeout);
    settings.max_stream_bytes =
        raw.stream_kib.map_or(settings.max_stream_bytes, |kib| kib.saturating_mul(1024));
    settings.relist_every = seconds(raw.relist_seconds, settings.relist_every).max(Duration::from_secs(1));
    settings.session_idle = seconds(raw.session_idle_seconds, settings.session_idle);
    settings.max_sessions = raw.sessions.unwrap_or(settings.max_sessions);
    settings
}

/// Without TLS anyone on the way could read tokens and change calls: only on loopback, and only when it is said.
fn secure_url(text: &str, member: &str, insecure: bool) -> Result<Url, CommandError> {
    let url =
        Url::parse(text).map_err(|error| wrong_setting(&format!("{member}: {text:?} is no URL: {error}")))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if insecure && is_loopback(&url) => Ok(url),
        "http" if is_loopback(&url) => Err(CommandError::configuration(
            format!("{member}: {text:?} must begin with https://"),
            "for development on this machine alone, add --insecure-loopback",
        )),
        _ => Err(wrong_setting(&format!("{member}: {text:?} must begin with https://"))),
    }
}

/// Whose users' own tokens are taken, and the scopes that their clients ask for. An issuer is compared byte by byte,
/// so it is kept as it is written.
fn accepted(raw: &Raw, broker: &str, insecure: bool) -> Result<(Vec<String>, Vec<String>), CommandError> {
    for issuer in &raw.accept_issuers {
        secure_url(issuer, "accept_issuers", insecure)?;
        if issuer == broker {
            return Err(wrong_setting(
                "accept_issuers: the broker's own tokens are taken in any case; name the identity provider",
            ));
        }
    }
    let is_scope = |scope: &String| {
        !scope.is_empty() && scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
    };
    if !raw.accept_scopes.iter().all(is_scope) {
        return Err(wrong_setting("accept_scopes: one scope each, without spaces (RFC 6749 §3.3)"));
    }
    if raw.accept_issuers.is_empty() && !raw.accept_scopes.is_empty() {
        return Err(wrong_setting("accept_scopes: they go with accept_issuers"));
    }
    Ok((raw.accept_issuers.clone(), raw.accept_scopes.clone()))
}

/// Credentials go to a process of this machine, which is either where it says or proves who it is: over a network another
/// one could answer in its place.
fn hands_over_aws(raw: &Raw, upstream: &UpstreamKind) -> Result<bool, CommandError> {
    let is_safe = match upstream {
        UpstreamKind::Http(http) => is_loopback(&http.url) || is_mutual(http),
        UpstreamKind::Stdio(_) => true,
    };
    if raw.aws_credentials && !is_safe {
        return Err(wrong_setting(
            "aws_credentials: they are handed over on loopback, or over mutual TLS (upstream_cert, upstream_key)",
        ));
    }
    Ok(raw.aws_credentials)
}

fn is_mutual(http: &HttpUpstream) -> bool {
    http.url.scheme() == "https" && http.identity_pem.is_some()
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// RFC 9728 §3.1: the well-known path stands before the resource's own.
pub fn metadata_url(public: &Url) -> String {
    let mut url = public.clone();
    url.set_path(&format!("/.well-known/oauth-protected-resource{}", public.path().trim_end_matches('/')));
    url.into()
}

fn state_dir(client_id: &str) -> Result<PathBuf, CommandError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let folder = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state")))
        .filter(|folder| {
            folder.is_absolute() && client_id.chars().all(is_plain) && !client_id.starts_with('.')
        });
    let next = "give --state-dir with a folder of this guard alone";
    let folder =
        folder.ok_or_else(|| CommandError::configuration("there is no folder for its state", next))?;
    Ok(folder.join("deputize/guard").join(client_id))
}

pub(super) fn bytes(file: &Path) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    Ok(Zeroizing::new(input::file_text(file)?.as_bytes().to_vec()))
}

pub(super) fn needed<T>(given: Option<T>, option: &str) -> Result<T, CommandError> {
    let member = option.trim_start_matches('-').replace('-', "_");
    given.ok_or_else(|| {
        CommandError::configuration(
            format!("{option} is missing"),
            format!("give it, or `{member}` in the file of --config"),
        )
    })
}

fn wrong(error: impl ToString) -> CommandError {
    CommandError::configuration(error, "correct the settings and start again; docs/guard.md lists them")
}

pub(super) fn wrong_setting(message: &str) -> CommandError {
    wrong(message)
}

const DEFAULT_PORT: u16 = 8080;
pub(super) const DEFAULT_ANSWER_SECONDS: u64 = 60;
const DEFAULT_CONNECTIONS: usize = 1024;
const DEFAULT_DRAIN_SECONDS: u64 = 10;
