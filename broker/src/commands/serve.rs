//! `deputize serve`: the broker, for production.

pub(super) mod open_files;

use deputize_issuer::{
    clock::{Clock, ClockWatch},
    role_session::RoleSessions,
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    assemble::{self, Assembly, CannotStart},
    backends::{key_files::KeyFileError, spiffe_keys::SpiffeRing, web_identity_keys::WebIdentityRing},
    bundle_endpoint,
    config::resolved::{self, Mode, Resolved, Tls},
    http::{
        admin::Administration,
        aws::AwsCredentials,
        entries::EntryAdministration,
        listen::{Listening, serve_tcp, serve_unix},
        node_orders::NodeAdministration,
        nodes::NodeDoor,
        router,
        source::SourceLimit,
        tls::{self, ClientCertificates},
        web_identity::PublishedIdentity,
    },
    telemetry,
};

/// A broker that listens.
pub struct Running {
    /// Where the public door is.
    pub address: SocketAddr,
    /// Where health and metrics are.
    pub admin_address: Option<SocketAddr>,
    /// Socket of the Workload API.
    pub workload_api: Option<PathBuf>,
    /// What it is made of.
    pub assembly: Assembly,
    stop: watch::Sender<bool>,
    administration: Arc<Administration>,
    tasks: JoinSet<()>,
}

/// Serves until SIGTERM or SIGINT, then drains. SIGHUP reads registry, policies and clients again.
///
/// # Errors
/// [`CannotStart`].
pub async fn serve(path: &Path, ready_file: Option<PathBuf>) -> Result<(), CannotStart> {
    // Before anything else: a signal that comes meanwhile is kept, not lost.
    let cannot = |error: std::io::Error| CannotStart(error.to_string());
    let mut stop = StopSignal::listen().map_err(cannot)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(cannot)?;
    open_files::raise_limit();
    let resolved = load(path, Mode::Production)?;
    if resolved.anchor.is_none() {
        tracing::warn!("audit.anchor is not configured: a rollback of the data folder would not be seen");
    }
    let listener = TcpListener::bind(resolved.listen.address)
        .await
        .map_err(|error| CannotStart(format!("cannot listen on {}: {error}", resolved.listen.address)))?;
    let running = tokio::select! {
        started = start(&resolved, Mode::Production, listener) => started?,
        () = stop.wait() => return Ok(()),
    };
    tracing::info!(address = %running.address, issuer = resolved.issuer, "ready");
    if let Some(file) = ready_file {
        let mut ready = serde_json::json!({ "address": running.address });
        if let (Some(socket), Some(members)) = (&running.workload_api, ready.as_object_mut()) {
            members.insert("workload_api".to_owned(), socket.display().to_string().into());
        }
        std::fs::write(&file, format!("{ready}\n"))
            .map_err(|error| CannotStart(format!("{}: {error}", file.display())))?;
    }
    loop {
        tokio::select! {
            () = stop.wait() => break,
            _ = hangup.recv() => {}
        }
        tokio::select! {
            () = stop.wait() => break,
            () = reload(&running, path) => {}
        }
    }
    running.drain().await;
    Ok(())
}

/// Starts a broker on a listener that is bound already.
///
/// # Errors
/// [`CannotStart`].
pub async fn start(resolved: &Resolved, mode: Mode, listener: TcpListener) -> Result<Running, CannotStart> {
    let cannot = |error: std::io::Error| CannotStart(error.to_string());
    let address = listener.local_addr().map_err(cannot)?;
    // Before anything is measured.
    let metrics = telemetry::metrics().map_err(CannotStart)?;
    let assembly = assemble::assemble(resolved, mode).await?;
    let tls = resolved.listen.tls.as_ref().map(acceptor).transpose()?;
    let (stop, stopping) = watch::channel(false);
    let administration = Arc::new(Administration {
        desk: Arc::clone(&assembly.desk),
        log: assembly.log.clone(),
        ready: AtomicBool::new(false),
        metrics,
    });
    let (entries, nodes) = (entry_administration(&assembly), node_administration(&assembly));
    let sources = Arc::new(SourceLimit::new(resolved.limits.source_per_second));
    let listening = Listening {
        tls,
        connections: resolved.limits.connections,
        // Behind a proxy all come from one address.
        connections_of_one_source: if resolved.listen.behind_proxy {
            resolved.limits.connections
        } else {
            resolved.limits.connections.div_ceil(2)
        },
        drain: resolved.limits.drain,
        stop: stopping.clone(),
    };
    let inside = Listening { tls: None, connections: 64, connections_of_one_source: 64, ..listening.clone() };

    let mut tasks = JoinSet::new();
    let admin_address = match resolved.admin_address {
        None => None,
        Some(address) => {
            let listener = TcpListener::bind(address).await.map_err(cannot)?;
            let bound = listener.local_addr().map_err(cannot)?;
            let router = match mode {
                // Over TCP only what probes and scrapers may see; administration is on the socket.
                Mode::Production => router::observation(Arc::clone(&administration)),
                // Who is entitled to what stays with who may open the socket, in `dev` too.
                Mode::Development => router::administration(Arc::clone(&administration), None, None),
            };
            tasks.spawn(serve_tcp(listener, router, inside.clone()));
            Some(bound)
        }
    };
    let socket = bind_socket(&resolved.admin_socket)?;
    tasks.spawn(serve_unix(
        socket,
        router::administration(Arc::clone(&administration), entries, nodes),
        inside,
    ));
    let ring = assembly.aws.as_ref().map(|aws| Arc::clone(&aws.ring));
    let identity =
        assembly.aws.as_ref().map(|aws| PublishedIdentity::new(&aws.identity.issuer, aws.ring.source()));
    let aws = AwsCredentials { desk: Arc::clone(&assembly.desk), seal: Arc::clone(&assembly.seal) };
    let (desk, guards) = (Arc::clone(&assembly.desk), Arc::clone(&assembly.guards));
    let (node_door, attesting) = node_door(&assembly, &stopping);
    let aws = identity.map(|identity| (identity, aws));
    let public = router::public(desk, guards, Arc::clone(&sources), aws, node_door);
    tasks.spawn(serve_tcp(listener, public, listening.clone()));
    let workload_api = open_spiffe(&assembly, &sources, listening, &mut tasks).await?;
    let rings = Rings { web_identity: ring, spiffe: assembly.spiffe.as_ref().map(|it| Arc::clone(&it.ring)) };
    tasks.spawn(keep_house(Arc::clone(&assembly.desk), [sources, attesting], rings, stopping));
    administration.ready.store(true, Ordering::Release);
    Ok(Running { address, admin_address, workload_api, assembly, stop, administration, tasks })
}

