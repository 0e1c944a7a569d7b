//! A guard that looks at the X.509-SVIDs of its callers: whose they are, and for whom they act (S-06).

use super::Bench;
use base64::{Engine, engine::general_purpose::STANDARD};
use deputize_conformance::{
    forge::Key,
    ill_server::IllServer,
    spiffe_lab::SpiffeLab,
    trust::Certificate,
    wire::{Request, Response},
    workload_server::{authority_of, leaf, self_signed},
};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType, date_time_ymd};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use std::{path::Path, sync::Arc};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

type Domain = CertifiedIssuer<'static, KeyPair>;

#[tokio::test]
async fn callers_show_the_svid_of_whoever_acts() {
    let server = IllServer::start().await;
    let (domain, stranger) =
        (self_signed(authority_of("acme.example")), self_signed(authority_of("acme.example")));
    let (bench, bundle) = Looking::start(&server.url, &domain).await;
    let bot = svid(&domain, BOT);
    assert_eq!(answer(&bench.call(Some(&bot), &bot, BOT).await), (200, None));

    // Another workload's token, though it is bound to this certificate.
    let refused = bench.call(Some(&bot), &bot, "spiffe://acme.example/agent/other").await;
    assert_eq!(answer(&refused), (401, Some("invalid_token".to_owned())));
    let mut two = leaf(BOT);
    two.subject_alt_names.push(SanType::URI("spiffe://acme.example/agent/other".try_into().unwrap()));
    let mut expired = leaf(BOT);
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let mut nobody = leaf(BOT);
    nobody.subject_alt_names = vec![SanType::DnsName("bot.acme.example".try_into().unwrap())];
    let partner = self_signed(authority_of("partner.example"));
    for (what, certificate) in [
        ("of a foreign domain", svid(&partner, "spiffe://partner.example/agent/bot")),
        ("by another domain's authority", svid(&partner, BOT)),
        ("by an authority that is not in the bundle", svid(&stranger, BOT)),
        ("with two SPIFFE IDs", signed(&domain, &two)),
        ("that has ended", signed(&domain, &expired)),
        ("with the name of a host", signed(&domain, &nobody)),
        ("of a workload that may not call", svid(&domain, "spiffe://acme.example/mcp/crm")),
    ] {
        let refused = bench.call(Some(&certificate), &certificate, BOT).await;
        assert_eq!(answer(&refused), (403, Some("access_denied".to_owned())), "{what}");
    }
    let refused = bench.call(None, &bot, BOT).await;
    assert_eq!(answer(&refused), (403, Some("access_denied".to_owned())), "no certificate");
    assert_eq!(server.runs(), 1);

    // The bundle changes: whoever was known is unknown, and the other way round.
    std::fs::write(&bundle, bundle_of(&stranger)).unwrap();
    let other = svid(&stranger, BOT);
    let takes = async |certificate| answer(&bench.call(Some(certificate), certificate, BOT).await).0 == 200;
    bench.0.process.wait_until(async || takes(&other).await).await;
    assert!(!takes(&bot).await);
    // A file that is no bundle changes nothing.
    std::fs::write(&bundle, "{}").unwrap();
    bench
        .0
        .process
        .wait_until(async || bench.0.process.said().contains("bundle of callers not usable"))
        .await;
    assert!(takes(&other).await);
}

