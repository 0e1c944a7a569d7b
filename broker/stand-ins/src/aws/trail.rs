//! What was done, as CloudTrail would tell it.

use deputize_client::Clock;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    answer::{Refusal, Service},
    role::ACCOUNT,
    signature::Signed,
};
use deputize_call::moment;

/// The newest events.
pub(super) struct Trail {
    clock: Arc<dyn Clock>,
    events: Mutex<VecDeque<Value>>,
}

/// One event.
pub(super) struct Event {
    pub(super) service: Service,
    /// The action.
    pub(super) name: &'static str,
    pub(super) region: String,
    /// `userIdentity`.
    pub(super) user: Value,
    /// `requestParameters`.
    pub(super) request: Value,
    /// `responseElements`.
    pub(super) response: Value,
    pub(super) refused: Option<Refusal>,
}

impl Event {
    /// An action of whoever signed.
    pub(super) fn of(service: Service, name: &'static str, signed: &Signed, request: Value) -> Self {
        let user = user(signed);
        let region = signed.region.clone();
        Self { service, name, region, user, request, response: Value::Null, refused: None }
    }
}

impl Trail {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, events: Mutex::default() }
    }

    pub(super) fn record(&self, event: Event) {
        let is_data = event.service == Service::DynamoDb;
        let mut record = json!({
            "eventVersion": "1.11",
            "userIdentity": event.user,
            "eventTime": moment::format_seconds(self.clock.now_seconds()),
            "eventSource": format!("{}.amazonaws.com", event.service.name()),
            "eventName": event.name,
            "awsRegion": event.region,
            "sourceIPAddress": "127.0.0.1",
            "requestParameters": event.request,
            "responseElements": event.response,
            "requestID": self.clock.unique_id(),
            "eventID": self.clock.unique_id(),
            "eventType": "AwsApiCall",
            "managementEvent": !is_data,
            "recipientAccountId": ACCOUNT,
            "eventCategory": if is_data { "Data" } else { "Management" },
        });
        if let (Some(members), Some(refused)) = (record.as_object_mut(), &event.refused) {
            members.insert("errorCode".to_owned(), refused.in_the_trail(event.service).into());
            members.insert("errorMessage".to_owned(), refused.message.clone().into());
        }
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(record);
    }

    /// All, as in a file of CloudTrail.
    pub(super) fn to_file(&self) -> Value {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        json!({ "Records": events.iter().collect::<Vec<_>>() })
    }
}

fn user(signed: &Signed) -> Value {
    let session = &signed.session;
    let mut context = json!({
        "sessionIssuer": {
            "type": "Role",
            "principalId": session.role.id,
            "arn": session.role.arn,
            "accountId": ACCOUNT,
            "userName": session.role.name(),
        },
        "webIdFederationData": { "federatedProvider": session.provider, "attributes": {} },
        "attributes": {
            "creationDate": moment::format_seconds(session.created_seconds), "mfaAuthenticated": "false"
        },
    });
    if let (Some(members), Some(identity)) = (context.as_object_mut(), &session.source_identity) {
        members.insert("sourceIdentity".to_owned(), identity.as_str().into());
    }
    json!({
        "type": "AssumedRole",
        "principalId": session.assumed_role_id(),
        "arn": session.arn(),
        "accountId": ACCOUNT,
        "accessKeyId": session.access_key_id,
        "sessionContext": context,
    })
}

/// More than anybody looks through by hand.
const MAX_EVENTS: usize = 1000;
