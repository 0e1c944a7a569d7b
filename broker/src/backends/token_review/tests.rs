use super::*;
use crate::backends::fake_https::{Answer, Authority, FakeHttps, json};
use deputize_issuer::node::TokenReview as _;
use serde_json::Value;
use tempfile::TempDir;

const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// An API server, and who asks it.
struct Setting {
    authority: Authority,
    server: FakeHttps,
    folder: TempDir,
}

impl Setting {
    async fn new() -> Self {
        let authority = Authority::new();
        let (server, _) = authority.server("127.0.0.1").await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "the-brokers-own\n").unwrap();
        server.answers(json(201, &good().to_string()));
        Self { authority, server, folder }
    }

    fn api(&self) -> ClusterApi {
        self.api_within(Duration::from_secs(30))
    }

    fn api_within(&self, timeout: Duration) -> ClusterApi {
        let url = Url::parse(&format!("https://{}", self.server.address)).unwrap();
        let ca_file = Some(self.authority.file().to_owned());
        ClusterApi::assemble(&url, ca_file, (self.folder.path().join("token"), timeout)).unwrap()
    }
}

fn good() -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": {
            "authenticated": true, "audiences": ["deputize"],
            "user": {
                "username": "system:serviceaccount:deputize:agent", "uid": "1",
                "extra": { NODE_NAME: ["worker-1"] },
            },
        },
    })
}

