//! AWS credentials for servers that know nothing of Deputize: for each call an address on loopback and a secret, in the
//! form that AWS's SDKs know from containers (`AWS_CONTAINER_CREDENTIALS_FULL_URI`). Both die with the call.

mod door;

use super::{failure::Failure, settings::SettingsError};
use crate::{Guard, VerifiedCall, aws::CallCredentials, aws::CredentialSource};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use deputize_call::action::Action;
use deputize_client::Clock;
use rustls::crypto::aws_lc_rs;
use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use zeroize::Zeroizing;

/// Where calls get their credentials. Dropped, it answers nobody any more.
pub(super) struct Handovers {
    book: Arc<Book>,
    serving: JoinHandle<()>,
}

/// All calls under way that may get some.
pub(super) struct Book {
    guard: Arc<Guard>,
    source: Arc<dyn CredentialSource>,
    clock: Arc<dyn Clock>,
    address: SocketAddr,
    open: Mutex<Open>,
    places: Arc<Semaphore>,
}

/// What is open now.
#[derive(Default)]
struct Open {
    /// By the end of their addresses.
    calls: HashMap<String, Arc<Call>>,
    /// The requests whose callers have no answer yet.
    waiting: HashSet<String>,
}

/// A call under way.
struct Call {
    secret: Zeroizing<String>,
    request_id: String,
    credentials: Arc<CallCredentials>,
    /// For those who ask at once.
    questions: Arc<Semaphore>,
}

/// Room for one call more, taken before its token is spent.
pub(super) struct Place {
    book: Arc<Book>,
    permit: OwnedSemaphorePermit,
}

/// The address and the secret of one call. Dropped, both are nothing.
pub(super) struct Handover {
    book: Arc<Book>,
    id: String,
    secret: Zeroizing<String>,
    _permit: OwnedSemaphorePermit,
}

/// A caller who waits. Dropped before he has his answer, it ends what his call was handed.
pub(super) struct Waiting {
    book: Arc<Book>,
    request_id: String,
    has_answer: bool,
}

impl Handovers {
    /// Begins to answer, on a free port of 127.0.0.1.
    pub(super) fn start(
        guard: &Arc<Guard>,
        source: Arc<dyn CredentialSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SettingsError> {
        let unusable = |error: std::io::Error| SettingsError::Loopback(error.to_string());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(unusable)?;
        listener.set_nonblocking(true).map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(unusable)?;
        let book = Arc::new(Book {
            guard: Arc::clone(guard),
            source,
            clock,
            address,
            open: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_CALLS)),
        });
        let serving = tokio::spawn(door::serve(listener, Arc::clone(&book)));
        Ok(Self { book, serving })
    }

    /// Room for a call.
    pub(super) fn place(&self) -> Result<Place, Failure> {
        let permit = Arc::clone(&self.book.places).try_acquire_owned().map_err(|_| Failure::Full)?;
        Ok(Place { book: Arc::clone(&self.book), permit })
    }

    /// Watches over the caller of a request.
    pub(super) fn waiting(&self, request_id: &str) -> Waiting {
        self.book.open().waiting.insert(request_id.to_owned());
        Waiting { book: Arc::clone(&self.book), request_id: request_id.to_owned(), has_answer: false }
    }
}

impl Drop for Handovers {
    fn drop(&mut self) {
        self.book.open().calls.clear();
        self.serving.abort();
    }
}

impl Place {
    /// Gives the call an address; none to what is not a tool's call, since role templates are for tools, nor to a call
    /// whose caller has left meanwhile.
    pub(super) fn take(self, call: &VerifiedCall, request_id: &str) -> Result<Option<Handover>, Failure> {
        if call.action() != Action::CallTool {
            return Ok(None);
        }
        let Self { book, permit } = self;
        let (id, secret) = (random::<ID_BYTES>()?, random::<SECRET_BYTES>()?);
        let under_way = Call {
            secret: secret.clone(),
            request_id: request_id.to_owned(),
            credentials: CallCredentials::of(call, &book.guard, &book.source, &book.clock),
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
        };
        {
            // INVARIANT: under one lock it is seen whether he waits, and the address made; who leaves takes it with him.
            let mut open = book.open();
            if !open.waiting.contains(request_id) {
                return Ok(None);
            }
            open.calls.insert(id.as_str().to_owned(), Arc::new(under_way));
        }
        Ok(Some(Handover { book, id: id.as_str().to_owned(), secret, _permit: permit }))
    }
}

impl Handover {
    /// Where the call's credentials are.
    pub(super) fn uri(&self) -> String {
        format!("http://{}{PATH}{}", self.book.address, self.id)
    }

    /// What has to be said there in `Authorization`.
    pub(super) fn authorization(&self) -> &str {
        &self.secret
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.book.open().calls.remove(&self.id);
    }
}

impl Waiting {
    /// The caller has his answer, or the beginning of one.
    pub(super) fn answered(mut self) {
        self.has_answer = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut open = self.book.open();
        open.waiting.remove(&self.request_id);
        if !self.has_answer {
            open.calls.retain(|_, call| call.request_id != self.request_id);
        }
    }
}

impl Book {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call of this address, if it is under way.
    fn find(&self, id: &str) -> Option<Arc<Call>> {
        self.open().calls.get(id).cloned()
    }
}

fn random<const BYTES: usize>() -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new([0_u8; BYTES]);
    let filled = aws_lc_rs::default_provider().secure_random.fill(bytes.as_mut());
    filled.map_err(|_| Failure::Broken("a fault of the guard: no randomness"))?;
    Ok(Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_ref())))
}

/// The header with a call's address. What a client sends under this name goes nowhere.
pub(super) const URI_HEADER: &str = "deputize-aws-credentials-uri";
/// The header with a call's secret.
pub(super) const AUTHORIZATION_HEADER: &str = "deputize-aws-authorization";
const PATH: &str = "/aws/";
const ID_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
/// Calls under way that have an address.
const MAX_CALLS: usize = 4096;
/// Questions of one call at a time: its share of the places at the door.
const MAX_QUESTIONS: usize = 16;

#[cfg(test)]
mod tests {
    use super::{door::tests::Silent, *};
    use crate::{
        Verified,
        proxy::tests::HandClock,
        tests::fixture::{Fixture, call, l1},
    };
    use serde_json::json;

    #[test]
    fn a_call_whose_caller_has_left_meanwhile_gets_no_address() {
        let fixture = Fixture::new();
        let Ok(Verified::Call(call)) = fixture.with_grant(l1("lookup"), call("lookup", json!({}))) else {
            panic!("a call");
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let (guard, clock) = (Arc::new(fixture.guard), Arc::new(HandClock::default()));
        let handovers = Handovers::start(&guard, Arc::new(Silent), clock).unwrap();
        let (patient, impatient) = (handovers.waiting("patient"), handovers.waiting("impatient"));
        let places = [handovers.place().unwrap(), handovers.place().unwrap()];
        drop(impatient);
        let [one, other] = places;
        let handover = one.take(&call, "patient").unwrap().expect("who waits gets one");
        assert!(other.take(&call, "impatient").unwrap().is_none());
        assert!(handovers.book.find(&handover.id).is_some());
        patient.answered();
        assert!(handovers.book.find(&handover.id).is_some(), "an answer may only begin");
        assert!(handovers.book.open().waiting.is_empty());
        drop(handover);
        assert!(handovers.book.open().calls.is_empty());
    }
}
