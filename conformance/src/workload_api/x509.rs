//! The X.509-SVID profile (SPIFFE Workload API §5, X509-SVID).

use super::{
    certificate::{certificates, examine_leaf, examine_signer, fits, validate_path},
    client::{Answers, Connection, Ended},
    findings::Findings,
    messages::{Nothing, X509BundlesResponse, X509Svid, X509SvidResponse},
    spiffe_id,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

/// What the X.509 profile told.
#[derive(Default)]
pub(super) struct Told {
    /// The SPIFFE IDs of the SVIDs.
    pub(super) ids: BTreeSet<String>,
    /// The trust domains of those.
    pub(super) domains: BTreeSet<String>,
}

/// Looks at FetchX509SVID: its first message, one on a second stream, and what comes while it is watched.
pub(super) async fn examine_svids(
    findings: &mut Findings,
    connection: &Connection,
    watch: Duration,
    now_seconds: u64,
    mut told: Told,
) -> Told {
    let stream = connection.ask::<X509SvidResponse>("FetchX509SVID", Some("true"), &Nothing {}).await;
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(ended) => return not_there(findings, &ended, told),
    };
    findings.holds("WLEP-3-1", stream.is_grpc, "the answer is not of the media type of gRPC");
    let first = match stream.next().await {
        Ok(Some(first)) => first,
        Ok(None) => return not_there(findings, &Ended::Broken("ended without a message".to_owned()), told),
        Err(ended) => return not_there(findings, &ended, told),
    };
    findings.check("WLAPI-4.3-1", Ok(()));
    examine_response(findings, &first, now_seconds, &mut told);
    match connection.first::<X509SvidResponse>("FetchX509SVID", Some("true")).await {
        Ok(second) => {
            let same = state(&second) == state(&first);
            findings.holds("WLAPI-4.3-2", same, "a second stream of FetchX509SVID tells something else");
        }
        Err(ended) => findings.check("WLAPI-4.3-2", Err(format!("a second stream: {ended}"))),
    }
    watch_stream(findings, stream, first, watch).await;
    told
}

fn not_there(findings: &mut Findings, ended: &Ended, told: Told) -> Told {
    findings.check("WLAPI-5.2.1-1", Err(ended.to_string()));
    findings.check("WLAPI-4.3-1", Err(ended.to_string()));
    told
}

async fn watch_stream(
    findings: &mut Findings,
    mut stream: Answers<X509SvidResponse>,
    mut before: X509SvidResponse,
    watch: Duration,
) {
    let until = tokio::time::Instant::now() + watch;
    loop {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        match stream.next_within(left).await {
            Ok(Some(next)) => {
                let changed = next != before;
                findings.holds("WLAPI-4.3-3", changed, "the same state came twice on one stream");
                findings.holds("WLAPI-5.2.1-1", !next.svids.is_empty(), "a later message is empty");
                before = next;
            }
            Err(Ended::Silent) => return findings.check("WLAPI-4.3-3", Ok(())),
            // SPIFFE Workload API §4.2: either side may end a connection at any time.
            Ok(None) | Err(_) => return,
        }
    }
}

/// Hint and bundle by SPIFFE ID, and the foreign bundles.
type State<'a> = (BTreeMap<&'a str, (&'a str, &'a [u8])>, &'a HashMap<String, Vec<u8>>);

/// What is to be the same whenever it is told: not the SVIDs themselves, which may be new each time.
fn state(response: &X509SvidResponse) -> State<'_> {
    let svids = response.svids.iter();
    let svids =
        svids.map(|svid| (svid.spiffe_id.as_str(), (svid.hint.as_str(), svid.bundle.as_slice()))).collect();
    (svids, &response.federated_bundles)
}

fn examine_response(findings: &mut Findings, response: &X509SvidResponse, now_seconds: u64, told: &mut Told) {
    findings.holds("WLAPI-5.2.1-1", !response.svids.is_empty(), "the list is empty");
    let hints = response.svids.iter().map(|svid| svid.hint.as_str());
    findings.holds("WLAPI-5.2.1-3", no_repetition(hints), "a hint stands twice");
    for svid in &response.svids {
        examine_svid(findings, svid, now_seconds, told);
    }
    for (domain, bundle) in &response.federated_bundles {
        let own = told.domains.contains(spiffe_id::trust_domain(domain));
        let outcome = if own {
            Err(format!("{domain} is ours, and among the foreign ones"))
        } else {
            is_bundle_of(domain, bundle)
        };
        findings.check("WLAPI-5.2.1-7", outcome);
    }
    for list in &response.crl {
        let whole = CertificateRevocationList::from_der(list).is_ok_and(|(rest, _)| rest.is_empty());
        findings.holds("WLAPI-5.2.1-8", whole, "not a DER revocation list");
    }
}

