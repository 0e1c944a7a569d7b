//! Attested processes that exchange a user's token: what their registration entry lets them, and nothing else.

use crate::{
    spiffe::{NODE, SpiffeWorld, WEB, domain, entries, process, process_on, web},
    world::*,
};
use deputize_call::{claims::Confirmation, dpop::NewProof};
use deputize_issuer::{
    ask::Ask,
    authenticate::{Possession, Presented, PresentedProof},
    client::{Addressees, Clients, PresentedActor, Reach},
    entry::{BadEntry, Bounds, Draft, Entries, Exchange, Origin},
    error::IssueError,
    exchange::{Bearing, TokenRequest, exchange},
    limits::{Limits, Rate},
    mint::ToolCallToken,
    provider::SubjectTokenType,
    record::Kind,
    redeem::{Redeemed, redeem},
    verify_subject::PresentedSubject,
    workload::Workload,
};
use serde_json::json;
use spiffe::SpiffeId;
use std::time::Duration;

pub(crate) const ENDPOINT: &str = "https://deputize.example.com/spiffe/exchange";

fn allowed(resources: &[&str]) -> Exchange {
    Exchange {
        tenant: "acme".to_owned(),
        subject_audiences: vec![PLATFORM_AUDIENCE.to_owned(), "platform".to_owned()],
        may_call: resources.iter().map(|resource| reach(resource)).collect(),
    }
}

/// The entry `web`, whose processes may exchange for these servers.
pub(crate) fn agent(resources: &[&str]) -> Draft {
    Draft { exchange: Some(allowed(resources)), ..web() }
}

fn world() -> SpiffeWorld {
    let world = SpiffeWorld::new();
    world.door.entries.replace(entries(&[agent(&[CRM, MAILER])]));
    world
}

pub(crate) fn proof(world: &SpiffeWorld, htu: &str) -> String {
    let (nonce, jti) = (world.world.nonce(), world.world.unique("proof"));
    let proof = NewProof { htu, nonce: Some(&nonce), jti: &jti, ..world.world.plain_proof() };
    world.world.proof_as("spare", &proof)
}

/// What a process sends.
pub(crate) struct Sent<'s> {
    pub(crate) workload: &'s Workload,
    pub(crate) entry: &'s str,
    pub(crate) token: &'s str,
    pub(crate) proof: &'s str,
}

pub(crate) async fn send(world: &SpiffeWorld, sent: Sent<'_>, ask: Ask) -> Result<ToolCallToken, IssueError> {
    let subject =
        Some(PresentedSubject { token: sent.token, kind: SubjectTokenType::AccessToken, actor: None });
    let bearing = Bearing {
        decision_id: world.world.decision(),
        presented: Presented::Workload { workload: sent.workload, entry: sent.entry },
        shown: Possession {
            proof: Some(PresentedProof { header: sent.proof, htu: ENDPOINT }),
            certificate: None,
        },
    };
    exchange(&world.world.desk, bearing, &TokenRequest { subject, ask }).await
}

async fn for_alice(world: &SpiffeWorld, ask: Ask) -> Result<ToolCallToken, IssueError> {
    let (token, proof) = (world.world.alice(json!({})), proof(world, ENDPOINT));
    send(world, Sent { workload: &process(), entry: "web", token: &token, proof: &proof }, ask).await
}

fn minted(world: &SpiffeWorld) -> usize {
    world.world.audit.entries().iter().filter(|entry| entry.kind == Kind::Intent).count()
}

