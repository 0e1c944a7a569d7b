//! The conjunction of two hops' constraints, with the property that it admits exactly what both admit.

use super::{Constraint, ConstraintError, Constraints, exact, is_below, is_within, refusal};
use serde_json::Number;
use std::collections::BTreeMap;

pub(super) fn conjoin(left: &Constraints, right: &Constraints) -> Result<Constraints, ConstraintError> {
    left.check()?;
    right.check()?;
    let mut conjoined = BTreeMap::new();
    for pointer in left.0.keys().chain(right.0.keys()) {
        // What lies below another pointer is decided there.
        if left.0.keys().chain(right.0.keys()).any(|other| is_below(pointer, other)) {
            continue;
        }
        if let Some(constraint) = conjoin_at(pointer, left, right)? {
            conjoined.insert(pointer.clone(), constraint);
        }
    }
    let conjoined = Constraints(conjoined);
    // Also where only `{}` would be left: no arguments need no constraints.
    conjoined.checked()
}

/// What both sides admit at this pointer; `None` where they agree only on its absence. To leave the pointer out of
/// the conjunction says just that: an argument without a constraint is refused.
fn conjoin_at(
    pointer: &str,
    left: &Constraints,
    right: &Constraints,
) -> Result<Option<Constraint>, ConstraintError> {
    let may_be_absent = left
        .at_or_below(pointer)
        .chain(right.at_or_below(pointer))
        .all(|(_, constraint)| constraint.optional);
    let both = match (left.0.get(pointer), right.0.get(pointer)) {
        (Some(left), Some(right)) => conjoin_kinds(left, right),
        (Some(whole), None) => filter_by_parts(whole, right, pointer),
        (None, Some(whole)) => filter_by_parts(whole, left, pointer),
        (None, None) => None,
    };
    match both {
        Some(constraint) => Ok(Some(Constraint { optional: may_be_absent, ..constraint })),
        None if may_be_absent => Ok(None),
        None => Err(refusal(pointer, "nothing satisfies both constraints")),
    }
}

/// One side constrains the whole value, the other its parts or not at all: of the values that the first lists, those
/// remain whose parts the second admits. A number or a string has no parts.
fn filter_by_parts(whole: &Constraint, parts: &Constraints, pointer: &str) -> Option<Constraint> {
    let values = whole.one_of.iter().flatten();
    one_of(values.filter(|value| parts.admit_subtree(pointer, value).is_ok()).cloned().collect())
}

fn conjoin_kinds(left: &Constraint, right: &Constraint) -> Option<Constraint> {
    match (&left.one_of, &right.one_of) {
        (Some(values), _) => {
            one_of(values.iter().filter(|value| right.admit(value).is_ok()).cloned().collect())
        }
        (None, Some(values)) => {
            one_of(values.iter().filter(|value| left.admit(value).is_ok()).cloned().collect())
        }
        (None, None) if left.is_range() && right.is_range() => conjoin_ranges(left, right),
        (None, None) => tightest_prefix(left, right),
    }
}

fn one_of(values: Vec<serde_json::Value>) -> Option<Constraint> {
    (!values.is_empty()).then(|| Constraint { one_of: Some(values), ..Constraint::default() })
}

fn conjoin_ranges(left: &Constraint, right: &Constraint) -> Option<Constraint> {
    let tighter = |left: &Option<Number>,
                   right: &Option<Number>,
                   is_tighter: fn(Option<f64>, Option<f64>) -> bool| match (left, right) {
        (Some(left), Some(right)) if is_tighter(exact(left), exact(right)) => Some(left.clone()),
        (_, Some(right)) => Some(right.clone()),
        (left, None) => left.clone(),
    };
    let minimum = tighter(&left.minimum, &right.minimum, |left, right| left > right);
    let maximum = tighter(&left.maximum, &right.maximum, |left, right| left < right);
    let conjoined = Constraint { minimum, maximum, ..Constraint::default() };
    // A minimum above the maximum is malformed.
    conjoined.check().is_ok().then_some(conjoined)
}

/// Two prefixes hold together only where one lies within the other, and then the inner one says it all.
fn tightest_prefix(left: &Constraint, right: &Constraint) -> Option<Constraint> {
    if left.prefix.is_empty() || right.prefix.is_empty() {
        return None;
    }
    let all = || left.prefix.iter().chain(&right.prefix);
    let tightest = all().find(|inner| all().all(|outer| is_within(outer, inner)))?;
    Some(Constraint { prefix: vec![tightest.clone()], ..Constraint::default() })
}