fn examine_svid(findings: &mut Findings, svid: &X509Svid, now_seconds: u64, told: &mut Told) {
    let X509Svid { spiffe_id: id, x509_svid, x509_svid_key, bundle, .. } = svid;
    let whole =
        ![id.is_empty(), x509_svid.is_empty(), x509_svid_key.is_empty(), bundle.is_empty()].contains(&true);
    findings.holds("WLAPI-5.2.1-2", whole, format!("a field of {id:?} is empty"));
    told.ids.insert(id.clone());
    let domain = spiffe_id::trust_domain(id);
    told.domains.insert(domain.to_owned());
    let chain = certificates(x509_svid).unwrap_or_default();
    let Some((leaf, between)) = chain.split_first() else {
        findings.check("WLAPI-5.2.1-4", Err(format!("{id}: no DER certificates")));
        return;
    };
    findings.holds("WLAPI-5.2.1-4", !leaf.is_ca(), format!("{id}: a CA comes first"));
    let inside = examine_leaf(findings, leaf);
    findings.holds("WLAPI-5.2.1-5", inside.as_ref() == Some(id), format!("{id}: inside is {inside:?}"));
    findings.check("WLAPI-5.2.1-6", fits(leaf, x509_svid_key).map_err(|why| format!("{id}: {why}")));
    match certificates(bundle) {
        Err(why) => findings.check("WLAPI-5.2.1-7", Err(format!("{id}: {why}"))),
        Ok(authorities) => {
            findings.check("WLAPI-5.2.1-7", Ok(()));
            for signer in between.iter().chain(&authorities) {
                examine_signer(findings, signer, domain);
            }
            let path = validate_path(&chain, &authorities, now_seconds);
            findings.check("X509SVID-5.1-1", path.map_err(|why| format!("{id}: {why}")));
        }
    }
}

/// Looks at FetchX509Bundles beside what FetchX509SVID told.
pub(super) async fn examine_bundles(findings: &mut Findings, connection: &Connection, told: &Told) {
    let bundles = connection.first::<X509BundlesResponse>("FetchX509Bundles", Some("true")).await;
    let svids = connection.first::<X509SvidResponse>("FetchX509SVID", Some("true")).await;
    let (bundles, svids) = match (bundles, svids) {
        (Ok(bundles), Ok(svids)) => (bundles.bundles, svids.svids),
        (Err(ended), _) => return findings.check("WLAPI-5.2.2-1", Err(ended.to_string())),
        (Ok(_), Err(_)) => return, // That is FetchX509SVID's fault, and noted there.
    };
    for domain in &told.domains {
        let own = bundles.contains_key(&format!("spiffe://{domain}"));
        findings.holds("WLAPI-5.2.2-1", own, format!("no bundle of {domain}"));
    }
    for (domain, bundle) in &bundles {
        findings.check("WLAPI-5.2.1-7", is_bundle_of(domain, bundle));
    }
    for svid in &svids {
        let domain = format!("spiffe://{}", spiffe_id::trust_domain(&svid.spiffe_id));
        let same = bundles.get(&domain).is_none_or(|bundle| *bundle == svid.bundle);
        findings.holds("WLAPI-5.2.2-2", same, format!("the two bundles of {domain} differ"));
    }
}

fn is_bundle_of(domain: &str, bundle: &[u8]) -> Result<(), String> {
    if !spiffe_id::is_of_trust_domain(domain) {
        return Err(format!("{domain:?} is not the SPIFFE ID of a trust domain"));
    }
    certificates(bundle).map(drop).map_err(|why| format!("{domain}: {why}"))
}

/// Whether no hint but the empty one stands twice (SPIFFE Workload API §5.2.1, §6.2.1).
pub(super) fn no_repetition<'a>(hints: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = BTreeSet::new();
    hints.filter(|hint| !hint.is_empty()).all(|hint| seen.insert(hint))
}
