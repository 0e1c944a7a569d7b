//! The stand-in for AWS is as strict as STS: each thing that it checks is spoilt once, with a token made by hand, and it
//! says no with STS's own code. What is shown here of the stand-in is what the suites of AWS sessions rest on.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

use deputize_conformance::{
    forge::{self, Key, now, unique},
    identity::{Document, IdentityServer, jwks},
    stand_in::{self, ACCOUNT, BUCKET, REGION, SKEW_SECONDS, StandIn, StsAnswer, element, role, role_arn},
    trust::Authority,
    wire::Request,
};
use serde_json::{Value, json};
use std::process::Command;

/// A stand-in, a provider that it knows, and a token that is good until it is spoilt.
struct Rig {
    stand_in: StandIn,
    identity: IdentityServer,
    issuer: String,
    key: Key,
}

impl Rig {
    async fn start() -> Self {
        let authority = Authority::new();
        let identity = IdentityServer::start(&authority).await;
        let (issuer, key) = (identity.issuer("web-identity"), Key::es256());
        identity.publish("web-identity", jwks(&[&key]));
        let stand_in = StandIn::start(&authority, &[role("restart", &issuer, SUBJECT)]).await;
        stand_in.register(&issuer, &["sts.amazonaws.com"]).await;
        Self { stand_in, identity, issuer, key }
    }

    fn claims(&self, changes: &Value) -> Value {
        let mut claims = json!({
            "iss": self.issuer, "sub": SUBJECT, "aud": "sts.amazonaws.com", "iat": now(), "nbf": now(),
            "exp": now() + 60, "jti": unique(), SOURCE_IDENTITY: "alice", ROLES: [role_arn("restart")],
            TAGS: { "principal_tags": { "tool": ["restart_instance"] }, "transitive_tag_keys": [] },
        });
        change(&mut claims, changes);
        claims
    }

    fn token(&self, changes: &Value) -> String {
        self.key.token("JWT", &self.claims(changes))
    }

    /// A form with this token and these changes.
    fn form(&self, token: &str, changes: &Value) -> Vec<(String, String)> {
        let mut form = json!({
            "Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": role_arn("restart"),
            "RoleSessionName": "01a200b7-4318-7d1f-93a2-4e9a464e9651", "WebIdentityToken": token,
            "DurationSeconds": "900", "Policy": self.policy(&self.stand_in.instances[0], now() + 300).to_string(),
        });
        change(&mut form, changes);
        let pairs = form.as_object().unwrap().iter();
        pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
    }

    async fn ask(&self, token: &str, changes: &Value) -> StsAnswer {
        self.stand_in.ask(&self.form(token, changes)).await
    }

