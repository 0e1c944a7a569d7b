//! Arguments as Cedar can look at them: tables by kind, keyed by JSON Pointer without its leading slash.

use super::Refusal;
use cedar_policy::RestrictedExpression as Expression;
use deputize_call::{constraints::Constraints, json::Object};
use serde_json::{Number, Value};

/// Rows of one table.
pub(super) type Rows = Vec<(String, Expression)>;

/// A call's arguments, every leaf in the table of its kind.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) text: Rows,
    pub(super) number: Rows,
    pub(super) decimal: Rows,
    pub(super) flag: Rows,
    pub(super) texts: Rows,
    pub(super) numbers: Rows,
    pub(super) nulls: Vec<String>,
    pub(super) names: Vec<String>,
    leaves: usize,
}

/// What arguments are constrained to at L2.
#[derive(Default)]
pub(super) struct Bounds {
    pub(super) minimum: Rows,
    pub(super) maximum: Rows,
    pub(super) one_of: Rows,
    pub(super) prefixes: Rows,
}

impl Arguments {
    /// Sorts the leaves of `object` into tables. What Cedar cannot express exactly is refused, never rounded.
    pub(super) fn of(object: &Object) -> Result<Self, Refusal> {
        let mut arguments = Self { names: object.keys().cloned().collect(), ..Self::default() };
        for (name, value) in object {
            arguments.add(escape(name), value)?;
        }
        Ok(arguments)
    }

    fn add(&mut self, pointer: String, value: &Value) -> Result<(), Refusal> {
        self.leaves += 1;
        if self.leaves > MAX_LEAVES {
            return Err(Refusal::new(format!("more than {MAX_LEAVES} values in the arguments")));
        }
        match value {
            Value::Null => self.nulls.push(pointer),
            Value::Bool(flag) => self.flag.push((pointer, Expression::new_bool(*flag))),
            Value::String(text) => self.text.push((pointer, Expression::new_string(text.clone()))),
            Value::Number(number) => self.add_number(pointer, number)?,
            Value::Array(items) => self.add_array(pointer, items)?,
            Value::Object(members) => {
                for (name, member) in members {
                    self.add(format!("{pointer}/{}", escape(name)), member)?;
                }
            }
        }
        Ok(())
    }

    fn add_number(&mut self, pointer: String, number: &Number) -> Result<(), Refusal> {
        if let Some(whole) = whole(number) {
            if whole.unsigned_abs() <= LARGEST_WHOLE_DECIMAL {
                self.decimal.push((pointer.clone(), Expression::new_decimal(format!("{whole}.0"))));
            }
            self.number.push((pointer, Expression::new_long(whole)));
            return Ok(());
        }
        let Some(text) = number.as_f64().and_then(exact_decimal) else {
            return Err(Refusal::new(format!(
                "the number at {pointer:?} has more than four decimals or is out of range: policy cannot compare it exactly"
            )));
        };
        self.decimal.push((pointer, Expression::new_decimal(text)));
        Ok(())
    }

    fn add_array(&mut self, pointer: String, items: &[Value]) -> Result<(), Refusal> {
        for (at, item) in items.iter().enumerate() {
            self.add(format!("{pointer}/{at}"), item)?;
        }
        let texts: Option<Vec<_>> = items
            .iter()
            .map(|item| item.as_str().map(|text| Expression::new_string(text.to_owned())))
            .collect();
        let numbers: Option<Vec<_>> =
            items.iter().map(|item| item.as_number().and_then(whole).map(Expression::new_long)).collect();
        if let Some(texts) = texts {
            self.texts.push((pointer.clone(), Expression::new_set(texts)));
        }
        if let Some(numbers) = numbers {
            self.numbers.push((pointer, Expression::new_set(numbers)));
        }
        Ok(())
    }
}

