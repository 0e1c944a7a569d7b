//! The process of one node that attests itself to the broker, and serves the Workload API there.

mod health;
mod identity;
mod link;
mod session;

pub use health::Health;
pub use identity::IdentityFile;
pub use link::{Link, LinkError, Reach};
pub use session::{Session, SessionSettings};

use zeroize::Zeroizing;

/// By what a node proves itself, the first time and whenever it has to anew.
pub enum NodeProof {
    /// A join token: once.
    JoinToken(Zeroizing<String>),
    /// The file of a join token that is there no more: what is kept has to do.
    JoinTokenGone(std::path::PathBuf),
    /// The certificate of its machine, with the key: PEM.
    Certificate(Zeroizing<Vec<u8>>),
    /// The service account token of its pod, read anew each time, for the kubelet renews it.
    ServiceAccount {
        /// The cluster's name at the broker.
        cluster: Option<String>,
        /// Where the token is.
        file: std::path::PathBuf,
    },
}

impl NodeProof {
    /// Whether it is good for more than once.
    pub fn is_reusable(&self) -> bool {
        !matches!(self, Self::JoinToken(_) | Self::JoinTokenGone(_))
    }
}
