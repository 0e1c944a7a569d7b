//! Foreign trust domains: where their bundles come from.

use deputize_call::digest::{Digest, sha256};
use deputize_issuer::{bundle, entry::parse_spiffe_id, svid::Bundle};
use spiffe::{SpiffeId, TrustDomain};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};
use url::Url;

use super::{
    raw::{self, SpiffeProfile},
    read::ConfigError,
    resolved::Check,
};

/// A foreign trust domain, and where its bundle comes from.
///
/// INVARIANT: there is a file, or an endpoint, or both; and a file where an endpoint is authenticated by the bundle that
/// it publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Federated {
    /// Its name.
    pub trust_domain: TrustDomain,
    /// Its bundle; with an endpoint its first one.
    pub bundle_file: Option<PathBuf>,
    /// Where it publishes its bundle.
    pub endpoint: Option<Endpoint>,
}

/// A bundle endpoint (SPIFFE Federation §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is: https, without userinfo (§5.2.1.1, §5.2.2.1).
    pub url: Url,
    /// How it is authenticated.
    pub profile: Profile,
    /// Whether its name may lead to private addresses.
    pub allow_private_addresses: bool,
}

/// How a bundle endpoint is authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// As any website is; with further authorities of a PEM file.
    HttpsWeb {
        /// The file.
        ca_file: Option<PathBuf>,
    },
    /// By its X.509-SVID.
    HttpsSpiffe {
        /// Exactly this one.
        endpoint_spiffe_id: SpiffeId,
    },
}

/// A bundle as a file has it.
#[derive(Debug, Clone)]
pub struct BundleFile {
    /// What it says.
    pub bundle: Arc<Bundle>,
    /// Its bytes.
    pub document: Vec<u8>,
    /// Of its bytes.
    pub digest: Digest,
}

impl Profile {
    /// Its name, as the configuration has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HttpsWeb { .. } => "https_web",
            Self::HttpsSpiffe { .. } => "https_spiffe",
        }
    }
}

impl Endpoint {
    /// Which one it is: a bundle that came from there is known by it. Who vouches for a website is no part of it.
    pub fn identity(&self) -> String {
        match &self.profile {
            Profile::HttpsWeb { .. } => format!("{} {}", self.profile.name(), self.url),
            Profile::HttpsSpiffe { endpoint_spiffe_id } => {
                format!("{} {} {endpoint_spiffe_id}", self.profile.name(), self.url)
            }
        }
    }
}

impl Federated {
    /// The bundle of its file, as it stands; nothing without a file.
    ///
    /// # Errors
    /// If the file cannot be read, or is no bundle.
    pub fn read_file(&self) -> Result<Option<BundleFile>, ConfigError> {
        let Some(file) = &self.bundle_file else { return Ok(None) };
        let wrong = |problem: String| {
            ConfigError::new(file, format!("the bundle of {}: {problem}", self.trust_domain))
        };
        let document = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
        let bundle = bundle::from_document(self.trust_domain.clone(), &document)
            .map_err(|error| wrong(error.to_string()))?;
        let digest = Digest::from_bytes(sha256(&document));
        Ok(Some(BundleFile { bundle: Arc::new(bundle), document, digest }))
    }
}

