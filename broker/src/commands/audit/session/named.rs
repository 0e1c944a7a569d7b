//! Sessions as AWS names them: in ARNs, and in the events of CloudTrail.

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::commands::exit::CommandError;

/// What AWS says of one session.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// As somebody who took a role.
    pub(super) arns: Vec<AssumedRole>,
    /// What it did: all, since each is held against the log. Parameters only of those that are shown.
    pub(super) events: Vec<Event>,
}

/// `arn:PARTITION:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AssumedRole {
    pub(super) arn: String,
    pub(super) account: String,
    /// Its name, without a path.
    pub(super) role: String,
    session: String,
}

/// An event of CloudTrail.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Event {
    /// Time, as CloudTrail has it.
    pub(super) at: String,
    /// The action, `service:Name`.
    pub(super) action: String,
    /// Why it was refused, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// What was asked.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) parameters: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_identity: Option<String>,
    /// `AccessKeyId` that it was signed with; of the session that began with it, where a role was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) access_key: Option<String>,
    /// `eventID`.
    pub(super) id: String,
    /// Whether the session began with it.
    #[serde(skip)]
    pub(super) takes_a_role: bool,
}

/// What a file of CloudTrail says.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// Sessions that may be of Deputize.
    pub(super) sessions: BTreeMap<Uuid, Named>,
    /// How many events are of others.
    pub(super) others: usize,
}

/// A session by its ARN or its name.
pub(super) fn session(text: &str) -> Result<(Uuid, Named), CommandError> {
    let no_session = |problem: &str| {
        CommandError::usage(
            format!("--aws-session {text:?}: {problem}"),
            "give arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION, or SESSION alone, which is the id of a decision",
        )
    };
    if !text.starts_with("arn:") {
        let id =
            decision(text).ok_or_else(|| no_session("sessions of Deputize have decisions' ids as names"))?;
        return Ok((id, Named::default()));
    }
    let assumed = AssumedRole::read(text).ok_or_else(|| no_session("no ARN of an assumed role"))?;
    let id = decision(&assumed.session);
    let id =
        id.ok_or_else(|| no_session("its session name is no decision's id: Deputize did not make it"))?;
    Ok((id, Named { arns: vec![assumed], events: Vec::new() }))
}

/// The sessions in one event, or in a file of events.
pub(super) fn events(text: &str) -> Result<Trail, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let events = match document.get("Records") {
        Some(Value::Array(events)) => events.as_slice(),
        Some(_) => return Err("Records is no list".to_owned()),
        None if document.get("eventName").is_some() => std::slice::from_ref(&document),
        None => return Err("neither an event nor Records".to_owned()),
    };
    let mut trail = Trail::default();
    for event in events {
        let found = of_event(event).and_then(|assumed| Some((decision(&assumed.session)?, assumed)));
        let Some((id, assumed)) = found else {
            trail.others += 1;
            continue;
        };
        if trail.sessions.len() >= MAX_SESSIONS && !trail.sessions.contains_key(&id) {
            return Err(format!("more than {MAX_SESSIONS} sessions: give a part of it"));
        }
        let named = trail.sessions.entry(id).or_default();
        if !named.arns.contains(&assumed) {
            named.arns.push(assumed);
        }
        let mut read = Event::read(event);
        if named.events.len() >= MAX_SHOWN {
            read.parameters = Value::Null;
        }
        named.events.push(read);
    }
    Ok(trail)
}

/// Who acted; where somebody took a role, whoever that made.
fn of_event(event: &Value) -> Option<AssumedRole> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let acted = text("/userIdentity/arn").and_then(AssumedRole::read);
    let taken = text("/responseElements/assumedRoleUser/arn").and_then(AssumedRole::read);
    if takes_a_role(event) { taken } else { acted }
}

/// `AssumeRole`, or one of its kind.
fn takes_a_role(event: &Value) -> bool {
    event.get("eventName").and_then(Value::as_str).is_some_and(|name| name.starts_with("AssumeRole"))
}

impl AssumedRole {
    fn read(arn: &str) -> Option<Self> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", _, "sts", "", account, resource] = parts.as_slice() else { return None };
        let (role, session) = resource.strip_prefix("assumed-role/")?.split_once('/')?;
        let text = |text: &str| text.to_owned();
        Some(Self { arn: text(arn), account: text(account), role: text(role), session: text(session) })
    }
}

