//! The files of a development environment: configuration, clients' keys, registry and policies, as an operator would
//! have them. `dev` reads them back the way `serve` does.

use deputize_call::{jws::JwsError, keys::KeySet, sign::SigningKey};
use deputize_issuer::{
    clock::{NoRandomness, fill_random},
    registry::ServerRecord,
};
use deputize_stand_ins::{
    aws::{role::ACCOUNT, templates},
    example_server::TENANT,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};
use url::Url;

/// What a configuration is written about.
pub(crate) struct Layout<'l> {
    /// Where the files go.
    pub(crate) folder: &'l Path,
    /// Where the broker listens.
    pub(crate) broker: SocketAddr,
    /// `iss` of the identity provider.
    pub(crate) identity_provider: &'l str,
    /// The agent platform's key.
    pub(crate) platform: &'l SigningKey,
    /// The servers, each with its guard's key.
    pub(crate) servers: &'l [(&'l ServerRecord, SigningKey)],
    /// Where AWS's stand-in is.
    pub(crate) aws: &'l Url,
    /// Resource URI of the server whose calls get sessions there.
    pub(crate) works_in_aws: &'l str,
}

/// Why the files are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("{}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("a file of the environment does not serialize: {0}")]
    Serialize(String),
    #[error(transparent)]
    Key(#[from] JwsError),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Layout<'_> {
    /// Writes all files and says where the configuration is.
    pub(crate) fn write(&self) -> Result<PathBuf, LayoutError> {
        for name in ["clients", "registry", "policies", "templates", "entries"] {
            make_private(&self.folder.join(name))?;
        }
        self.write_jwks(PLATFORM, self.platform)?;
        for (record, key) in self.servers {
            self.write_jwks(record.client_id.as_deref().unwrap_or(&record.id), key)?;
            let record_file = Path::new("registry").join(&record.id).with_extension("yaml");
            self.write_file(&record_file, &yaml(record)?)?;
        }
        for (name, text) in POLICIES {
            self.write_file(&Path::new("policies").join(name), text)?;
        }
        for (name, text) in templates::files(self.works_in_aws) {
            self.write_file(&Path::new("templates").join(name), &text)?;
        }
        self.write_file(Path::new("entries/support-bot.yaml"), &yaml(&entry())?)?;
        self.write_file(Path::new("entries/support-desk.yaml"), &yaml(&self.exchanging_entry()?)?)?;
        self.write_file(Path::new("deputize.yaml"), &yaml(&self.config())?)?;
        Ok(self.folder.join("deputize.yaml"))
    }

    /// Everything that has a good default is left out, as an operator would.
    fn config(&self) -> Value {
        json!({
            "issuer": format!("http://{}", self.broker),
            "data_dir": "data",
            "listen": { "address": self.broker },
            "admin": { "address": "127.0.0.1:0" },
            "audit": { "anchor": "anchor", "reserve_mib": 1 },
            "identity_providers": [{
                "issuer": self.identity_provider,
                "tenant": TENANT,
                "claims": { "roles": roles() },
                "allow_private_addresses": true,
            }],
            "clients": self.clients(),
            "registry": { "folder": "registry" },
            "policies": "policies",
            "aws": {
                "templates": "templates",
                "accounts": [ACCOUNT],
                "sts": { "endpoint": self.aws, "allow_private_addresses": true },
            },
            "spiffe": { "trust_domain": TRUST_DOMAIN, "socket": WORKLOAD_API_SOCKET, "entries": "entries" },
        })
    }

    /// This very program, run by the same user, may exchange without being anybody's client: for one tool.
    fn exchanging_entry(&self) -> Result<Value, LayoutError> {
        let program = std::env::current_exe()
            .map_err(|source| LayoutError::Write { path: PathBuf::from("/proc/self/exe"), source })?;
        let may_call: Vec<Value> = self
            .servers
            .iter()
            .take(1)
            .map(|(record, _)| json!({ "resource": record.resource, "tools": [DESK_TOOL] }))
            .collect();
        Ok(json!({
            "id": "support-desk",
            "spiffe_id": DESK,
            "selectors": [own_user(), format!("unix:path:{}", program.display())],
            "exchange": { "tenant": TENANT, "subject_audiences": [PLATFORM], "may_call": may_call },
        }))
    }

    fn clients(&self) -> Vec<Value> {
        let platform = json!({
            "id": PLATFORM,
            "tenant": TENANT,
            "actor": AGENT,
            "jwks_file": jwks_path(PLATFORM),
            "subject_audiences": [PLATFORM],
            "may_call": [{ "resource": "*" }],
            "client_credentials": true,
        });
        let guards = self.servers.iter().map(|(record, _)| {
            let id = record.client_id.as_deref().unwrap_or(&record.id);
            json!({ "id": id, "tenant": TENANT, "jwks_file": jwks_path(id), "server": record.resource })
        });
        std::iter::once(platform).chain(guards).collect()
    }

    fn write_jwks(&self, id: &str, key: &SigningKey) -> Result<(), LayoutError> {
        let jwks = KeySet::new(vec![key.public().clone()]).to_jwks();
        self.write_file(&jwks_path(id), &format!("{jwks:#}\n"))
    }

    fn write_file(&self, name: &Path, text: &str) -> Result<(), LayoutError> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|source| LayoutError::Write { path, source })
    }
}

