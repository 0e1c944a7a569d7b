use super::*;
use crate::backends::fake_https::{Answer, Authority, FakeHttps, json};
use PodAnswer::{Known as Found, NotAsked, Unknown};
use deputize_issuer::clock::TestClock;
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

const UID: &str = "2c48913c-b29f-4fe1-8a2f-9d6f2c0ab123";
const ID: &str = "8f0e5f5f0a2c4e3d9b1a7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f";

/// A kubelet, and who asks it.
struct Setting {
    authority: Authority,
    server: FakeHttps,
    clock: Arc<TestClock>,
    folder: TempDir,
}

impl Setting {
    async fn new() -> Self {
        let authority = Authority::new();
        let (server, _) = authority.server("127.0.0.1").await;
        let folder = tempfile::tempdir().unwrap();
        let setting = Self { authority, server, clock: Arc::new(TestClock::at_seconds(1)), folder };
        setting.token("first\n");
        setting.pods(&json!([pod(UID, ID)]));
        setting
    }

    fn token(&self, text: &str) {
        std::fs::write(self.token_file(), text).unwrap();
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    fn pods(&self, items: &Value) {
        self.server.answers(json(200, &list(items)));
    }

    fn access(&self) -> KubeletAccess {
        KubeletAccess {
            pods: format!("https://{}/pods", self.server.address).parse().unwrap(),
            trust: KubeletTrust::Authority(self.authority.file().to_owned()),
            token_file: self.token_file(),
        }
    }

    fn kubelet(&self) -> Kubelet {
        self.kubelet_by(self.access())
    }

    fn kubelet_by(&self, access: KubeletAccess) -> Kubelet {
        let patience = (Arc::clone(&self.clock) as Arc<dyn Clock>, Duration::from_secs(30));
        Kubelet::assemble(access, &node("kubernetes/prod/worker-1/0b1c"), patience).unwrap()
    }
}

fn node(name: &str) -> SpiffeId {
    format!("spiffe://example.org/deputize/node/{name}").parse().unwrap()
}

fn list(items: &Value) -> String {
    json!({ "kind": "PodList", "apiVersion": "v1", "items": items }).to_string()
}

fn pod(uid: &str, id: &str) -> Value {
    json!({
        "metadata": { "uid": uid, "name": "ledger-0", "namespace": "payments" },
        "spec": { "serviceAccountName": "ledger", "nodeName": "worker-1" },
        "status": { "containerStatuses": [{ "name": "main", "containerID": format!("containerd://{id}") }] },
    })
}

fn is_known(answer: &PodAnswer) -> bool {
    matches!(answer, Found(_))
}

/// The constant word for why nothing is known.
fn trouble(kubelet: &Kubelet) -> Option<&'static str> {
    kubelet.0.trouble.lock().unwrap().as_ref().map(KubeletError::reason)
}

#[tokio::test]
async fn a_pod_is_told_by_its_uid_and_its_container_together() {
    let setting = Setting::new().await;
    let kubelet = setting.kubelet();
    let Found(found) = kubelet.pod(Some(UID), ID).await else { panic!("it is known") };
    assert_eq!((found.pod.namespace.as_str(), found.pod.service_account.as_str()), ("payments", "ledger"));
    assert_eq!(kubelet.pod(None, ID).await, Found(found), "the kernel told no pod");
    let asked = setting.server.asked();
    assert_eq!(asked.len(), 1, "what was said is remembered");
    assert!(asked[0].starts_with("GET /pods HTTP/1.1\r\n"), "{asked:?}");
    assert!(asked[0].contains("authorization: Bearer first\r\n"), "{asked:?}");
    let (other_uid, other_id) = (UID.replace('2', "3"), ID.replace('8', "9"));
    for (uid, id, answer) in [
        (Some(other_uid.as_str()), ID, NotAsked),
        (Some(UID), other_id.as_str(), Unknown),
        (None, other_id.as_str(), Unknown),
    ] {
        setting.clock.advance(NOT_ASKED_AGAIN_FOR);
        assert_eq!(kubelet.pod(uid, id).await, answer, "{uid:?} {id}");
    }
    assert_eq!(trouble(&kubelet), None);
}

#[tokio::test]
async fn what_it_said_is_good_for_seconds_and_what_it_did_not_say_for_one() {
    let setting = Setting::new().await;
    let kubelet = setting.kubelet();
    let late = ID.replace('8', "9");
    assert_eq!(kubelet.pod(Some(UID), &late).await, Unknown);
    setting.pods(&json!([pod(UID, ID), pod("0b1c", &late)]));
    assert_eq!(kubelet.pod(Some("0b1c"), &late).await, NotAsked, "not asked again at once");
    assert_eq!(setting.server.asked().len(), 1);
    setting.clock.advance(NOT_ASKED_AGAIN_FOR);
    assert!(is_known(&kubelet.pod(Some("0b1c"), &late).await), "a pod that has just begun");
    assert_eq!(setting.server.asked().len(), 2);
    setting.pods(&json!([]));
    setting.clock.advance(GOOD_FOR - Duration::from_millis(1));
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
    setting.clock.advance(Duration::from_millis(1));
    assert_eq!(kubelet.pod(Some(UID), ID).await, NotAsked, "it is gone, or not heard of yet");
    assert_eq!(setting.server.asked().len(), 3);
}

