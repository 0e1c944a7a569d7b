use super::{
    call::{Answered, Ask, Aws, Keys},
    ec2::INSTANCES,
    *,
};
use crate::test_clock::TestClock;
use deputize_call::{
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use serde_json::json;
use std::time::Duration;
use tokio::net::TcpListener;
use url::Url;

const NOW: u64 = 1_795_309_323;

/// A stand-in that listens, and the provider that it knows.
struct World {
    aws: Arc<StandIn>,
    endpoint: Url,
    client: Aws,
    issuer: String,
    key: SigningKey,
    clock: Arc<TestClock>,
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn world() -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}/web-identity", listener.local_addr().unwrap());
    let key = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    let jwks = KeySet::new(vec![key.public().clone()]).to_jwks();
    let metadata = json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/jwks") });
    let provider = Router::new()
        .route("/web-identity/.well-known/openid-configuration", get(|| async { Json(metadata) }))
        .route("/web-identity/jwks", get(|| async { Json(jwks) }));
    tokio::spawn(async move { axum::serve(listener, provider).await });
    let clock = Arc::new(TestClock::at_seconds(NOW));
    let aws = Arc::new(StandIn::new(&issuer, Arc::clone(&clock) as Arc<dyn Clock>).unwrap());
    let endpoint = Url::parse(&serve(aws.router()).await).unwrap();
    let client = Aws::at(endpoint.clone(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    World { aws, endpoint, client, issuer, key, clock }
}

fn role(template: &str) -> String {
    format!("arn:aws:iam::111122223333:role/deputize/{template}")
}

/// What a template renders for the first instance.
fn policy() -> String {
    let arn = format!("arn:aws:ec2:eu-central-1:111122223333:instance/{}", INSTANCES[0]);
    json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "ec2:RebootInstances", "Resource": arn,
          "Condition": { "DateLessThan": { "aws:CurrentTime": moment::format_seconds(NOW + 300) } } },
        { "Effect": "Deny", "Action": "*", "Resource": "*",
          "Condition": { "DateGreaterThanEquals": { "aws:CurrentTime": moment::format_seconds(NOW + 300) } } },
        { "Effect": "Deny", "NotAction": "ec2:RebootInstances", "Resource": "*" },
        { "Effect": "Deny", "Action": "ec2:RebootInstances", "NotResource": arn }
    ] })
    .to_string()
}

impl World {
    fn claims(&self) -> Value {
        json!({
            "iss": self.issuer, "sub": "template:dev:restart-instance", "aud": "sts.amazonaws.com",
            "iat": NOW, "nbf": NOW, "exp": NOW + 60, "jti": "1",
            "https://aws.amazon.com/tags": {
                "principal_tags": { "tool": ["restart_instance"] }, "transitive_tag_keys": []
            },
            "https://aws.amazon.com/source_identity": "alice",
            "https://aws.amazon.com/roles": [role("restart-instance")],
        })
    }

    /// Asks for a role without any signature, as STS wants it.
    async fn assume(&self, changes: &[(&str, &str)], token: &str) -> Answered {
        let (arn, policy) = (role("restart-instance"), policy());
        let mut parameters = BTreeMap::from([
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &arn),
            ("RoleSessionName", "0193a5f2-7c1e-7cc0-9f2b-3f7f3a9d1c55"),
            ("WebIdentityToken", token),
            ("Policy", &policy),
            ("DurationSeconds", "900"),
        ]);
        parameters.extend(changes.iter().copied());
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let request = reqwest::Client::new().post(self.endpoint.clone());
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(body).send().await.unwrap();
        Answered { status: response.status().as_u16(), body: response.text().await.unwrap() }
    }

    async fn keys(&self, changes: &[(&str, &str)], claims: &Value) -> Keys {
        let answered = self.assume(changes, &self.key.sign("JWT", claims).unwrap()).await;
        assert_eq!(answered.status, 200, "{}", answered.body);
        let member = |name: &str| {
            let (_, rest) = answered.body.split_once(&format!("<{name}>")).unwrap();
            rest.split_once("</").unwrap().0.to_owned()
        };
        Keys::new(&member("AccessKeyId"), &member("SecretAccessKey"), &member("SessionToken"))
    }

    async fn reboot(&self, keys: &Keys, instance: &str) -> (u16, String) {
        let ask = Ask::query("ec2", "RebootInstances", &[("InstanceId.1", instance)]);
        let answered = self.client.call(keys, &ask).await.unwrap();
        (answered.status, answered.code().to_owned())
    }
}

