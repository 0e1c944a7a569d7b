//! The source of a node's agent: the state that the broker pushed, and the broker, asked for each SVID.

use arc_swap::ArcSwap;
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_issuer::{
    authority::Standing,
    clock::Clock,
    entry::{Bounds, Entries, Entry, LiveEntries, parse_spiffe_id},
    svid::{Bundle, Bundles, JwtSvid, OwnKey, X509Svid, verify_jwt_svid, verify_x509_svid},
    workload::Workload,
};
use rustls_pki_types::CertificateDer;
use spiffe::SpiffeId;
use std::sync::Arc;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};
use uuid::Uuid;

use super::{
    tokens::{Asked, Tokens},
    wire::{
        self, DeniedRequest, ExchangeAnswer, ExchangeAsk, JwtAnswer, JwtRequest, NotUnderstood, SeenProcess,
        State, X509Answer, X509Request,
    },
};
use crate::{
    exchange::NotExchanged,
    proto::exchange::{ExchangeRequest, ExchangeResponse},
    source::{SourceError, SvidSource},
};

/// The broker, as a node's agent asks it.
#[async_trait]
pub trait NodeBroker: Send + Sync + 'static {
    /// `POST /node/x509-svid`.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn x509_svid(&self, request: &X509Request) -> Result<X509Answer, SourceError>;
    /// `POST /node/jwt-svid`.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn jwt_svid(&self, request: &JwtRequest) -> Result<JwtAnswer, SourceError>;
    /// `POST /node/exchange`: asked once, for what proves the process's key may be used once.
    ///
    /// # Errors
    /// [`NotExchanged`], in the broker's words.
    async fn exchange(&self, ask: &ExchangeAsk) -> Result<ExchangeAnswer, NotExchanged>;
    /// `POST /node/denied`.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn denied(&self, request: &DeniedRequest) -> Result<(), SourceError>;
}

/// What a node's agent gives: keys are made here, and what the broker signs for them is looked at before it is used.
pub struct AgentSource {
    node: SpiffeId,
    broker: Arc<dyn NodeBroker>,
    clock: Arc<dyn Clock>,
    entries: LiveEntries,
    known: ArcSwap<Known>,
    tokens: Tokens,
    denials: mpsc::Sender<DeniedRequest>,
    teller: AbortHandle,
}

/// The rest of the state.
struct Known {
    bundles: Arc<Bundles>,
    standing: Standing,
}

impl AgentSource {
    /// For the processes of this node; as long as no state was taken, nobody is entitled to anything. Tells of
    /// denials on the runtime that this is called on.
    pub fn start(node: SpiffeId, own: Bundle, broker: Arc<dyn NodeBroker>, clock: Arc<dyn Clock>) -> Self {
        let bounds = Bounds { trust_domain: node.trust_domain().clone(), own_node: node.clone() };
        let entries = LiveEntries::new(Entries::none(bounds), clock.now_seconds());
        let bundles = Arc::new(Bundles { own: Arc::new(own), federated: Vec::new() });
        let known = ArcSwap::from_pointee(Known { bundles, standing: Standing::default() });
        let (denials, told) = mpsc::channel(MAX_WAITING_DENIALS);
        let teller = tokio::spawn(tell(told, Arc::clone(&broker))).abort_handle();
        Self { node, broker, clock, entries, known, tokens: Tokens::default(), denials, teller }
    }

    /// Takes what the broker says; which members of it are not understood. Those are left out, never kept as they were: what
    /// the broker changed them into is unknown here.
    ///
    /// # Errors
    /// [`NotUnderstood`]: there is nothing to be taken, and the former state stays.
    pub fn take(&self, state: &State) -> Result<Vec<NotUnderstood>, NotUnderstood> {
        let standing = state.standing()?;
        let (bundles, mut left_out) = state.bundles(self.node.trust_domain())?;
        let (entries, of_entries) = state.checked_entries(&self.node)?;
        left_out.extend(of_entries);
        let bundles = Arc::new(bundles);
        if self.known.load().standing.jwt_keys != standing.jwt_keys {
            self.tokens.forget();
        }
        self.known.store(Arc::new(Known { bundles, standing }));
        // Last: it tells everybody who waits.
        self.entries.replace(entries);
        Ok(left_out)
    }

    /// The broker lets this node be none any more: nobody here is entitled to anything.
    pub fn withdraw(&self) {
        let bounds = Bounds { trust_domain: self.node.trust_domain().clone(), own_node: self.node.clone() };
        self.tokens.forget();
        self.entries.replace(Entries::none(bounds));
    }

    /// Tells everybody who waits if an entry's time was over. To be called once a second.
    pub fn follow_time(&self) {
        self.entries.follow_time(self.clock.now_seconds());
    }

    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.entries.now().len()
    }

    /// What came is for this entry, for the key that was made for it, and verifies.
    fn check(&self, entry: &Entry, key: &OwnKey, chain: &[Vec<u8>]) -> Result<(), SourceError> {
        let refuse = || SourceError::Unavailable("the broker sent an SVID that was not asked for");
        let leaf = chain.first().ok_or_else(refuse)?;
        let ders: Vec<CertificateDer<'_>> =
            chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let found = verify_x509_svid(&ders, &self.known.load().bundles, self.clock.now_seconds());
        let found = found.map_err(|error| {
            tracing::warn!(%error, entry = %entry.id, "the broker sent an svid that does not verify");
            refuse()
        })?;
        if found == entry.spiffe_id && key.is_in(leaf) { Ok(()) } else { Err(refuse()) }
    }
}

