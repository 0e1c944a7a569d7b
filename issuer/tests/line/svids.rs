//! SVIDs, from what a process asks to what it gets, and what it must not get.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_call::{jws, keys::KeySet};
use deputize_issuer::{
    authority, bundle,
    entry::{Draft, parse_spiffe_id},
    error::IssueError,
    fakes::Disk,
    record::{Kind, SvidKind},
    svid::X509Svid,
};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use serde_json::{Value, json};
use std::{collections::HashSet, sync::Arc, time::Duration};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

use crate::{
    spiffe::{DAY, NODE, SpiffeWorld, WEB, domain, entries, process, process_on, web},
    world::{CRM, NOW},
};

#[tokio::test]
async fn an_x509_svid_says_what_it_must_and_nothing_else() {
    let world = SpiffeWorld::new();
    let svid = world.x509(&process(), "web").await.unwrap();
    assert_eq!(
        (svid.spiffe_id.to_string().as_str(), &*svid.entry, svid.hint.as_str()),
        (WEB, "web", "internal")
    );
    assert_eq!((svid.not_before_seconds, svid.not_after_seconds), (NOW - 10, NOW + 3600));
    let key = svid.private_key.as_ref().unwrap().expose();
    let read = spiffe::X509Svid::parse_from_der(&svid.chain.concat(), key).unwrap();
    assert_eq!(read.spiffe_id().to_string(), WEB);
    let [leaf] = &svid.chain[..] else { panic!("the anchor is not delivered") };
    let leaf = parse(leaf);
    check_leaf(&leaf, 1);
    assert_eq!(leaf.validity().not_before.timestamp() as u64, svid.not_before_seconds);
    assert_eq!(leaf.validity().not_after.timestamp() as u64, svid.not_after_seconds);
    let own = KeyPair::try_from(key.as_slice()).unwrap();
    assert_eq!(
        rcgen::PublicKeyData::subject_public_key_info(&own),
        leaf.public_key().raw,
        "its key is its own"
    );
    let anchor = world.door.authorities.ring().bundle.x509_authorities[0].clone();
    let anchor = parse(&anchor);
    leaf.verify_signature(Some(anchor.public_key())).unwrap();
    assert_eq!(leaf.issuer(), anchor.subject());
    assert_eq!(svid.authorities, [world.door.authorities.ring().active.certificate().public_key_sha256()]);
    assert!(!format!("{svid:?}").contains(&format!("{:?}", &key[..8])), "the key is not shown");
}

#[tokio::test]
async fn no_two_x509_svids_have_one_key_or_serial() {
    let world = SpiffeWorld::new();
    let (mut keys, mut serials) = (HashSet::new(), HashSet::new());
    for _ in 0..50 {
        let svid = world.x509(&process(), "web").await.unwrap();
        let leaf = parse(&svid.chain[0]);
        assert!(keys.insert(leaf.public_key().raw.to_vec()));
        assert!(serials.insert(leaf.raw_serial().to_vec()));
        assert!(leaf.raw_serial().len() == 16 && leaf.raw_serial()[0] < 0x80, "positive");
    }
}

#[tokio::test]
async fn a_csr_gives_its_key_and_nothing_else() {
    let world = SpiffeWorld::new();
    let keys = [
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
    ];
    for key in &keys {
        let mut greedy = CertificateParams::new(vec!["admin.example.org".to_owned()]).unwrap();
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        greedy.subject_alt_names.push(SanType::URI(WEB.try_into().unwrap()));
        for parameters in [CertificateParams::default(), greedy] {
            let svid = world.x509_for(&csr(&parameters, key)).await.unwrap();
            assert!(svid.private_key.is_none());
            let leaf = parse(&svid.chain[0]);
            assert_eq!(leaf.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(key));
            check_leaf(&leaf, if std::ptr::eq(key, &keys[3]) { 2 } else { 1 });
        }
    }
}