impl Bounds {
    /// Sorts constraints into tables. Bounds that are not whole are rounded outwards and a missing side is the widest,
    /// so that a rule over them holds for everything they admit. What the tables cannot say is refused: a rule that
    /// does not see a bound could not forbid it.
    pub(super) fn of(constraints: &Constraints) -> Result<Self, Refusal> {
        let mut bounds = Self::default();
        for (pointer, constraint) in constraints.iter() {
            let key = pointer.strip_prefix('/').unwrap_or(pointer);
            if constraint.minimum.is_some() || constraint.maximum.is_some() {
                let least =
                    constraint.minimum.as_ref().map_or(Some(-WIDEST), |number| rounded(number, f64::floor));
                let most =
                    constraint.maximum.as_ref().map_or(Some(WIDEST), |number| rounded(number, f64::ceil));
                let (least, most) = least.zip(most).ok_or_else(|| Refusal::new(inexpressible(key)))?;
                bounds.minimum.push((key.to_owned(), Expression::new_long(least)));
                bounds.maximum.push((key.to_owned(), Expression::new_long(most)));
            }
            if let Some(values) = &constraint.one_of {
                bounds.add_choices(key, values)?;
            }
            if !constraint.prefix.is_empty() {
                let prefixes = constraint.prefix.iter().cloned().map(Expression::new_string);
                bounds.prefixes.push((key.to_owned(), Expression::new_set(prefixes)));
            }
        }
        Ok(bounds)
    }

    /// A choice among texts is a set; a choice among numbers lies between its least and its greatest. A mixture, or
    /// a choice among anything else, is refused.
    fn add_choices(&mut self, key: &str, values: &[Value]) -> Result<(), Refusal> {
        let texts: Option<Vec<_>> = values.iter().map(Value::as_str).collect();
        if let Some(texts) = texts {
            let texts = texts.into_iter().map(|text| Expression::new_string(text.to_owned()));
            self.one_of.push((key.to_owned(), Expression::new_set(texts)));
            return Ok(());
        }
        if values.iter().all(Value::is_boolean) {
            // There is no table of flags: nothing that is admitted could be beyond a limit.
            return Ok(());
        }
        let bound = |outwards: fn(f64) -> f64| -> Option<Vec<i64>> {
            values
                .iter()
                .map(|value| value.as_number().and_then(|number| rounded(number, outwards)))
                .collect()
        };
        let (Some(floors), Some(ceilings)) = (bound(f64::floor), bound(f64::ceil)) else {
            return Err(Refusal::new(inexpressible(key)));
        };
        if let (Some(least), Some(most)) = (floors.iter().min(), ceilings.iter().max()) {
            upsert(&mut self.minimum, key, *least);
            upsert(&mut self.maximum, key, *most);
        }
        Ok(())
    }
}

fn inexpressible(key: &str) -> String {
    format!(
        "the constraint on {key:?} cannot be put to policy: choose among texts alone, or among numbers alone"
    )
}

/// Adds a bound unless the constraint gave one outright.
fn upsert(rows: &mut Rows, key: &str, bound: i64) {
    if !rows.iter().any(|(present, _)| present == key) {
        rows.push((key.to_owned(), Expression::new_long(bound)));
    }
}

/// The number as an integer, if that is what it is: `5.0` is 5 (RFC 8785 writes both alike).
fn whole(number: &Number) -> Option<i64> {
    if let Some(integer) = number.as_i64() {
        return Some(integer);
    }
    let float = number.as_f64()?;
    // Exact: whole, and within the range in which doubles hold every integer.
    (float.fract() == 0.0 && float.abs() <= deputize_call::json::MAX_SAFE_INTEGER).then_some(float as i64)
}

fn rounded(number: &Number, outwards: fn(f64) -> f64) -> Option<i64> {
    whole(number).or_else(|| whole(&Number::from_f64(outwards(number.as_f64()?))?))
}

/// A double as Cedar's decimal, if its shortest notation (the one of RFC 8785) has at most four decimals.
fn exact_decimal(float: f64) -> Option<String> {
    let in_range = float.abs() < LARGEST_WHOLE_DECIMAL as f64;
    let text = float.to_string();
    let (_, decimals) = text.split_once('.')?;
    (in_range && decimals.len() <= 4).then_some(text)
}

/// One reference token of a JSON Pointer (RFC 6901 §3).
fn escape(name: &str) -> String {
    if name.contains(['~', '/']) { name.replace('~', "~0").replace('/', "~1") } else { name.to_owned() }
}

/// Stands for "no bound": beyond what strict JSON admits.
const WIDEST: i64 = 1 << 53;
/// Values beyond this number are refused.
const MAX_LEAVES: usize = 4_096;
/// The largest integer part of a Cedar decimal, whose whole range is that of an `i64` in ten-thousandths.
const LARGEST_WHOLE_DECIMAL: u64 = 922_337_203_685_477;
