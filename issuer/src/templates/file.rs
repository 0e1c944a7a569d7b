//! What a template's file says, member for member. `check` looks at it; nothing else trusts it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::arn::Partition;

/// One role template: which call may have an AWS session, and for what exactly.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateFile {
    /// Unique name: lower-case letters, digits, `-`.
    pub name: String,
    /// What it is for, in a sentence.
    pub description: String,
    /// Which calls it is for. No two templates may match one call.
    #[serde(rename = "match")]
    pub matching: Match,
    /// Values that come from the call.
    #[serde(default)]
    pub params: BTreeMap<String, Param>,
    /// The role, and where it is.
    pub aws: Aws,
    /// What the session may do. Each action stands in one statement.
    pub statements: Vec<Statement>,
    /// Those actions of the statements that this program does not know: stated here, they were looked up by whoever
    /// wrote the template, and are seen by whoever reviews it.
    #[serde(default)]
    pub unknown_actions: Vec<String>,
    /// Session tags, one value each: at most 50.
    #[serde(default)]
    pub tags: BTreeMap<String, Vec<TagPart>>,
    /// What `SourceIdentity` is.
    #[serde(default)]
    pub source_identity: SourceIdentity,
    /// What `RoleSessionName` is: always the id of the decision.
    #[serde(default)]
    pub session_name: SessionName,
    /// Who has to agree before a session is made, beyond what policy demands for the call itself.
    #[serde(default)]
    pub approval: Approval,
    /// Where the data of this call may be.
    #[serde(default)]
    pub residency: Option<Residency>,
    /// The outer bound: nothing beyond it is granted, whatever the statements say.
    pub ceiling: Ceiling,
}

/// Which calls a template is for: all that is named must hold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Resource URI of the MCP server, as in the registry.
    pub server: String,
    /// Its tool.
    pub tool: String,
    /// Tenant of the person.
    pub tenant: String,
    /// The person is in one of these groups (`{issuer}|{group}`); empty means any.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The person has one of these roles; empty means any.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The person's claim has one of these values. A claim with several values never matches.
    #[serde(default)]
    pub claims: BTreeMap<String, Vec<String>>,
    /// How many agents stand between the person and the server.
    #[serde(default)]
    pub chain_depth: ChainDepth,
}

/// A number of agents, from the first one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChainDepth {
    /// At least so many.
    pub minimum: u8,
    /// At most so many; 5 is the deepest chain there is.
    pub maximum: u8,
}

/// A value of the call, and what it may be.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// Where it comes from.
    pub from: Source,
    /// Its type: closed, so that the worst it can hold is known.
    #[serde(rename = "type")]
    pub kind: ParamType,
    /// The longest value, in characters. Types of free length need it.
    #[serde(default)]
    pub max_length: Option<u16>,
    /// Characters admitted beyond the type's own, of `* ? $ { } : % & # ; | ^ [ ]` and the space. They are rendered so
    /// that IAM takes them literally.
    #[serde(default)]
    pub allow: String,
    /// The values of an `enum`.
    #[serde(default)]
    pub values: Vec<String>,
    /// The regular expression of a `pattern`: the whole value must match it.
    #[serde(default)]
    pub pattern: Option<String>,
    /// Smallest `integer`.
    #[serde(default)]
    pub minimum: Option<i64>,
    /// Largest `integer`.
    #[serde(default)]
    pub maximum: Option<i64>,
    /// The call names the whole ARN. Its partition, region and account must be the template's own.
    #[serde(default)]
    pub from_arn: bool,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// JSON Pointer (RFC 6901) into the call's arguments.
    Argument(String),
    /// Name of one of the person's claims.
    Claim(String),
}

/// Types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    /// `i-` and 8 or 17 hexadecimal digits.
    Ec2InstanceId,
    /// Key of an object: no empty segment, no `.` or `..`.
    S3Key,
    /// As a key, and ends with `/`.
    S3Prefix,
    /// 36 characters, lower case.
    Uuid,
    /// One of `values`.
    Enum,
    /// Text of a partition key.
    DynamodbPartition,
    /// Name of a log group.
    LogGroup,
    /// Name of a state machine.
    StateMachineName,
    /// A whole number from `minimum` to `maximum`.
    Integer,
    /// Text that matches `pattern`.
    Pattern,
}