#[tokio::test]
async fn a_process_gets_a_token_in_its_users_name_that_is_bound_to_its_key_and_on_record_as_its() {
    let world = world();
    assert_eq!(world.door.exchange_endpoint(), ENDPOINT);
    let token = for_alice(&world, update_contact()).await.unwrap();
    let claims = &token.claims;
    assert_eq!(claims.sub, world.world.alice_sub());
    assert_eq!(claims.act.as_ref().unwrap().chain().collect::<Vec<_>>(), [WEB]);
    assert_eq!((claims.client_id.as_str(), claims.tenant.as_str()), (WEB, "acme"));
    let key = world.world.key("spare").public().thumbprint().to_owned();
    assert_eq!(claims.cnf, Confirmation::Jkt(key));
    let log = world.world.audit.entries();
    let intent = log.iter().find(|entry| entry.kind == Kind::Intent).unwrap();
    assert_eq!(
        serde_json::to_value(&intent.spiffe).unwrap(),
        json!({ "entry": "web", "spiffe_id": WEB, "node": NODE, "asked_by": ["unix:uid:1000", "unix:gid:1000"] })
    );
    assert_eq!((intent.client.as_deref(), intent.is_of_an_svid()), (Some(WEB), false));
    // What it got it may narrow, as any holder.
    let tool = for_alice(&world, read_contact()).await.unwrap();
    let (own, proof) = (tool.access_token.expose(), proof(&world, ENDPOINT));
    let sent = Sent { workload: &process(), entry: "web", token: own, proof: &proof };
    let narrowed = send(&world, sent, read_one_contact()).await.unwrap();
    assert_eq!(narrowed.claims.pjti.as_ref(), Some(&tool.claims.jti));
}

#[tokio::test]
async fn who_has_no_entry_that_lets_exchange_gets_nothing_and_is_on_record() {
    let world = world();
    let ended = Draft { id: "ended".into(), expires_at_seconds: Some(NOW), ..agent(&[CRM]) };
    let plain = Draft { id: "plain".into(), spiffe_id: "spiffe://example.org/plain".into(), ..web() };
    world.door.entries.replace(entries(&[agent(&[CRM]), ended, plain]));
    let elsewhere = process_on("spiffe://example.org/deputize/node/other", &["unix:uid:1000"]);
    let token = world.world.alice(json!({}));
    let refused = [
        (process(), "plain", "entry_without_exchange"),
        (process(), "ended", "no_entry"),
        (process(), "none", "no_entry"),
        (process_on(NODE, &["unix:uid:1002"]), "web", "no_entry"),
        (elsewhere, "web", "no_entry"),
    ];
    for (workload, entry, reason) in &refused {
        let proof = proof(&world, ENDPOINT);
        let sent = Sent { workload, entry, token: &token, proof: &proof };
        let error = send(&world, sent, update_contact()).await.unwrap_err();
        assert_eq!(error, IssueError::NotEntitled(reason), "{entry}");
        let denial = world.world.audit.entries().pop().unwrap();
        assert_eq!((denial.kind, denial.reason.as_deref()), (Kind::Denial, Some(*reason)));
        assert_eq!(denial.spiffe.unwrap().entry.as_deref(), Some(*entry));
    }
    assert_eq!(minted(&world), 0);
    for_alice(&world, update_contact()).await.unwrap();
}

#[tokio::test]
async fn a_process_brings_those_users_tokens_alone_and_asks_for_those_servers_alone_that_its_entry_names() {
    let world = world();
    world.door.entries.replace(entries(&[agent(&[CRM])]));
    let now = world.world.now();
    for (changes, reason) in [
        (json!({ "aud": "https://other.example.com" }), "audience"),
        (json!({ "client_id": "another" }), "authorized_party"),
        (json!({ "exp": now - 60, "iat": now - 600, "nbf": now - 600 }), "expired"),
    ] {
        let (token, proof) = (world.world.alice(changes.clone()), proof(&world, ENDPOINT));
        let sent = Sent { workload: &process(), entry: "web", token: &token, proof: &proof };
        let error = send(&world, sent, update_contact()).await.unwrap_err();
        assert!(matches!(error, IssueError::SubjectToken { .. }), "{changes}: {error:?}");
        let denial = world.world.audit.entries().pop().unwrap();
        assert!(denial.reason.as_ref().unwrap().contains(reason), "{denial:?}");
        assert_eq!(denial.spiffe.unwrap().entry.as_deref(), Some("web"), "and which process it was");
    }
    let beyond = for_alice(&world, send_mail()).await.unwrap_err();
    assert_eq!(beyond, IssueError::Target("beyond_the_clients_reach"));
    let tools = Exchange {
        may_call: vec![Reach { tools: Some(vec!["read_contact".to_owned()]), ..reach(CRM) }],
        ..allowed(&[CRM])
    };
    world.door.entries.replace(entries(&[Draft { exchange: Some(tools), ..web() }]));
    let beyond = for_alice(&world, update_contact()).await.unwrap_err();
    assert_eq!(beyond, IssueError::Target("beyond_the_clients_reach"));
    for_alice(&world, read_one_contact()).await.unwrap();
    assert_eq!(minted(&world), 1);
}

