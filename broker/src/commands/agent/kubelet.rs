//! The kubelet of the agent's node, as arguments say it.

use deputize_issuer::clock::Clock;
use deputize_workload_api::attest::PodData;
use spiffe::SpiffeId;
use std::{path::PathBuf, sync::Arc};

use crate::{
    backends::kubelet::{Kubelet, KubeletError},
    commands::exit::CommandError,
    config::kubelet::{KubeletAccess, KubeletTrust, pods_url},
};

/// How the kubelet of this node is asked which pods it has.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct KubeletArgs {
    /// Address of this node's kubelet, with a port where that is not 10250: what it says of pods becomes selectors
    ///
    /// In a pod: --kubelet-address=$(NODE_IP), with NODE_IP out of status.hostIP. Without it the selectors k8s:ns:,
    /// k8s:sa: and others of pods are absent.
    #[arg(long, value_name = "ADDRESS")]
    kubelet_address: Option<String>,
    /// PEM: authorities of the kubelet's certificate
    #[arg(long, value_name = "FILE", requires = "kubelet_address", conflicts_with = "kubelet_certificate")]
    kubelet_ca: Option<PathBuf>,
    /// PEM: the kubelet's certificate itself, where it signed that for itself: no other is taken
    #[arg(long, value_name = "FILE", requires = "kubelet_address")]
    kubelet_certificate: Option<PathBuf>,
    /// Token of a service account that may `get` nodes/pods
    #[arg(
        long,
        value_name = "FILE",
        requires = "kubelet_address",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    )]
    kubelet_token_file: PathBuf,
}

impl KubeletArgs {
    /// What the arguments say, if they say anything.
    ///
    /// # Errors
    /// If the address is none, or nothing vouches for the kubelet's certificate.
    pub(super) fn access(&self) -> Result<Option<KubeletAccess>, CommandError> {
        let Some(address) = &self.kubelet_address else { return Ok(None) };
        let pods = pods_url(address).ok_or_else(|| {
            CommandError::usage(
                format!("--kubelet-address: {address:?} is no address of a node"),
                "give the node's address, such as 10.0.0.7; in a pod out of status.hostIP",
            )
        })?;
        let trust = match (&self.kubelet_ca, &self.kubelet_certificate) {
            (Some(file), _) => KubeletTrust::Authority(file.clone()),
            (None, Some(file)) => KubeletTrust::Certificate(file.clone()),
            (None, None) => {
                return Err(CommandError::usage(
                    "nothing vouches for the kubelet's certificate",
                    "give --kubelet-ca; or --kubelet-certificate, where the kubelet signed its own",
                ));
            }
        };
        let access = KubeletAccess { pods, trust, token_file: self.kubelet_token_file.clone() };
        // A join token is good once: what is wrong here is to be told before it is used.
        Kubelet::check(&access).map_err(wrong)?;
        Ok(Some(access))
    }
}

/// What knows the pods of this node, where that was said.
pub(super) fn pods(
    access: Option<KubeletAccess>,
    node: &SpiffeId,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<dyn PodData>>, CommandError> {
    let Some(access) = access else { return Ok(None) };
    Ok(Some(Arc::new(Kubelet::new(access, node, Arc::clone(clock)).map_err(wrong)?)))
}

fn wrong(error: KubeletError) -> CommandError {
    CommandError::configuration(
        format!("the kubelet: {error}"),
        "correct --kubelet-address, and --kubelet-ca or --kubelet-certificate",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::exit::Exit;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        kubelet: KubeletArgs,
    }

    fn access(arguments: &[&str]) -> Result<Option<KubeletAccess>, Exit> {
        let line = Line::try_parse_from([&["agent"], arguments].concat()).map_err(|_| Exit::Usage)?;
        line.kubelet.access().map_err(|error| error.exit)
    }

    #[test]
    fn a_kubelet_is_asked_where_an_address_and_what_vouches_for_it_were_given() {
        let folder = tempfile::tempdir().unwrap();
        let (pem, empty) = (folder.path().join("ca.pem"), folder.path().join("empty.pem"));
        let own = rcgen::generate_simple_self_signed(["worker-1".to_owned()]).unwrap();
        std::fs::write(&pem, own.cert.pem()).unwrap();
        std::fs::write(&empty, "").unwrap();
        let (pem, empty) = (pem.to_str().unwrap(), empty.to_str().unwrap());
        assert_eq!(access(&[]), Ok(None));
        let told = access(&["--kubelet-address", "10.0.0.7", "--kubelet-ca", pem]).unwrap().unwrap();
        assert_eq!(told.pods.as_str(), "https://10.0.0.7:10250/pods");
        assert_eq!(told.trust, KubeletTrust::Authority(pem.into()));
        assert_eq!(told.token_file.to_str(), Some("/var/run/secrets/kubernetes.io/serviceaccount/token"));
        let told = access(&["--kubelet-address", "10.0.0.7", "--kubelet-certificate", pem]).unwrap().unwrap();
        assert_eq!(told.trust, KubeletTrust::Certificate(pem.into()));
        for (arguments, exit) in [
            (&["--kubelet-address", "10.0.0.7"][..], Exit::Usage),
            (&["--kubelet-ca", pem], Exit::Usage),
            (&["--kubelet-certificate", pem], Exit::Usage),
            (&["--kubelet-token-file", pem], Exit::Usage),
            (
                &["--kubelet-address", "10.0.0.7", "--kubelet-ca", pem, "--kubelet-certificate", pem],
                Exit::Usage,
            ),
            (&["--kubelet-address", "$(NODE_IP)", "--kubelet-ca", pem], Exit::Usage),
            (&["--kubelet-address", "10.0.0.7/exec", "--kubelet-ca", pem], Exit::Usage),
            (&["--kubelet-address", "10.0.0.7", "--kubelet-ca", empty], Exit::Configuration),
            (&["--kubelet-address", "10.0.0.7", "--kubelet-certificate", empty], Exit::Configuration),
            (&["--kubelet-address", "10.0.0.7", "--kubelet-ca", "/nonexistent.pem"], Exit::Configuration),
            (&["--kubelet-address", "169.254.169.254", "--kubelet-ca", pem], Exit::Configuration),
        ] {
            assert_eq!(access(arguments), Err(exit), "{arguments:?}");
        }
    }
}
