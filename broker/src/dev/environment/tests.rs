use super::*;
use deputize_call::jws::{EmbeddedKey, parse};
use deputize_client::{Client, DenialReason, Detail, ExchangeError, ExchangeRequest, Redemption, ToolToken};
use deputize_issuer::{registry::ServerRecord, revocation::Revoked};
use deputize_stand_ins::example_server::Handed;
use hyper::body::Body as _;
use serde_json::{Value, json};
use std::task::Poll;

/// An environment, and the agent platform in it.
struct Fixture {
    environment: Environment,
    platform: Client,
    http: reqwest::Client,
}

async fn fixture() -> Fixture {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Fixture::of(start(&choices(None)).await.unwrap())
}

fn choices(folder: Option<PathBuf>) -> Choices {
    let listen = "127.0.0.1:0".parse().unwrap();
    Choices { listen, folder, register: Vec::new(), upstreams: Vec::new() }
}

/// The broker's client of this place in the ready file.
fn client(environment: &Environment, client: &Value) -> Client {
    let key = SigningKey::from_private_jwk(client["private_jwk"].as_object().unwrap()).unwrap();
    let id = client["client_id"].as_str().unwrap();
    Client::builder(&environment.ready.issuer, id).private_key_jwt(key).build().unwrap()
}

impl Fixture {
    fn of(environment: Environment) -> Self {
        let ready = serde_json::to_value(&environment.ready).unwrap();
        let platform = client(&environment, &ready["client"]);
        Self { environment, platform, http: reqwest::Client::new() }
    }

    fn request(&self, user: &str, record: &ServerRecord) -> ExchangeRequest {
        ExchangeRequest::new(&record.resource, &self.environment.ready.user_tokens[user])
    }

    async fn send(&self, url: &str, token: &ToolToken, message: &Value) -> (u16, Value) {
        let mut nonce: Option<String> = None;
        loop {
            let proof = self.platform.proof_for("POST", url, token.access_token(), nonce.as_deref()).unwrap();
            let request =
                self.http.post(url).header("content-type", "application/json").header("dpop", proof);
            let request = request.header("authorization", &**token.authorization());
            let response = request.body(message.to_string()).send().await.unwrap();
            let status = response.status().as_u16();
            let next = response.headers().get("dpop-nonce").map(|value| value.to_str().unwrap().to_owned());
            let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
            if nonce.is_none() && body["error"] == "use_dpop_nonce" {
                nonce = next;
            } else {
                return (status, body);
            }
        }
    }

    async fn call(&self, token: &ToolToken, tool: &str, arguments: Value) -> (u16, Value) {
        let url = &self.environment.crm.record.resource;
        self.send(url, token, &message("tools/call", json!({ "name": tool, "arguments": arguments }))).await
    }
}

fn message(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
}

#[tokio::test(flavor = "multi_thread")]
async fn alice_calls_the_first_tool_with_its_example_at_its_level_and_at_the_tightest() {
    let fixture = fixture().await;
    let crm = &fixture.environment.crm.record;
    let name = crm.tools[0].definition["name"].as_str().unwrap();
    let example = Value::Object(crm.tools[0].example_arguments.clone().unwrap());
    for detail in [
        Detail::Tool { name: name.to_owned() },
        Detail::Call {
            name: name.to_owned(),
            arguments: example.clone(),
            input_responses: None,
            request_state: None,
        },
    ] {
        let request = fixture.request("alice", crm).detail(detail);
        let token = fixture.platform.exchange(&request).await.unwrap();
        let (status, answer) = fixture.call(&token, name, example.clone()).await;
        assert_eq!((status, &answer["result"]["isError"]), (200, &Value::Bool(false)), "{answer}");
    }
    drop(fixture.environment.stop().await);
}

