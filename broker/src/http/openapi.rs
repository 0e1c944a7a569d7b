//! The public door as OpenAPI.

use serde_json::Value;
use utoipa::openapi::{
    ContentBuilder, HttpMethod, InfoBuilder, ObjectBuilder, OpenApiBuilder, PathItem, PathsBuilder, RefOr,
    Required, ResponseBuilder, ServerBuilder,
    path::{OperationBuilder, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
    schema::{Schema, Type},
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
    /// Name, whether required, meaning.
    form: &'static [(&'static str, bool, &'static str)],
    proof: bool,
}

fn operation(endpoint: &Endpoint) -> utoipa::openapi::path::Operation {
    let mut operation = OperationBuilder::new()
        .summary(Some(endpoint.summary))
        .response("200", ResponseBuilder::new().description("done; JSON"));
    if endpoint.proof {
        operation = operation.parameter(
            ParameterBuilder::new()
                .name("DPoP")
                .parameter_in(ParameterIn::Header)
                .required(Required::True)
                .description(Some("DPoP proof (RFC 9449) with a nonce of this broker")),
        );
    }
    if endpoint.form.is_empty() {
        return operation.build();
    }
    let mut form = ObjectBuilder::new();
    for (name, required, meaning) in endpoint.form.iter().chain(CLIENT) {
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some(*meaning));
        form = form.property(*name, RefOr::T(Schema::Object(text.build())));
        if *required {
            form = form.required(*name);
        }
    }
    let content = ContentBuilder::new().schema(Some(Schema::Object(form.build()))).build();
    let body = RequestBodyBuilder::new()
        .content("application/x-www-form-urlencoded", content)
        .required(Some(Required::True))
        .build();
    for (status, description) in REFUSALS {
        operation = operation.response(*status, ResponseBuilder::new().description(*description));
    }
    operation.request_body(Some(body)).build()
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
    ("413", "body over 64 KiB"),
    ("415", "not a form"),
    ("429", "over a rate; Retry-After"),
    ("503", "nothing certain can be said now; Retry-After"),
];

const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/token",
        method: HttpMethod::Post,
        summary: "Exchange a user's token for a token that is good for one server, tool or call (RFC 8693)",
        form: &[
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
        ],
        proof: true,
    },
    Endpoint {
        path: "/introspect",
        method: HttpMethod::Post,
        summary: "Ask about a token (RFC 7662)",
        form: &[("token", true, "the token")],
        proof: false,
    },
    Endpoint {
        path: "/revoke",
        method: HttpMethod::Post,
        summary: "Revoke a token and everything made from it (RFC 7009)",
        form: &[("token", true, "the token")],
        proof: false,
    },
    Endpoint {
        path: "/redeem",
        method: HttpMethod::Post,
        summary: "Use up a single-use token, for the guard of its audience",
        form: &[("token", true, "the token")],
        proof: false,
    },
    Endpoint {
        path: "/jwks",
        method: HttpMethod::Get,
        summary: "Public keys (RFC 7517)",
        form: &[],
        proof: false,
    },
    Endpoint {
        path: "/.well-known/oauth-authorization-server",
        method: HttpMethod::Get,
        summary: "Metadata (RFC 8414)",
        form: &[],
        proof: false,
    },
];
