//! The `context` of one request. Only what the policies in question can read is built.

use super::{
    Refusal,
    arguments::{Arguments, Bounds, Rows},
    entities::Vocabulary,
    facts::Facts,
    reads::Reads,
};
use cedar_policy::{Context, Entity, EntityUid, RestrictedExpression as Expression};
use deputize_call::level::Level;
use std::collections::BTreeSet;

/// Makes the context record.
pub(super) fn build(
    facts: &Facts<'_>,
    arguments: Option<&Arguments>,
    vocabulary: &Vocabulary,
    reads: Reads,
) -> Result<Context, Refusal> {
    let mut pairs = Vec::with_capacity(Attribute::ALL.len());
    for attribute in Attribute::ALL {
        if reads.contain(attribute)
            && let Some(value) = attribute.value(facts, arguments, vocabulary)?
        {
            pairs.push((attribute.name().to_owned(), value));
        }
    }
    Context::from_pairs(pairs).map_err(Refusal::internal)
}

/// The context of a question that is asked before any call: what is known then, and the level where only one is
/// possible.
pub(super) fn known(facts: &Facts<'_>, level: Option<Level>) -> Result<Context, Refusal> {
    let mut pairs = Vec::with_capacity(Attribute::ALL.len());
    for attribute in Attribute::ALL.into_iter().filter(|attribute| attribute.is_known_before_a_call()) {
        if let Some(value) = attribute.value_but_tables(facts)? {
            pairs.push((attribute.name().to_owned(), value));
        }
    }
    if let Some(level) = level {
        pairs.push((Attribute::Level.name().to_owned(), Expression::new_long(level as i64)));
    }
    Context::from_pairs(pairs).map_err(Refusal::internal)
}

/// The tables of this request that have rows and can be read.
pub(super) fn tables(
    arguments: Option<Arguments>,
    bounds: Option<Bounds>,
    vocabulary: &Vocabulary,
    reads: Reads,
) -> Result<Vec<Entity>, Refusal> {
    let mut entities = Vec::new();
    let mut add = |attribute: Attribute, rows: Rows| -> Result<(), Refusal> {
        if !rows.is_empty()
            && reads.contain(attribute)
            && let Some(uid) = attribute.table(vocabulary)
        {
            let table = Entity::new_with_tags(uid.clone(), [], [], rows);
            entities.push(table.map_err(Refusal::internal)?);
        }
        Ok(())
    };
    if let Some(arguments) = arguments {
        add(Attribute::Text, arguments.text)?;
        add(Attribute::Number, arguments.number)?;
        add(Attribute::Decimal, arguments.decimal)?;
        add(Attribute::Flag, arguments.flag)?;
        add(Attribute::Texts, arguments.texts)?;
        add(Attribute::Numbers, arguments.numbers)?;
    }
    if let Some(bounds) = bounds {
        add(Attribute::Minimum, bounds.minimum)?;
        add(Attribute::Maximum, bounds.maximum)?;
        add(Attribute::OneOf, bounds.one_of)?;
        add(Attribute::Prefixes, bounds.prefixes)?;
    }
    Ok(entities)
}

/// The attributes of `context`, as the schema has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attribute {
    Tenant,
    Client,
    Agent,
    AgentChain,
    DelegationDepth,
    Host,
    Model,
    Workflow,
    ParentRequest,
    Binding,
    BearerClient,
    Level,
    RiskScore,
    Environment,
    Time,
    Approval,
    DataRead,
    DataReadRank,
    HasArguments,
    Text,
    Number,
    Decimal,
    Flag,
    Texts,
    Numbers,
    Nulls,
    Names,
    Minimum,
    Maximum,
    OneOf,
    Prefixes,
}

impl Attribute {
    pub(super) const ALL: [Self; 31] = [
        Self::Tenant,
        Self::Client,
        Self::Agent,
        Self::AgentChain,
        Self::DelegationDepth,
        Self::Host,
        Self::Model,
        Self::Workflow,
        Self::ParentRequest,
        Self::Binding,
        Self::BearerClient,
        Self::Level,
        Self::RiskScore,
        Self::Environment,
        Self::Time,
        Self::Approval,
        Self::DataRead,
        Self::DataReadRank,
        Self::HasArguments,
        Self::Text,
        Self::Number,
        Self::Decimal,
        Self::Flag,
        Self::Texts,
        Self::Numbers,
        Self::Nulls,
        Self::Names,
        Self::Minimum,
        Self::Maximum,
        Self::OneOf,
        Self::Prefixes,
    ];

