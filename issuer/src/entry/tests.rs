use super::*;
use std::str::FromStr as _;

#[test]
fn a_process_gets_what_all_of_its_selectors_match_and_nothing_else() {
    let entries = built(&[
        entry("web", "spiffe://example.org/web", &["unix:uid:1000", "unix:path:/usr/bin/web"]),
        entry("any-of-1000", "spiffe://example.org/person", &["unix:uid:1000"]),
        entry("root", "spiffe://example.org/root", &["unix:uid:0"]),
    ]);
    let web = process(&["unix:uid:1000", "unix:path:/usr/bin/web", "unix:gid:1000"]);
    assert_eq!(ids(&entries.entitled(&web, NOW)), ["any-of-1000", "web"]);
    assert_eq!(ids(&entries.entitled(&process(&["unix:uid:1000"]), NOW)), ["any-of-1000"]);
    assert_eq!(ids(&entries.entitled(&process(&["unix:path:/usr/bin/web"]), NOW)), [""; 0]);
    assert_eq!(ids(&entries.entitled(&process(&[]), NOW)), [""; 0]);
    assert!(entries.entitled_to("web", &web, NOW).is_some());
    assert!(entries.entitled_to("root", &web, NOW).is_none());
    assert!(entries.entitled_to("nothing", &web, NOW).is_none());
}

#[test]
fn an_entry_is_for_its_nodes_alone_and_until_its_end() {
    let other = "spiffe://example.org/deputize/node/other";
    let mut elsewhere = entry("elsewhere", "spiffe://example.org/a", &["unix:uid:1"]);
    elsewhere.nodes = vec![other.to_owned()];
    let mut ends = entry("ends", "spiffe://example.org/b", &["unix:uid:1"]);
    ends.expires_at_seconds = Some(NOW + 10);
    let entries = built(&[elsewhere, ends]);
    let here = process(&["unix:uid:1"]);
    let there = Workload::attested(other.parse().unwrap(), here.selectors().clone());
    assert_eq!(ids(&entries.entitled(&here, NOW)), ["ends"]);
    assert_eq!(ids(&entries.entitled(&here, NOW + 9)), ["ends"]);
    assert_eq!(ids(&entries.entitled(&here, NOW + 10)), [""; 0]);
    assert_eq!(ids(&entries.entitled(&there, NOW)), ["elsewhere"]);
}

#[test]
fn an_entry_for_all_nodes_of_a_cluster_is_for_no_other_node() {
    let node = |name: &str| SpiffeId::new(format!("spiffe://example.org/deputize/node/{name}")).unwrap();
    let mut prod = entry("prod", "spiffe://example.org/a", &["k8s:ns:a"]);
    let worker = "spiffe://example.org/deputize/node/kubernetes/prod/worker-1/0b1c".to_owned();
    // Named twice, it is one entry all the same.
    prod.nodes = vec![worker, "spiffe://example.org/deputize/node/kubernetes/prod/*".to_owned()];
    let entries = built(std::slice::from_ref(&prod));
    assert_eq!(entries.get("prod").unwrap().to_draft(), prod);
    for (name, expected) in [
        ("kubernetes/prod/worker-1/0b1c", &["prod"][..]),
        ("kubernetes/prod/worker-2/0b1d", &["prod"]),
        ("kubernetes/prod2/worker-1/0b1c", &[]),
        ("kubernetes/prod/worker-1/0b1c/deeper", &[]),
        ("kubernetes/prod", &[]),
        ("local", &[]),
    ] {
        let process = Workload::attested(node(name), ["k8s:ns:a".parse().unwrap()].into());
        assert_eq!(ids(&entries.entitled(&process, NOW)), expected, "{name}");
        let of_node: Vec<&str> = entries.of_node(&node(name)).iter().map(|entry| entry.id()).collect();
        assert_eq!(of_node, expected, "{name}");
        let explained = entries.explain(&process, NOW, 1).remove(0).verdict;
        let elsewhere = Verdict::NotEntitled(vec![Reason::OtherNode(node(name))]);
        assert_eq!(explained == elsewhere, expected.is_empty(), "{name}: {explained:?}");
    }
}

