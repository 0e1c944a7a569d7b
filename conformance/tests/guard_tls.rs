//! TLS on both sides of `deputize guard`: certificates that clients show it, and the one that it shows its server.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

#[path = "guard_tls/callers.rs"]
mod callers;

use deputize_conformance::{
    forge::Key,
    ill_server::IllServer,
    impostor::{Impostor, low},
    live_guard::{call, free_port},
    process::Process,
    trust::{Authority, Certificate, write_private},
    wire::{Endpoint, Request, Response},
};
use deputize_guard::proxy::ClientCertificate;
use serde_json::{Value, json};
use std::{io, path::Path, sync::Arc};
use tempfile::TempDir;
use tokio_rustls::rustls::ClientConfig;
use url::Url;

/// A guard with TLS of its own, and a stand-in for its broker.
struct Bench {
    impostor: Impostor,
    process: Process,
    url: Url,
    /// Whose certificate the guard shows.
    authority: Authority,
    folder: TempDir,
}

impl Bench {
    /// Before this server, with more settings.
    async fn start(upstream: &str, more: &str) -> Self {
        let (folder, impostor, authority) =
            (tempfile::tempdir().unwrap(), Impostor::start().await, Authority::new());
        let url = Url::parse(&format!("https://localhost:{}/mcp", free_port())).unwrap();
        let mut document = impostor.document(url.as_str(), 1);
        document.tools = IllServer::definitions().iter().map(low).collect();
        impostor.say(&[impostor.signed(&document), ("alive", json!({}))]);
        authority.certify().write(folder.path(), "guard");
        let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        write_private(Path::new(&place("key.jwk")), &Key::es256().private_jwk().to_string());
        std::fs::write(place("snapshot.jwks"), impostor.snapshot_keys().to_jwks().to_string()).unwrap();
        let (issuer, port) = (&impostor.issuer, url.port().unwrap());
        let settings = json!({
            "upstream": upstream, "public_url": url, "issuer": issuer, "client_id": "crm", "key_file": place("key.jwk"),
            "snapshot_keys": place("snapshot.jwks"), "listen": format!("127.0.0.1:{port}"), "state_dir": place("state"),
        });
        let more = more.replace("FOLDER", folder.path().to_str().unwrap());
        let text: String =
            settings.as_object().unwrap().iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        std::fs::write(place("guard.yaml"), text + &more).unwrap();
        let arguments = ["guard", "--config", &place("guard.yaml"), "--insecure-loopback"];
        let process = Process::start(&arguments, &folder.path().join("guard.log"));
        Self { impostor, process, url, authority, folder }
    }

    fn endpoint(&self, client: Arc<ClientConfig>) -> Endpoint {
        Endpoint::new(&self.url, Some(client))
    }

    async fn is_ready(&self) -> bool {
        let asked = self.endpoint(self.authority.client()).send(&Request::get("/readyz")).await;
        asked.is_ok_and(|answer| answer.status == 200)
    }

    /// Calls `echo` with this authorization, as this TLS client.
    async fn echo(&self, client: Arc<ClientConfig>, authorization: &str) -> io::Result<Response> {
        let headers = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("authorization".to_owned(), authorization.to_owned()),
        ];
        let body = call("echo", &json!({ "text": "hello" })).to_string().into_bytes();
        let request = Request { method: "POST".into(), target: "/mcp".into(), headers, body };
        self.endpoint(client).send(&request).await
    }

    /// Calls `echo` with a token that is bound to this key, by which this agent acts.
    async fn echo_by_key(&self, client: Arc<ClientConfig>, holder: &Key, actor: &str) -> Response {
        let cnf = json!({ "jkt": holder.thumbprint() });
        let echo = &IllServer::definitions()[0];
        let token = self.impostor.token_acting(self.url.as_str(), echo, &cnf, Some(actor));
        let challenge = self.echo(Arc::clone(&client), &format!("DPoP {token}")).await.unwrap();
        let request = self.proven(holder, &token, challenge.header("dpop-nonce"));
        self.endpoint(client).send(&request).await.unwrap()
    }

    /// A call of `echo` with a token, and the proof of its key.
    fn proven(&self, holder: &Key, token: &str, nonce: Option<&str>) -> Request {
        let proof = holder.proof(&json!({
            "htm": "POST", "htu": self.url, "iat": deputize_conformance::forge::now(),
            "jti": deputize_conformance::forge::unique(), "nonce": nonce,
            "ath": deputize_conformance::forge::encode(deputize_call::digest::sha256(token.as_bytes())),
        }));
        let mut request = Request::get("/mcp");
        request.method = "POST".to_owned();
        request.body = call("echo", &json!({ "text": "hello" })).to_string().into_bytes();
        for (name, value) in [
            ("content-type", "application/json"),
            ("authorization", &format!("DPoP {token}")),
            ("dpop", &proof),
        ] {
            request.headers.push((name.to_owned(), value.to_owned()));
        }
        request
    }

    /// A token of `echo` that is bound to this certificate.
    fn token(&self, certificate: &Certificate) -> String {
        self.token_acting(certificate.der(), None)
    }

    /// A token of `echo` that is bound to this certificate, by which this agent acts.
    fn token_acting(&self, certificate: &[u8], actor: Option<&str>) -> String {
        let cnf = json!({ "x5t#S256": ClientCertificate::of(certificate).thumbprint() });
        let echo = &IllServer::definitions()[0];
        self.impostor.token_acting(self.url.as_str(), echo, &cnf, actor)
    }
}

