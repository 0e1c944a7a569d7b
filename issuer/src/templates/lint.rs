//! What a cloud team should look at, though nothing forbids it.

use super::{
    TemplateError,
    actions::known,
    error,
    file::{Part, Statement, TemplateFile},
};

/// Everything that looks like a mistake, or that weakens what the session policy can promise.
pub(super) fn warnings(file: &TemplateFile) -> Vec<TemplateError> {
    let mut warnings = Vec::new();
    let mut warn = |place: &str, problem: String| warnings.push(error(&file.name, place, problem));
    if file.aws.window_seconds.is_none() {
        warn("aws.window_seconds", "it is not said: sessions can act for 300 seconds".to_owned());
    }
    for (index, statement) in file.statements.iter().enumerate() {
        let place = format!("statements[{index}]");
        for action in &statement.actions {
            match known(action) {
                // Refused, unless it is stated that somebody looked it up.
                None => {}
                Some(known) if !known.has_resources() => warn(
                    &place,
                    format!(
                        "{action} has no resource-level permissions: it is allowed on everything in the account"
                    ),
                ),
                Some(known) => {
                    for resource in &statement.resources {
                        let is_of_it =
                            action.split_once(':').is_some_and(|(service, _)| service == resource.service);
                        if !is_of_it
                            || !known.resources.iter().any(|start| begins_with(&resource.parts, start))
                        {
                            warn(
                                &place,
                                format!("{action} does not act on such a resource: it would grant nothing"),
                            );
                        }
                    }
                }
            }
        }
        if !statement.resources.is_empty() && !is_limited(statement) {
            warn(&place, "no parameter limits it: every call gets the same".to_owned());
        }
    }
    warnings
}

fn begins_with(parts: &[Part], start: &str) -> bool {
    match parts.first() {
        Some(Part::Literal(text)) => text.starts_with(start),
        Some(Part::Param(_)) => start.is_empty(),
        Some(Part::Wildcard) | None => false,
    }
}

fn is_limited(statement: &Statement) -> bool {
    let resources = statement.resources.iter().flat_map(|resource| &resource.parts);
    let conditions = statement.conditions.iter().flat_map(|condition| condition.values.iter().flatten());
    resources.chain(conditions).any(|part| matches!(part, Part::Param(_)))
}