/// The role, and where it is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aws {
    /// Partition: nothing outside it is ever named.
    pub partition: Partition,
    /// Account, 12 digits (quote them): nothing of another one is ever reached. Where an ARN names no account (S3), the
    /// session policy does, as `aws:ResourceAccount`.
    pub account: String,
    /// Region: no ARN names another. Those of S3 name none, so a bucket may be in any region of the account.
    pub region: String,
    /// ARN of the role, of that account.
    pub role_arn: String,
    /// How long the session can do anything, in seconds: at most 300, and 300 where it is not said.
    #[serde(default)]
    pub window_seconds: Option<u32>,
    /// How long the credentials live, in seconds: 900 (the least that STS gives) to 3600.
    #[serde(default = "least_duration")]
    pub duration_seconds: u32,
}

/// Some actions on some resources.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Actions, `service:Name`. No wildcards.
    pub actions: Vec<String>,
    /// On which resources. Empty means all, and only where no action knows resources.
    #[serde(default)]
    pub resources: Vec<Resource>,
    /// Under which conditions; all must hold.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// An ARN in its parts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Service as in ARNs.
    pub service: String,
    /// Partition: the template's own by default, and no other.
    #[serde(default)]
    pub partition: Option<Partition>,
    /// Region: the template's own by default, `""` for none, and no other. S3 has none.
    #[serde(default)]
    pub region: Option<String>,
    /// Account: the template's own by default, `""` for none, and no other. S3 has none. Where there is none, the
    /// session policy demands that the resource is of the template's account.
    #[serde(default)]
    pub account: Option<String>,
    /// What follows the account's colon, part by part.
    pub parts: Vec<Part>,
}

/// A part of a resource or of a condition's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Text as it stands.
    Literal(String),
    /// The value of a parameter.
    Param(String),
    /// Anything below: only at the end, after `/`, `:` or an `s3_prefix`.
    Wildcard,
}

/// A condition on a key of the request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// How it is compared.
    pub operator: Operator,
    /// The key, for example `dynamodb:LeadingKeys`: one of which it is known whether it has one value or several.
    pub key: String,
    /// The values, each in its parts; one of them must fit.
    pub values: Vec<Vec<Part>>,
}

/// Comparisons. Each has an opposite, from which the Deny is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// Equal text; of keys with one value.
    StringEquals,
    /// Equal text, wildcards allowed; of keys with one value.
    StringLike,
    /// A number at most as large; of keys with one value, and compared with one.
    NumericLessThanEquals,
    /// Each value of the key is one of these, and there is at least one; of keys with several values.
    #[serde(rename = "ForAllValues:StringEquals")]
    ForAllValuesStringEquals,
}

/// A part of a tag's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TagPart {
    /// Text as it stands.
    Literal(String),
    /// The value of a parameter.
    Param(String),
    /// One of the person's claims.
    Claim(String),
    /// A fact of the call.
    Fact(Fact),
}

/// Facts of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The person's stable claim.
    User,
    /// The tenant.
    Tenant,
    /// The client that acts.
    Client,
    /// Resource URI of the server.
    Server,
    /// Name of the tool.
    Tool,
    /// Id of the transaction, constant through all hops.
    Transaction,
    /// Id of the decision.
    Decision,
}

/// Who stands behind the session in AWS's own log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceIdentity {
    /// The person's stable claim.
    #[default]
    User,
    /// Another of the person's claims, where the stable one has characters that STS refuses.
    Claim(String),
}

/// What the session is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionName {
    /// The id of the decision, so that each line of AWS's log leads to its record.
    #[default]
    DecisionId,
}

/// Who has to agree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// Nobody beyond what policy says.
    #[default]
    None,
    /// The user.
    Confirm,
    /// Others.
    Approve,
}

/// Where data may be: the role, the server and the person must all agree.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Residency {
    /// The regions that count as one place. The role's must be among them; so must the server's in the registry.
    pub regions: Vec<String>,
    /// Another word for that place, where claims and records do not name AWS regions: `eu`.
    #[serde(default)]
    pub area: Option<String>,
    /// The person's claim that says where their data may be.
    #[serde(default)]
    pub claim: Option<String>,
}

/// The outer bound of a template.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// Actions; `*` and `?` in the name, not in the service.
    pub actions: Vec<String>,
    /// ARNs; `*` and `?` after the account. `*` alone admits actions that know no resources.
    pub resources: Vec<String>,
}

impl Default for ChainDepth {
    fn default() -> Self {
        Self { minimum: 0, maximum: 5 }
    }
}

fn least_duration() -> u32 {
    900
}
