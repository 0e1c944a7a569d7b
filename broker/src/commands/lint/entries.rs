//! What is probably a mistake in registration entries: those that entitle nobody, and those that cannot mean what they say.

use deputize_issuer::{
    client::Clients,
    clock::{Clock as _, SystemClock},
    entry::{Draft, Entries},
    node::NODE_ID_PREFIX,
};
use std::collections::BTreeMap;

use crate::config::{federation::read_files, spiffe::Spiffe};

/// Reads and checks the entries of the folder, beside these clients: all of them, and what looks like a mistake.
///
/// # Errors
/// Everything that is wrong with them.
pub(super) fn check(spiffe: &Spiffe, clients: &Clients) -> Result<(Entries, Vec<String>), Vec<String>> {
    let drafts = spiffe.drafts().map_err(texts)?;
    read_files(&spiffe.federation).map_err(texts)?;
    let entries = Entries::build(spiffe.bounds.clone(), drafts).map_err(texts)?;
    entries.beside(clients).map_err(texts)?;
    let now_seconds = SystemClock::start().now_seconds();
    let mut warnings = Vec::new();
    for entry in entries.iter() {
        let (draft, origin) = (entry.to_draft(), entry.origin());
        let doubts = doubts(&draft, spiffe, now_seconds);
        warnings.extend(doubts.into_iter().map(|doubt| format!("{origin}: entry {:?}: {doubt}", draft.id)));
    }
    Ok((entries, warnings))
}

fn texts<E: ToString>(errors: Vec<E>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn doubts(draft: &Draft, spiffe: &Spiffe, now_seconds: u64) -> Vec<String> {
    let mut doubts = Vec::new();
    for domain in &draft.federates_with {
        if !spiffe.federation.iter().any(|known| known.trust_domain.as_str() == domain) {
            doubts.push(format!(
                "federates_with: there is no bundle of {domain}: it is not in spiffe.federation"
            ));
        }
    }
    doubts.extend(draft.nodes.iter().filter_map(|node| doubt_of_node(node, spiffe)));
    doubts.extend(doubt_of_own_node(draft, spiffe));
    let mut single: BTreeMap<&str, &str> = BTreeMap::new();
    for selector in &draft.selectors {
        let Some((name, value)) = name_and_value(selector) else {
            doubts.push(format!("{selector} is never true of a process: known are {}", names()));
            continue;
        };
        let earlier = single.insert(name, value).filter(|earlier| *earlier != value);
        if let (Some(earlier), Some((_, Values::One))) = (earlier, known(name)) {
            doubts
                .push(format!("no process is both {name}:{earlier} and {name}:{value}: it entitles nobody"));
        }
    }
    let ttl = draft.x509_svid_ttl_seconds.unwrap_or_default();
    if ttl > spiffe.authority.ttl_seconds {
        doubts.push(format!(
            "x509_svid_ttl_seconds: {ttl} is longer than what signs it lives (spiffe.authority.ttl_seconds: {}), and is cut",
            spiffe.authority.ttl_seconds
        ));
    }
    if draft.expires_at_seconds.is_some_and(|end| now_seconds >= end) {
        doubts.push("expires_at: it has ended: take it out".to_owned());
    }
    let only_this_user = ["unix:uid:0", "unix:user:root"];
    if draft.selectors.iter().all(|selector| only_this_user.contains(&selector.as_str())) {
        doubts.push("it entitles every process of root: add unix:path or systemd:id".to_owned());
    }
    doubts
}

/// Why no process of the broker's own node will ever have it, if it is for that node alone.
fn doubt_of_own_node(draft: &Draft, spiffe: &Spiffe) -> Option<String> {
    let own = spiffe.bounds.own_node.to_string();
    if draft.nodes.iter().any(|node| *node != own) {
        return None;
    }
    if spiffe.socket.is_none() {
        return Some(
            "nodes: without any it is for the broker's own node, which has no socket: name others".to_owned(),
        );
    }
    let of_kubelet =
        |selector: &&String| selector.starts_with("k8s:") && !selector.starts_with("k8s:pod_uid:");
    let selector = draft.selectors.iter().find(of_kubelet).filter(|_| spiffe.kubelet.is_none())?;
    Some(format!(
        "{selector} is never true on the broker's own node: give spiffe.kubelet, or name other nodes"
    ))
}

/// Why no machine will ever be this node, if so.
fn doubt_of_node(node: &str, spiffe: &Spiffe) -> Option<String> {
    if node == spiffe.bounds.own_node.to_string() {
        return None;
    }
    let Some(nodes) = &spiffe.nodes else {
        return Some(format!("nodes: {node} is not the broker's own, and spiffe.nodes lets no other be one"));
    };
    let (_, name) = node.split_once(NODE_ID_PREFIX)?;
    let mut segments = name.split('/');
    let is_possible = match (segments.next(), segments.next()) {
        (Some("x509pop"), Some(_)) => nodes.machines.is_some(),
        (Some("kubernetes"), cluster) => {
            nodes.clusters.iter().any(|known| Some(known.name.as_str()) == cluster)
        }
        (Some(_), None) => nodes.settings.join_tokens,
        _ => false,
    };
    (!is_possible).then(|| format!("nodes: spiffe.nodes has no way in which a machine could become {node}"))
}

/// `unix:uid` and `1000` of `unix:uid:1000`; nothing where no process ever is such.
fn name_and_value(selector: &str) -> Option<(&str, &str)> {
    let (at, _) = selector.match_indices(':').nth(1)?;
    let (name, value) = selector.split_at_checked(at)?;
    known(name).map(|(name, _)| (name, value.trim_start_matches(':')))
}

fn known(name: &str) -> Option<(&'static str, Values)> {
    KNOWN.iter().find(|(known, _)| *known == name).copied()
}

fn names() -> String {
    KNOWN.map(|(name, _)| name).join(", ")
}

/// How many values of a kind one process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    One,
    Many,
}