    pub(super) fn bit(self) -> u32 {
        1 << (self as u32)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Client => "client",
            Self::Agent => "agent",
            Self::AgentChain => "agent_chain",
            Self::DelegationDepth => "delegation_depth",
            Self::Host => "host",
            Self::Model => "model",
            Self::Workflow => "workflow",
            Self::ParentRequest => "parent_request",
            Self::Binding => "binding",
            Self::BearerClient => "bearer_client",
            Self::Level => "level",
            Self::RiskScore => "risk_score",
            Self::Environment => "environment",
            Self::Time => "time",
            Self::Approval => "approval",
            Self::DataRead => "data_read",
            Self::DataReadRank => "data_read_rank",
            Self::HasArguments => "has_arguments",
            Self::Text => "text",
            Self::Number => "number",
            Self::Decimal => "decimal",
            Self::Flag => "flag",
            Self::Texts => "texts",
            Self::Numbers => "numbers",
            Self::Nulls => "nulls",
            Self::Names => "names",
            Self::Minimum => "minimum",
            Self::Maximum => "maximum",
            Self::OneOf => "one_of",
            Self::Prefixes => "prefixes",
        }
    }

    /// Whether it is the same for every call of this person and agent now.
    pub(super) fn is_known_before_a_call(self) -> bool {
        matches!(
            self,
            Self::Tenant
                | Self::Client
                | Self::Agent
                | Self::AgentChain
                | Self::DelegationDepth
                | Self::Binding
                | Self::BearerClient
                | Self::Environment
                | Self::Time
                | Self::DataRead
                | Self::DataReadRank
        )
    }

    /// Whether the schema has it optional.
    pub(super) fn may_be_absent(self) -> bool {
        matches!(self, Self::Host | Self::Model | Self::Workflow | Self::ParentRequest | Self::Approval)
    }

    /// The attribute's value. `None` where it is optional and absent, and for the arguments where there are none to
    /// show: reading them is then an error, and so a denial.
    fn value(
        self,
        facts: &Facts<'_>,
        arguments: Option<&Arguments>,
        vocabulary: &Vocabulary,
    ) -> Result<Option<Expression>, Refusal> {
        Ok(match self {
            Self::Nulls => arguments.map(|arguments| texts(&arguments.nulls)),
            Self::Names => arguments.map(|arguments| texts(&arguments.names)),
            Self::Text | Self::Number | Self::Decimal | Self::Flag | Self::Texts | Self::Numbers => {
                arguments.and_then(|_| self.table(vocabulary)).cloned().map(Expression::new_entity_uid)
            }
            Self::Minimum | Self::Maximum | Self::OneOf | Self::Prefixes => {
                self.table(vocabulary).cloned().map(Expression::new_entity_uid)
            }
            _ => self.value_but_tables(facts)?,
        })
    }

    /// The value of an attribute that is no table of arguments or constraints.
    fn value_but_tables(self, facts: &Facts<'_>) -> Result<Option<Expression>, Refusal> {
        let claimed = &facts.claimed;
        Ok(match self {
            Self::Tenant => Some(text(facts.tenant)),
            Self::Client => Some(text(facts.client_id)),
            Self::Agent => Some(text(facts.actor)),
            Self::AgentChain => Some(texts(facts.actor_chain)),
            Self::DelegationDepth => Some(count(facts.actor_chain.len() + 1)),
            Self::Host => claimed.host.map(text),
            Self::Model => claimed.model.map(text),
            Self::Workflow => claimed.workflow.map(text),
            Self::ParentRequest => claimed.parent_request_id.map(text),
            Self::Binding => Some(text(facts.binding.as_str())),
            Self::BearerClient => facts.bearer_client.map(text),
            Self::Level => Some(Expression::new_long(facts.level as i64)),
            Self::RiskScore => Some(Expression::new_long(facts.risk_score.into())),
            Self::Environment => Some(text(&facts.server.record.environment)),
            Self::Time => Some(time(facts.now)?),
            Self::Approval => facts.approval.map(approval).transpose()?,
            Self::DataRead => Some(texts(facts.data_classes_read.iter().map(|class| class.as_str()))),
            Self::DataReadRank => {
                let ranks = facts.data_classes_read.iter().map(|class| *class as i64);
                Some(Expression::new_long(ranks.max().unwrap_or(-1)))
            }
            // A digest hides arguments that are there: a policy that asks is told so, and fails when it looks.
            Self::HasArguments => {
                Some(Expression::new_bool(facts.arguments.is_some() || facts.call_digest_only))
            }
            _ => None,
        })
    }

    /// The table behind the attribute, if it is one.
    fn table(self, vocabulary: &Vocabulary) -> Option<&EntityUid> {
        let tables = &vocabulary.tables;
        match self {
            Self::Text => Some(&tables.text),
            Self::Number => Some(&tables.number),
            Self::Decimal => Some(&tables.decimal),
            Self::Flag => Some(&tables.flag),
            Self::Texts => Some(&tables.texts),
            Self::Numbers => Some(&tables.numbers),
            Self::Minimum => Some(&tables.minimum),
            Self::Maximum => Some(&tables.maximum),
            Self::OneOf => Some(&tables.one_of),
            Self::Prefixes => Some(&tables.prefixes),
            _ => None,
        }
    }
}