#[tokio::test]
async fn a_csr_that_is_not_in_order_is_refused() {
    let world = SpiffeWorld::new();
    let key = KeyPair::generate().unwrap();
    let good = csr(&CertificateParams::default(), &key);
    let named = |name: &str| {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        parameters
    };
    let mut two = named(WEB);
    two.subject_alt_names.push(SanType::URI("spiffe://example.org/batch".try_into().unwrap()));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let hidden = {
        // Two attributes of requested extensions, the second with another ID.
        let content = key_extension_request("spiffe://example.org/batch");
        let second = rcgen::Attribute { oid: &[1, 2, 840, 113_549, 1, 9, 14], values: content };
        let request = named(WEB).serialize_request_with_attributes(&key, vec![second]).unwrap();
        request.der().to_vec()
    };
    for (name, csr, reason) in [
        ("for another ID", csr(&named("spiffe://example.org/batch"), &key), "csr_for_another_id"),
        ("for our ID and another", csr(&two, &key), "csr_for_another_id"),
        ("for another ID, out of sight", hidden, "csr_for_another_id"),
        ("for an ID like ours", csr(&named("spiffe://EXAMPLE.org/web"), &key), "csr_for_another_id"),
        ("with another signature", flipped, "csr_not_signed_by_its_key"),
        ("with trailing bytes", [good.clone(), vec![0]].concat(), "csr_malformed"),
        ("cut off", good[..good.len() - 1].to_vec(), "csr_malformed"),
        ("empty", Vec::new(), "csr_malformed"),
        ("too long", vec![0x30; 9000], "csr_too_long"),
        ("a certificate", world.door.authorities.ring().bundle.x509_authorities[0].clone(), "csr_malformed"),
    ] {
        assert_eq!(world.x509_for(&csr).await.unwrap_err(), IssueError::Request(reason), "{name}");
    }
    let p521 = csr(&CertificateParams::default(), &KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap());
    assert!(
        matches!(world.x509_for(&p521).await, Err(IssueError::Request(_))),
        "a curve that we do not certify"
    );
    assert!(world.x509_for(&good).await.is_ok(), "and the next honest one is served");
    let log = world.world.audit.entries();
    assert_eq!(log.iter().filter(|entry| entry.kind == Kind::Intent).count(), 1, "nothing else was minted");
    assert_eq!(log.iter().filter(|entry| entry.kind == Kind::Denial).count(), 11, "each is on record");
}

#[tokio::test]
async fn an_svid_ends_with_its_entry_and_with_what_signs_it() {
    let world = SpiffeWorld::new();
    let entry = Draft { expires_at_seconds: Some(NOW + 100), ..web() };
    world.door.entries.replace(entries(&[entry]));
    assert_eq!(world.x509(&process(), "web").await.unwrap().not_after_seconds, NOW + 100);
    assert_eq!(
        world.jwt(&process(), &["spiffe://example.org/db"]).await.unwrap().expires_at_seconds,
        NOW + 100
    );

    let long = Draft { x509_svid_ttl_seconds: Some(7 * DAY), jwt_svid_ttl_seconds: Some(3600), ..web() };
    world.door.entries.replace(entries(&[long]));
    assert_eq!(
        world.x509(&process(), "web").await.unwrap().not_after_seconds,
        NOW + DAY,
        "the authority's end"
    );
    let jwt = world.jwt(&process(), &["db"]).await.unwrap();
    assert_eq!(jwt.expires_at_seconds, NOW + 3600);

    world.world.clock.advance(Duration::from_secs(DAY - 60));
    assert_eq!(world.jwt(&process(), &["db"]).await.unwrap().expires_at_seconds, NOW + DAY, "its key's end");
    world.world.clock.advance(Duration::from_secs(60));
    let expired = IssueError::Uncertain("authority_expired");
    assert_eq!(world.x509(&process(), "web").await.unwrap_err(), expired);
    assert_eq!(world.jwt(&process(), &["db"]).await.unwrap_err(), expired);
}

