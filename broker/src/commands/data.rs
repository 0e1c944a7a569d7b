//! The data folder of a broker, read beside a running one or without: nothing in it is changed.

use deputize_issuer::{
    log::{CheckpointVerifier, LogReader},
    policy::PolicyEngine,
};
use std::path::{Path, PathBuf};

use super::exit::CommandError;
use crate::{
    backends::key_files::KeyFiles,
    config::{raw::Config, read, resolved, spiffe},
};

/// Where the data folder is.
#[derive(Debug, Clone, clap::Args)]
pub struct DataArgs {
    /// Data folder of the broker [default: `data_dir` of the configuration]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Configuration of the broker
    #[arg(long, value_name = "FILE", env = "DEPUTIZE_CONFIG", default_value = "deputize.yaml")]
    pub config: PathBuf,
}

/// A data folder, and what the configuration says beside it.
#[derive(Debug)]
pub struct DataFolder {
    /// The folder.
    pub folder: PathBuf,
    /// The copy of the newest checkpoint, outside it.
    pub anchor: Option<PathBuf>,
    /// Issuer URL of the identity that AWS knows us by, as the configuration has it.
    pub web_identity_issuer: Option<String>,
    /// The folder of policies.
    policies: Option<PathBuf>,
    /// The folder of registration entries.
    entries: Option<PathBuf>,
}

impl DataArgs {
    /// Finds the folder. Only what is needed is taken from the configuration, so that a log can be read and verified
    /// while the rest of it is broken.
    ///
    /// # Errors
    /// If neither the folder nor the configuration is there.
    pub fn find(&self) -> Result<DataFolder, CommandError> {
        let config =
            if self.data.is_none() || self.config.exists() { Some(self.read_config()) } else { None };
        let beside = |path: &Path| self.config.parent().unwrap_or(Path::new(".")).join(path);
        match (&self.data, config) {
            (None, Some(Err(error))) => Err(error),
            (None, Some(Ok(config))) => Ok(DataFolder {
                folder: beside(&config.data_dir),
                anchor: config.audit.anchor.as_deref().map(beside),
                web_identity_issuer: Some(config.web_identity_issuer()),
                policies: Some(beside(&config.policies)),
                entries: config.spiffe.and_then(|spiffe| spiffe.entries).as_deref().map(beside),
            }),
            (Some(folder), Some(Ok(config))) => {
                // The anchor of the configuration belongs to the folder of the configuration alone.
                let same = same_folder(folder, &beside(&config.data_dir));
                Ok(DataFolder {
                    folder: folder.clone(),
                    anchor: config.audit.anchor.as_deref().filter(|_| same).map(beside),
                    web_identity_issuer: same.then(|| config.web_identity_issuer()),
                    policies: Some(beside(&config.policies)),
                    entries: config.spiffe.and_then(|spiffe| spiffe.entries).as_deref().map(beside),
                })
            }
            (Some(folder), _) => Ok(DataFolder {
                folder: folder.clone(),
                anchor: None,
                web_identity_issuer: None,
                policies: None,
                entries: None,
            }),
            (None, None) => Err(CommandError::usage("no data folder", "give --data DIR or --config FILE")),
        }
    }

    fn read_config(&self) -> Result<Config, CommandError> {
        read::read_config(&self.config, std::env::vars()).map_err(|error| {
            CommandError::configuration(
                error,
                "give --config FILE or --data DIR; `deputize lint` checks a configuration",
            )
        })
    }
}

impl DataFolder {
    /// Its log.
    ///
    /// # Errors
    /// If there is none, it cannot be read, or fewer records can be read than were signed.
    pub fn log(&self) -> Result<LogReader, CommandError> {
        let reader = self.log_as_it_is()?;
        // What can be read ends at the first damage: that must not look like the end of the log.
        let signed = self.checkpoint_note().and_then(|note| note.lines().nth(1)?.parse::<u64>().ok());
        match signed.filter(|signed| *signed > reader.size()) {
            None => Ok(reader),
            Some(signed) => Err(CommandError::failure(
                format!("only {} of {signed} signed records can be read", reader.size()),
                "`deputize audit verify` names the record at fault",
            )),
        }
    }

    /// Its log, damaged or not: for `audit verify`.
    ///
    /// # Errors
    /// If there is none, or the folder cannot be read.
    pub fn log_as_it_is(&self) -> Result<LogReader, CommandError> {
        let folder = self.log_folder();
        if !folder.is_dir() {
            return Err(CommandError::failure(
                format!("{}: there is no log", self.folder.display()),
                "give the folder that `data_dir` of the configuration names",
            ));
        }
        LogReader::open(&folder).map_err(unreadable)
    }

    /// The folder of its log.
    pub fn log_folder(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The signed note of its newest checkpoint, if there is one.
    pub fn checkpoint_note(&self) -> Option<String> {
        read::read_text(&self.log_folder().join("checkpoint")).ok()
    }

    /// Verifies its checkpoints; from the private key in the folder, where that can be read.
    ///
    /// # Errors
    /// If the key is there, but is none, or readable by others.
    pub fn verifier(&self) -> Result<Option<CheckpointVerifier>, CommandError> {
        let Some(note) = self.checkpoint_note() else { return Ok(None) };
        // The origin is part of what was signed: a wrong one does not verify.
        let origin = note.lines().next().unwrap_or_default();
        KeyFiles::existing(&self.folder).checkpoint_verifier(origin).map_err(|error| {
            CommandError::failure(error, "give --key, which `deputize keys ls` prints on the broker")
        })
    }

    /// The policies of the configuration, if there are and they can be loaded.
    pub fn policies(&self) -> Option<PolicyEngine> {
        resolved::load_policies(self.policies.as_deref()?).ok()
    }
}

impl DataFolder {
    /// Where a registration entry stands, in words: in which file, if it is one of a file.
    pub fn place_of_entry(&self, id: &str) -> String {
        let entries = self.entries.as_deref();
        match entries.and_then(|entries| spiffe::file_of_entry(entries, id)) {
            Some(file) => format!("entry {id:?} ({})", file.display()),
            None => format!("entry {id:?}"),
        }
    }
}

/// What to do about a log that cannot be read.
pub fn unreadable(error: deputize_issuer::log::LogError) -> CommandError {
    CommandError::failure(error, "`deputize audit verify` says what is wrong with the whole log")
}

fn same_folder(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(one, other)| one == other)
}
