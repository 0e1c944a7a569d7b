//! The accept loop: bounded connections, timeouts on headers and idleness, TLS, and a drain.
//! (`axum::serve` waits more than a minute on half a header.)

use super::patient::{IDLE_TIMEOUT, Patient, Sources};
use axum::{Router, extract::ConnectInfo};
use deputize_guard::proxy::ClientCertificate;
use deputize_issuer::certificate::PresentedCertificate;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;

/// How a listener behaves.
#[derive(Clone)]
pub struct Listening {
    /// TLS, if this listener terminates it.
    pub tls: Option<TlsAcceptor>,
    /// Open connections at once.
    pub connections: usize,
    /// Of these, how many one address may hold.
    pub connections_of_one_source: usize,
    /// How long a stop waits for requests under way.
    pub drain: Duration,
    /// Turns true when it is time to stop.
    pub stop: watch::Receiver<bool>,
}

/// Serves a TCP listener until told to stop, then drains.
pub async fn serve_tcp(listener: TcpListener, router: Router, listening: Listening) {
    serve_tcp_patiently(listener, router, listening, IDLE_TIMEOUT).await;
}

/// As [`serve_tcp`], where answers may be longer in coming: a connection may be idle for `idle`.
pub async fn serve_tcp_patiently(
    listener: TcpListener,
    router: Router,
    mut listening: Listening,
    idle: Duration,
) {
    let room = Arc::new(Semaphore::new(listening.connections));
    let sources = Sources::new(listening.connections_of_one_source);
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&room, listener.accept()) => accepted,
            _ = listening.stop.wait_for(|stop| *stop) => break,
        };
        let Some((place, (stream, peer))) = accepted else { continue };
        let Some(source) = sources.enter(peer.ip()) else {
            metrics::counter!("deputize_connections_refused_total").increment(1);
            continue;
        };
        // Small answers at once; failing to say so changes nothing but latency.
        let _ = stream.set_nodelay(true);
        let (router, tls, watcher) = (router.clone(), listening.tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _held = (place, source);
            match tls {
                None => {
                    let stream = Patient::with_idle(stream, idle);
                    let sender = Sender { peer: Some(peer), certificate: None };
                    serve_connection(stream, sender, router, watcher).await;
                }
                Some(tls) => {
                    // A handshake that dawdles or fails ends the connection, nothing else.
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await
                    {
                        let shown = stream.get_ref().1.peer_certificates().map(PresentedCertificate::proved);
                        let Ok(certificate) = shown.transpose() else { return };
                        let sender = Sender { peer: Some(peer), certificate: certificate.map(Arc::new) };
                        let stream = Patient::with_idle(stream, idle);
                        serve_connection(stream, sender, router, watcher).await;
                    }
                }
            }
        });
    }
    drop(listener);
    drain(graceful, listening.drain).await;
}

/// Serves a Unix socket until told to stop, then drains.
pub async fn serve_unix(listener: UnixListener, router: Router, mut listening: Listening) {
    let room = Arc::new(Semaphore::new(listening.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&room, listener.accept()) => accepted,
            _ = listening.stop.wait_for(|stop| *stop) => break,
        };
        let Some((place, (stream, _))) = accepted else { continue };
        let (router, watcher) = (router.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _place = place;
            serve_connection(Patient::new(stream), Sender::default(), router, watcher).await;
        });
    }
    drop(listener);
    drain(graceful, listening.drain).await;
}

/// Who is at the other end of a connection, as far as the connection itself says. No header of a request is asked.
#[derive(Default)]
struct Sender {
    peer: Option<SocketAddr>,
    certificate: Option<Arc<PresentedCertificate>>,
}

/// The next connection, once there is room for it.
async fn accept<C>(
    room: &Arc<Semaphore>,
    next: impl Future<Output = std::io::Result<C>>,
) -> Option<(OwnedSemaphorePermit, C)> {
    let place = Arc::clone(room).acquire_owned().await.ok()?;
    match next.await {
        Ok(connection) => Some((place, connection)),
        Err(_) => {
            // Out of file descriptors, most likely: breathe, so that the loop does not spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn drain(graceful: GracefulShutdown, patience: Duration) {
    if tokio::time::timeout(patience, graceful.shutdown()).await.is_err() {
        tracing::warn!("drain timed out with requests under way");
    }
}

async fn serve_connection<S>(
    stream: S,
    sender: Sender,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = tower::ServiceBuilder::new()
        .map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            if let Some(peer) = sender.peer {
                request.extensions_mut().insert(ConnectInfo(peer));
            }
            if let Some(certificate) = &sender.certificate {
                request.extensions_mut().insert(ClientCertificate::of(certificate.leaf()));
                request.extensions_mut().insert(Arc::clone(certificate));
            }
            request
        })
        .service(router);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(Some(20))
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(10));
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
    // What a peer does wrong ends its own connection; there is nobody to tell.
    let _ = watcher.watch(connection).await;
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the headers of a request, and for idleness between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_HEADER_BYTES: usize = 64 * 1024;
const MAX_HEADER_LIST_BYTES: u32 = 32 * 1024;
const MAX_STREAMS: u32 = 32;

#[cfg(test)]
mod tests;
