use super::*;
use crate::{
    fakes::{FakeProcess, FakeSource, entry},
    held::Held,
    peer::NotAttested,
    proto::X509svidResponse,
    room::{Kind, Limits, Room},
    rpc::{
        bundles::{JwtBundles, X509Bundles},
        x509::X509Svids,
    },
    source::SourceError,
};
use deputize_issuer::clock::{Clock, TestClock};
use spiffe::{SpiffeId, TrustDomain};
use tokio_stream::StreamExt as _;
use tonic::Code;

const NODE: &str = "spiffe://example.org/node";

struct Setting {
    clock: Arc<TestClock>,
    source: Arc<FakeSource>,
    process: Arc<FakeProcess>,
    api: Arc<Api>,
    stop: channel::Sender<bool>,
}

fn setting() -> Setting {
    let clock = Arc::new(TestClock::at_seconds(1_000_000));
    let domain = TrustDomain::new("example.org").unwrap();
    let source = Arc::new(FakeSource::new(domain, Arc::clone(&clock) as Arc<dyn Clock>).unwrap());
    source.set_entries(vec![entry("web", "spiffe://example.org/web", NODE, 7).unwrap()]);
    let api = Arc::new(Api {
        source: Arc::clone(&source) as _,
        clock: Arc::clone(&clock) as _,
        held: Arc::new(Held::new(Arc::clone(&source) as _, Arc::clone(&clock) as _)),
        bundled: Default::default(),
        room: Room::new(Limits::default(), Arc::clone(&clock) as _),
    });
    let process = Arc::new(FakeProcess::new(SpiffeId::new(NODE).unwrap(), 7));
    Setting { clock, source, process, api, stop: channel::Sender::new(false) }
}

impl Setting {
    async fn watch<Q: Question>(&self) -> Watch<Q> {
        let process = Arc::clone(&self.process) as _;
        let caller = Caller { process, stop: self.stop.subscribe(), known: Default::default() };
        Watch::begin(&self.api, caller).await.unwrap()
    }
}

fn key(state: Option<Result<X509svidResponse, Answered>>) -> String {
    let state = state.unwrap().unwrap();
    String::from_utf8(state.svids[0].x509_svid_key.to_vec()).unwrap()
}