/// What can be true of a process.
const KNOWN: [(&str, Values); 19] = [
    ("unix:uid", Values::One),
    ("unix:user", Values::One),
    ("unix:gid", Values::One),
    ("unix:group", Values::One),
    ("unix:supplementary_gid", Values::Many),
    ("unix:supplementary_group", Values::Many),
    ("unix:path", Values::One),
    ("unix:sha256", Values::One),
    ("systemd:id", Values::One),
    ("systemd:slice", Values::One),
    ("container:id", Values::One),
    ("container:runtime", Values::One),
    ("k8s:pod_uid", Values::One),
    ("k8s:ns", Values::One),
    ("k8s:sa", Values::One),
    ("k8s:pod_name", Values::One),
    ("k8s:container_name", Values::One),
    ("k8s:container_image", Values::One),
    ("k8s:pod_label", Values::Many),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        raw::EntryFile,
        resolved::{self, Mode},
    };

    #[test]
    fn an_entry_that_can_entitle_nobody_is_named_and_a_good_one_is_not() {
        for (change, said) in [
            ("selectors: [unix:uid:1, unix:uid:2]", "no process is both unix:uid:1 and unix:uid:2"),
            ("selectors: ['unix:path:/a', 'unix:path:/b']", "no process is both"),
            ("selectors: [unix:euid:1]", "unix:euid:1 is never true"),
            ("selectors: [docker:label:a]", "docker:label:a is never true"),
            ("selectors: [unix:uid:0]", "every process of root"),
            ("selectors: [unix:uid:1]\nx509_svid_ttl_seconds: 7200", "is cut"),
            ("selectors: [unix:uid:1]\nfederates_with: [partner.example]", "no bundle of partner.example"),
            ("selectors: [unix:uid:1]\nexpires_at: 2020-01-01T00:00:00Z", "it has ended"),
        ] {
            let (count, warnings) = linted(change).unwrap();
            assert_eq!(count, 1);
            assert_eq!(warnings.len(), 1, "{change}: {warnings:?}");
            assert!(warnings[0].contains(said) && warnings[0].contains("a.yaml"), "{change}: {warnings:?}");
        }
        for good in [
            "selectors: [unix:uid:1, 'unix:path:/usr/bin/agent']",
            "selectors: [unix:supplementary_gid:1, unix:supplementary_gid:2]",
            "selectors: ['k8s:pod_uid:2c48913c-b29f-4fe1-8a2f-9d6f2c0ab123']",
        ] {
            assert_eq!(linted(good).unwrap(), (1, Vec::new()), "{good}");
        }
        let of_pods = "selectors: ['k8s:ns:a', 'k8s:pod_label:app:web', 'k8s:pod_label:tier:front']";
        let kubelet = "kubelet: { address: 10.0.0.7, ca_file: ca.pem, token_file: token }";
        assert_eq!(linted_with(of_pods, kubelet).unwrap(), (1, Vec::new()));
        for (spiffe, said) in [
            ("socket: s", "give spiffe.kubelet"),
            ("socket: null", "the broker's own node, which has no socket"),
        ] {
            let (_, warnings) = linted_with(of_pods, spiffe).unwrap();
            assert!(warnings.len() == 1 && warnings[0].contains(said), "{warnings:?}");
        }
        for (bad, said) in [
            ("selectors: []", "selectors: 1 to 64"),
            ("selectors: [unix]", "selectors: "),
            ("selectors: [unix:uid:1]\nhints: a", "did you mean `hint`?"),
        ] {
            let problems = linted(bad).unwrap_err();
            assert!(problems[0].contains(said), "{bad}: {problems:?}");
        }
    }

    #[test]
    fn everything_that_a_template_may_hold_is_known() {
        for name in
            ["unix:user", "unix:uid", "unix:group", "unix:gid", "unix:sha256", "systemd:id", "systemd:slice"]
        {
            assert!(matches!(known(name), Some((_, Values::One))), "{name}");
        }
    }

    #[test]
    fn an_entry_for_nodes_that_no_machine_becomes_is_named() {
        let nodes = "nodes: { kubernetes: [{ cluster: prod, api: 'https://127.0.0.1:1', token_file: t, audience: a, \
                     service_accounts: [a/b] }] }";
        let entry = |name: &str| {
            format!("selectors: ['k8s:ns:a']\nnodes: ['spiffe://example.org/deputize/node/{name}']")
        };
        for good in ["kubernetes/prod/*", "kubernetes/prod/worker-1/0b1c"] {
            assert_eq!(linted_with(&entry(good), nodes).unwrap(), (1, Vec::new()), "{good}");
        }
        for bad in ["kubernetes/prod2/*", "x509pop/*", "edge-1"] {
            let (_, warnings) = linted_with(&entry(bad), nodes).unwrap();
            assert!(warnings.len() == 1 && warnings[0].contains("no way in which"), "{bad}: {warnings:?}");
        }
        for bad in ["*", "kubernetes/*", "kubernetes/prod/worker-*"] {
            assert!(linted_with(&entry(bad), nodes).unwrap_err()[0].contains("nodes: "), "{bad}");
        }
    }

    fn linted(rest: &str) -> Result<(usize, Vec<String>), Vec<String>> {
        linted_with(rest, "socket: s")
    }

    fn linted_with(rest: &str, spiffe: &str) -> Result<(usize, Vec<String>), Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let entries = folder.path().join("entries");
        std::fs::create_dir(&entries).unwrap();
        let entry = format!("id: one\nspiffe_id: spiffe://example.org/one\n{rest}\n");
        std::fs::write(entries.join("a.yaml"), entry).unwrap();
        let config = folder.path().join("deputize.yaml");
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("tls.pem"), own.cert.pem()).unwrap();
        write_private(&folder.path().join("tls.key"), &own.signing_key.serialize_pem());
        let text = format!(
            "issuer: https://127.0.0.1:1\ndata_dir: data\n\
             listen: {{ address: '127.0.0.1:1', tls: {{ certificate_file: tls.pem, key_file: tls.key }} }}\n\
             registry: {{ folder: registry }}\npolicies: policies\n\
             spiffe: {{ trust_domain: example.org, entries: entries, authority: {{ ttl_seconds: 3600 }}, {spiffe} }}\n"
        );
        std::fs::write(&config, text).unwrap();
        let resolved = resolved::load(&config, Mode::Development).unwrap();
        let checked = check(&resolved.spiffe.unwrap(), &Clients::default());
        checked.map(|(entries, warnings)| (entries.len(), warnings))
    }

    fn write_private(path: &std::path::Path, text: &str) {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    }

    #[test]
    fn an_entry_needs_a_name_an_id_and_selectors() {
        for text in ["{}", "id: a", "id: a\nspiffe_id: b"] {
            assert!(serde_saphyr::from_str::<EntryFile>(text).is_err(), "{text}");
        }
    }
}