/// A folder of a random name for one environment, its owner's alone.
pub(crate) fn fresh_folder() -> Result<PathBuf, LayoutError> {
    let mut random = [0_u8; 8];
    fill_random(&mut random)?;
    let folder = std::env::temp_dir().join(format!("deputize-dev-{:016x}", u64::from_be_bytes(random)));
    make_private(&folder)?;
    Ok(folder)
}

/// The folder that somebody asked for: made here, so that nothing of theirs is in it.
pub(crate) fn given_folder(folder: &Path) -> Result<PathBuf, LayoutError> {
    make_private(folder)?;
    fs::canonicalize(folder).map_err(|source| LayoutError::Write { path: folder.to_owned(), source })
}

fn make_private(path: &Path) -> Result<(), LayoutError> {
    // Not recursive: a folder that is there already is somebody else's.
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|source| LayoutError::Write { path: path.to_owned(), source })
}

fn jwks_path(id: &str) -> PathBuf {
    Path::new("clients").join(format!("{id}.jwks.json"))
}

fn yaml(value: &impl Serialize) -> Result<String, LayoutError> {
    serde_saphyr::to_string(value).map_err(|error| LayoutError::Serialize(error.to_string()))
}

/// Every process of whoever started the environment is the agent.
fn entry() -> Value {
    json!({ "id": "support-bot", "spiffe_id": AGENT, "selectors": [own_user()] })
}

fn own_user() -> String {
    format!("unix:uid:{}", rustix::process::getuid().as_raw())
}

/// Which groups of the identity provider make which role.
fn roles() -> BTreeMap<String, Vec<String>> {
    ["support", "analyst", "approver", "admin"].map(|role| (role.to_owned(), vec![role.to_owned()])).into()
}

/// The agent platform, as a client.
pub(crate) const PLATFORM: &str = "support-platform";
/// Who acts when it exchanges: `act.sub`.
pub(crate) const AGENT: &str = "spiffe://corp.example/agent/support-bot";

/// Who exchanges at the socket, as no client.
pub(crate) const DESK: &str = "spiffe://corp.example/agent/support-desk";
/// What it may call, of the first server.
pub(crate) const DESK_TOOL: &str = "refund_payment";

/// The trust domain of its SPIFFE IDs.
pub(crate) const TRUST_DOMAIN: &str = "corp.example";
/// The socket of the Workload API, in the environment's folder.
pub(crate) const WORKLOAD_API_SOCKET: &str = "workload-api.sock";

/// The policies that the project ships, by file.
const POLICIES: [(&str, &str); 4] = [
    ("baseline.cedar", include_str!("../../policies/baseline.cedar")),
    ("support.cedar", include_str!("../../policies/support.cedar")),
    ("analyst.cedar", include_str!("../../policies/analyst.cedar")),
    ("admin.cedar", include_str!("../../policies/admin.cedar")),
];
