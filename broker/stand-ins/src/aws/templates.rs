//! The role templates of an environment, and the roles of the stand-in that they are for.

use super::role::Role;
use crate::example_server::TENANT;

/// A template's file for the server at this resource URI, by its name.
pub fn files(server: &str) -> [(&'static str, String); 2] {
    TEMPLATES.map(|(name, text, _)| (name, text.replace("SERVER", server)))
}

/// The roles that they name: each may do all of its kind of thing, on everything.
///
/// # Errors
/// If a policy is none.
pub(super) fn roles() -> Result<Vec<Role>, String> {
    let role = |(name, _, policy): (&str, &str, &str)| {
        let template = name.trim_end_matches(".yaml");
        let arn = format!("arn:aws:iam::{}:role/deputize/{template}", super::role::ACCOUNT);
        Role::new(&arn, format!("template:{TENANT}:{template}"), policy)
    };
    TEMPLATES.map(role).into_iter().collect()
}

/// File, text, and what the role may.
const TEMPLATES: [(&str, &str, &str); 2] = [
    (
        "restart-instance.yaml",
        include_str!("restart-instance.yaml"),
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ec2:RebootInstances","ec2:DescribeInstances"],"Resource":"*"}]}"#,
    ),
    (
        "show-deployment.yaml",
        include_str!("show-deployment.yaml"),
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"dynamodb:GetItem","Resource":"*"}]}"#,
    ),
];