#[test]
fn a_template_is_filled_with_what_was_attested() {
    let entries = built(&[entry(
        "users",
        "spiffe://example.org/user/{unix:user}/at/{unix:uid}",
        &["unix:group:staff"],
    )]);
    let id = |selectors: &[&str]| {
        let entitled = entries.entitled(&process(selectors), NOW);
        entitled.first().map(|entry| entry.spiffe_id.to_string())
    };
    let alice = ["unix:group:staff", "unix:user:alice", "unix:uid:1000"];
    assert_eq!(id(&alice), Some("spiffe://example.org/user/alice/at/1000".to_owned()));
    assert_eq!(
        entries.get("users").unwrap().written_id(),
        "spiffe://example.org/user/{unix:user}/at/{unix:uid}"
    );
    for (user, why) in [
        ("unix:user:..", "a dot segment"),
        ("unix:user:.", "a dot segment"),
        ("unix:user:a/b", "two segments"),
        ("unix:user:a%2fb", "percent-encoding"),
        ("unix:user:DOM\\alice", "a backslash"),
        ("unix:user:aliçe", "not ASCII"),
        ("unix:user:alice@corp", "an at sign"),
        ("unix:user: ", "a space"),
        ("unix:username:alice", "another name"),
        ("systemd:user:alice", "another kind"),
    ] {
        assert_eq!(id(&["unix:group:staff", user, "unix:uid:1000"]), None, "{why}");
    }
    assert_eq!(id(&["unix:group:staff", "unix:uid:1000"]), None, "no value");
    let two = ["unix:group:staff", "unix:user:alice", "unix:user:bob", "unix:uid:1000"];
    assert_eq!(id(&two), None, "two values");
    let contained = ["unix:group:staff", "unix:user:alice", "unix:uid:1000", "container:id:4f"];
    assert_eq!(id(&contained), None, "in a container");
    // Many containers have no selector that tells of them: their groups are those of a service or of nobody.
    for place in
        ["systemd:id:systemd-nspawn@web.service", "systemd:id:quadlet.service", "systemd:slice:lxc.slice"]
    {
        let mut selectors = alice.to_vec();
        selectors.push(place);
        assert!(id(&selectors).is_some(), "{place}: a service like others");
        let contained = process(&selectors).contained();
        assert!(entries.entitled(&contained, NOW).is_empty(), "{place}");
        let Verdict::NotEntitled(reasons) = entries.get("users").unwrap().verdict(&contained, NOW) else {
            panic!("{place}: entitled");
        };
        assert_eq!(reasons, [Reason::InContainer]);
    }
    let long = format!("unix:user:{}", "a".repeat(1000));
    let longer = format!("spiffe://example.org/{}/{{unix:user}}", "p".repeat(1100));
    let entries = built(&[entry("long", &longer, &["unix:uid:1"])]);
    assert!(entries.entitled(&process(&["unix:uid:1", &long]), NOW).is_empty());
    assert_eq!(entries.entitled(&process(&["unix:uid:1", "unix:user:a"]), NOW).len(), 1);
}