#[tokio::test]
async fn a_cluster_is_asked_for_a_review_as_the_broker_and_what_it_says_is_what_is_told() {
    let setting = Setting::new().await;
    let review = setting.api().review("the-agents", "deputize").await.unwrap();
    let extra = [(NODE_NAME.to_owned(), vec!["worker-1".to_owned()])].into();
    let expected = Reviewed {
        authenticated: true,
        audiences: vec!["deputize".to_owned()],
        username: "system:serviceaccount:deputize:agent".to_owned(),
        extra,
    };
    assert_eq!(review, expected);
    let asked = setting.server.asked().remove(0);
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /apis/authentication.k8s.io/v1/tokenreviews HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer the-brokers-own\r\n"), "{head}");
    assert!(!head.contains("the-agents"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["spec"], json!({ "token": "the-agents", "audiences": ["deputize"] }));
    assert_eq!((&body["apiVersion"], &body["kind"]), (&good()["apiVersion"], &good()["kind"]));
}

#[tokio::test]
async fn the_broker_shows_the_token_that_it_has_now() {
    let setting = Setting::new().await;
    let api = setting.api();
    api.review("a", "deputize").await.unwrap();
    std::fs::write(setting.folder.path().join("token"), "another").unwrap();
    api.review("a", "deputize").await.unwrap();
    assert!(setting.server.asked()[1].contains("authorization: Bearer another\r\n"));
    std::fs::remove_file(setting.folder.path().join("token")).unwrap();
    assert_eq!(api.review("a", "deputize").await, Err(ReviewFailed));
    assert_eq!(setting.server.asked().len(), 2, "it asks as nobody else");
}

#[tokio::test]
async fn what_a_cluster_says_against_a_token_is_told_as_it_is() {
    let setting = Setting::new().await;
    let with = |pointer: &str, value: Value| {
        let mut review = good();
        *review.pointer_mut(pointer).unwrap() = value;
        json(201, &review.to_string())
    };
    let told = async |answer: Answer| {
        setting.server.answers(answer);
        setting.api().review("a", "deputize").await.unwrap()
    };
    let refused = told(with("/status", json!({ "authenticated": false, "error": "expired" }))).await;
    assert_eq!(refused, Reviewed::default());
    let silent = told(with("/status", json!({}))).await;
    assert!(!silent.authenticated, "what is not said does not hold");
    let other = told(with("/status/audiences", json!(["https://kubernetes.default.svc"]))).await;
    assert_eq!(other.audiences, ["https://kubernetes.default.svc"]);
    let elsewhere = told(with("/status/user/extra", json!({ NODE_NAME: ["worker-2"] }))).await;
    assert_eq!(elsewhere.extra[NODE_NAME], ["worker-2"]);
}

#[tokio::test]
async fn what_is_no_review_says_nothing_of_a_token() {
    let setting = Setting::new().await;
    let api = setting.api();
    let (text, head) = (good().to_string(), "HTTP/1.1 201 X\r\ncontent-type: application/json\r\n");
    let redirect = format!(
        "HTTP/1.1 307 X\r\nlocation: https://{}/apis/authentication.k8s.io/v1/tokenreviews\r\ncontent-length: 0\r\n\r\n",
        setting.server.address
    );
    let gzip = format!("{head}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    let mut stringy = good();
    stringy["status"]["authenticated"] = "true".into();
    let mut nameless = good();
    nameless["status"]["user"]["username"] = json!(["system:serviceaccount:deputize:agent"]);
    let twice = text.replacen("\"authenticated\":true", "\"authenticated\":false,\"authenticated\":true", 1);
    assert_ne!(twice, text);
    for (what, answer) in [
        ("a redirect", Answer::Bytes(redirect.into_bytes())),
        ("401", json(401, &text)),
        ("403", json(403, &text)),
        ("404", json(404, &text)),
        ("429", json(429, &text)),
        ("500", json(500, &text)),
        ("202", json(202, &text)),
        ("compressed", Answer::Bytes(gzip.into_bytes())),
        ("too long", Answer::Endless(format!("{head}\r\n").into_bytes())),
        ("a page", json(200, "<html>")),
        ("nothing", json(200, "")),
        ("an empty object", json(200, "{}")),
        ("cut off", json(201, &text[..text.len() - 1])),
        ("more behind it", json(201, &format!("{text}{text}"))),
        ("another kind", json(201, &text.replace("TokenReview", "Status"))),
        ("no status", json(201, r#"{"kind":"TokenReview"}"#)),
        ("a member twice", json(201, &twice)),
        ("a text for a truth", json(201, &stringy.to_string())),
        ("a list for a name", json(201, &nameless.to_string())),
        ("breaking off", Answer::Bytes(format!("{head}content-length: 9999\r\n\r\n{text}").into_bytes())),
        ("another protocol", Answer::Bytes(b"SSH-2.0-x\r\n".to_vec())),
    ] {
        setting.server.answers(answer);
        let before = setting.server.asked().len();
        assert_eq!(api.review("a", "deputize").await, Err(ReviewFailed), "{what}");
        assert_eq!(setting.server.asked().len(), before + 1, "{what}: nothing is followed or tried again");
    }
    setting.server.answers(json(200, &text));
    assert!(api.review("a", "deputize").await.is_ok(), "the next one is answered");
}

#[tokio::test]
async fn a_slow_cluster_is_waited_for_no_longer() {
    let setting = Setting::new().await;
    let head = "HTTP/1.1 201 X\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    for answer in [Answer::Stuck(Vec::new()), Answer::Stuck(head.as_bytes().to_vec())] {
        setting.server.answers(answer);
        let api = setting.api_within(Duration::from_millis(300));
        assert_eq!(api.review("a", "deputize").await, Err(ReviewFailed));
    }
}

#[tokio::test]
async fn reviews_that_wait_keep_others_from_asking() {
    let setting = Setting::new().await;
    let api = setting.api();
    let _all = api.places.acquire_many(REVIEWS_AT_ONCE.try_into().unwrap()).await.unwrap();
    assert_eq!(api.review("a", "deputize").await, Err(ReviewFailed));
    assert!(setting.server.asked().is_empty());
}

#[tokio::test]
async fn neither_token_goes_to_whom_nobody_vouches_for() {
    let setting = Setting::new().await;
    let stranger = Authority::new();
    let (other_name, _) = setting.authority.server("kubernetes.default.svc").await;
    let token = || (setting.folder.path().join("token"), Duration::from_secs(30));
    let url = |server: &FakeHttps| Url::parse(&format!("https://{}", server.address)).unwrap();
    for (url, ca_file) in [
        (url(&setting.server), Some(stranger.file().to_owned())),
        (url(&setting.server), None),
        (url(&other_name), Some(setting.authority.file().to_owned())),
    ] {
        let api = ClusterApi::assemble(&url, ca_file, token()).unwrap();
        assert_eq!(api.review("a", "deputize").await, Err(ReviewFailed));
    }
    assert!(setting.server.asked().is_empty() && other_name.asked().is_empty());
    for url in ["http://127.0.0.1:1", "https://user:secret@127.0.0.1:1", "https://169.254.169.254"] {
        assert!(ClusterApi::assemble(&Url::parse(url).unwrap(), None, token()).is_err(), "{url}");
    }
}
