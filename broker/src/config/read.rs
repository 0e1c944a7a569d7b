//! Reads a configuration file: YAML within a budget, unknown members refused with a suggestion, environment on top.

use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Why a file cannot be used; says what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, with a snippet of the source where there is one.
    pub message: String,
}

impl ConfigError {
    /// An error about a file.
    pub fn new(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), message: message.into() }
    }
}

/// Reads one YAML (or JSON) file of a kind.
///
/// # Errors
/// If it cannot be read, is larger than [`MAX_FILE_BYTES`], or does not fit the kind.
pub fn read_yaml<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = read_text(path)?;
    serde_saphyr::from_str(&text).map_err(|error| ConfigError::new(path, with_suggestion(&error.to_string())))
}

/// Reads one YAML file of several documents of a kind, with `---` between them.
///
/// # Errors
/// As [`read_yaml`].
pub fn read_yaml_documents<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, ConfigError> {
    let text = read_text(path)?;
    serde_saphyr::from_multiple(&text)
        .map_err(|error| ConfigError::new(path, with_suggestion(&error.to_string())))
}

/// Reads the configuration with `DEPUTIZE__A__B=value` from the environment on top.
///
/// # Errors
/// As [`read_yaml`]; and for a variable that names no member.
pub fn read_config(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<super::raw::Config, ConfigError> {
    let config: super::raw::Config = read_yaml(path)?;
    let overrides: Vec<(String, String)> = environment
        .filter_map(|(name, value)| Some((name.strip_prefix("DEPUTIZE__")?.to_owned(), value)))
        .collect();
    if overrides.is_empty() {
        return Ok(config);
    }
    let mut tree = serde_json::to_value(config).map_err(|error| ConfigError::new(path, error.to_string()))?;
    for (name, value) in overrides {
        let keys: Vec<String> = name.split("__").map(str::to_ascii_lowercase).collect();
        let value = serde_saphyr::from_str(&value).unwrap_or(serde_json::Value::String(value));
        set(&mut tree, &keys, value).ok_or_else(|| {
            ConfigError::new(path, format!("DEPUTIZE__{name} in the environment names no member"))
        })?;
    }
    serde_json::from_value(tree).map_err(|error| {
        ConfigError::new(path, format!("with the environment: {}", with_suggestion(&error.to_string())))
    })
}

/// Reads a text file within [`MAX_FILE_BYTES`].
///
/// # Errors
/// If it cannot be read, or is too large.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    let size = std::fs::metadata(path).map_err(|error| ConfigError::new(path, error.to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(ConfigError::new(path, "larger than 4 MiB"));
    }
    std::fs::read_to_string(path).map_err(|error| ConfigError::new(path, error.to_string()))
}

/// The files of a folder with one of these endings, sorted by name.
///
/// # Errors
/// If the folder cannot be read.
pub fn files_of(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, ConfigError> {
    let entries = std::fs::read_dir(folder).map_err(|error| ConfigError::new(folder, error.to_string()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.extension().and_then(|ending| ending.to_str()).is_some_and(|e| endings.contains(&e))
        })
        .collect();
    files.sort();
    Ok(files)
}

fn set(tree: &mut serde_json::Value, keys: &[String], value: serde_json::Value) -> Option<()> {
    let (last, path) = keys.split_last()?;
    let mut at = tree;
    for key in path {
        at = at.as_object_mut()?.get_mut(key)?;
    }
    at.as_object_mut()?.insert(last.clone(), value);
    Some(())
}

/// serde names the unknown member or value in backticks and lists those that exist; the nearest one is probably meant.
fn with_suggestion(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let unknown = ["unknown field `", "unknown variant `"].iter().find_map(|words| first.split_once(words));
    let Some((unknown, rest)) = unknown.and_then(|(_, rest)| rest.split_once('`')) else {
        return message.to_owned();
    };
    let known = rest.split_once("expected ").map_or("", |(_, known)| known.trim_start_matches("one of "));
    let nearest = known
        .split([',', ' ', '`'])
        .filter(|name| !name.is_empty())
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .filter(|(distance, _)| *distance <= 3)
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((_, known)) => format!("{message}\ndid you mean `{known}`?"),
        None => message.to_owned(),
    }
}

/// The largest configuration file.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_member_is_refused_with_the_nearest_known_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deputize.yaml");
        std::fs::write(&path, "isuer: https://a.example\ndata_dir: d\n").unwrap();
        let error = read_yaml::<super::super::raw::Config>(&path).unwrap_err().to_string();
        assert!(error.contains("did you mean `issuer`?"), "{error}");
    }

    #[test]
    fn the_environment_goes_on_top_and_must_name_a_member() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deputize.yaml");
        let text = "issuer: https://a.example\ndata_dir: d\nlisten: { address: '127.0.0.1:1' }\nregistry: { folder: r }\npolicies: p\n";
        std::fs::write(&path, text).unwrap();
        let variable = |name: &str, value: &str| std::iter::once((name.to_owned(), value.to_owned()));
        let config = read_config(&path, variable("DEPUTIZE__LISTEN__ADDRESS", "127.0.0.1:9")).unwrap();
        assert_eq!(config.listen.address, "127.0.0.1:9");
        assert!(read_config(&path, variable("DEPUTIZE__LISTEN__ADRESS", "x")).is_err());
        assert!(read_config(&path, variable("OTHER", "x")).is_ok());
    }

    #[test]
    fn aliases_that_multiply_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("laughs.yaml");
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let previous = level - 1;
            let many = vec![format!("*a{previous}"); 10].join(",");
            text.push_str(&format!("a{level}: &a{level} [{many}]\n"));
        }
        std::fs::write(&path, text).unwrap();
        assert!(read_yaml::<serde_json::Value>(&path).is_err());
    }
}
