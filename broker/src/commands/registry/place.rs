//! Where the registry is, and the record that is meant.

use deputize_issuer::registry::{
    ServerRecord,
    approval::{Approval, ApprovalError, SignedApproval},
    scan::Neighbour,
};
use serde_json::Value;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    commands::exit::CommandError,
    config::{
        read::{self, ConfigError},
        registry::RegistryFolder,
        resolved::Mode,
    },
};

/// Which registry is meant.
#[derive(Debug, clap::Args)]
pub struct PlaceArgs {
    /// Configuration of the broker, which names the registry
    #[arg(long, value_name = "FILE", env = "DEPUTIZE_CONFIG", default_value = "deputize.yaml")]
    config: PathBuf,
    /// Folder of the registry, where there is no configuration
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl PlaceArgs {
    /// The registry's folder and keys. The rest of the configuration may be unfinished.
    ///
    /// # Errors
    /// If there is neither a configuration nor a folder.
    pub fn find(&self) -> Result<RegistryFolder, CommandError> {
        if let Some(folder) = &self.folder {
            return Ok(RegistryFolder { folder: folder.clone(), approval_keys: None });
        }
        let config = read::read_config(&self.config, std::env::vars()).map_err(|error| unreadable(&error))?;
        // Approval keys may come later: `serve` and `lint` insist on them.
        RegistryFolder::resolve(&config.registry, &self.config, Mode::Development)
            .map_err(|errors| all_unreadable(&errors))
    }
}

/// All records with their files; none where the folder is not there yet.
///
/// # Errors
/// Every file that cannot be read.
pub fn records(registry: &RegistryFolder) -> Result<Vec<(PathBuf, ServerRecord)>, CommandError> {
    if !registry.folder.exists() {
        return Ok(Vec::new());
    }
    registry.records().map_err(|errors| all_unreadable(&errors))
}

/// The record of this id or in this file, and all others.
///
/// # Errors
/// If there is none.
pub fn record(
    registry: &RegistryFolder,
    wanted: &str,
) -> Result<(PathBuf, ServerRecord, Vec<ServerRecord>), CommandError> {
    let mut all = records(registry)?;
    let is_meant = |(file, record): &(PathBuf, ServerRecord)| {
        record.id == wanted
            || file.as_path() == Path::new(wanted)
            || file.file_name() == Some(wanted.as_ref())
    };
    let Some(at) = all.iter().position(is_meant) else {
        let known: Vec<&str> = all.iter().map(|(_, record)| record.id.as_str()).collect();
        return Err(CommandError::usage(
            format!("{wanted:?} is not in {}", registry.folder.display()),
            format!("give one of: {}; or import it first", known.join(", ")),
        ));
    };
    let (file, record) = all.swap_remove(at);
    Ok((file, record, all.into_iter().map(|(_, record)| record).collect()))
}

/// The approval of a server, if it has one: verified where there are keys for that.
///
/// # Errors
/// If it cannot be read, or its signature does not hold.
pub fn approval(registry: &RegistryFolder, id: &str) -> Result<Option<Approval>, CommandError> {
    let file = registry.approval_file(id);
    if !file.exists() {
        return Ok(None);
    }
    let text = read::read_text(&file).map_err(|error| unreadable(&error))?;
    let wrong = |error: ApprovalError| {
        CommandError::configuration(
            format!("{}: {error}", file.display()),
            "approve the record anew, or restore the file from a copy",
        )
    };
    let signed = SignedApproval::read(text.as_bytes()).map_err(wrong)?;
    match &registry.approval_keys {
        Some(keys) => signed.verify(keys).map(|(approval, _)| Some(approval)).map_err(wrong),
        None => signed.unverified().map(Some).map_err(wrong),
    }
}

/// Other servers, whose tools a server must not meddle with.
pub fn neighbours<'r>(others: &'r [ServerRecord], id: &str) -> Vec<Neighbour<'r>> {
    let name = |definition: &'r deputize_call::json::Object| definition.get("name").and_then(Value::as_str);
    others
        .iter()
        .filter(|record| record.id != id)
        .map(|record| Neighbour {
            server: &record.id,
            tools: record.tools.iter().filter_map(|tool| name(&tool.definition)).collect(),
        })
        .collect()
}

/// Writes a file whole, beside its place and then renamed.
///
/// # Errors
/// If it cannot be written.
pub fn write_file(path: &Path, text: &str) -> Result<(), CommandError> {
    let written = (|| {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let draft = path.with_extension("draft");
        let mut file = std::fs::File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    })();
    written.map_err(|error: std::io::Error| {
        CommandError::failure(format!("{}: {error}", path.display()), "make the folder writable")
    })
}

fn unreadable(error: &ConfigError) -> CommandError {
    CommandError::configuration(error, "correct it, or give --config FILE or --folder DIR")
}

fn all_unreadable(errors: &[ConfigError]) -> CommandError {
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    CommandError::configuration(all.join("\n"), "correct it, or give --config FILE or --folder DIR")
}
