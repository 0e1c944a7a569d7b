//! `deputize guard`: any MCP server, unchanged, behind Deputize.

mod callers;
mod identity;
mod own_svid;
mod settings;
#[cfg(test)]
mod tests;
mod upstream;
mod workloads;

use deputize_guard::{
    link::{Link, LinkSettings},
    proxy::{Proxy, ProxySettings},
};
use serde_json::json;
use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch};

pub use self::settings::metadata_url;

use self::{
    callers::CallerArgs,
    settings::{Raw, Settings},
    workloads::Workloads,
};
use super::{
    exit::{CommandError, CommandResult, Exit},
    output::Output,
    serve::StopSignal,
};
use crate::http::{
    listen::{Listening, serve_tcp_patiently},
    tls::{self, ClientCertificates},
};

/// Stand before an MCP server and let through what was granted, and nothing else
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "deputize guard [OPTIONS] --upstream <URL>\n       \
                      deputize guard [OPTIONS] --upstream <URL> -- <COMMAND>...\n       \
                      deputize guard [OPTIONS] -- <COMMAND>...",
    after_help = "Examples:
  deputize guard --from-dev dev.json --public-url http://127.0.0.1:8080/mcp --upstream http://127.0.0.1:3001/mcp
  deputize guard --config guard.yaml --upstream http://127.0.0.1:3001/mcp --env PORT=3001 -- node server.js
  deputize guard --config guard.yaml -- npx @modelcontextprotocol/server-filesystem /srv/project
  deputize guard --config guard.yaml --accept-issuer https://login.example.com/realms/acme      ordinary MCP clients too

