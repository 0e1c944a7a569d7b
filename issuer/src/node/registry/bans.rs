//! Which bans hold for a node: that of its ID, and those of what stays when its ID becomes another.
//!
//! A cluster gives a node another UID when it registers anew, and an authority renews certificates unasked: neither ends
//! a ban. So what is banned is, beside the ID, the node's name in its cluster, and the public key of its machine.

use spiffe::SpiffeId;
use std::collections::BTreeMap;

use super::{
    NodeRegistry,
    orders::{MAX_NAME_BYTES, NotDone, RESERVED_NAMES},
};
use crate::node::{Attestation, NodeRecord, told::NODE_ID_PREFIX};

pub(super) type Known = BTreeMap<String, NodeRecord>;

/// The IDs that may be banned where this node is to be none: its own, first; `…/kubernetes/CLUSTER/NAME`, whatever its UID;
/// `…/x509pop/key/SHA-256`, whatever its certificate.
pub(super) fn bans_of(id: &str, attestation: Option<&Attestation>) -> Vec<String> {
    let mut bans = vec![id.to_owned()];
    let Some((domain, name)) = id.split_once(NODE_ID_PREFIX) else { return bans };
    let segments: Vec<&str> = name.split('/').collect();
    if let [KUBERNETES, cluster, name, _uid] = segments.as_slice() {
        bans.push(format!("{domain}{NODE_ID_PREFIX}{KUBERNETES}/{cluster}/{name}"));
    }
    if let Some(Attestation::X509pop { public_key: Some(key), .. }) = attestation {
        bans.push(format!("{domain}{NODE_ID_PREFIX}{X509POP}/{KEY}/{key}"));
    }
    bans
}

/// The bans that may hold for a node as it is known.
pub(super) fn bans_of_known(node: &NodeRecord) -> Vec<String> {
    bans_of(&node.id, node.attested.as_ref().map(|it| &it.attestation))
}

/// Since when a node is banned, in Unix seconds, by any of these.
pub(super) fn banned_at(known: &Known, bans: &[String]) -> Option<u64> {
    bans.iter().filter_map(|ban| known.get(ban)?.banned_at).min()
}

/// Bans a node in each way; what is to be kept of that.
pub(super) fn mark(known: &mut Known, id: &str, now_seconds: u64) -> Vec<NodeRecord> {
    let bans = known.get(id).map_or_else(|| bans_of(id, None), bans_of_known);
    let unheard_of = |id: &str| NodeRecord { id: id.to_owned(), attested: None, banned_at: None };
    let marked = bans.into_iter().map(|id| {
        let node = known.entry(id).or_insert_with_key(|id| unheard_of(id));
        node.banned_at.get_or_insert(now_seconds);
        node.clone()
    });
    marked.collect()
}

/// What has to be lifted for this node to be one again: all that is banned as it is, or as what it shares a ban with.
pub(super) fn lifted_with(known: &Known, id: &str) -> Vec<NodeRecord> {
    let meant = known.get(id).map_or_else(|| bans_of(id, None), bans_of_known);
    let is_meant = |node: &&NodeRecord| bans_of_known(node).iter().any(|ban| meant.contains(ban));
    known.values().filter(|node| node.banned_at.is_some()).filter(is_meant).cloned().collect()
}

impl NodeRegistry {
    /// Refuses to ban what nobody can be: whoever orders that means another node, which would go on.
    pub(super) fn check_that_somebody_can_be(&self, id: &SpiffeId, ordered: &str) -> Result<(), NotDone> {
        if self.find(id).is_some() {
            return Ok(());
        }
        let name = id.path().strip_prefix(NODE_ID_PREFIX).unwrap_or_default();
        let segments: Vec<&str> = name.split('/').collect();
        let can_be = match segments.as_slice() {
            [X509POP, digest] | [X509POP, KEY, digest] => {
                self.vouchers.machines.is_some() && is_sha256(digest)
            }
            [KUBERNETES, cluster, _] | [KUBERNETES, cluster, _, _] => {
                self.vouchers.cluster(Some(cluster)).is_ok()
            }
            [name] => {
                // A whole ID says which is meant: so a token of that name is withdrawn before anybody joined by it.
                if ordered == *name {
                    self.check_that_no_cluster_has(name)?;
                }
                self.settings.join_tokens && !RESERVED_NAMES.contains(name) && name.len() <= MAX_NAME_BYTES
            }
            _ => false,
        };
        if can_be { Ok(()) } else { Err(NotDone::Bad(NOBODY)) }
    }

    fn check_that_no_cluster_has(&self, name: &str) -> Result<(), NotDone> {
        let has_name = |node: &NodeRecord| match node.attested.as_ref().map(|it| &it.attestation) {
            Some(Attestation::Kubernetes { cluster, node_name, .. }) if node_name == name => {
                Some(format!("{KUBERNETES}/{cluster}/{node_name}"))
            }
            _ => None,
        };
        match self.read(|known| known.values().find_map(has_name)) {
            Some(meant) => Err(NotDone::InTheWay(format!(
                "no node has joined as {name}; in its cluster it is {meant}, and who might join is banned by a whole SPIFFE ID"
            ))),
            None => Ok(()),
        }
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

const X509POP: &str = "x509pop";
const KUBERNETES: &str = "kubernetes";
/// No digest of a certificate is called so.
const KEY: &str = "key";
const NOBODY: &str = "nothing that spiffe.nodes takes makes that node: a node is NAME, where it joined by a token; \
     kubernetes/CLUSTER/NODE-NAME, with or without its UID; or x509pop/ and the SHA-256 of its certificate in lower-case \
     hexadecimal, or x509pop/key/ and that of its public key";