#[async_trait]
impl SvidSource for AgentSource {
    fn changes(&self) -> watch::Receiver<u64> {
        self.entries.changes()
    }

    fn entitled(&self, workload: &Workload) -> Vec<Arc<Entry>> {
        self.entries.now().entitled(workload, self.clock.now_seconds())
    }

    fn denied(&self, workload: &Workload) -> Option<Uuid> {
        let request = DeniedRequest { process: SeenProcess::of(workload) };
        if self.denials.try_send(request).is_err() {
            metrics::counter!("deputize_agent_denials_untold_total").increment(1);
        }
        // The broker gives it its id when it hears of it.
        None
    }

    async fn x509_svid(&self, workload: &Workload, entry: &Entry) -> Result<X509Svid, SourceError> {
        let no_key = |_| SourceError::Unavailable("no key could be made");
        let key = OwnKey::generate().map_err(no_key)?;
        let request = X509Request {
            entry: entry.id.to_string(),
            process: SeenProcess::of(workload),
            csr: STANDARD.encode(key.request(Some(&entry.spiffe_id)).map_err(no_key)?),
        };
        let answer = self.broker.x509_svid(&request).await?;
        let chain = wire::from_base64(&answer.chain).map_err(not_understood)?;
        self.check(entry, &key, &chain)?;
        let authorities: Result<Vec<_>, _> =
            answer.authorities.iter().map(|name| wire::from_hex(name)).collect();
        Ok(X509Svid {
            spiffe_id: entry.spiffe_id.clone(),
            entry: entry.id.clone(),
            chain,
            private_key: Some(key.to_pkcs8().map_err(no_key)?),
            not_before_seconds: answer.not_before,
            not_after_seconds: answer.not_after,
            hint: answer.hint,
            authorities: authorities.map_err(not_understood)?,
        })
    }

    async fn jwt_svid(
        &self,
        workload: &Workload,
        entry: &Entry,
        audiences: &[String],
    ) -> Result<JwtSvid, SourceError> {
        let now = self.clock.now_seconds();
        let asked = Asked { workload, entry, audiences };
        if let Some(kept) = self.tokens.fresh(asked, now) {
            return Ok(kept);
        }
        let (entry_id, process) = (entry.id.to_string(), SeenProcess::of(workload));
        let request = JwtRequest { entry: entry_id, process, audiences: audiences.to_vec() };
        let answer = match self.broker.jwt_svid(&request).await {
            Ok(answer) => answer,
            Err(error @ SourceError::Unavailable(_)) => {
                return self.tokens.left(asked, now).ok_or(error);
            }
            Err(error) => return Err(error),
        };
        let token = answer.token.into_secret();
        let audience = audiences.first().map(String::as_str).unwrap_or_default();
        let verified = verify_jwt_svid(token.expose(), &self.known.load().bundles, now, audience);
        if !verified.is_ok_and(|svid| svid.spiffe_id == entry.spiffe_id)
            || parse_spiffe_id(&answer.spiffe_id).as_ref() != Ok(&entry.spiffe_id)
        {
            return Err(SourceError::Unavailable("the broker sent a token that was not asked for"));
        }
        let svid = JwtSvid {
            spiffe_id: entry.spiffe_id.clone(),
            token,
            expires_at_seconds: answer.expires_at,
            hint: answer.hint,
        };
        self.tokens.keep(asked, (&svid, now));
        Ok(svid)
    }

    async fn exchange(
        &self,
        workload: &Workload,
        entry: &Entry,
        request: &ExchangeRequest,
    ) -> Result<ExchangeResponse, NotExchanged> {
        let (entry, process) = (entry.id.to_string(), SeenProcess::of(workload));
        let ask = ExchangeAsk { entry, process, request: request.clone() };
        self.broker.exchange(&ask).await.map(ExchangeAnswer::into_response)
    }

    fn bundles(&self) -> Arc<Bundles> {
        Arc::clone(&self.known.load().bundles)
    }

    fn stands_by(&self, authorities: &[[u8; 32]]) -> bool {
        self.known.load().standing.stands_by(authorities)
    }
}

impl Drop for AgentSource {
    fn drop(&mut self) {
        self.teller.abort();
    }
}

/// Tells the broker of denials, one after the other; those that it does not hear now are counted there by nobody.
async fn tell(mut denials: mpsc::Receiver<DeniedRequest>, broker: Arc<dyn NodeBroker>) {
    while let Some(denial) = denials.recv().await {
        if broker.denied(&denial).await.is_err() {
            metrics::counter!("deputize_agent_denials_untold_total").increment(1);
        }
    }
}

fn not_understood(error: NotUnderstood) -> SourceError {
    tracing::warn!(%error, "the broker's answer is not understood");
    SourceError::Unavailable("the broker's answer is not understood")
}

/// Denials that wait to be told.
const MAX_WAITING_DENIALS: usize = 256;

#[cfg(test)]
mod tests;
