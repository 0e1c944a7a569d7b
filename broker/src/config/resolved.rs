//! What is true: parsed URLs, loaded keys, checked limits. Only this reaches the program.

use deputize_issuer::{
    client::{Addressees, Client},
    policy::{PolicyEngine, PolicyError, PolicyFile},
    provider::{ClaimPath, GroupsClaim, Preset, Provider, StableClaim},
    registry::Registry,
    templates::Templates,
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use url::Url;

use super::{
    aws::Aws,
    client_certificates::somebody_shows_one,
    clients::bring_anothers,
    raw,
    read::{self, ConfigError},
    registry::RegistryFolder,
    spiffe::Spiffe,
};

/// The checked configuration of a broker.
#[derive(Debug)]
pub struct Resolved {
    /// Issuer URL, without a trailing slash.
    pub issuer: String,
    /// Data folder.
    pub data_dir: PathBuf,
    /// Public listener.
    pub listen: Listen,
    /// Listener of health and metrics.
    pub admin_address: Option<SocketAddr>,
    /// Socket of administration.
    pub admin_socket: PathBuf,
    /// Copy of the newest checkpoint, outside the data folder.
    pub anchor: Option<PathBuf>,
    /// Space kept free in the data folder, in bytes.
    pub reserve_bytes: u64,
    /// Size of a segment, in bytes.
    pub segment_bytes: u64,
    /// Where identity providers are, and how they may be reached.
    pub providers: Vec<Upstream>,
    /// Clients.
    pub clients: Vec<Client>,
    /// Private keys for JWE.
    pub jwe_key_files: Vec<PathBuf>,
    /// Bounds.
    pub limits: Limits,
    /// The registry.
    pub registry: RegistryFolder,
    /// AWS, where sessions of its roles are given out.
    pub aws: Option<Aws>,
    /// The Workload API, where there is one.
    pub spiffe: Option<Spiffe>,
    policies: PathBuf,
    /// The file that says all of this.
    file: PathBuf,
}

/// What was read from the folders that the configuration names.
#[derive(Debug)]
pub struct LoadedRules {
    /// The registry.
    pub registry: Registry,
    /// The policies.
    pub policies: PolicyEngine,
    /// The role templates; none without `aws`.
    pub templates: Templates,
}

/// The public listener.
#[derive(Debug)]
pub struct Listen {
    /// Address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether a proxy in front terminates TLS.
    pub behind_proxy: bool,
    /// TLS, where this listener terminates it.
    pub tls: Option<Tls>,
}

/// TLS of the public listener.
#[derive(Debug)]
pub struct Tls {
    /// Certificate chain, a PEM file.
    pub certificate: PathBuf,
    /// Its key, a PEM file.
    pub key: PathBuf,
    /// Whether clients are asked for a certificate of theirs.
    pub asks_for_certificates: bool,
}

/// An identity provider.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// How its tokens are read.
    pub provider: Provider,
    /// Where its keys are, for an issuer without discovery.
    pub jwks_uri: Option<Url>,
    /// PEM file of its private certification authority.
    pub ca_file: Option<PathBuf>,
    /// Whether its address may be private.
    pub allow_private_addresses: bool,
}

/// Bounds, as [`raw::Limits`] has them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests of one source address.
    pub source_per_second: u32,
    /// Requests of one authenticated client.
    pub client_per_second: u32,
    /// Records of denials of one client.
    pub denials_per_second: u32,
    /// Reports of the guards of one server.
    pub guard_events_per_second: u32,
    /// Open connections.
    pub connections: usize,
    /// Grace on the times of other parties' tokens.
    pub leeway_seconds: u64,
    /// Proofs and assertions remembered, each.
    pub once_capacity: usize,
    /// How long a stop waits for requests under way.
    pub drain: Duration,
}

/// Whether the safety rules of production hold, or those of `dev`, which lives on loopback without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `serve`.
    Production,
    /// `dev`.
    Development,
}

/// Reads and checks a configuration file.
///
/// # Errors
/// Everything that is wrong with it, not only the first thing.
pub fn load(path: &Path, mode: Mode) -> Result<Resolved, Vec<ConfigError>> {
    let raw = read::read_config(path, std::env::vars()).map_err(|error| vec![error])?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut check = Check { path, folder, mode, errors: Vec::new() };
    check.node_listener(&raw);
    match check.resolve(raw) {
        Some(resolved) if check.errors.is_empty() => Ok(resolved),
        _ => Err(check.errors),
    }
}

impl Resolved {
    /// Reads the registry, the policies and the role templates, which can be reloaded.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load_rules(&self) -> Result<LoadedRules, Vec<ConfigError>> {
        let registry = self.registry.load();
        let policies =
            policy_files(&self.policies).and_then(|files| Ok((load_engine(&self.policies, &files)?, files)));
        let (registry, policies, files) = match (registry, policies) {
            (Ok(registry), Ok((policies, files))) => (registry, policies, files),
            (registry, policies) => {
                return Err(registry.err().into_iter().chain(policies.err()).flatten().collect());
            }
        };
        let mut problems = in_folder(&self.policies, policies.unknown_names(&files, &registry));
        let addressees = Addressees::new(&registry, &self.issuer);
        problems.extend(bring_anothers(&self.clients, &addressees, &self.file));
        let templates = self.aws.as_ref().map(|aws| aws.load_templates(&registry)).transpose();
        match templates {
            Ok(templates) if problems.is_empty() => {
                Ok(LoadedRules { registry, policies, templates: templates.unwrap_or_default() })
            }
            templates => Err(problems.into_iter().chain(templates.err().into_iter().flatten()).collect()),
        }
    }
}

