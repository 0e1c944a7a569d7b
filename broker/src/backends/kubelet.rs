//! The kubelet of this node, asked which pods run here and which containers are theirs.
//!
//! It has no call for one pod: `GET /pods` has all of the node. What it said is good for some seconds; what it did not
//! say, and that it cannot be asked, for one. Whoever waits meanwhile waits for the same answer, and no longer than he
//! likes: it comes for the next one who asks. Whoever asks for what is known waits for nobody.

mod certificate;
mod items;
mod pods;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use deputize_issuer::{clock::Clock, node::NODE_ID_PREFIX};
use deputize_workload_api::attest::{PodAnswer, PodData};
use reqwest::{Method, Response, header};
use spiffe::SpiffeId;
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{io::AsyncReadExt as _, sync::Mutex as Turn};
use zeroize::Zeroizing;

use super::fetch::{CheckedClient, FetchError, Patience, Reach, check_is_plain, from_reqwest, system_lookup};
use crate::config::kubelet::{KubeletAccess, KubeletTrust};
use pods::{NotPods, Pods, Reading};

/// The kubelet of this node.
pub struct Kubelet(Arc<Asked>);

struct Asked {
    access: KubeletAccess,
    /// What the cluster calls this node, where its SPIFFE ID says so: no other node's pods are taken.
    node_name: Option<String>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    known: Mutex<Known>,
    /// Held while it is asked.
    turn: Turn<()>,
    /// Why it could not be asked the last time.
    trouble: Mutex<Option<KubeletError>>,
}

#[derive(Default)]
struct Known {
    pods: Pods,
    /// When it said so, in uptime.
    answered: Option<Duration>,
    /// When it was asked last, in uptime.
    asked: Option<Duration>,
    /// Whether it said nothing then.
    has_failed: bool,
}

/// Why the kubelet does not say which pods there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KubeletError {
    /// No answer, or none that is taken.
    #[error("{0}")]
    Fetch(#[from] FetchError),
    /// The token by which it is asked cannot be read.
    #[error("the token cannot be read: {0}")]
    Token(String),
    /// It does not know the token.
    #[error("it does not take the token (status 401)")]
    Unauthenticated,
    /// It knows the token, and does not let its account ask.
    #[error("it does not let this service account ask (status 403)")]
    Forbidden,
    /// The answer is no list of pods, or one of another node.
    #[error("{0}")]
    Pods(#[from] NotPods),
}

impl Kubelet {
    /// The one that is reached so, for processes of this node.
    ///
    /// # Errors
    /// If what vouches for its certificate cannot be read, or its address may not be asked.
    pub fn new(access: KubeletAccess, node: &SpiffeId, clock: Arc<dyn Clock>) -> Result<Self, KubeletError> {
        Self::assemble(access, node, (clock, TIMEOUT))
    }

    /// Whether a kubelet can be asked so: before anything is done that a mistake here would undo.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn check(access: &KubeletAccess) -> Result<(), KubeletError> {
        Ok(client(access, TIMEOUT)?.check_url(&access.pods)?)
    }

    fn assemble(
        access: KubeletAccess,
        node: &SpiffeId,
        (clock, timeout): (Arc<dyn Clock>, Duration),
    ) -> Result<Self, KubeletError> {
        Self::check(&access)?;
        let (known, turn, trouble) = (Mutex::default(), Turn::default(), Mutex::default());
        let asked = Asked { access, node_name: node_name(node), clock, timeout, known, turn, trouble };
        Ok(Self(Arc::new(asked)))
    }
}

#[async_trait]
impl PodData for Kubelet {
    async fn pod(&self, pod_uid: Option<&str>, container_id: &str) -> PodAnswer {
        if let Some(answer) = self.0.remembered(pod_uid, container_id) {
            return answer;
        }
        let (asked, uid, id) = (Arc::clone(&self.0), pod_uid.map(str::to_owned), container_id.to_owned());
        // It goes on if who asked waits no longer: others wait for what comes of it.
        let found = tokio::spawn(async move { asked.find(uid.as_deref(), &id).await }).await;
        found.unwrap_or(PodAnswer::NotAsked)
    }

    fn trouble(&self) -> Option<String> {
        let trouble = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().map(|error| format!("kubelet not reachable: {error}"))
    }
}