#[test]
fn what_cannot_be_an_entry_is_refused_with_its_reason() {
    let good = entry("web", "spiffe://example.org/web", &["unix:uid:1000"]);
    assert!(good.check(&bounds(), Origin::Admin).is_ok());
    let long = format!("spiffe://example.org/{}", "a".repeat(2048));
    for id in [
        "",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/a%2eb",
        "spiffe://Example.org/a",
        "SPIFFE://example.org/a",
        "spiffe://example.org:8443/a",
        "spiffe://user@example.org/a",
        "spiffe://example.org/a?b=c",
        "spiffe://example.org/a#b",
        "spiffe://example.org/café",
        "spiffe://elsewhere.example/a",
        "spiffe://example.org/deputize",
        "spiffe://example.org/deputize/node/x",
        "spiffe://example.org/deputize/{unix:user}",
        "spiffe://example.org/{unix:user}",
        "spiffe://example.org/user/u-{unix:user}",
        "spiffe://example.org/user/{unix:user}{unix:uid}",
        "spiffe://example.org/user/{unix:user",
        "spiffe://example.org/user/{unix:path}",
        "spiffe://example.org/user/{unix}",
        "spiffe://example.org/user/{}",
        "spiffe://example.org//{unix:user}",
        "spiffe://example.org/../{unix:user}",
        "spiffe://elsewhere.example/user/{unix:user}",
        "spiffe://{unix:user}/a",
        long.as_str(),
    ] {
        assert!(refusal(|draft| draft.spiffe_id = id.to_owned()).starts_with("spiffe_id: "), "{id}");
    }
    let in_container = |draft: &mut Draft| {
        draft.spiffe_id = "spiffe://example.org/user/{unix:user}".to_owned();
        draft.selectors = vec!["k8s:ns:a".to_owned()];
    };
    assert!(refusal(in_container).contains("no template"));
    let many: Vec<String> = (0..65).map(|uid| format!("unix:uid:{uid}")).collect();
    assert!(refusal(|draft| draft.selectors = many.clone()).starts_with("selectors: "));
    for selectors in [&[][..], &["unix"], &["unix:"], &[":uid:1"], &["Unix:uid:1"]] {
        let given = selectors.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(refusal(|draft| draft.selectors = given.clone()).starts_with("selectors: "), "{selectors:?}");
    }
    for id in ["", "-a", "a b", "a/b", "é", &"a".repeat(129)] {
        assert!(refusal(|draft| draft.id = id.to_owned()).starts_with("id: "), "{id}");
    }
    for node in [
        "spiffe://elsewhere.example/deputize/node/a",
        "spiffe://example.org",
        "local",
        "*",
        "spiffe://example.org/deputize/node/*",
        "spiffe://example.org/deputize/node/edge-*",
    ] {
        assert!(refusal(|draft| draft.nodes = vec![node.to_owned()]).starts_with("nodes: "), "{node}");
    }
    for name in ["", "a..b", "A.example", "-a.example", "a_b", "*", "*.com", "a.*.b", "a b", &"a".repeat(64)]
    {
        assert!(
            refusal(|draft| draft.dns_names = vec![name.to_owned()]).starts_with("dns_names: "),
            "{name}"
        );
    }
    for domain in ["", "example.org", "Partner.example", "spiffe://partner.example", "a/b"] {
        let given = vec![domain.to_owned()];
        assert!(
            refusal(|draft| draft.federates_with = given.clone()).starts_with("federates_with"),
            "{domain}"
        );
    }
    for seconds in [0, 29, 8 * 86_400] {
        assert!(refusal(|draft| draft.x509_svid_ttl_seconds = Some(seconds)).starts_with("x509_svid_ttl"));
    }
    for seconds in [0, 9, 3601] {
        assert!(refusal(|draft| draft.jwt_svid_ttl_seconds = Some(seconds)).starts_with("jwt_svid_ttl"));
    }
    assert!(refusal(|draft| draft.hint = "a\nb".to_owned()).starts_with("hint: "));
    assert!(refusal(|draft| draft.hint = "a".repeat(257)).starts_with("hint: "));
}

#[test]
fn of_two_entries_with_one_name_the_later_is_refused_and_everything_wrong_is_said() {
    let file = |name: &str| Origin::File(name.into());
    let web = entry("web", "spiffe://example.org/web", &["unix:uid:1000"]);
    let bad = entry("bad", "spiffe://elsewhere.example/web", &["unix:uid:1000"]);
    let drafts = [(web.clone(), file("a.yaml")), (bad, file("b.yaml")), (web.clone(), file("c.yaml"))];
    let said: Vec<String> =
        Entries::build(bounds(), drafts).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "b.yaml: entry \"bad\": spiffe_id: it is not in our trust domain, example.org",
            "c.yaml: entry \"web\": a.yaml has an entry of this id already",
        ]
    );
    let one = built(std::slice::from_ref(&web));
    assert!(matches!(one.with(&web, Origin::Admin), Err(BadEntry::Duplicate { .. })));
    let two = one.with(&Draft { id: "other".to_owned(), ..web }, Origin::Admin).unwrap();
    assert_eq!((one.len(), two.len(), two.without("web").len()), (1, 2, 1));
    assert!(two.without("web").get("web").is_none());
    assert!(two.without("web").entitled_to("other", &process(&["unix:uid:1000"]), NOW).is_some());
}

#[test]
fn what_is_listed_is_what_was_written() {
    let mut draft = entry("web", "spiffe://example.org/user/{unix:user}", &["unix:gid:1", "unix:uid:1"]);
    draft.nodes = vec!["spiffe://example.org/deputize/node/a".to_owned()];
    draft.dns_names = vec!["*.web.example".to_owned()];
    draft.federates_with = vec!["partner.example".to_owned()];
    draft.hint = "main".to_owned();
    (draft.x509_svid_ttl_seconds, draft.jwt_svid_ttl_seconds) = (Some(600), Some(60));
    draft.expires_at_seconds = Some(NOW);
    assert_eq!(built(std::slice::from_ref(&draft)).get("web").unwrap().to_draft(), draft);
}

