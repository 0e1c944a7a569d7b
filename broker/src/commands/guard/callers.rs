//! What a guard is told of its callers' SVIDs: by which bundles they are verified, and whose are demanded.

use deputize_guard::{CallerSvids, SpiffeIdPattern};
use spiffe::TrustDomain;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::settings::{Raw, wrong_setting};
use crate::commands::{exit::CommandError, svid};

/// Callers that are workloads.
#[derive(Debug, clap::Args)]
pub(super) struct CallerArgs {
    /// Verify callers' client certificates as X.509-SVIDs of this trust domain, by its bundle (SPIFFE bundle document);
    /// the file is read again when it changes
    #[arg(long, value_name = "TRUST_DOMAIN=FILE")]
    caller_bundle: Vec<String>,
    /// Verify them by the bundles that the Workload API gives this guard, as they are at each moment
    #[arg(long, value_name = "SOCKET", conflicts_with = "caller_bundle")]
    workload_api: Option<String>,
    /// Let in only callers that show an X.509-SVID: any, or those of a SPIFFE ID, or below one (spiffe://domain/path/*)
    #[arg(long, value_name = "PATTERN", num_args = 0..=1, require_equals = true, default_missing_value = "spiffe://*")]
    require_caller_svid: Vec<String>,
    /// Let a workload that acts by a token call without showing its X.509-SVID, with the token's key alone; what is shown
    /// has to be its own still
    #[arg(long, conflicts_with = "require_caller_svid")]
    allow_svidless_callers: bool,
    /// Show the guard's own X.509-SVID as the certificate of its listener, renewed by itself; needs --workload-api
    #[arg(long)]
    tls_svid: bool,
}

/// Where bundles come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trusted {
    /// Out of files, one a trust domain.
    Files(BTreeMap<TrustDomain, PathBuf>),
    /// From the Workload API, with the guard's own SVID.
    WorkloadApi {
        /// Its socket.
        socket: PathBuf,
        /// How long what it told holds when it is away.
        holds: Duration,
    },
}

/// Puts the command line on top of the file.
///
/// # Errors
/// If a bundle is not given as TRUST_DOMAIN=FILE.
pub(super) fn take(raw: &mut Raw, args: CallerArgs) -> Result<(), CommandError> {
    // Where bundles come from is one thing: what is said of it here goes before all that the file says of it.
    if args.workload_api.is_some() || !args.caller_bundle.is_empty() {
        (raw.workload_api, raw.caller_bundles) = (args.workload_api, BTreeMap::new());
    }
    for given in &args.caller_bundle {
        let parts = given.split_once('=').filter(|(_, file)| !file.is_empty());
        let (domain, file) = parts
            .ok_or_else(|| wrong_setting(&format!("--caller-bundle {given}: give TRUST_DOMAIN=FILE")))?;
        raw.caller_bundles.insert(domain.to_owned(), file.into());
    }
    if !args.require_caller_svid.is_empty() {
        raw.require_caller_svid = args.require_caller_svid;
    }
    raw.allow_svidless_callers |= args.allow_svidless_callers;
    raw.tls_svid |= args.tls_svid;
    Ok(())
}

/// What is true of them.
///
/// # Errors
/// What contradicts itself, or is missing.
pub(super) fn resolve(raw: &Raw) -> Result<(Option<Trusted>, Option<CallerSvids>), CommandError> {
    let trusted = trusted(raw)?;
    let patterns = raw.require_caller_svid.iter().map(|text| {
        SpiffeIdPattern::parse(text)
            .map_err(|error| wrong_setting(&format!("require_caller_svid: {text:?}: {error}")))
    });
    let required: Vec<SpiffeIdPattern> = patterns.collect::<Result<_, _>>()?;
    if raw.allow_svidless_callers && (trusted.is_none() || !required.is_empty()) {
        return Err(wrong_setting(
            "allow_svidless_callers: it goes with workload_api or caller_bundles, and without require_caller_svid",
        ));
    }
    if raw.tls_svid && !matches!(trusted, Some(Trusted::WorkloadApi { .. })) {
        return Err(wrong_setting(
            "tls_svid: the guard's SVID comes from the Workload API: give workload_api",
        ));
    }
    if raw.tls_svid && raw.tls.is_some() {
        return Err(wrong_setting("tls and tls_svid: a listener shows one certificate: give one of the two"));
    }
    if trusted.is_none() {
        return if required.is_empty() {
            Ok((None, None))
        } else {
            Err(wrong_setting(
                "require_caller_svid: nothing says by what SVIDs are verified: give workload_api or caller_bundles",
            ))
        };
    }
    // A proxy in front would end TLS, and what it says of certificates is nobody's proof.
    if raw.tls.is_none() && !raw.tls_svid {
        return Err(wrong_setting("callers show their SVIDs in TLS: give tls or tls_svid"));
    }
    if raw.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some()) {
        return Err(wrong_setting(
            "tls.client_ca_file: callers' SVIDs are verified by bundles: give one of the two",
        ));
    }
    Ok((trusted, Some(CallerSvids { required, svidless: raw.allow_svidless_callers })))
}

fn trusted(raw: &Raw) -> Result<Option<Trusted>, CommandError> {
    match (&raw.workload_api, raw.caller_bundles.is_empty()) {
        (None, true) => Ok(None),
        (Some(socket), true) => {
            let seconds = raw.limits.caller_bundles_seconds.unwrap_or(HOLD_SECONDS);
            if !(1..=MAX_HOLD_SECONDS).contains(&seconds) {
                return Err(wrong_setting("limits.caller_bundles_seconds: 1 to 86400"));
            }
            let holds = Duration::from_secs(seconds);
            Ok(Some(Trusted::WorkloadApi { socket: svid::address(socket)?, holds }))
        }
        (Some(_), false) => Err(wrong_setting("workload_api and caller_bundles: give one of the two")),
        (None, false) if raw.caller_bundles.len() > MAX_BUNDLES => {
            Err(wrong_setting(&format!("caller_bundles: {MAX_BUNDLES} at most")))
        }
        (None, false) => {
            let files = raw.caller_bundles.iter().map(|(name, file)| {
                // The library takes IDs for their domain, and capitals for small letters.
                let domain = TrustDomain::new(name).ok().filter(|domain| domain.as_str() == name);
                let domain = domain
                    .ok_or_else(|| wrong_setting(&format!("caller_bundles: {name:?} is no trust domain")))?;
                Ok((domain, file.clone()))
            });
            files.collect::<Result<_, CommandError>>().map(|files| Some(Trusted::Files(files)))
        }
    }
}

const MAX_BUNDLES: usize = 64;
const HOLD_SECONDS: u64 = 3600;
const MAX_HOLD_SECONDS: u64 = 24 * 3600;
