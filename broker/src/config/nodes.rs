//! Nodes, as they are configured: how a machine becomes one.

use deputize_issuer::{
    entry::{Bounds, X509_SVID_TTL_SECONDS},
    node::NodeSettings,
};
use std::{collections::BTreeSet, path::PathBuf};
use url::Url;

use super::{raw, resolved::Check};

/// How machines become nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// What holds of all.
    pub settings: NodeSettings,
    /// PEM file of the authorities of machines' certificates.
    pub machines: Option<PathBuf>,
    /// Clusters of Kubernetes.
    pub clusters: Vec<KubernetesCluster>,
}

/// A cluster of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesCluster {
    /// Its name here.
    pub name: String,
    /// Its API.
    pub api: Url,
    /// PEM file of the authority of that API's certificate.
    pub ca_file: Option<PathBuf>,
    /// File with the broker's own token there.
    pub token_file: PathBuf,
    /// Whom agents' tokens are for.
    pub audience: String,
    /// `namespace/name`.
    pub service_accounts: BTreeSet<String>,
}

impl raw::Config {
    /// Whether other machines may be nodes.
    pub(super) fn has_nodes(&self) -> bool {
        self.spiffe.as_ref().is_some_and(|spiffe| spiffe.nodes.is_some())
    }
}

impl Check<'_> {
    /// What the file says of nodes.
    pub(super) fn nodes(&mut self, raw: &raw::SpiffeNodes, bounds: &Bounds, authority_ttl: u64) -> Nodes {
        if !raw.join_tokens && raw.x509pop.is_none() && raw.kubernetes.is_empty() {
            self.refuse("spiffe.nodes: say how a machine becomes a node: join_tokens, x509pop or kubernetes");
        }
        let (least, most) = X509_SVID_TTL_SECONDS;
        if !(least..=most.min(authority_ttl)).contains(&raw.svid_ttl_seconds) {
            self.refuse(format!(
                "spiffe.nodes.svid_ttl_seconds: {least} to {most} seconds, and no longer than spiffe.authority.ttl_seconds"
            ));
        }
        let clusters: Vec<KubernetesCluster> =
            raw.kubernetes.iter().filter_map(|cluster| self.cluster(cluster)).collect();
        let names: BTreeSet<&str> = clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        if names.len() < clusters.len() {
            self.refuse("spiffe.nodes.kubernetes: two clusters have one name");
        }
        Nodes {
            settings: NodeSettings {
                trust_domain: bounds.trust_domain.clone(),
                own_node: bounds.own_node.clone(),
                svid_ttl_seconds: raw.svid_ttl_seconds,
                join_tokens: raw.join_tokens,
            },
            machines: raw.x509pop.as_ref().map(|machines| self.folder.join(&machines.authority_file)),
            clusters,
        }
    }

    /// Nodes prove themselves by certificates, and to nobody but the broker itself.
    pub(super) fn node_listener(&mut self, raw: &raw::Config) {
        if !raw.has_nodes() {
            return;
        }
        match &raw.listen.tls {
            None => self.refuse(
                "spiffe.nodes: nodes prove themselves to the broker by certificates: give listen.tls",
            ),
            Some(tls) if tls.client_certificates == Some(raw::ClientCertificates::Ignore) => {
                self.refuse("listen.tls.client_certificates: nodes need them: leave it out, or say `ask`");
            }
            Some(_) if raw.listen.behind_proxy => self.refuse(
                "listen.behind_proxy: nodes prove themselves by the certificates of their connections, which end at the \
                 proxy: leave it out",
            ),
            Some(_) => {}
        }
    }

    fn cluster(&mut self, raw: &raw::SpiffeCluster) -> Option<KubernetesCluster> {
        let at = format!("spiffe.nodes.kubernetes: {:?}", raw.cluster);
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=63).contains(&raw.cluster.len()) || !raw.cluster.bytes().all(is_plain) {
            self.refuse(format!("{at}: cluster: 1 to 63 small letters, digits and `-`"));
        }
        self.https(&format!("{at}: api"), &raw.api);
        if raw.audience.is_empty() {
            self.refuse(format!("{at}: audience: give one that nothing else takes, such as `deputize`"));
        }
        if raw.service_accounts.is_empty()
            || raw
                .service_accounts
                .iter()
                .any(|account| account.split('/').filter(|part| !part.is_empty()).count() != 2)
        {
            self.refuse(format!("{at}: service_accounts: at least one, each namespace/name"));
        }
        Some(KubernetesCluster {
            name: raw.cluster.clone(),
            api: Url::parse(&raw.api).ok()?,
            ca_file: raw.ca_file.as_ref().map(|file| self.folder.join(file)),
            token_file: self.folder.join(&raw.token_file),
            audience: raw.audience.clone(),
            service_accounts: raw.service_accounts.iter().cloned().collect(),
        })
    }
}