#[tokio::test]
async fn a_proof_is_for_this_endpoint_fresh_and_used_once() {
    let world = world();
    let token = world.world.alice(json!({}));
    async fn error(world: &SpiffeWorld, sent: Sent<'_>) -> IssueError {
        send(world, sent, update_contact()).await.unwrap_err()
    }
    let process = process();
    let send_with = async |proof: &str| {
        error(&world, Sent { workload: &process, entry: "web", token: &token, proof }).await
    };
    let of_http = proof(&world, TOKEN_ENDPOINT);
    assert!(matches!(send_with(&of_http).await, IssueError::Proof(_)));
    let denial = world.world.audit.entries().pop().unwrap();
    assert_eq!((denial.client.as_deref(), denial.spiffe.is_some()), (Some(WEB), true), "misuse is on record");
    assert_eq!(denial.method.as_deref(), Some("workload"));
    let without = world.world.proof_as("spare", &NewProof { htu: ENDPOINT, ..world.world.plain_proof() });
    assert!(matches!(send_with(&without).await, IssueError::NonceNeeded { .. }));
    let stale = proof(&world, ENDPOINT);
    world.world.clock.advance(Duration::from_secs(301));
    let token_now = world.world.alice(json!({}));
    let stale = Sent { workload: &process, entry: "web", token: &token_now, proof: &stale };
    assert!(matches!(error(&world, stale).await, IssueError::NonceNeeded { .. }));
    let good = proof(&world, ENDPOINT);
    let used = || Sent { workload: &process, entry: "web", token: &token_now, proof: &good };
    send(&world, used(), update_contact()).await.unwrap();
    assert_eq!(error(&world, used()).await, IssueError::Proof("proof_replayed"));
    assert_eq!(minted(&world), 1);
}

#[tokio::test]
async fn next_hops_are_within_what_the_entry_may_call_and_end_with_it() {
    let world = world();
    let inner = &world.world;
    let first = for_alice(&world, read_one_contact()).await.unwrap();
    let next = inner.hop("crm", &first, &send_mail()).await.unwrap();
    assert_eq!(next.claims.act.as_ref().unwrap().chain().collect::<Vec<_>>(), ["crm", WEB]);
    inner.hop("mailer", &next, &read_one_contact()).await.unwrap();
    // Narrowed meanwhile: the mailer is no longer within its reach.
    world.door.entries.replace(entries(&[agent(&[CRM])]));
    let beyond = inner.hop("crm", &first, &send_mail()).await.unwrap_err();
    assert_eq!(beyond, IssueError::Target("beyond_a_predecessors_reach"));
    let at_the_end = world.world.hop("mailer", &next, &read_one_contact()).await;
    assert!(at_the_end.is_ok(), "the CRM is still within");
    // Deleted: nothing goes on in its name, at the first hop or at a later one, and what it got is used no more.
    world.door.entries.replace(entries(&[web()]));
    for (client, token, ask) in [("crm", &first, send_mail()), ("mailer", &next, read_one_contact())] {
        let ended = inner.hop(client, token, &ask).await.unwrap_err();
        assert_eq!(ended.reason(), "subject_token_of_a_disabled_client", "{client}");
    }
    let crm = inner.caller("crm").await;
    let mailer = inner.caller("mailer").await;
    for (server, token) in [(&crm, &first), (&mailer, &next)] {
        let redeemed = redeem(&inner.desk, server, token.access_token.expose()).await.unwrap();
        assert!(matches!(redeemed, Redeemed::No(_)), "{redeemed:?}");
    }
    // And comes to life with it.
    world.door.entries.replace(entries(&[agent(&[CRM, MAILER])]));
    inner.hop("crm", &first, &send_mail()).await.unwrap();
}