#[tokio::test]
async fn a_list_that_lacks_a_pod_does_not_say_that_it_is_not_here() {
    let setting = Setting::new().await;
    let kubelet = setting.kubelet();
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
    let other_id = ID.replace('8', "9");
    let of_the_node = pod("0b1c", &other_id);
    let mut not_begun = of_the_node.clone();
    not_begun["status"] = json!({});
    // As it is until a kubelet that was started again hears of the API server's pods.
    for (pods, without_uid) in
        [(json!([]), NotAsked), (json!([not_begun]), NotAsked), (json!([of_the_node]), Unknown)]
    {
        setting.pods(&pods);
        setting.clock.advance(GOOD_FOR);
        assert_eq!(kubelet.pod(Some(UID), ID).await, NotAsked, "{pods}");
        assert_eq!(kubelet.pod(None, ID).await, without_uid, "{pods}");
        assert_eq!(trouble(&kubelet), None, "{pods}");
    }
    let mut odd = pod(UID, ID);
    odd["metadata"]["name"] = json!(7);
    for known in [pod(UID, &other_id), odd] {
        setting.pods(&json!([known]));
        setting.clock.advance(GOOD_FOR);
        assert_eq!(kubelet.pod(Some(UID), ID).await, Unknown, "{known}: its pod is here, and has it not");
    }
    setting.pods(&json!([pod(UID, ID)]));
    setting.clock.advance(GOOD_FOR);
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
}

#[tokio::test]
async fn many_who_ask_at_once_are_one_question() {
    let setting = Setting::new().await;
    let kubelet = Arc::new(setting.kubelet());
    let mut asking = tokio::task::JoinSet::new();
    for at in 0..50 {
        let kubelet = Arc::clone(&kubelet);
        let id = if at % 2 == 0 { ID.to_owned() } else { format!("{at:064x}") };
        asking.spawn(async move { is_known(&kubelet.pod(Some(UID), &id).await) });
    }
    let found = asking.join_all().await;
    assert_eq!(found.iter().filter(|found| **found).count(), 25);
    assert_eq!(setting.server.asked().len(), 1);
}

#[tokio::test]
async fn who_waits_no_longer_keeps_nobody_from_the_answer() {
    let setting = Setting::new().await;
    let kubelet = setting.kubelet();
    {
        let mut impatient = std::pin::pin!(kubelet.pod(Some(UID), ID));
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(impatient.as_mut().poll(context))).await;
        assert!(polled.is_pending());
    }
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
    assert_eq!(setting.server.asked().len(), 1);
}

#[tokio::test]
async fn who_asks_for_what_is_known_waits_for_nobody() {
    let setting = Setting::new().await;
    let kubelet = setting.kubelet();
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
    setting.server.answers(Answer::Stuck(Vec::new()));
    setting.clock.advance(NOT_ASKED_AGAIN_FOR);
    let other = ID.replace('8', "9");
    let mut waiting = std::pin::pin!(kubelet.pod(Some(UID), &other));
    let polled = std::future::poll_fn(|context| std::task::Poll::Ready(waiting.as_mut().poll(context))).await;
    assert!(polled.is_pending(), "somebody's container that nobody knows");
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
}

#[tokio::test]
async fn large_pods_and_odd_ones_take_nothing_from_others() {
    let setting = Setting::new().await;
    let kubelet = setting.kubelet();
    let others = |change: &dyn Fn(&mut Value)| {
        let mut other = pod(&UID.replace('2', "3"), &ID.replace('8', "9"));
        change(&mut other);
        other
    };
    let large = others(&|it| it["spec"]["containers"] = json!([{ "env": "x".repeat(1_400_000) }]));
    let larger = others(&|it| it["spec"]["containers"] = json!([{ "env": "x".repeat(5_000_000) }]));
    let odd = others(&|it| it["metadata"]["uid"] = json!(""));
    let mut deep = others(&|it| it["metadata"]["managedFields"] = json!("deep")).to_string();
    deep = deep.replace("\"deep\"", &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)));
    let items: Vec<String> = std::iter::repeat_n(large.to_string(), 12)
        .chain([larger.to_string(), odd.to_string(), deep, pod(UID, ID).to_string()])
        .collect();
    setting.server.answers(json(
        200,
        &list(&json!("items")).replace("\"items\":\"items\"", &format!("\"items\":[{}]", items.join(","))),
    ));
    assert!(is_known(&kubelet.pod(Some(UID), ID).await), "{:?}", kubelet.trouble());
    assert_eq!(kubelet.trouble(), None);
    let known = kubelet.0.known.lock().unwrap();
    assert_eq!(known.pods.left_out(), 2, "one that is too large, one without a UID");
}

