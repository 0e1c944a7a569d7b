//! Nodes of Kubernetes: the cluster itself says on which of them a pod runs, in its review of the pod's token.

use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Attestation;
use crate::error::IssueError;

/// A cluster whose nodes may be ours.
pub struct Cluster {
    /// What it is called in the IDs of its nodes.
    pub name: String,
    /// Whom its agents' tokens must be for.
    pub audience: String,
    /// The service accounts of agents, as `namespace/name`.
    pub service_accounts: BTreeSet<String>,
    /// Its API.
    pub reviewer: Arc<dyn TokenReview>,
}

/// The TokenReview API of a cluster (`authentication.k8s.io/v1`).
#[async_trait]
pub trait TokenReview: Send + Sync {
    /// What the cluster says of a token that is to be for this audience.
    ///
    /// # Errors
    /// [`ReviewFailed`]: it says nothing, or what cannot be understood.
    async fn review(&self, token: &str, audience: &str) -> Result<Reviewed, ReviewFailed>;
}

/// A cluster cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cluster gives no review")]
pub struct ReviewFailed;

/// What a cluster says of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reviewed {
    /// Whether it is one of its own, and good.
    pub authenticated: bool,
    /// Which of the audiences that were asked about it is for.
    pub audiences: Vec<String>,
    /// Whose it is.
    pub username: String,
    /// What else the cluster knows: where its pod runs.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Cluster {
    /// The node of the pod whose token this is.
    ///
    /// # Errors
    /// [`IssueError::ClientAuthentication`]; [`IssueError::UpstreamUnavailable`] where the cluster cannot be asked.
    pub(super) async fn node_of(&self, token: &str) -> Result<Attestation, IssueError> {
        let refuse = IssueError::ClientAuthentication;
        if token.is_empty()
            || token.len() > MAX_TOKEN_BYTES
            || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(refuse("service_account_token_malformed"));
        }
        let review = self.reviewer.review(token, &self.audience).await;
        let review = review.map_err(|_| IssueError::UpstreamUnavailable("token_review_unavailable"))?;
        if !review.authenticated {
            return Err(refuse("service_account_token_refused"));
        }
        // A cluster that knows nothing of audiences says none: then its token is anybody's.
        if !review.audiences.contains(&self.audience) {
            return Err(refuse("service_account_token_audience"));
        }
        let account =
            review.username.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'));
        let account = account.map(|(namespace, name)| format!("{namespace}/{name}"));
        let account = account.filter(|account| self.service_accounts.contains(account));
        let service_account = account.ok_or(refuse("service_account_not_listed"))?;
        let only = |name: &str| match review.extra.get(name).map(Vec::as_slice) {
            Some([one]) if is_segment(one) => Ok(one.clone()),
            Some(_) | None if name == POD_UID => Err(refuse("service_account_token_without_pod")),
            // It was made for no pod, or the cluster is too old to say on which node that runs.
            Some(_) | None => Err(refuse("service_account_token_without_node")),
        };
        // A token that is bound to no pod may be anywhere, and outlives whoever it was made for.
        only(POD_UID)?;
        Ok(Attestation::Kubernetes {
            cluster: self.name.clone(),
            service_account,
            node_name: only(NODE_NAME)?,
            node_uid: only(NODE_UID)?,
        })
    }
}

/// A segment of a SPIFFE ID's path (SPIFFE-ID §2.2).
fn is_segment(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(is_plain) && text != "." && text != ".."
}

/// Of the pod that the token was made for (ServiceAccountTokenPodNodeInfo).
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
const MAX_TOKEN_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(Result<Reviewed, ReviewFailed>);

    #[async_trait]
    impl TokenReview for Says {
        async fn review(&self, _: &str, _: &str) -> Result<Reviewed, ReviewFailed> {
            self.0.clone()
        }
    }

    fn good() -> Reviewed {
        let extra = [(POD_UID, "5d3c"), (NODE_NAME, "worker-1"), (NODE_UID, "0b1c")]
            .map(|(name, value)| (name.into(), vec![value.into()]));
        Reviewed {
            authenticated: true,
            audiences: vec!["deputize".into()],
            username: "system:serviceaccount:deputize:agent".into(),
            extra: extra.into(),
        }
    }

    async fn asked(says: Result<Reviewed, ReviewFailed>) -> Result<Attestation, &'static str> {
        let cluster = Cluster {
            name: "prod".into(),
            audience: "deputize".into(),
            service_accounts: ["deputize/agent".to_owned()].into(),
            reviewer: Arc::new(Says(says)),
        };
        cluster.node_of("token").await.map_err(|error| error.reason())
    }

    #[tokio::test]
    async fn a_node_is_what_the_cluster_says_and_nothing_less_will_do() {
        let node = asked(Ok(good())).await.unwrap();
        assert_eq!(
            node.evidence(),
            [
                "kubernetes:cluster:prod",
                "kubernetes:sa:deputize/agent",
                "kubernetes:node_name:worker-1",
                "kubernetes:node_uid:0b1c"
            ]
        );
        let without = |name: &str| {
            let mut review = good();
            review.extra.remove(name);
            review
        };
        let named = |name: &str| {
            let mut review = good();
            review.extra.insert(NODE_NAME.into(), vec![name.into()]);
            review
        };
        let mut pods = good();
        pods.extra.insert(POD_UID.into(), vec!["5d3c".into(), "5d3d".into()]);
        let mut two = good();
        two.extra.insert(NODE_UID.into(), vec!["0b1c".into(), "0b1d".into()]);
        let of = |username: &str| Reviewed { username: username.into(), ..good() };
        for (what, review, reason) in [
            (
                "not authenticated",
                Reviewed { authenticated: false, ..good() },
                "service_account_token_refused",
            ),
            ("no audience", Reviewed { audiences: vec![], ..good() }, "service_account_token_audience"),
            (
                "another audience",
                Reviewed { audiences: vec!["https://kubernetes.default.svc".into()], ..good() },
                "service_account_token_audience",
            ),
            ("another account", of("system:serviceaccount:deputize:other"), "service_account_not_listed"),
            ("another namespace", of("system:serviceaccount:other:agent"), "service_account_not_listed"),
            ("a user", of("deputize/agent"), "service_account_not_listed"),
            ("no pod", without(POD_UID), "service_account_token_without_pod"),
            ("two pods", pods, "service_account_token_without_pod"),
            ("no node name", without(NODE_NAME), "service_account_token_without_node"),
            ("no node uid", without(NODE_UID), "service_account_token_without_node"),
            ("two uids", two, "service_account_token_without_node"),
            ("a path", named("a/b"), "service_account_token_without_node"),
            ("dots", named(".."), "service_account_token_without_node"),
            ("empty", named(""), "service_account_token_without_node"),
        ] {
            assert_eq!(asked(Ok(review)).await.unwrap_err(), reason, "{what}");
        }
        assert_eq!(asked(Err(ReviewFailed)).await.unwrap_err(), "token_review_unavailable");
    }
}
