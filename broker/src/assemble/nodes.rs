//! What stands behind the door of nodes.

use deputize_issuer::node::{Cluster, MachineAuthority, NodeRegistry, Vouchers};
use std::sync::Arc;

use super::{CannotStart, cannot};
use crate::{
    backends::{machine_certificates::MachineAuthorities, nodes::EmbeddedNodes, token_review::ClusterApi},
    config::nodes::{KubernetesCluster, Nodes},
};

/// The nodes that the store knows, and who vouches for others.
///
/// # Errors
/// If the store, or a certificate, cannot be read.
pub(super) fn open(nodes: &Nodes, store: EmbeddedNodes) -> Result<NodeRegistry, CannotStart> {
    let machines = nodes.machines.as_deref().map(MachineAuthorities::read).transpose()?;
    let machines = machines.map(|machines| Arc::new(machines) as Arc<dyn MachineAuthority>);
    let clusters = nodes.clusters.iter().map(cluster).collect::<Result<_, _>>()?;
    NodeRegistry::open(nodes.settings.clone(), Vouchers { machines, clusters }, Box::new(store))
        .map_err(cannot)
}

fn cluster(configured: &KubernetesCluster) -> Result<Cluster, CannotStart> {
    let api = ClusterApi::new(&configured.api, configured.ca_file.clone(), configured.token_file.clone());
    let api =
        api.map_err(|error| CannotStart(format!("spiffe.nodes.kubernetes: {:?}: {error}", configured.name)))?;
    Ok(Cluster {
        name: configured.name.clone(),
        audience: configured.audience.clone(),
        service_accounts: configured.service_accounts.clone(),
        reviewer: Arc::new(api),
    })
}
