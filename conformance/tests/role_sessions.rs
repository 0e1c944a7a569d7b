//! `POST /aws/credentials`: who gets AWS credentials for which call, seen from outside, with an STS of the tests' own.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_call::sign::SigningKey;
use deputize_client::{AwsAsk, Client, DecryptionKey};
use deputize_conformance::{
    exchange::{Exchange, Lab},
    forge::{Key, claims, decode, now},
    node::{node, npm},
    own_clients,
    stand_in::{programs, told},
    sts::{Answer, SecurityTokens, moment},
    trust::write_private,
    wire::{Request, Response},
    world::{CRM, World, token_of},
};
use josekit::{
    jwe::{ECDH_ES_A256KW, deserialize_compact},
    jwk::{
        Jwk, KeyPair,
        alg::{
            ec::{EcCurve, EcKeyPair},
            rsa::RsaKeyPair,
        },
    },
};
use serde_json::{Value, json};
use std::process::Command;

const ROLE: &str = "arn:aws:iam::111122223333:role/deputize/payments";

/// A broker with a role template for refunds, and the STS that it asks.
struct Aws {
    lab: Lab,
    sts: SecurityTokens,
}

impl Aws {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut World)) -> Self {
        let mut world = World::new().await;
        let sts = SecurityTokens::start(&world.authority).await;
        world.templates_for_aws(&sts.base, vec![template()]);
        change(&mut world);
        Self { lab: Lab::start(world).await, sts }
    }

    async fn ask(&self, token: &str, arguments: &Value) -> Response {
        self.ask_as("crm", &[("subject_token", token), ("arguments", &arguments.to_string())]).await
    }

    /// As this client, with these parameters in place of those that are as they should be; empty ones are left out.
    async fn ask_as(&self, client: &str, parameters: &[(&str, &str)]) -> Response {
        let mut exchange = self.lab.template(client, "none");
        for name in ["grant_type", "resource", "authorization_details"] {
            exchange.remove(name);
        }
        exchange.target = "/aws/credentials".into();
        exchange.set("subject_token_type", "urn:ietf:params:oauth:token-type:access_token");
        exchange.set("arguments", &refund().to_string());
        for (name, value) in parameters {
            if value.is_empty() {
                exchange.remove(name)
            } else {
                exchange.set(name, value)
            };
        }
        self.lab.send(&exchange).await
    }

    /// What the Rust client gets with this key, or why it gets nothing.
    async fn rust(&self, token: &str, key: Option<&Sealing>) -> Value {
        let world = &self.lab.world;
        let own = SigningKey::from_private_jwk(world.client_keys["crm"].private_jwk().as_object().unwrap());
        let mut client = Client::builder(&world.base, "crm").private_key_jwt(own.unwrap());
        client = client.ca_pem(world.authority.pem());
        if let Some(key) = key {
            client = client.decryption_key(DecryptionKey::from_pkcs8(&key.pkcs8, Some("e1")).unwrap());
        }
        let arguments = refund().as_object().unwrap().clone();
        match client.build().unwrap().aws_credentials(&AwsAsk::new(token, &arguments)).await {
            Ok(credentials) => json!({ "secret": credentials.secret_access_key() }),
            Err(error) => json!({ "refused": error.to_string() }),
        }
    }

    async fn token(&self) -> String {
        self.lab.token(&Key::es256()).await
    }

    async fn token_for(&self, change: impl FnOnce(&mut Exchange)) -> String {
        let mut exchange = self.lab.honest(&Key::es256()).await;
        change(&mut exchange);
        token_of(&self.lab.send(&exchange).await)
    }
}

fn refund() -> Value {
    json!({ "payment_id": "pay_81", "amount_cents": 4200 })
}

fn template() -> Value {
    json!({
        "name": "read-payment", "description": "Reads the one payment that the call names",
        "match": { "server": CRM, "tool": "refund_payment", "tenant": "acme" },
        "params": { "payment": { "from": { "argument": "/payment_id" }, "type": "dynamodb_partition", "max_length": 40 } },
        "aws": {
            "partition": "aws", "account": "111122223333", "region": "eu-central-1", "role_arn": ROLE,
            "window_seconds": 120,
        },
        "statements": [{
            "actions": ["dynamodb:GetItem"],
            "resources": [{ "service": "dynamodb", "parts": [{ "literal": "table/payments" }] }],
            "conditions": [{
                "operator": "ForAllValues:StringEquals", "key": "dynamodb:LeadingKeys",
                "values": [[{ "param": "payment" }]],
            }],
        }],
        "tags": { "tool": [{ "fact": "tool" }] },
        "ceiling": {
            "actions": ["dynamodb:GetItem"],
            "resources": ["arn:aws:dynamodb:eu-central-1:111122223333:table/payments"],
        },
    })
}