impl Asked {
    async fn find(&self, pod_uid: Option<&str>, container_id: &str) -> PodAnswer {
        let _turn = self.turn.lock().await;
        // Whoever had the turn before asked for this one, too.
        if let Some(answer) = self.remembered(pod_uid, container_id) {
            return answer;
        }
        let answer = tokio::time::timeout(self.timeout, self.pods()).await;
        let answer = answer.unwrap_or(Err(FetchError::Timeout.into()));
        self.tell(answer.as_ref());
        self.remember(answer.ok());
        self.remembered(pod_uid, container_id).unwrap_or(PodAnswer::NotAsked)
    }

    /// What is known without a question; `None` where it has to be asked.
    fn remembered(&self, pod_uid: Option<&str>, container_id: &str) -> Option<PodAnswer> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.uptime();
        let is_younger = |at: Option<Duration>, than| at.is_some_and(|at| now.saturating_sub(at) < than);
        if is_younger(known.answered, GOOD_FOR)
            && let Some(found) = known.pods.find(pod_uid, container_id)
        {
            return Some(PodAnswer::Known(found));
        }
        let is_ruled_out = !known.has_failed && known.pods.can_rule_out(pod_uid);
        let just_now = if is_ruled_out { PodAnswer::Unknown } else { PodAnswer::NotAsked };
        is_younger(known.asked, NOT_ASKED_AGAIN_FOR).then_some(just_now)
    }

    fn remember(&self, answer: Option<Pods>) {
        let now = Some(self.clock.uptime());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        (known.asked, known.has_failed) = (now, answer.is_none());
        let former = answer.map(|pods| {
            known.answered = now;
            std::mem::replace(&mut known.pods, pods)
        });
        drop(known);
        // There may be many: nobody waits for their end.
        drop(former);
    }

    async fn pods(&self) -> Result<Pods, KubeletError> {
        let token = read_token(&self.access.token_file).await?;
        let (access, timeout) = (self.access.clone(), self.timeout);
        let request = off_the_executor(move || {
            let request = client(&access, timeout)?.request(Method::GET, &access.pods)?;
            Ok::<_, KubeletError>(request)
        })
        .await?
        .bearer_auth(token.trim())
        .header(header::ACCEPT, "application/json")
        .header(header::ACCEPT_ENCODING, "identity");
        let response = request.send().await.map_err(from_reqwest)?;
        match response.status().as_u16() {
            200 => {}
            401 => return Err(KubeletError::Unauthenticated),
            403 => return Err(KubeletError::Forbidden),
            other => return Err(FetchError::Status(other).into()),
        }
        self.read(response).await
    }

    /// Reads an answer as it comes: the pods of it are held, and it is not.
    async fn read(&self, mut response: Response) -> Result<Pods, KubeletError> {
        check_is_plain(&response)?;
        let (mut reading, mut read_bytes) = (Reading::new(self.node_name.clone()), 0_usize);
        while let Some(chunk) = response.chunk().await.map_err(from_reqwest)? {
            read_bytes = read_bytes.saturating_add(chunk.len());
            if read_bytes > MAX_ANSWER_BYTES {
                return Err(NotPods::TooLarge.into());
            }
            if reading.feed(&chunk)? {
                reading = off_the_executor(move || reading.take_in()).await?;
            }
        }
        off_the_executor(move || reading.finish()).await
    }

    /// Says once that it cannot be asked, and once that it can again.
    fn tell(&self, answer: Result<&Pods, &KubeletError>) {
        let error = answer.err();
        if let Ok(pods) = answer {
            let left_out = u32::try_from(pods.left_out()).unwrap_or(u32::MAX);
            metrics::gauge!("deputize_kubelet_pods_left_out").set(left_out);
        }
        let outcome = error.map_or("ok", KubeletError::reason);
        metrics::counter!("deputize_kubelet_requests_total", "outcome" => outcome).increment(1);
        metrics::gauge!("deputize_kubelet_reachable").set(if error.is_none() { 1.0 } else { 0.0 });
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (error, trouble.is_some()) {
            (Some(error), false) => {
                let (url, next) = (&self.access.pods, error.advice());
                tracing::warn!(%error, %url, next, "the kubelet cannot be asked: processes in containers get nothing new");
            }
            (None, true) => tracing::info!("the kubelet can be asked again"),
            (Some(_), true) | (None, false) => {}
        }
        *trouble = error.cloned();
    }
}