/// What signs here, and for whom: issuers that are ours.
fn own_issuers(issuer: &str, aws: Option<&Aws>) -> Vec<String> {
    let mut own = vec![issuer.to_owned(), format!("{issuer}/spiffe"), format!("{issuer}/web-identity")];
    own.extend(aws.map(|aws| aws.web_identity.issuer.clone()));
    own
}

/// Whether two issuers are one place, though they may be spelled in two ways.
pub(super) fn same_place(one: &str, other: &str) -> bool {
    let place = |text: &str| {
        let url = Url::parse(text).ok()?;
        let path = url.path().trim_end_matches('/').to_owned();
        Some((url.host_str()?.trim_end_matches('.').to_owned(), url.port_or_known_default(), path))
    };
    place(one).is_some_and(|one| place(other) == Some(one))
}

/// Reads the policies of a folder, whatever the registry has.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load_policies(folder: &Path) -> Result<PolicyEngine, Vec<ConfigError>> {
    load_engine(folder, &policy_files(folder)?)
}

fn load_engine(folder: &Path, files: &[PolicyFile]) -> Result<PolicyEngine, Vec<ConfigError>> {
    PolicyEngine::load(files).map_err(|errors| in_folder(folder, errors))
}

fn in_folder(folder: &Path, errors: Vec<PolicyError>) -> Vec<ConfigError> {
    errors.into_iter().map(|error| ConfigError::new(folder, error.to_string())).collect()
}

fn policy_files(folder: &Path) -> Result<Vec<PolicyFile>, Vec<ConfigError>> {
    let files = read::files_of(folder, &["cedar"]).map_err(|error| vec![error])?;
    if files.is_empty() {
        return Err(vec![ConfigError::new(folder, "no *.cedar files: without a policy nothing is allowed")]);
    }
    let mut policies = Vec::new();
    for file in &files {
        let text = read::read_text(file).map_err(|error| vec![error])?;
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        policies.push(PolicyFile { name, text });
    }
    Ok(policies)
}

/// The file under examination, and what is wrong with it.
pub(super) struct Check<'p> {
    path: &'p Path,
    pub(super) folder: &'p Path,
    mode: Mode,
    pub(super) errors: Vec<ConfigError>,
}