/// Whether nothing comes for so many seconds of tokio's time.
async fn is_silent<Q: Question>(watch: &mut Watch<Q>, seconds: u64) -> bool {
    tokio::time::timeout(Duration::from_secs(seconds), watch.next()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn an_svid_is_pushed_when_it_was_renewed() {
    let set = setting();
    let mut watch = set.watch::<X509Svids>().await;
    assert_eq!(key(watch.next().await), "key 1");
    assert!(is_silent(&mut watch, 600).await);
    set.clock.advance(Duration::from_secs(2000));
    assert_eq!(key(watch.next().await), "key 2");
    assert!(is_silent(&mut watch, 600).await);
}

#[tokio::test(start_paused = true)]
async fn the_process_is_looked_at_again_and_again() {
    let set = setting();
    let mut watch = set.watch::<X509Bundles>().await;
    watch.next().await.unwrap().unwrap();
    assert!(is_silent(&mut watch, 600).await);
    let looks = set.process.attested();
    assert!((8..=11).contains(&looks), "{looks}");
    set.process.set_found(Err(NotAttested::Changed("another program")));
    assert_eq!(watch.next().await.unwrap().unwrap_err().code(), Code::PermissionDenied);
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_ends_ends_the_stream() {
    let set = setting();
    let mut ending = entry("web", "spiffe://example.org/web", NODE, 7).unwrap();
    ending.expires_at_seconds = Some(1_000_030);
    set.source.set_entries(vec![ending]);
    let mut watch = set.watch::<X509Svids>().await;
    assert_eq!(key(watch.next().await), "key 1");
    let started = tokio::time::Instant::now();
    set.clock.advance(Duration::from_secs(30));
    assert_eq!(watch.next().await.unwrap().unwrap_err().code(), Code::PermissionDenied);
    assert!(started.elapsed() <= Duration::from_secs(30), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn while_nothing_can_be_made_the_stream_is_silent_until_the_svid_ends() {
    let set = setting();
    let mut watch = set.watch::<X509Svids>().await;
    assert_eq!(key(watch.next().await), "key 1");
    set.source.set_failure(Some(SourceError::Unavailable("away")));
    set.clock.advance(Duration::from_secs(2000));
    assert!(is_silent(&mut watch, 60).await);
    set.source.set_failure(None);
    set.clock.advance(Duration::from_secs(10));
    assert_eq!(key(watch.next().await), "key 2");
    set.source.set_failure(Some(SourceError::Unavailable("away")));
    set.clock.advance(Duration::from_secs(3600));
    assert_eq!(watch.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn while_nobody_can_say_who_the_process_is_the_stream_is_silent_until_the_svid_ends() {
    let set = setting();
    let known = || Workload::attested(SpiffeId::new(NODE).unwrap(), ["unix:uid:7".parse().unwrap()].into());
    let mut svids = set.watch::<X509Svids>().await;
    let mut bundles = set.watch::<X509Bundles>().await;
    assert_eq!(key(svids.next().await), "key 1");
    bundles.next().await.unwrap().unwrap();
    set.process.set_found(Err(NotAttested::Unavailable("the kubelet is away")));
    assert!(is_silent(&mut svids, 600).await && is_silent(&mut bundles, 600).await);
    set.source
        .change_bundles(|bundles| Arc::make_mut(&mut bundles.own).x509_authorities.push(b"new".to_vec()));
    assert!(is_silent(&mut svids, 60).await, "nothing is given to whom nobody knows");
    set.process.set_found(Ok(known()));
    assert_eq!(key(svids.next().await), "key 1", "with the new bundle");
    set.process.set_found(Err(NotAttested::Unavailable("the kubelet is away")));
    set.clock.advance(Duration::from_secs(3600));
    assert_eq!(svids.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
}

/// What a stream ends with, within a quarter of a minute of tokio's time.
async fn end<Q: Question>(watch: &mut Watch<Q>) -> Code {
    let told = tokio::time::timeout(Duration::from_secs(15), watch.next()).await.unwrap();
    match told.unwrap() {
        Ok(_) => panic!("it is told something"),
        Err(refused) => refused.code(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_changes_ends_its_streams_to_whom_nobody_knows_at_present() {
    let set = setting();
    let (mut jwt, mut x509) = (set.watch::<JwtBundles>().await, set.watch::<X509Bundles>().await);
    let mut svids = set.watch::<X509Svids>().await;
    jwt.next().await.unwrap().unwrap();
    x509.next().await.unwrap().unwrap();
    assert_eq!(key(svids.next().await), "key 1");
    set.process.set_found(Err(NotAttested::Unavailable("the kubelet is away")));
    assert!(is_silent(&mut jwt, 600).await && is_silent(&mut x509, 600).await, "nothing has changed");
    set.source.change_bundles(|bundles| Arc::make_mut(&mut bundles.own).jwt_authorities = Default::default());
    assert_eq!(end(&mut jwt).await, Code::Unavailable, "a key was taken away");
    assert!(jwt.next().await.is_none());
    assert!(is_silent(&mut x509, 600).await, "another bundle's change");
    set.source.change_bundles(|bundles| Arc::make_mut(&mut bundles.own).x509_authorities.clear());
    assert_eq!(end(&mut x509).await, Code::Unavailable);
    assert!(is_silent(&mut svids, 600).await, "an SVID ends by itself");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_goes_ends_the_stream_of_whom_nobody_knows_at_present_too() {
    let set = setting();
    let [web, other] =
        ["web", "other"].map(|name| entry(name, &format!("spiffe://example.org/{name}"), NODE, 7).unwrap());
    set.source.set_entries(vec![web.clone(), other]);
    let mut both = set.watch::<X509Svids>().await;
    both.next().await.unwrap().unwrap();
    set.process.set_found(Err(NotAttested::Unavailable("the kubelet is away")));
    set.source.set_entries(vec![web]);
    assert_eq!(both.next().await.unwrap().unwrap_err().code(), Code::Unavailable, "it is told one too many");
    set.process.set_found(Ok(Workload::attested(
        SpiffeId::new(NODE).unwrap(),
        ["unix:uid:7".parse().unwrap()].into(),
    )));
    let mut one = set.watch::<X509Svids>().await;
    one.next().await.unwrap().unwrap();
    set.process.set_found(Err(NotAttested::Unavailable("the kubelet is away")));
    set.source.set_entries(Vec::new());
    assert_eq!(one.next().await.unwrap().unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn a_tainted_authority_is_replaced_though_it_must_be_waited_for() {
    let set = setting();
    let mut watch = set.watch::<X509Svids>().await;
    assert_eq!(key(watch.next().await), "key 1");
    set.source.set_failure(Some(SourceError::Unavailable("away")));
    set.source.taint();
    assert!(is_silent(&mut watch, 30).await);
    set.source.set_failure(None);
    set.clock.advance(Duration::from_secs(10));
    assert_eq!(key(watch.next().await), "key 2");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_is_told_of_a_new_authority_one_after_another_and_of_a_new_entry_at_once() {
    let set = setting();
    let _crowd: Vec<_> = (0..2000).map(|_| set.api.room.enter(7, Kind::Call).unwrap()).collect();
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut watch = set.watch::<X509Bundles>().await;
        watch.next().await.unwrap().unwrap();
        streams.push(watch);
    }
    let started = tokio::time::Instant::now();
    let told = |mut watch: Watch<X509Bundles>| {
        tokio::spawn(async move {
            watch.next().await.unwrap().unwrap();
            (started.elapsed(), watch)
        })
    };
    let waiting: Vec<_> = streams.into_iter().map(told).collect();
    tokio::task::yield_now().await;
    set.source
        .change_bundles(|bundles| Arc::make_mut(&mut bundles.own).x509_authorities.push(b"new".to_vec()));
    let (mut after, mut streams) = (Vec::new(), Vec::new());
    for waiting in waiting {
        let (elapsed, watch) = waiting.await.unwrap();
        after.push(elapsed);
        streams.push(watch);
    }
    after.sort();
    assert!(after[99] <= Duration::from_secs(2), "{:?}", after[99]);
    assert!(after[50] >= Duration::from_millis(500), "spread evenly: {:?}", after[50]);
    let mut watch = set.watch::<X509Svids>().await;
    watch.next().await.unwrap().unwrap();
    let started = tokio::time::Instant::now();
    set.source.set_entries(vec![
        entry("web", "spiffe://example.org/web", NODE, 7).unwrap(),
        entry("db", "spiffe://example.org/db", NODE, 7).unwrap(),
    ]);
    assert_eq!(watch.next().await.unwrap().unwrap().svids.len(), 2);
    assert!(started.elapsed() < Duration::from_millis(10), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_told() {
    let set = setting();
    let mut watch = set.watch::<X509Svids>().await;
    watch.next().await.unwrap().unwrap();
    set.stop.send_replace(true);
    assert_eq!(watch.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert!(watch.next().await.is_none());
}