#[tokio::test]
async fn each_entry_has_a_rate_of_its_own() {
    let few = Rate { per_second: 1, burst: 3 };
    let world = SpiffeWorld::with(|setup| setup.limits = Limits::new(few, few));
    let other = Draft { id: "other".into(), ..agent(&[CRM]) };
    world.door.entries.replace(entries(&[agent(&[CRM]), other]));
    for _ in 0..3 {
        for_alice(&world, update_contact()).await.unwrap();
    }
    let limited = for_alice(&world, update_contact()).await.unwrap_err();
    assert!(matches!(limited, IssueError::RateLimited { .. }), "{limited:?}");
    let (token, proof) = (world.world.alice(json!({})), proof(&world, ENDPOINT));
    let sent = Sent { workload: &process(), entry: "other", token: &token, proof: &proof };
    send(&world, sent, update_contact()).await.unwrap();
}

#[tokio::test]
async fn one_node_does_not_use_up_what_another_has() {
    let few = Rate { per_second: 1, burst: 2 };
    let world = SpiffeWorld::with(|setup| setup.limits = Limits::new(few, few));
    let other = "spiffe://example.org/deputize/node/other";
    let nodes = vec![NODE.to_owned(), other.to_owned()];
    world.door.entries.replace(entries(&[Draft { nodes, ..agent(&[CRM]) }]));
    let on = async |node: &str| {
        let (token, proof) = (world.world.alice(json!({})), proof(&world, ENDPOINT));
        let workload = process_on(node, &["unix:uid:1000"]);
        send(
            &world,
            Sent { workload: &workload, entry: "web", token: &token, proof: &proof },
            update_contact(),
        )
        .await
    };
    for node in [NODE, other] {
        for _ in 0..2 {
            on(node).await.unwrap();
        }
        let limited = on(node).await.unwrap_err();
        assert!(matches!(limited, IssueError::RateLimited { .. }), "{limited:?}");
    }
}

#[tokio::test]
async fn what_is_taken_away_while_keys_are_fetched_is_not_granted() {
    let another_tenant = Exchange { tenant: "other".to_owned(), ..allowed(&[CRM, MAILER]) };
    for (changed, expected) in [
        (Vec::new(), Some(IssueError::NotEntitled("no_entry"))),
        (vec![web()], Some(IssueError::NotEntitled("entry_without_exchange"))),
        (vec![agent(&[MAILER])], Some(IssueError::Uncertain("caller_changed_meanwhile"))),
        (
            vec![Draft { exchange: Some(another_tenant), ..web() }],
            Some(IssueError::Uncertain("caller_changed_meanwhile")),
        ),
        (
            vec![Draft { selectors: vec!["unix:uid:1001".to_owned()], ..agent(&[CRM, MAILER]) }],
            Some(IssueError::NotEntitled("no_entry")),
        ),
        // Whatever else changes is none of its business.
        (vec![agent(&[CRM, MAILER]), Draft { id: "other".into(), ..web() }], None),
    ] {
        let world = world();
        world.world.provider_keys.hold(true);
        let (answer, ()) = tokio::join!(for_alice(&world, update_contact()), async {
            assert_eq!(world.world.provider_keys.waiting(), 1);
            world.door.entries.replace(entries(&changed));
            world.world.provider_keys.hold(false);
        });
        let is_granted = expected.is_none();
        assert_eq!(answer.err(), expected);
        assert_eq!(minted(&world), usize::from(is_granted));
    }
}