A server that is started for --upstream finds a secret in DEPUTIZE_GUARD_SECRET; the guard sends it with each request
as the header Deputize-Guard. Without --upstream the program speaks over stdin and stdout.
The file may say all of this and the limits besides; what is given here goes before it. What names the server and the
broker can stand in the environment too: DEPUTIZE_GUARD_ISSUER and so on. See docs/guard.md."
)]
pub struct Args {
    /// MCP endpoint of a server that speaks Streamable HTTP
    #[arg(long, value_name = "URL", env = "DEPUTIZE_GUARD_UPSTREAM", hide_env = true)]
    upstream: Option<String>,
    /// Program that speaks MCP over stdin and stdout, or with --upstream serves there; the guard starts it and ends it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Settings (YAML)
    #[arg(long, value_name = "FILE", env = "DEPUTIZE_GUARD_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "DEPUTIZE_GUARD_LISTEN", hide_env = true)]
    listen: Option<SocketAddr>,
    /// URL of the MCP endpoint as clients see it
    #[arg(long, value_name = "URL", env = "DEPUTIZE_GUARD_PUBLIC_URL", hide_env = true)]
    public_url: Option<String>,
    /// Resource URI in the registry, where it is not the public URL
    #[arg(long, value_name = "URI", env = "DEPUTIZE_GUARD_RESOURCE", hide_env = true)]
    resource: Option<String>,
    /// The broker
    #[arg(long, value_name = "URL", env = "DEPUTIZE_GUARD_ISSUER", hide_env = true)]
    issuer: Option<String>,
    /// The client that this server is at the broker
    #[arg(long, value_name = "ID", env = "DEPUTIZE_GUARD_CLIENT_ID", hide_env = true)]
    client_id: Option<String>,
    /// Its private key (JWK)
    #[arg(long, value_name = "FILE", env = "DEPUTIZE_GUARD_KEY_FILE", hide_env = true)]
    key_file: Option<PathBuf>,
    /// Keys that sign snapshots of the registry (JWKS)
    #[arg(long, value_name = "FILE", env = "DEPUTIZE_GUARD_SNAPSHOT_KEYS", hide_env = true)]
    snapshot_keys: Option<PathBuf>,
    /// What it must not forget [default: deputize/guard/ID in the user's state folder]
    #[arg(long, value_name = "FOLDER", env = "DEPUTIZE_GUARD_STATE_DIR", hide_env = true)]
    state_dir: Option<PathBuf>,
    /// Identity provider whose access tokens for this server are taken as they are, from MCP clients that know nothing
    /// of Deputize; the broker's configuration has to allow it (`accepts_bearer`)
    #[arg(long, value_name = "URL")]
    accept_issuer: Vec<String>,
    /// Scope that such clients are to ask it for
    #[arg(long, value_name = "SCOPE", requires = "accept_issuer")]
    accept_scope: Vec<String>,
    /// Hand each call of a tool an address of loopback where it finds its AWS credentials; the server has to be on this
    /// machine
    #[arg(long)]
    aws_credentials: bool,
    /// Private key for AWS credentials that the broker seals (JWK or PKCS#8 PEM), where it knows one with use enc
    #[arg(long, value_name = "FILE")]
    decryption_key_file: Option<PathBuf>,
    /// Secret for the server: sent to it as the header Deputize-Guard
    #[arg(long, value_name = "FILE")]
    upstream_secret_file: Option<PathBuf>,
    /// Certificate for the server (PEM)
    #[arg(long, value_name = "FILE", requires = "upstream_key")]
    upstream_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "upstream_cert")]
    upstream_key: Option<PathBuf>,
    /// Certificates that the server's must come from (PEM)
    #[arg(long, value_name = "FILE")]
    upstream_ca: Option<PathBuf>,
    #[command(flatten)]
    callers: CallerArgs,
    /// Variable that the program is given, from here or with a value; else it gets only PATH, HOME and the like
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Take issuer, client and keys from the ready file of `deputize dev`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["issuer", "client_id", "key_file", "snapshot_keys"])]
    from_dev: Option<PathBuf>,
    /// Allow a broker and a public URL without https, on loopback
    #[arg(long)]
    insecure_loopback: bool,
    /// Write the address here once calls are taken
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Runs until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// If it is told something that cannot be, or cannot listen.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let mut stopped = StopSignal::listen().map_err(|error| CommandError::failure(error, "start again"))?;
    let ready_file = args.ready_file.clone();
    let settings = Settings::resolve(Raw::of(args)?)?;
    let listener = TcpListener::bind(settings.listen).await.map_err(|error| {
        CommandError::failure(
            format!("cannot listen on {}: {error}", settings.listen),
            "give another --listen",
        )
    })?;
    let address = listener.local_addr().map_err(|error| CommandError::failure(error, "start again"))?;
    let greeting = greeting(&settings, address);
    let workloads = match &settings.trusted {
        None => None,
        Some(trusted) => tokio::select! {
            followed = Workloads::follow(trusted) => Some(followed?),
            () = stopped.wait() => return Ok(Exit::Ok),
        },
    };
    let (listening, idle) = listening(&settings, workloads.as_ref())?;
    let path = settings.path.clone();
    let (link, proxy) = connect(settings)?;
    output.text(&greeting)?;

    let (stop, stopping) = watch::channel(false);
    let listening = Listening { stop: stopping, ..listening };
    let router = match workloads {
        None => proxy.router(),
        Some(workloads) => workloads.look_at_callers(proxy.router(), path, link.clock()),
    };
    let serving = tokio::spawn(serve_tcp_patiently(listener, router, listening, idle));
    let looking = tokio::spawn(Arc::clone(&proxy).run());
    let announcing = tokio::spawn(announce(Arc::clone(&proxy), ready_file.clone(), address));
    stopped.wait().await;
    announcing.abort();
    tracing::info!("draining");
    proxy.drain();
    // There is a receiver as long as it serves.
    let _ = stop.send(true);
    // Both end by themselves now; a panic in one is in the log already.
    let _ = tokio::join!(serving, looking);
    proxy.stop().await;
    drop(link);
    if let Some(file) = ready_file {
        // It names what no longer runs. That it is not there changes nothing.
        let _ = std::fs::remove_file(file);
    }
    tracing::info!("stopped");
    Ok(Exit::Ok)
}

fn connect(settings: Settings) -> Result<(Arc<Link>, Arc<Proxy>), CommandError> {
    let link = LinkSettings {
        issuer: settings.proxy.guard.issuer.clone(),
        resource: settings.proxy.guard.resource.clone(),
        client_id: settings.client_id,
        private_key: settings.key,
        decryption_keys: settings.decryption_keys,
        snapshot_keys: settings.snapshot_keys,
        state_folder: settings.state_dir,
        ca_pem: settings.ca_pem,
        clock: Arc::new(deputize_guard::link::SystemClock::new()),
    };
    stand(link, settings.proxy)
}