#[tokio::test]
async fn a_token_bound_to_a_certificate_is_used_with_that_one_alone() {
    let (clients, server) = (Authority::new(), IllServer::start().await);
    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("clients.pem");
    std::fs::write(&authorities, clients.pem()).unwrap();
    let tls = format!(
        "tls: {{ certificate_file: FOLDER/guard.pem, key_file: FOLDER/guard.key, client_ca_file: {} }}\n",
        authorities.display()
    );
    let bench = Bench::start(&server.url, &tls).await;
    bench.process.wait_until(async || bench.is_ready().await).await;
    let [mine, another] = ["mine", "another"].map(|name| clients.certify_client(name));
    let token = bench.token(&mine);
    let showing = |certificate| bench.authority.client_showing(certificate);

    let good = bench.echo(showing(&mine), &format!("Bearer {token}")).await.unwrap();
    assert_eq!((good.status, server.runs()), (200, 1), "{good:?}");
    for (client, authorization) in [
        (showing(&another), format!("Bearer {token}")),
        (bench.authority.client(), format!("Bearer {token}")),
        (showing(&mine), format!("DPoP {token}")),
        (showing(&mine), format!("Bearer {}", bench.token(&another))),
    ] {
        let refused = bench.echo(client, &authorization).await.unwrap();
        assert_eq!((refused.status, refused.error_code().as_deref()), (401, Some("invalid_token")));
    }
    // The same name from an authority that nobody named: TLS ends there.
    let stranger = Authority::new().certify_client("mine");
    assert!(bench.echo(showing(&stranger), &format!("Bearer {token}")).await.is_err());
    let metadata = Request::get("/.well-known/oauth-protected-resource/mcp");
    let metadata: Value = bench.endpoint(bench.authority.client()).send(&metadata).await.unwrap().json();
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
    assert_eq!(server.runs(), 1);
}

#[tokio::test]
async fn a_guard_that_asks_for_no_certificates_takes_no_token_bound_to_one() {
    let (clients, server) = (Authority::new(), IllServer::start().await);
    let tls = "tls: { certificate_file: FOLDER/guard.pem, key_file: FOLDER/guard.key }\n";
    let bench = Bench::start(&server.url, tls).await;
    bench.process.wait_until(async || bench.is_ready().await).await;
    let mine = clients.certify_client("mine");
    let bearer = format!("Bearer {}", bench.token(&mine));
    let refused = bench.echo(bench.authority.client_showing(&mine), &bearer).await.unwrap();
    assert_eq!((refused.status, server.runs()), (401, 0));
}

#[tokio::test]
async fn a_server_that_demands_its_guards_certificate_gets_it() {
    let (clients, servers) = (Authority::new(), Authority::new());
    let server = IllServer::start_tls(servers.certify().server_demanding(&clients)).await;
    let holder = Key::es256();
    let bench = before(&server.url, &clients, &servers).await;
    bench.process.wait_until(async || bench.is_ready().await).await;
    let cnf = json!({ "jkt": holder.thumbprint() });
    let token = bench.impostor.token_for(bench.url.as_str(), &IllServer::definitions()[0], &cnf);
    let challenge = bench.echo(bench.authority.client(), &format!("DPoP {token}")).await.unwrap();
    let request = bench.proven(&holder, &token, challenge.header("dpop-nonce"));
    let answer = bench.endpoint(bench.authority.client()).send(&request).await.unwrap();
    assert_eq!((answer.status, server.runs()), (200, 1), "{answer:?}");

    // Past the guard nobody is let in.
    let aside = Endpoint::new(&Url::parse(&server.url).unwrap(), Some(servers.client()));
    assert!(aside.send(&Request::get("/mcp")).await.is_err());
}

#[tokio::test]
async fn a_guard_speaks_neither_without_the_right_certificate_nor_to_the_wrong_server() {
    let (clients, servers, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let server = IllServer::start_tls(servers.certify().server_demanding(&clients)).await;
    // The guard's certificate is of another authority; then the server's is.
    for (shown, trusted) in [(&strangers, &servers), (&clients, &strangers)] {
        let bench = before(&server.url, shown, trusted).await;
        bench.process.wait_until(async || bench.process.said().contains("server's tools not listed")).await;
        assert!(!bench.is_ready().await, "{}", bench.folder.path().display());
    }
    assert_eq!(server.runs(), 0);
}

/// A guard that shows a certificate of the one, and trusts servers of the other.
async fn before(upstream: &str, shown: &Authority, trusted: &Authority) -> Bench {
    let folder = tempfile::tempdir().unwrap().keep();
    shown.certify_client("guard").write(&folder, "upstream");
    std::fs::write(folder.join("servers.pem"), trusted.pem()).unwrap();
    let place = folder.display();
    let more = format!(
        "tls: {{ certificate_file: FOLDER/guard.pem, key_file: FOLDER/guard.key }}\nupstream_cert: {place}/upstream.pem\n\
         upstream_key: {place}/upstream.key\nupstream_ca: {place}/servers.pem\n"
    );
    let bench = Bench::start(upstream, &more).await;
    bench.process.wait_until(async || bench.process.said().contains("Deputize stands before")).await;
    std::fs::remove_dir_all(folder).unwrap();
    bench
}