#[tokio::test]
async fn what_a_process_gets_ends_with_its_entry() {
    let world = world();
    let until = |seconds| Draft { expires_at_seconds: Some(NOW + seconds), ..agent(&[CRM, MAILER]) };
    for (seconds, expected) in [(7200, 60), (60, 60), (20, 20), (5, 5)] {
        world.door.entries.replace(entries(&[until(seconds)]));
        let token = for_alice(&world, read_one_contact()).await.unwrap();
        assert_eq!(token.claims.exp, NOW + expected, "{seconds}");
        // Nor does what is made of it live longer, whoever goes on with it.
        if expected >= 20 {
            let next = world.world.hop("crm", &token, &send_mail()).await.unwrap();
            assert_eq!(next.claims.exp, NOW + expected, "{seconds}");
        }
    }
    // It is another entry of the same ID that goes on for ever: each ends what it lets.
    let other = Draft { id: "other".into(), ..agent(&[CRM, MAILER]) };
    world.door.entries.replace(entries(&[until(20), other]));
    assert_eq!(for_alice(&world, read_one_contact()).await.unwrap().claims.exp, NOW + 20);
    let minted_before = minted(&world);
    world.door.entries.replace(entries(&[until(4)]));
    let error = for_alice(&world, read_one_contact()).await.unwrap_err();
    assert_eq!(error, IssueError::NotEntitled("entry_about_to_end"));
    assert_eq!(minted(&world), minted_before);
    let denial = world.world.audit.entries().pop().unwrap();
    assert_eq!(denial.reason.as_deref(), Some("entry_about_to_end"));
}

/// Spellings of a server's URI and of our own that are no audiences of users' tokens.
const OF_OTHERS: [&str; 7] = [
    CRM,
    "HTTPS://CRM.example.com/mcp",
    "https://crm.example.com:443/mcp/",
    " https://crm.example.com/mcp",
    "https://deputize.example.com/",
    "https://deputize.example.com/token",
    "https://deputize.example.com/spiffe",
];

#[tokio::test]
async fn what_is_addressed_to_a_server_or_to_us_is_nobodys_to_bring() {
    let inner = World::new();
    let rules = inner.desk.rules.load();
    let addressees = Addressees::new(&rules.registry, ISSUER);
    let lists = |audience: &str| Exchange {
        subject_audiences: vec![PLATFORM_AUDIENCE.to_owned(), audience.to_owned()],
        ..allowed(&[CRM])
    };
    for taken in OF_OTHERS {
        assert!(addressees.among(&[taken.to_owned()]).is_some(), "{taken}");
        let bad = entries(&[Draft { exchange: Some(lists(taken)), ..web() }]);
        let refused = bad.bring_nothing_of(&addressees).unwrap_err();
        assert!(matches!(&refused[..], [BadEntry::BringsAnothers { id, .. }] if id == "web"), "{refused:?}");
        // Whoever did not ask that finds it refused here, even with a token that it might have brought.
        let world = world();
        world.door.entries.replace(bad);
        let error = for_alice(&world, update_contact()).await.unwrap_err();
        assert_eq!(error.reason(), "subject_audience_of_another", "{taken}");
        let world = World::with(|setup| {
            setup.find_client("platform").subject_audiences.push(taken.to_owned());
        });
        let error = world.refusal(&update_contact()).await;
        assert_eq!(error.reason(), "subject_audience_of_another", "{taken}");
    }
    for free in [
        PLATFORM_AUDIENCE,
        "platform",
        "crm",
        "https://crm.example.com/mcp/other",
        "https://crm.example.com:8443/mcp",
        "https://deputize.example.com/app",
        "https://deputize.example.com.evil.example/",
    ] {
        assert_eq!(addressees.among(&[free.to_owned()]), None, "{free}");
        entries(&[Draft { exchange: Some(lists(free)), ..web() }]).bring_nothing_of(&addressees).unwrap();
    }
    entries(&[web()]).bring_nothing_of(&addressees).unwrap();
}

#[test]
fn administration_lets_nobody_exchange() {
    let bounds = Bounds { trust_domain: domain(), own_node: SpiffeId::new(NODE).unwrap() };
    let of = |draft: Draft, origin: Origin| draft.check(&bounds, origin).unwrap().is_of_files_alone();
    let refused = of(agent(&[CRM]), Origin::Admin).unwrap();
    assert!(refused.to_string().contains("a file of spiffe.entries"), "{refused}");
    assert_eq!(of(web(), Origin::Admin), None);
}

