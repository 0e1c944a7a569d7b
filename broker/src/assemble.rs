//! Puts the broker together. Only it and what is below it names concrete backends.

mod aws;
mod nodes;
mod spiffe;

pub use aws::AwsBackends;
pub use spiffe::SpiffeBackends;

use arc_swap::ArcSwap;
use deputize_call::{nonce::NonceMaker, once::OnceSet};
use deputize_issuer::{
    authenticate::MAX_ASSERTION_SECONDS,
    client::{Addressees, Clients},
    clock::{self, Clock, ClockWatch, SystemClock},
    desk::{Desk, Rules, Settings},
    drift::{Drifted, Drifts},
    keys::KeySource,
    limits::{Limits, Rate},
    lineage::Lineage,
    log::{Class, Log, LogConfig, Recovery},
    provider::{ProviderKeys, Providers, TokenDecrypter},
    record::{Entry, Kind, Pseudonyms, Refusals},
    replay::EmbeddedReplay,
    revocation::{Revocations, Revoked},
    svid::SVID_LEEWAY_SECONDS,
    transaction::TransactionIds,
};
use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};
use tokio::sync::Mutex;
use url::Url;

pub use crate::cannot_start::CannotStart;

use crate::{
    backends::{
        approvals_seen,
        embedded::{EmbeddedDrifts, EmbeddedRevocations},
        fetch::{Fetcher, Reach},
        jwe::{DecryptionKeyFile, JweKeys, JweSeal},
        key_files::{self, KeyFiles},
        oidc::{IssuerSource, OidcKeys, Timing},
    },
    config::resolved::{LoadedRules, Mode, Resolved},
    guards::{Announced, Guards, News},
    http::aws::SealAnswer,
    registration::Others,
    restore::{self, Drift},
};

/// A broker that is put together, but does not listen yet.
pub struct Assembly {
    /// The desk.
    pub desk: Arc<Desk>,
    /// Its log.
    pub log: Log,
    /// What guards are told and tell.
    pub guards: Arc<Guards>,
    /// What stands behind the door to AWS, where there is one.
    pub aws: Option<AwsBackends>,
    /// Seals answers to clients' keys.
    pub seal: Arc<dyn SealAnswer>,
    /// What stands behind the Workload API, where there is one.
    pub spiffe: Option<SpiffeBackends>,
    mode: Mode,
    provider_keys: Mutex<Arc<OidcKeys>>,
}

