//! A record out of what a source offers, what an operator wishes, and what an earlier record said. Nothing is asked
//! and nothing written here.

use deputize_call::{
    digest::{prompt_digest, tool_digest},
    json::Object,
    prompt::arguments_schema,
    resource,
};
use deputize_issuer::registry::{
    DataClass, PromptRecord, Publisher, ResourceRecord, ServerRecord, Tier, ToolRecord, Verifier, propose,
    review,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use super::offer::Offer;
use crate::commands::exit::CommandError;

/// What an operator says on the command line; it goes before everything else.
#[derive(Debug, Default, clap::Args)]
pub struct Wishes {
    /// Its id in the registry: lower-case letters, digits, `-`
    #[arg(long)]
    pub id: Option<String>,
    /// Its resource URI: `aud` of its tokens; by default the endpoint
    #[arg(long, value_name = "URI")]
    pub resource: Option<String>,
    /// Tenant whose clients may ask for it
    #[arg(long)]
    pub tenant: Option<String>,
    /// Who answers for it
    #[arg(long)]
    pub owner: Option<String>,
    /// What it is for
    #[arg(long)]
    pub purpose: Option<String>,
    /// production, staging, development, …
    #[arg(long)]
    pub environment: Option<String>,
    /// The client as which its guard authenticates
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
}

/// A record, and what is to be said about it.
#[derive(Debug)]
pub struct Draft {
    /// The record; not approved.
    pub record: ServerRecord,
    /// Its tools.
    pub tools: Vec<ToolNote>,
    /// Tools that cannot be registered.
    pub left_out: Vec<LeftOut>,
}

/// Why a tool got its tier, and what is to be known of its schema.
#[derive(Debug, Serialize)]
pub struct ToolNote {
    /// Its name.
    pub name: String,
    /// Its tier in the record.
    pub tier: &'static str,
    /// Whether the record had it before, and its operator's choices were kept.
    pub kept: bool,
    /// Why this tier; of a kept tool, why it was proposed higher.
    pub reasons: Vec<String>,
    /// Places of its schema.
    pub remarks: Vec<review::Remark>,
}

/// A tool that cannot be registered.
#[derive(Debug, Serialize)]
pub struct LeftOut {
    /// Its name, as far as it has one.
    pub name: String,
    /// Why, and what to do.
    pub problem: String,
}

/// Makes the record.
///
/// # Errors
/// If it lacks an id or a resource.
pub fn draft(
    wishes: &Wishes,
    offer: &Offer,
    before: Option<&ServerRecord>,
    publisher: Option<Publisher>,
) -> Result<Draft, CommandError> {
    let (mut tools, mut notes, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for definition in &offer.listing.tools {
        let name = name_of(definition);
        let kept =
            before.and_then(|record| record.tools.iter().find(|tool| name_of(&tool.definition) == name));
        match register(definition, kept, names.insert(name.to_owned())) {
            Ok((tool, note)) => {
                tools.push(tool);
                notes.push(note);
            }
            Err(problem) => left_out.push(LeftOut { name: name.chars().take(128).collect(), problem }),
        }
    }
    let prompts = prompts(offer, before, &mut left_out);
    let resources = resources(offer, before, &mut left_out);
    let record = ServerRecord { tools, prompts, resources, ..server(wishes, offer, before, publisher)? };
    Ok(Draft { record, tools: notes, left_out })
}

/// The id that a record will have.
///
/// # Errors
/// If there is none to be found.
pub fn id(wishes: &Wishes, offer: &Offer) -> Result<String, CommandError> {
    let name = offer.described.name.as_ref().or(offer.listing.name.as_ref());
    let derived = name.map(|name| {
        let last = name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let dashed = last.replace(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit(), "-");
        dashed.trim_matches('-').chars().take(64).collect::<String>()
    });
    wishes
        .id
        .clone()
        .or(derived)
        .filter(|id| !id.is_empty())
        .ok_or_else(|| CommandError::usage("the server says no name", "give --id, for example --id crm"))
}

fn server(
    wishes: &Wishes,
    offer: &Offer,
    before: Option<&ServerRecord>,
    publisher: Option<Publisher>,
) -> Result<ServerRecord, CommandError> {
    let described = &offer.described;
    let text = |wish: &Option<String>, kept: fn(&ServerRecord) -> String, otherwise: Option<String>| {
        let kept = before.map(kept);
        wish.clone().or(kept).or(otherwise).unwrap_or_else(|| CHANGE_ME.to_owned())
    };
    let endpoint = offer.endpoint.clone().or_else(|| described.endpoint().map(String::from));
    let resource = wishes.resource.clone().or(before.map(|record| record.resource.clone())).or(endpoint);
    let resource = resource.ok_or_else(|| {
        CommandError::usage(
            "the server has no address",
            "give --resource with the URI that its guard will have, for example https://crm.example.com/mcp",
        )
    })?;
    let version = described.version.clone().or(offer.listing.version.clone());
    Ok(ServerRecord {
        id: id(wishes, offer)?,
        resource,
        tenant: text(&wishes.tenant, |record| record.tenant.clone(), Some("default".to_owned())),
        // What was reviewed is what is there now.
        version: version.or(before.map(|record| record.version.clone())).unwrap_or_else(|| "0".to_owned()),
        owner: text(&wishes.owner, |record| record.owner.clone(), None),
        purpose: text(&wishes.purpose, |record| record.purpose.clone(), described.description.clone()),
        source_repository: described
            .repository
            .clone()
            .or(before.and_then(|record| record.source_repository.clone())),
        packages: if described.packages.is_empty() {
            before.map(|record| record.packages.clone()).unwrap_or_default()
        } else {
            described.packages.clone()
        },
        publisher,
        environment: text(
            &wishes.environment,
            |record| record.environment.clone(),
            Some("production".to_owned()),
        ),
        data_class: before.map_or(DataClass::Confidential, |record| record.data_class),
        region: before.and_then(|record| record.region.clone()),
        verifier: before.map_or(Verifier::Guard, |record| record.verifier),
        client_id: wishes.client_id.clone().or(before.and_then(|record| record.client_id.clone())),
        credentials: before.map(|record| record.credentials.clone()).unwrap_or_default(),
        approved: false,
        enabled: before.is_none_or(|record| record.enabled),
        last_review: None,
        manifest_digest: None,
        tools: Vec::new(),
        resources: Vec::new(),
        prompts: Vec::new(),
    })
}

/// The prompts that can be registered; nobody has reviewed a new one, so medium is the least that is proposed.
fn prompts(offer: &Offer, before: Option<&ServerRecord>, left_out: &mut Vec<LeftOut>) -> Vec<PromptRecord> {
    let (mut prompts, mut names) = (Vec::new(), BTreeSet::new());
    for definition in &offer.listing.prompts {
        let name = name_of(definition);
        let kept = before.and_then(|record| record.prompts.iter().find(|prompt| prompt.name() == name));
        let pinned = check_name(name, names.insert(name.to_owned()), "prompt").and_then(|()| {
            arguments_schema(definition).map_err(|problem| format!("its definition {problem}"))?;
            prompt_digest(definition).map_err(|error| format!("its definition cannot be digested ({error})"))
        });
        match (pinned, kept) {
            (Err(problem), _) => {
                let name = format!("prompt {}", name.chars().take(128).collect::<String>());
                left_out.push(LeftOut { name, problem });
            }
            (Ok(prompt_digest), Some(kept)) => {
                let definition = definition.clone();
                prompts.push(PromptRecord { prompt_digest, definition, ..kept.clone() });
            }
            (Ok(prompt_digest), None) => prompts.push(PromptRecord {
                tier: Tier::Medium,
                level: None,
                data_class: None,
                lifetime_seconds: None,
                max_uses: None,
                acr_values: Vec::new(),
                max_age_seconds: None,
                enabled: true,
                prompt_digest,
                definition: definition.clone(),
            }),
        }
    }
    prompts
}

/// The resources that are listed now, one by one; entries of an earlier record, prefixes among them, stay as they are.
fn resources(
    offer: &Offer,
    before: Option<&ServerRecord>,
    left_out: &mut Vec<LeftOut>,
) -> Vec<ResourceRecord> {
    let mut resources: Vec<ResourceRecord> =
        before.map(|record| record.resources.clone()).unwrap_or_default();
    let mut known: BTreeMap<String, ()> = resources.iter().map(|entry| (entry.uri.clone(), ())).collect();
    for listed in &offer.listing.resources {
        let text = |name: &str| listed.get(name).and_then(Value::as_str).map(str::to_owned);
        let uri = text("uri").unwrap_or_default();
        if known.contains_key(&uri) || resource::find(&known, &uri).is_some() {
            continue;
        }
        if let Err(problem) = check_listed(&uri).and_then(|()| check_beside(&known, &uri)) {
            let name = format!("resource {}", uri.chars().take(128).collect::<String>());
            left_out.push(LeftOut { name, problem: format!("its URI {problem}") });
            continue;
        }
        known.insert(uri.clone(), ());
        resources.push(ResourceRecord {
            name: text("name").filter(|name| *name != uri),
            title: text("title"),
            description: text("description"),
            uri,
            tier: Tier::Medium,
            level: None,
            data_class: None,
            lifetime_seconds: None,
            max_uses: None,
            acr_values: Vec::new(),
            max_age_seconds: None,
            enabled: true,
        });
    }
    resources
}

/// Whether a listed resource can be an entry as it is. No server makes an entry for everything below something.
fn check_listed(uri: &str) -> Result<(), &'static str> {
    resource::check_entry(uri)?;
    match resource::prefix_of(uri) {
        None => Ok(()),
        Some(_) => {
            Err("ends with `/*`, which names everything below: write such an entry yourself, if it is meant")
        }
    }
}

/// Whether no entry differs from it by the last slash alone. To many servers the two are one, and what an operator said of
/// one of them, that it is switched off for instance, would not hold for the other.
fn check_beside(known: &BTreeMap<String, ()>, uri: &str) -> Result<(), &'static str> {
    let other = uri.strip_suffix('/').map_or_else(|| format!("{uri}/"), str::to_owned);
    if known.contains_key(&other) {
        return Err(
            "differs from an entry by its last slash: write an entry yourself, if another thing is meant",
        );
    }
    Ok(())
}