#[tokio::test]
async fn who_is_not_entitled_gets_nothing_and_is_on_record() {
    let world = SpiffeWorld::new();
    let ended = Draft { id: "ended".to_owned(), expires_at_seconds: Some(NOW), ..web() };
    let batch = Draft { id: "batch".to_owned(), selectors: vec!["unix:uid:1001".to_owned()], ..web() };
    world.door.entries.replace(entries(&[web(), ended, batch]));
    let refused = [
        ("no such entry", process(), "another", "no_entry"),
        ("another's entry", process(), "batch", "no_entry"),
        ("an entry that has ended", process(), "ended", "no_entry"),
        ("another user", process_on(NODE, &["unix:uid:1002"]), "web", "no_entry"),
        ("nothing is true of it", process_on(NODE, &[]), "web", "no_entry"),
        (
            "another node",
            process_on("spiffe://example.org/deputize/node/other", &["unix:uid:1000"]),
            "web",
            "no_entry",
        ),
        (
            "a node of another trust domain",
            process_on("spiffe://example.com/deputize/node/local", &["unix:uid:1000"]),
            "web",
            "node_of_another_trust_domain",
        ),
    ];
    for (name, workload, entry, reason) in &refused {
        let error = world.x509(workload, entry).await.unwrap_err();
        assert_eq!(error, IssueError::NotEntitled(reason), "{name}");
    }
    let log = world.world.audit.entries();
    assert_eq!(log.len(), refused.len(), "denials, and no intent");
    for (denial, (name, workload, entry, reason)) in log.iter().zip(&refused) {
        assert_eq!((denial.kind, denial.reason.as_deref()), (Kind::Denial, Some(*reason)), "{name}");
        let spiffe = denial.spiffe.as_ref().unwrap();
        assert_eq!((spiffe.entry.as_deref(), spiffe.svid), (Some(*entry), Some(SvidKind::X509)), "{name}");
        assert_eq!(spiffe.node, workload.node().to_string(), "{name}");
    }
    // Deleted, while a process has an SVID of it: it gets no other.
    assert!(world.x509(&process(), "web").await.is_ok());
    world.door.entries.replace(entries(&[]));
    assert_eq!(world.x509(&process(), "web").await.unwrap_err(), IssueError::NotEntitled("no_entry"));
    assert_eq!(world.jwt(&process(), &["db"]).await.unwrap_err(), IssueError::NotEntitled("no_entry"));
}

/// Any process may ask, for years.
#[tokio::test]
async fn a_flood_of_refusals_writes_little_in_a_day_and_every_one_is_counted() {
    let world = SpiffeWorld::new();
    let desk = &world.world.desk;
    let groups: Vec<String> =
        (0..60).map(|group| format!("unix:group:{group}{}", "g".repeat(1000))).collect();
    let selectors: Vec<&str> = groups.iter().map(String::as_str).chain(["unix:uid:2000"]).collect();
    let (flood, longest) = (process_on(NODE, &selectors), "a".repeat(512));
    let mut asked = 0;
    for _ in 0..24 * 60 {
        world.world.clock.advance(Duration::from_secs(60));
        for _ in 0..3 {
            world.jwt(&flood, &[longest.as_str(); 16]).await.unwrap_err();
            asked += 1;
        }
        desk.refusals.write(desk);
    }
    let before = world.world.audit.entries();
    let bytes: usize = before.iter().map(|entry| entry.to_bytes().unwrap().len()).sum();
    assert!(bytes < 8 << 20, "{bytes} bytes in a day");
    // Another user's refusal still has its own record.
    world.x509(&process_on(NODE, &["unix:uid:1002"]), "web").await.unwrap_err();
    desk.refusals.write_all(desk);
    let log = world.world.audit.entries();
    let alone = log.iter().filter(|entry| entry.kind == Kind::Denial).count();
    assert_eq!(log[before.len()].spiffe.as_ref().unwrap().asked_by, ["unix:uid:1002"]);
    let counts = log.iter().filter(|entry| entry.kind == Kind::Denials);
    assert!(counts.clone().all(|entry| entry.client.as_deref() == Some(NODE)));
    let counted: u64 = counts.filter_map(|entry| entry.count).sum();
    assert_eq!(alone as u64 - 1 + counted, asked);
}

