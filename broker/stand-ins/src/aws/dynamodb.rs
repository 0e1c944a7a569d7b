//! DynamoDB: one table, `deployments`, in which each service has an item.

use serde_json::{Value, json};

use super::{
    StandIn,
    answer::{Answer, Refusal, Service},
    role::{ACCOUNT, REGION},
    signature::Signed,
    trail::Event,
};

/// `GetItem`.
pub(super) fn get_item(aws: &StandIn, signed: &Signed, request: &Value) -> Result<Answer, Refusal> {
    let (table, key) = read(request)?;
    let arn = format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}");
    let permitted = aws.permits(signed, "dynamodb:GetItem", &arn, Some(key));
    let denied = || {
        let who = signed.session.arn();
        let message =
            format!("User: {who} is not authorized to perform: dynamodb:GetItem on resource: {arn}");
        Refusal::new("AccessDeniedException", message)
    };
    let got = match (permitted, table) {
        (false, _) => Err(denied()),
        (true, TABLE) => Ok(item(key)),
        (true, _) => Err(Refusal::new("ResourceNotFoundException", "requested resource not found")),
    };
    let parameters = json!({ "tableName": table, "key": { KEY: key } });
    let event = Event::of(Service::DynamoDb, "GetItem", signed, parameters);
    aws.trail.record(Event { refused: got.as_ref().err().cloned(), ..event });
    got.map(Answer::Json)
}

fn item(service: &str) -> Value {
    match DEPLOYMENTS.iter().find(|(name, ..)| *name == service) {
        None => json!({}),
        Some((_, version, at)) => json!({
            "Item": { KEY: { "S": service }, "version": { "S": version }, "deployed_at": { "S": at } }
        }),
    }
}

/// The table, and the value of its key.
fn read(request: &Value) -> Result<(&str, &str), Refusal> {
    let unknown =
        || Refusal::new("ValidationException", "give TableName and Key, nothing else is known here");
    let members = request.as_object().filter(|members| members.len() == 2).ok_or_else(unknown)?;
    let table = members.get("TableName").and_then(Value::as_str).ok_or_else(unknown)?;
    let key = members.get("Key").and_then(Value::as_object).filter(|key| key.len() == 1);
    let value = key.and_then(|key| key.get(KEY)?.as_object()).filter(|value| value.len() == 1);
    Ok((table, value.and_then(|value| value.get("S")?.as_str()).ok_or_else(unknown)?))
}

/// The table.
pub(crate) const TABLE: &str = "deployments";
/// Its partition key.
pub(crate) const KEY: &str = "service";
/// Service, version, and since when.
const DEPLOYMENTS: [(&str, &str, &str); 2] =
    [("checkout", "4.12.0", "2026-11-20T14:02:11Z"), ("search", "2.7.3", "2026-11-18T09:40:00Z")];