#[tokio::test]
async fn a_token_that_is_renewed_is_shown_from_then_on_and_one_that_cannot_be_read_is_none() {
    let setting = Setting::new().await;
    let kubelet = setting.kubelet();
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
    setting.token("second");
    setting.clock.advance(GOOD_FOR);
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
    assert!(setting.server.asked()[1].contains("authorization: Bearer second\r\n"));
    for text in ["", "\n", "two words", "a\nb: c", &"a".repeat(MAX_TOKEN_BYTES)] {
        setting.token(text);
        setting.clock.advance(GOOD_FOR);
        assert_eq!(kubelet.pod(Some(UID), ID).await, NotAsked, "{text:?}");
        assert_eq!(trouble(&kubelet), Some("token"), "{text:?}");
    }
    std::fs::remove_file(setting.token_file()).unwrap();
    setting.clock.advance(GOOD_FOR);
    assert_eq!(kubelet.pod(Some(UID), ID).await, NotAsked);
    assert_eq!(setting.server.asked().len(), 2, "without a token it is not asked");
    setting.token("third");
    setting.clock.advance(GOOD_FOR);
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
    assert_eq!(kubelet.trouble(), None);
}

#[tokio::test]
async fn what_is_no_answer_tells_of_no_pod_and_says_why() {
    let setting = Setting::new().await;
    let kubelet = setting.kubelet();
    let good = list(&json!([pod(UID, ID)]));
    let head = "HTTP/1.1 200 X\r\ncontent-type: application/json\r\n";
    let redirect = format!(
        "HTTP/1.1 307 X\r\nlocation: https://{}/pods\r\ncontent-length: 0\r\n\r\n",
        setting.server.address
    );
    let gzip = format!("{head}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n{good}", good.len());
    let mut elsewhere = pod(UID, ID);
    elsewhere["spec"]["nodeName"] = "worker-2".into();
    for (answer, reason) in [
        (json(401, &good), "unauthenticated"),
        (json(403, &good), "forbidden"),
        (json(500, &good), "status"),
        (json(404, &good), "status"),
        (json(204, ""), "status"),
        (Answer::Bytes(redirect.into_bytes()), "status"),
        (Answer::Bytes(gzip.into_bytes()), "media_type"),
        (json(200, "<html>"), "malformed"),
        (json(200, ""), "malformed"),
        (json(200, &good[..good.len() - 1]), "malformed"),
        (json(200, &good.replace("PodList", "Status")), "malformed"),
        (json(200, &list(&json!([elsewhere]))), "another_node"),
        (Answer::Bytes(format!("{head}content-length: 9999\r\n\r\n{good}").into_bytes()), "transport"),
        (Answer::Bytes(b"SSH-2.0-x\r\n".to_vec()), "transport"),
        (Answer::Bytes(Vec::new()), "transport"),
        (Answer::Endless(format!("{head}\r\n").into_bytes()), "too_large"),
    ] {
        setting.server.answers(answer);
        setting.clock.advance(GOOD_FOR);
        let before = setting.server.asked().len();
        assert_eq!(kubelet.pod(Some(UID), ID).await, NotAsked, "{reason}");
        assert_eq!(trouble(&kubelet), Some(reason));
        assert!(kubelet.trouble().unwrap().starts_with("kubelet not reachable: "));
        assert_eq!(kubelet.pod(Some(UID), ID).await, NotAsked, "{reason}: nor to the next one");
        assert_eq!(setting.server.asked().len(), before + 1, "{reason}: nothing is followed or tried again");
    }
    setting.pods(&json!([pod(UID, ID)]));
    setting.clock.advance(NOT_ASKED_AGAIN_FOR);
    assert!(is_known(&kubelet.pod(Some(UID), ID).await), "and then it answers again");
    assert_eq!(kubelet.trouble(), None);
}

#[tokio::test]
async fn a_failure_ends_what_was_known_no_sooner_than_its_time() {
    let setting = Setting::new().await;
    let kubelet = setting.kubelet();
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
    setting.server.answers(json(500, ""));
    setting.clock.advance(NOT_ASKED_AGAIN_FOR);
    assert_eq!(kubelet.pod(Some(UID), &ID.replace('8', "9")).await, NotAsked);
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
    setting.clock.advance(GOOD_FOR);
    assert_eq!(kubelet.pod(Some(UID), ID).await, NotAsked);
}