/// Opens what there is of door 2: its socket, whose path this is, the listener of our bundle, and the questions for those of
/// others.
async fn open_spiffe(
    assembly: &Assembly,
    sources: &Arc<SourceLimit>,
    listening: Listening,
    tasks: &mut JoinSet<()>,
) -> Result<Option<PathBuf>, CannotStart> {
    let Some(spiffe) = &assembly.spiffe else { return Ok(None) };
    let stop = listening.stop.clone();
    if let Some(address) = spiffe.bundle_endpoint() {
        bundle_endpoint::open(address, &assembly.desk, sources, listening, tasks).await?;
    }
    // Before anybody is told that we are ready: bundles out of files hold when they are on record.
    spiffe.federation.settle().await;
    tasks.spawn(Arc::clone(&spiffe.federation).follow(stop.clone()));
    if let Some(socket) = spiffe.open_socket(&assembly.desk)? {
        tasks.spawn(socket.serve(stop));
    }
    Ok(spiffe.socket().map(Path::to_owned))
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, CannotStart> {
    let clients = match tls.asks_for_certificates {
        true => ClientCertificates::OfAnybody,
        false => ClientCertificates::Ignored,
    };
    tls::acceptor(&tls.certificate, &tls.key, clients)
}

/// What administration of door 2 works on, where there is that door.
fn entry_administration(assembly: &Assembly) -> Option<Arc<EntryAdministration>> {
    let spiffe = assembly.spiffe.as_ref()?;
    Some(Arc::new(EntryAdministration {
        desk: Arc::clone(&assembly.desk),
        registration: Arc::clone(&spiffe.registration),
        federation: Arc::clone(&spiffe.federation),
        attestor: spiffe.attestor(&assembly.desk.clock),
    }))
}

/// What administration of nodes works on, where there may be any.
fn node_administration(assembly: &Assembly) -> Option<Arc<NodeAdministration>> {
    let registry = Arc::clone(assembly.spiffe.as_ref()?.nodes.as_ref()?);
    Some(Arc::new(NodeAdministration { desk: Arc::clone(&assembly.desk), registry }))
}

/// The door of nodes, and the rate of one address there.
type LimitedDoor = (Arc<NodeDoor>, Arc<SourceLimit>);

/// The door of nodes, where there may be any, and the rate of one address there.
fn node_door(
    assembly: &Assembly,
    stopping: &watch::Receiver<bool>,
) -> (Option<LimitedDoor>, Arc<SourceLimit>) {
    let attesting = Arc::new(SourceLimit::new(ATTESTATIONS_PER_SECOND));
    let registry = assembly.spiffe.as_ref().and_then(|spiffe| spiffe.nodes.clone());
    let door = registry
        .and_then(|registry| NodeDoor::new(Arc::clone(&assembly.desk), registry, stopping.clone()))
        .map(|door| (Arc::new(door), Arc::clone(&attesting)));
    (door, attesting)
}

/// Keys that come and go with time.
#[derive(Default)]
struct Rings {
    web_identity: Option<Arc<WebIdentityRing>>,
    spiffe: Option<Arc<SpiffeRing>>,
}

impl Running {
    /// Stops taking requests, finishes those under way, and closes the log.
    pub async fn drain(mut self) {
        self.administration.ready.store(false, Ordering::Release);
        tracing::info!("draining");
        self.assembly.guards.close();
        // There is a receiver as long as a task runs; without one there is nothing to stop.
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        self.assembly.desk.refusals.write_all(&self.assembly.desk);
        if let Err(error) = self.assembly.log.close().await {
            tracing::error!(%error, "log not closed cleanly");
        }
        tracing::info!("stopped");
    }
}

/// SIGTERM or SIGINT. Made once and early: what comes from then on is kept until somebody waits for it, where a
/// second listener would miss what came between the two.
#[derive(Debug)]
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the system does not let it.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for either.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Reads a configuration and joins what is wrong with it into one message.
///
/// # Errors
/// [`CannotStart`].
pub fn load(path: &Path, mode: Mode) -> Result<Resolved, CannotStart> {
    resolved::load(path, mode)
        .map_err(|errors| CannotStart(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

async fn reload(running: &Running, path: &Path) {
    let reloaded = match load(path, Mode::Production) {
        Ok(resolved) => assemble::reload(&running.assembly, &resolved).await,
        Err(error) => Err(error),
    };
    match reloaded {
        Ok(()) => tracing::info!("configuration reloaded"),
        Err(error) => tracing::error!(%error, "configuration not reloaded, the old one stays"),
    }
}

/// Once a second: what was counted goes into the log, and keys whose time has come are taken. Now and then: what nobody needs is forgotten.
async fn keep_house(
    desk: Arc<deputize_issuer::desk::Desk>,
    sources: [Arc<SourceLimit>; 2],
    rings: Rings,
    mut stop: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut ticks = 0_u64;
    let mut turning_failed = false;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        desk.refusals.write(&desk);
        let sessions = desk.aws.as_ref().map(|aws| &aws.sessions);
        if let Some(door) = &desk.spiffe {
            door.entries.follow_time(desk.clock.now_seconds());
        }
        let turned = follow_time((desk.clock.as_ref(), &desk.clock_watch), &rings, sessions);
        if let (Err(error), false) = (&turned, turning_failed) {
            tracing::error!(%error, "keys not turned, the old ones stay");
        }
        turning_failed = turned.is_err();
        ticks += 1;
        if ticks.is_multiple_of(10) {
            sources.iter().for_each(|sources| sources.forget_idle());
        }
    }
}

/// What comes and goes with the wall clock. Not while that has jumped: a key that is destroyed and a session that is
/// forgotten do not come back when it does, and a key that signs early is not known yet.
fn follow_time(
    (clock, watch): (&dyn Clock, &ClockWatch),
    rings: &Rings,
    sessions: Option<&RoleSessions>,
) -> Result<(), KeyFileError> {
    if !watch.agrees(clock) {
        return Ok(());
    }
    let now_seconds = clock.now_seconds();
    if let Some(sessions) = sessions {
        sessions.forget_before(now_seconds);
    }
    let web_identity = rings.web_identity.as_ref().map_or(Ok(()), |ring| ring.turn(now_seconds));
    let spiffe = rings.spiffe.as_ref().map_or(Ok(()), |ring| ring.turn(now_seconds));
    // What one of them could not do keeps the other from nothing.
    web_identity.and(spiffe)
}

/// A socket in a folder that only its owner may enter; what a dead process left there is removed.
fn bind_socket(path: &Path) -> Result<UnixListener, CannotStart> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let cannot = |error: std::io::Error| CannotStart(format!("{}: {error}", path.display()));
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path).map_err(cannot)?,
        Ok(_) => return Err(CannotStart(format!("{} exists and is not a socket", path.display()))),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(cannot)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    Ok(listener)
}

/// Of one address: each costs a signature, and may have others asked.
const ATTESTATIONS_PER_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::web_identity_keys::{ANNOUNCED_SECONDS, WebIdentityKeys};
    use deputize_call::sign::SigningAlgorithm;
    use deputize_issuer::clock::TestClock;

    #[test]
    fn a_jump_of_the_clock_turns_no_key_and_time_does() {
        const NOW: u64 = 1_800_000_000;
        let data = tempfile::tempdir().unwrap();
        let ring = Arc::new(WebIdentityRing::open(data.path(), SigningAlgorithm::ES256, NOW).unwrap());
        let rings = Rings { web_identity: Some(Arc::clone(&ring)), spiffe: None };
        WebIdentityKeys::existing(data.path()).rotate(NOW, NOW + ANNOUNCED_SECONDS).unwrap();
        let announced = Duration::from_secs(ANNOUNCED_SECONDS);
        let signing = || ring.source().ring().signing_kid().to_owned();
        let first = signing();
        let first_file = data.path().join("keys/web-identity/es256-0.p8");

        let jumped = TestClock::at_seconds(NOW);
        let watch = ClockWatch::new(&jumped);
        jumped.jump_wall(announced);
        follow_time((&jumped, &watch), &rings, None).unwrap();
        assert_eq!(signing(), first, "what is announced does not sign early");
        assert!(first_file.exists(), "and the key that signs is not destroyed");

        let passed = TestClock::at_seconds(NOW);
        let watch = ClockWatch::new(&passed);
        passed.advance(announced);
        follow_time((&passed, &watch), &rings, None).unwrap();
        assert_ne!(signing(), first);
        assert!(!first_file.exists());
    }
}
