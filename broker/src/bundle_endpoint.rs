//! Our bundle, for whoever knows us by it: a listener that shows our own X.509-SVID (SPIFFE Federation §5.2.2.3). The same
//! bundle is at `{issuer}/spiffe/bundle` (§5.2.1.3).

use arc_swap::ArcSwap;
use deputize_issuer::{
    desk::Desk,
    svid::{SpiffeDoor, X509Svid, own_svid},
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::{
    cannot_start::CannotStart,
    http::{
        listen::{Listening, serve_tcp},
        router,
        source::SourceLimit,
    },
};

/// Listens at an address, and serves until `listening` stops. The first SVID is there when this returns.
///
/// # Errors
/// [`CannotStart`]: the address is taken, or there is no SVID.
pub async fn open(
    address: SocketAddr,
    desk: &Arc<Desk>,
    sources: &Arc<SourceLimit>,
    listening: Listening,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, CannotStart> {
    let cannot =
        |error: &dyn std::fmt::Display| CannotStart(format!("spiffe.bundle_endpoint: {address}: {error}"));
    let door = desk.spiffe.clone().ok_or_else(|| cannot(&"there are no SVIDs"))?;
    let listener = TcpListener::bind(address).await.map_err(|error| cannot(&error))?;
    let bound = listener.local_addr().map_err(|error| cannot(&error))?;
    let shown = Shown::mint(desk).await.map_err(|error| cannot(&error))?;
    let own = Arc::new(OwnSvid {
        desk: Arc::clone(desk),
        door: Arc::clone(&door),
        shown: ArcSwap::from_pointee(shown),
    });
    let tls = own.acceptor().map_err(|error| cannot(&error))?;
    let router = router::bundle_endpoint(Arc::clone(desk), door, Arc::clone(sources));
    tasks.spawn(own.keep_fresh(listening.stop.clone()));
    tasks.spawn(serve_tcp(listener, router, Listening { tls: Some(tls), ..listening }));
    tracing::info!(address = %bound, "bundle endpoint ready");
    Ok(bound)
}

/// Our own X.509-SVID, renewed in time.
struct OwnSvid {
    desk: Arc<Desk>,
    door: Arc<SpiffeDoor>,
    shown: ArcSwap<Shown>,
}

/// One of them.
struct Shown {
    certified: Arc<CertifiedKey>,
    renew_at_seconds: u64,
    not_after_seconds: u64,
    authorities: Vec<[u8; 32]>,
}

impl Shown {
    async fn mint(desk: &Desk) -> Result<Self, NotMinted> {
        let svid = own_svid(desk, "bundle-endpoint").await.map_err(|error| NotMinted(error.to_string()))?;
        Self::of(svid, desk.clock.now_seconds())
    }

    fn of(svid: X509Svid, now_seconds: u64) -> Result<Self, NotMinted> {
        let key = svid.private_key.ok_or_else(|| NotMinted("it came without its key".to_owned()))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.expose().clone()));
        let chain = svid.chain.into_iter().map(CertificateDer::from).collect();
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| NotMinted(error.to_string()))?;
        Ok(Self {
            certified: Arc::new(certified),
            renew_at_seconds: now_seconds + svid.not_after_seconds.saturating_sub(now_seconds) / 2,
            not_after_seconds: svid.not_after_seconds,
            authorities: svid.authorities,
        })
    }
}

impl OwnSvid {
    fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Has a new one made at half of its life, and at once where what signed it is withdrawn.
    async fn keep_fresh(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut changes = self.door.authorities.changes();
        loop {
            let wait = if self.is_due() {
                match Shown::mint(&self.desk).await {
                    Ok(shown) => {
                        self.shown.store(Arc::new(shown));
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "own SVID not renewed, the old one is shown until it ends");
                        RETRY
                    }
                }
            } else {
                LOOK_AGAIN
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    fn is_due(&self) -> bool {
        let shown = self.shown.load();
        self.desk.clock.now_seconds() >= shown.renew_at_seconds
            || !self.door.authorities.ring().stands_by(&shown.authorities)
    }
}

impl ResolvesServerCert for OwnSvid {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.shown.load();
        (self.desk.clock.now_seconds() < shown.not_after_seconds).then(|| Arc::clone(&shown.certified))
    }
}

impl std::fmt::Debug for OwnSvid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnSvid").finish_non_exhaustive()
    }
}

/// Why there is no new SVID of our own.
#[derive(Debug, thiserror::Error)]
#[error("no X.509-SVID of our own: {0}")]
struct NotMinted(String);

/// SVIDs live for a minute at least, and are renewed at half of that.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(5);