impl KubeletError {
    /// The constant word under which it is counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.reason(),
            Self::Token(_) => "token",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Pods(NotPods::Malformed) => "malformed",
            Self::Pods(NotPods::OfAnotherNode) => "another_node",
            Self::Pods(NotPods::TooLarge) => "too_large",
        }
    }

    /// What to do about it.
    fn advice(&self) -> &'static str {
        match self {
            Self::Fetch(FetchError::Setup(_)) => {
                "name a file with the authority of the kubelet's certificate"
            }
            Self::Fetch(_) => {
                "see that the address is this node's, that port 10250 may be reached, and that what \
                               vouches for the kubelet's certificate does"
            }
            Self::Token(_) => "project a service account token into the pod, and name its file",
            Self::Unauthenticated => "the token has to be for the API server's audience",
            Self::Forbidden => {
                "let its service account `get` nodes/pods (before Kubernetes 1.33: the feature gate \
                                KubeletFineGrainedAuthz)"
            }
            Self::Pods(NotPods::Malformed) => "see what answers at that address",
            Self::Pods(NotPods::OfAnotherNode) => "give the address of this node: status.hostIP",
            Self::Pods(NotPods::TooLarge) => "see whose pods on this node are so many, or so large",
        }
    }
}

/// For what reads files, and what may take a while.
async fn off_the_executor<T: Send + 'static, E: Into<KubeletError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, KubeletError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_| FetchError::Setup("the program is stopping".to_owned()))?;
    done.map_err(Into::into)
}

/// Made anew each time, for what vouches for the kubelet is renewed as its certificate is.
fn client(access: &KubeletAccess, timeout: Duration) -> Result<CheckedClient, FetchError> {
    let patience = Patience { connect: CONNECT_TIMEOUT, total: timeout, idle: Duration::ZERO };
    // A node's address is inside of the network, as a rule; who configures it says which one it is.
    let reach = Reach { allow_private_addresses: true, ..Reach::default() };
    match &access.trust {
        KubeletTrust::Authority(file) => {
            CheckedClient::of_one(Reach { ca_file: Some(file.clone()), ..reach }, system_lookup(), patience)
        }
        KubeletTrust::Certificate(file) => {
            CheckedClient::trusting(reach, system_lookup(), patience, certificate::trusting(file)?)
        }
    }
}

/// The kubelet of Kubernetes calls the node so: `NAME` of `…/kubernetes/CLUSTER/NAME/UID`.
fn node_name(node: &SpiffeId) -> Option<String> {
    let mut segments = node.path().strip_prefix(NODE_ID_PREFIX)?.split('/');
    match (segments.next(), segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some("kubernetes"), Some(_cluster), Some(name), Some(_uid), None) => Some(name.to_owned()),
        _ => None,
    }
}

/// Read anew each time, for whoever projected it renews it.
async fn read_token(file: &Path) -> Result<Zeroizing<String>, KubeletError> {
    let cannot = |why: &dyn std::fmt::Display| KubeletError::Token(format!("{}: {why}", file.display()));
    let opened = tokio::fs::File::open(file).await.map_err(|error| cannot(&error))?;
    let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN_BYTES));
    let mut bounded = opened.take(MAX_TOKEN_BYTES as u64);
    bounded.read_to_string(&mut text).await.map_err(|error| cannot(&error))?;
    let token = text.trim();
    if token.is_empty() || text.len() == MAX_TOKEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(cannot(&"no token is in it"));
    }
    Ok(text)
}

/// How long the pods of an answer are taken for those of the node. A container never changes its pod, but its pod's labels
/// may be others.
const GOOD_FOR: Duration = Duration::from_secs(5);
/// How long it is not asked again for what it did not say.
const NOT_ASKED_AGAIN_FOR: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Longer than whoever looks at a process waits: a kubelet with much to say answers the next one.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is read, and not held: the largest objects that Kubernetes stores, of as many pods as nodes have.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
const MAX_TOKEN_BYTES: usize = 16 * 1024;
