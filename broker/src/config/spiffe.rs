//! The Workload API: our trust domain, its socket, who is entitled to what, and how long it holds.

use deputize_issuer::{
    entry::{Bounds, Draft, JWT_SVID_TTL_SECONDS, Origin, X509_SVID_TTL_SECONDS, parse_spiffe_id},
    svid::SvidSettings,
};
use spiffe::{SpiffeId, TrustDomain};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    federation::Federated,
    kubelet::KubeletAccess,
    nodes::Nodes,
    raw::{self, EntryFile},
    read::{self, ConfigError},
    resolved::Check,
};

/// The Workload API, as it is configured.
#[derive(Debug, Clone)]
pub struct Spiffe {
    /// Trust domain and own node.
    pub bounds: Bounds,
    /// `iss` of JWT-SVIDs.
    pub issuer: String,
    /// The socket, where there is one.
    pub socket: Option<PathBuf>,
    /// Folder of entries.
    pub entries: Option<PathBuf>,
    /// How long SVIDs live.
    pub svids: SvidSettings,
    /// What signs X.509-SVIDs.
    pub authority: Authority,
    /// Foreign trust domains.
    pub federation: Vec<Federated>,
    /// Listener of our bundle, under our own X.509-SVID.
    pub bundle_endpoint: Option<SocketAddr>,
    /// How other machines become nodes, where they may.
    pub nodes: Option<Nodes>,
    /// How the kubelet of our own node is asked, where there is one.
    pub kubelet: Option<KubeletAccess>,
}

/// What signs X.509-SVIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Life of each signing certificate, in seconds.
    pub ttl_seconds: u64,
    /// Certificates and key of the authority above, as PEM files.
    pub upstream: Option<(PathBuf, PathBuf)>,
}

impl Spiffe {
    /// The entries of its folder, as they stand.
    ///
    /// # Errors
    /// Every file that cannot be read, and every entry with a time that is none.
    pub fn drafts(&self) -> Result<Vec<(Draft, Origin)>, Vec<ConfigError>> {
        self.entries.as_deref().map_or(Ok(Vec::new()), read_entries)
    }
}

/// Reads all entries of a folder, in the order of its files.
///
/// # Errors
/// Everything that cannot be read.
fn read_entries(folder: &Path) -> Result<Vec<(Draft, Origin)>, Vec<ConfigError>> {
    let files = read::files_of(folder, &["yaml", "yml"]).map_err(|error| vec![error])?;
    if files.len() > MAX_FILES {
        return Err(vec![ConfigError::new(folder, format!("{MAX_FILES} files of entries at most"))]);
    }
    let (mut drafts, mut errors) = (Vec::new(), Vec::new());
    for file in files {
        match read::read_yaml_documents::<EntryFile>(&file) {
            Err(error) => errors.push(error),
            Ok(entries) => {
                let origin = Origin::File(file.display().to_string().into());
                for entry in entries {
                    match entry.into_draft() {
                        Ok(draft) => drafts.push((draft, origin.clone())),
                        Err(problem) => errors.push(ConfigError::new(&file, problem)),
                    }
                }
            }
        }
    }
    if errors.is_empty() { Ok(drafts) } else { Err(errors) }
}

/// In which file of a folder the entry of this id stands, whatever is wrong with others.
pub fn file_of_entry(folder: &Path, id: &str) -> Option<PathBuf> {
    let files = read::files_of(folder, &["yaml", "yml"]).ok()?;
    files.into_iter().take(MAX_FILES).find(|file| {
        let entries = read::read_yaml_documents::<EntryFile>(file);
        entries.is_ok_and(|entries| entries.iter().any(|entry| entry.id == id))
    })
}

