//! What stands behind door 2: what signs, who is entitled to what, and the socket.

use deputize_issuer::{clock::Clock, desk::Desk, log::Log, node::NodeRegistry, svid::SpiffeDoor};
use deputize_workload_api::{
    Limits, WorkloadApi,
    attest::{AttestSettings, Attestor, PodData},
    bind,
    reception::Doorkeeper,
    source::DeskSource,
};
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::{net::UnixListener, sync::watch};

use super::{CannotStart, cannot, jitter, nodes};
use crate::{
    backends::{
        embedded::EmbeddedRevocations,
        federation::{BundleFetcher, BundleFolder},
        kubelet::Kubelet,
        spiffe_keys::{Making, SpiffeRing, UpstreamFiles},
    },
    config::{resolved::Resolved, spiffe::Spiffe},
    federation::{Federation, Outside, RereadBundles},
    registration::{Others, Registration, Reread},
};

/// What stands behind door 2, and what its configuration says.
pub struct SpiffeBackends {
    /// What signs.
    pub ring: Arc<SpiffeRing>,
    /// Who is entitled to what.
    pub registration: Arc<Registration>,
    /// Other machines, where there may be any.
    pub nodes: Option<Arc<NodeRegistry>>,
    /// The bundles of foreign trust domains.
    pub federation: Arc<Federation>,
    /// What knows the pods of our own node, where it has any.
    pods: Option<Arc<dyn PodData>>,
    configured: Spiffe,
}

/// What was read again, and holds as soon as it is taken.
#[must_use = "it does not hold before it is taken"]
pub(super) struct RereadSpiffe<'b> {
    entries: Reread<'b>,
    bundles: RereadBundles<'b>,
}

/// The Workload API, and the socket that it is about to listen at.
pub struct OpenSocket {
    api: WorkloadApi,
    listener: UnixListener,
}

