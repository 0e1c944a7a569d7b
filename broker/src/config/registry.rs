//! The registry's folder: records, one file each, and the signed approvals beside them.

use deputize_call::keys::{KeySet, PublicKey};
use deputize_issuer::{
    clock::{Clock as _, SystemClock},
    registry::{Registry, RegistryError, ServerRecord, approval},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    raw,
    read::{self, ConfigError},
    resolved::Mode,
};

/// Where records are, and whose approvals count.
#[derive(Debug, Clone)]
pub struct RegistryFolder {
    /// The folder.
    pub folder: PathBuf,
    /// Keys of those who may approve; `None` where approvals need no signature.
    pub approval_keys: Option<KeySet>,
}

impl RegistryFolder {
    /// Checks what the configuration at `config` says of the registry.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn resolve(raw: &raw::Registry, config: &Path, mode: Mode) -> Result<Self, Vec<ConfigError>> {
        let base = config.parent().unwrap_or(Path::new("."));
        let folder = base.join(&raw.folder);
        let unsigned = raw.unsigned_approvals == raw::UnsignedApprovals::Allow;
        if raw.approval_keys.is_empty() {
            // Of one's own machine, `dev` approves what it is given.
            if unsigned || mode == Mode::Development {
                return Ok(Self { folder, approval_keys: None });
            }
            return Err(vec![ConfigError::new(
                config,
                "registry.approval_keys: name the keys of those who may approve servers (`deputize registry key new` \
                 makes one); registry.unsigned_approvals: allow does without, and then whoever can write the \
                 registry's files approves",
            )]);
        }
        if unsigned {
            let problem = "registry: either approval_keys or unsigned_approvals: allow, not both";
            return Err(vec![ConfigError::new(config, problem)]);
        }
        let approval_keys = read_keys(raw.approval_keys.iter().map(|file| base.join(file)))?;
        Ok(Self { folder, approval_keys: Some(approval_keys) })
    }

    /// Reads, checks and pins every record, and verifies the approval of each that is approved.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(&self) -> Result<Registry, Vec<ConfigError>> {
        let records: Vec<ServerRecord> = self.records()?.into_iter().map(|(_, record)| record).collect();
        let in_folder = |errors: Vec<RegistryError>| -> Vec<ConfigError> {
            errors.into_iter().map(|error| ConfigError::new(&self.folder, error.to_string())).collect()
        };
        let seals = match &self.approval_keys {
            None => Vec::new(),
            Some(keys) => {
                let approvals = self.approvals()?;
                let now_ms = SystemClock::start().now_ms();
                approval::seal(&records, &approvals, keys, now_ms).map_err(in_folder)?
            }
        };
        Ok(Registry::build(records).map_err(in_folder)?.sealed(seals))
    }

    /// All records, with their files.
    ///
    /// # Errors
    /// Every file that cannot be read.
    pub fn records(&self) -> Result<Vec<(PathBuf, ServerRecord)>, Vec<ConfigError>> {
        let files = read::files_of(&self.folder, &["yaml", "yml", "json"]).map_err(|error| vec![error])?;
        let (mut records, mut errors) = (Vec::new(), Vec::new());
        for file in files {
            match read::read_yaml::<ServerRecord>(&file) {
                Ok(record) => records.push((file, record)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(records) } else { Err(errors) }
    }

    /// Where the approval of a server is.
    pub fn approval_file(&self, id: &str) -> PathBuf {
        self.folder.join(APPROVALS).join(id).with_extension("json")
    }

    /// The texts of all approvals, by server id.
    fn approvals(&self) -> Result<BTreeMap<String, Vec<u8>>, Vec<ConfigError>> {
        let folder = self.folder.join(APPROVALS);
        if !folder.exists() {
            return Ok(BTreeMap::new());
        }
        let files = read::files_of(&folder, &["json"]).map_err(|error| vec![error])?;
        let text = |file: &PathBuf| {
            let id = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            read::read_text(file).map(|text| (id, text.into_bytes()))
        };
        files.iter().map(text).collect::<Result<_, _>>().map_err(|error| vec![error])
    }
}

/// The keys of several key sets.
fn read_keys(files: impl Iterator<Item = PathBuf>) -> Result<KeySet, Vec<ConfigError>> {
    let (mut keys, mut errors) = (Vec::<PublicKey>::new(), Vec::new());
    for file in files {
        let set = read::read_text(&file).and_then(|text| {
            KeySet::from_jwks(text.as_bytes()).map_err(|error| ConfigError::new(&file, error.to_string()))
        });
        match set {
            Ok(set) => keys.extend(set.iter().cloned()),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(KeySet::new(keys)) } else { Err(errors) }
}

/// Folder of the approvals, within the registry's.
const APPROVALS: &str = "approvals";