impl Check<'_> {
    /// What the file says of the Workload API.
    pub(super) fn spiffe(&mut self, raw: &raw::Spiffe, issuer: &str) -> Option<Spiffe> {
        let trust_domain = self.trust_domain(&raw.trust_domain)?;
        let node = raw.node.clone().unwrap_or_else(|| format!("spiffe://{trust_domain}{NODES}local"));
        let own_node = self.own_node(&node, &trust_domain)?;
        let socket = raw.socket.as_ref().map(|socket| {
            let socket = self.folder.join(socket);
            std::path::absolute(&socket).unwrap_or(socket)
        });
        // `sun_path` of unix(7).
        if socket.as_ref().is_some_and(|socket| socket.as_os_str().len() > 107) {
            self.refuse("spiffe.socket: the path of a socket has 107 bytes at most");
        }
        self.lifetimes(raw);
        let upstream = raw.authority.upstream.as_ref().map(|upstream| {
            let key_file = self.folder.join(&upstream.key_file);
            self.private(&key_file);
            (self.folder.join(&upstream.certificate_file), key_file)
        });
        let federation = self.federation(&raw.federation, &trust_domain);
        let bundle_endpoint = raw.bundle_endpoint.as_ref();
        let bundle_endpoint =
            bundle_endpoint.and_then(|own| self.address("spiffe.bundle_endpoint.address", &own.address));
        let bounds = Bounds { trust_domain, own_node };
        let nodes = raw.nodes.as_ref().map(|nodes| self.nodes(nodes, &bounds, raw.authority.ttl_seconds));
        Some(Spiffe {
            bounds,
            issuer: format!("{issuer}/spiffe"),
            socket,
            entries: raw.entries.as_ref().map(|folder| self.folder.join(folder)),
            svids: SvidSettings {
                x509_svid_ttl_seconds: raw.x509_svid_ttl_seconds,
                jwt_svid_ttl_seconds: raw.jwt_svid_ttl_seconds,
            },
            authority: Authority { ttl_seconds: raw.authority.ttl_seconds, upstream },
            federation,
            bundle_endpoint,
            nodes,
            kubelet: raw.kubelet.as_ref().and_then(|kubelet| self.kubelet(kubelet)),
        })
    }

    pub(super) fn trust_domain(&mut self, text: &str) -> Option<TrustDomain> {
        // The library takes IDs for their domain, and capitals for small letters.
        let domain = TrustDomain::new(text).ok().filter(|domain| domain.as_str() == text);
        if domain.is_none() {
            self.refuse(format!(
                "spiffe.trust_domain: {text:?}: small letters, digits, `.`, `-` and `_`, as in example.org"
            ));
        }
        domain
    }

    fn own_node(&mut self, text: &str, trust_domain: &TrustDomain) -> Option<SpiffeId> {
        let id = parse_spiffe_id(text).ok();
        let id = id.filter(|id| id.is_member_of(trust_domain) && id.path().starts_with(NODES));
        if id.is_none() {
            self.refuse(format!("spiffe.node: {text:?}: give spiffe://{trust_domain}{NODES}NAME"));
        }
        id
    }

    fn lifetimes(&mut self, raw: &raw::Spiffe) {
        for (member, seconds, (least, most)) in [
            ("x509_svid_ttl_seconds", raw.x509_svid_ttl_seconds, X509_SVID_TTL_SECONDS),
            ("jwt_svid_ttl_seconds", raw.jwt_svid_ttl_seconds, JWT_SVID_TTL_SECONDS),
            ("authority.ttl_seconds", raw.authority.ttl_seconds, AUTHORITY_TTL_SECONDS),
        ] {
            if !(least..=most).contains(&seconds) {
                self.refuse(format!("spiffe.{member}: {least} to {most} seconds"));
            }
        }
        if raw.x509_svid_ttl_seconds > raw.authority.ttl_seconds {
            self.refuse("spiffe.x509_svid_ttl_seconds: no longer than authority.ttl_seconds, the life of what signs it");
        }
    }
}

/// Where nodes are in a trust domain.
const NODES: &str = "/deputize/node/";
/// Least and greatest life of a signing certificate, in seconds.
const AUTHORITY_TTL_SECONDS: (u64, u64) = (60, 10 * 365 * 86_400);
const MAX_FILES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_entry_or_many_and_what_is_wrong_is_shown_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.yaml", "id: one\nspiffe_id: spiffe://example.org/one\nselectors: [unix:uid:1]\n");
        write(
            "b.yml",
            "id: two\nspiffe_id: spiffe://example.org/two\nselectors: [unix:uid:2]\nexpires_at: 2027-01-31T12:00:00Z\n\
             ---\nid: three\nspiffe_id: spiffe://example.org/three\nselectors: ['unix:uid:3']\n",
        );
        write("notes.txt", "not an entry");
        let drafts = read_entries(folder.path()).unwrap();
        let ids: Vec<&str> = drafts.iter().map(|(draft, _)| draft.id.as_str()).collect();
        assert_eq!(ids, ["one", "two", "three"]);
        // Computed by `date -u -d … +%s`.
        assert_eq!(drafts[1].0.expires_at_seconds, Some(1_801_396_800));
        assert!(drafts[2].1.to_string().ends_with("b.yml"));
        let again = EntryFile::from(drafts[1].0.clone());
        assert_eq!(again.expires_at.as_deref(), Some("2027-01-31T12:00:00Z"));
        assert_eq!(again.into_draft().unwrap(), drafts[1].0);

        write("c.yaml", "id: four\nspiffe_id: spiffe://example.org/four\nselector: [unix:uid:1]\n");
        write("d.yaml", "id: five\nspiffe_id: x\nselectors: [unix:uid:1]\nexpires_at: 15m\n");
        write("e.yaml", "- id: six\n");
        let said: Vec<String> =
            read_entries(folder.path()).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("c.yaml") && said[0].contains("did you mean `selectors`?"), "{said:?}");
        assert!(said[1].contains("\"five\": expires_at: \"15m\" is no time"), "{said:?}");
        assert!(said[2].contains("e.yaml"), "{said:?}");
    }
}