/// The link to the broker, and the proxy that it keeps supplied.
///
/// # Errors
/// If the settings are of no use.
pub fn stand(link: LinkSettings, proxy: ProxySettings) -> Result<(Arc<Link>, Arc<Proxy>), CommandError> {
    let link = Arc::new(Link::start(link).map_err(|error| {
        CommandError::configuration(error, "correct issuer, key or --state-dir and start again")
    })?);
    let (exchanger, source) = (Some(link.exchanger()), Some(link.credential_source()));
    let settings = ProxySettings { exchanger, credential_source: source, ..proxy };
    let proxy = Proxy::new(settings, link.redeemer(), Arc::clone(&link) as _, link.clock());
    let proxy = proxy.map_err(|error| {
        CommandError::configuration(error, "correct the server's settings and start again")
    })?;
    link.follow(Arc::clone(proxy.guard()));
    Ok((link, proxy))
}

fn listening(
    settings: &Settings,
    workloads: Option<&Workloads>,
) -> Result<(Listening, Duration), CommandError> {
    let authorities = settings.tls.as_ref().and_then(|tls| tls.client_ca_file.as_deref());
    let clients = match (workloads, authorities) {
        (Some(_), _) => ClientCertificates::OfAnybody,
        (None, Some(authorities)) => ClientCertificates::Of(authorities),
        (None, None) => ClientCertificates::Ignored,
    };
    let tls = match (&settings.tls, workloads) {
        (Some(tls), _) => Some(tls::acceptor(&tls.certificate_file, &tls.key_file, clients)?),
        (None, Some(workloads)) if settings.tls_svid => {
            Some(tls::acceptor_showing(workloads.own_certificate(), clients)?)
        }
        (None, _) => None,
    };
    let listening = Listening {
        tls,
        connections: settings.connections,
        // A guard may stand behind a proxy, from whose address everybody comes.
        connections_of_one_source: settings.connections,
        drain: settings.drain,
        stop: watch::channel(false).1,
    };
    // An answer may be as long in coming as the server is given; streams say every few seconds that they live.
    Ok((listening, settings.answer_timeout + IDLE_MARGIN))
}

/// Says, once it is so, that calls are taken.
async fn announce(proxy: Arc<Proxy>, ready_file: Option<PathBuf>, address: SocketAddr) {
    while !proxy.is_ready() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tracing::info!(%address, "ready: calls are taken");
    if let Some(file) = ready_file
        && let Err(error) = write_ready_file(&file, address)
    {
        tracing::error!(%error, file = %file.display(), "ready file not written");
    }
}

/// Appears whole, or not at all.
fn write_ready_file(file: &Path, address: SocketAddr) -> std::io::Result<()> {
    let temporary = file.with_extension("tmp");
    let mut written = std::fs::File::create(&temporary)?;
    written.write_all(json!({ "address": address.to_string() }).to_string().as_bytes())?;
    std::fs::rename(&temporary, file)
}

fn greeting(settings: &Settings, address: SocketAddr) -> String {
    let scheme = if settings.tls.is_some() || settings.tls_svid { "https" } else { "http" };
    let path = &settings.path;
    format!(
        "Deputize stands before {server}\n\
         \n\
         clients call   {public}\n\
         listening on   {scheme}://{address}{path}\n\
         broker         {issuer}, as {client}\n\
         resource       {resource}\n\
         {ordinary}\n\
         Try it:  curl -i -X POST -H 'content-type: application/json' -d '{PING}' {scheme}://{address}{path}\n         \
         answers 401 and says where a token comes from.\n         \
         curl {scheme}://{address}/readyz   says whether calls are taken now.\n",
        server = settings.server,
        public = settings.proxy.guard.public_url,
        issuer = settings.proxy.guard.issuer,
        client = settings.client_id,
        resource = settings.proxy.guard.resource,
        ordinary = ordinary(&settings.proxy.guard.accept_issuers),
    )
}

/// Who is let in besides those who exchange for themselves; nothing if nobody is.
fn ordinary(issuers: &[String]) -> String {
    match issuers {
        [] => String::new(),
        issuers => format!("other clients  sign in at {}\n", issuers.join(", ")),
    }
}

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const IDLE_MARGIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);