impl SpiffeBackends {
    /// Opens what the configuration asks for; nothing without `spiffe`.
    ///
    /// # Errors
    /// If the keys cannot be used, or an entry of a file cannot be.
    pub(super) fn open(
        resolved: &Resolved,
        others: Others<'_>,
        (facts, log): (&EmbeddedRevocations, &Log),
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<Self>, CannotStart> {
        let Some(spiffe) = &resolved.spiffe else { return Ok(None) };
        let now_seconds = clock.now_seconds();
        let upstream = spiffe.authority.upstream.as_ref().map(|(certificate, key)| UpstreamFiles {
            certificate_file: certificate.clone(),
            key_file: key.clone(),
        });
        let making = Making { ttl_seconds: spiffe.authority.ttl_seconds, upstream };
        let ring = SpiffeRing::open(&resolved.data_dir, &spiffe.bounds.trust_domain, making, now_seconds);
        let ring = Arc::new(ring.map_err(cannot)?);
        let entries = Box::new(facts.entries().map_err(cannot)?);
        let nodes = match &spiffe.nodes {
            Some(configured) => {
                let store = facts.nodes().map_err(cannot)?;
                let bundle = Arc::clone(&ring.authorities().ring().bundle);
                Some(Arc::new(nodes::open(configured, store, &bundle.x509_authorities)?))
            }
            None => None,
        };
        let outside = Outside {
            keep: Box::new(BundleFolder::open(&resolved.data_dir).map_err(cannot)?),
            fetch: Box::new(BundleFetcher::new(Arc::clone(clock))),
            own: ring.authorities(),
            audit: Arc::new(log.clone()),
            clock: Arc::clone(clock),
            jitter,
        };
        Ok(Some(Self {
            ring,
            federation: Arc::new(Federation::open(&spiffe.federation, outside)?),
            registration: Arc::new(Registration::open(spiffe, others, entries, now_seconds)?),
            nodes,
            pods: kubelet(spiffe, clock)?,
            configured: spiffe.clone(),
        }))
    }

    pub(super) fn door(&self) -> SpiffeDoor {
        SpiffeDoor {
            trust_domain: self.configured.bounds.trust_domain.clone(),
            issuer: self.configured.issuer.clone(),
            authorities: self.ring.authorities(),
            jwt_keys: self.ring.jwt_keys(),
            entries: Arc::clone(self.registration.live()),
            foreign: Arc::clone(self.federation.bundles()),
            settings: self.configured.svids,
        }
    }

    /// Looks at processes as the socket does.
    pub fn attestor(&self, clock: &Arc<dyn Clock>) -> Attestor {
        let (pods, clock) = (self.pods.clone(), Arc::clone(clock));
        let settings = AttestSettings { pods, clock, ..AttestSettings::default() };
        Attestor::new(self.configured.bounds.own_node.clone(), settings)
    }

    /// Where the socket is, if there is one.
    pub fn socket(&self) -> Option<&Path> {
        self.configured.socket.as_deref()
    }

    /// Where our bundle has a listener of its own.
    pub fn bundle_endpoint(&self) -> Option<SocketAddr> {
        self.configured.bundle_endpoint
    }

    /// Takes its place in the file system, where it has one. Who connects waits until it is served.
    ///
    /// # Errors
    /// If the place will not do.
    pub fn open_socket(&self, desk: &Arc<Desk>) -> Result<Option<OpenSocket>, CannotStart> {
        let Some(socket) = self.socket() else { return Ok(None) };
        let listener = bind(socket).map_err(|error| CannotStart(format!("spiffe.socket: {error}")))?;
        let no_door = || CannotStart("the desk has no door to SVIDs".to_owned());
        let source = DeskSource::start(Arc::clone(desk)).ok_or_else(no_door)?;
        let doorkeeper = Doorkeeper::new(self.attestor(&desk.clock));
        let clock = Arc::clone(&desk.clock);
        let api = WorkloadApi::new(Arc::new(source), Arc::new(doorkeeper), clock, Limits::default());
        tracing::info!(socket = %socket.display(), "workload api ready");
        Ok(Some(OpenSocket { api, listener }))
    }

    /// What a running broker can take of this configuration: entries and foreign bundles. The rest is as long as the process
    /// runs.
    ///
    /// # Errors
    /// If something else changed, or everything that is wrong with the entries.
    pub(super) async fn reread(
        &self,
        spiffe: &Spiffe,
        others: Others<'_>,
    ) -> Result<RereadSpiffe<'_>, CannotStart> {
        let fixed = |spiffe: &Spiffe| {
            let places = (spiffe.socket.clone(), spiffe.bundle_endpoint, spiffe.kubelet.clone());
            (spiffe.bounds.clone(), places, spiffe.svids, spiffe.authority.clone(), spiffe.nodes.clone())
        };
        if fixed(spiffe) != fixed(&self.configured) {
            return Err(CannotStart(
                "spiffe: all but entries and federation changes with a restart alone".to_owned(),
            ));
        }
        let entries = self.registration.reread(spiffe, others).await?;
        Ok(RereadSpiffe { entries, bundles: self.federation.reread(&spiffe.federation).await? })
    }
}

impl RereadSpiffe<'_> {
    /// It holds from now on.
    pub(super) async fn take(self) {
        self.entries.take();
        self.bundles.take().await;
    }
}

impl OpenSocket {
    /// Serves until `stop` turns true, and ends what is open.
    pub async fn serve(self, stop: watch::Receiver<bool>) {
        self.api.serve(self.listener, stop).await;
    }
}

/// The kubelet of our own node, where one is configured.
fn kubelet(spiffe: &Spiffe, clock: &Arc<dyn Clock>) -> Result<Option<Arc<dyn PodData>>, CannotStart> {
    let Some(access) = &spiffe.kubelet else { return Ok(None) };
    let kubelet = Kubelet::new(access.clone(), &spiffe.bounds.own_node, Arc::clone(clock));
    let kubelet = kubelet.map_err(|error| CannotStart(format!("spiffe.kubelet: {error}")))?;
    Ok(Some(Arc::new(kubelet)))
}
