use super::*;
use crate::test_clock::TestClock;
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
    response::Response,
};
use deputize_call::jws::{EmbeddedKey, parse};
use http_body_util::BodyExt as _;
use openidconnect::core::CoreProviderMetadata;
use rstest::rstest;
use serde_json::Value;
use tower::ServiceExt as _;
use url::Url;

const ISSUER: &str = "http://127.0.0.1:7000";
const CALLBACK: &str = "http://127.0.0.1:50123/callback";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct Fixture {
    provider: Arc<IdentityProvider>,
    clock: Arc<TestClock>,
}

fn fixture() -> Fixture {
    let clock = Arc::new(TestClock::at_seconds(1_700_000_000));
    let client = |client_id: &str| PublicClient {
        client_id: client_id.to_owned(),
        redirect_paths: vec!["/callback".to_owned()],
    };
    let clients = vec![client("platform"), client("console")];
    let provider = IdentityProvider::new(ISSUER, clients, SigningAlgorithm::ES256, clock.clone()).unwrap();
    Fixture { provider: Arc::new(provider), clock }
}

const AUTHORIZE: [(&str, &str); 10] = [
    ("response_type", "code"),
    ("client_id", "platform"),
    ("redirect_uri", CALLBACK),
    ("scope", "openid email unheard-of"),
    ("state", "st"),
    ("nonce", "no"),
    ("code_challenge", CHALLENGE),
    ("code_challenge_method", "S256"),
    ("login_hint", "alice"),
    ("prompt", "none"),
];

/// The parameters with some changed; an empty value is as good as none (RFC 6749 §3.1).
fn changed<'a>(base: &[(&'a str, &'a str)], changes: &[(&'a str, &'a str)]) -> String {
    let kept = base.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).extend_pairs(changes).finish()
}

impl Fixture {
    async fn send(&self, request: Request<Body>) -> Response {
        self.provider.router().oneshot(request).await.unwrap()
    }
    async fn authorize(&self, query: &str) -> Response {
        self.send(Request::get(format!("/authorize?{query}")).body(Body::empty()).unwrap()).await
    }
    async fn code(&self) -> String {
        answer(&self.authorize(&changed(&AUTHORIZE, &[])).await, "code").unwrap()
    }
    async fn token(&self, code: &str, changes: &[(&str, &str)]) -> (StatusCode, Value) {
        let base = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("client_id", "platform"),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        let request = Request::post("/token")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(changed(&base, changes).into())
            .unwrap();
        let response = self.send(request).await;
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        (response.status(), json(response).await)
    }
}

fn answer(response: &Response, name: &str) -> Option<String> {
    let location = Url::parse(response.headers().get(header::LOCATION)?.to_str().unwrap()).unwrap();
    assert!(location.as_str().starts_with(CALLBACK), "{location}");
    location.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn json(response: Response) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

#[tokio::test]
async fn a_code_becomes_tokens_that_say_who_signed_in() {
    let fixture = fixture();
    let response = fixture.authorize(&changed(&AUTHORIZE, &[])).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(answer(&response, "state").as_deref(), Some("st"));
    assert_eq!(answer(&response, "iss").as_deref(), Some(ISSUER));
    fixture.clock.advance(Duration::from_secs(5));

    let (status, tokens) = fixture.token(&answer(&response, "code").unwrap(), &[]).await;
    assert_eq!(status, StatusCode::OK, "{tokens}");
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&"Bearer".into(), &3600.into()));
    assert_eq!(tokens["scope"], "openid email");

    let keys = KeySet::from_jwks(fixture.provider.jwks.to_string().as_bytes()).unwrap();
    let access = parse(tokens["access_token"].as_str().unwrap(), EmbeddedKey::Refused).unwrap();
    keys.verify(&access).unwrap();
    assert_eq!(access.header.typ.as_deref(), Some("at+jwt"));
    let id = parse(tokens["id_token"].as_str().unwrap(), EmbeddedKey::Refused).unwrap();
    keys.verify(&id).unwrap();
    assert_eq!(id.header.typ.as_deref(), Some("jwt"));
    let claims = Value::Object(id.claims);
    for (name, expected) in [
        ("iss", Value::from(ISSUER)),
        ("sub", "alice".into()),
        ("aud", "platform".into()),
        ("azp", "platform".into()),
        ("nonce", "no".into()),
        ("groups", vec!["support"].into()),
        ("amr", vec!["pwd"].into()),
        ("auth_time", 1_700_000_000_u64.into()),
        ("iat", 1_700_000_005_u64.into()),
        ("exp", 1_700_003_605_u64.into()),
    ] {
        assert_eq!(claims[name], expected, "{name}");
    }
}

