//! What the story of a decision says of an SVID, and of a registration entry.

use deputize_issuer::{
    entry::{Draft, Exchange},
    record::{Entry, Kind, SvidEntry},
};

use crate::commands::{audit::svid_name, moment, output::Facts};

/// The SVID or the entry, where the record is of one.
pub(super) fn tell(record: &Entry, facts: &mut Facts) {
    if let Some(svid) = &record.spiffe {
        tell_svid(record, svid, facts);
    }
    if let Some(draft) = &record.registration {
        tell_entry(record, draft, facts);
    }
    if let Some(node) = &record.node {
        facts.add("node", node);
        facts.add_some("by", record.by.as_deref());
    }
}

/// Whether `later` changed the entry that `record` is about.
pub(super) fn is_of_one_entry(record: &Entry, later: &Entry) -> bool {
    let of_svid = record.spiffe.as_ref().and_then(|svid| svid.entry.as_deref());
    let entry = of_svid.or(record.registration.as_ref().map(|draft| draft.id.as_str()));
    entry.is_some() && entry == later.registration.as_ref().map(|draft| draft.id.as_str())
}

fn tell_svid(record: &Entry, svid: &SvidEntry, facts: &mut Facts) {
    let denied = record.kind == Kind::Denial;
    facts.add_some("SVID", svid.svid.map(svid_name));
    let is_svid = record.is_of_an_svid();
    facts.add_some("SPIFFE ID", svid.spiffe_id.as_deref().filter(|_| is_svid));
    let by = if denied { "for entry" } else { "by entry" };
    facts.add_some(by, svid.entry.as_deref().map(|id| format!("{id}; {}", how_it_came_to_be(id))));
    match &svid.attested {
        None => {
            facts.add("on node", &svid.node);
            let by_whose_word = if svid.reported_by_node { ", as its node says" } else { "" };
            for selector in &svid.asked_by {
                facts.add("asked by", format!("a process that is {selector}{by_whose_word}"));
            }
        }
        Some(attested) => {
            facts.add("of the node", &svid.node).add("attested by", attested);
            for evidence in &svid.asked_by {
                facts.add("evidence", evidence);
            }
        }
    }
    for audience in &svid.audiences {
        facts.add("audience", audience);
    }
    for name in &svid.dns_names {
        facts.add("DNS name", name);
    }
    facts.add_some("serial", svid.serial.as_deref());
    if !is_svid {
        return;
    }
    facts.add_some("jti", record.jti.as_deref());
    facts.add_some("signed by", svid.authority.as_deref().or(record.key.as_deref()));
    facts.add_some("good until", svid.not_after.map(moment::format_seconds));
}

fn tell_entry(record: &Entry, draft: &Draft, facts: &mut Facts) {
    facts.add("entry", format!("{}; {}", draft.id, how_it_came_to_be(&draft.id)));
    facts.add_some("SPIFFE ID", Some(&draft.spiffe_id).filter(|id| !id.is_empty()));
    for selector in &draft.selectors {
        facts.add("of a process", format!("that is {selector}"));
    }
    for node in &draft.nodes {
        facts.add("on node", node);
    }
    facts.add_some("hint", Some(&draft.hint).filter(|hint| !hint.is_empty()));
    for name in &draft.dns_names {
        facts.add("DNS name", name);
    }
    for domain in &draft.federates_with {
        facts.add("federates", format!("with {domain}"));
    }
    if let Some(exchange) = &draft.exchange {
        facts.add("exchanges", exchange_in_words(exchange));
    }
    let seconds = |ttl: Option<u64>| ttl.map(|ttl| format!("live {ttl} seconds"));
    facts.add_some("X.509-SVIDs", seconds(draft.x509_svid_ttl_seconds));
    facts.add_some("JWT-SVIDs", seconds(draft.jwt_svid_ttl_seconds));
    facts.add_some("ends", draft.expires_at_seconds.map(moment::format_seconds));
    facts.add_some("by", record.by.as_deref());
}

/// What processes of an entry may exchange, and for what.
pub(in crate::commands) fn exchange_in_words(exchange: &Exchange) -> String {
    let reaches = exchange.may_call.iter().map(|reach| {
        let lists = [("tools", &reach.tools), ("prompts", &reach.prompts), ("resources", &reach.resources)];
        let listed: Vec<String> = lists
            .into_iter()
            .filter_map(|(kind, names)| Some(format!("{kind} {}", names.as_ref()?.join(", "))))
            .collect();
        let what = if listed.is_empty() { "all of it".to_owned() } else { listed.join("; ") };
        format!("{} ({what})", reach.resource)
    });
    let reaches: Vec<String> = reaches.collect();
    let audiences = exchange.subject_audiences.join(", ");
    format!("tokens for {audiences}, of tenant {}, into tokens for {}", exchange.tenant, reaches.join(", "))
}

fn how_it_came_to_be(entry: &str) -> String {
    format!("`deputize audit query --entry {entry}` tells all of it")
}