/// Who asks for what, and who says no.
#[tokio::test(flavor = "multi_thread")]
async fn policy_knows_the_three_users_apart() {
    use DenialReason::{ApprovalRequired, Policy};
    let fixture = fixture().await;
    let refund = |amount_cents: u64| json!({ "payment_id": "pay_81", "amount_cents": amount_cents });
    let customer = json!({ "customer_id": "cus_17" });
    for (user, tool, arguments, denied) in [
        ("alice", "lookup_customer", customer.clone(), None),
        ("alice", "refund_payment", refund(5000), None),
        ("alice", "refund_payment", refund(5001), Some(ApprovalRequired)),
        ("alice", "refund_payment", refund(50_001), Some(Policy)),
        ("bob", "lookup_customer", customer, None),
        ("bob", "refund_payment", refund(1), Some(Policy)),
        ("carol", "export_customers", json!({ "format": "json" }), Some(ApprovalRequired)),
    ] {
        let request = fixture.request(user, &fixture.environment.crm.record).call(tool, arguments.clone());
        match (fixture.platform.exchange(&request).await, denied) {
            (Ok(_), None) => {}
            (Err(ExchangeError::AccessDenied { reason, .. }), Some(expected)) => {
                assert_eq!(reason, expected, "{user} {tool} {arguments}");
            }
            (answer, expected) => panic!("{user} {tool} {arguments}: expected {expected:?}, got {answer:?}"),
        }
    }
    drop(fixture.environment.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_many_uses_stops_when_it_is_revoked() {
    let fixture = fixture().await;
    let detail = Detail::Tool { name: "lookup_customer".to_owned() };
    let request = fixture.request("alice", &fixture.environment.crm.record).detail(detail);
    let token = fixture.platform.exchange(&request).await.unwrap();
    let arguments = json!({ "customer_id": "cus_17" });
    for _ in 0..2 {
        assert_eq!(fixture.call(&token, "lookup_customer", arguments.clone()).await.0, 200);
    }
    fixture.platform.revoke(token.access_token()).await.unwrap();
    // The broker pushes it; that takes milliseconds. More calls at once than these the guard would not take.
    let mut calls = 2;
    while fixture.call(&token, "lookup_customer", arguments.clone()).await.0 == 200 {
        calls += 1;
        assert!(calls < 25, "it is never heard");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (status, refusal) = fixture.call(&token, "lookup_customer", arguments).await;
    assert_eq!((status, &refusal["error"]), (401, &"invalid_token".into()));
    assert_eq!(fixture.environment.crm.server.calls_run(), calls);
    drop(fixture.environment.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgery_of_a_token_does_not_have_it_revoked() {
    let fixture = fixture().await;
    let detail = Detail::Tool { name: "lookup_customer".to_owned() };
    let request = fixture.request("alice", &fixture.environment.crm.record).detail(detail);
    let token = fixture.platform.exchange(&request).await.unwrap();
    let genuine = parse(token.access_token(), EmbeddedKey::Refused).unwrap();
    let forged = new_key().unwrap().sign("at+jwt", &genuine.claims).unwrap();

    let url = &fixture.environment.crm.record.resource;
    let arguments = json!({ "customer_id": "cus_17" });
    let body =
        message("tools/call", json!({ "name": "lookup_customer", "arguments": arguments })).to_string();
    let proof = fixture.platform.proof_for("POST", url, &forged, None).unwrap();
    let request = fixture.http.post(url).header("content-type", "application/json").header("dpop", proof);
    let refused = request.header("authorization", format!("DPoP {forged}")).body(body).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(fixture.call(&token, "lookup_customer", arguments).await.0, 200);
    drop(fixture.environment.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_token_lists_and_calls_nothing() {
    let fixture = fixture().await;
    let crm = &fixture.environment.crm.record;
    let token = fixture.platform.exchange(&fixture.request("alice", crm)).await.unwrap();
    let (status, listed) = fixture.send(&crm.resource, &token, &message("tools/list", json!({}))).await;
    assert_eq!((status, listed["result"]["tools"].as_array().map(Vec::len)), (200, Some(3)), "{listed}");
    let (status, refusal) = fixture.call(&token, "lookup_customer", json!({ "customer_id": "cus_17" })).await;
    assert_eq!((status, &refusal["error"]), (403, &"insufficient_scope".into()));
    assert_eq!(fixture.environment.crm.server.calls_run(), 0);
    drop(fixture.environment.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_token_is_told_where_to_get_one() {
    let fixture = fixture().await;
    let resource = &fixture.environment.crm.record.resource;
    let request = fixture.http.post(resource).header("content-type", "application/json");
    let refused = request.body(message("tools/list", json!({})).to_string()).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let challenges: Vec<&str> =
        refused.headers().get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect();
    let url = challenges.join(" ");
    let url = url.split("resource_metadata=\"").nth(1).unwrap().split('"').next().unwrap();
    let metadata = fixture.http.get(url).send().await.unwrap().bytes().await.unwrap();
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    assert_eq!(metadata["resource"], resource.as_str());
    assert_eq!(metadata["authorization_servers"], json!([fixture.environment.ready.issuer]));
    drop(fixture.environment.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_folder_goes_and_a_given_one_stays() {
    let fixture = fixture().await;
    let temporary = fixture.environment.files.folder.clone();
    assert!(temporary.join("deputize.yaml").exists());
    drop(fixture.environment.stop().await);
    assert!(!temporary.exists());
    let abandoned = start(&choices(None)).await.unwrap();
    let temporary = abandoned.files.folder.clone();
    drop(abandoned);
    assert!(!temporary.exists(), "not even when nobody stops it");

    let parent = tempfile::tempdir().unwrap();
    let given = parent.path().join("environment");
    drop(start(&choices(Some(given.clone()))).await.unwrap().stop().await);
    assert!(given.join("data/log").exists());
    assert!(start(&choices(Some(given))).await.is_err(), "a folder that is there already is somebody else's");
}

#[tokio::test]
async fn an_environment_is_for_loopback_alone() {
    let listen = "0.0.0.0:0".parse().unwrap();
    let refused = start(&Choices { listen, ..choices(None) }).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("loopback")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_server_is_asked_for_and_redeems_as_itself_alone() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.json");
    let own = Example::of(ExampleServer::crm("http://127.0.0.1:7009/mcp", "mine").unwrap()).unwrap();
    let record = ServerRecord { id: "mine".to_owned(), ..own.record };
    std::fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
    let environment = start(&Choices { register: vec![file], ..choices(None) }).await.unwrap();
    let ready = serde_json::to_value(&environment.ready).unwrap();
    let [crm, mailer, mine] = [0, 1, 3].map(|n| client(&environment, &ready["servers"][n]["client"]));
    assert_eq!(ready["servers"][3]["resource"], record.resource);
    assert!(KeySet::from_jwks(ready["snapshot_jwks"].to_string().as_bytes()).is_ok());

    let fixture = Fixture::of(environment);
    let arguments = json!({ "customer_id": "cus_17" });
    let request = fixture.request("alice", &record).call("lookup_customer", arguments);
    let token = fixture.platform.exchange(&request).await.unwrap();
    for other in [&crm, &mailer, &fixture.platform] {
        assert_eq!(other.redeem(token.access_token()).await.unwrap(), Redemption::Revoked);
    }
    assert_eq!(mine.redeem(token.access_token()).await.unwrap(), Redemption::Redeemed);
    assert_eq!(mine.redeem(token.access_token()).await.unwrap(), Redemption::AlreadyUsed);
    drop(fixture.environment.stop().await);
}

/// A server as the developer has one: it knows nothing of guards.
async fn serve_bare(server: Arc<ExampleServer>) -> Url {
    let answer = move |body: axum::body::Bytes| async move {
        let message = deputize_call::json::parse_object(&body).unwrap();
        axum::Json(server.answer(&message, &Handed::default()).await.unwrap_or_default())
    };
    let (listener, address) = listen().await.unwrap();
    let router = Router::new().route("/mcp", axum::routing::post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Url::parse(&format!("http://{address}/mcp")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_ones_own_is_called_through_a_guard_of_the_environment() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.json");
    // A port that is free now: the guard is to listen there.
    let resource = format!("http://{}/mcp", listen().await.unwrap().1);
    let Example { server: own, record } =
        Example::of(ExampleServer::crm(&resource, "mine").unwrap()).unwrap();
    let record = ServerRecord { id: "mine".to_owned(), ..record };
    std::fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
    let upstream = format!("mine={}", serve_bare(Arc::clone(&own)).await).parse().unwrap();
    let choices = Choices { register: vec![file], upstreams: vec![upstream], ..choices(None) };
    let fixture = Fixture::of(start(&choices).await.unwrap());
    assert!(fixture.environment.is_guarded("mine") && !fixture.environment.is_guarded("another"));
    let ready = serde_json::to_value(&fixture.environment.ready).unwrap();
    let url = ready["servers"][3]["guard_url"].as_str().unwrap();
    // It was not waited for.
    while fixture.http.get(url.replace("/mcp", "/readyz")).send().await.unwrap().status() != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let arguments = json!({ "customer_id": "cus_17" });
    let request = fixture.request("alice", &record).call("lookup_customer", arguments.clone());
    let token = fixture.platform.exchange(&request).await.unwrap();
    let call =
        |arguments| message("tools/call", json!({ "name": "lookup_customer", "arguments": arguments }));
    let (status, refusal) = fixture.send(url, &token, &call(json!({ "customer_id": "cus_18" }))).await;
    assert_eq!((status, &refusal["error"], own.calls_seen()), (403, &"insufficient_scope".into(), 0));
    let (status, answer) = fixture.send(url, &token, &call(arguments)).await;
    assert_eq!((status, own.calls_seen()), (200, 1), "{answer}");
    drop(fixture.environment.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_that_waits_for_nobody_answers_behind_its_guard() {
    let fixture = fixture().await;
    let environment = &fixture.environment;
    let ops = &environment.ops.0.record;
    for (record, user) in
        [(&environment.crm.record, "alice"), (&environment.mailer.record, "alice"), (ops, "alice")]
    {
        for tool in &record.tools {
            let name = tool.definition["name"].as_str().unwrap();
            let example = Value::Object(tool.example_arguments.clone().unwrap());
            let request = fixture.request(user, record).call(name, example.clone());
            let token = match fixture.platform.exchange(&request).await {
                // The critical one, and mail in alice's name, wait for a person.
                Err(ExchangeError::AccessDenied { reason: DenialReason::ApprovalRequired, .. }) => continue,
                exchanged => exchanged.unwrap(),
            };
            let call = message("tools/call", json!({ "name": name, "arguments": example }));
            let (status, answer) = fixture.send(&record.resource, &token, &call).await;
            assert_eq!(
                (status, &answer["result"]["isError"]),
                (200, &Value::Bool(false)),
                "{name}: {answer}"
            );
        }
    }
    assert_eq!((environment.crm.server.calls_run(), environment.mailer.server.calls_run()), (2, 0));
    assert_eq!((environment.ops.0.server.calls_run(), environment.aws.restarts(INSTANCES[0])), (2, 1));
    let mailer = &environment.mailer.record;
    let token = fixture.platform.exchange(&fixture.request("alice", mailer)).await.unwrap();
    let (_, listed) = fixture.send(&mailer.resource, &token, &message("tools/list", json!({}))).await;
    assert_eq!(listed["result"]["tools"][0]["name"], "send_email", "{listed}");
    drop(fixture.environment.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_snapshot_is_made_while_something_is_taken_back() {
    let fixture = fixture().await;
    let assembly = &fixture.environment.broker.assembly;
    let client = assembly.desk.rules.load().clients.enabled("crm-guard").unwrap();
    let server = assembly.guards.server_of(&client).unwrap();
    let lifting = assembly.desk.revocations.lifting().await;
    {
        let mut made = std::pin::pin!(assembly.guards.snapshot(&server));
        let waits =
            std::future::poll_fn(|context| Poll::Ready(made.as_mut().poll(context).is_pending())).await;
        assert!(waits, "on record and not yet in force: of which version would it be?");
        drop(lifting);
        made.await.unwrap();
    }
    drop(fixture.environment.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_read_is_ended() {
    let fixture = fixture().await;
    let assembly = &fixture.environment.broker.assembly;
    let client = assembly.desk.rules.load().clients.enabled("crm-guard").unwrap();
    let server = assembly.guards.server_of(&client).unwrap();
    let feed = assembly.guards.feed(&client, &server).await.unwrap();
    let mut feed = std::pin::pin!(feed);
    // More than the stream may be behind; nobody reads meanwhile.
    for n in 0..5000 {
        assembly.desk.revocations.hold(&[Revoked::Token(n.to_string())], u64::MAX);
    }
    let mut messages = 0;
    while let Some(frame) = std::future::poll_fn(|context| feed.as_mut().poll_frame(context)).await {
        assert!(frame.unwrap().into_data().is_ok());
        messages += 1;
    }
    assert!((1..5000).contains(&messages), "{messages}");
    // Who comes again gets the whole state.
    let again = assembly.guards.snapshot(&server).await.unwrap().text;
    assert!(String::from_utf8_lossy(&again).matches("token").count() >= 5000);
    drop(fixture.environment.stop().await);
}

/// Who is entitled to which identity is for who may open the socket: any page of a browser can reach a port.
#[tokio::test(flavor = "multi_thread")]
async fn registration_entries_are_not_administered_over_tcp() {
    let fixture = fixture().await;
    let status = async |path: &str| {
        let url = format!("{}{path}", fixture.environment.ready.admin_url);
        fixture.http.get(url).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("/admin/drifted").await, 200, "administration is there");
    for path in ["/admin/entries", "/admin/entries/dev", "/admin/workloads/explain"] {
        assert_eq!(status(path).await, 404, "{path}");
    }
}
