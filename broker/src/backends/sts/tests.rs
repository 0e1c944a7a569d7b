//! STS as it answers, and as it must not: on loopback, in plain HTTP.

mod server;

use super::*;
use crate::{config::read, telemetry};
use deputize_issuer::{
    clock::TestClock,
    person::Person,
    templates::{Call, Template, TemplateFile},
};
use server::{Answer, Server};
use std::{collections::BTreeMap, io::Write, os::unix::fs::PermissionsExt as _, path::Path, sync::Mutex};
use url::form_urlencoded;
use uuid::Uuid;

const NOW: u64 = 1_800_000_000;
const TOKEN: &str = "canary-web-identity";

#[tokio::test]
async fn a_session_is_asked_for_unsigned_and_exactly() {
    let session = session();
    let server = Server::answering(vec![Answer::granted(&session)]).await;
    let given = asked(&sts(&server), &session).await.unwrap();
    assert_eq!(given.access_key_id, "ASIAIOSFODNN7EXAMPLE");
    assert_eq!(given.secret_access_key.expose(), "canary-secret/+=");
    assert_eq!(given.session_token.expose(), "canary-session/+=");
    assert_eq!((given.expires_at_seconds, given.packed_policy_percent), (NOW + 900, Some(42)));
    let arn = format!("arn:aws:sts::111122223333:assumed-role/restart-instance/{}", session.session_name);
    assert_eq!(given.assumed_role_arn, arn);

    let [request] = server.requests().try_into().unwrap();
    assert!(request.head.starts_with("post / http/1.1\r\n"), "{}", request.head);
    for signature in ["authorization:", "x-amz-security-token:", "proxy-"] {
        assert!(!request.head.contains(signature), "{}", request.head);
    }
    let form: BTreeMap<_, _> = form_urlencoded::parse(request.body.as_bytes()).into_owned().collect();
    let expected = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", "arn:aws:iam::111122223333:role/deputize/restart-instance"),
        ("RoleSessionName", session.session_name.as_str()),
        ("WebIdentityToken", TOKEN),
        ("Policy", session.policy.as_str()),
        ("DurationSeconds", "900"),
    ];
    let expected: BTreeMap<_, _> =
        expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(form, expected);
}