#[tokio::test]
async fn a_code_is_good_once() {
    let fixture = fixture();
    let code = fixture.code().await;
    assert_eq!(fixture.token(&code, &[]).await.0, StatusCode::OK);
    let (status, refusal) = fixture.token(&code, &[]).await;
    assert_eq!((status, &refusal["error"]), (StatusCode::BAD_REQUEST, &"invalid_grant".into()));
}

#[tokio::test]
async fn a_code_is_good_for_a_minute() {
    let fixture = fixture();
    let (in_time, late) = (fixture.code().await, fixture.code().await);
    fixture.clock.advance(codes::CODE_LIFETIME - Duration::from_millis(1));
    assert_eq!(fixture.token(&in_time, &[]).await.0, StatusCode::OK);
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(fixture.token(&late, &[]).await.1["error"], "invalid_grant");
}

#[rstest]
#[case::other_verifier("code_verifier", "aBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "invalid_grant")]
#[case::challenge_as_verifier("code_verifier", CHALLENGE, "invalid_grant")]
#[case::no_verifier("code_verifier", "", "invalid_request")]
#[case::other_client("client_id", "console", "invalid_grant")]
#[case::other_port("redirect_uri", "http://127.0.0.1:50124/callback", "invalid_grant")]
#[case::no_redirect_uri("redirect_uri", "", "invalid_request")]
#[case::other_grant("grant_type", "password", "unsupported_grant_type")]
#[case::no_grant("grant_type", "", "invalid_request")]
#[case::made_up_code("code", "made-up", "invalid_grant")]
#[tokio::test]
async fn a_token_request_that_does_not_fit_its_code_is_refused(
    #[case] name: &str,
    #[case] value: &str,
    #[case] error: &str,
) {
    let fixture = fixture();
    let code = fixture.code().await;
    let (status, refusal) = fixture.token(&code, &[(name, value)]).await;
    assert_eq!((status, &refusal["error"]), (StatusCode::BAD_REQUEST, &error.into()));
}

#[tokio::test]
async fn a_guessed_verifier_spends_the_code() {
    let fixture = fixture();
    let code = fixture.code().await;
    fixture.token(&code, &[("code_verifier", CHALLENGE)]).await;
    assert_eq!(fixture.token(&code, &[]).await.1["error"], "invalid_grant");
}

#[rstest]
#[case::no_challenge(&[("code_challenge", "")], "invalid_request")]
#[case::plain_challenge(&[("code_challenge_method", "plain")], "invalid_request")]
#[case::default_method_is_plain(&[("code_challenge_method", "")], "invalid_request")]
#[case::short_challenge(&[("code_challenge", "E9Melhoa")], "invalid_request")]
#[case::implicit_flow(&[("response_type", "id_token")], "unsupported_response_type")]
#[case::no_openid(&[("scope", "email")], "invalid_scope")]
#[case::request_object(&[("request", "a.b.c")], "request_not_supported")]
#[case::fragment(&[("response_mode", "fragment")], "invalid_request")]
#[case::stranger(&[("login_hint", "mallory")], "login_required")]
#[case::nobody(&[("login_hint", "")], "login_required")]
#[tokio::test]
async fn a_bad_request_of_a_known_client_is_told_to_it(
    #[case] changes: &[(&str, &str)],
    #[case] error: &str,
) {
    let response = fixture().authorize(&changed(&AUTHORIZE, changes)).await;
    assert_eq!(answer(&response, "error").as_deref(), Some(error));
    assert_eq!(answer(&response, "state").as_deref(), Some("st"));
    assert_eq!(answer(&response, "code"), None);
}

