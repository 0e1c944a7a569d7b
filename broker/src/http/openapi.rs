//! The public door as OpenAPI.

use serde_json::{Map, Value, json};

/// The document (OpenAPI 3.1), for a broker at this issuer URL.
pub fn document(issuer: &str) -> Value {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(endpoint.method.to_owned(), operation(endpoint));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Deputize", "version": env!("CARGO_PKG_VERSION")},
        "servers": [{"url": issuer}],
        "paths": paths,
    })
}

struct Endpoint {
    path: &'static str,
    /// In lower case, as the document has it.
    method: &'static str,
    summary: &'static str,
    body: Body,
    proof: Proof,
}

enum Body {
    None,
    /// Name, whether required, meaning. The client's authentication stands among them.
    Form(&'static [(&'static str, bool, &'static str)]),
    /// Of JSON, in words.
    Json(&'static str),
}

/// What a request proves by a header.
#[derive(PartialEq)]
enum Proof {
    None,
    /// RFC 9449.
    Dpop,
    /// A client assertion as bearer.
    Assertion,
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut operation = Map::new();
    operation.insert("summary".to_owned(), endpoint.summary.into());
    operation.insert("responses".to_owned(), responses(endpoint));
    let header = match endpoint.proof {
        Proof::None => None,
        Proof::Dpop => Some(header("DPoP", "DPoP proof (RFC 9449) with a nonce of this broker")),
        Proof::Assertion => {
            Some(header("Authorization", "Bearer, with a fresh client assertion (RFC 7523) of the server"))
        }
    };
    if let Some(header) = header {
        operation.insert("parameters".to_owned(), json!([header]));
    }
    let content = match &endpoint.body {
        Body::None => None,
        Body::Form(members) => Some(json!({"application/x-www-form-urlencoded": {"schema": form(members)}})),
        Body::Json(meaning) => {
            Some(json!({"application/json": {"schema": {"type": "object", "description": meaning}}}))
        }
    };
    if let Some(content) = content {
        operation.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    operation.into()
}

/// The answers: a path that anybody may ask refuses nobody.
fn responses(endpoint: &Endpoint) -> Value {
    let refuses = endpoint.proof != Proof::None || !matches!(endpoint.body, Body::None);
    let refusals = if refuses { REFUSALS } else { &[] };
    let answers = [("200", "done; JSON")].into_iter().chain(refusals.iter().copied());
    answers.map(|(status, description)| (status.to_owned(), json!({"description": description}))).collect()
}

fn header(name: &str, meaning: &str) -> Value {
    json!({
        "name": name, "in": "header", "required": true, "description": meaning, "schema": {"type": "string"},
    })
}

fn form(members: &[(&str, bool, &str)]) -> Value {
    let members = || members.iter().chain(CLIENT);
    let texts: Map<String, Value> = members()
        .map(|(name, _, meaning)| (name.to_string(), json!({"type": "string", "description": meaning})))
        .collect();
    let required: Vec<_> = members().filter(|(_, required, _)| *required).map(|(name, ..)| name).collect();
    json!({"type": "object", "properties": texts, "required": required})
}

const CLIENT: &[(&str, bool, &str)] = &[
    ("client_id", false, "the client; needed with client_secret, and with a TLS certificate that is no SVID"),
    (
        "client_assertion_type",
        false,
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer, or :jwt-spiffe for a JWT-SVID",
    ),
    (
        "client_assertion",
        false,
        "JWT signed by the client: iss = sub = client_id, aud = issuer, jti, at most 5 min; or its JWT-SVID with aud = \
         issuer alone. None with a TLS client certificate",
    ),
    ("client_secret", false, "bootstrap secret, where the configuration allows it"),
];

const REFUSALS: &[(&str, &str)] = &[
    ("400", "refused; as every refusal with error, error_description, error_uri, decision_id"),
    ("401", "the client is not authenticated"),
    ("408", "the body did not come in time"),
    ("413", "body over 64 KiB, of a guard's reports 640 KiB"),
    ("415", "the body is not of the media type that the path takes"),
    ("429", "over a rate; Retry-After"),
    ("503", "nothing certain can be said now; Retry-After"),
];

const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/token",
        method: "post",
        summary: "Exchange a user's token for a token that is good for one server, tool or call (RFC 8693)",
        body: Body::Form(&[
            ("grant_type", true, "urn:ietf:params:oauth:grant-type:token-exchange, or client_credentials"),
            (
                "subject_token",
                false,
                "the user's JWT, or the tool-call token that this server was called with",
            ),
            ("subject_token_type", false, "urn:ietf:params:oauth:token-type: jwt, access_token or id_token"),
            ("actor_token", false, "the agent's token, where the client is not the agent"),
            ("actor_token_type", false, "its type"),
            ("resource", true, "the MCP server's resource URI (RFC 8707), exactly one"),
            ("scope", false, "narrows; the tool's name"),
            ("authorization_details", false, "RFC 9396: one entry of type mcp_tool_call"),
            ("transaction_id", false, "a transaction to go on with"),
            ("approval_id", false, "a person's decision to come back with"),
            ("parent_request_id", false, "recorded as claimed"),
            ("host", false, "recorded as claimed"),
            ("model", false, "recorded as claimed"),
            ("workflow", false, "recorded as claimed"),
            ("traceparent", false, "W3C Trace Context"),
        ]),
        proof: Proof::Dpop,
    },
    Endpoint {
        path: "/introspect",
        method: "post",
        summary: "Ask about a token (RFC 7662)",
        body: Body::Form(&[("token", true, "the token")]),
        proof: Proof::None,
    },
    Endpoint {
        path: "/revoke",
        method: "post",
        summary: "Revoke a token and everything made from it (RFC 7009)",
        body: Body::Form(&[("token", true, "the token")]),
        proof: Proof::None,
    },
    Endpoint {
        path: "/redeem",
        method: "post",
        summary: "Use up a single-use token, for the guard of its audience",
        body: Body::Form(&[("token", true, "the token")]),
        proof: Proof::None,
    },
    Endpoint {
        path: "/aws/credentials",
        method: "post",
        summary: "AWS credentials for the one resource in a call, for the server that was called; where AWS is configured. Sealed (application/jose) to a client whose JWKS has a key with use \"enc\"",
        body: Body::Form(&[
            ("subject_token", true, "the tool-call token that the server was called with"),
            ("subject_token_type", true, "urn:ietf:params:oauth:token-type:access_token"),
            ("arguments", true, "the call's arguments, a JSON object"),
            ("input_responses", false, "the call's inputResponses, JSON, where it has them"),
            ("request_state", false, "the call's requestState, JSON, where it has one"),
            ("template", false, "name of the role template that the server expects"),
        ]),
        proof: Proof::None,
    },
    Endpoint {
        path: "/guard/snapshot",
        method: "get",
        summary: "What the registry approved for this server: tools, keys, revocations; signed",
        body: Body::None,
        proof: Proof::Assertion,
    },
    Endpoint {
        path: "/guard/events",
        method: "get",
        summary: "The same as a stream (text/event-stream): snapshot, then revocation, snapshot or alive as it comes",
        body: Body::None,
        proof: Proof::Assertion,
    },
    Endpoint {
        path: "/guard/events",
        method: "post",
        summary: "Report what the guard of this server saw",
        body: Body::Json(
            "events: at most 100 of id (UUIDv7), kind (connected, discovered, list_changed, executed, failed, drifted), at_ms, and where they apply txn, jti, tool, class, bytes, detail (at most 4 KiB)",
        ),
        proof: Proof::Assertion,
    },
    Endpoint {
        path: "/jwks",
        method: "get",
        summary: "Public keys (RFC 7517)",
        body: Body::None,
        proof: Proof::None,
    },
    Endpoint {
        path: "/.well-known/oauth-authorization-server",
        method: "get",
        summary: "Metadata (RFC 8414)",
        body: Body::None,
        proof: Proof::None,
    },
    Endpoint {
        path: "/web-identity/.well-known/openid-configuration",
        method: "get",
        summary: "Discovery document of the identity that AWS knows; where AWS is configured",
        body: Body::None,
        proof: Proof::None,
    },
    Endpoint {
        path: "/web-identity/jwks",
        method: "get",
        summary: "Public keys of that identity; where AWS is configured",
        body: Body::None,
        proof: Proof::None,
    },
    Endpoint {
        path: "/spiffe/bundle",
        method: "get",
        summary: "Trust bundle (SPIFFE Trust Domain and Bundle); where SPIFFE is configured",
        body: Body::None,
        proof: Proof::None,
    },
    Endpoint {
        path: "/spiffe/.well-known/openid-configuration",
        method: "get",
        summary: "Discovery document of JWT-SVIDs; where SPIFFE is configured",
        body: Body::None,
        proof: Proof::None,
    },
    Endpoint {
        path: "/spiffe/jwks",
        method: "get",
        summary: "Public keys of JWT-SVIDs; where SPIFFE is configured",
        body: Body::None,
        proof: Proof::None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_says_how_it_is_asked_and_what_it_answers() {
        let document = document("https://deputize.example");
        let operation = |path: &str, method: &str| document["paths"][path][method].clone();

        let exchange = operation("/token", "post");
        let form = &exchange["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"];
        assert_eq!(form["required"], json!(["grant_type", "resource"]));
        assert_eq!(form["properties"]["subject_token"]["type"], "string");
        assert_eq!(exchange["parameters"][0]["name"], "DPoP");
        assert!(exchange["responses"].get("503").is_some());

        // Two methods of one path, both there.
        assert_eq!(operation("/guard/events", "get")["requestBody"], Value::Null);
        assert_eq!(operation("/guard/events", "post")["parameters"][0]["name"], "Authorization");

        // What anybody may read refuses nobody.
        let keys = operation("/jwks", "get")["responses"].clone();
        assert_eq!(keys, json!({"200": {"description": "done; JSON"}}));
    }
}