#[test]
fn the_environment_says_nothing() {
    // In a process of its own: variables are of the whole process. What is asked there must still be as it is here.
    let test = "backends::sts::tests::a_session_is_asked_for_unsigned_and_exactly";
    let nowhere = "http://127.0.0.1:1";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .envs([("AWS_ENDPOINT_URL", nowhere), ("AWS_ENDPOINT_URL_STS", nowhere), ("HTTP_PROXY", nowhere)])
        .envs([("http_proxy", nowhere), ("HTTPS_PROXY", nowhere), ("ALL_PROXY", nowhere)])
        .envs([
            ("AWS_ACCESS_KEY_ID", "AKIAHOSTILE"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_SESSION_TOKEN", "x"),
        ])
        .envs([("AWS_PROFILE", "hostile"), ("AWS_CONFIG_FILE", "/dev/null"), ("AWS_REGION", "us-west-1")])
        .envs([("AWS_USE_FIPS_ENDPOINT", "true"), ("AWS_USE_DUALSTACK_ENDPOINT", "true")])
        .envs([("AWS_STS_REGIONAL_ENDPOINTS", "legacy"), ("AWS_CA_BUNDLE", "/dev/null")])
        .envs([
            ("AWS_ROLE_ARN", "arn:aws:iam::999999999999:role/x"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/dev/null"),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn keys_from_files_sign_and_say_tags_and_person_themselves() {
    let session = session();
    let folder = tempfile::tempdir().unwrap();
    let keys = UserKeys {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_access_key_file: folder.path().join("secret"),
        session_token_file: Some(folder.path().join("token")),
    };
    private_file(&folder.path().join("secret"), "one\n");
    private_file(&folder.path().join("token"), "first\n");
    let server = Server::answering(vec![Answer::assumed(&session); 3]).await;
    let sts = sts_with(StsSettings { keys: Some(keys), ..settings(&server) });
    asked(&sts, &session).await.unwrap();
    // New ones hold from the next call on.
    private_file(&folder.path().join("token"), "second\n");
    asked(&sts, &session).await.unwrap();
    let [first, second] = server.requests().try_into().unwrap();
    for (request, token) in [(first, "first"), (second, "second")] {
        assert!(request.head.contains("authorization: aws4-hmac-sha256 credential=akiaiosfodnn7example/"));
        assert!(request.head.contains("/eu-central-1/sts/aws4_request"), "{}", request.head);
        assert!(request.head.contains(&format!("x-amz-security-token: {token}\r\n")), "{}", request.head);
        let form: BTreeMap<_, _> = form_urlencoded::parse(request.body.as_bytes()).into_owned().collect();
        let told = |name: &str| form.get(name).map(String::as_str);
        assert_eq!((told("Action"), told("WebIdentityToken")), (Some("AssumeRole"), None));
        assert_eq!(told("SourceIdentity"), Some("alice"));
        assert_eq!(
            (told("Tags.member.1.Key"), told("Tags.member.1.Value")),
            (Some("tool"), Some("restart_instance"))
        );
        assert_eq!(told("Policy"), Some(session.policy.as_str()));
    }
    // A file that others may read is not used.
    std::fs::set_permissions(folder.path().join("secret"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = asked(&sts, &session).await.unwrap_err();
    assert_eq!((refused, server.requests().len()), (StsRefusal::Other("KeysUnreadable".to_owned()), 2));
}

#[tokio::test]
async fn each_refusal_of_sts_has_its_word_and_only_some_are_tried_again() {
    use StsRefusal as R;
    let session = session();
    for (status, code, refusal, attempts) in [
        (400, "PackedPolicyTooLarge", R::PackedPolicyTooLarge, 1),
        (400, "MalformedPolicyDocument", R::MalformedPolicy, 1),
        (403, "AccessDenied", R::AccessDenied, 1),
        (400, "InvalidIdentityToken", R::InvalidIdentityToken, 1),
        (400, "ExpiredTokenException", R::ExpiredToken, 1),
        (400, "IDPCommunicationError", R::IdpCommunication, 2),
        (403, "IDPRejectedClaim", R::IdpRejectedClaim, 1),
        (403, "RegionDisabledException", R::RegionDisabled, 1),
        (400, "Throttling", R::Throttled, 2),
        (400, "RequestLimitExceeded", R::Throttled, 2),
        (503, "ServiceUnavailable", R::Unreachable, 2),
        (500, "InternalFailure", R::Unreachable, 2),
        (403, "InvalidClientTokenId", R::Other("InvalidClientTokenId".to_owned()), 1),
        (400, "ValidationError", R::Other("ValidationError".to_owned()), 1),
    ] {
        let server = Server::answering(vec![Answer::refused(status, code)]).await;
        assert_eq!(asked(&sts(&server), &session).await.unwrap_err(), refusal, "{code}");
        assert_eq!(server.requests().len(), attempts, "{code}");
    }
}

#[tokio::test]
async fn a_second_attempt_may_succeed_and_there_is_no_third() {
    let session = session();
    let throttled = || Answer::refused(400, "Throttling");
    let server = Server::answering(vec![throttled(), Answer::granted(&session)]).await;
    let given = asked(&sts(&server), &session).await.unwrap();
    assert_eq!((given.attempts, server.requests().len()), (2, 2));
    let server = Server::answering(vec![throttled(), throttled(), Answer::granted(&session)]).await;
    assert_eq!(asked(&sts(&server), &session).await.unwrap_err(), StsRefusal::Throttled);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn whoever_hangs_or_hangs_up_is_left_after_two_attempts() {
    let session = session();
    for (answer, refusal) in [(Answer::Hang, StsRefusal::Timeout), (Answer::HangUp, StsRefusal::Unreachable)]
    {
        let server = Server::answering(vec![answer]).await;
        assert_eq!(asked(&sts(&server), &session).await.unwrap_err(), refusal);
        assert_eq!(server.requests().len(), 2, "{refusal:?}");
    }
}

#[tokio::test]
async fn rubbish_is_rubbish() {
    let session = session();
    let elsewhere = Server::answering(vec![Answer::granted(&session)]).await;
    let granted = Answer::granted(&session).text();
    let xml = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for (name, answer) in [
        ("nothing", xml("")),
        ("a page", xml("<html><body>Welcome to the hotel's network</body></html>")),
        ("JSON", xml("{}")),
        ("half of it", xml("<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>")),
        (
            "nothing in it",
            xml(
                "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult/></AssumeRoleWithWebIdentityResponse>",
            ),
        ),
        ("too much", xml(&"x".repeat(70_000))),
        ("packed", granted.replacen("\r\n", "\r\ncontent-encoding: gzip\r\n", 1)),
        (
            "elsewhere",
            format!("HTTP/1.1 307 Moved\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.url()),
        ),
    ] {
        let server = Server::answering(vec![Answer::Text(answer)]).await;
        assert_eq!(asked(&sts(&server), &session).await.unwrap_err(), StsRefusal::Unintelligible, "{name}");
    }
    assert!(elsewhere.requests().is_empty(), "redirects are not followed");
}

#[tokio::test]
async fn an_answer_to_something_else_is_none() {
    let session = session();
    let good = Answer::granted(&session).text();
    let name = session.session_name.as_str();
    let beyond = server::moment(NOW + 900 + 61);
    for (was, is) in [
        (name, "another-session"),
        ("assumed-role/restart-instance", "assumed-role/administrator"),
        ("arn:aws:sts::111122223333", "arn:aws:sts::999999999999"),
        ("arn:aws:sts::", "arn:aws-cn:sts::"),
        ("ASIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
        ("ASIAIOSFODNN7EXAMPLE", "ASIA"),
        ("canary-secret/+=", "two lines\r"),
        ("canary-session/+=", ""),
        (&server::moment(NOW + 900), &server::moment(NOW)),
        (&server::moment(NOW + 900), &beyond),
        ("<PackedPolicySize>42", "<PackedPolicySize>101"),
        ("<SourceIdentity>alice", "<SourceIdentity>mallory"),
    ] {
        let text = server::sized(&good.replace(was, is));
        assert_ne!(text, good, "{was}");
        let server = Server::answering(vec![Answer::Text(text)]).await;
        assert_eq!(
            asked(&sts(&server), &session).await.unwrap_err(),
            StsRefusal::Unintelligible,
            "{was} → {is}"
        );
    }
    // Its neighbour: a clock that is a little ahead.
    let text = server::sized(&good.replace(&server::moment(NOW + 900), &server::moment(NOW + 960)));
    let server = Server::answering(vec![Answer::Text(text)]).await;
    assert_eq!(asked(&sts(&server), &session).await.unwrap().expires_at_seconds, NOW + 960);
}

#[tokio::test]
async fn each_account_has_its_rate() {
    let (session, other) = (session(), rendered("111122223333", "444455556666"));
    let server = Server::answering(vec![Answer::granted(&session), Answer::granted(&other)]).await;
    let sts = sts_with(StsSettings { calls_per_second: NonZeroU32::MIN, ..settings(&server) });
    asked(&sts, &session).await.unwrap();
    assert_eq!(asked(&sts, &session).await.unwrap_err(), StsRefusal::Throttled);
    asked(&sts, &other).await.unwrap();
    // Settings that are read again do not fill the bucket.
    sts.change(StsSettings { calls_per_second: NonZeroU32::MIN, ..settings(&server) }).unwrap();
    assert_eq!(asked(&sts, &session).await.unwrap_err(), StsRefusal::Throttled);
    assert_eq!(server.requests().len(), 2, "what is over the rate does not leave");
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_there_are_places() {
    let session = session();
    let server = Server::answering(vec![Answer::Hang]).await;
    let clock = Arc::new(TestClock::at_seconds(NOW));
    let sts = Sts::with_bounds(settings(&server), clock, (1, Duration::from_millis(200))).unwrap();
    let (first, second) = tokio::join!(asked(&sts, &session), asked(&sts, &session));
    assert_eq!(first.unwrap_err(), StsRefusal::Timeout);
    assert_eq!(second.unwrap_err(), StsRefusal::Throttled);
}

#[tokio::test]
async fn an_account_whose_calls_hang_does_not_stop_another() {
    let (session, other) = (session(), rendered("111122223333", "444455556666"));
    let server = Server::answering(vec![Answer::granted(&other), Answer::granted(&session)]).await;
    let sts = sts(&server);
    let hanging: Vec<_> = std::iter::from_fn(|| sts.places.take("111122223333")).take(MAX_CALLS).collect();
    assert_eq!(asked(&sts, &session).await.unwrap_err(), StsRefusal::Throttled);
    assert!(server.requests().is_empty(), "what has no place does not leave");
    asked(&sts, &other).await.unwrap();
    drop(hanging);
    asked(&sts, &session).await.unwrap();
}

#[tokio::test]
async fn an_address_inside_is_not_asked_unless_that_is_configured() {
    let session = session();
    let server = Server::answering(vec![Answer::granted(&session)]).await;
    let reach = Reach { allow_http: true, ..Reach::default() };
    let sts = sts_with(StsSettings { reach, ..settings(&server) });
    assert_eq!(asked(&sts, &session).await.unwrap_err(), StsRefusal::Unreachable);
    let reach = Reach { allow_private_addresses: true, ..Reach::default() };
    let sts = sts_with(StsSettings { reach, ..settings(&server) });
    assert_eq!(asked(&sts, &session).await.unwrap_err(), StsRefusal::Unreachable, "not https");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn what_is_secret_is_in_no_log_however_much_is_logged() {
    let lines = Lines::default();
    let writer = lines.clone();
    // While one dispatcher alone is alive, a callsite that another test's thread reaches first is off for good.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    let all = tracing_subscriber::EnvFilter::new("trace,aws_smithy_runtime::client::orchestrator=trace");
    let _guard = tracing::subscriber::set_default(telemetry::filtered(all, layer));
    let session = session();
    let server = Server::answering(vec![Answer::granted(&session)]).await;
    let sts = sts(&server);
    let given = asked(&sts, &session).await.unwrap();
    tracing::info!(?given, ?sts, "shown");
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("shown") && text.contains("TRACE"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn a_region_is_asked_at_its_own_endpoint() {
    let settings = |endpoint: Option<&str>| StsSettings {
        endpoint: endpoint.map(str::to_owned),
        reach: Reach::default(),
        calls_per_second: NonZeroU32::MIN,
        keys: None,
    };
    for (endpoint, role, expected) in [
        (None, "arn:aws:iam::1:role/r", "https://sts.eu-central-1.amazonaws.com"),
        (None, "arn:aws-cn:iam::1:role/r", "https://sts.eu-central-1.amazonaws.com.cn"),
        (Some("https://sts.inside/{region}"), "arn:aws:iam::1:role/r", "https://sts.inside/eu-central-1"),
    ] {
        let mut session = session();
        session.role_arn = role.to_owned();
        assert_eq!(call::endpoint(&settings(endpoint), &session), expected);
    }
}

async fn asked(sts: &Sts, session: &RenderedSession) -> Result<RoleCredentials, StsRefusal> {
    sts.ask(session, &Secret::new(TOKEN.to_owned())).await
}

fn sts(server: &Server) -> Sts {
    sts_with(settings(server))
}

/// Patient enough for a busy machine, but for those that hang on purpose.
fn sts_with(settings: StsSettings) -> Sts {
    let clock = Arc::new(TestClock::at_seconds(NOW));
    Sts::with_bounds(settings, clock, (MAX_CALLS, Duration::from_millis(1000))).unwrap()
}

fn settings(server: &Server) -> StsSettings {
    StsSettings {
        endpoint: Some(server.url()),
        reach: Reach { allow_private_addresses: true, allow_http: true, ca_file: None },
        calls_per_second: NonZeroU32::new(1000).unwrap(),
        keys: None,
    }
}

fn session() -> RenderedSession {
    rendered("", "")
}

/// What the example's template renders, with a replacement in its text.
fn rendered(was: &str, is: &str) -> RenderedSession {
    let example = "deploy/example/templates/restart-instance.yaml";
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(example);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("template.yaml");
    std::fs::write(&file, std::fs::read_to_string(example).unwrap().replace(was, is)).unwrap();
    let template = Template::check(read::read_yaml::<TemplateFile>(&file).unwrap()).unwrap();
    let person = Person {
        tenant: "acme".to_owned(),
        issuer: "https://id.example.com".to_owned(),
        sub: Person::encode_sub("acme", "https://id.example.com", "alice"),
        groups: Vec::new(),
        roles: vec!["operator".to_owned()],
        claims: BTreeMap::new(),
        acr: None,
        amr: Vec::new(),
        auth_time: None,
    };
    let arguments = serde_json::json!({ "instance_id": "i-0123456789abcdef0" });
    let call = Call {
        server: "https://ops.example.com/mcp",
        server_region: None,
        tool: "restart_instance",
        person: &person,
        client: "platform",
        chain_depth: 1,
        arguments: arguments.as_object().unwrap(),
        transaction: "txn-1",
        decision: Uuid::from_u128(7),
    };
    template.render(&call, &TestClock::at_seconds(NOW)).unwrap()
}

fn private_file(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Lines of the log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
