//! Whether a condition limits what it seems to.

use super::Check;
use crate::templates::{
    characters::CharSet,
    file::{Condition, Operator, ParamType, Part},
    keys::{Values, values_of},
    policy,
};

impl<'a> Check<'a> {
    pub(super) fn condition(&mut self, place: &str, condition: &'a Condition) {
        let key = &condition.key;
        let is_key =
            key.contains(':') && key.len() <= 128 && CharSet::alphanumeric_and(":/_.-").misses(key).is_none();
        if !is_key {
            self.refuse(
                place,
                format!("{key:?} is no condition key: aws:RequestedRegion, dynamodb:LeadingKeys, …"),
            );
        }
        if key.eq_ignore_ascii_case("aws:CurrentTime") {
            self.refuse(place, "the window is always added: say aws.window_seconds");
        }
        if key.eq_ignore_ascii_case(policy::RESOURCE_ACCOUNT) {
            self.refuse(place, "the account is always aws.account: it is added where an ARN names none");
        }
        if let Err(problem) = check_operator(condition) {
            self.refuse(place, problem);
        }
        let is_numeric = condition.operator == Operator::NumericLessThanEquals;
        if !(1..=20).contains(&condition.values.len()) || is_numeric && condition.values.len() != 1 {
            self.refuse(place, "1 to 20 values, and of a number one");
        }
        for (index, parts) in condition.values.iter().enumerate() {
            let place = format!("{place}.values[{index}]");
            self.parts(&place, parts, condition.operator == Operator::StringLike);
            let is_number = match parts.as_slice() {
                [Part::Literal(text)] => text.parse::<i64>().is_ok(),
                [Part::Param(name)] => {
                    self.file.params.get(name).is_some_and(|param| param.kind == ParamType::Integer)
                }
                _ => false,
            };
            if is_numeric && !is_number {
                self.refuse(&place, "a number, or a parameter of type integer");
            }
        }
    }
}

/// Whether the operator is of the key's kind (IAM User Guide, "Single-valued vs. multivalued context keys").
fn check_operator(condition: &Condition) -> Result<(), String> {
    let key = &condition.key;
    let takes_several = condition.operator == Operator::ForAllValuesStringEquals;
    match (values_of(key), takes_several) {
        (Some(Values::One), false) | (Some(Values::Several), true) => Ok(()),
        (Some(Values::Several), false) => Err(format!(
            "{key} can have several values, and one that fits would do: use ForAllValues:StringEquals"
        )),
        (Some(Values::One), true) => {
            Err(format!("{key} has one value: use StringEquals, StringLike or NumericLessThanEquals"))
        }
        (None, _) => Err(format!(
            "{key} is not known here, nor whether a request has one value for it or several: limit the resources, \
             or use a key that docs/aws.md names"
        )),
    }
}
