//! `deputize agent`: the process of one node that attests itself to the broker, and serves the Workload API there.

mod kubelet;

use deputize_issuer::clock::{Clock, SystemClock};
use deputize_workload_api::{
    Limits, WorkloadApi,
    attest::{AttestSettings, Attestor},
    bind,
    reception::Doorkeeper,
};
use serde_json::json;
use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use url::Url;
use zeroize::Zeroizing;

use self::kubelet::KubeletArgs;
use super::{
    exit::{CommandError, CommandResult, Exit},
    serve::{self, StopSignal},
};
use crate::{
    agent::{Health, IdentityFile, LinkError, NodeProof, Reach, Session, SessionSettings},
    http::listen::{Listening, serve_tcp},
    telemetry,
};

/// Serve the Workload API on this machine, for a broker elsewhere
///
/// The machine proves to the broker once what it is, and is a node from then on, with an SVID of its own that renews
/// itself. The broker pushes the entries of this node, and signs for keys that are made here. While it is away, what is
/// here is served on until it expires.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize agent --broker https://broker.example.org --join-token-file token --data-dir /var/lib/deputize-agent \\
      --socket /run/deputize/workload-api.sock
  deputize agent --broker https://broker.example.org --certificate machine.pem --key machine.key --socket agent.sock
  deputize agent --broker https://broker.example.org --kubernetes-token-file /var/run/secrets/deputize/token \\
      --socket /run/deputize/workload-api.sock --kubelet-address 10.0.0.7 --kubelet-ca cluster-ca.pem

A join token comes from `deputize node token NAME` at the broker: it is good once, for ten minutes. With --data-dir the
node is known again after a restart; without, it needs another token. See docs/agent.md.")]
pub struct Args {
    /// Public URL of the broker
    #[arg(long, value_name = "URL", env = "DEPUTIZE_AGENT_BROKER", hide_env = true)]
    broker: String,
    /// PEM: authorities of the broker's certificate [default: those of the system]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    #[command(flatten)]
    proof: ProofArgs,
    #[command(flatten)]
    kubelet: KubeletArgs,
    /// Socket of the Workload API; its folder must exist, and nobody else may write to it
    #[arg(long, value_name = "PATH", default_value = "/run/deputize/workload-api.sock")]
    socket: PathBuf,
    /// Folder where the node's own SVID and its key are kept for the next start [default: in memory alone]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Where to answer /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS")]
    admin_address: Option<SocketAddr>,
    /// Write socket and node here once processes are served
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// By what the machine proves what it is.
#[derive(Debug, clap::Args)]
#[group(multiple = true)]
struct ProofArgs {
    /// File with a join token
    #[arg(long, value_name = "FILE", conflicts_with_all = ["certificate", "kubernetes_token_file"])]
    join_token_file: Option<PathBuf>,
    /// Certificate of this machine, and those above it (PEM)
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "kubernetes_token_file")]
    certificate: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Projected service account token of this pod
    #[arg(long, value_name = "FILE")]
    kubernetes_token_file: Option<PathBuf>,
    /// Name of the cluster at the broker, where it has several
    #[arg(long, value_name = "NAME", requires = "kubernetes_token_file")]
    cluster: Option<String>,
}

/// Runs until SIGTERM or SIGINT, then drains; or until the broker lets this be no node any more.
///
/// # Errors
/// If it is told something that cannot be, the broker refuses, or the socket's place will not do.
pub async fn run(args: Args) -> CommandResult {
    let mut stopped = StopSignal::listen().map_err(|error| CommandError::failure(error, "start again"))?;
    serve::open_files::raise_limit();
    let metrics = telemetry::metrics().map_err(|error| CommandError::failure(error, "start again"))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let health =
        Arc::new(Health { serves: AtomicBool::new(false), connected: AtomicBool::new(false), metrics });
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    if let Some(address) = args.admin_address {
        tasks.spawn(admin(address, &health, stopping.clone()).await?);
    }
    let settings = args.settings(&clock, &health)?;
    let access = args.kubelet.access()?;
    let session = tokio::select! {
        begun = Session::begin(settings) => begun.map_err(refused)?,
        () = stopped.wait() => return Ok(Exit::Ok),
    };
    let (source, node, mut has_state) = (session.source(), session.node().clone(), session.has_state());
    let pods = kubelet::pods(access, &node, &clock)?;
    let looking = AttestSettings { pods, clock: Arc::clone(&clock), ..AttestSettings::default() };
    let attestor = Attestor::new(node.clone(), looking);
    let mut session = tokio::spawn(session.run());
    // Who asked before would be told that it is entitled to nothing.
    tokio::select! {
        _ = has_state.wait_for(|has| *has) => {}
        left = &mut session => return Err(ended(left)),
        () = stopped.wait() => return Ok(Exit::Ok),
    }
    let listener = bind(&args.socket).map_err(|error| {
        CommandError::configuration(
            format!("--socket: {error}"),
            "give a place that nobody else may write to",
        )
    })?;
    let doorkeeper = Arc::new(Doorkeeper::new(attestor));
    let api = WorkloadApi::new(Arc::clone(&source) as _, doorkeeper, clock, Limits::of_an_agent());
    tasks.spawn(api.serve(listener, stopping));
    health.serves.store(true, Ordering::Release);
    tracing::info!(socket = %args.socket.display(), %node, "ready: processes are served");
    args.announce(node.to_string())?;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let left = loop {
        tokio::select! {
            () = stopped.wait() => break None,
            left = &mut session => break Some(left),
            _ = tick.tick() => source.follow_time(),
        }
    };
    tracing::info!("draining");
    health.serves.store(false, Ordering::Release);
    session.abort();
    // There is a receiver as long as a task runs.
    let _ = stop.send(true);
    while tasks.join_next().await.is_some() {}
    args.withdraw();
    tracing::info!("stopped");
    left.map_or(Ok(Exit::Ok), |left| Err(ended(left)))
}