#[rstest]
#[case::unknown_client("client_id", "mallory")]
#[case::no_client("client_id", "")]
#[case::no_redirect("redirect_uri", "")]
#[case::other_host("redirect_uri", "http://evil.example/callback")]
#[case::host_that_begins_alike("redirect_uri", "http://127.0.0.1.evil.example/callback")]
#[case::name_instead_of_address("redirect_uri", "http://localhost:50123/callback")]
#[case::user_info("redirect_uri", "http://127.0.0.1:50123@evil.example/callback")]
#[case::user_info_before("redirect_uri", "http://me@127.0.0.1:50123/callback")]
#[case::longer_path("redirect_uri", "http://127.0.0.1:50123/callback/more")]
#[case::path_walked("redirect_uri", "http://127.0.0.1:50123/x/../callback")]
#[case::query("redirect_uri", "http://127.0.0.1:50123/callback?x=1")]
#[case::fragment("redirect_uri", "http://127.0.0.1:50123/callback#x")]
#[case::https("redirect_uri", "https://127.0.0.1:50123/callback")]
#[case::script("redirect_uri", "javascript:alert(1)")]
#[tokio::test]
async fn nobody_is_redirected_while_the_target_is_in_doubt(#[case] name: &str, #[case] value: &str) {
    let response = fixture().authorize(&changed(&AUTHORIZE, &[(name, value)])).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(!response.headers().contains_key(header::LOCATION));
}

#[tokio::test]
async fn parameters_are_few_short_and_unique() {
    let fixture = fixture();
    let query = changed(&AUTHORIZE, &[]);
    for suffix in ["&state=again".to_owned(), format!("&x={}", "x".repeat(9000)), "&y".repeat(40)] {
        let response = fixture.authorize(&format!("{query}{suffix}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
    let code = fixture.code().await;
    let request = Request::post("/token")
        .header(header::CONTENT_TYPE, "application/json")
        .body(format!("grant_type=authorization_code&code={code}").into())
        .unwrap();
    assert_eq!(fixture.send(request).await.status(), StatusCode::BAD_REQUEST, "a form is due");
}

#[tokio::test]
async fn the_page_offers_every_user_and_reflects_no_markup() {
    let fixture = fixture();
    let hostile = "\"><script>alert(1)</script>";
    let query = changed(&AUTHORIZE, &[("prompt", ""), ("state", hostile), ("login_hint", "")]);
    let response = fixture.authorize(&query).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(
        response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'none'")
    );
    let page = text(response).await;
    assert!(!page.contains("<script"), "{page}");

    for user in &users::USERS {
        let marker = format!("login_hint={}&amp;prompt=none", user.name);
        let link =
            page.split('"').find(|part| part.contains(&marker)).unwrap_or_else(|| panic!("no link: {page}"));
        let query = link.strip_prefix("authorize?").unwrap().replace("&amp;", "&");
        let response = fixture.authorize(&query).await;
        assert_eq!(answer(&response, "state").as_deref(), Some(hostile));
        let (_, tokens) = fixture.token(&answer(&response, "code").unwrap(), &[]).await;
        let id = parse(tokens["id_token"].as_str().unwrap(), EmbeddedKey::Refused).unwrap().claims;
        assert_eq!(id["sub"], user.name);
    }
}

#[tokio::test]
async fn codes_are_bounded_and_room_returns() {
    let fixture = fixture();
    for _ in 0..codes::MAX_PENDING {
        fixture.code().await;
    }
    let full = fixture.authorize(&changed(&AUTHORIZE, &[])).await;
    assert_eq!(answer(&full, "error").as_deref(), Some("temporarily_unavailable"));
    fixture.clock.advance(codes::CODE_LIFETIME);
    fixture.code().await;
}

#[tokio::test]
async fn discovery_is_what_clients_expect() {
    let fixture = fixture();
    let request = Request::get("/.well-known/openid-configuration").body(Body::empty()).unwrap();
    let document = json(fixture.send(request).await).await;
    let metadata: CoreProviderMetadata = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(metadata.issuer().as_str(), ISSUER);
    assert_eq!(metadata.token_endpoint().unwrap().as_str(), format!("{ISSUER}/token"));
    assert_eq!(document["code_challenge_methods_supported"], Value::from(vec!["S256"]));
    let jwks = json(fixture.send(Request::get("/jwks").body(Body::empty()).unwrap()).await).await;
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 1);
    assert!(jwks["keys"][0].get("d").is_none(), "the private part stays here");
}

#[test]
fn user_tokens_live_as_long_as_asked_and_only_for_known_users() {
    let fixture = fixture();
    let lifetime = Duration::from_secs(90);
    let token = fixture.provider.issue_user_token("carol", "platform", lifetime).unwrap();
    let claims = parse(token.expose(), EmbeddedKey::Refused).unwrap().claims;
    assert_eq!(claims["groups"], Value::from(vec!["approver", "admin"]));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 90);
    assert!(!claims.contains_key("nonce"));
    assert!(matches!(
        fixture.provider.issue_user_token("mallory", "platform", lifetime),
        Err(IdentityProviderError::UnknownUser(_))
    ));
}
