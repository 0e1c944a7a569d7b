//! FetchX509Bundles and FetchJWTBundles (SPIFFE Workload API §5.2.2, §6.2.2).

use async_trait::async_trait;
use bytes::Bytes;
use deputize_issuer::{
    entry::Entry,
    svid::{Bundle, Bundles},
    workload::Workload,
};
use std::{
    collections::BTreeSet,
    iter,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Api,
    watch::{Answer, Question},
};
use crate::{
    error::Refused,
    proto::{JwtBundlesResponse, X509BundlesResponse},
    source::SvidSource,
};

/// The bundles as messages carry them: made once for each change, then shared.
#[derive(Default)]
pub(crate) struct Bundled(Mutex<Option<(Arc<Bundles>, Arc<Rendered>)>>);

/// All bundles at one moment.
pub(crate) struct Rendered {
    pub(crate) own: One,
    federated: Vec<One>,
}

/// The bundle of one trust domain.
pub(crate) struct One {
    /// `spiffe://` and the name of the trust domain.
    pub(crate) id: String,
    name: String,
    /// Authorities, concatenated DER.
    pub(crate) x509: Bytes,
    /// A JWK Set.
    pub(crate) jwt: Bytes,
}

impl Bundled {
    pub(crate) fn now(&self, source: &dyn SvidSource) -> Arc<Rendered> {
        let bundles = source.bundles();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, rendered)) = last.as_ref()
            && are_same(of, &bundles)
        {
            return Arc::clone(rendered);
        }
        let federated = bundles.federated.iter().map(|bundle| One::of(bundle)).collect();
        let rendered = Arc::new(Rendered { own: One::of(&bundles.own), federated });
        *last = Some((bundles, Arc::clone(&rendered)));
        rendered
    }
}

/// Whether they hold the very same bundles; a source may put them together anew for each question.
fn are_same(one: &Bundles, other: &Bundles) -> bool {
    let pairs = || one.federated.iter().zip(&other.federated);
    Arc::ptr_eq(&one.own, &other.own)
        && one.federated.len() == other.federated.len()
        && pairs().all(|(one, other)| Arc::ptr_eq(one, other))
}

impl Rendered {
    /// The foreign bundles that these entries federate with, as far as they are here.
    pub(crate) fn federated_with<'r>(
        &'r self,
        entries: impl Iterator<Item = &'r Entry>,
    ) -> impl Iterator<Item = &'r One> {
        let names: BTreeSet<&str> =
            entries.flat_map(|entry| &entry.federates_with).map(|domain| domain.as_str()).collect();
        self.federated.iter().filter(move |one| names.contains(one.name.as_str()))
    }

    /// Ours and those.
    fn of<'r>(&'r self, entries: &'r [Arc<Entry>]) -> impl Iterator<Item = &'r One> {
        iter::once(&self.own).chain(self.federated_with(entries.iter().map(Arc::as_ref)))
    }
}

impl One {
    fn of(bundle: &Bundle) -> Self {
        Self {
            id: bundle.trust_domain.id_string(),
            name: bundle.trust_domain.as_str().to_owned(),
            x509: bundle.x509_authorities.concat().into(),
            jwt: bundle.jwt_authorities.to_jwks().to_string().into(),
        }
    }
}

/// The X.509 bundles that a process may know.
pub(crate) struct X509Bundles;

/// The JWT bundles that a process may know.
pub(crate) struct JwtBundles;

#[async_trait]
impl Question for X509Bundles {
    type Message = X509BundlesResponse;

    fn peek(api: &Api, _: &Workload, entries: &[Arc<Entry>]) -> Option<Answer<X509BundlesResponse>> {
        let rendered = api.bundled.now(api.source.as_ref());
        let bundles = rendered.of(entries).map(|one| (one.id.clone(), one.x509.clone())).collect();
        Some(Answer::lasting(X509BundlesResponse { crl: Vec::new(), bundles }))
    }

    async fn answer(
        api: &Api,
        workload: &Workload,
        entries: &[Arc<Entry>],
    ) -> Result<Answer<X509BundlesResponse>, Refused> {
        Self::peek(api, workload, entries).ok_or(Refused::Broken)
    }
}

#[async_trait]
impl Question for JwtBundles {
    type Message = JwtBundlesResponse;

    fn peek(api: &Api, _: &Workload, entries: &[Arc<Entry>]) -> Option<Answer<JwtBundlesResponse>> {
        let rendered = api.bundled.now(api.source.as_ref());
        let bundles = rendered.of(entries).map(|one| (one.id.clone(), one.jwt.clone())).collect();
        Some(Answer::lasting(JwtBundlesResponse { bundles }))
    }

    async fn answer(
        api: &Api,
        workload: &Workload,
        entries: &[Arc<Entry>],
    ) -> Result<Answer<JwtBundlesResponse>, Refused> {
        Self::peek(api, workload, entries).ok_or(Refused::Broken)
    }
}