#[tokio::test]
async fn who_was_refused_is_told_whatever_else_is_true_of_it() {
    let world = SpiffeWorld::new();
    let forged = "unix:group:a unix:uid:0 \"unix:uid:0\"";
    let long = format!("container:image:{}", "a".repeat(1000));
    let many: Vec<String> = (0..100).map(|group| format!("unix:supplementary_group:{group}")).collect();
    let mut selectors = vec!["unix:uid:1002", "unix:user:mallory", "unix:gid:1002", forged, long.as_str()];
    selectors.extend(many.iter().map(String::as_str));
    let audiences = vec!["db", "sha256:mine"];
    world.jwt(&process_on(NODE, &selectors), &audiences).await.unwrap_err();
    let log = world.world.audit.entries();
    let told = log[0].spiffe.as_ref().unwrap();
    assert_eq!(told.asked_by[..4], ["unix:uid:1002", "unix:user:mallory", "unix:gid:1002", forged]);
    assert_eq!(told.asked_by.len(), 16);
    let short = told.asked_by.iter().find(|selector| selector.starts_with("container:image:")).unwrap();
    assert_eq!((short.chars().count(), short.ends_with('…')), (161, true));
    assert_eq!(told.audiences[0], "db");
    assert!(
        told.audiences[1].starts_with("sha256:") && told.audiences[1] != "sha256:mine",
        "none looks like a digest"
    );
}

/// One entitled process must not fill the disk.
#[tokio::test]
async fn svids_have_a_rate_of_their_own_and_short_records() {
    let world = SpiffeWorld::new();
    let asked = ask_until_limited(&world).await;
    assert_eq!(asked, 200);
    assert!(world.x509(&process(), "web").await.is_ok(), "the other kind has its own");
    let other = process_on(NODE, &["unix:uid:1001", "unix:gid:1001"]);
    assert!(world.x509(&other, "batch").await.is_ok(), "and so has another entry");
    world.world.clock.advance(Duration::from_secs(1));
    assert_eq!(ask_until_limited(&world).await, 20, "a second's");
    world.world.clock.advance(Duration::from_secs(60));
    let before = world.world.audit.entries().len();
    let (long, longer) = ("é".repeat(64), "é".repeat(65));
    let longest = [long.as_str(); 16];
    assert!(world.jwt(&process(), &longest).await.is_ok());
    let refused = world.jwt(&process(), &[longer.as_str(); 16]).await.unwrap_err();
    assert_eq!(refused, IssueError::Request("audience_too_long"), "2 KiB in all");
    let log = world.world.audit.entries().split_off(before);
    let intent = log[0].to_bytes().unwrap();
    assert!(intent.len() < 2048 + 512, "{}", intent.len());
    let recorded = &log[0].spiffe.as_ref().unwrap().audiences;
    assert_eq!((recorded[3].as_str(), recorded.len()), (longest[3], 16));
    let digest = deputize_call::digest::sha256(longest[4].as_bytes());
    assert_eq!(recorded[4], format!("sha256:{}", URL_SAFE_NO_PAD.encode(digest)));
}

async fn ask_until_limited(world: &SpiffeWorld) -> usize {
    for asked in 0..2_000 {
        match world.jwt(&process(), &["db"]).await {
            Ok(_) => {}
            Err(IssueError::RateLimited { .. }) => return asked,
            Err(error) => panic!("{error:?}"),
        }
    }
    2_000
}

#[tokio::test]
async fn each_svid_has_its_intent_first_and_its_outcome_after() {
    let world = SpiffeWorld::new();
    let x509 = world.x509(&process(), "web").await.unwrap();
    let jwt = world.jwt(&process(), &["db", "cache"]).await.unwrap();
    let log = world.world.audit.entries();
    let kinds: Vec<Kind> = log.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [Kind::Intent, Kind::Outcome, Kind::Intent, Kind::Outcome]);
    let leaf = parse(&x509.chain[0]);
    let serial: String = leaf.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        serde_json::to_value(&log[0].spiffe).unwrap(),
        json!({ "svid": "x509", "entry": "web", "spiffe_id": WEB, "node": NODE, "serial": serial,
            "asked_by": ["unix:uid:1000", "unix:gid:1000"],
            "authority": world.active(authority::Kind::X509), "dns_names": ["web.example.org"], "not_after": NOW + 3600 })
    );
    assert_eq!(
        serde_json::to_value(&log[2].spiffe).unwrap(),
        json!({ "svid": "jwt", "entry": "web", "spiffe_id": WEB, "node": NODE, "audiences": ["db", "cache"],
            "asked_by": ["unix:uid:1000", "unix:gid:1000"], "not_after": NOW + 300 })
    );
    assert_eq!(log[2].jti.as_deref(), claims(jwt.token.expose())["jti"].as_str());
    assert_eq!((log[1].intent, log[1].result.as_deref()), (Some(0), Some("minted")));
    assert_eq!((log[0].decision, log[2].decision), (log[1].decision, log[3].decision));
    let text = serde_json::to_string(&log).unwrap();
    assert!(!text.contains(jwt.token.expose().as_str()), "the token itself is not on record");
}