impl Check<'_> {
    fn resolve(&mut self, raw: raw::Config) -> Option<Resolved> {
        self.https("issuer", &raw.issuer);
        if raw.issuer.ends_with('/') {
            self.refuse("issuer: leave the trailing slash out");
        }
        let address = self.address("listen.address", &raw.listen.address);
        if raw.listen.tls.is_none() && !raw.listen.behind_proxy && self.mode == Mode::Production {
            self.refuse("listen: give tls, or say behind_proxy: true where a proxy in front terminates TLS");
        }
        let admin_address =
            raw.admin.address.as_ref().and_then(|address| self.address("admin.address", address));
        let data_dir = self.folder.join(&raw.data_dir);
        let anchor = raw.audit.anchor.as_ref().map(|anchor| self.folder.join(anchor));
        if anchor.as_ref().is_some_and(|anchor| anchor.starts_with(&data_dir)) {
            self.refuse("audit.anchor: keep it outside data_dir, or a rollback takes it along");
        }
        if anchor.is_none() && !raw.audit.allow_no_anchor && self.mode == Mode::Production {
            self.refuse(
                "audit.anchor: name a file outside data_dir, or a data folder put back to an older state would not be \
                 seen and used assertions could be used again; audit.allow_no_anchor: true accepts that",
            );
        }
        let aws = raw.aws.as_ref().map(|aws| self.aws(aws, &raw.issuer));
        let spiffe = raw.spiffe.as_ref().map(|spiffe| self.spiffe(spiffe, &raw.issuer));
        let own = own_issuers(&raw.issuer, aws.as_ref());
        if raw
            .identity_providers
            .iter()
            .any(|provider| own.iter().any(|own| same_place(own, &provider.issuer)))
        {
            // What we sign for workloads and clouds must not come back as a user's token.
            self.refuse("identity_providers.issuer: the broker's own issuers are no identity providers");
        }
        let providers = raw.identity_providers.iter().map(|provider| self.provider(provider)).collect();
        let clients = self.clients(&raw);
        let shows_certificates = somebody_shows_one(&raw);
        let registry = RegistryFolder::resolve(&raw.registry, self.path, self.mode)
            .map_err(|errors| self.errors.extend(errors))
            .ok()?;
        Some(Resolved {
            issuer: raw.issuer,
            listen: Listen {
                address: address?,
                behind_proxy: raw.listen.behind_proxy,
                tls: raw.listen.tls.map(|tls| self.tls(&tls, shows_certificates && !raw.listen.behind_proxy)),
            },
            admin_address,
            admin_socket: raw
                .admin
                .socket
                .map_or_else(|| data_dir.join("admin.sock"), |path| self.folder.join(path)),
            data_dir,
            anchor,
            reserve_bytes: raw.audit.reserve_mib.clamp(1, 1 << 20) << 20,
            segment_bytes: raw.audit.segment_mib.clamp(1, 4096) << 20,
            providers,
            clients,
            jwe_key_files: raw.jwe_key_files.iter().map(|file| self.folder.join(file)).collect(),
            limits: self.limits(&raw.limits),
            registry,
            aws,
            // What is wrong with it is said already.
            spiffe: spiffe.map_or(Some(None), |spiffe| spiffe.map(Some))?,
            policies: self.folder.join(raw.policies),
            file: self.path.to_owned(),
        })
    }

    fn tls(&self, raw: &raw::Tls, somebody_shows_one: bool) -> Tls {
        let asks = raw.client_certificates.map(|certificates| certificates == raw::ClientCertificates::Ask);
        Tls {
            certificate: self.folder.join(&raw.certificate_file),
            key: self.folder.join(&raw.key_file),
            asks_for_certificates: asks.unwrap_or(somebody_shows_one),
        }
    }

    fn provider(&mut self, raw: &raw::IdentityProvider) -> Upstream {
        self.https("identity_providers.issuer", &raw.issuer);
        let preset = match raw.preset {
            raw::Preset::EntraId => Preset::EntraId,
            raw::Preset::Okta => Preset::Okta,
            raw::Preset::Auth0 => Preset::Auth0,
            raw::Preset::Keycloak => Preset::Keycloak,
            raw::Preset::Google => Preset::Google,
            raw::Preset::Generic => Preset::Generic,
        };
        let mut provider = preset.provider(&raw.issuer, &raw.tenant);
        if let Some(stable) = &raw.claims.stable {
            provider.claims.stable = StableClaim::same(stable);
        }
        if let Some(groups) = &raw.claims.groups {
            provider.claims.groups = vec![GroupsClaim::new(groups, "")];
        }
        provider.claims.roles.extend(raw.claims.roles.clone());
        let extra =
            raw.claims.extra.iter().map(|(name, path)| (name.clone(), ClaimPath::from(path.as_str())));
        provider.claims.extra.extend(extra);
        let required =
            raw.claims.required.iter().map(|(path, values)| (ClaimPath::from(path.as_str()), values.clone()));
        provider.claims.required.extend(required);
        provider.claims.common_claim = raw.claims.common.as_deref().map(ClaimPath::from);
        provider.max_age_seconds = raw.max_age_seconds;
        let jwks_uri = raw.jwks_uri.as_ref().and_then(|uri| {
            self.https("identity_providers.jwks_uri", uri);
            Url::parse(uri).ok()
        });
        Upstream {
            provider,
            jwks_uri,
            ca_file: raw.ca_file.as_ref().map(|file| self.folder.join(file)),
            allow_private_addresses: raw.allow_private_addresses || self.mode == Mode::Development,
        }
    }

    fn limits(&mut self, raw: &raw::Limits) -> Limits {
        if raw.leeway_seconds > 60 {
            self.refuse("limits.leeway_seconds: at most 60");
        }
        Limits {
            source_per_second: raw.source_per_second,
            client_per_second: raw.client_per_second,
            denials_per_second: raw.denials_per_second,
            guard_events_per_second: raw.guard_events_per_second,
            connections: raw.connections.clamp(1, 1_000_000),
            leeway_seconds: raw.leeway_seconds,
            once_capacity: raw.once_capacity.clamp(1000, 50_000_000),
            drain: Duration::from_secs(raw.drain_seconds.min(300)),
        }
    }

    pub(super) fn https(&mut self, member: &str, text: &str) {
        match Url::parse(text) {
            Ok(url) if url.scheme() == "https" => {}
            Ok(url) if url.scheme() == "http" && self.mode == Mode::Development => {}
            Ok(_) => self.refuse(format!("{member}: {text:?} must begin with https://")),
            Err(error) => self.refuse(format!("{member}: {text:?} is not a URL: {error}")),
        }
    }

    pub(super) fn address(&mut self, member: &str, text: &str) -> Option<SocketAddr> {
        let parsed = text.replace("localhost:", "127.0.0.1:").parse();
        if parsed.is_err() {
            self.refuse(format!("{member}: {text:?} is not an address like 0.0.0.0:8443"));
        }
        parsed.ok()
    }

    /// Whether the rules of `dev` hold.
    pub(super) fn is_development(&self) -> bool {
        self.mode == Mode::Development
    }

    /// Notes that something is wrong.
    pub(super) fn refuse(&mut self, message: impl Into<String>) {
        self.errors.push(ConfigError::new(self.path, message));
    }
}