#[test]
fn a_reason_is_given_for_each_thing_that_an_entry_lacks() {
    let mut elsewhere = entry("elsewhere", "spiffe://example.org/a", &["unix:uid:1", "unix:gid:7"]);
    elsewhere.nodes = vec!["spiffe://example.org/deputize/node/other".to_owned()];
    elsewhere.expires_at_seconds = Some(NOW);
    let user = entry("user", "spiffe://example.org/user/{unix:user}", &["unix:uid:1"]);
    let mine = entry("z-mine", "spiffe://example.org/mine", &["unix:uid:1"]);
    let entries = built(&[elsewhere, user, mine]);
    let explained = entries.explain(&process(&["unix:uid:1", "unix:user:a b"]), NOW, 10);
    let said: Vec<(&str, Vec<String>)> = explained
        .iter()
        .map(|explained| match &explained.verdict {
            Verdict::Entitled(id) => (explained.entry.id(), vec![id.to_string()]),
            Verdict::NotEntitled(why) => {
                (explained.entry.id(), why.iter().map(ToString::to_string).collect())
            }
        })
        .collect();
    let own_node = "it is for other nodes than spiffe://example.org/deputize/node/local";
    assert_eq!(
        said,
        [
            ("z-mine", vec!["spiffe://example.org/mine".to_owned()]),
            ("user", vec!["the value of {unix:user} cannot stand in a SPIFFE ID".to_owned()]),
            (
                "elsewhere",
                vec![
                    own_node.to_owned(),
                    "it has ended".to_owned(),
                    "the process is not unix:gid:7".to_owned()
                ]
            ),
        ]
    );
    assert_eq!(entries.explain(&process(&[]), NOW, 2).len(), 2);
}

#[test]
fn who_waits_is_told_of_changes_and_of_ends() {
    let mut ends = entry("ends", "spiffe://example.org/b", &["unix:uid:1"]);
    ends.expires_at_seconds = Some(NOW + 10);
    let live = LiveEntries::new(built(&[ends]), NOW);
    let mut changes = live.changes();
    live.follow_time(NOW + 9);
    assert!(!changes.has_changed().unwrap());
    live.follow_time(NOW + 10);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    live.follow_time(NOW + 11);
    assert!(!changes.has_changed().unwrap());
    live.replace(live.now().without("ends"));
    assert!(changes.has_changed().unwrap());
    assert!(live.now().is_empty());
}

#[test]
fn many_entries_are_found_by_their_rarest_selector_and_bounded() {
    let drafts: Vec<Draft> = (0..2000)
        .map(|uid| {
            let own = format!("unix:uid:{uid}");
            entry(&format!("e{uid:04}"), "spiffe://example.org/a", &["unix:group:all", &own])
        })
        .collect();
    let entries = built(&drafts);
    assert_eq!(ids(&entries.entitled(&process(&["unix:group:all", "unix:uid:77"]), NOW)), ["e0077"]);
    let same: Vec<Draft> = (0..150)
        .map(|count| entry(&format!("e{count:03}"), "spiffe://example.org/a", &["unix:group:all"]))
        .collect();
    let given = built(&same).entitled(&process(&["unix:group:all"]), NOW);
    assert_eq!((given.len(), &*given[0].id, &*given[99].id), (MAX_IDENTITIES, "e000", "e099"));
    let one = entry("same", "spiffe://example.org/a", &["unix:uid:1"]);
    let many =
        (0..=MAX_ENTRIES).map(|count| (Draft { id: format!("e{count}"), ..one.clone() }, Origin::Admin));
    assert_eq!(Entries::build(bounds(), many).unwrap_err(), [BadEntry::TooMany]);
}

fn refusal(change: impl Fn(&mut Draft)) -> String {
    let mut draft = entry("web", "spiffe://example.org/web", &["unix:uid:1000"]);
    change(&mut draft);
    draft.check(&bounds(), Origin::Admin).unwrap_err().to_string()
}

fn built(drafts: &[Draft]) -> Entries {
    Entries::build(bounds(), drafts.iter().cloned().map(|draft| (draft, Origin::Admin))).unwrap()
}

fn bounds() -> Bounds {
    Bounds {
        trust_domain: TrustDomain::new("example.org").unwrap(),
        own_node: SpiffeId::new("spiffe://example.org/deputize/node/local").unwrap(),
    }
}

fn entry(id: &str, spiffe_id: &str, selectors: &[&str]) -> Draft {
    Draft {
        id: id.to_owned(),
        spiffe_id: spiffe_id.to_owned(),
        selectors: selectors.iter().map(ToString::to_string).collect(),
        ..Draft::default()
    }
}

fn process(selectors: &[&str]) -> Workload {
    let selectors = selectors.iter().map(|text| Selector::from_str(text).unwrap()).collect();
    Workload::attested(bounds().own_node, selectors)
}

fn ids(entries: &[Arc<Entry>]) -> Vec<&str> {
    entries.iter().map(|entry| &*entry.id).collect()
}

const NOW: u64 = 1_800_000_000;