fn denied() -> (u16, String) {
    (403, "UnauthorizedOperation".to_owned())
}

#[tokio::test]
async fn a_session_restarts_the_one_instance_until_its_window_ends() {
    let world = world().await;
    let keys = world.keys(&[], &world.claims()).await;
    let identity = world.client.call(&keys, &Ask::query("sts", "GetCallerIdentity", &[])).await.unwrap();
    let arn = "arn:aws:sts::111122223333:assumed-role/restart-instance/0193a5f2-7c1e-7cc0-9f2b-3f7f3a9d1c55";
    assert!(identity.status == 200 && identity.body.contains(arn), "{}", identity.body);
    assert_eq!(world.reboot(&keys, INSTANCES[0]).await, (200, String::new()));
    assert_eq!(world.reboot(&keys, INSTANCES[1]).await, denied());
    let both = [("InstanceId.1", INSTANCES[0]), ("InstanceId.2", INSTANCES[1])];
    let both = world.client.call(&keys, &Ask::query("ec2", "RebootInstances", &both)).await.unwrap();
    assert_eq!((both.status, both.code()), (403, "UnauthorizedOperation"), "all or none");
    let described = world.client.call(&keys, &Ask::query("ec2", "DescribeInstances", &[])).await.unwrap();
    assert_eq!((described.status, described.code()), (403, "UnauthorizedOperation"));
    assert_eq!((world.aws.restarts(INSTANCES[0]), world.aws.restarts(INSTANCES[1])), (1, 0));

    let trail = world.aws.trail.to_file();
    let [assumed, allowed, denied_event, ..] = trail["Records"].as_array().unwrap().as_slice() else {
        panic!()
    };
    assert_eq!(assumed["responseElements"]["assumedRoleUser"]["arn"], arn);
    assert_eq!(assumed["requestParameters"]["principalTags"]["tool"], "restart_instance");
    assert_eq!((&allowed["eventName"], &allowed["errorCode"]), (&json!("RebootInstances"), &Value::Null));
    assert_eq!(denied_event["errorCode"], "Client.UnauthorizedOperation");
    assert_eq!(denied_event["userIdentity"]["arn"], arn);
    assert_eq!(denied_event["userIdentity"]["sessionContext"]["sourceIdentity"], "alice");
    assert_eq!(denied_event["requestParameters"]["instancesSet"]["items"][0]["instanceId"], INSTANCES[1]);

    world.clock.advance(Duration::from_secs(299));
    assert_eq!(world.reboot(&keys, INSTANCES[0]).await.0, 200);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.reboot(&keys, INSTANCES[0]).await, denied(), "the keys live on, and can do nothing");
    world.clock.advance(Duration::from_secs(600));
    assert_eq!(world.reboot(&keys, INSTANCES[0]).await, (403, "ExpiredToken".to_owned()));
}

#[tokio::test]
async fn without_a_session_policy_the_role_is_the_limit() {
    let world = world().await;
    let wide = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    let keys = world.keys(&[("Policy", wide)], &world.claims()).await;
    assert_eq!(world.reboot(&keys, INSTANCES[1]).await.0, 200);
    assert_eq!(
        world.reboot(&keys, "i-00000000000000000").await,
        (400, "InvalidInstanceID.NotFound".to_owned())
    );
    let described = world.client.call(&keys, &Ask::query("ec2", "DescribeInstances", &[])).await.unwrap();
    assert!(INSTANCES.iter().all(|id| described.body.contains(id)), "{}", described.body);
    let body = json!({ "TableName": "deployments", "Key": { "service": { "S": "checkout" } } }).to_string();
    let item = Ask { service: "dynamodb", target: Some("DynamoDB_20120810.GetItem"), body };
    let item = world.client.call(&keys, &item).await.unwrap();
    assert_eq!((item.status, item.code()), (400, "AccessDeniedException"), "the role may not");
    let unknown = world.client.call(&keys, &Ask::query("sts", "GetSessionToken", &[])).await.unwrap();
    assert_eq!((unknown.status, unknown.code()), (400, "InvalidAction"));
}

