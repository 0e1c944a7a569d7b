//! The kubelet of a node: where it is, what vouches for it, and by what it is asked.

use std::{net::IpAddr, path::PathBuf};
use url::Url;

use super::{raw, resolved::Check};

/// How the kubelet of this node is asked which pods it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletAccess {
    /// Where it tells of its pods.
    pub pods: Url,
    /// What vouches for its certificate.
    pub trust: KubeletTrust,
    /// File with a token of a service account that may ask.
    pub token_file: PathBuf,
}

/// What vouches for the certificate of a kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubeletTrust {
    /// PEM file of authorities: these, and none of the system.
    Authority(PathBuf),
    /// PEM file of the one certificate that it shows.
    Certificate(PathBuf),
}

/// Where the kubelet at this address tells of its pods: `10.0.0.7`, `fd00::7`, `[fd00::7]:10250`, `worker-1:10250`.
pub fn pods_url(address: &str) -> Option<Url> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    if address.is_empty() || !address.bytes().all(is_plain) {
        return None;
    }
    let has_port = |text: &str| {
        text.rsplit_once(':').is_some_and(|(host, port)| {
            (host.ends_with(']') || !host.contains(':')) && port.parse::<u16>().is_ok()
        })
    };
    let authority = match address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{PORT}"),
        Ok(IpAddr::V4(address)) => format!("{address}:{PORT}"),
        Err(_) if has_port(address) => address.to_owned(),
        Err(_) => format!("{address}:{PORT}"),
    };
    Url::parse(&format!("https://{authority}/pods")).ok()
}

impl Check<'_> {
    /// What the file says of the kubelet.
    pub(super) fn kubelet(&mut self, raw: &raw::SpiffeKubelet) -> Option<KubeletAccess> {
        let pods = pods_url(&raw.address);
        if pods.is_none() {
            self.refuse(format!(
                "spiffe.kubelet.address: {:?}: give the node's address: 10.0.0.7",
                raw.address
            ));
        }
        let trust = match (&raw.ca_file, &raw.certificate_file) {
            (Some(file), None) => Some(KubeletTrust::Authority(self.folder.join(file))),
            (None, Some(file)) => Some(KubeletTrust::Certificate(self.folder.join(file))),
            (None, None) | (Some(_), Some(_)) => {
                self.refuse(
                    "spiffe.kubelet: say what vouches for the kubelet's certificate: ca_file, or certificate_file",
                );
                None
            }
        };
        Some(KubeletAccess { pods: pods?, trust: trust?, token_file: self.folder.join(&raw.token_file) })
    }
}

/// Of the kubelet's own API, which asks who asks.
const PORT: u16 = 10250;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_the_pods_of_a_node_and_nowhere_else() {
        for (address, url) in [
            ("10.0.0.7", "https://10.0.0.7:10250/pods"),
            ("10.0.0.7:20250", "https://10.0.0.7:20250/pods"),
            ("fd00::7", "https://[fd00::7]:10250/pods"),
            ("[fd00::7]:20250", "https://[fd00::7]:20250/pods"),
            ("[fd00::7]", "https://[fd00::7]:10250/pods"),
            ("worker-1.example", "https://worker-1.example:10250/pods"),
            ("localhost:20250", "https://localhost:20250/pods"),
        ] {
            assert_eq!(pods_url(address).unwrap().as_str(), url);
        }
        for address in [
            "",
            ":",
            ":10250",
            "a b",
            "https://10.0.0.7",
            "10.0.0.7/exec",
            "user@10.0.0.7",
            "10.0.0.7?a",
            "10.0.0.7#a",
            "worker-1:99999",
            "$(NODE_IP)",
            "[fd00::7",
            "10.0.0.7:10250:10250",
        ] {
            assert_eq!(pods_url(address), None, "{address}");
        }
    }
}
