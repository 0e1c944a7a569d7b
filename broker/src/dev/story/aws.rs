//! The steps in AWS: a session for the one instance in a call, what it is worth elsewhere, and the way back from
//! CloudTrail.

use super::{
    Told, Trouble, audit,
    steps::{Stage, unexpected},
};
use crate::dev::layout::AGENT;
use deputize_client::ExchangeRequest;
use deputize_stand_ins::{
    aws::{
        call::{Answered, Ask, Keys},
        ec2::INSTANCES,
    },
    example_server::reboot,
};
use serde_json::{Value, json};

/// What the trace has to lead back to.
pub(super) struct Restarted {
    /// The decision on the call.
    decision: String,
    keys: Keys,
}

impl Stage<'_> {
    /// The server restarts the instance in the call, with AWS keys that it got for this call and holds no others.
    pub(super) async fn aws_allowed(&self) -> Result<Told<Restarted>, Trouble> {
        let (ops, work) = &self.environment.ops;
        let resource = &ops.record.resource;
        let [instance, other] = INSTANCES;
        let arguments = json!({ "instance_id": instance });
        let request = ExchangeRequest::new(resource, self.user.id_token.expose())
            .call("restart_instance", arguments.clone())
            .workflow("demo");
        let token = self.client.exchange(&request).await?;
        let answer = self.call(resource, &token, "restart_instance", arguments).await?;
        let result = answer.body.pointer("/result/structuredContent").cloned().unwrap_or_default();
        if answer.status != 200 || result.get("restarting") != Some(&json!(true)) {
            return Err(unexpected(&answer, "200 and the restart"));
        }
        let aws = &self.environment.aws;
        if (aws.restarts(instance), aws.restarts(other)) != (1, 0) {
            return Err(Trouble::new("the instance in the call did not restart once, or the other did"));
        }
        let keys = work.stolen_keys().ok_or_else(|| Trouble::new("the server used no keys"))?;
        let identity = work.aws().call(&keys, &Ask::query("sts", "GetCallerIdentity", &[])).await?;
        let arn = element(&identity.body, "Arn").ok_or_else(|| refused(&identity, "an identity"))?.to_owned();
        let decision = token.decision_id().to_owned();
        Ok(Told::new(
            Restarted { decision, keys },
            format!("{instance} restarted, and nothing stored any AWS key"),
        )
        .fact("session", arn)
        .fact("result", result))
    }

    /// Whoever steals the keys out of the server can do nothing else with them.
    pub(super) async fn aws_other_resource_denied(&self, restarted: &Restarted) -> Result<Told<()>, Trouble> {
        let (_, work) = &self.environment.ops;
        let [instance, other] = INSTANCES;
        let denied = work.aws().call(&restarted.keys, &reboot(other)).await?;
        if (denied.status, denied.code()) != (403, "UnauthorizedOperation") {
            return Err(refused(&denied, "403 UnauthorizedOperation"));
        }
        if self.environment.aws.restarts(other) != 0 {
            return Err(Trouble::new("the other instance restarted all the same"));
        }
        let everything =
            work.aws().call(&restarted.keys, &Ask::query("ec2", "DescribeInstances", &[])).await?;
        if (everything.status, everything.code()) != (403, "UnauthorizedOperation") {
            return Err(refused(&everything, "403 UnauthorizedOperation"));
        }
        // Nothing else was wrong with them.
        let again = work.aws().call(&restarted.keys, &reboot(instance)).await?;
        if again.status != 200 {
            return Err(refused(&again, "200 for the instance in the call"));
        }
        Ok(Told::new((), format!("the same keys on {other}: 403 UnauthorizedOperation"))
            .fact("ec2:DescribeInstances", "403 UnauthorizedOperation")
            .fact(instance, "200, until the window of the call ends"))
    }

    /// CloudTrail's record alone leads back to the person, the agent and the call.
    pub(super) async fn aws_traced(&self, restarted: &Restarted) -> Result<Told<()>, Trouble> {
        let ready = &self.environment.ready;
        let trail = self.wire.get(&ready.aws.cloudtrail_url).await?.body;
        let events = trail.get("Records").and_then(Value::as_array).cloned().unwrap_or_default();
        let denied = |event: &&Value| event.get("errorCode") == Some(&json!("Client.UnauthorizedOperation"));
        let event = events.iter().find(denied).ok_or_else(|| Trouble::new("CloudTrail saw no denial"))?;
        let folder = &self.environment.files.folder;
        let file = folder.join("cloudtrail-event.json");
        std::fs::write(&file, event.to_string())?;
        let path = file.to_str().ok_or_else(|| Trouble::new("the folder's name is no text"))?;
        let told = audit::query(&folder.join("data"), &["--cloudtrail", path]).await?;
        let [story] = told.as_slice() else { return Err(Trouble::new("it leads to several sessions")) };
        let at = |pointer: &str| story.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let expected = [
            ("/call/decision", restarted.decision.as_str()),
            ("/call/tool", "restart_instance"),
            ("/call/actors/0", AGENT),
            ("/aws/source_identity", "alice"),
        ];
        for (pointer, value) in expected {
            if at(pointer) != value {
                return Err(Trouble::new(format!("{pointer} is {:?} instead of {value:?}", at(pointer))));
            }
        }
        if !at("/user").ends_with(":alice") || story.get("doubts") != Some(&json!([])) {
            return Err(Trouble::new(format!("it leads to somebody else, or is doubtful: {story}")));
        }
        let identity = event.pointer("/userIdentity/arn").and_then(Value::as_str).unwrap_or_default();
        let policies = story.pointer("/call/policies").cloned().unwrap_or_default();
        Ok(Told::new((), "from one record of CloudTrail back to the call, with deputize audit query")
            .fact("CloudTrail", format!("RebootInstances denied to {identity}"))
            .fact("user", at("/user"))
            .fact("agent", at("/call/actors/0"))
            .fact("call", format!("{}, decision {}", at("/call/tool"), at("/call/decision")))
            .fact("allowed by", policies))
    }
}

fn refused(answered: &Answered, expected: &str) -> Trouble {
    Trouble::new(format!("expected {expected}, got {} {}", answered.status, answered.code()))
}

fn element<'b>(body: &'b str, name: &str) -> Option<&'b str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(text, _)| text)
}
