//! The files of a development environment: configuration, clients' keys, registry and policies, as an operator would
//! have them. `dev` reads them back the way `serve` does.

use crate::config::raw;
use deputize_call::{jws::JwsError, keys::KeySet, sign::SigningKey};
use deputize_issuer::{
    clock::{NoRandomness, fill_random},
    registry::ServerRecord,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::example_server::TENANT;

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
    pub(crate) servers: &'l [(&'l ServerRecord, &'l SigningKey)],
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
        for name in ["clients", "registry", "policies"] {
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
        self.write_file(Path::new("deputize.yaml"), &yaml(&self.config())?)?;
        Ok(self.folder.join("deputize.yaml"))
    }

    fn config(&self) -> raw::Config {
        raw::Config {
            issuer: format!("http://{}", self.broker),
            data_dir: "data".into(),
            listen: raw::Listen { address: self.broker.to_string(), tls: None, behind_proxy: false },
            admin: raw::Admin { address: Some("127.0.0.1:0".to_owned()), socket: None },
            audit: raw::Audit { anchor: Some("anchor".into()), reserve_mib: 1, ..raw::Audit::default() },
            identity_providers: vec![raw::IdentityProvider {
                issuer: self.identity_provider.to_owned(),
                tenant: TENANT.to_owned(),
                preset: raw::Preset::Generic,
                claims: raw::Claims { roles: roles(), ..raw::Claims::default() },
                ca_file: None,
                allow_private_addresses: true,
            }],
            clients: self.clients(),
            registry: "registry".into(),
            policies: "policies".into(),
            allow_client_secrets: false,
            jwe_key_files: Vec::new(),
            limits: raw::Limits::default(),
        }
    }

    fn clients(&self) -> Vec<raw::Client> {
        let blank = |id: &str| raw::Client {
            id: id.to_owned(),
            tenant: TENANT.to_owned(),
            actor: None,
            jwks_file: Some(jwks_path(id)),
            secret_sha256: None,
            subject_audiences: Vec::new(),
            presents_actors: Vec::new(),
            may_call: Vec::new(),
            server: None,
            client_credentials: false,
            enabled: true,
        };
        let platform = raw::Client {
            actor: Some(AGENT.to_owned()),
            subject_audiences: vec![PLATFORM.to_owned()],
            may_call: vec![raw::Reach { resource: "*".to_owned(), tools: None }],
            client_credentials: true,
            ..blank(PLATFORM)
        };
        let guards = self.servers.iter().map(|(record, _)| raw::Client {
            server: Some(record.resource.clone()),
            ..blank(record.client_id.as_deref().unwrap_or(&record.id))
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

/// Which groups of the identity provider make which role.
fn roles() -> BTreeMap<String, Vec<String>> {
    ["support", "analyst", "approver", "admin"].map(|role| (role.to_owned(), vec![role.to_owned()])).into()
}

/// The agent platform, as a client.
pub(crate) const PLATFORM: &str = "support-platform";
/// Who acts when it exchanges: `act.sub`.
pub(crate) const AGENT: &str = "spiffe://corp.example/agent/support-bot";

/// The policies that the project ships, by file.
const POLICIES: [(&str, &str); 4] = [
    ("baseline.cedar", include_str!("../../policies/baseline.cedar")),
    ("support.cedar", include_str!("../../policies/support.cedar")),
    ("analyst.cedar", include_str!("../../policies/analyst.cedar")),
    ("admin.cedar", include_str!("../../policies/admin.cedar")),
];