#[tokio::test]
async fn a_session_reads_the_one_item() {
    let world = world().await;
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "dynamodb:GetItem",
          "Resource": "arn:aws:dynamodb:eu-central-1:111122223333:table/deployments",
          "Condition": { "ForAllValues:StringEquals": { "dynamodb:LeadingKeys": "checkout" },
                         "Null": { "dynamodb:LeadingKeys": "false" } } },
        { "Effect": "Deny", "Action": "dynamodb:GetItem", "Resource": "*",
          "Condition": { "ForAnyValue:StringNotEquals": { "dynamodb:LeadingKeys": "checkout" } } }
    ] })
    .to_string();
    let mut claims = world.claims();
    claims["sub"] = json!("template:dev:show-deployment");
    claims["https://aws.amazon.com/roles"] = json!([role("show-deployment")]);
    let keys = world.keys(&[("RoleArn", &role("show-deployment")), ("Policy", &policy)], &claims).await;
    for (table, key, status, code) in [
        ("deployments", "checkout", 200, ""),
        ("deployments", "search", 400, "AccessDeniedException"),
        ("salaries", "checkout", 400, "AccessDeniedException"),
    ] {
        let body = json!({ "TableName": table, "Key": { "service": { "S": key } } }).to_string();
        let ask = Ask { service: "dynamodb", target: Some("DynamoDB_20120810.GetItem"), body };
        let answered = world.client.call(&keys, &ask).await.unwrap();
        assert_eq!((answered.status, answered.code()), (status, code), "{table} {key}");
        assert_eq!(answered.body.contains("4.12.0"), status == 200);
    }
}

#[tokio::test]
async fn a_token_that_sts_would_refuse_gets_no_role() {
    let world = world().await;
    let changed = |pointer: &str, value: Value| {
        let mut claims = world.claims();
        claims.as_object_mut().unwrap().insert(pointer.to_owned(), value);
        claims
    };
    let tags = |tags: Value| changed("https://aws.amazon.com/tags", json!({ "principal_tags": tags }));
    for (claims, code) in [
        (changed("iss", json!("http://127.0.0.1:1/web-identity")), "InvalidIdentityToken"),
        (changed("aud", json!("another")), "AccessDenied"),
        (changed("aud", json!(["sts.amazonaws.com"])), "InvalidIdentityToken"),
        (changed("sub", json!("template:dev:show-deployment")), "AccessDenied"),
        (changed("sub", json!("template:acme:restart-instance")), "AccessDenied"),
        (changed("exp", json!(NOW)), "ExpiredTokenException"),
        (changed("nbf", json!(NOW + 60)), "InvalidIdentityToken"),
        (changed("iat", Value::Null), "InvalidIdentityToken"),
        (changed("https://aws.amazon.com/roles", json!([role("show-deployment")])), "AccessDenied"),
        (changed("https://aws.amazon.com/source_identity", json!("al ice")), "ValidationError"),
        (tags(json!({ "tool": "a" })), "InvalidIdentityToken"),
        (tags(json!({ "tool": ["a", "b"] })), "InvalidIdentityToken"),
        (tags(json!({ "tool": ["a".repeat(257)] })), "InvalidIdentityToken"),
    ] {
        let answered = world.assume(&[], &world.key.sign("JWT", &claims).unwrap()).await;
        assert_eq!(answered.code(), code, "{claims} {}", answered.body);
        assert!((400..500).contains(&answered.status));
    }
    let another = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    let forged = world.assume(&[], &another.sign("JWT", &world.claims()).unwrap()).await;
    assert_eq!(forged.code(), "InvalidIdentityToken");

    let token = world.key.sign("JWT", &world.claims()).unwrap();
    let long = format!("{}{}", policy(), " ".repeat(2048));
    for (change, code) in [
        (("RoleArn", "arn:aws:iam::111122223333:role/admin"), "AccessDenied"),
        (("RoleSessionName", "a b"), "ValidationError"),
        (("DurationSeconds", "899"), "ValidationError"),
        (("DurationSeconds", "3601"), "ValidationError"),
        (("Policy", "{}"), "MalformedPolicyDocument"),
        (("Policy", &long), "ValidationError"),
        (("PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/ReadOnlyAccess"), "InvalidParameterValue"),
        (("WebIdentityToken", "a.b.c"), "InvalidIdentityToken"),
    ] {
        assert_eq!(world.assume(&[change], &token).await.code(), code, "{change:?}");
    }
    assert_eq!(world.assume(&[], &token).await.status, 200, "nothing else was wrong with it");
}