#[tokio::test]
async fn a_guard_at_the_workload_api_shows_its_own_svid_and_follows_what_it_is_told() {
    let (lab, server) = (SpiffeLab::start().await, IllServer::start().await);
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(lab.world.folder()).unwrap());
    // The first by name is a process's default.
    let socket = lab.world.folder().join("data/admin.sock");
    let selector = format!("unix:uid:{uid}");
    let created = [
        "entry",
        "create",
        "--id",
        "a-guard",
        "--spiffe-id",
        "spiffe://example.org/guard",
        "--dns-name",
        "localhost",
        "--selector",
        &selector,
    ];
    assert!(socket.exists());
    lab.deputize(&created);
    let more = format!(
        "workload_api: {}\ntls_svid: true\nrequire_caller_svid: ['spiffe://example.org/myservice']\n\
         limits: {{ caller_bundles_seconds: 2 }}\n",
        lab.socket.display()
    );
    let bench = Bench::start(&server.url, &more).await;
    let before = Fetched::by(&lab, "before");
    let ready = async |fetched: &Fetched| {
        let asked = bench.endpoint(fetched.client()).send(&Request::get("/readyz")).await;
        asked.is_ok_and(|answer| answer.status == 200)
    };
    bench.process.wait_until(async || ready(&before).await).await;
    let call = async |fetched: &Fetched, actor: &str| {
        let token = bench.token_acting(&fetched.leaf(), Some(actor));
        answer(&bench.echo(fetched.client(), &format!("Bearer {token}")).await.unwrap()).0
    };
    assert_eq!(call(&before, MYSERVICE).await, 200);
    assert_eq!(call(&before, "spiffe://example.org/guard").await, 401);
    let unknown = bench.authority.certify_client("unknown");
    let token = format!("Bearer {}", bench.token_acting(unknown.der(), Some(MYSERVICE)));
    assert_eq!(bench.echo(before.client_without(), &token).await.unwrap().status, 403);

    // What signed both is replaced: the guard shows another SVID, and knows those of its callers.
    lab.deputize(&["keys", "rotate", "--purpose", "x509-svids", "--compromised"]);
    let after = {
        bench
            .process
            .wait_until(async || Fetched::by(&lab, "after").bundle().len() > before.bundle().len())
            .await;
        Fetched::by(&lab, "after")
    };
    let new = RootsOf::newest(&before, &after);
    bench.process.wait_until(async || new.reach(&bench, &after).await).await;
    assert_eq!(call(&after, MYSERVICE).await, 200);
    assert_eq!(server.runs(), 2);

    // Nobody tells it any more whom to trust: for a while it goes on, and then it cannot tell.
    lab.started.process.terminate();
    bench.process.wait_until(async || call(&after, MYSERVICE).await == 503).await;
    assert!(bench.process.said().contains("bundles of callers lapsed"));
    let runs = server.runs();
    let token = format!("Bearer {}", bench.token_acting(&after.leaf(), Some(MYSERVICE)));
    let refused = bench.echo(after.client(), &token).await.unwrap();
    assert_eq!(answer(&refused), (503, Some("temporarily_unavailable".to_owned())));
    assert!(String::from_utf8_lossy(&refused.body).contains("no bundles"));
    assert_eq!(bench.echo(after.client_without(), &token).await.unwrap().status, 403);
    assert_eq!(server.runs(), runs);
}

#[tokio::test]
async fn a_workload_shows_its_svid_though_nobody_is_required_to_have_one() {
    let server = IllServer::start().await;
    let domain = self_signed(authority_of("acme.example"));
    for (more, alone) in
        [("", (403, Some("access_denied".to_owned()))), ("allow_svidless_callers: true\n", (200, None))]
    {
        let (bench, _) = Looking::start_with(&server.url, &domain, more).await;
        let holder = Key::es256();
        let without = bench.0.authority.client();
        let call = async |client: Arc<ClientConfig>, actor: &str| {
            answer(&bench.0.echo_by_key(client, &holder, actor).await)
        };
        assert_eq!(call(without.clone(), BOT).await, alone, "{more}");
        assert_eq!(call(without, "platform").await, (200, None), "{more}");
        for (shown, expected) in [(BOT, 200), ("spiffe://acme.example/agent/other", 401)] {
            let client = bench.0.authority.client_showing(&svid(&domain, shown));
            assert_eq!(call(client, BOT).await.0, expected, "{more} {shown}");
        }
    }
}

/// A guard that demands SVIDs of agents of `acme.example`.
struct Looking(Bench);

impl Looking {
    async fn start(server: &str, domain: &Domain) -> (Self, std::path::PathBuf) {
        Self::start_with(server, domain, "require_caller_svid: ['spiffe://acme.example/agent/*']\n").await
    }

