//! A small stand-in for AWS on a loopback port, so that `dev` and `demo` show a role session from its request to its
//! trace, on a machine without any account: STS, two instances of EC2, a table of DynamoDB, and CloudTrail's record.
//!
//! NOT AWS, and NOT FOR PRODUCTION: it knows five actions, and of IAM what session policies of templates say. What it does
//! not know it denies. Its roles, its data and its keys are gone when the process ends.

mod answer;
pub mod call;
pub mod container;
pub(crate) mod dynamodb;
pub mod ec2;
mod form;
mod pattern;
mod policy;
pub mod role;
mod sessions;
mod signature;
mod sts;
pub mod templates;
#[cfg(test)]
mod tests;
mod trail;
mod web_identity;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use deputize_call::moment;
use deputize_client::Clock;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

use self::{
    answer::{Answer, Refusal, Service},
    ec2::Instance,
    form::Form,
    policy::Request,
    role::{ACCOUNT, REGION, Role},
    sessions::Sessions,
    signature::Signed,
    trail::Trail,
    web_identity::WebIdentity,
};

/// The stand-in: one account in one region.
pub struct StandIn {
    clock: Arc<dyn Clock>,
    started_seconds: u64,
    web_identity: WebIdentity,
    roles: Vec<Arc<Role>>,
    sessions: Sessions,
    instances: [Instance; 2],
    trail: Trail,
}

impl StandIn {
    /// An account with the roles of the environment's templates, which knows the provider of this issuer.
    ///
    /// # Errors
    /// What is wrong.
    pub fn new(web_identity_issuer: &str, clock: Arc<dyn Clock>) -> Result<Self, String> {
        Ok(Self {
            started_seconds: clock.now_seconds(),
            web_identity: WebIdentity::new(web_identity_issuer).map_err(|error| error.to_string())?,
            roles: templates::roles()?.into_iter().map(Arc::new).collect(),
            sessions: Sessions::default(),
            instances: ec2::instances(),
            trail: Trail::new(Arc::clone(&clock)),
            clock,
        })
    }

    /// Its routes: every service at `/`, and what CloudTrail would have written at [`TRAIL_PATH`].
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/", post(action))
            .route(TRAIL_PATH, get(events))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(Arc::clone(self))
    }

    /// How often an instance was restarted.
    pub fn restarts(&self, instance: &str) -> u64 {
        self.instances.iter().find(|known| known.is(instance)).map_or(0, Instance::restarts)
    }

    /// Whether role and session policy both allow this. `leading_key` is that of a DynamoDB item.
    fn permits(&self, signed: &Signed, action: &str, resource: &str, leading_key: Option<&str>) -> bool {
        let session = &signed.session;
        let one = |value: &str| vec![value.to_owned()];
        let mut context: BTreeMap<&'static str, Vec<String>> = BTreeMap::from([
            ("aws:CurrentTime", one(&moment::format_seconds(self.clock.now_seconds()))),
            ("aws:PrincipalAccount", one(ACCOUNT)),
            ("aws:ResourceAccount", one(ACCOUNT)),
            ("aws:RequestedRegion", one(&signed.region)),
        ]);
        if let Some(identity) = &session.source_identity {
            context.insert("aws:SourceIdentity", one(identity));
        }
        if let Some(key) = leading_key {
            context.insert("dynamodb:LeadingKeys", one(key));
        }
        let request = Request { action, resource, context };
        session.role.policy.allows(&request)
            && session.policy.as_ref().is_none_or(|policy| policy.allows(&request))
    }
}

async fn action(State(aws): State<Arc<StandIn>>, headers: HeaderMap, body: Bytes) -> Response {
    let request_id = aws.clock.unique_id();
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    if let Some(target) = target {
        let answered = item(&aws, target, &headers, &body);
        return Service::DynamoDb.answer(target, &request_id, answered);
    }
    let form = match Form::read(&body) {
        Ok(form) => form,
        Err(refusal) => return Service::Sts.answer("", &request_id, Err(refusal)),
    };
    let name = form.get("Action").unwrap_or_default();
    let (service, answered) = query(&aws, name, &form, (&headers, &body)).await;
    service.answer(name, &request_id, answered)
}

/// An action of the query protocol.
async fn query(
    aws: &StandIn,
    action: &str,
    form: &Form,
    (headers, body): (&HeaderMap, &[u8]),
) -> (Service, Result<Answer, Refusal>) {
    let service = match action {
        "RebootInstances" | "DescribeInstances" => Service::Ec2,
        _ => Service::Sts,
    };
    if action == "AssumeRoleWithWebIdentity" {
        return (service, sts::assume_role_with_web_identity(aws, form).await);
    }
    let signed = match authenticate(aws, service, headers, body) {
        Ok(signed) => signed,
        Err(refusal) => return (service, Err(refusal)),
    };
    let answered = match action {
        "GetCallerIdentity" => Ok(sts::get_caller_identity(&signed)),
        "RebootInstances" => ec2::reboot(aws, &signed, form),
        "DescribeInstances" => ec2::describe(aws, &signed, form),
        _ => Err(Refusal::new("InvalidAction", "the stand-in of `deputize dev` does not know this action")),
    };
    (service, answered)
}

/// An action of DynamoDB's own protocol.
fn item(aws: &StandIn, target: &str, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Refusal> {
    let signed = authenticate(aws, Service::DynamoDb, headers, body)?;
    if target != "DynamoDB_20120810.GetItem" {
        return Err(Refusal::new("UnknownOperationException", "the stand-in knows GetItem alone"));
    }
    let request: Value = serde_json::from_slice(body)
        .map_err(|_| Refusal::new("SerializationException", "the body is no JSON"))?;
    dynamodb::get_item(aws, &signed, &request)
}

fn authenticate(
    aws: &StandIn,
    service: Service,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Signed, Refusal> {
    let signed = signature::authenticate(headers, body, &aws.sessions, aws.clock.now_seconds())?;
    if signed.service != service.name() || signed.region != REGION {
        return Err(Refusal::new("SignatureDoesNotMatch", "signed for another service or region"));
    }
    Ok(signed)
}

async fn events(State(aws): State<Arc<StandIn>>) -> Response {
    Json(aws.trail.to_file()).into_response()
}

/// Where the events are, as in a file of CloudTrail.
pub const TRAIL_PATH: &str = "/cloudtrail.json";
const MAX_BODY_BYTES: usize = 64 * 1024;