fn check_name(name: &str, is_first_of_its_name: bool, what: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    if !(1..=128).contains(&name.len()) || !name.chars().all(plain) {
        return Err("its name must be 1–128 ASCII letters, digits, `_`, `.`, `/` and `-`".to_owned());
    }
    if is_first_of_its_name { Ok(()) } else { Err(format!("another {what} of this server has its name")) }
}

fn register(
    definition: &Object,
    kept: Option<&ToolRecord>,
    is_first_of_its_name: bool,
) -> Result<(ToolRecord, ToolNote), String> {
    let name = name_of(definition);
    check_name(name, is_first_of_its_name, "tool")?;
    let remarks = review::review_schema(definition);
    if let Some(refused) = remarks.iter().find(|remark| remark.refused) {
        return Err(format!("inputSchema{}: {}; {}", refused.pointer, refused.problem, refused.advice));
    }
    let tool_digest = tool_digest(definition).map_err(|error| {
        format!("its definition cannot be digested ({error}): have the publisher correct it")
    })?;
    let proposal = propose::propose(definition);
    let tool = match kept {
        Some(kept) => ToolRecord { tool_digest, definition: definition.clone(), ..kept.clone() },
        None => ToolRecord {
            tier: proposal.tier,
            level: None,
            effect: proposal.effect,
            data_class: None,
            lifetime_seconds: None,
            max_uses: None,
            acr_values: Vec::new(),
            max_age_seconds: None,
            downstream: Vec::new(),
            enabled: true,
            tool_digest,
            definition: definition.clone(),
            example_arguments: None,
        },
    };
    let mut reasons = proposal.reasons;
    if kept.is_some_and(|kept| kept.tier >= proposal.tier) {
        reasons.clear();
    } else if kept.is_some() {
        reasons.insert(0, format!("your tier is kept; {} would be proposed", proposal.tier.as_str()));
    }
    let note =
        ToolNote { name: name.to_owned(), tier: tool.tier.as_str(), kept: kept.is_some(), reasons, remarks };
    Ok((tool, note))
}

