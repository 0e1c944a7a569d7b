//! The workloads around a guard, as its bundles and its own SVID tell them apart: followed while it runs.

use deputize_client::Clock;
use deputize_guard::proxy::ClientCertificate;
use deputize_issuer::{
    bundle,
    certificate::PresentedCertificate,
    svid::{Bundle, Bundles},
};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use spiffe::TrustDomain;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use tower::util::MapRequestLayer;

use super::{callers::Trusted, own_svid};
use crate::commands::exit::CommandError;

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// By these SVIDs are verified; none where they are not known, or no longer.
    pub(super) bundles: Option<Arc<Bundles>>,
    /// When they hold no longer, whatever goes on to be told, in Unix seconds: whoever told them stands by them as long as
    /// by the guard's own SVID, which came with them. Files have no such end.
    pub(super) until_seconds: Option<u64>,
    /// The guard's own SVID, where it has one.
    pub(super) own: Option<Arc<CertifiedKey>>,
}

impl Known {
    /// By which bundles SVIDs are verified at this moment.
    fn bundles_at(&self, now_seconds: u64) -> Option<Arc<Bundles>> {
        let holds = self.until_seconds.is_none_or(|until| now_seconds <= until);
        self.bundles.clone().filter(|_| holds)
    }
}

/// What is known of workloads, now and as it changes.
#[derive(Debug, Clone)]
pub(super) struct Workloads(watch::Receiver<Known>);

impl Workloads {
    /// Follows what is trusted, from the first moment at which it is known.
    ///
    /// # Errors
    /// If a bundle's file cannot be used.
    pub(super) async fn follow(trusted: &Trusted) -> Result<Self, CommandError> {
        let (known, mut changes) = watch::channel(Known::default());
        match trusted {
            Trusted::Files(files) => {
                let (mut read, bundles) = read_all(files).map_err(unusable)?;
                known.send_replace(Known { bundles: Some(Arc::new(bundles)), ..Known::default() });
                let files = files.clone();
                tokio::spawn(async move {
                    let mut tick = tokio::time::interval(LOOK_AT_FILES_EVERY);
                    while !known.is_closed() {
                        tick.tick().await;
                        look_again(&files, &mut read, &known);
                    }
                });
            }
            Trusted::WorkloadApi { socket, holds } => {
                tracing::info!(socket = %socket.display(), "waiting for the workload api");
                tokio::spawn(own_svid::follow(socket.clone(), known, *holds));
            }
        }
        // Who follows ends with the last receiver, so there is a sender as long as this one waits.
        let _ = changes.wait_for(|known| known.bundles.is_some()).await;
        Ok(Self(changes))
    }

    /// The guard's own SVID, as it is at each handshake.
    pub(super) fn own_certificate(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::new(self.clone())
    }

    /// Looks at the certificate of whoever calls at this path: an SVID may end, and a bundle change, while a connection
    /// lasts. What was found of a connection is remembered with it.
    pub(super) fn look_at_callers(
        self,
        router: axum::Router,
        path: String,
        clock: Arc<dyn Clock>,
    ) -> axum::Router {
        router.layer(MapRequestLayer::new(move |mut request: axum::extract::Request| {
            // What is told to anybody is told without looking.
            let shown = (request.uri().path() == path)
                .then(|| request.extensions().get::<Arc<PresentedCertificate>>().cloned())
                .flatten();
            if let Some(shown) = shown {
                let certificate = self.look_at(&shown, clock.now_seconds());
                request.extensions_mut().insert(certificate);
            }
            request
        }))
    }

    fn look_at(&self, shown: &PresentedCertificate, now_seconds: u64) -> ClientCertificate {
        let certificate = ClientCertificate::of(shown.leaf());
        let Some(bundles) = self.0.borrow().bundles_at(now_seconds) else {
            return certificate.of_undecided_workload();
        };
        let found = shown.workload(&bundles, now_seconds);
        certificate.of_workload(found.map(|id| id.to_string()).map_err(|error| error.reason()))
    }
}

impl ResolvesServerCert for Workloads {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().own.clone()
    }
}

/// Takes other bundles from now on, if files have changed and all of them are bundles.
fn look_again(files: &BTreeMap<TrustDomain, PathBuf>, read: &mut Vec<Vec<u8>>, known: &watch::Sender<Known>) {
    match read_all(files) {
        Ok((now, _)) if now == *read => {}
        Ok((now, bundles)) => {
            *read = now;
            tracing::info!("bundles of callers changed");
            known.send_modify(|known| known.bundles = Some(Arc::new(bundles)));
        }
        // The last good ones hold. A file that is being written is whole at the next look.
        Err((file, error)) => tracing::warn!(file = %file.display(), error, "bundle of callers not usable"),
    }
}

type Unusable = (PathBuf, String);

/// The files as they are, and the bundles in them.
fn read_all(files: &BTreeMap<TrustDomain, PathBuf>) -> Result<(Vec<Vec<u8>>, Bundles), Unusable> {
    let (mut read, mut bundles) = (Vec::new(), Vec::new());
    for (trust_domain, file) in files {
        let (document, bundle) = read_one(trust_domain, file).map_err(|error| (file.clone(), error))?;
        read.push(document);
        bundles.push(Arc::new(bundle));
    }
    let mut bundles = bundles.into_iter();
    let own = bundles.next().ok_or_else(|| (PathBuf::new(), "there is no bundle".to_owned()))?;
    Ok((read, Bundles { own, federated: bundles.collect() }))
}

fn read_one(trust_domain: &TrustDomain, file: &Path) -> Result<(Vec<u8>, Bundle), String> {
    let length = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > MAX_BUNDLE_BYTES {
        return Err("a bundle has 256 KiB at most".to_owned());
    }
    let document = std::fs::read(file).map_err(|error| error.to_string())?;
    let bundle = bundle::from_document(trust_domain.clone(), &document).map_err(|error| error.to_string())?;
    Ok((document, bundle))
}

fn unusable((file, error): Unusable) -> CommandError {
    CommandError::configuration(
        format!("caller_bundles: {}: {error}", file.display()),
        "give the SPIFFE bundle document of that trust domain, as its broker serves it at /spiffe/bundle",
    )
}

const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(2);
const MAX_BUNDLE_BYTES: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_call::keys::KeySet;

    #[test]
    fn bundles_hold_as_long_as_the_svid_that_they_came_with() {
        let own = Arc::new(Bundle {
            trust_domain: TrustDomain::new("example.org").unwrap(),
            x509_authorities: Vec::new(),
            jwt_authorities: KeySet::default(),
            sequence: 0,
            refresh_hint_seconds: 0,
        });
        let bundles = Some(Arc::new(Bundles { own, federated: Vec::new() }));
        let told = Known { bundles: bundles.clone(), until_seconds: Some(1000), own: None };
        assert!(told.bundles_at(1000).is_some() && told.bundles_at(1001).is_none());
        let of_files = Known { bundles, ..Known::default() };
        assert!(of_files.bundles_at(u64::MAX).is_some());
        assert!(Known::default().bundles_at(0).is_none());
    }
}
