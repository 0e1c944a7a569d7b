//! FetchX509SVID (SPIFFE Workload API §5.2.1).

use async_trait::async_trait;
use deputize_issuer::{entry::Entry, workload::Workload};
use std::sync::Arc;

use super::{
    Api, unique_hints,
    watch::{Answer, Question},
};
use crate::{
    error::Refused,
    held::HeldSvid,
    proto::{X509svid, X509svidResponse},
    source::SourceError,
};

/// All X.509-SVIDs of a process, with the bundles.
pub(crate) struct X509Svids;

#[async_trait]
impl Question for X509Svids {
    type Message = X509svidResponse;

    fn peek(api: &Api, workload: &Workload, entries: &[Arc<Entry>]) -> Option<Answer<X509svidResponse>> {
        let held = entries.iter().map(|entry| Some((Arc::clone(entry), api.held.peek(workload, entry)?)));
        Some(answer(api, &held.collect::<Option<Vec<_>>>()?))
    }

    async fn answer(
        api: &Api,
        workload: &Workload,
        entries: &[Arc<Entry>],
    ) -> Result<Answer<X509svidResponse>, Refused> {
        let mut held = Vec::new();
        for entry in entries {
            match api.held.x509_svid(workload, entry).await {
                Ok(svid) => held.push((Arc::clone(entry), svid)),
                // The entry has gone meanwhile: what remains is the state.
                Err(SourceError::NotEntitled) => {}
                Err(SourceError::Invalid(why)) => {
                    tracing::error!(entry = %entry.id, why, "no X.509-SVID can be made for an entry");
                    return Err(Refused::Unavailable("an identity of this process cannot be made"));
                }
                Err(SourceError::Unavailable(why)) => return Err(Refused::Unavailable(why)),
            }
        }
        if held.is_empty() {
            return Err(Refused::NotEntitled);
        }
        Ok(answer(api, &held))
    }
}

fn answer(api: &Api, held: &[(Arc<Entry>, Arc<HeldSvid>)]) -> Answer<X509svidResponse> {
    let bundles = api.bundled.now(api.source.as_ref());
    let entries = || held.iter().map(|(entry, _)| entry.as_ref());
    let svids = held.iter().zip(unique_hints(entries())).map(|((entry, svid), hint)| X509svid {
        spiffe_id: entry.spiffe_id.to_string(),
        x509_svid: svid.chain.clone(),
        x509_svid_key: svid.private_key.clone(),
        bundle: bundles.own.x509.clone(),
        hint,
    });
    let federated = bundles.federated_with(entries()).map(|one| (one.id.clone(), one.x509.clone()));
    Answer {
        message: X509svidResponse {
            svids: svids.collect(),
            crl: Vec::new(),
            federated_bundles: federated.collect(),
        },
        renew_at_seconds: held.iter().map(|(_, svid)| svid.renew_at_seconds).min(),
        good_until_seconds: held.iter().map(|(_, svid)| svid.not_after_seconds).min(),
    }
}