fn name_of(definition: &Object) -> &str {
    definition.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Stands where only the operator knows what to say. A record that still has it is not approved.
pub const CHANGE_ME: &str = "CHANGE ME";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::registry::{live::Listing, server_json::ServerJson};
    use serde_json::json;

    /// The entries of a record after an import, and how many listed resources were left out.
    fn imported(before: &[&str], listed: &[&str]) -> (Vec<String>, usize) {
        let of =
            |uris: &[&str]| uris.iter().map(|uri| json!({ "uri": uri, "tier": "low" })).collect::<Value>();
        let record = serde_json::from_value(json!({
            "id": "docs", "resource": "https://docs.example.com/mcp", "tenant": "acme", "version": "1", "owner": "o",
            "purpose": "p", "environment": "test", "data_class": "internal", "verifier": "guard", "tools": [],
            "resources": of(before),
        }));
        let listed = listed.iter().map(|uri| Object::from_iter([("uri".to_owned(), json!(uri))]));
        let offer = Offer {
            source: "a test".to_owned(),
            listing: Listing { resources: listed.collect(), ..Listing::default() },
            endpoint: None,
            described: ServerJson::default(),
        };
        let mut left_out = Vec::new();
        let entries = resources(&offer, Some(&record.unwrap()), &mut left_out);
        (entries.into_iter().map(|entry| entry.uri).collect(), left_out.len())
    }

    #[test]
    fn what_is_listed_gets_an_entry_where_none_decides_for_it() {
        let cases: [(&[&str], &[&str], &[&str]); 4] = [
            (&["d://h/*"], &["d://h/a", "d://h/b/c"], &[]),
            (&["d://h/*"], &["d://h/a/", "e://x"], &["d://h/a/", "e://x"]),
            (&["d://h/*", "d://h/a/*"], &["d://h/a", "d://h/a/b"], &["d://h/a"]),
            (&["d://h/a"], &["d://h/a", "d://h/b", "d://h/b"], &["d://h/b"]),
        ];
        for (before, listed, more) in cases {
            let expected: Vec<&str> = before.iter().chain(more).copied().collect();
            let (entries, left_out) = imported(before, listed);
            assert_eq!(
                (entries, left_out),
                (expected.iter().map(ToString::to_string).collect(), 0),
                "{listed:?}"
            );
        }
    }

    #[test]
    fn what_differs_from_an_entry_by_the_last_slash_gets_none() {
        for (before, listed, other) in [
            (&["d://h/secret"][..], "d://h/secret/", "d://h/secrets"),
            (&["d://h/secret/"], "d://h/secret", "d://h/secre"),
            (&["d://h/*", "d://h/secret"], "d://h/secret/", "d://h/public/"),
        ] {
            let all = |more: &[&str]| before.iter().chain(more).map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(imported(before, &[listed, other]), (all(&[other]), 1), "{listed}");
        }
        assert_eq!(imported(&[], &["d://h/a", "d://h/a/"]), (vec!["d://h/a".to_owned()], 1), "both are new");
    }

    #[test]
    fn no_server_names_everything_below_something() {
        let listed = ["file:///srv/*", "d://h/*", "file:///srv/a"];
        assert_eq!(imported(&[], &listed), (vec!["file:///srv/a".to_owned()], 2));
        assert_eq!(
            imported(&["d://h/*"], &["d://h/*"]),
            (vec!["d://h/*".to_owned()], 0),
            "it is there already"
        );
    }
}
