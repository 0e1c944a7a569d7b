//! A guard at the Workload API: the bundles that it is told, and its own SVID.

use deputize_call::keys::KeySet;
use deputize_issuer::svid::{Bundle, Bundles};
use deputize_workload_api::proto::X509svidResponse;
use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use spiffe::{TrustDomain, X509Bundle, X509Svid};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::workloads::Known;
use crate::commands::{
    exit::{CommandError, Exit},
    svid::Endpoint,
};

/// Follows what a socket tells this process, as long as somebody listens. What it told holds as long as it goes on, and
/// for so long after.
pub(super) async fn follow(socket: PathBuf, known: watch::Sender<Known>, holds: Duration) {
    let live = watch::Sender::new(false);
    tokio::select! {
        () = follow_on(&socket, &known, &live) => {}
        () = lapse(live.subscribe(), &known, holds) => {}
    }
}

async fn follow_on(socket: &Path, known: &watch::Sender<Known>, live: &watch::Sender<bool>) {
    let mut pause = FIRST_PAUSE;
    while !known.is_closed() {
        let ended = tokio::select! {
            ended = hear(socket, known, live) => ended,
            () = known.closed() => return,
        };
        live.send_replace(false);
        match ended {
            Ended::Heard => pause = FIRST_PAUSE,
            Ended::Failed(error) if error.exit == Exit::Denied => {
                // The entry is gone: what it entitled to is not to be used any longer.
                known.send_replace(Known::default());
                tracing::warn!(error = error.message, "no identity at the workload api");
            }
            // What was told holds for a while.
            Ended::Failed(error) => tracing::warn!(error = error.message, "workload api not reached"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Has bundles hold no longer when nobody has gone on telling them for so long: an authority may have been withdrawn
/// since.
async fn lapse(mut live: watch::Receiver<bool>, known: &watch::Sender<Known>, holds: Duration) {
    loop {
        if live.wait_for(|live| !live).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            told = live.wait_for(|live| *live) => {
                if told.is_err() { return } else { continue }
            }
            () = tokio::time::sleep(holds) => {}
        }
        // What was told at this very moment stays: it is live before it is known.
        if known.send_if_modified(|known| !*live.borrow() && known.bundles.take().is_some()) {
            let seconds = holds.as_secs();
            tracing::error!(
                seconds,
                "bundles of callers lapsed: the workload api has been away for too long"
            );
        }
        if live.wait_for(|live| *live).await.is_err() {
            return;
        }
    }
}

/// How a stream came to its end.
enum Ended {
    /// It told something.
    Heard,
    Failed(CommandError),
}

async fn hear(socket: &Path, known: &watch::Sender<Known>, live: &watch::Sender<bool>) -> Ended {
    let mut endpoint = match Endpoint::connect(socket).await {
        Ok(endpoint) => endpoint,
        Err(error) => return Ended::Failed(error),
    };
    let mut stream = match endpoint.x509_svids().await {
        Ok(stream) => stream,
        Err(error) => return Ended::Failed(error),
    };
    let mut ended = Ended::Heard;
    loop {
        match stream.message().await {
            Ok(Some(message)) => match read(&message) {
                Ok(told) => {
                    live.send_replace(true);
                    known.send_replace(told);
                }
                Err(error) => {
                    // Whoever says this tells nothing that could be trusted instead.
                    live.send_replace(false);
                    tracing::warn!(error, "x509-svid not usable");
                }
            },
            Ok(None) => return ended,
            Err(status) => {
                ended = Ended::Failed(endpoint.refused(&status));
                return ended;
            }
        }
    }
}

/// The first identity is the default (SPIFFE Workload API §5.3). Every message is the whole state (§5.2.1).
fn read(message: &X509svidResponse) -> Result<Known, String> {
    let first = message.svids.first().ok_or("there is no identity")?;
    let svid = X509Svid::parse_from_der(&first.x509_svid, &first.x509_svid_key)
        .map_err(|error| error.to_string())?;
    let own = bundle(svid.spiffe_id().trust_domain().clone(), &first.bundle)?;
    let federated = message.federated_bundles.iter().map(|(name, der)| {
        let trust_domain = TrustDomain::new(name).map_err(|error| error.to_string())?;
        bundle(trust_domain, der)
    });
    let bundles = Bundles { own, federated: federated.collect::<Result<_, String>>()? };
    let chain = svid.cert_chain().iter().map(|der| CertificateDer::from(der.as_bytes().to_vec())).collect();
    let key = PrivateKeyDer::try_from(first.x509_svid_key.to_vec()).map_err(str::to_owned)?;
    let key = any_supported_type(&key).map_err(|error| error.to_string())?;
    let (_, leaf) = X509Certificate::from_der(svid.leaf().as_bytes()).map_err(|error| error.to_string())?;
    let until_seconds =
        u64::try_from(leaf.validity().not_after.timestamp()).map_err(|error| error.to_string())?;
    Ok(Known {
        bundles: Some(Arc::new(bundles)),
        until_seconds: Some(until_seconds),
        own: Some(Arc::new(CertifiedKey::new(chain, key))),
    })
}

fn bundle(trust_domain: TrustDomain, der: &[u8]) -> Result<Arc<Bundle>, String> {
    let bundle = X509Bundle::parse_from_der(trust_domain.clone(), der).map_err(|error| error.to_string())?;
    Ok(Arc::new(Bundle {
        trust_domain,
        x509_authorities: bundle.authorities().iter().map(|der| der.as_bytes().to_vec()).collect(),
        jwt_authorities: KeySet::default(),
        sequence: 0,
        refresh_hint_seconds: 0,
    }))
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    use hyper::{
        body::{Body, Bytes, Frame},
        server::conn::http2,
        service::service_fn,
    };
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
    use std::{
        convert::Infallible,
        pin::{Pin, pin},
        task::{Context, Poll},
    };
    use tokio::{net::UnixListener, sync::Notify};

    fn told() -> Known {
        let own = bundle(TrustDomain::new("example.org").unwrap(), &[]).unwrap();
        let bundles = Some(Arc::new(Bundles { own, federated: Vec::new() }));
        Known { bundles, ..Known::default() }
    }

    /// A field of a message, as Protocol Buffers write it.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let mut written = vec![number << 3 | 2];
        let mut rest = value.len();
        while rest > 127 {
            written.push((rest & 127) as u8 | 128);
            rest >>= 7;
        }
        written.push(rest as u8);
        written.extend(value);
        written
    }

    /// An X.509-SVID with the bundle that verifies it, as a socket tells it.
    fn message() -> Bytes {
        let id = |id: &str| SanType::URI(id.try_into().unwrap());
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority.subject_alt_names = vec![id("spiffe://example.org")];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let (mut leaf, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.subject_alt_names = vec![id("spiffe://example.org/guard")];
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        let svid = [
            field(1, b"spiffe://example.org/guard"),
            field(2, leaf.der()),
            field(3, &key.serialize_der()),
            field(4, authority.der()),
        ];
        let message = field(1, &svid.concat());
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0][..], &length, &message].concat().into()
    }

    /// The body of a stream that tells one thing, and does not end.
    struct Told(Option<Bytes>);

    impl Body for Told {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.take() {
                Some(told) => Poll::Ready(Some(Ok(Frame::data(told)))),
                None => Poll::Pending,
            }
        }
    }

    /// Tells it on the first connection, and then stands still: the sockets stay open, and nobody reads them.
    async fn serve_and_stand_still(listener: UnixListener, still: Arc<Notify>) {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(async |_| {
            let answer = http::Response::builder().header("content-type", "application/grpc");
            answer.body(Told(Some(message())))
        });
        let builder = http2::Builder::new(TokioExecutor::new());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            () = still.notified() => {}
        }
        std::future::pending().await
    }

    #[tokio::test]
    async fn bundles_lapse_where_whoever_told_them_stands_still() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let (listener, still) = (UnixListener::bind(&socket).unwrap(), Arc::new(Notify::new()));
        let serving = tokio::spawn(serve_and_stand_still(listener, Arc::clone(&still)));
        let (known, mut changes) = watch::channel(Known::default());
        let following = tokio::spawn(follow(socket, known, Duration::from_secs(60)));
        let first = changes.wait_for(|known| known.bundles.is_some()).await.unwrap().clone();
        assert!(first.own.is_some() && first.until_seconds.is_some());
        still.notify_one();
        tokio::time::pause();
        let since = tokio::time::Instant::now();
        changes.wait_for(|known| known.bundles.is_none()).await.unwrap();
        let passed = since.elapsed().as_secs();
        assert!((60..600).contains(&passed), "after {passed} seconds");
        drop(changes);
        following.await.unwrap();
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_as_the_time_is_over_stays() {
        let holds = Duration::from_secs(60);
        for _ in 0..200 {
            let (known, live) = (watch::Sender::new(told()), watch::Sender::new(false));
            let (watched, receiver) = (known.clone(), live.subscribe());
            let lapsing = tokio::spawn(async move { lapse(receiver, &watched, holds).await });
            let telling = async {
                tokio::time::sleep(holds).await;
                live.send_replace(true);
                known.send_replace(told());
            };
            telling.await;
            tokio::time::sleep(holds).await;
            assert!(known.borrow().bundles.is_some());
            drop(live);
            lapsing.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bundles_lapse_when_nobody_has_told_them_for_too_long_and_come_back() {
        let (known, live) = (watch::Sender::new(told()), watch::Sender::new(true));
        let holds = Duration::from_secs(3600);
        let (watched, receiver) = (known.clone(), live.subscribe());
        let lapsing = tokio::spawn(async move { lapse(receiver, &watched, holds).await });
        let are_known = || known.borrow().bundles.is_some();
        let pass = async |seconds| tokio::time::sleep(Duration::from_secs(seconds)).await;
        pass(100_000).await;
        assert!(are_known(), "as long as somebody goes on telling");
        live.send_replace(false);
        pass(3599).await;
        assert!(are_known());
        live.send_replace(true);
        pass(10).await;
        live.send_replace(false);
        pass(3599).await;
        assert!(are_known(), "it was there again meanwhile");
        pass(2).await;
        assert!(!are_known());
        known.send_replace(told());
        live.send_replace(true);
        pass(100_000).await;
        assert!(are_known());
        drop(live);
        lapsing.await.unwrap();
    }
}