#[tokio::test]
async fn no_record_no_svid_and_none_while_clocks_disagree() {
    let world = SpiffeWorld::new();
    world.world.audit.set_disk(Disk::Broken);
    assert!(matches!(world.x509(&process(), "web").await, Err(IssueError::RecordUnavailable(_))));
    assert!(matches!(world.jwt(&process(), &["db"]).await, Err(IssueError::RecordUnavailable(_))));
    world.world.audit.set_disk(Disk::Sound);
    assert!(world.x509(&process(), "web").await.is_ok());
    world.world.clock.jump_wall(Duration::from_secs(7200));
    let jumped = IssueError::Uncertain("clocks_disagree");
    assert_eq!(world.x509(&process(), "web").await.unwrap_err(), jumped);
    assert_eq!(world.jwt(&process(), &["db"]).await.unwrap_err(), jumped);
}

#[tokio::test]
async fn what_was_tainted_while_the_record_was_written_signs_nothing() {
    let mut world = SpiffeWorld::new();
    let first = world.active(authority::Kind::X509);
    world.prepare(authority::Kind::X509);
    world.world.audit.set_disk(Disk::Slow);
    let desk = Arc::clone(&world.world.desk);
    let asked = tokio::spawn(async move {
        let (workload, key) = (process(), deputize_issuer::svid::SvidKey::Mint);
        let ask = deputize_issuer::svid::X509Ask { workload: &workload, entry: "web", key };
        deputize_issuer::svid::x509_svid(&desk, &ask).await
    });
    // It has decided by the time that it waits for the disk.
    tokio::task::yield_now().await;
    world.activate(authority::Kind::X509);
    world.taint(&first);
    world.world.audit.set_disk(Disk::Sound);
    assert_eq!(asked.await.unwrap().unwrap_err(), IssueError::UpstreamUnavailable("authority_withdrawn"));
    let log = world.world.audit.entries();
    assert_eq!(log[1].result.as_deref(), Some("failed"), "the intent has its outcome");
    assert!(world.x509(&process(), "web").await.is_ok(), "the next one signs");
}

#[tokio::test]
async fn a_jwt_key_that_was_tainted_while_the_record_was_written_signs_nothing() {
    let mut world = SpiffeWorld::new();
    let first = world.active(authority::Kind::Jwt);
    world.prepare(authority::Kind::Jwt);
    world.world.audit.set_disk(Disk::Slow);
    let desk = Arc::clone(&world.world.desk);
    let asked = tokio::spawn(async move {
        let (workload, audiences) = (process(), ["db".to_owned()]);
        let ask = deputize_issuer::svid::JwtAsk { workload: &workload, entry: "web", audiences: &audiences };
        deputize_issuer::svid::jwt_svid(&desk, &ask).await
    });
    tokio::task::yield_now().await;
    world.activate(authority::Kind::Jwt);
    world.taint(&first);
    world.world.audit.set_disk(Disk::Sound);
    assert_eq!(asked.await.unwrap().unwrap_err(), IssueError::UpstreamUnavailable("authority_withdrawn"));
    assert_eq!(world.world.audit.entries()[1].result.as_deref(), Some("failed"));
    let bundle = world.door.authorities.ring().bundle.clone();
    let of_first = bundle.jwt_authorities.iter().filter(|key| key.kid() == Some(first.as_str()));
    assert_eq!(of_first.count(), 1, "what it signed before still verifies");
    assert!(world.jwt(&process(), &["db"]).await.is_ok(), "the next one signs");
}