#[tokio::test]
async fn the_server_that_was_called_gets_credentials_for_that_call() {
    let aws = Aws::start().await;
    let token = aws.token().await;
    let before = now();
    let answer = aws.ask(&token, &refund()).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let given = answer.json();
    let text = |member: &str| given[member].as_str().unwrap().to_owned();
    assert_eq!((&given["Version"], text("AccountId")), (&json!(1), "111122223333".to_owned()));
    assert_eq!(text("SecretAccessKey"), "canary-secret-1");
    assert_eq!(text("SessionToken"), "canary-token-1");
    // The window's end, not STS's.
    let ends: Vec<_> = (before..=now()).map(|at| moment(at + 120)).collect();
    assert!(ends.contains(&text("Expiration")), "{given}");
    assert_eq!(answer.header("deputize-decision-id"), Some(text("decision_id").as_str()));

    let asked = aws.sts.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let form = &asked[0];
    assert_eq!((form["Action"].as_str(), form["RoleArn"].as_str()), ("AssumeRoleWithWebIdentity", ROLE));
    assert_eq!(form["RoleSessionName"], text("decision_id"));
    assert!(form["Policy"].contains("pay_81") && form["Policy"].contains("aws:CurrentTime"), "{form:?}");
    let identity = claims(&form["WebIdentityToken"]);
    assert_eq!(identity["iss"], format!("{}/web-identity", aws.lab.world.base));
    assert_eq!(
        (&identity["aud"], &identity["sub"]),
        (&json!("sts.amazonaws.com"), &json!("template:acme:read-payment"))
    );
    assert_eq!(identity["https://aws.amazon.com/roles"], json!([ROLE]));

    // Again and again: what there is already, and no further question to AWS.
    for _ in 0..5 {
        assert_eq!(aws.ask(&token, &refund()).await.json(), given);
    }
    assert_eq!(aws.sts.asked().len(), 1);
    // Another call has a session of its own.
    let other = aws.ask(&aws.token().await, &refund()).await.json();
    assert_eq!(other["SecretAccessKey"], "canary-secret-2");
}

