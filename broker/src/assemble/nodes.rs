//! What stands behind the door of nodes.

use deputize_issuer::node::{Cluster, MachineAuthority, NodeRegistry, Vouchers};
use std::sync::Arc;

use super::{CannotStart, cannot};
use crate::{
    backends::{machine_certificates::MachineAuthorities, nodes::EmbeddedNodes, token_review::ClusterApi},
    config::nodes::{KubernetesCluster, Nodes},
};

/// The nodes that the store knows, and who vouches for others: nobody who vouches for SVIDs.
///
/// # Errors
/// If the store, or a certificate, cannot be read, or an authority of machines is one of SVIDs.
pub(super) fn open(
    nodes: &Nodes,
    store: EmbeddedNodes,
    of_svids: &[Vec<u8>],
) -> Result<NodeRegistry, CannotStart> {
    let machines = nodes.machines.as_deref();
    let machines = machines.map(|file| MachineAuthorities::read(file, of_svids)).transpose()?;
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