#[tokio::test]
async fn a_jwt_svid_says_what_it_must_and_nothing_else() {
    let world = SpiffeWorld::new();
    let svid = world.jwt(&process(), &["spiffe://example.org/db"]).await.unwrap();
    let token = svid.token.expose();
    let header: Value = part(token, 0);
    let kid = world.door.authorities.ring().jwt.kid().to_owned();
    assert_eq!(header, json!({ "alg": "ES256", "kid": kid, "typ": "JWT" }));
    let claims = claims(token);
    let jti = claims["jti"].as_str().unwrap().to_owned();
    assert_eq!(
        claims,
        json!({ "sub": WEB, "aud": ["spiffe://example.org/db"], "exp": NOW + 300, "iat": NOW,
            "iss": "https://deputize.example.com/spiffe", "jti": jti })
    );
    assert_eq!((svid.spiffe_id.to_string().as_str(), svid.hint.as_str()), (WEB, "internal"));
    let parsed = jws::parse(token, jws::EmbeddedKey::Refused).unwrap();
    world.door.authorities.ring().bundle.jwt_authorities.verify(&parsed).unwrap();
    let others = KeySet::new(vec![world.world.key("spare").public().clone()]);
    assert!(others.verify(&parsed).is_err());
    let own = world.world.desk.keys.ring();
    assert!(own.published.verify(&parsed).is_err(), "no key of tool-call tokens signs it");
    let again = world.jwt(&process(), &["spiffe://example.org/db"]).await.unwrap();
    assert_ne!(self::claims(again.token.expose())["jti"], jti, "each has its own id");
}

#[tokio::test]
async fn no_jwt_svid_is_for_a_cloud_or_a_registered_server() {
    let world = SpiffeWorld::new();
    let (long, many) = ("a".repeat(513), vec!["a"; 17]);
    let shouted = CRM.to_ascii_uppercase();
    let slashed = format!("{CRM}/");
    for (audiences, reason) in [
        (vec![], "audience_missing"),
        (vec![""], "audience_missing"),
        (vec!["db", ""], "audience_missing"),
        (vec![long.as_str()], "audience_too_long"),
        (many, "audience_too_long"),
        (vec!["d\nb"], "audience_malformed"),
        (vec!["sts.amazonaws.com"], "audience_of_a_cloud"),
        (vec!["db", "sts.amazonaws.com"], "audience_of_a_cloud"),
        (vec!["STS.amazonaws.com"], "audience_of_a_cloud"),
        (vec![" sts.amazonaws.com "], "audience_of_a_cloud"),
        (vec!["https://sts.eu-central-1.amazonaws.com/"], "audience_of_a_cloud"),
        (vec!["sts.cn-north-1.amazonaws.com.cn"], "audience_of_a_cloud"),
        (vec!["api://AzureADTokenExchange"], "audience_of_a_cloud"),
        (vec!["api://AzureADTokenExchangeUSGov"], "audience_of_a_cloud"),
        (
            vec!["//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"],
            "audience_of_a_cloud",
        ),
        (
            vec![
                "https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
            ],
            "audience_of_a_cloud",
        ),
        (vec![CRM], "audience_is_a_registered_resource"),
        (vec![slashed.as_str()], "audience_is_a_registered_resource"),
        (vec![shouted.as_str()], "audience_is_a_registered_resource"),
    ] {
        let error = world.jwt(&process(), &audiences).await.unwrap_err();
        assert_eq!(error, IssueError::Request(reason), "{audiences:?}");
    }
    assert!(world.world.audit.entries().iter().all(|entry| entry.kind == Kind::Denial), "nothing was minted");
    for audience in
        ["spiffe://example.org/db", "https://deputize.example.com", "amazonaws.com.example.org", "ledger"]
    {
        assert!(world.jwt(&process(), &[audience]).await.is_ok(), "{audience}");
    }
}

