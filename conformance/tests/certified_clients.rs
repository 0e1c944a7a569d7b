//! OAuth clients that other people wrote, behind TLS client certificates and with SVIDs of our own Workload API.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

use deputize_conformance::{
    certified::Certified,
    exchange::{Exchange, Lab},
    forge::{Key, now},
    node::Script,
    own_clients,
    process::run,
    spiffe_lab::{SpiffeLab, program, python},
    trust::{Authority, Certificate, write_private},
    wire::{Endpoint, Request, Response},
    world::{CRM, World},
};
use serde_json::{Value, json};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};
use tempfile::TempDir;

const ID: &str = "spiffe://example.org/myservice";
const OTHER_ID: &str = "spiffe://example.org/myservice2";

/// A broker with three clients, one for each way to show a certificate.
struct Bench {
    lab: SpiffeLab,
    vouching: Authority,
    own: Certificate,
    folder: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let (vouching, own, folder) =
            (Authority::new(), Certificate::self_signed("own"), tempfile::tempdir().unwrap());
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("vouching.pem"), vouching.pem()).unwrap();
        std::fs::write(path("own.pem"), &own.certificate_pem).unwrap();
        let client = |id: &str, proof: Value| {
            let mut client = json!({
                "id": id, "tenant": "acme", "subject_audiences": ["desk-app"], "may_call": [{ "resource": "*" }],
            });
            client.as_object_mut().unwrap().extend(proof.as_object().unwrap().clone());
            client
        };
        let vouched = json!({ "authority_file": path("vouching.pem"), "dns": "bot.example.org" });
        let clients = [
            client("reports", json!({ "spiffe_id": ID })),
            client("vouched", json!({ "tls_client_auth": vouched })),
            client("own", json!({ "certificate_file": path("own.pem") })),
        ];
        let lab = SpiffeLab::start_with_clients(&json!({}), &clients).await;
        std::fs::write(path("ca.pem"), lab.world.authority.pem()).unwrap();
        Self { lab, vouching, own, folder }
    }

    /// A JWT-SVID for this audience; the X.509-SVID of the same ID is `svid.pem` and `svid.key` from then on.
    fn fetch(&self, id: &str, audience: &str) -> String {
        let mut command = Command::new(python());
        command.arg(program("fetch.py")).args([id, audience]).arg(self.folder.path());
        self.lab.run(&mut command).trim().to_owned()
    }

    /// What Authlib's client makes of it, as this client, with `NAME.pem` and `NAME.key`.
    fn authlib(&self, client_id: &str, name: &str) -> Value {
        let path = |name: String| self.folder.path().join(name).to_str().unwrap().to_owned();
        let given = json!({
            "issuer": self.lab.world.base, "authority": path("ca.pem".into()), "client_id": client_id,
            "certificate": path(format!("{name}.pem")), "key": path(format!("{name}.key")),
            "parameters": self.parameters(),
        });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/certificates.py");
        let mut child = Command::new(own_clients::python())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "broker:\n{}", self.lab.started.process.said());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn parameters(&self) -> Value {
        let details = json!([{
            "type": "mcp_tool_call", "locations": [CRM], "actions": ["tools/call"], "identifier": "refund_payment",
            "arguments": { "payment_id": "pay_81", "amount_cents": 4200 },
        }]);
        json!({
            "subject_token": self.lab.world.user_token("alice"),
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "resource": CRM, "authorization_details": details.to_string(),
        })
    }

    fn write(&self, name: &str, certificate: &Certificate) {
        std::fs::write(self.folder.path().join(format!("{name}.pem")), &certificate.certificate_pem).unwrap();
        write_private(&self.folder.path().join(format!("{name}.key")), &certificate.key_pem);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authlib_exchanges_by_every_certificate_and_its_token_is_bound_to_it() {
    let bench = Bench::start().await;
    bench.write("vouched", &bench.vouching.certify_client("bot.example.org"));
    bench.write("own", &bench.own);
    bench.write("wrong", &bench.vouching.certify_client("another.example.org"));
    tokio::task::block_in_place(|| {
        bench.fetch(ID, "unused");
        for (client, certificate, actor) in
            [("reports", "svid", ID), ("vouched", "vouched", "vouched"), ("own", "own", "own")]
        {
            let result = bench.authlib(client, certificate);
            assert_eq!(result["token_type"], "Bearer", "{client}: {result}");
            let claims = &result["claims"];
            assert_eq!((&claims["client_id"], &claims["act"]["sub"]), (&json!(client), &json!(actor)));
            // RFC 8705 §3.1, §3.2: in the token, and where its server asks about it.
            let bound = json!({ "x5t#S256": result["thumbprint"] });
            assert_eq!(claims["cnf"], bound);
            let before = &result["before"];
            assert_eq!((&before["active"], &before["cnf"]), (&json!(true), &bound), "{before}");
            assert_eq!(before["token_type"], "Bearer");
            assert_eq!(result["after"], json!({ "active": false }), "revoked");
            let metadata = &result["metadata"];
            assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
            let methods = metadata["token_endpoint_auth_methods_supported"].as_array().unwrap();
            for method in [
                "private_key_jwt",
                "tls_client_auth",
                "self_signed_tls_client_auth",
                "spiffe_jwt",
                "spiffe_x509",
            ] {
                assert!(methods.contains(&json!(method)), "{method}: {methods:?}");
            }
        }
        for (client, certificate) in [
            ("vouched", "wrong"),
            ("own", "vouched"),
            ("vouched", "svid"),
            ("desk", "own"),
            ("reports", "own"),
        ] {
            let refused = bench.authlib(client, certificate);
            assert_eq!(refused["error"], "invalid_client", "{client} with {certificate}: {refused}");
        }
        // An SVID of another process's identity.
        bench.fetch(OTHER_ID, "unused");
        assert_eq!(bench.authlib("reports", "svid")["error"], "invalid_client");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oauth4webapi_exchanges_with_a_jwt_svid_of_our_own_socket() {
    let bench = Bench::start().await;
    let authority = bench.folder.path().join("ca.pem");
    let base = &bench.lab.world.base;
    let ask = |svid: &str, client_id: &str| {
        let given = json!({
            "issuer": base, "client_id": client_id, "svid": svid, "parameters": bench.parameters(),
        });
        Script::start("svid.mjs", &[], Some(&authority)).tell(&given).hear()
    };
    tokio::task::block_in_place(|| {
        let svid = bench.fetch(ID, base);
        let result = ask(&svid, "reports");
        assert_eq!(result["claims"]["act"]["sub"], ID, "{result}");
        assert!(result["claims"]["cnf"]["jkt"].is_string(), "{result}");
        for (svid, client_id) in [
            (bench.fetch(ID, "https://another.example"), "reports"),
            (bench.fetch(OTHER_ID, base), "reports"),
            (svid, "vouched"),
        ] {
            let refused = ask(&svid, client_id);
            assert_eq!(refused["error"], "invalid_client", "{client_id}: {refused}");
        }
    });
}

#[tokio::test]
async fn a_guard_is_known_by_the_certificate_of_its_server() {
    let mut world = World::new().await;
    world.certified = Some(Certified::new());
    let config = world.write_files();
    let mut text: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let clients = text["clients"].as_array_mut().unwrap();
    // No certificate is that of two clients.
    clients.retain(|client| client["id"] != "own");
    let crm = clients.iter_mut().find(|client| client["id"] == "crm").unwrap().as_object_mut().unwrap();
    crm.remove("jwks_file");
    crm.insert("certificate_file".to_owned(), json!("own.pem"));
    std::fs::write(&config, text.to_string()).unwrap();
    let started = world.start_again(&config).await;
    let lab = Lab::of(world, started);
    let certified = lab.world.certified.as_ref().unwrap();

    let get = async |certificate: Option<&Certificate>, target: &str| -> Response {
        let authority = &lab.world.authority;
        let tls = certificate.map_or_else(|| authority.client(), |it| authority.client_showing(it));
        let mut request = Request::get(target);
        request.headers.push(("x-forwarded-client-cert".into(), "Subject=\"CN=own\"".into()));
        Endpoint::new(&lab.world.base.parse().unwrap(), Some(tls)).send(&request).await.unwrap()
    };
    let known = get(Some(&certified.own), "/guard/snapshot?client_id=crm").await;
    assert_eq!(known.status, 200, "{}", known.json());
    let snapshot: Value = serde_json::from_str(known.json()["snapshot"].as_str().unwrap()).unwrap();
    assert_eq!(snapshot["resource"], CRM);
    for (certificate, target, status) in [
        (Some(&certified.own), "/guard/snapshot", 401),
        (Some(&certified.own), "/guard/snapshot?client_id=ledger", 401),
        (Some(&certified.vouched), "/guard/snapshot?client_id=crm", 401),
        // Known, but no server.
        (Some(&certified.vouched), "/guard/snapshot?client_id=vouched", 400),
        (None, "/guard/snapshot?client_id=crm", 401),
    ] {
        assert_eq!(get(certificate, target).await.status, status, "{target}");
    }

    // Its single-use tokens are redeemed by it, once, and by nobody else.
    let token = lab.token(&Key::es256()).await;
    let about = |path: &str, client: &str| {
        let mut exchange: Exchange = lab.template("desk", "none");
        exchange.at("POST", path).form.clear();
        exchange.set("client_id", client).set("token", &token);
        exchange
    };
    let stranger = lab.send_showing(&certified.vouched, &about("/redeem", "crm")).await;
    assert_eq!(stranger.status, 401, "{}", stranger.json());
    let active = lab.send_showing(&certified.own, &about("/introspect", "crm")).await.json();
    assert_eq!((&active["active"], &active["token_type"]), (&json!(true), &json!("DPoP")), "{active}");
    let once = lab.send_showing(&certified.own, &about("/redeem", "crm")).await.json();
    assert_eq!(once, json!({ "redeemed": true }));
    let again = lab.send_showing(&certified.own, &about("/redeem", "crm")).await.json();
    assert_eq!(again["reason"], "already_used", "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_and_its_library_exchange_by_a_certificate_instead_of_a_key() {
    let bench = Bench::start().await;
    bench.write("vouched", &bench.vouching.certify_client("bot.example.org"));
    bench.write("own", &bench.own);
    let subject = bench.folder.path().join("user.jwt");
    std::fs::write(&subject, bench.lab.world.user_token("alice")).unwrap();
    let place = |name: String| bench.folder.path().join(name).to_str().unwrap().to_owned();
    let ask = |client: &str, certificate: &str, key: &str| {
        run(&[
            ["exchange", "-o", "json", "--issuer", &bench.lab.world.base, "--client-id", client].as_slice(),
            &["--certificate", &place(format!("{certificate}.pem"))],
            &["--certificate-key", &place(format!("{key}.key")), "--ca-file", &place("ca.pem".to_owned())],
            &["--subject-token", subject.to_str().unwrap(), "--resource", CRM, "--tool", "refund_payment"],
            &["--arguments", "{\"payment_id\": \"pay_81\", \"amount_cents\": 4200}"],
        ]
        .concat())
    };
    tokio::task::block_in_place(|| {
        bench.fetch(ID, "unused");
        let key = place("svid.key".to_owned());
        let (is_done, _, complained) = ask("reports", "svid", "svid");
        assert!(!is_done && complained.contains("others may read this private key"), "{complained}");
        let pem = std::fs::read_to_string(&key).unwrap();
        std::fs::remove_file(&key).unwrap();
        write_private(Path::new(&key), &pem);
        for (client, certificate) in [("reports", "svid"), ("vouched", "vouched"), ("own", "own")] {
            let (is_done, said, complained) = ask(client, certificate, certificate);
            assert!(is_done, "{client}: {said}{complained}");
            let granted: Value = serde_json::from_str(&said).unwrap();
            // Its proof's key, not the certificate, is what the token is bound to.
            assert_eq!(granted["token_type"], "DPoP", "{granted}");
        }
        let (is_done, _, complained) = ask("vouched", "own", "own");
        assert!(!is_done && complained.contains("client authentication failed"), "{complained}");
        let (is_done, _, complained) = ask("own", "own", "vouched");
        assert!(!is_done && complained.contains("the client certificate cannot be used"), "{complained}");
    });
}

#[tokio::test]
async fn a_jwt_svid_beside_which_no_key_is_shown_is_good_once_at_every_door() {
    let mut world = World::new().await;
    world.certified = Some(Certified::new());
    // Nothing is asked of it: who calls is known first.
    world.templates_for_aws("https://localhost:1", Vec::new());
    std::fs::create_dir_all(world.folder().join("templates")).unwrap();
    let lab = Lab::start(world).await;
    let certified = lab.world.certified.as_ref().unwrap();
    let ask = |path: &str, svid: &str| {
        let mut exchange: Exchange = lab.template("desk", "none");
        exchange.at("POST", path).form.clear();
        exchange
            .set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe")
            .set("client_assertion", svid);
        match path {
            "/aws/credentials" => exchange
                .set("subject_token", "none")
                .set("subject_token_type", "urn:ietf:params:oauth:token-type:access_token")
                .set("arguments", "{}"),
            _ => exchange.set("token", "none"),
        };
        exchange
    };
    let paths = ["/aws/credentials", "/redeem", "/revoke", "/introspect"];
    // One for each way of using it once; the claims of two made in one second would be the same.
    for (at, path) in paths.into_iter().enumerate() {
        let svid = certified.jwt_svid(&lab.world.base, &json!({ "jti": path, "iat": now() - at as i64 }));
        let first = lab.send(&ask(path, &svid)).await;
        assert_ne!(first.status, 401, "{path}: {}", first.json());
        for again in paths {
            let refused = lab.send(&ask(again, &svid)).await;
            assert_eq!(
                (refused.status, refused.error_code().as_deref()),
                (401, Some("invalid_client")),
                "{path}, then {again}: {}",
                refused.json()
            );
        }
    }
    lab.world.recorded().await;
    let (log, _) = lab.world.log(0).await;
    let replayed = log.iter().filter(|entry| entry["reason"] == "assertion_replayed").collect::<Vec<_>>();
    assert_eq!(replayed.len(), paths.len() * paths.len());
    assert!(replayed.iter().all(|entry| entry["method"] == "spiffe_jwt"), "{replayed:?}");
}