impl Args {
    fn settings(
        &self,
        clock: &Arc<dyn Clock>,
        health: &Arc<Health>,
    ) -> Result<SessionSettings, CommandError> {
        let broker = Url::parse(&self.broker).ok().filter(|url| url.scheme() == "https" && url.has_host());
        let broker = broker.ok_or_else(|| {
            CommandError::usage(
                format!("--broker: {:?} is no URL that begins with https://", self.broker),
                "give the broker's `issuer`: https://broker.example.org",
            )
        })?;
        let ca_pem = self.ca_file.as_deref().map(read).transpose()?.map(|pem| pem.to_vec());
        let file = self.data_dir.as_deref().map(IdentityFile::in_folder).transpose();
        let file = file.map_err(|why| CommandError::configuration(why, "give another --data-dir"))?;
        let proof = self.proof.read()?;
        if proof.is_none() && file.is_none() {
            return Err(CommandError::usage(
                "there is nothing by which this machine could prove what it is",
                "give --join-token-file, --certificate with --key, or --kubernetes-token-file",
            ));
        }
        Ok(SessionSettings {
            reach: Reach { broker, ca_pem },
            proof,
            file,
            clock: Arc::clone(clock),
            health: Arc::clone(health),
        })
    }

    /// Appears whole, or not at all.
    fn announce(&self, node: String) -> Result<(), CommandError> {
        let Some(file) = &self.ready_file else { return Ok(()) };
        let ready = json!({ "workload_api": self.socket.display().to_string(), "node": node });
        let temporary = file.with_extension("tmp");
        let write = || {
            std::fs::File::create(&temporary)?.write_all(format!("{ready}\n").as_bytes())?;
            std::fs::rename(&temporary, file)
        };
        write().map_err(|error: std::io::Error| {
            CommandError::failure(format!("{}: {error}", file.display()), "give another --ready-file")
        })
    }

    /// It names what no longer runs. That it is not there changes nothing.
    fn withdraw(&self) {
        if let Some(file) = &self.ready_file {
            let _ = std::fs::remove_file(file);
        }
    }
}

impl ProofArgs {
    fn read(&self) -> Result<Option<NodeProof>, CommandError> {
        if let Some(file) = &self.join_token_file {
            return join_token(file).map(Some);
        }
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            let (certificate, key) = (read(certificate)?, read(key)?);
            let pem = [certificate.as_slice(), b"\n", key.as_slice()].concat();
            return Ok(Some(NodeProof::Certificate(Zeroizing::new(pem))));
        }
        let pod = self.kubernetes_token_file.clone();
        Ok(pod.map(|file| NodeProof::ServiceAccount { cluster: self.cluster.clone(), file }))
    }
}

/// Used up and taken away since, what is kept may do. Whatever else keeps it from being read is an error: who is told nothing
/// of it would look for it at the broker.
fn join_token(file: &Path) -> Result<NodeProof, CommandError> {
    let refuse = |why: String| {
        CommandError::configuration(
            format!("--join-token-file: {}: {why}", file.display()),
            "name a file that this user may read, with the token that `deputize node token` showed",
        )
    };
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => Err(refuse("there is nothing in it".to_owned())),
        Ok(text) => Ok(NodeProof::JoinToken(Zeroizing::new(text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(NodeProof::JoinTokenGone(file.to_owned()))
        }
        Err(error) => Err(refuse(error.to_string())),
    }
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    std::fs::read(file).map(Zeroizing::new).map_err(|error| {
        CommandError::configuration(
            format!("{}: {error}", file.display()),
            "name a file that this user may read",
        )
    })
}

/// Health and metrics, at this address.
async fn admin(
    address: SocketAddr,
    health: &Arc<Health>,
    stop: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + Send + 'static, CommandError> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        CommandError::failure(format!("cannot listen on {address}: {error}"), "give another --admin-address")
    })?;
    let drain = Duration::from_secs(1);
    let listening = Listening { tls: None, connections: 64, connections_of_one_source: 64, drain, stop };
    Ok(serve_tcp(listener, Arc::clone(health).router(), listening))
}

fn ended(left: Result<LinkError, tokio::task::JoinError>) -> CommandError {
    match left {
        Ok(error) => refused(error),
        Err(error) => CommandError::failure(error, "start again; see the log"),
    }
}

fn refused(error: LinkError) -> CommandError {
    let next = match &error {
        LinkError::Away(_) => {
            return CommandError::unreachable(error, "see that the broker runs, then start again");
        }
        LinkError::Invalid(_) => return CommandError::configuration(error, "correct it, and start again"),
        LinkError::NotANode(_) => {
            "a join token is good once and for ten minutes: `deputize node token NAME` at the broker makes another; \
             else see `deputize node ls` and spiffe.nodes there"
        }
        LinkError::Denied(_) => "`deputize node show` at the broker says whether it is banned",
    };
    CommandError::new(Exit::Denied, error, next)
}