/// Puts a broker together from its configuration.
///
/// # Errors
/// [`CannotStart`]: the data folder is not usable, is one of `dev`, or its log is damaged or rolled back.
pub async fn assemble(resolved: &Resolved, mode: Mode) -> Result<Assembly, CannotStart> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    key_files::make_private_folder(&resolved.data_dir).map_err(cannot)?;
    check_marker(&resolved.data_dir, mode)?;
    let keys = KeyFiles::open(&resolved.data_dir).map_err(cannot)?;
    let (log, recovery) = open_log(resolved, &keys)?;
    tracing::info!(size = recovery.size, torn_bytes = recovery.torn_bytes_dropped, "log opened");

    let assertions = Arc::new(EmbeddedReplay::new(
        Arc::clone(&clock),
        ASSERTION_MEMORY + Duration::from_secs(2 * resolved.limits.leeway_seconds),
        resolved.limits.once_capacity,
    ));
    let lineage = Lineage::default();
    let facts = resolved.data_dir.join("facts.redb");
    let reach = if facts.exists() { restore::Reach::LastMinutes } else { restore::Reach::WholeLog };
    let restored = restore::from_log(&log.reader(), clock.now_ms(), (&assertions, &lineage), reach);
    let restored = restored.map_err(cannot)?;
    tracing::info!(assertions = restored.assertions, tokens = restored.tokens, "restored from the log");

    let (revocations, drifts) = open_facts(&facts, Arc::clone(&clock), &restored).await?;
    let provider_keys = provider_keys(resolved, mode, None)?;
    let rules = rules(resolved, &provider_keys)?;
    let beside = others(&rules, resolved);
    let spiffe = SpiffeBackends::open(resolved, beside, (&revocations, &log), &clock)?;
    let news = Arc::new(News::default());
    let revocations = Announced::new(revocations, Arc::clone(&news));
    let restore::Restored { places, events, .. } = restored;
    revocations.place(places, clock.now_seconds().saturating_add(LONGEST_TOKEN_SECONDS));
    let aws = AwsBackends::open(resolved, mode, &clock)?;
    let desk = Desk {
        settings: settings(resolved, recovery.size, clock.as_ref()),
        clock_watch: ClockWatch::new(clock.as_ref()),
        rules: ArcSwap::from_pointee(rules),
        keys: KeySource::new(keys.token_key().map_err(cannot)?, Vec::new()),
        audit: Arc::new(log.clone()),
        assertions,
        // A proof passes with a live nonce alone, so its id is remembered longer than nonces live.
        proofs: OnceSet::new(NONCE_LIFETIME + PROOF_WINDOW, resolved.limits.once_capacity),
        nonces: NonceMaker::new(log.origin(), NONCE_LIFETIME).map_err(cannot)?,
        redemptions: OnceSet::new(REDEMPTION_MEMORY, resolved.limits.once_capacity),
        revocations: Arc::new(revocations),
        drifts: Arc::new(drifts),
        lineage,
        transactions: TransactionIds::new(keys.secret("transactions").map_err(cannot)?.expose()),
        pseudonyms: Pseudonyms::new(keys.secret("pseudonyms").map_err(cannot)?.expose()),
        limits: Limits::new(
            Rate { per_second: resolved.limits.client_per_second, burst: resolved.limits.client_per_second },
            Rate {
                per_second: resolved.limits.denials_per_second,
                burst: resolved.limits.denials_per_second.saturating_mul(10),
            },
        ),
        refusals: Refusals::default(),
        aws: aws.as_ref().map(AwsBackends::door),
        spiffe: spiffe.as_ref().map(|spiffe| Arc::new(spiffe.door())),
        clock,
    };
    record_start(&desk)?;
    let desk = Arc::new(desk);
    let snapshot_key = keys.snapshot_key().map_err(cannot)?;
    let per_second = resolved.limits.guard_events_per_second;
    let guards = Arc::new(Guards::new(Arc::clone(&desk), log.clone(), snapshot_key, news, per_second));
    guards.restore_events(events);
    let (seal, provider_keys) = (Arc::new(JweSeal), Mutex::new(provider_keys));
    Ok(Assembly { desk, log, guards, aws, seal, spiffe, mode, provider_keys })
}

/// Reads registry, policies, role templates, clients and identity providers again and swaps them in as a whole; on any error the old
/// ones stay. Keys of identity providers that stay are carried over.
///
/// # Errors
/// Everything that is wrong with the new ones.
pub async fn reload(assembly: &Assembly, resolved: &Resolved) -> Result<(), CannotStart> {
    let mut held = assembly.provider_keys.lock().await;
    let provider_keys = provider_keys(resolved, assembly.mode, Some(&held))?;
    let rules = rules(resolved, &provider_keys)?;
    aws::check(assembly.aws.as_ref(), resolved)?;
    if asks_for_certificates(resolved) != assembly.desk.settings.takes_certificates {
        return Err(CannotStart(
            "listen.tls: whether clients are asked for certificates changes with a restart alone; the first client \
             that has one changes it, unless client_certificates says ask already"
                .to_owned(),
        ));
    }
    let entries = match (&assembly.spiffe, &resolved.spiffe) {
        (None, None) => None,
        (Some(held), Some(spiffe)) => Some(held.reread(spiffe, others(&rules, resolved)).await?),
        (None, Some(_)) | (Some(_), None) => {
            return Err(CannotStart("spiffe: whether it is there changes with a restart alone".to_owned()));
        }
    };
    if let Some((held, aws)) = assembly.aws.as_ref().zip(resolved.aws.as_ref()) {
        held.change(aws, assembly.mode)?;
    }
    assembly.desk.rules.store(Arc::new(rules));
    if let Some(entries) = entries {
        entries.take().await;
    }
    *held = provider_keys;
    // Durable before guards are told: the version of what they are told is the log's size. Told in any case: what
    // holds now holds, and it may be a kill switch.
    let recorded = assembly.desk.audit.append(Class::Vital, configuration(&assembly.desk)?).await;
    assembly.guards.rules_changed().await;
    recorded.map(drop).map_err(cannot)
}

fn settings(resolved: &Resolved, log_size_at_start: u64, clock: &dyn Clock) -> Settings {
    Settings {
        issuer: resolved.issuer.clone(),
        token_endpoint: format!("{}/token", resolved.issuer),
        takes_certificates: asks_for_certificates(resolved),
        leeway_seconds: resolved.limits.leeway_seconds,
        proof_window_seconds: PROOF_WINDOW.as_secs(),
        log_size_at_start,
        started_at_seconds: clock.now_seconds(),
    }
}