#[tokio::test]
async fn nobody_else_and_no_other_call_gets_any() {
    let aws = Aws::start().await;
    let token = aws.token().await;
    let loose = aws
        .token_for(|exchange| {
            exchange.tool(CRM, "find_customer");
        })
        .await;
    let revoked = aws.token().await;
    aws.lab.world.order("POST", "/admin/revocations", &json!({ "token": claims(&revoked)["jti"] })).await;
    let other = json!({ "payment_id": "pay_82", "amount_cents": 4200 }).to_string();
    let more = json!({ "payment_id": "pay_81", "amount_cents": 4200, "note": 1 }).to_string();
    let user = aws.lab.world.user_token("alice");
    let forged = Key::es256().token("at+jwt", &claims(&token));
    let good = ("subject_token", token.as_str());
    for (client, parameters, status, code) in [
        ("ledger", vec![good], 400, "invalid_request"),
        ("desk", vec![good], 400, "invalid_request"),
        ("globex-desk", vec![good], 400, "invalid_request"),
        ("crm", vec![("subject_token", &forged)], 400, "invalid_request"),
        ("crm", vec![("subject_token", &user)], 400, "invalid_request"),
        ("crm", vec![("subject_token", &revoked)], 400, "invalid_request"),
        ("crm", vec![("subject_token", "")], 400, "invalid_request"),
        (
            "crm",
            vec![good, ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")],
            400,
            "invalid_request",
        ),
        ("crm", vec![good, ("subject_token_type", "")], 400, "invalid_request"),
        ("crm", vec![good, ("arguments", "")], 400, "invalid_request"),
        ("crm", vec![good, ("arguments", "[]")], 400, "invalid_request"),
        (
            "crm",
            vec![good, ("arguments", "{\"payment_id\":\"pay_81\",\"payment_id\":\"pay_81\"}")],
            400,
            "invalid_request",
        ),
        ("crm", vec![good, ("input_responses", "{")], 400, "invalid_request"),
        ("crm", vec![good, ("client_assertion", "")], 401, "invalid_client"),
        ("crm", vec![good, ("arguments", &other)], 400, "invalid_authorization_details"),
        ("crm", vec![good, ("arguments", &more)], 400, "invalid_authorization_details"),
        ("crm", vec![good, ("request_state", "{\"a\":1}")], 400, "invalid_authorization_details"),
        ("crm", vec![("subject_token", &loose), ("arguments", "{\"name\":\"x\"}")], 400, ""),
        ("crm", vec![good, ("template", "another")], 400, "access_denied"),
    ] {
        let answer = aws.ask_as(client, &parameters).await;
        let found = answer.error_code().unwrap_or_default();
        assert_eq!(answer.status, status, "{client} {parameters:?}: {}", answer.json());
        assert!(code.is_empty() || found == code, "{client} {parameters:?}: {}", answer.json());
        assert!(answer.json()["decision_id"].is_string(), "{client} {parameters:?}");
    }
    assert!(aws.sts.asked().is_empty(), "AWS hears of none of it");
    // The neighbour of them all.
    assert_eq!(aws.ask(&token, &refund()).await.status, 200);
}

#[tokio::test]
async fn what_aws_refuses_is_told_as_what_it_is() {
    let aws = Aws::start().await;
    for (answer, status, may_come_back) in [
        (Answer::Refuse(403, "AccessDenied"), 502, false),
        (Answer::Refuse(400, "InvalidIdentityToken"), 502, false),
        (Answer::Refuse(400, "PackedPolicyTooLarge"), 502, false),
        (Answer::Rubbish, 502, false),
        (Answer::Refuse(400, "Throttling"), 503, true),
        (Answer::Refuse(500, "InternalFailure"), 503, true),
        (Answer::Hang, 503, true),
    ] {
        aws.sts.answer(answer.clone());
        let refused = aws.ask(&aws.token().await, &refund()).await;
        assert_eq!(refused.status, status, "{answer:?}: {}", refused.json());
        assert_eq!(refused.header("retry-after").is_some(), may_come_back, "{answer:?}");
        let said = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(!said.contains("canary") && !said.contains("arn:"), "what AWS says is for operators: {said}");
    }
    aws.sts.answer(Answer::Grant);
    assert_eq!(aws.ask(&aws.token().await, &refund()).await.status, 200);
    let counted = aws.lab.world.metric_lines("deputize_sts_calls_total").await.join("\n");
    for outcome in ["granted", "sts_access_denied", "sts_throttled", "sts_timeout", "sts_unintelligible"] {
        assert!(counted.contains(outcome), "{outcome}: {counted}");
    }
}

#[tokio::test]
async fn an_answer_is_sealed_to_the_client_that_has_a_key_for_it() {
    let key = Jwk::generate_ec_key(EcCurve::P256).unwrap();
    let mut public: Value = serde_json::from_str(&key.to_public_key().unwrap().to_string()).unwrap();
    public["use"] = "enc".into();
    public["kid"] = "e1".into();
    let aws = Aws::start_with(|world| world.add_client_key("crm", public)).await;
    let answer = aws.ask(&aws.token().await, &refund()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/jose")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let sealed = String::from_utf8(answer.body).unwrap();
    let header: Value = serde_json::from_slice(&decode(sealed.split('.').next().unwrap())).unwrap();
    assert_eq!((&header["alg"], &header["enc"]), (&json!("ECDH-ES+A256KW"), &json!("A256GCM")));
    assert_eq!((&header["kid"], &header["cty"]), (&json!("e1"), &json!("application/json")));
    let opener = ECDH_ES_A256KW.decrypter_from_jwk(&key).unwrap();
    let (content, _) = deserialize_compact(&sealed, &opener).unwrap();
    let given: Value = serde_json::from_slice(&content).unwrap();
    assert_eq!((&given["Version"], &given["SecretAccessKey"]), (&json!(1), &json!("canary-secret-1")));
    // Refusals have no secrets in them, and whoever asked may not be who has the key.
    let refused = aws.ask(&aws.token().await, &json!({})).await;
    assert_eq!((refused.status, refused.header("content-type")), (400, Some("application/json")));
}

/// A key that answers are sealed to.
struct Sealing {
    private: Value,
    public: Value,
    pkcs8: Vec<u8>,
}

impl Sealing {
    fn of(pair: &dyn KeyPair) -> Self {
        let jwk = |jwk: Jwk| {
            let mut jwk: Value = serde_json::from_str(&jwk.to_string()).unwrap();
            (jwk["use"], jwk["kid"]) = ("enc".into(), "e1".into());
            jwk
        };
        Self {
            private: jwk(pair.to_jwk_key_pair()),
            public: jwk(pair.to_jwk_public_key()),
            pkcs8: pair.to_der_private_key(),
        }
    }

    fn p256() -> Self {
        Self::of(&EcKeyPair::generate(EcCurve::P256).unwrap())
    }

    fn rsa() -> Self {
        Self::of(&RsaKeyPair::generate(2048).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_clients_open_what_is_sealed_to_them_and_take_nothing_else() {
    let typescript = own_clients::typescript();
    for (sealing, other) in [(Sealing::p256(), Sealing::p256()), (Sealing::rsa(), Sealing::rsa())] {
        let public = sealing.public.clone();
        let aws = Aws::start_with(|world| world.add_client_key("crm", public)).await;
        let open = Aws::start().await;
        for (what, aws, key, secret) in [
            ("the key", &aws, Some(&sealing), Some("canary-secret-1")),
            ("another of its name", &aws, Some(&other), None),
            ("no key", &aws, None, None),
            ("neither a key nor a seal", &open, None, Some("canary-secret-1")),
            ("a key, and nothing sealed", &open, Some(&sealing), None),
        ] {
            // One call: whoever asks gets the same.
            let token = aws.lab.token(&Key::es256()).await;
            let folder = aws.lab.world.folder();
            let given = json!({
                "issuer": aws.lab.world.base, "ca_file": folder.join("ca.pem"), "client_id": "crm",
                "private_key": aws.lab.world.client_keys["crm"].private_jwk(),
                "encryption_key": key.map(|key| &key.private), "token": token, "arguments": refund(),
            });
            let file = folder.join("given.json");
            write_private(&file, &given.to_string());
            let mut python = Command::new(own_clients::python());
            python.arg(programs().join("programs/sealed.py")).arg(&file);
            let mut node = Command::new(node());
            node.current_dir(npm()).env("NODE_EXTRA_CA_CERTS", folder.join("ca.pem"));
            node.arg("sealed-answer.mjs").arg(typescript.path()).arg(&file);
            for (client, answer) in [
                ("Rust", aws.rust(&token, key).await),
                ("Python", told(&mut python).await),
                ("TypeScript", told(&mut node).await),
            ] {
                match secret {
                    Some(secret) => assert_eq!(answer, json!({ "secret": secret }), "{client}: {what}"),
                    None => assert!(answer["refused"].is_string(), "{client}: {what}: {answer}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn templates_are_read_again_and_bad_ones_change_nothing() {
    let aws = Aws::start().await;
    let world = &aws.lab.world;
    let mut other = template();
    other["aws"]["account"] = "444455556666".into();
    other["aws"]["role_arn"] = ROLE.replace("111122223333", "444455556666").into();
    other["ceiling"]["resources"] = json!(["arn:aws:dynamodb:eu-central-1:444455556666:table/payments"]);
    world.write_template(&other);
    let pid = aws.lab.started.process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    aws.lab
        .started
        .process
        .wait_until(async || aws.lab.started.process.said().contains("aws.accounts"))
        .await;
    assert_eq!(aws.ask(&aws.token().await, &refund()).await.json()["AccountId"], "111122223333");

    let mut shorter = template();
    shorter["aws"]["window_seconds"] = 60.into();
    world.write_template(&shorter);
    world.reload(&aws.lab.started).await;
    let before = now();
    let given = aws.ask(&aws.token().await, &refund()).await.json();
    let ends: Vec<_> = (before..=now()).map(|at| json!(moment(at + 60))).collect();
    assert!(ends.contains(&given["Expiration"]), "{given}");
    let (entries, _) = world.log(0).await;
    let digests: Vec<_> = entries
        .iter()
        .filter(|entry| entry["kind"] == "configuration")
        .map(|entry| &entry["templates"])
        .collect();
    assert!(digests.len() == 2 && digests[0].is_string() && digests[0] != digests[1], "{digests:?}");
}

#[tokio::test]
async fn without_aws_there_is_no_such_path() {
    let lab = Lab::start(World::new().await).await;
    let answer = lab.world.door.send(&Request::form("/aws/credentials", &[])).await.unwrap();
    assert_eq!((answer.status, answer.error_code().as_deref()), (404, Some("not_found")));
    let metadata = async |lab: &Lab| {
        let request = Request::get("/.well-known/oauth-authorization-server");
        lab.world.door.send(&request).await.unwrap().json()["aws_credentials_endpoint"].clone()
    };
    assert_eq!(metadata(&lab).await, Value::Null);
    let aws = Aws::start().await;
    assert_eq!(metadata(&aws.lab).await, json!(format!("{}/aws/credentials", aws.lab.world.base)));
    // Nor is there an identity for AWS; where there is one, only its public halves are shown.
    for path in ["/web-identity/.well-known/openid-configuration", "/web-identity/jwks"] {
        let without = lab.world.door.send(&Request::get(path)).await.unwrap();
        assert_eq!((without.status, without.error_code().as_deref()), (404, Some("not_found")), "{path}");
        assert_eq!(aws.lab.world.door.send(&Request::get(path)).await.unwrap().status, 200, "{path}");
    }
    let keys = aws.lab.world.door.send(&Request::get("/web-identity/jwks")).await.unwrap().json();
    for key in keys["keys"].as_array().unwrap() {
        assert!(["d", "p", "q", "k"].iter().all(|private| key.get(private).is_none()), "{key}");
    }
}
