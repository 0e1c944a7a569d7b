use super::*;
use crate::fakes::{FakeSource, entry};
use deputize_issuer::{clock::TestClock, workload::Selector};
use spiffe::TrustDomain;
use std::{collections::BTreeSet, time::Duration};

const NODE: &str = "spiffe://example.org/node";

struct Setting {
    clock: Arc<TestClock>,
    source: Arc<FakeSource>,
    held: Arc<Held>,
    workload: Workload,
    entry: Entry,
}

fn setting() -> Setting {
    let clock = Arc::new(TestClock::at_seconds(1_000_000));
    let domain = TrustDomain::new("example.org").unwrap();
    let source = Arc::new(FakeSource::new(domain, Arc::clone(&clock) as Arc<dyn Clock>).unwrap());
    let entry = entry("web", "spiffe://example.org/web", NODE, 7).unwrap();
    source.set_entries(vec![entry.clone()]);
    let held = Arc::new(Held::new(Arc::clone(&source) as _, Arc::clone(&clock) as _));
    let selectors = BTreeSet::from([Selector::new("unix", "uid:7").unwrap()]);
    let workload = Workload::attested(SpiffeId::new(NODE).unwrap(), selectors);
    Setting { clock, source, held, workload, entry }
}

impl Setting {
    async fn key(&self) -> Result<Bytes, SourceError> {
        self.held.x509_svid(&self.workload, &self.entry).await.map(|svid| svid.private_key.clone())
    }
}

#[tokio::test]
async fn however_many_ask_one_is_made() {
    let set = Arc::new(setting());
    let askers: Vec<_> = (0..100)
        .map(|_| {
            let set = Arc::clone(&set);
            tokio::spawn(async move { set.key().await.unwrap() })
        })
        .collect();
    for asker in askers {
        assert_eq!(asker.await.unwrap(), "key 1");
    }
    assert_eq!(set.source.made(), 1);
    assert!(set.held.peek(&set.workload, &set.entry).is_some());
}

#[tokio::test]
async fn what_was_begun_is_there_for_the_next_though_nobody_waited_for_it() {
    let set = Arc::new(setting());
    let asker = Arc::clone(&set);
    let asker = tokio::spawn(async move { asker.key().await });
    tokio::task::yield_now().await;
    asker.abort();
    assert!(asker.await.unwrap_err().is_cancelled(), "it went away before the answer");
    for _ in 0..1000 {
        if set.held.peek(&set.workload, &set.entry).is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(set.source.made(), 1);
    assert_eq!(set.key().await.unwrap(), "key 1");
}

#[tokio::test]
async fn it_is_renewed_at_about_half_its_life() {
    let set = setting();
    let svid = set.held.x509_svid(&set.workload, &set.entry).await.unwrap();
    let half_seconds = svid.renew_at_seconds - set.clock.now_seconds();
    assert!((1620..=1980).contains(&half_seconds), "{half_seconds}");
    set.clock.advance(Duration::from_secs(half_seconds - 1));
    assert_eq!(set.key().await.unwrap(), "key 1");
    set.clock.advance(Duration::from_secs(1));
    assert!(set.held.peek(&set.workload, &set.entry).is_none());
    assert_eq!(set.key().await.unwrap(), "key 2");
}

#[test]
fn what_is_made_together_is_not_renewed_together() {
    let times: BTreeSet<u64> = (0..100_u8).map(|leaf| half(3600, &[leaf])).collect();
    assert!(times.len() > 50, "{times:?}");
    assert!(times.iter().all(|time| (1620..=1980).contains(time)), "{times:?}");
    assert_eq!(half(0, b""), 1);
}

#[tokio::test]
async fn a_tainted_authority_or_other_terms_have_a_new_one_made_at_once() {
    let mut set = setting();
    assert_eq!(set.key().await.unwrap(), "key 1");
    set.source.taint();
    assert_eq!(set.key().await.unwrap(), "key 2");
    assert_eq!(set.key().await.unwrap(), "key 2", "under the new authority");
    set.entry.dns_names = vec!["web.example.org".into()];
    set.source.set_entries(vec![set.entry.clone()]);
    assert_eq!(set.key().await.unwrap(), "key 3");
    set.entry.hint = "internal".into();
    set.source.set_entries(vec![set.entry.clone()]);
    assert_eq!(set.key().await.unwrap(), "key 3", "no hint is in a certificate");
}

#[tokio::test]
async fn while_none_can_be_made_the_old_one_serves_as_long_as_it_is_good() {
    let set = setting();
    let away = SourceError::Unavailable("away");
    assert_eq!(set.key().await.unwrap(), "key 1");
    set.source.set_failure(Some(away.clone()));
    set.clock.advance(Duration::from_secs(2000));
    assert_eq!(set.key().await.unwrap(), "key 1");
    set.source.set_failure(None);
    assert_eq!(set.key().await.unwrap(), "key 1", "not asked again so soon");
    set.clock.advance(Duration::from_secs(RETRY_SECONDS));
    assert_eq!(set.key().await.unwrap(), "key 2");
    set.source.set_failure(Some(away.clone()));
    set.clock.advance(Duration::from_secs(3600));
    assert_eq!(set.key().await.unwrap_err(), away, "it has ended");
}

#[tokio::test]
async fn a_tainted_one_does_not_serve_though_none_can_be_made() {
    let set = setting();
    assert_eq!(set.key().await.unwrap(), "key 1");
    set.source.set_failure(Some(SourceError::Unavailable("away")));
    set.source.taint();
    assert!(set.key().await.is_err());
}

#[tokio::test]
async fn whoever_is_no_longer_entitled_gets_none() {
    let set = setting();
    set.source.set_entries(Vec::new());
    assert_eq!(set.key().await.unwrap_err(), SourceError::NotEntitled);
    set.source.set_entries(vec![set.entry.clone()]);
    assert_eq!(set.key().await.unwrap(), "key 1", "and whoever is again, at once");
}

#[tokio::test]
async fn identities_of_one_entry_are_kept_apart() {
    let mut set = setting();
    let first = set.entry.clone();
    set.entry.spiffe_id = SpiffeId::new("spiffe://example.org/other").unwrap();
    set.source.set_entries(vec![first.clone(), set.entry.clone()]);
    assert_eq!(set.key().await.unwrap(), "key 1");
    set.entry = first;
    assert_eq!(set.key().await.unwrap(), "key 2");
}

#[tokio::test]
async fn what_nobody_uses_is_forgotten_and_what_somebody_looks_at_is_not() {
    let set = setting();
    let other = entry("other", "spiffe://example.org/other", NODE, 7).unwrap();
    set.source.set_entries(vec![set.entry.clone(), other.clone()]);
    set.key().await.unwrap();
    set.held.x509_svid(&set.workload, &other).await.unwrap();
    for _ in 0..20 {
        set.clock.advance(Duration::from_secs(60));
        set.held.peek(&set.workload, &set.entry);
    }
    set.held.lock().sweep(set.clock.now_seconds());
    assert_eq!(set.held.lock().slots.len(), 1);
    assert_eq!(set.key().await.unwrap(), "key 1");
}
