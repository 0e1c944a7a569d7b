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
            told = live.wait_for(|live| *live) => {
                if told.is_err() { return } else { continue }
            }
            () = tokio::time::sleep(holds) => {}
        }
        if known.send_if_modified(|known| known.bundles.take().is_some()) {
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
                    known.send_replace(told);
                    live.send_replace(true);
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
    Ok(Known { bundles: Some(Arc::new(bundles)), own: Some(Arc::new(CertifiedKey::new(chain, key))) })
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

    #[tokio::test(start_paused = true)]
    async fn bundles_lapse_when_nobody_has_told_them_for_too_long_and_come_back() {
        let told = || {
            let own = bundle(TrustDomain::new("example.org").unwrap(), &[]).unwrap();
            Known { bundles: Some(Arc::new(Bundles { own, federated: Vec::new() })), own: None }
        };
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