fn text(value: &str) -> Expression {
    Expression::new_string(value.to_owned())
}

fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Expression {
    Expression::new_set(values.into_iter().map(|value| text(value.as_ref())))
}

fn count(value: usize) -> Expression {
    Expression::new_long(i64::try_from(value).unwrap_or(i64::MAX))
}

fn record<const N: usize>(members: [(&str, Expression); N]) -> Result<Expression, Refusal> {
    Expression::new_record(members.map(|(name, value)| (name.to_owned(), value))).map_err(Refusal::internal)
}

fn approval(approval: &super::ApprovalFacts) -> Result<Expression, Refusal> {
    let people: BTreeSet<&str> = approval.by.iter().map(String::as_str).collect();
    record([("kind", text(approval.kind.as_str())), ("count", count(people.len())), ("by", texts(people))])
}

fn time(now: u64) -> Result<Expression, Refusal> {
    let seconds = i64::try_from(now).ok().filter(|seconds| *seconds <= LAST_SECOND_OF_9999);
    let Some(seconds) = seconds else { return Err(Refusal::new("the time is beyond the year 9999")) };
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    record([
        (
            "now",
            Expression::new_datetime(format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
            )),
        ),
        ("epoch_seconds", Expression::new_long(seconds)),
        ("hour_utc", Expression::new_long(hour)),
        // The first of January 1970 was a Thursday, the fourth day of its week.
        ("weekday", Expression::new_long((days + 3) % 7 + 1)),
    ])
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar. Years are counted from March,
/// so that the leap day comes last.
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_FROM_YEAR_0_MARCH_TO_1970;
    let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

const LAST_SECOND_OF_9999: i64 = 253_402_300_799;
const DAYS_FROM_YEAR_0_MARCH_TO_1970: i64 = 719_468;
const DAYS_OF_400_YEARS: i64 = 146_097;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_778, (2026, 11, 21)),
            (2_932_896, (9999, 12, 31)),
        ] {
            assert_eq!(civil(days), date);
        }
    }

    #[test]
    fn bits_are_distinct_and_names_are_the_schemas() {
        let all = Attribute::ALL.into_iter().fold(0_u32, |bits, attribute| bits | attribute.bit());
        assert_eq!(all.count_ones() as usize, Attribute::ALL.len());
        let call = super::super::schema_text().split("type Call = {").nth(1).unwrap();
        for attribute in Attribute::ALL {
            let (required, optional) =
                (format!("  {}: ", attribute.name()), format!("  {}?: ", attribute.name()));
            assert!(call.contains(&required) || call.contains(&optional), "{attribute:?}");
        }
        let declared =
            call.split("};").next().unwrap().lines().filter(|line| line.trim_end().ends_with(',')).count();
        assert_eq!(declared, Attribute::ALL.len());
    }
}