/// The bundles of all files, as they stand, in the order of the trust domains; nothing for those without a file.
///
/// # Errors
/// Every file that cannot be read, or is no bundle.
pub fn read_files(federation: &[Federated]) -> Result<Vec<Option<BundleFile>>, Vec<ConfigError>> {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for federated in federation {
        match federated.read_file() {
            Ok(file) => files.push(file),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(files) } else { Err(errors) }
}

impl Check<'_> {
    /// What the file says of foreign trust domains.
    pub(super) fn federation(&mut self, raw: &[raw::SpiffeFederation], own: &TrustDomain) -> Vec<Federated> {
        if raw.len() > MAX_FEDERATED {
            self.refuse(format!("spiffe.federation: {MAX_FEDERATED} trust domains at most"));
            return Vec::new();
        }
        let mut federation: Vec<Federated> = Vec::new();
        for foreign in raw {
            let Some(trust_domain) = self.trust_domain(&foreign.trust_domain) else { continue };
            // SPIFFE Trust Domain and Bundle §3: whoever verifies takes the one bundle of the SVID's own trust domain.
            if trust_domain == *own {
                self.refuse(format!("spiffe.federation: {own} is our own trust domain"));
            } else if federation.iter().any(|known| known.trust_domain == trust_domain) {
                self.refuse(format!("spiffe.federation: {trust_domain} stands there twice"));
            } else if foreign.bundle_file.is_none() && foreign.endpoint.is_none() {
                self.refuse(format!(
                    "spiffe.federation: {trust_domain}: give bundle_file, endpoint, or both"
                ));
            } else {
                let endpoint = foreign.endpoint.as_ref().and_then(|raw| self.endpoint(raw, &trust_domain));
                let bundle_file = foreign.bundle_file.as_ref().map(|file| self.folder.join(file));
                federation.push(Federated { trust_domain, bundle_file, endpoint });
            }
        }
        self.can_be_authenticated(&federation, own);
        federation
    }

    fn endpoint(&mut self, raw: &raw::SpiffeEndpoint, trust_domain: &TrustDomain) -> Option<Endpoint> {
        let member = format!("spiffe.federation: {trust_domain}: endpoint");
        let url = Url::parse(&raw.url).ok().filter(is_bundle_url);
        if url.is_none() {
            self.refuse(format!("{member}.url: {:?}: give https://HOST/PATH, and no user in it", raw.url));
        }
        let id = raw.endpoint_spiffe_id.as_ref();
        let profile = match (raw.profile, id, &raw.ca_file) {
            (SpiffeProfile::HttpsWeb, None, ca_file) => {
                Some(Profile::HttpsWeb { ca_file: ca_file.as_ref().map(|file| self.folder.join(file)) })
            }
            (SpiffeProfile::HttpsSpiffe, Some(id), None) => match parse_spiffe_id(id) {
                Ok(endpoint_spiffe_id) => Some(Profile::HttpsSpiffe { endpoint_spiffe_id }),
                Err(problem) => {
                    self.refuse(format!("{member}.endpoint_spiffe_id: {id:?}: {problem}"));
                    None
                }
            },
            (SpiffeProfile::HttpsWeb, Some(_), _) => {
                self.refuse(format!("{member}.endpoint_spiffe_id is for profile https_spiffe alone"));
                None
            }
            (SpiffeProfile::HttpsSpiffe, None, _) => {
                self.refuse(format!(
                    "{member}.endpoint_spiffe_id is missing: https_spiffe is authenticated by it"
                ));
                None
            }
            (SpiffeProfile::HttpsSpiffe, Some(_), Some(_)) => {
                self.refuse(format!(
                    "{member}.ca_file is for profile https_web alone: https_spiffe trusts bundles"
                ));
                None
            }
        };
        let allow_private_addresses = raw.allow_private_addresses;
        Some(Endpoint { url: url?, profile: profile?, allow_private_addresses })
    }

    /// SPIFFE Federation §5.2.2.2: the bundle that authenticates an endpoint has to come from somewhere.
    fn can_be_authenticated(&mut self, federation: &[Federated], own: &TrustDomain) {
        let known: BTreeSet<&str> = federation.iter().map(|one| one.trust_domain.as_str()).collect();
        for federated in federation {
            let Some(Endpoint { profile: Profile::HttpsSpiffe { endpoint_spiffe_id }, .. }) =
                &federated.endpoint
            else {
                continue;
            };
            let (whose, of) = (endpoint_spiffe_id.trust_domain(), &federated.trust_domain);
            if whose == of && federated.bundle_file.is_none() {
                self.refuse(format!(
                    "spiffe.federation: {of}: give bundle_file too: its endpoint is authenticated by the bundle \
                     that it publishes, and the first one has to come another way"
                ));
            } else if whose != of && whose != own && !known.contains(whose.as_str()) {
                self.refuse(format!(
                    "spiffe.federation: {of}: its endpoint is authenticated by the bundle of {whose}: add that \
                     trust domain to spiffe.federation"
                ));
            }
        }
        self.has_beginnings(federation);
    }

    /// Endpoints that are authenticated by each other's bundles in a circle can none of them be asked first.
    fn has_beginnings(&mut self, federation: &[Federated]) {
        // Who waits for the bundle of another trust domain of the configuration. What waits for its own is refused already.
        let mut waiting: BTreeMap<&TrustDomain, &TrustDomain> = BTreeMap::new();
        for federated in federation.iter().filter(|federated| federated.bundle_file.is_none()) {
            if let Some(Endpoint { profile: Profile::HttpsSpiffe { endpoint_spiffe_id }, .. }) =
                &federated.endpoint
            {
                let whose = endpoint_spiffe_id.trust_domain();
                if *whose != federated.trust_domain {
                    waiting.insert(&federated.trust_domain, whose);
                }
            }
        }
        // Whoever waits for somebody who waits for nobody is served in the end.
        loop {
            let before = waiting.len();
            let still: BTreeSet<&TrustDomain> = waiting.keys().copied().collect();
            waiting.retain(|_, whose| still.contains(whose));
            if waiting.len() == before {
                break;
            }
        }
        if !waiting.is_empty() {
            let domains: Vec<&str> = waiting.keys().map(|domain| domain.as_str()).collect();
            self.refuse(format!(
                "spiffe.federation: {}: each one's endpoint is authenticated by a bundle that only another of these \
                 endpoints gives: give bundle_file to one of them",
                domains.join(", ")
            ));
        }
    }
}

/// SPIFFE Federation §5.2.1.1, §5.2.2.1.
fn is_bundle_url(url: &Url) -> bool {
    url.scheme() == "https"
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
        && url.as_str().len() <= MAX_URL_BYTES
}

/// Each is asked again and again, and has a place in memory.
const MAX_FEDERATED: usize = 100;
const MAX_URL_BYTES: usize = 2048;