#[tokio::test]
async fn a_request_that_is_not_signed_so_does_nothing() {
    let world = world().await;
    let keys = world.keys(&[], &world.claims()).await;
    let other = world.keys(&[], &world.claims()).await;
    let reboot = Ask::query("ec2", "RebootInstances", &[("InstanceId.1", INSTANCES[0])]);
    let (id, secret, token) = keys.parts();
    let (other_id, other_secret, other_token) = other.parts();
    for (keys, code) in [
        (Keys::new(id, other_secret, token), "SignatureDoesNotMatch"),
        (Keys::new(id, secret, other_token), "InvalidClientTokenId"),
        (Keys::new(other_id, secret, token), "InvalidClientTokenId"),
        (Keys::new("ASIAAAAAAAAAAAAAAAAA", secret, token), "InvalidClientTokenId"),
    ] {
        let answered = world.client.call(&keys, &reboot).await.unwrap();
        assert_eq!((answered.status, answered.code()), (403, code));
    }
    // For STS, and taken to EC2.
    let astray =
        Ask { service: "sts", ..Ask::query("ec2", "RebootInstances", &[("InstanceId.1", INSTANCES[0])]) };
    assert_eq!(world.client.call(&keys, &astray).await.unwrap().code(), "SignatureDoesNotMatch");
    // Recorded, and sent again later; or with another body.
    let early = Aws::at(world.endpoint.clone(), Arc::new(TestClock::at_seconds(NOW - 301))).unwrap();
    assert_eq!(early.call(&keys, &reboot).await.unwrap().code(), "SignatureDoesNotMatch");
    let unsigned = reqwest::Client::new().post(world.endpoint.clone()).body(reboot.body.clone());
    assert_eq!(unsigned.send().await.unwrap().status(), 403);
    assert_eq!(world.aws.restarts(INSTANCES[0]), 0);
    assert_eq!(world.client.call(&keys, &reboot).await.unwrap().status, 200);
}

#[test]
fn the_stand_in_knows_the_role_of_each_template_and_no_more() {
    let roles = templates::roles().unwrap();
    let files = templates::files("http://127.0.0.1:1/mcp");
    for (role, (name, text)) in roles.iter().zip(&files) {
        let file: deputize_issuer::templates::TemplateFile = serde_saphyr::from_str(text).unwrap();
        assert_eq!(
            (file.aws.role_arn.as_str(), format!("{}.yaml", file.name)),
            (role.arn.as_str(), (*name).to_owned())
        );
        assert_eq!(role.trusted_subject, format!("template:{}:{}", file.matching.tenant, file.name));
        assert_eq!((file.aws.account.as_str(), file.aws.region.as_str()), (ACCOUNT, REGION));
        assert_eq!(file.matching.server, "http://127.0.0.1:1/mcp");
    }
    assert_eq!(roles.len(), files.len());
}
