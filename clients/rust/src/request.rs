//! What a client asks for.

use crate::error::ExchangeError;
use deputize_call::{action::Action, claims::DETAIL_TYPE, constraints::Constraints, digest::Digest};
use serde_json::{Map, Value, json};
use url::form_urlencoded;
use zeroize::Zeroizing;

/// Kinds of token (RFC 8693 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// Any JWT.
    Jwt,
    /// An access token; ours too, at the next hop.
    AccessToken,
    /// An OpenID Connect ID token.
    IdToken,
}

/// What is asked of the server: it decides the binding level.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    /// L0: discovery and listing.
    Listing,
    /// L1: one tool, prompt or resource.
    Tool {
        /// Its name, or its URI.
        name: String,
    },
    /// L2: one tool, every argument constrained.
    Constrained {
        /// Name of the tool.
        name: String,
        /// What each argument may be.
        constraints: Constraints,
    },
    /// L3: one call.
    Call {
        /// Name of the tool.
        name: String,
        /// The exact arguments.
        arguments: Value,
        /// `inputResponses` of a multi-round-trip retry.
        input_responses: Option<Value>,
        /// `requestState` of a multi-round-trip retry.
        request_state: Option<Value>,
    },
    /// L3 by digest alone, where policy needs no arguments.
    Digest {
        /// Name of the tool.
        name: String,
        /// Digest of the call.
        call_digest: Digest,
    },
}

/// One exchange.
#[derive(Clone)]
pub struct ExchangeRequest {
    resource: String,
    subject: Option<(Zeroizing<String>, TokenType)>,
    actor: Option<(Zeroizing<String>, TokenType)>,
    action: Action,
    detail: Detail,
    scope: Option<String>,
    approval_id: Option<String>,
    wait_seconds: Option<u64>,
    transaction_id: Option<String>,
    claimed: Vec<(&'static str, String)>,
}

impl ExchangeRequest {
    /// Asks for the server at `resource` in the name of the user whose JWT is `subject_token`; L0 unless more is said.
    pub fn new(resource: &str, subject_token: &str) -> Self {
        Self {
            resource: resource.to_owned(),
            subject: Some((Zeroizing::new(subject_token.to_owned()), TokenType::Jwt)),
            actor: None,
            action: Action::CallTool,
            detail: Detail::Listing,
            scope: None,
            approval_id: None,
            wait_seconds: None,
            transaction_id: None,
            claimed: Vec::new(),
        }
    }

    /// Asks for the client's own L0 token (`client_credentials`), in nobody's name.
    pub fn own(resource: &str) -> Self {
        Self { subject: None, ..Self::new(resource, "") }
    }

    /// The kind of the subject token, if it is not a plain JWT.
    #[must_use]
    pub fn subject_token_type(mut self, kind: TokenType) -> Self {
        if let Some((_, present)) = &mut self.subject {
            *present = kind;
        }
        self
    }

    /// The token of who acts, where that is not this client itself.
    #[must_use]
    pub fn actor_token(mut self, token: &str, kind: TokenType) -> Self {
        self.actor = Some((Zeroizing::new(token.to_owned()), kind));
        self
    }

    /// What is asked of the server.
    #[must_use]
    pub fn detail(mut self, detail: Detail) -> Self {
        self.detail = detail;
        self
    }

    /// What is done with what the detail names: a tool is called, unless this says otherwise.
    #[must_use]
    pub fn action(mut self, action: Action) -> Self {
        self.action = action;
        self
    }

    /// L3: this prompt, with exactly these arguments.
    #[must_use]
    pub fn prompt(self, name: &str, arguments: Value) -> Self {
        self.call(name, arguments).action(Action::GetPrompt)
    }

    /// L3: one reading of this resource, whose URI is compared as it stands.
    #[must_use]
    pub fn read(self, uri: &str) -> Self {
        self.call(uri, json!({})).action(Action::ReadResource)
    }

    /// L3: this call of `name`, with exactly these arguments.
    #[must_use]
    pub fn call(self, name: &str, arguments: Value) -> Self {
        let name = name.to_owned();
        self.detail(Detail::Call { name, arguments, input_responses: None, request_state: None })
    }

    /// Narrows the scope.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        self.scope = Some(scope.to_owned());
        self
    }

    /// Comes back for a call that had to wait for a person; the broker may hold its answer back for `wait_seconds`.
    #[must_use]
    pub fn approval(mut self, approval_id: &str, wait_seconds: Option<u64>) -> Self {
        self.approval_id = Some(approval_id.to_owned());
        self.wait_seconds = wait_seconds.map(|seconds| seconds.min(MAX_WAIT_SECONDS));
        self
    }

    /// Goes on with a transaction that this client began.
    #[must_use]
    pub fn transaction(mut self, transaction_id: &str) -> Self {
        self.transaction_id = Some(transaction_id.to_owned());
        self
    }