impl Event {
    fn read(event: &Value) -> Self {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let service = text("/eventSource").unwrap_or_default();
        let service = service.split('.').next().unwrap_or_default();
        let mut parameters = event.get("requestParameters").cloned().unwrap_or_default();
        // Long, and told already by the template.
        if let Some(members) = parameters.as_object_mut() {
            members.remove("policy");
        }
        let takes_a_role = takes_a_role(event);
        // Where a role is taken, the session context is that of whoever takes it; STS names the new session's.
        let (source_identity, access_key) = if takes_a_role {
            let identity = text("/responseElements/sourceIdentity");
            (
                identity.or_else(|| text("/requestParameters/sourceIdentity")),
                text("/responseElements/credentials/accessKeyId"),
            )
        } else {
            (text("/userIdentity/sessionContext/sourceIdentity"), text("/userIdentity/accessKeyId"))
        };
        Self {
            at: text("/eventTime").unwrap_or_default(),
            action: format!("{service}:{}", text("/eventName").unwrap_or_default()),
            error: text("/errorCode"),
            parameters,
            source_identity,
            access_key,
            id: text("/eventID").unwrap_or_default(),
            takes_a_role,
        }
    }
}

/// The form in which sessions are named, and no other.
fn decision(name: &str) -> Option<Uuid> {
    Uuid::parse_str(name).ok().filter(|id| id.hyphenated().to_string() == name)
}

/// More than one file of CloudTrail should hold; each session is one call.
const MAX_SESSIONS: usize = 10_000;
/// As much as anybody reads of what one call did in minutes.
pub(super) const MAX_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "0193a5f2-7c1e-7cc0-9f2b-3f7f3a9d1c55";

    fn arn() -> String {
        format!("arn:aws:sts::111122223333:assumed-role/restart-instance/{ID}")
    }

    #[test]
    fn a_session_is_known_by_its_arn_or_its_name() {
        let (by_arn, named) = session(&arn()).unwrap();
        let (by_name, nothing_more) = session(ID).unwrap();
        assert_eq!((by_arn, by_name), (ID.parse().unwrap(), ID.parse().unwrap()));
        assert_eq!(
            (named.arns[0].account.as_str(), named.arns[0].role.as_str()),
            ("111122223333", "restart-instance")
        );
        assert!(nothing_more.arns.is_empty());
        for wrong in [
            "",
            "restart-instance",
            &ID.to_uppercase(),
            &ID.replace('-', ""),
            &arn().replace("sts::", "iam::"),
            &arn().replace("assumed-role", "role"),
            &arn().replace(ID, "botocore-session-1700000000"),
            "arn:aws:iam::111122223333:user/alice",
        ] {
            assert!(session(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_is_one_event_or_many_and_others_are_counted() {
        let acted = json!({ "eventName": "RebootInstances", "eventSource": "ec2.amazonaws.com", "eventID": "1",
            "userIdentity": { "arn": arn(), "sessionContext": { "sourceIdentity": "alice" } },
            "errorCode": "Client.UnauthorizedOperation" });
        let taken = json!({ "eventName": "AssumeRoleWithWebIdentity", "eventSource": "sts.amazonaws.com",
            "requestParameters": { "policy": "long", "roleSessionName": ID },
            "responseElements": { "assumedRoleUser": { "arn": arn() }, "sourceIdentity": "alice" } });
        let chained = json!({ "eventName": "AssumeRole", "userIdentity": { "arn": arn() },
            "responseElements": { "assumedRoleUser": { "arn": arn().replace(ID, "another") } } });
        let one = events(&acted.to_string()).unwrap();
        assert_eq!((one.sessions.len(), one.others), (1, 0));
        let many = events(&json!({ "Records": [acted, taken, chained, {}] }).to_string()).unwrap();
        let named = &many.sessions[&ID.parse().unwrap()];
        assert_eq!((many.sessions.len(), many.others, named.arns.len()), (1, 2, 1));
        assert_eq!(named.events[0].action, "ec2:RebootInstances");
        assert_eq!(named.events[0].error.as_deref(), Some("Client.UnauthorizedOperation"));
        assert_eq!(named.events[1].source_identity.as_deref(), Some("alice"));
        assert!(named.events[1].parameters.get("policy").is_none());
        for wrong in ["", "[]", "{}", r#"{"Records":1}"#] {
            assert!(events(wrong).is_err(), "{wrong}");
        }
    }
}
