//! Role templates: those of the examples, every way in which one is refused, and thousands of renderings against an
//! IAM engine that knows nothing of how policies are made.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

mod calls;
mod iam;
mod loading;
mod properties;

use deputize_issuer::{
    clock::TestClock,
    person::{ClaimValue, Person},
    templates::{Call, Refused, RenderedSession, Template, TemplateFile},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::Path};
use uuid::Uuid;

/// Names of the examples.
pub const EXAMPLES: [&str; 5] =
    ["query-orders", "read-log-group", "read-reports", "restart-instance", "start-execution"];

/// The text of an example.
pub fn text(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/example/templates");
    std::fs::read_to_string(folder.join(name).with_extension("yaml")).unwrap()
}

/// Reads a template.
pub fn parse(yaml: &str) -> TemplateFile {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// Reads and checks one.
pub fn template(yaml: &str) -> Template {
    Template::check(parse(yaml)).unwrap_or_else(|errors| panic!("{errors:?}\n{yaml}"))
}

/// Somebody with every role and claim that the examples want.
pub fn alice() -> Person {
    let issuer = "https://login.example";
    Person {
        tenant: "acme".into(),
        issuer: issuer.into(),
        sub: Person::encode_sub("acme", issuer, "alice"),
        groups: vec![],
        roles: vec!["operator".into(), "support".into()],
        claims: BTreeMap::from([("data_region".to_owned(), ClaimValue::Text("eu".into()))]),
        acr: None,
        amr: vec![],
        auth_time: None,
    }
}

/// Renders for a call with one argument.
pub fn render(template: &Template, person: &Person, argument: Value) -> Result<RenderedSession, Refused> {
    render_at(template, person, argument, Some("eu-central-1"))
}

/// As [`render`], at a server of this region.
pub fn render_at(
    template: &Template,
    person: &Person,
    argument: Value,
    server_region: Option<&str>,
) -> Result<RenderedSession, Refused> {
    let name = match template.file().params.values().next().map(|param| &param.from) {
        Some(deputize_issuer::templates::Source::Argument(pointer)) => {
            pointer.trim_start_matches('/').to_owned()
        }
        _ => String::new(),
    };
    let arguments = Map::from_iter([(name, argument)]);
    let call = Call {
        server: &template.file().matching.server,
        server_region,
        tool: &template.file().matching.tool,
        person,
        client: "support-platform",
        chain_depth: 1,
        arguments: &arguments,
        transaction: "01981f6a-0000-7000-8000-000000000001",
        decision: DECISION,
    };
    template.render(&call, &TestClock::at_seconds(NOW))
}

/// Id of the decision.
pub const DECISION: Uuid = Uuid::from_u128(0x01981f6a_0000_7000_8000_000000000002);
/// 2026-11-21T09:30:00Z.
pub const NOW: u64 = 1_795_253_400;