#[tokio::test]
async fn a_name_is_a_clients_or_a_processes() {
    let world = SpiffeWorld::with(|setup| setup.find_client("platform").actor = Some(WEB.to_owned()));
    let entries = entries(&[agent(&[CRM])]);
    let clients = Clients::new(world.world.clients.clone());
    let refused = entries.beside(&clients).unwrap_err();
    let [BadEntry::IsAClient { client, .. }] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(client, "platform");
    // Whoever did not ask that finds it refused here.
    world.door.entries.replace(entries);
    let error = for_alice(&world, update_contact()).await.unwrap_err();
    assert_eq!(error, IssueError::NotEntitled("entry_of_a_configured_client"));
    // One that lets exchange nothing may have it: then it is that client's identity.
    crate::spiffe::entries(&[web()]).beside(&clients).unwrap();
}

#[test]
fn nor_is_it_that_of_an_actor_that_a_client_presents() {
    let mut setup = Setup::new();
    setup.find_client("platform").presents_actors =
        vec![PresentedActor { issuer: IDP.to_owned(), subject: "agent-7".to_owned(), actor: WEB.to_owned() }];
    let refused = entries(&[agent(&[CRM])]).beside(&Clients::new(setup.clients)).unwrap_err();
    assert!(matches!(&refused[..], [BadEntry::IsAClient { .. }]), "{refused:?}");
}

#[test]
fn all_entries_of_an_id_say_the_same_of_exchange() {
    let bounds = || Bounds { trust_domain: domain(), own_node: SpiffeId::new(NODE).unwrap() };
    let built = |drafts: &[Draft]| {
        Entries::build(bounds(), drafts.iter().map(|draft| (draft.clone(), Origin::Admin)))
    };
    let second = |exchange| Draft { id: "second".into(), exchange, ..web() };
    let ends = |at| Some(NOW + at);
    for good in [Some(allowed(&[CRM])), None] {
        built(&[agent(&[CRM]), second(good)]).unwrap();
    }
    let refused = built(&[agent(&[CRM]), second(Some(allowed(&[MAILER])))]).unwrap_err();
    assert!(matches!(&refused[..], [BadEntry::ExchangesOtherwise { .. }]), "{refused:?}");
    let two = built(&[
        Draft { expires_at_seconds: ends(10), ..agent(&[CRM]) },
        Draft { expires_at_seconds: ends(20), ..second(Some(allowed(&[CRM]))) },
    ])
    .unwrap();
    for (at, is_there) in [(9, true), (19, true), (20, false)] {
        assert_eq!(two.exchanging_as(WEB, NOW + at).is_some(), is_there, "{at}");
    }
    assert!(two.exchanging_as("spiffe://example.org/other", NOW).is_none());
    assert!(two.without("second").exchanging_as(WEB, NOW + 15).is_none());
    assert!(two.without("web").without("second").exchanging_as(WEB, NOW).is_none());
}

#[test]
fn what_an_entry_cannot_let_exchange_is_refused() {
    let bounds = || Bounds { trust_domain: domain(), own_node: SpiffeId::new(NODE).unwrap() };
    let check = |draft: Draft| draft.check(&bounds(), Origin::Admin).map(drop).map_err(|why| why.to_string());
    let with = |change: fn(&mut Exchange)| {
        let mut exchange = allowed(&[CRM]);
        change(&mut exchange);
        check(Draft { exchange: Some(exchange), ..web() })
    };
    with(|_| ()).unwrap();
    for (said, refused) in [
        ("tenant", with(|exchange| exchange.tenant.clear())),
        ("subject_audiences", with(|exchange| exchange.subject_audiences.clear())),
        ("subject_audiences", with(|exchange| exchange.subject_audiences.push("a\nb".to_owned()))),
        ("may_call", with(|exchange| exchange.may_call.clear())),
        ("may_call", with(|exchange| exchange.may_call.push(reach("crm")))),
        ("may_call", with(|exchange| exchange.may_call = vec![reach(CRM); 257])),
        (
            "16 KiB",
            with(|exchange| {
                exchange.may_call = vec![Reach { tools: Some(vec!["t".repeat(1000); 20]), ..reach(CRM) }];
            }),
        ),
        (
            "template",
            check(Draft { spiffe_id: "spiffe://example.org/user/{unix:user}".into(), ..agent(&[CRM]) }),
        ),
    ] {
        let refused = refused.unwrap_err();
        assert!(refused.contains("exchange: ") && refused.contains(said), "{said}: {refused}");
    }
}