    async fn start_with(server: &str, domain: &Domain, more: &str) -> (Self, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap().keep();
        let bundle = folder.join("acme.json");
        std::fs::write(&bundle, bundle_of(domain)).unwrap();
        let more = format!(
            "tls: {{ certificate_file: FOLDER/guard.pem, key_file: FOLDER/guard.key }}\n\
             caller_bundles: {{ acme.example: {} }}\n{more}",
            bundle.display()
        );
        let bench = Bench::start(server, &more).await;
        bench.process.wait_until(async || bench.is_ready().await).await;
        (Self(bench), bundle)
    }

    /// Calls with a token that is bound to a certificate, showing this one.
    async fn call(&self, shown: Option<&Certificate>, bound: &Certificate, actor: &str) -> Response {
        let token = format!("Bearer {}", self.0.token_acting(bound.der(), Some(actor)));
        let authority = &self.0.authority;
        let client = shown.map_or_else(|| authority.client(), |shown| authority.client_showing(shown));
        self.0.echo(client, &token).await.unwrap()
    }
}

/// An SVID with its key and bundle, as the command writes them.
struct Fetched(std::path::PathBuf);

impl Fetched {
    fn by(lab: &SpiffeLab, name: &str) -> Self {
        let folder = lab.world.folder().join(name);
        let place = folder.to_str().unwrap();
        lab.deputize(&["svid", "fetch", "--write", place, "--spiffe-id", MYSERVICE]);
        Self(folder)
    }

    fn leaf(&self) -> Vec<u8> {
        read(&self.0.join("svid.pem")).remove(0).to_vec()
    }

    fn bundle(&self) -> Vec<CertificateDer<'static>> {
        read(&self.0.join("bundle.pem"))
    }

    fn client(&self) -> Arc<ClientConfig> {
        let key = PrivateKeyDer::from_pem_file(self.0.join("key.pem")).unwrap();
        let builder = trusting(&self.bundle());
        Arc::new(builder.with_client_auth_cert(read(&self.0.join("svid.pem")), key).unwrap())
    }

    fn client_without(&self) -> Arc<ClientConfig> {
        Arc::new(trusting(&self.bundle()).with_no_client_auth())
    }
}

/// The authorities that came.
struct RootsOf(Vec<CertificateDer<'static>>);

impl RootsOf {
    fn newest(before: &Fetched, after: &Fetched) -> Self {
        let known = before.bundle();
        let new: Vec<_> = after.bundle().into_iter().filter(|root| !known.contains(root)).collect();
        assert!(!new.is_empty());
        Self(new)
    }

    /// Whether they vouch for what the guard shows.
    async fn reach(&self, bench: &Bench, caller: &Fetched) -> bool {
        let key = PrivateKeyDer::from_pem_file(caller.0.join("key.pem")).unwrap();
        let client = trusting(&self.0).with_client_auth_cert(read(&caller.0.join("svid.pem")), key).unwrap();
        bench.endpoint(Arc::new(client)).send(&Request::get("/readyz")).await.is_ok()
    }
}

fn trusting(
    bundle: &[CertificateDer<'static>],
) -> tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(bundle.iter().cloned());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots)
}

fn read(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect()
}

fn svid(domain: &Domain, id: &str) -> Certificate {
    signed(domain, &leaf(id))
}

fn signed(domain: &Domain, params: &CertificateParams) -> Certificate {
    Certificate::signed(params, domain)
}

/// The bundle of a trust domain (SPIFFE Trust Domain and Bundle §4).
fn bundle_of(domain: &Domain) -> String {
    let key = json!({ "kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(domain.der())] });
    json!({ "keys": [key], "spiffe_sequence": 1 }).to_string()
}

fn answer(response: &Response) -> (u16, Option<String>) {
    (response.status, if response.status == 200 { None } else { response.error_code() })
}

const BOT: &str = "spiffe://acme.example/agent/bot";
const MYSERVICE: &str = "spiffe://example.org/myservice";
