//! The folder of role templates: YAML, one template a file. Cases that try one lie beside it, as `*.test.yaml`.

use deputize_issuer::templates::{TemplateFile, Templates};
use std::path::{Path, PathBuf};

use super::read::{self, ConfigError};

/// Reads and checks all templates of a folder.
///
/// # Errors
/// Everything that is wrong with them: what cannot be read hides nothing that is wrong with the others.
pub fn load_templates(folder: &Path) -> Result<Templates, Vec<ConfigError>> {
    let (templates, mut errors) = match read_templates(folder) {
        Ok(templates) => (templates, Vec::new()),
        Err(Unread { templates, errors }) => (templates, errors),
    };
    match Templates::build(templates) {
        Ok(templates) if errors.is_empty() => return Ok(templates),
        Ok(_) => {}
        Err(problems) => {
            errors.extend(problems.iter().map(|problem| ConfigError::new(folder, problem.to_string())));
        }
    }
    Err(errors)
}

/// What could be read of a folder, and why the rest could not.
pub struct Unread {
    /// What could be read.
    pub templates: Vec<TemplateFile>,
    /// Why the rest could not.
    pub errors: Vec<ConfigError>,
}

/// Reads all templates of a folder as they stand, without a check.
///
/// # Errors
/// If one cannot be read; with all that can.
pub fn read_templates(folder: &Path) -> Result<Vec<TemplateFile>, Unread> {
    let files = files(folder).map_err(|error| Unread { templates: Vec::new(), errors: vec![error] })?;
    let (mut templates, mut errors) = (Vec::new(), Vec::new());
    for file in files.iter().filter(|file| !is_cases(file)) {
        match read::read_yaml::<TemplateFile>(file) {
            Ok(template) => templates.push(template),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(templates) } else { Err(Unread { templates, errors }) }
}

/// The files of cases in a folder of templates.
///
/// # Errors
/// If the folder cannot be read.
pub fn case_files(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    Ok(files(folder)?.into_iter().filter(|file| is_cases(file)).collect())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    read::files_of(folder, &["yaml", "yml", "json"])
}

fn is_cases(file: &Path) -> bool {
    file.file_stem().is_some_and(|stem| Path::new(stem).extension().is_some_and(|kind| kind == "test"))
}