    /// What a session may do: restart this instance, until then.
    fn policy(&self, instance: &str, end: i64) -> Value {
        let resource = format!("arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance}");
        let end = end.to_string();
        json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": "ec2:RebootInstances", "Resource": resource },
            { "Effect": "Deny", "Action": "*", "Resource": "*",
              "Condition": { "DateGreaterThanEquals": { "aws:CurrentTime": end } } },
            { "Effect": "Deny", "NotAction": "ec2:RebootInstances", "Resource": "*" },
            { "Effect": "Deny", "Action": "ec2:RebootInstances", "NotResource": resource },
        ] })
    }

    /// Each of these is refused with its code, and the honest neighbour after all of them is not.
    async fn refuses(&self, cases: Vec<(&str, String, Value, &str)>) {
        for (what, token, form, code) in cases {
            let answer = self.ask(&token, &form).await;
            assert_eq!(answer.code, code, "{what}: {}", answer.body);
            assert!((400..500).contains(&answer.status), "{what}: {}", answer.status);
            assert!(!answer.body.contains("SecretAccessKey"), "{what}");
        }
        let honest = self.ask(&self.token(&json!({})), &json!({})).await;
        assert_eq!((honest.status, honest.code.as_str()), (200, ""), "{}", honest.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_claim_of_a_token_is_looked_at() {
    let rig = Rig::start().await;
    let other_arn = role_arn("other");
    let tags = |tags: Value| json!({ TAGS: { "principal_tags": tags, "transitive_tag_keys": [] } });
    let fifty_one: Value =
        (0..51).map(|n| (format!("tag{n}"), json!(["x"]))).collect::<serde_json::Map<_, _>>().into();
    let spoilt = [
        ("no issuer", json!({ "iss": null }), INVALID),
        ("an issuer that nobody registered", json!({ "iss": rig.identity.issuer("other") }), INVALID),
        ("the issuer with a slash more", json!({ "iss": format!("{}/", rig.issuer) }), INVALID),
        ("no subject", json!({ "sub": null }), INVALID),
        ("a subject that is a number", json!({ "sub": 7 }), INVALID),
        ("a subject too short", json!({ "sub": "alice" }), INVALID),
        ("a subject too long", json!({ "sub": "s".repeat(256) }), INVALID),
        ("no audience", json!({ "aud": null }), INVALID),
        ("another audience", json!({ "aud": "https://crm.acme.test/mcp" }), INVALID),
        ("two audiences and no azp", json!({ "aud": ["sts.amazonaws.com", "x"] }), INVALID),
        ("an azp that is not registered", json!({ "azp": "x" }), INVALID),
        ("an azp registered, an audience not", json!({ "aud": "x", "azp": "sts.amazonaws.com" }), INVALID),
        ("no expiry", json!({ "exp": null }), INVALID),
        ("expired", json!({ "exp": now() - SKEW_SECONDS - 1 }), "ExpiredTokenException"),
        ("an expiry with a fraction", json!({ "exp": now() as f64 + 60.5 }), INVALID),
        ("an expiry that is text", json!({ "exp": (now() + 60).to_string() }), INVALID),
        ("no time of issue", json!({ "iat": null }), INVALID),
        ("issued in the future", json!({ "iat": now() + 600 }), INVALID),
        ("not valid yet", json!({ "nbf": now() + 600 }), INVALID),
        ("tags that are a list", json!({ TAGS: [] }), INVALID),
        ("tags of an unknown kind", json!({ TAGS: { "principal_tags": {}, "tags": {} } }), INVALID),
        ("a tag that is a text", tags(json!({ "tool": "x" })), INVALID),
        ("a tag without a value", tags(json!({ "tool": [] })), INVALID),
        ("a tag of two values", tags(json!({ "tool": ["x", "y"] })), INVALID),
        ("a tag that is a number", tags(json!({ "tool": [1] })), INVALID),
        ("tag keys that are equal but for case", tags(json!({ "tool": ["x"], "Tool": ["x"] })), INVALID),
        ("a tag key of AWS's own", tags(json!({ "aws:tool": ["x"] })), INVALID),
        ("a tag key with a comma", tags(json!({ "a,b": ["x"] })), INVALID),
        ("a tag key too long", tags(json!({ "k".repeat(129): ["x"] })), INVALID),
        ("a tag value too long", tags(json!({ "tool": ["v".repeat(257)] })), INVALID),
        ("a tag value with an asterisk", tags(json!({ "tool": ["*"] })), INVALID),
        ("fifty-one tags", tags(fifty_one), INVALID),
        (
            "a transitive key that is no tag's",
            json!({ TAGS: { "principal_tags": {}, "transitive_tag_keys": ["tool"] } }),
            INVALID,
        ),
        ("a source identity too short", json!({ SOURCE_IDENTITY: "a" }), INVALID),
        ("a source identity too long", json!({ SOURCE_IDENTITY: "a".repeat(65) }), INVALID),
        ("a source identity with a colon", json!({ SOURCE_IDENTITY: "acme:alice" }), INVALID),
        ("a source identity of another script", json!({ SOURCE_IDENTITY: "аlice" }), INVALID),
        ("a source identity that is a list", json!({ SOURCE_IDENTITY: ["alice"] }), INVALID),
        ("other roles", json!({ ROLES: [other_arn] }), INVALID),
        ("no roles at all", json!({ ROLES: [] }), INVALID),
        ("a role with a wildcard", json!({ ROLES: format!("arn:aws:iam::{ACCOUNT}:role/*") }), INVALID),
    ];
    let cases = spoilt.into_iter().map(|(what, claims, code)| (what, rig.token(&claims), json!({}), code));
    rig.refuses(cases.collect()).await;
    for claims in [
        json!({ "nbf": null }),
        json!({ TAGS: null }),
        json!({ SOURCE_IDENTITY: null }),
        json!({ ROLES: null }),
        json!({ ROLES: role_arn("restart") }),
        json!({ "aud": ["sts.amazonaws.com"] }),
        json!({ "aud": ["sts.amazonaws.com", "x"], "azp": "sts.amazonaws.com" }),
        json!({ "exp": now() - 1 }),
    ] {
        let answer = rig.ask(&rig.token(&claims), &json!({})).await;
        assert_eq!(answer.status, 200, "{claims}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_signature_and_header_is_looked_at() {
    let rig = Rig::start().await;
    let (rsa, edwards, stranger) = (Key::rs256(), Key::ed25519(), Key::es256());
    let for_encryption = Key::es256();
    let mut encryption = for_encryption.jwk();
    encryption["use"] = json!("enc");
    let published = [rig.key.jwk(), rsa.jwk(), edwards.jwk(), encryption];
    rig.identity.publish("web-identity", Document::Json(json!({ "keys": published })));
    let claims = rig.claims(&json!({}));
    let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid, "typ": "JWT" });
    let own = header("ES256", &rig.key.kid);
    let good = rig.key.token("JWT", &claims);
    let (input, signature) = good.rsplit_once('.').unwrap();
    let forged = [
        ("no signature", forge::token_with_signature(&header("none", &rig.key.kid), &claims, b"")),
        ("alg none over a good one", rig.key.token_with(&header("none", &rig.key.kid), &claims)),
        (
            "an HMAC under the public key",
            forge::hmac_token(&header("HS256", &rig.key.kid), &claims, &rig.key.public_der()),
        ),
        ("EdDSA, which STS does not take", edwards.token("JWT", &claims)),
        ("PS256 under an RSA key", rsa.token_with(&header("PS256", &rsa.kid), &claims)),
        ("RS256 under an elliptic key", rig.key.token_with(&header("RS256", &rig.key.kid), &claims)),
        ("a stranger's key", stranger.token("JWT", &claims)),
        ("a stranger's key under our kid", stranger.token_with(&own, &claims)),
        ("a key that is for encryption", for_encryption.token("JWT", &claims)),
        ("no kid where there are several keys", rig.key.token_with(&json!({ "alg": "ES256" }), &claims)),
        (
            "critical extensions",
            rig.key.token_with(
                &json!({ "alg": "ES256", "kid": rig.key.kid, "crit": ["b64"], "b64": true }),
                &claims,
            ),
        ),
        (
            "a stranger's key that is brought along",
            stranger
                .token_with(&json!({ "alg": "ES256", "kid": stranger.kid, "jwk": stranger.jwk() }), &claims),
        ),
        (
            "another's claims under this signature",
            format!(
                "{}.{signature}",
                rig.token(&json!({ "sub": "template:acme:other" })).rsplit_once('.').unwrap().0
            ),
        ),
        ("half a signature", format!("{input}.{}", &signature[..43])),
        (
            "a claim that stands twice",
            rig.key.token_of_text(
                &own.to_string(),
                &claims.to_string().replacen('{', "{\"sub\":\"template:acme:other\",", 1),
            ),
        ),
        ("claims that are a list", rig.key.token_of_text(&own.to_string(), "[]")),
        ("no JSON", rig.key.token_of_text(&own.to_string(), "claims")),
        ("two parts", input.to_owned()),
        ("four parts", format!("{good}.x")),
        ("no token", "opaque-access-token".to_owned()),
    ];
    let cases = forged.into_iter().map(|(what, token)| (what, token, json!({}), INVALID));
    rig.refuses(cases.collect()).await;
    let too_long = format!("{good}{}", "x".repeat(20_000));
    assert_eq!(rig.ask(&too_long, &json!({})).await.code, "ValidationError");
    for typ in ["JWT", "at+jwt"] {
        for key in [&rig.key, &rsa] {
            let answer = rig.ask(&key.token(typ, &rig.claims(&json!({}))), &json!({})).await;
            assert_eq!(answer.status, 200, "typ plays no part: {}", answer.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_parameter_is_looked_at() {
    let rig = Rig::start().await;
    let statement = |changes: Value| {
        let mut statement = json!({ "Effect": "Allow", "Action": "ec2:*", "Resource": "*" });
        change(&mut statement, &changes);
        json!({ "Policy": json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string() })
    };
    let (long, exact) = (" ".repeat(2049), "x".repeat(65));
    let policy = rig.policy("i-1", now() + 300).to_string();
    let spoilt = [
        ("no role", json!({ "RoleArn": null }), VALIDATION),
        ("a role that is none", json!({ "RoleArn": "arn:aws:iam::111122223333:user/alice" }), VALIDATION),
        ("a role that is unknown", json!({ "RoleArn": role_arn("other") }), INVALID),
        ("no session name", json!({ "RoleSessionName": null }), VALIDATION),
        ("a session name of one letter", json!({ "RoleSessionName": "a" }), VALIDATION),
        ("a session name too long", json!({ "RoleSessionName": exact }), VALIDATION),
        ("a session name with a space", json!({ "RoleSessionName": "a b" }), VALIDATION),
        ("a session name with a colon", json!({ "RoleSessionName": "a:b" }), VALIDATION),
        ("a session name of another script", json!({ "RoleSessionName": "аlice" }), VALIDATION),
        ("no token", json!({ "WebIdentityToken": null }), VALIDATION),
        ("899 seconds", json!({ "DurationSeconds": "899" }), VALIDATION),
        ("43,201 seconds", json!({ "DurationSeconds": "43201" }), VALIDATION),
        ("more seconds than the role's", json!({ "DurationSeconds": "3601" }), VALIDATION),
        ("seconds with a sign", json!({ "DurationSeconds": "+900" }), VALIDATION),
        ("an empty policy", json!({ "Policy": "" }), VALIDATION),
        ("a policy too long", json!({ "Policy": format!("{policy}{long}") }), VALIDATION),
        ("a policy beyond Latin-1", json!({ "Policy": policy.replace("i-1", "і-1") }), VALIDATION),
        ("a policy that is no JSON", json!({ "Policy": "{" }), MALFORMED),
        ("a policy without statements", json!({ "Policy": "{}" }), MALFORMED),
        ("a statement without an effect", statement(json!({ "Effect": null })), MALFORMED),
        ("a statement without a resource", statement(json!({ "Resource": null })), MALFORMED),
        ("a resource that is no ARN", statement(json!({ "Resource": "i-1" })), MALFORMED),
        ("an action without a service", statement(json!({ "Action": "Reboot" })), MALFORMED),
        ("a principal", statement(json!({ "Principal": "*" })), MALFORMED),
        (
            "an unknown operator",
            statement(json!({ "Condition": { "StringIs": { "aws:userid": "x" } } })),
            MALFORMED,
        ),
        (
            "a date that is none",
            statement(json!({ "Condition": { "DateLessThan": { "aws:CurrentTime": "soon" } } })),
            MALFORMED,
        ),
        ("an OAuth provider", json!({ "ProviderId": "www.amazon.com" }), VALIDATION),
        ("tags beside the token", json!({ "Tags.member.1.Key": "tool" }), VALIDATION),
        ("a source identity beside the token", json!({ "SourceIdentity": "alice" }), VALIDATION),
        ("another version", json!({ "Version": "2010-05-08" }), "InvalidAction"),
        ("another action", json!({ "Action": "AssumeRoleWithSAML" }), "InvalidAction"),
    ];
    let cases = spoilt.into_iter().map(|(what, form, code)| (what, rig.token(&json!({})), form, code));
    rig.refuses(cases.collect()).await;

    let form = rig.form(&rig.token(&json!({})), &json!({}));
    let query = Request { method: "GET".into(), ..Request::form("/", &form) };
    assert_eq!(rig.stand_in.say(&query).await.code, VALIDATION, "a token has no place in a URL or a GET");
    let mut twice = form.clone();
    twice.push(("RoleArn".to_owned(), role_arn("other")));
    assert_eq!(rig.stand_in.ask(&twice).await.code, VALIDATION, "a parameter that stands twice");
    let mut signed = Request::form("/", &form);
    signed.headers.push(("authorization".into(), "AWS4-HMAC-SHA256 Credential=x".into()));
    assert_eq!(rig.stand_in.say(&signed).await.code, VALIDATION, "who brings a token has no keys of AWS");

    let tag = |n: usize| (format!("tag{n}"), json!([(0..11).map(|_| unique()).collect::<String>()]));
    let tags: Value = (0..50).map(tag).collect::<serde_json::Map<_, _>>().into();
    let many = json!({ TAGS: { "principal_tags": tags, "transitive_tag_keys": [] } });
    assert_eq!(rig.ask(&rig.token(&many), &json!({})).await.code, "PackedPolicyTooLarge");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_says_whom_it_trusts() {
    let rig = Rig::start().await;
    let trusting = |change: &dyn Fn(&mut Value)| {
        let mut role = role("restart", &rig.issuer, SUBJECT);
        change(&mut role["trust"]["Statement"][0]);
        role
    };
    let provider = rig.issuer.trim_start_matches("https://").to_owned();
    let of = |key: &str| format!("{provider}:{key}");
    let roles = [
        (
            "another subject",
            trusting(&|it| it["Condition"]["StringEquals"][of("sub")] = json!("template:acme:other")),
        ),
        ("another audience", trusting(&|it| it["Condition"]["StringEquals"][of("aud")] = json!("x"))),
        (
            "another provider",
            trusting(&|it| {
                it["Principal"]["Federated"] =
                    json!(format!("arn:aws:iam::{ACCOUNT}:oidc-provider/other.test"));
            }),
        ),
        (
            "another account's provider",
            trusting(&|it| {
                it["Principal"]["Federated"] =
                    json!(format!("arn:aws:iam::444455556666:oidc-provider/{provider}"));
            }),
        ),
        (
            "no tags",
            trusting(&|it| it["Action"] = json!(["sts:AssumeRoleWithWebIdentity", "sts:SetSourceIdentity"])),
        ),
        (
            "no identity",
            trusting(&|it| it["Action"] = json!(["sts:AssumeRoleWithWebIdentity", "sts:TagSession"])),
        ),
        ("others alone", trusting(&|it| it["Action"] = json!("sts:AssumeRole"))),
        ("nobody", trusting(&|it| it["Effect"] = json!("Deny"))),
        ("other tags", trusting(&|it| it["Condition"]["StringEquals"]["aws:RequestTag/tool"] = json!("x"))),
        (
            "others' sessions",
            trusting(&|it| it["Condition"]["StringEquals"]["sts:SourceIdentity"] = json!("bob")),
        ),
    ];
    for (what, role) in roles {
        rig.stand_in.know(&role).await;
        let answer = rig.ask(&rig.token(&json!({})), &json!({})).await;
        assert_eq!(
            (answer.status, answer.code.as_str()),
            (403, "AccessDenied"),
            "trusts {what}: {}",
            answer.body
        );
    }
    let pinned = trusting(&|it| it["Condition"]["Bool"] = json!({ "sts:RoleAuthorizedByIdp": "true" }));
    rig.stand_in.know(&pinned).await;
    let unpinned = rig.ask(&rig.token(&json!({ ROLES: null })), &json!({})).await;
    assert_eq!(unpinned.code, "AccessDenied", "a role may demand that tokens name it");
    assert_eq!(rig.ask(&rig.token(&json!({})), &json!({})).await.status, 200);
    let unknown = json!({ "RoleArn": role_arn("other") });
    assert_eq!(rig.ask(&rig.token(&json!({ ROLES: null })), &unknown).await.code, "AccessDenied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_is_asked_as_openid_connect_discovery_says() {
    let rig = Rig::start().await;
    let path = "/web-identity/.well-known/openid-configuration";
    let discovery = |change: Value| {
        let issuer = &rig.issuer;
        let mut document = json!({
            "issuer": issuer, "jwks_uri": format!("{issuer}/jwks"), "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
        });
        self::change(&mut document, &change);
        Document::Json(document)
    };
    let mut private = rig.key.jwk();
    private["d"] = json!("x");
    let ill = [
        ("is down", path, Document::Down, "IDPCommunicationError"),
        ("redirects", path, Document::Redirect(format!("{}/elsewhere", rig.issuer)), "IDPCommunicationError"),
        (
            "answers rubbish",
            path,
            Document::Bytes("text/html", Vec::new(), b"<p>".to_vec()),
            "IDPCommunicationError",
        ),
        (
            "answers too much",
            path,
            Document::Bytes("application/json", Vec::new(), vec![b' '; 300_000]),
            "IDPCommunicationError",
        ),
        ("names another issuer", path, discovery(json!({ "issuer": "https://other.test" })), INVALID),
        ("has no key set", path, discovery(json!({ "jwks_uri": null })), INVALID),
        (
            "has its keys on http",
            path,
            discovery(json!({ "jwks_uri": rig.issuer.replace("https", "http") })),
            INVALID,
        ),
        (
            "names no algorithms",
            path,
            discovery(json!({ "id_token_signing_alg_values_supported": null })),
            INVALID,
        ),
        ("has no keys", "/web-identity/jwks", Document::Json(json!({ "keys": [] })), INVALID),
        ("has a key set that is none", "/web-identity/jwks", Document::Json(json!({})), INVALID),
        ("shows private keys", "/web-identity/jwks", Document::Json(json!({ "keys": [private] })), INVALID),
    ];
    for (what, at, document, code) in ill {
        rig.identity.publish("web-identity", jwks(&[&rig.key]));
        rig.identity.set(at, document);
        // Registered anew, nothing is known of it.
        rig.stand_in.register(&rig.issuer, &["sts.amazonaws.com"]).await;
        let answer = rig.ask(&rig.token(&json!({})), &json!({})).await;
        assert_eq!(answer.code, code, "a provider that {what}: {}", answer.body);
    }
    rig.identity.publish("web-identity", jwks(&[&rig.key]));
    rig.stand_in.register(&rig.issuer, &["sts.amazonaws.com"]).await;
    let fetched = rig.identity.fetches("/web-identity/jwks");
    for _ in 0..3 {
        assert_eq!(rig.ask(&rig.token(&json!({})), &json!({})).await.status, 200);
    }
    assert_eq!(rig.identity.fetches("/web-identity/jwks"), fetched + 1, "keys are kept");
    let next = Key::es256();
    rig.identity.publish("web-identity", jwks(&[&rig.key, &next]));
    let early = rig.ask(&next.token("JWT", &rig.claims(&json!({}))), &json!({})).await;
    assert_eq!(early.code, INVALID, "a key that was not published long before it signs is not known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sts_can_be_made_ill() {
    let rig = Rig::start().await;
    for (kind, status, code) in [
        ("throttle", 400, "Throttling"),
        ("deny", 403, "AccessDenied"),
        ("region", 403, "RegionDisabledException"),
        ("claim", 403, "IDPRejectedClaim"),
        ("rubbish", 200, ""),
    ] {
        rig.stand_in.ill(kind, 2).await;
        for _ in 0..2 {
            let answer = rig.ask(&rig.token(&json!({})), &json!({})).await;
            assert_eq!((answer.status, answer.code.as_str()), (status, code), "{}", answer.body);
            assert!(!answer.body.contains("AccessKeyId"));
        }
        assert_eq!(rig.ask(&rig.token(&json!({})), &json!({})).await.status, 200, "well again after {kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_can_do_what_its_policy_says_and_the_emulator_and_the_gate_both_say_no() {
    let rig = Rig::start().await;
    let [first, second] = rig.stand_in.instances.clone();
    let keys = rig.ask(&rig.token(&json!({})), &json!({})).await.body;
    let both = [first.as_str(), second.as_str()];
    let in_window = restart(&rig, &keys, &rig.stand_in.endpoint, &both);
    assert_eq!(in_window["restarts"], json!(["ok", "UnauthorizedOperation"]));
    assert!(in_window["arn"].as_str().unwrap().contains("assumed-role/restart/01a200b7"), "{in_window}");
    let unguarded = restart(&rig, &keys, &rig.stand_in.emulator, &both);
    assert_eq!(
        unguarded["restarts"],
        json!(["ok", "UnauthorizedOperation"]),
        "the emulator holds to it by itself"
    );

    rig.stand_in.set_clock(301).await;
    assert_eq!(
        restart(&rig, &keys, &rig.stand_in.endpoint, &both[..1])["restarts"],
        json!(["UnauthorizedOperation"])
    );
    rig.stand_in.set_clock(901).await;
    let expired = restart(&rig, &keys, &rig.stand_in.endpoint, &both[..1]);
    assert_eq!(expired["restarts"], json!(["RequestExpired"]), "and the credentials end with STS's own time");
    rig.stand_in.set_clock(0).await;

    let forged = keys.replace(&element(&keys, "SecretAccessKey"), "another-secret");
    let forged = restart(&rig, &forged, &rig.stand_in.endpoint, &both[..1]);
    assert_eq!(forged["restarts"], json!(["AuthFailure"]), "signatures count");
    let past = json!({ "Policy": rig.policy(&first, now() - 1).to_string() });
    let past = rig.ask(&rig.token(&json!({})), &past).await.body;
    let ended = restart(&rig, &past, &rig.stand_in.emulator, &both[..1]);
    assert_eq!(ended["restarts"], json!(["UnauthorizedOperation"]), "the emulator ends the window by itself");

    let reader = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": "s3:GetObject",
        "Resource": format!("arn:aws:s3:::{BUCKET}/acme/*") }] });
    let reader = rig.ask(&rig.token(&json!({})), &json!({ "Policy": reader.to_string() })).await.body;
    let listed = program(&rig, &reader, &rig.stand_in.endpoint)
        .args(["-c", "import boto3; print(boto3.client('s3').list_objects_v2(Bucket='conformance-reports'))"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&listed.stderr).contains("AccessDenied"), "reading is not listing");
}

#[test]
fn the_stand_ins_evaluator_of_policies_is_right() {
    let ran = Command::new(stand_in::python())
        .args(["-m", "unittest", "--quiet"])
        .current_dir(stand_in::programs())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success() && said.contains("Ran 1"), "{said}");
}

/// boto3 with the credentials of an answer of STS tries to restart these instances.
fn restart(rig: &Rig, keys: &str, endpoint: &str, instances: &[&str]) -> Value {
    let mut command = program(rig, keys, endpoint);
    let ran = command
        .arg(stand_in::programs().join("programs/restart.py"))
        .arg("1")
        .args(instances)
        .output()
        .unwrap();
    serde_json::from_slice(&ran.stdout)
        .unwrap_or_else(|_| json!({ "failed": String::from_utf8_lossy(&ran.stderr) }))
}

fn program(rig: &Rig, keys: &str, endpoint: &str) -> Command {
    let mut command = rig.stand_in.program(&stand_in::python());
    command
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ACCESS_KEY_ID", element(keys, "AccessKeyId"))
        .env("AWS_SECRET_ACCESS_KEY", element(keys, "SecretAccessKey"))
        .env("AWS_SESSION_TOKEN", element(keys, "SessionToken"));
    command
}

/// Sets members; `null` takes one away.
fn change(object: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
            value => object[name] = value.clone(),
        }
    }
}

const SUBJECT: &str = "template:acme:restart-instance";
const TAGS: &str = "https://aws.amazon.com/tags";
const SOURCE_IDENTITY: &str = "https://aws.amazon.com/source_identity";
const ROLES: &str = "https://aws.amazon.com/roles";
const INVALID: &str = "InvalidIdentityToken";
const VALIDATION: &str = "ValidationError";
const MALFORMED: &str = "MalformedPolicyDocument";
