//! The folder of role templates: YAML, one template a file.

use deputize_issuer::templates::{TemplateFile, Templates};
use std::path::Path;

use super::read::{self, ConfigError};

/// Reads and checks all templates of a folder.
///
/// # Errors
/// Everything that is wrong with them: what cannot be read hides nothing that is wrong with the others.
pub fn load_templates(folder: &Path) -> Result<Templates, Vec<ConfigError>> {
    let files = read::files_of(folder, &["yaml", "yml", "json"]).map_err(|error| vec![error])?;
    let (mut templates, mut errors) = (Vec::new(), Vec::new());
    for file in files {
        match read::read_yaml::<TemplateFile>(&file) {
            Ok(template) => templates.push(template),
            Err(error) => errors.push(error),
        }
    }
    match Templates::build(templates) {
        Ok(templates) if errors.is_empty() => return Ok(templates),
        Ok(_) => {}
        Err(problems) => {
            errors.extend(problems.iter().map(|problem| ConfigError::new(folder, problem.to_string())));
        }
    }
    Err(errors)
}
