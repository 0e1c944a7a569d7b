//! The public door as OpenAPI.

use serde_json::Value;
use utoipa::openapi::{
    ContentBuilder, HttpMethod, InfoBuilder, ObjectBuilder, OpenApiBuilder, PathItem, PathsBuilder, RefOr,
    Required, ResponseBuilder, ServerBuilder,
    path::{OperationBuilder, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
    schema::{Object, Schema, Type},
};

/// The document, for a broker at this issuer URL.
pub fn document(issuer: &str) -> Value {
    let mut paths = PathsBuilder::new();
    for endpoint in ENDPOINTS {
        paths = paths.path(endpoint.path, PathItem::new(endpoint.method.clone(), operation(endpoint)));
    }
    let document = OpenApiBuilder::new()
        .info(InfoBuilder::new().title("Deputize").version(env!("CARGO_PKG_VERSION")).build())
        .servers(Some([ServerBuilder::new().url(issuer).build()]))
        .paths(paths.build())
        .build();
    serde_json::to_value(document).unwrap_or_default()
}

struct Endpoint {
    path: &'static str,
    method: HttpMethod,
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

fn operation(endpoint: &Endpoint) -> utoipa::openapi::path::Operation {
    let mut operation = OperationBuilder::new()
        .summary(Some(endpoint.summary))
        .response("200", ResponseBuilder::new().description("done; JSON"));
    operation = match endpoint.proof {
        Proof::None => operation,
        Proof::Dpop => {
            operation.parameter(header("DPoP", "DPoP proof (RFC 9449) with a nonce of this broker"))
        }
        Proof::Assertion => operation.parameter(header(
            "Authorization",
            "Bearer, with a fresh client assertion (RFC 7523) of the server",
        )),
    };
    if endpoint.proof != Proof::None || !matches!(endpoint.body, Body::None) {
        for (status, description) in REFUSALS {
            operation = operation.response(*status, ResponseBuilder::new().description(*description));
        }
    }
    let (media_type, schema) = match &endpoint.body {
        Body::None => return operation.build(),
        Body::Form(members) => ("application/x-www-form-urlencoded", form(members)),
        Body::Json(meaning) => ("application/json", ObjectBuilder::new().description(Some(*meaning)).build()),
    };
    let content = ContentBuilder::new().schema(Some(Schema::Object(schema))).build();
    let body = RequestBodyBuilder::new().content(media_type, content).required(Some(Required::True)).build();
    operation.request_body(Some(body)).build()
}

fn header(name: &str, meaning: &'static str) -> ParameterBuilder {
    let header = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header);
    header.required(Required::True).description(Some(meaning))
}

fn form(members: &[(&'static str, bool, &'static str)]) -> Object {
    let mut form = ObjectBuilder::new();
    for (name, required, meaning) in members.iter().chain(CLIENT) {
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some(*meaning));
        form = form.property(*name, RefOr::T(Schema::Object(text.build())));
        if *required {
            form = form.required(*name);
        }
    }
    form.build()
}

const CLIENT: &[(&str, bool, &str)] = &[
    ("client_id", false, "the client; needed with client_secret alone"),
    ("client_assertion_type", false, super::request::ASSERTION_TYPE),
    (
        "client_assertion",
        false,
        "JWT signed by the client: iss = sub = client_id, aud = issuer, jti, at most 5 min",
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
        method: HttpMethod::Post,
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
        method: HttpMethod::Post,
        summary: "Ask about a token (RFC 7662)",
        body: Body::Form(&[("token", true, "the token")]),
        proof: Proof::None,
    },
    Endpoint {
        path: "/revoke",
        method: HttpMethod::Post,
        summary: "Revoke a token and everything made from it (RFC 7009)",
        body: Body::Form(&[("token", true, "the token")]),
        proof: Proof::None,
    },
    Endpoint {
        path: "/redeem",
        method: HttpMethod::Post,
        summary: "Use up a single-use token, for the guard of its audience",
        body: Body::Form(&[("token", true, "the token")]),
        proof: Proof::None,
    },
    Endpoint {
        path: "/guard/snapshot",
        method: HttpMethod::Get,
        summary: "What the registry approved for this server: tools, keys, revocations; signed",
        body: Body::None,
        proof: Proof::Assertion,
    },
    Endpoint {
        path: "/guard/events",
        method: HttpMethod::Get,
        summary: "The same as a stream (text/event-stream): snapshot, then revocation, snapshot or alive as it comes",
        body: Body::None,
        proof: Proof::Assertion,
    },
    Endpoint {
        path: "/guard/events",
        method: HttpMethod::Post,
        summary: "Report what the guard of this server saw",
        body: Body::Json(
            "events: at most 100 of id (UUIDv7), kind (connected, discovered, list_changed, executed, failed, drifted), at_ms, and where they apply txn, jti, tool, class, bytes, detail (at most 4 KiB)",
        ),
        proof: Proof::Assertion,
    },
    Endpoint {
        path: "/jwks",
        method: HttpMethod::Get,
        summary: "Public keys (RFC 7517)",
        body: Body::None,
        proof: Proof::None,
    },
    Endpoint {
        path: "/.well-known/oauth-authorization-server",
        method: HttpMethod::Get,
        summary: "Metadata (RFC 8414)",
        body: Body::None,
        proof: Proof::None,
    },
];