#[tokio::test]
async fn who_answers_too_slowly_is_waited_for_no_longer() {
    let setting = Setting::new().await;
    let head = "HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    for answer in [Answer::Stuck(Vec::new()), Answer::Stuck(head.as_bytes().to_vec())] {
        setting.server.answers(answer);
        let patience = (Arc::clone(&setting.clock) as Arc<dyn Clock>, Duration::from_millis(300));
        let kubelet = Kubelet::assemble(setting.access(), &node("edge-1"), patience).unwrap();
        assert_eq!(kubelet.pod(Some(UID), ID).await, NotAsked);
        assert_eq!(trouble(&kubelet), Some("timeout"));
    }
    assert!(
        TIMEOUT > Duration::from_secs(5),
        "whoever looks at a process waits for one second, and not for all of it"
    );
}

#[tokio::test]
async fn who_is_not_vouched_for_is_asked_nothing() {
    let setting = Setting::new().await;
    let stranger = Authority::new();
    let (other_name, _) = setting.authority.server("worker-2").await;
    let wrong_authority = KubeletTrust::Authority(stranger.file().to_owned());
    for access in [
        KubeletAccess { trust: wrong_authority, ..setting.access() },
        KubeletAccess {
            pods: format!("https://{}/pods", other_name.address).parse().unwrap(),
            ..setting.access()
        },
    ] {
        let kubelet = setting.kubelet_by(access);
        assert_eq!(kubelet.pod(Some(UID), ID).await, NotAsked);
        assert_eq!(trouble(&kubelet), Some("transport"));
    }
    assert!(setting.server.asked().is_empty() && other_name.asked().is_empty(), "no token went out");
}

#[tokio::test]
async fn a_certificate_that_is_named_is_taken_and_no_other() {
    let setting = Setting::new().await;
    // As kubelets sign them: for the name of the node, which is not asked by that.
    let (server, pem) = FakeHttps::self_signed("worker-1").await;
    server.answers(json(200, &list(&json!([pod(UID, ID)]))));
    let (other, _) = FakeHttps::self_signed("worker-1").await;
    let file = setting.folder.path().join("kubelet.crt");
    std::fs::write(&file, &pem).unwrap();
    let access = |server: &FakeHttps| KubeletAccess {
        pods: format!("https://{}/pods", server.address).parse().unwrap(),
        trust: KubeletTrust::Certificate(file.clone()),
        ..setting.access()
    };
    let kubelet = setting.kubelet_by(access(&server));
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
    let kubelet_of_other = setting.kubelet_by(access(&other));
    assert_eq!(kubelet_of_other.pod(Some(UID), ID).await, NotAsked);
    assert_eq!(trouble(&kubelet_of_other), Some("transport"));
    assert!(other.asked().is_empty());
    // The kubelet has another one from now on, and so has the file.
    let (_, renewed) = FakeHttps::self_signed("worker-1").await;
    std::fs::write(&file, renewed).unwrap();
    setting.clock.advance(GOOD_FOR);
    assert_eq!(kubelet.pod(Some(UID), ID).await, NotAsked, "the file is read anew");
    std::fs::write(&file, pem).unwrap();
    setting.clock.advance(GOOD_FOR);
    assert!(is_known(&kubelet.pod(Some(UID), ID).await));
}

#[tokio::test]
async fn what_vouches_for_it_must_be_there_from_the_beginning() {
    let setting = Setting::new().await;
    let (empty, missing) = (setting.folder.path().join("empty"), PathBuf::from("/nonexistent.pem"));
    std::fs::write(&empty, "").unwrap();
    for file in [empty, missing] {
        for trust in [KubeletTrust::Authority(file.clone()), KubeletTrust::Certificate(file.clone())] {
            let access = KubeletAccess { trust, ..setting.access() };
            let made = Kubelet::new(access, &node("edge-1"), Arc::clone(&setting.clock) as _);
            assert!(matches!(made, Err(KubeletError::Fetch(FetchError::Setup(_)))));
        }
    }
    for url in ["http://127.0.0.1:10250/pods", "https://169.254.169.254/pods", "https://user@10.0.0.7/pods"] {
        let access = KubeletAccess { pods: url.parse().unwrap(), ..setting.access() };
        assert!(Kubelet::new(access, &node("edge-1"), Arc::clone(&setting.clock) as _).is_err(), "{url}");
    }
}

#[test]
fn the_cluster_s_name_of_a_node_stands_in_its_id() {
    assert_eq!(node_name(&node("kubernetes/prod/worker-1/0b1c")).as_deref(), Some("worker-1"));
    for other in ["edge-1", "x509pop/ab", "kubernetes/prod/worker-1", "kubernetes/prod/worker-1/0b1c/more"] {
        assert_eq!(node_name(&node(other)), None, "{other}");
    }
}
