//! Instances and deployments, in AWS. It holds no keys: each call brings those for its one resource, from the guard.

use super::{Handed, Tool, Tools};
use async_trait::async_trait;
use deputize_call::json::{JsonError, Object};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

use crate::aws::{
    call::{Answered, Ask, Aws, Keys},
    dynamodb::{KEY, TABLE},
    ec2::INSTANCES,
};

/// The tools as approved: both for one exact call at a time, so that AWS keys can be for the one resource in it.
pub(super) fn tools() -> Result<Vec<Tool>, JsonError> {
    Ok(vec![show_deployment()?, restart_instance()?])
}

fn show_deployment() -> Result<Tool, JsonError> {
    let definition = json!({
        "name": "show_deployment",
        "title": "Show a deployment",
        "description": "Returns what version of one service is deployed, and since when.",
        "inputSchema": {
            "type": "object",
            "properties": { "service": { "type": "string", "pattern": "^[a-z]{1,40}$", "maxLength": 40 } },
            "required": ["service"],
            "additionalProperties": false
        },
        "annotations": { "readOnlyHint": true, "openWorldHint": false }
    });
    Tool::new(definition, ("low", "read"), json!({ "service": "checkout" })).map(Tool::exact)
}

fn restart_instance() -> Result<Tool, JsonError> {
    let definition = json!({
        "name": "restart_instance",
        "title": "Restart an instance",
        "description": "Restarts one EC2 instance of the staging environment.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "instance_id": { "type": "string", "pattern": "^i-[0-9a-f]{17}$", "maxLength": 19 }
            },
            "required": ["instance_id"],
            "additionalProperties": false
        },
        "annotations": { "readOnlyHint": false, "destructiveHint": true, "idempotentHint": true }
    });
    Tool::new(definition, ("low", "write"), json!({ "instance_id": INSTANCES[0] })).map(Tool::exact)
}

/// What it does in AWS.
#[derive(Debug)]
pub struct Ops {
    aws: Aws,
    /// Of the call that ran last. A real server keeps nothing; here the story shows what they are worth to a thief.
    last: Mutex<Option<Keys>>,
}

impl Ops {
    pub(super) fn new(aws: Aws) -> Self {
        Self { aws, last: Mutex::default() }
    }

    /// The AWS that it works in.
    pub fn aws(&self) -> &Aws {
        &self.aws
    }

    /// The keys of the call that ran last, as a thief in its process would find them.
    pub fn stolen_keys(&self) -> Option<Keys> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks AWS with the keys of this call.
    async fn ask(&self, handed: &Handed, ask: &Ask) -> Result<Answered, String> {
        let source = handed.aws.as_ref().ok_or("the guard handed on no AWS credentials for this call")?;
        let keys = self.aws.keys(source).await.map_err(|error| error.to_string())?;
        let answered = self.aws.call(&keys, ask).await.map_err(|error| error.to_string())?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
        match answered.status {
            200 => Ok(answered),
            status => Err(format!("AWS refused: {status} {}", answered.code())),
        }
    }

    async fn restart(&self, instance: &str, handed: &Handed) -> Result<Value, String> {
        self.ask(handed, &reboot(instance)).await?;
        Ok(json!({ "instance_id": instance, "restarting": true }))
    }

    async fn show(&self, service: &str, handed: &Handed) -> Result<Value, String> {
        let request = json!({ "TableName": TABLE, "Key": { KEY: { "S": service } } });
        let target = Some("DynamoDB_20120810.GetItem");
        let answered =
            self.ask(handed, &Ask { service: "dynamodb", target, body: request.to_string() }).await?;
        let answer: Value = serde_json::from_str(&answered.body).map_err(|_| "AWS answered no JSON")?;
        let text = |name: &str| answer.pointer(&format!("/Item/{name}/S")).and_then(Value::as_str);
        match (text("version"), text("deployed_at")) {
            (Some(version), Some(at)) => {
                Ok(json!({ "service": service, "version": version, "deployed_at": at }))
            }
            _ => Err(format!("no deployment of {service}")),
        }
    }
}

/// The request that restarts one instance.
pub fn reboot(instance: &str) -> Ask {
    Ask::query("ec2", "RebootInstances", &[("InstanceId.1", instance)])
}

#[async_trait]
impl Tools for Arc<Ops> {
    async fn run(&self, tool: &str, arguments: &Object, handed: &Handed) -> Result<Value, String> {
        let text = |name| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
        match tool {
            "restart_instance" => self.restart(text("instance_id"), handed).await,
            "show_deployment" => self.show(text("service"), handed).await,
            _ => Err(format!("no tool {tool}")),
        }
    }
}
