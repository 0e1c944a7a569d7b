//! The servers of the registry, and their tools.

use deputize_call::digest::tool_digest;
use serde_json::{Value, json};

/// One tool of tier medium and level L3, two looser ones, and a next hop.
pub(super) fn servers() -> Vec<Value> {
    let text = json!({ "type": "string", "minLength": 1, "maxLength": 200 });
    let refund = tool(
        "refund_payment",
        "write",
        "medium",
        json!({ "payment_id": text, "amount_cents": { "type": "integer", "minimum": 1 } }),
        json!({
            "level": "L3",
            "downstream": [{ "server": LEDGER, "tool": "list_entries", "level": "L1" }, { "server": LEDGER, "tool": "post_entry", "level": "L2" }],
            "example_arguments": { "payment_id": "pay_81", "amount_cents": 4200 },
        }),
    );
    let find = tool("find_customer", "read", "low", json!({ "name": text }), json!({}));
    let export = tool(
        "export_folder",
        "read",
        "medium",
        json!({ "path": text, "format": text }),
        json!({ "level": "L2" }),
    );
    let retired =
        tool("old_refund", "write", "low", json!({ "payment_id": text }), json!({ "enabled": false }));
    let wipe = tool("wipe", "write", "critical", json!({ "name": text }), json!({}));
    let numbers = tool("count", "read", "low", json!({ "n": { "type": "number" } }), json!({}));
    let list = tool("list_entries", "read", "low", json!({ "account": text }), json!({}));
    let post = tool(
        "post_entry",
        "write",
        "medium",
        json!({ "account": text, "amount_cents": { "type": "integer" } }),
        json!({}),
    );
    vec![
        server(
            "crm",
            CRM,
            "acme",
            json!({ "client_id": "crm", "tools": [refund, find, export, retired, wipe, numbers] }),
        ),
        server("ledger", LEDGER, "acme", json!({ "client_id": "ledger", "tools": [list, post] })),
        server(
            "archive",
            ARCHIVE,
            "acme",
            json!({ "enabled": false, "tools": [tool("look", "read", "low", json!({ "name": text }), json!({}))] }),
        ),
        server(
            "proposed",
            PROPOSED,
            "acme",
            json!({ "approved": false, "tools": [tool("look", "read", "low", json!({ "name": text }), json!({}))] }),
        ),
        server(
            "globex-crm",
            GLOBEX,
            "globex",
            json!({ "tools": [tool("find_customer", "read", "low", json!({ "name": text }), json!({}))] }),
        ),
    ]
}

fn server(id: &str, resource: &str, tenant: &str, more: Value) -> Value {
    let mut server = json!({
        "id": id, "resource": resource, "tenant": tenant, "version": "1.0.0", "owner": "conformance",
        "purpose": "to be asked for", "environment": "development", "data_class": "internal", "verifier": "guard",
    });
    for (member, value) in more.as_object().unwrap() {
        server[member] = value.clone();
    }
    server
}

fn tool(name: &str, effect: &str, tier: &str, properties: Value, more: Value) -> Value {
    let required: Vec<_> = properties.as_object().unwrap().keys().cloned().collect();
    let definition = json!({
        "name": name, "description": format!("Does {name}."),
        "inputSchema": { "type": "object", "properties": properties, "required": required, "additionalProperties": false },
    });
    let digest = tool_digest(definition.as_object().unwrap()).unwrap();
    let mut tool = json!({ "tier": tier, "effect": effect, "tool_digest": digest, "definition": definition });
    for (member, value) in more.as_object().unwrap() {
        tool[member] = value.clone();
    }
    tool
}

/// The server that most requests ask for.
pub const CRM: &str = "https://crm.acme.test/mcp";
/// The server of the next hop.
pub const LEDGER: &str = "https://ledger.acme.test/mcp";
/// A disabled server.
pub const ARCHIVE: &str = "https://archive.acme.test/mcp";
/// A server that was imported and that nobody has approved.
pub const PROPOSED: &str = "https://proposed.acme.test/mcp";
/// A server of another tenant.
pub const GLOBEX: &str = "https://crm.globex.test/mcp";

pub(super) const POLICY: &str = r#"
@id("people-may-call")
permit (principal is User, action == Action::"tools/call", resource is Tool);

@id("everyone-may-list")
permit (principal, action == Action::"tools/list", resource is Server);

@id("suspended-may-not")
forbid (principal is User, action == Action::"tools/call", resource is Tool)
when { principal has acr && principal.acr == "suspended" };
"#;
