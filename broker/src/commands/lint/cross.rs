//! What should agree between the parts of a configuration. None of it stops a broker; all of it is probably a mistake.

use deputize_call::resource;
use deputize_issuer::{
    client::{Client, Reach},
    entry::Entries,
    registry::{Registry, Server, ServerRecord, Verifier},
    templates::Templates,
};

use crate::{
    commands::registry::{accepted, look, unaccepted},
    config::resolved::Resolved,
};

/// Everything that looks like a mistake.
pub(super) fn warnings(resolved: &Resolved, registry: &Registry, templates: &Templates) -> Vec<String> {
    let mut warnings = Vec::new();
    if resolved.anchor.is_none() {
        warnings.push("audit.anchor is not set: a rollback of the data folder would not be seen".to_owned());
    }
    if resolved.providers.is_empty() {
        warnings.push("identity_providers is empty: no user's token will be accepted".to_owned());
    }
    for client in &resolved.clients {
        of_client(client, resolved, registry, &mut warnings);
    }
    for server in registry.servers() {
        of_server(server, resolved, &mut warnings);
    }
    of_registry(resolved, registry, &mut warnings);
    of_templates(templates, resolved, registry, &mut warnings);
    warnings
}

/// What entries let exchange for, and is not there.
pub(super) fn of_entries(entries: &Entries, resolved: &Resolved, registry: &Registry) -> Vec<String> {
    let mut warnings = Vec::new();
    for entry in entries.iter() {
        let Some(exchange) = entry.to_draft().exchange else { continue };
        let mut warn = |text: String| {
            warnings.push(format!("{}: entry {:?}: exchange: {text}", entry.origin(), entry.id()))
        };
        of_reach(&exchange.may_call, &exchange.tenant, registry, &mut warn);
        of_tenant(&exchange.tenant, resolved, &mut warn);
    }
    warnings
}

/// Templates that nobody can use, or that probably mean something else.
fn of_templates(templates: &Templates, resolved: &Resolved, registry: &Registry, warnings: &mut Vec<String>) {
    warnings.extend(templates.doubts(registry).iter().map(ToString::to_string));
    warnings.extend(templates.iter().flat_map(|template| template.warnings()).map(|it| it.to_string()));
    for file in templates.iter().map(|template| template.file()) {
        let (server, tenant) = (&file.matching.server, &file.matching.tenant);
        let may_ask = |client: &&Client| {
            client.enabled && client.server.as_ref() == Some(server) && client.tenant == *tenant
        };
        if !resolved.clients.iter().any(|client| may_ask(&client)) {
            warnings.push(format!(
                "template {:?}: no client is the server {server}, so that nobody can ask for its sessions",
                file.name
            ));
        }
    }
}

/// Servers that are not approved, and texts that look as if they gave orders to models.
fn of_registry(resolved: &Resolved, registry: &Registry, warnings: &mut Vec<String>) {
    if resolved.registry.approval_keys.is_none() {
        warnings.push(
            "registry.unsigned_approvals: whoever can write the registry's files approves servers".to_owned(),
        );
    }
    for record in registry.proposed() {
        warnings.push(format!(
            "server {:?}: it is not approved, and nothing is issued for it: `deputize registry approve`",
            record.id
        ));
    }
    let records: Vec<ServerRecord> = registry.servers().map(|server| server.record.clone()).collect();
    for record in &records {
        let seal = registry.seals().iter().find(|seal| seal.id == record.id);
        let accepted = accepted(seal.map_or(&[][..], |seal| &seal.accepted_findings));
        for finding in unaccepted(&look(record, None, &records), &accepted) {
            warnings.push(format!(
                "server {:?}, tool {:?}, {}: {} ({}); `deputize registry show {}`",
                record.id, finding.tool, finding.pointer, finding.reason, finding.id, record.id
            ));
        }
    }
}

fn of_client(client: &Client, resolved: &Resolved, registry: &Registry, warnings: &mut Vec<String>) {
    let mut warn = |text: String| warnings.push(format!("client {:?}: {text}", client.id));
    of_reach(&client.may_call, &client.tenant, registry, &mut warn);
    if let Some(server) = client.server.as_deref().filter(|server| registry.server(server).is_none()) {
        warn(format!("it is the server {server}, which is not in the registry"));
    }
    for accepted in client.accepts_bearer.iter().filter(|accepted| accepted.admits("*")) {
        warn(format!(
            "accepts_bearer admits every client of {}: whoever may register there can call for its users",
            accepted.issuer
        ));
    }
    let asks = !client.may_call.is_empty();
    if asks && client.server.is_none() && client.subject_audiences.is_empty() && !client.client_credentials {
        warn("subject_audiences is empty: it can bring no user's token".to_owned());
    }
    if asks {
        of_tenant(&client.tenant, resolved, &mut warn);
    }
}

fn of_tenant(tenant: &str, resolved: &Resolved, warn: &mut dyn FnMut(String)) {
    if !resolved.providers.iter().any(|upstream| upstream.provider.tenant == tenant) {
        warn(format!("no identity provider has its tenant {tenant:?}"));
    }
}

/// What somebody may call, and is not there.
fn of_reach(may_call: &[Reach], tenant: &str, registry: &Registry, warn: &mut dyn FnMut(String)) {
    for reach in may_call.iter().filter(|reach| reach.resource != "*") {
        match registry.server(&reach.resource) {
            None => warn(format!("may_call names {}, which is not in the registry", reach.resource)),
            Some(server) if server.record.tenant != tenant => {
                warn(format!(
                    "may_call names {}, which is of tenant {:?}",
                    reach.resource, server.record.tenant
                ));
            }
            Some(server) => {
                for tool in reach.tools.iter().flatten().filter(|tool| server.tool(tool).is_none()) {
                    warn(format!("may_call names the tool {tool:?}, which {} does not have", reach.resource));
                }
                for name in reach.prompts.iter().flatten().filter(|name| server.prompt(name).is_none()) {
                    warn(format!(
                        "may_call names the prompt {name:?}, which {} does not have",
                        reach.resource
                    ));
                }
                let is_unknown = |uri: &&String| {
                    server.resource(uri).is_none()
                        && !server.resources().any(|entry| resource::names(uri, &entry.name))
                };
                for uri in reach.resources.iter().flatten().filter(is_unknown) {
                    warn(format!("may_call names {uri:?}, and no resource of {} is such", reach.resource));
                }
            }
        }
    }
}

fn of_server(server: &Server, resolved: &Resolved, warnings: &mut Vec<String>) {
    let record = &server.record;
    let mut warn = |text: String| warnings.push(format!("server {:?}: {text}", record.id));
    match &record.client_id {
        None if record.verifier == Verifier::Guard => {
            warn("it has a guard, but no client_id as which the guard authenticates".to_owned());
        }
        None => {}
        Some(id) => match resolved.clients.iter().find(|client| client.id == *id) {
            None => warn(format!("its client_id {id:?} is not among the clients")),
            Some(client) if client.server.as_deref() != Some(record.resource.as_str()) => {
                warn(format!("its client {id:?} does not say server: {}", record.resource));
            }
            Some(_) => {}
        },
    }
}