fn asks_for_certificates(resolved: &Resolved) -> bool {
    resolved.listen.tls.as_ref().is_some_and(|tls| tls.asks_for_certificates)
}

/// The store of revocations and drifts, with what the log says and it does not know: a sudden end came between the
/// two, or the store was lost. A new one gets its name when it is complete.
async fn open_facts(
    facts: &Path,
    clock: Arc<dyn Clock>,
    restored: &restore::Restored,
) -> Result<(EmbeddedRevocations, EmbeddedDrifts), CannotStart> {
    let is_new = !facts.exists();
    let opened = if is_new { facts.with_extension("new") } else { facts.to_owned() };
    let revocations = EmbeddedRevocations::open(&opened, clock)
        .map_err(|error| CannotStart(format!("{error}; does another process use this data folder?")))?;
    let known = |what: &Revoked| revocations.any_revoked(std::slice::from_ref(what));
    for (what, until) in &restored.revocations {
        if !what.iter().all(known) {
            revocations.revoke(what.clone(), *until).await.map_err(cannot)?;
        }
    }
    for what in restored.lifted.iter().filter(|what| known(what)) {
        revocations.lift(what).await.map_err(cannot)?;
    }
    let drifts = revocations.drifts().map_err(cannot)?;
    let known: BTreeSet<Drifted> = drifts.all().into_iter().collect();
    for (drifted, last_word) in &restored.drifts {
        match last_word {
            Drift::Stopped if !known.contains(drifted) => {
                drifts.store(drifted.clone()).await.map_err(cannot)?
            }
            Drift::Lifted if known.contains(drifted) => {
                drifts.lift(drifted.clone()).await.map_err(cannot)?;
            }
            Drift::Stopped | Drift::Lifted => {}
        }
    }
    if is_new {
        std::fs::rename(&opened, facts).map_err(cannot)?;
    }
    Ok((revocations, drifts))
}

impl Assembly {
    /// Waits until every identity provider was asked for its keys once, whatever it answered.
    pub async fn providers_asked(&self) {
        let keys = Arc::clone(&*self.provider_keys.lock().await);
        keys.asked_once().await;
    }
}