    /// Says `host`, recorded as claimed.
    #[must_use]
    pub fn host(self, host: &str) -> Self {
        self.claim("host", host)
    }

    /// Says `model`, recorded as claimed.
    #[must_use]
    pub fn model(self, model: &str) -> Self {
        self.claim("model", model)
    }

    /// Says `workflow`, recorded as claimed.
    #[must_use]
    pub fn workflow(self, workflow: &str) -> Self {
        self.claim("workflow", workflow)
    }

    /// Says `traceparent`, recorded as claimed.
    #[must_use]
    pub fn traceparent(self, traceparent: &str) -> Self {
        self.claim("traceparent", traceparent)
    }

    /// Says `parent_request_id`, recorded as claimed.
    #[must_use]
    pub fn parent_request_id(self, id: &str) -> Self {
        self.claim("parent_request_id", id)
    }

    fn claim(mut self, name: &'static str, value: &str) -> Self {
        self.claimed.retain(|(present, _)| *present != name);
        self.claimed.push((name, value.to_owned()));
        self
    }

    pub(crate) fn wait_seconds(&self) -> Option<u64> {
        self.wait_seconds
    }

    /// Whether an answer may serve again: never at L3, and never when it was waited for.
    pub(crate) fn may_be_cached(&self) -> bool {
        let binds_one_call = matches!(self.detail, Detail::Call { .. } | Detail::Digest { .. });
        !binds_one_call && self.approval_id.is_none()
    }

    /// The parameters by their names, without those that prove the client: for whoever sends them otherwise than in a form.
    ///
    /// # Errors
    /// [`ExchangeError::Protocol`]: the constraints cannot be written.
    pub fn parameters(&self) -> Result<Vec<(&'static str, Zeroizing<String>)>, ExchangeError> {
        let mut parameters = Vec::new();
        let mut add = |name, value: &str| parameters.push((name, Zeroizing::new(value.to_owned())));
        match &self.subject {
            None => add("grant_type", "client_credentials"),
            Some((token, kind)) => {
                add("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
                add("subject_token", token);
                add("subject_token_type", kind.as_str());
            }
        }
        if let Some((token, kind)) = &self.actor {
            add("actor_token", token);
            add("actor_token_type", kind.as_str());
        }
        add("resource", &self.resource);
        if let Some(detail) = self.detail.to_json(self.action, &self.resource)? {
            add("authorization_details", &Value::Array(vec![detail]).to_string());
        }
        let optional = [
            ("scope", &self.scope),
            ("approval_id", &self.approval_id),
            ("transaction_id", &self.transaction_id),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                add(name, value);
            }
        }
        for (name, value) in &self.claimed {
            add(name, value);
        }
        Ok(parameters)
    }

    /// The parameters as a form. Their order is fixed: they are the key of the cache too.
    pub(crate) fn form(&self) -> Result<Zeroizing<String>, ExchangeError> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.parameters()? {
            form.append_pair(name, &value);
        }
        Ok(Zeroizing::new(form.finish()))
    }
}

impl std::fmt::Debug for ExchangeRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExchangeRequest").field("resource", &self.resource).finish_non_exhaustive()
    }
}

impl Detail {
    fn to_json(&self, action: Action, resource: &str) -> Result<Option<Value>, ExchangeError> {
        let mut members = Map::new();
        let name = match self {
            Self::Listing => return Ok(None),
            Self::Tool { name } => name,
            Self::Constrained { name, constraints } => {
                let constraints = serde_json::to_value(constraints)
                    .map_err(|_| ExchangeError::Protocol("the constraints cannot be written"))?;
                members.insert("constraints".to_owned(), constraints);
                name
            }
            Self::Call { name, arguments, input_responses, request_state } => {
                members.insert("arguments".to_owned(), arguments.clone());
                let steering = [("inputResponses", input_responses), ("requestState", request_state)];
                for (member, value) in steering {
                    if let Some(value) = value {
                        members.insert(member.to_owned(), value.clone());
                    }
                }
                name
            }
            Self::Digest { name, call_digest } => {
                members.insert("call_digest".to_owned(), json!(call_digest));
                name
            }
        };
        members.insert("type".to_owned(), json!(DETAIL_TYPE));
        members.insert("locations".to_owned(), json!([resource]));
        members.insert("actions".to_owned(), json!([action.as_str()]));
        members.insert("identifier".to_owned(), json!(name));
        Ok(Some(Value::Object(members)))
    }
}

impl TokenType {
    /// The URI of RFC 8693 §3.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "urn:ietf:params:oauth:token-type:jwt",
            Self::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
        }
    }
}

const MAX_WAIT_SECONDS: u64 = 60;