/// H-40.
#[test]
fn a_spiffe_id_has_one_form() {
    let path = |bytes: usize| format!("spiffe://example.org/{}", "a".repeat(bytes - 21));
    for good in ["spiffe://example.org/web", "spiffe://example.org/a.b-c_D/1", &path(2048)] {
        assert_eq!(parse_spiffe_id(good).unwrap().to_string(), good);
    }
    for bad in [
        "",
        "spiffe://example.org",
        "SPIFFE://example.org/web",
        "spiffe://Example.org/web",
        "spiffe://example.org/%2e",
        "spiffe://example.org/%61",
        "spiffe://example.org/..",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/.",
        "spiffe://example.org//web",
        "spiffe://example.org/a//b",
        "spiffe://example.org/web/",
        "spiffe://example.org/",
        "spiffe://example.org:443/web",
        "spiffe://user@example.org/web",
        "spiffe://example.org/web?a=b",
        "spiffe://example.org/web#a",
        "spiffe://example.org/wéb",
        "spiffe://exämple.org/web",
        "spiffe://example.org/we b",
        "spiffe://example.org/web\n",
        " spiffe://example.org/web",
        "https://example.org/web",
        "spiffe:///web",
        "example.org/web",
        &path(2049),
    ] {
        assert!(parse_spiffe_id(bad).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn the_bundle_is_a_document_that_others_can_read() {
    let mut world = SpiffeWorld::new();
    let before = world.door.authorities.ring().bundle.sequence;
    world.prepare(authority::Kind::X509);
    let own = world.door.authorities.ring().bundle.clone();
    let document = bundle::to_document(&own).unwrap();
    assert_eq!(document["spiffe_sequence"], own.sequence);
    assert!(own.sequence > before);
    assert_eq!(document["spiffe_refresh_hint"], 300);
    let keys = document["keys"].as_array().unwrap();
    let of = |usage: &str| keys.iter().filter(|key| key["use"] == usage).collect::<Vec<_>>();
    let (x509, jwt) = (of("x509-svid"), of("jwt-svid"));
    assert_eq!((x509.len(), jwt.len(), keys.len()), (2, 1, 3));
    for (key, der) in x509.iter().zip(&own.x509_authorities) {
        assert!(key.get("kid").is_none(), "X509-SVID §6.2");
        let [certificate] = &key["x5c"].as_array().unwrap()[..] else { panic!("one certificate") };
        let certificate = STANDARD.decode(certificate.as_str().unwrap()).unwrap();
        assert_eq!(certificate, *der);
        assert!(spiffe::X509Bundle::parse_from_der(domain(), &certificate).is_ok());
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        assert_eq!(parse(der).public_key().subject_public_key.data.as_ref(), point);
        assert_eq!((&key["kty"], &key["crv"]), (&json!("EC"), &json!("P-256")));
    }
    assert_eq!(jwt[0]["kid"], world.door.authorities.ring().jwt.kid());
    assert!(jwt[0].get("d").is_none());
}

/// X509-SVID §4, field by field.
fn check_leaf(leaf: &X509Certificate<'_>, usages: u32) {
    assert_eq!(leaf.version().0, 2, "v3");
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature());
    assert_eq!(usage.value.flags.count_ones(), usages);
    assert_eq!(usage.value.key_encipherment(), usages == 2, "of RSA keys alone");
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any && !extended.code_signing);
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names, [GeneralName::URI(WEB), GeneralName::DNSName("web.example.org")]);
    assert_eq!(leaf.subject().to_string(), "O=Deputize");
    let has = |wanted: fn(&ParsedExtension<'_>) -> bool| {
        leaf.iter_extensions().filter(|extension| wanted(extension.parsed_extension())).count() == 1
    };
    assert!(has(|extension| matches!(extension, ParsedExtension::SubjectKeyIdentifier(_))));
    assert!(has(|extension| matches!(extension, ParsedExtension::AuthorityKeyIdentifier(_))));
    assert_eq!(leaf.extensions().len(), 6);
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

fn csr(parameters: &CertificateParams, key: &KeyPair) -> Vec<u8> {
    parameters.serialize_request(key).unwrap().der().to_vec()
}

/// `SET OF Extensions` with one URI, as an attribute of a request has it.
fn key_extension_request(uri: &str) -> Vec<u8> {
    fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }
    let names = wrap(0x30, &wrap(0x86, uri.as_bytes()));
    let extension = wrap(0x30, &[wrap(0x06, &[0x55, 0x1d, 0x11]), wrap(0x04, &names)].concat());
    wrap(0x31, &wrap(0x30, &extension))
}

fn claims(token: &str) -> Value {
    part(token, 1)
}

fn part(token: &str, at: usize) -> Value {
    let part = token.split('.').nth(at).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn each_of_many_at_once_gets_its_own() {
    let world = Arc::new(SpiffeWorld::new());
    let asked = (0..20).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.x509(&process(), "web").await })
    });
    let mut serials = HashSet::new();
    for svid in asked.collect::<Vec<_>>() {
        let svid: X509Svid = svid.await.unwrap().unwrap();
        assert!(serials.insert(parse(&svid.chain[0]).raw_serial().to_vec()));
    }
}