fn rules(resolved: &Resolved, provider_keys: &Arc<OidcKeys>) -> Result<Rules, CannotStart> {
    let LoadedRules { registry, policies, templates } = resolved.load_rules().map_err(|errors| {
        CannotStart(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    approvals_seen::admit(&resolved.data_dir, registry.seals()).map_err(cannot)?;
    Ok(Rules {
        clients: Clients::new(resolved.clients.clone()),
        providers: providers(resolved, provider_keys)?,
        registry,
        policies,
        templates,
        aws_accounts: resolved.aws.as_ref().map(|aws| aws.accounts.clone()).unwrap_or_default(),
    })
}

/// What registration entries have to be beside.
fn others<'r>(rules: &'r Rules, resolved: &'r Resolved) -> Others<'r> {
    let addressees = Addressees::new(&rules.registry, &resolved.issuer);
    Others { clients: &rules.clients, addressees }
}

/// The trusted identity providers.
///
/// # Errors
/// [`CannotStart`]: one is configured in a way that cannot be, or a key for encrypted tokens cannot be read.
pub fn providers(resolved: &Resolved, provider_keys: &Arc<OidcKeys>) -> Result<Providers, CannotStart> {
    let providers = resolved.providers.iter().map(|upstream| upstream.provider.clone()).collect();
    let keys: Arc<dyn ProviderKeys> = Arc::clone(provider_keys) as _;
    Providers::new(providers, keys, decrypter(resolved)?).map_err(cannot)
}

/// Identity providers' keys, asked for in the background and kept fresh.
///
/// # Errors
/// [`CannotStart`]: a private certification authority cannot be read.
pub fn provider_keys(
    resolved: &Resolved,
    mode: Mode,
    previous: Option<&OidcKeys>,
) -> Result<Arc<OidcKeys>, CannotStart> {
    let mut sources = Vec::new();
    for upstream in &resolved.providers {
        let reach = Reach {
            allow_private_addresses: upstream.allow_private_addresses,
            allow_http: mode == Mode::Development,
            ca_file: upstream.ca_file.clone(),
        };
        sources.push(IssuerSource {
            issuer: upstream.provider.issuer.clone(),
            jwks_uri: upstream.jwks_uri.clone(),
            fetcher: Arc::new(Fetcher::new(reach).map_err(cannot)?),
        });
    }
    Ok(Arc::new(OidcKeys::start(sources, Timing::default(), jitter, previous)))
}

/// Spreads the fetches of replicas. Without randomness they coincide, which harms nothing.
fn jitter() -> u32 {
    let mut bytes = [0; 4];
    match clock::fill_random(&mut bytes) {
        Ok(()) => u32::from_be_bytes(bytes),
        Err(clock::NoRandomness) => 0,
    }
}

fn decrypter(resolved: &Resolved) -> Result<Option<Arc<dyn TokenDecrypter>>, CannotStart> {
    if resolved.jwe_key_files.is_empty() {
        return Ok(None);
    }
    let files: Vec<DecryptionKeyFile> = resolved
        .jwe_key_files
        .iter()
        .map(|file| DecryptionKeyFile { file: file.clone(), kid: None, allow_rsa_oaep_sha1: false })
        .collect();
    Ok(Some(Arc::new(JweKeys::load(&files).map_err(cannot)?)))
}

fn open_log(resolved: &Resolved, keys: &KeyFiles) -> Result<(Log, Recovery), CannotStart> {
    let host = Url::parse(&resolved.issuer).map_err(cannot)?.host_str().unwrap_or("deputize").to_owned();
    let replica = keys.secret("replica").map_err(cannot)?;
    let name: String = replica.expose().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let origin = format!("{host}/log/{name}");
    let signer = keys.checkpoint_signer(&origin).map_err(cannot)?;
    let config = LogConfig {
        folder: resolved.data_dir.join("log"),
        origin,
        anchor: resolved.anchor.clone(),
        segment_bytes: resolved.segment_bytes,
        reserve_bytes: resolved.reserve_bytes,
    };
    Log::open(config, signer).map_err(cannot)
}

/// The data of `dev` is marked: its keys were made for nobody's production.
fn check_marker(data_dir: &Path, mode: Mode) -> Result<(), CannotStart> {
    let marker = data_dir.join(DEVELOPMENT_MARKER);
    match mode {
        Mode::Development => {
            std::fs::write(&marker, "Made by `deputize dev`: not for production.\n").map_err(cannot)
        }
        Mode::Production if marker.exists() => Err(CannotStart(format!(
            "{} was made by `deputize dev`; production needs a data folder of its own",
            data_dir.display()
        ))),
        Mode::Production => Ok(()),
    }
}

fn record_start(desk: &Desk) -> Result<(), CannotStart> {
    let mut entry = Entry::new(Kind::Start, desk.clock.now_ms());
    entry.by = Some(format!("deputize {}", env!("CARGO_PKG_VERSION")));
    let bytes = entry.to_bytes().map_err(cannot)?;
    desk.audit.append_later(Class::Vital, bytes).map_err(cannot)?;
    desk.audit.append_later(Class::Vital, configuration(desk)?).map_err(cannot)
}

fn configuration(desk: &Desk) -> Result<Vec<u8>, CannotStart> {
    let rules = desk.rules.load();
    let mut entry = Entry::new(Kind::Configuration, desk.clock.now_ms());
    entry.registry = Some(rules.registry.digest().to_string());
    entry.entries = desk.spiffe.as_ref().map(|door| door.entries.now().digest_of_files().to_string());
    entry.templates = desk.aws.as_ref().map(|_| rules.templates.digest().to_string());
    entry.policy = Some(deputize_call::claims::PolicyRef {
        digest: rules.policies.digest().to_owned(),
        ids: Vec::new(),
    });
    entry.to_bytes().map_err(cannot)
}

fn cannot(error: impl std::fmt::Display) -> CannotStart {
    CannotStart(error.to_string())
}

/// Marks a data folder of `dev`.
pub const DEVELOPMENT_MARKER: &str = "DEVELOPMENT";
const NONCE_LIFETIME: Duration = Duration::from_secs(300);
const PROOF_WINDOW: Duration = Duration::from_secs(30);
/// The longest life of an assertion, and for how long after it a JWT-SVID is taken still; this, and the leeway twice.
const ASSERTION_MEMORY: Duration = Duration::from_secs(MAX_ASSERTION_SECONDS + SVID_LEEWAY_SECONDS);
/// Tokens live two minutes at most; this, and what verifiers grant.
const LONGEST_TOKEN_SECONDS: u64 = 180;
/// Longer than a tool-call token can live.
const REDEMPTION_MEMORY: Duration = Duration::from_secs(180);
