//! Answers in the ways of three services: XML for STS and EC2, JSON for DynamoDB.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// The services that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Sts,
    Ec2,
    DynamoDb,
}

/// What comes of a request.
pub(super) enum Answer {
    /// Elements within the answer's own.
    Xml(String),
    Json(Value),
}

/// A refusal, by its code at AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// As CloudTrail has it.
    pub(super) fn in_the_trail(&self, service: Service) -> String {
        match service {
            Service::Ec2 => format!("Client.{}", self.code),
            Service::Sts => self.code.to_owned(),
            Service::DynamoDb => self.code.trim_end_matches("Exception").to_owned(),
        }
    }

    fn status(&self) -> StatusCode {
        match self.code {
            "AccessDenied"
            | "UnauthorizedOperation"
            | "InvalidClientTokenId"
            | "MissingAuthenticationToken"
            | "SignatureDoesNotMatch"
            | "ExpiredToken" => StatusCode::FORBIDDEN,
            "Throttling" => StatusCode::TOO_MANY_REQUESTS,
            "InternalFailure" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl Service {
    /// Its name in a signature's scope, and before `.amazonaws.com`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sts => "sts",
            Self::Ec2 => "ec2",
            Self::DynamoDb => "dynamodb",
        }
    }

    /// The answer to an action.
    pub(super) fn answer(
        self,
        action: &str,
        request_id: &str,
        answered: Result<Answer, Refusal>,
    ) -> Response {
        match (self, answered) {
            (_, Ok(Answer::Json(body))) => json_response(StatusCode::OK, &body),
            (Self::Sts, Ok(Answer::Xml(content))) => {
                let result = element(&format!("{action}Result"), &content);
                let metadata = element("ResponseMetadata", &text("RequestId", request_id));
                xml_response(StatusCode::OK, &format!("{action}Response"), STS, &(result + &metadata))
            }
            (Self::Ec2 | Self::DynamoDb, Ok(Answer::Xml(content))) => {
                let content = text("requestId", request_id) + &content;
                xml_response(StatusCode::OK, &format!("{action}Response"), EC2, &content)
            }
            (Self::Sts, Err(refusal)) => {
                let error = text("Type", "Sender") + &refusal.elements();
                let content = element("Error", &error) + &text("RequestId", request_id);
                xml_response(refusal.status(), "ErrorResponse", STS, &content)
            }
            (Self::Ec2, Err(refusal)) => {
                let errors = element("Errors", &element("Error", &refusal.elements()));
                let content = errors + &text("RequestID", request_id);
                xml_response(refusal.status(), "Response", EC2, &content)
            }
            (Self::DynamoDb, Err(refusal)) => {
                let body = json!({
                    "__type": format!("com.amazon.coral.service#{}", refusal.code), "message": refusal.message
                });
                json_response(StatusCode::BAD_REQUEST, &body)
            }
        }
    }
}

impl Refusal {
    fn elements(&self) -> String {
        text("Code", self.code) + &text("Message", &self.message)
    }
}

/// An element with a text.
pub(super) fn text(name: &str, text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    element(name, &escaped)
}

/// An element around others.
pub(super) fn element(name: &str, content: &str) -> String {
    format!("<{name}>{content}</{name}>")
}

fn xml_response(status: StatusCode, name: &str, namespace: &str, content: &str) -> Response {
    let body = format!("<{name} xmlns=\"{namespace}\">{content}</{name}>");
    (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.0")], body.to_string()).into_response()
}

const STS: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const EC2: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
