//! ARNs: where a template is pinned to, and how their parts are put together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    characters::CharSet,
    file::{Aws, Resource},
};

/// A partition of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Partition {
    /// The public one.
    #[serde(rename = "aws")]
    Aws,
    /// China.
    #[serde(rename = "aws-cn")]
    China,
    /// GovCloud (US).
    #[serde(rename = "aws-us-gov")]
    GovCloud,
}

impl Partition {
    /// As in ARNs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::China => "aws-cn",
            Self::GovCloud => "aws-us-gov",
        }
    }
}

/// What is wrong with the `aws` member, with its place.
pub(super) fn problems_of(aws: &Aws) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if aws.account.len() != 12 || !aws.account.bytes().all(|byte| byte.is_ascii_digit()) {
        problems.push(("aws.account", "an account is 12 digits, in quotes".to_owned()));
    }
    if partition_of(&aws.region) != Some(aws.partition) {
        let problem = format!("{:?} is no region of the partition {}", aws.region, aws.partition.as_str());
        problems.push(("aws.region", problem));
    }
    if let Err(problem) = check_role(aws) {
        problems.push(("aws.role_arn", problem));
    }
    if aws.window_seconds.is_some_and(|seconds| !(30..=super::MAX_WINDOW_SECONDS).contains(&seconds)) {
        problems.push(("aws.window_seconds", "a window is 30 to 300 seconds".to_owned()));
    }
    if !(900..=3600).contains(&aws.duration_seconds) {
        let problem = "credentials live 900 (the least that STS gives) to 3600 seconds";
        problems.push(("aws.duration_seconds", problem.to_owned()));
    }
    problems
}

/// The five fields before the resource, each with its colon.
pub(super) fn prefix_of(resource: &Resource, aws: &Aws) -> String {
    let region = if has_place(&resource.service) { aws.region.as_str() } else { "" };
    let region = resource.region.as_deref().unwrap_or(region);
    let account = account_of(resource, aws);
    format!("arn:{}:{}:{region}:{account}:", aws.partition.as_str(), resource.service)
}

/// The account in its ARN; empty where the ARN has none, and so says nothing of whose the resource is.
pub(super) fn account_of<'a>(resource: &'a Resource, aws: &'a Aws) -> &'a str {
    let account = if has_place(&resource.service) { aws.account.as_str() } else { "" };
    resource.account.as_deref().unwrap_or(account)
}

/// What is wrong with the fields before the resource.
pub(super) fn check_place(resource: &Resource, aws: &Aws) -> Result<(), String> {
    let service = &resource.service;
    if service.is_empty() || CharSet::of("abcdefghijklmnopqrstuvwxyz0123456789-").misses(service).is_some() {
        return Err(format!("{service:?} is no service: lower-case letters, digits, `-`"));
    }
    if resource.partition.is_some_and(|partition| partition != aws.partition) {
        return Err("another partition than aws.partition".to_owned());
    }
    for (name, stated, pinned) in
        [("region", &resource.region, &aws.region), ("account", &resource.account, &aws.account)]
    {
        match stated.as_deref() {
            None | Some("") => {}
            Some(_) if !has_place(service) => {
                return Err(format!("ARNs of {service} have no {name}: leave it out"));
            }
            Some(stated) if stated == pinned => {}
            Some(stated) => return Err(format!("{name} {stated:?} is not aws.{name}, {pinned:?}")),
        }
    }
    Ok(())
}

/// The resource in a whole ARN, if its other fields are exactly these.
pub(super) fn resource_in<'a>(arn: &'a str, service: &str, aws: &Aws) -> Result<&'a str, &'static str> {
    let mut fields = arn.splitn(6, ':');
    let mut next = || fields.next().ok_or("not a whole ARN");
    if next()? != "arn" {
        return Err("not an ARN");
    }
    if next()? != aws.partition.as_str() {
        return Err("an ARN of another partition");
    }
    if next()? != service {
        return Err("an ARN of another service");
    }
    if next()? != aws.region {
        return Err("an ARN of another region");
    }
    if next()? != aws.account {
        return Err("an ARN of another account");
    }
    next()
}

/// Whether ARNs of this service name region and account.
pub(super) fn has_place(service: &str) -> bool {
    service != "s3"
}

fn check_role(aws: &Aws) -> Result<(), String> {
    let mut fields = aws.role_arn.splitn(6, ':');
    let mut next = || fields.next().ok_or_else(|| "not the ARN of a role".to_owned());
    if (next()?, next()?, next()?, next()?) != ("arn", aws.partition.as_str(), "iam", "") {
        return Err(format!("must begin with arn:{}:iam::", aws.partition.as_str()));
    }
    let account = next()?;
    if account != aws.account {
        return Err(format!("a role of account {account:?}; the template is pinned to {:?}", aws.account));
    }
    let name = next()?.strip_prefix("role/").unwrap_or_default();
    let is_name =
        (1..=576).contains(&name.len()) && CharSet::alphanumeric_and("_+=,.@-/").misses(name).is_none();
    if is_name { Ok(()) } else { Err("must end with role/ and the role's name".to_owned()) }
}

/// The partition of a region's name; `None` where it is none.
fn partition_of(region: &str) -> Option<Partition> {
    let parts: Vec<&str> = region.split('-').collect();
    let [area, middle @ .., number] = parts.as_slice() else { return None };
    let word = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_region = area.len() == 2
        && word(area)
        && !middle.is_empty()
        && middle.iter().all(word)
        && number.len() == 1
        && number.bytes().all(|byte| byte.is_ascii_digit());
    match (is_region, *area, middle.first().copied()) {
        (false, ..) => None,
        (true, "cn", _) => Some(Partition::China),
        (true, "us", Some("gov")) => Some(Partition::GovCloud),
        (true, _, Some(middle)) if middle.starts_with("iso") => None,
        (true, ..) => Some(Partition::Aws),
    }
}
