//! Whether everything that a template can grant is within its ceiling.

use super::Check;
use crate::templates::{
    arn::prefix_of,
    ceiling::{Pattern, Shapes},
    file::{Part, Resource},
};

impl Check<'_> {
    /// Nothing that a statement can grant is beyond the ceiling.
    pub(super) fn ceiling(&mut self) {
        let (file, ceiling) = (self.file, &self.file.ceiling);
        for action in &ceiling.actions {
            let service = action.split_once(':').map_or("*", |(service, _)| service);
            if service.contains(['*', '?']) {
                self.refuse("ceiling.actions", format!("{action:?}: name the service"));
            }
        }
        let actions: Vec<Pattern> =
            ceiling.actions.iter().map(|action| Pattern::new(&action.to_ascii_lowercase())).collect();
        let resources = self.bounds();
        for (index, statement) in file.statements.iter().enumerate() {
            let place = format!("statements[{index}]");
            for action in &statement.actions {
                if !actions.iter().any(|pattern| pattern.admits(&action.to_ascii_lowercase())) {
                    self.refuse(&place, format!("{action} is beyond ceiling.actions"));
                }
            }
            if statement.resources.is_empty() && !ceiling.resources.iter().any(|resource| resource == "*") {
                self.refuse(&place, "it is on every resource, which ceiling.resources does not admit: \"*\"");
            }
            for resource in &statement.resources {
                self.within(&place, resource, &resources);
            }
        }
    }

    fn within(&mut self, place: &str, resource: &Resource, bounds: &[(String, Pattern)]) {
        let prefix = prefix_of(resource, &self.file.aws);
        let mut shapes = Shapes::new();
        for part in &resource.parts {
            match part {
                Part::Literal(text) => shapes.literal(text),
                Part::Param(name) => {
                    let Some(param) = self.params.get(name) else { return };
                    shapes.one_of(&param.language());
                }
                Part::Wildcard => shapes.anything(),
            }
        }
        let patterns: Vec<Pattern> =
            bounds.iter().filter(|(own, _)| *own == prefix).map(|(_, pattern)| pattern.clone()).collect();
        match shapes.outside(&patterns) {
            Ok(None) => {}
            Ok(Some(text)) => {
                self.refuse(place, format!("beyond ceiling.resources, for example with {prefix}{text}"));
            }
            Err(_) => self
                .refuse(place, "too intricate to prove that it is within the ceiling: simplify the ceiling"),
        }
    }

    /// The ceiling's resources: what must be equal, and what may vary.
    fn bounds(&mut self) -> Vec<(String, Pattern)> {
        let aws = &self.file.aws;
        let mut bounds = Vec::new();
        for arn in self.file.ceiling.resources.iter().filter(|arn| *arn != "*") {
            let fields: Vec<&str> = arn.splitn(6, ':').collect();
            let [head, partition, service, region, account, resource] = fields.as_slice() else {
                self.refuse("ceiling.resources", format!("{arn:?} is no ARN"));
                continue;
            };
            let is_pinned = *head == "arn"
                && *partition == aws.partition.as_str()
                && !service.contains(['*', '?'])
                && (region.is_empty() || *region == aws.region)
                && (account.is_empty() || *account == aws.account);
            if !is_pinned || resource.contains('$') {
                let problem = format!(
                    "{arn:?}: wildcards only after the account; partition, region and account as in aws"
                );
                self.refuse("ceiling.resources", problem);
                continue;
            }
            bounds.push((format!("arn:{partition}:{service}:{region}:{account}:"), Pattern::new(resource)));
        }
        bounds
    }
}
