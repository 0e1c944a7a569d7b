//! EC2: two instances, which can be looked at and restarted.

use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    StandIn,
    answer::{Answer, Refusal, Service, element, text},
    form::Form,
    role::{ACCOUNT, REGION},
    signature::Signed,
    trail::Event,
};
use deputize_call::moment;

/// An instance.
#[derive(Debug)]
pub(super) struct Instance {
    id: &'static str,
    restarts: AtomicU64,
}

/// The instances, as each environment has them.
pub(super) fn instances() -> [Instance; 2] {
    INSTANCES.map(|id| Instance { id, restarts: AtomicU64::new(0) })
}

/// `RebootInstances`: all that are named, or none.
pub(super) fn reboot(aws: &StandIn, signed: &Signed, form: &Form) -> Result<Answer, Refusal> {
    form.only(&["InstanceId.N"])?;
    let ids = form.numbered("InstanceId");
    let rebooted = reboot_all(aws, signed, &ids);
    let items: Vec<_> = ids.iter().map(|id| json!({ "instanceId": id })).collect();
    aws.trail.record(Event {
        response: if rebooted.is_ok() { json!({ "_return": true }) } else { serde_json::Value::Null },
        refused: rebooted.as_ref().err().cloned(),
        ..Event::of(Service::Ec2, "RebootInstances", signed, json!({ "instancesSet": { "items": items } }))
    });
    rebooted.map(|()| Answer::Xml(text("return", "true")))
}

fn reboot_all(aws: &StandIn, signed: &Signed, ids: &[&str]) -> Result<(), Refusal> {
    if ids.is_empty() {
        return Err(Refusal::new("MissingParameter", "InstanceId.1 is missing"));
    }
    for id in ids {
        let arn = format!("arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{id}");
        if !aws.permits(signed, "ec2:RebootInstances", &arn, None) {
            return Err(unauthorized("ec2:RebootInstances", &arn));
        }
    }
    let mut found = Vec::new();
    for id in ids {
        let instance = aws.instances.iter().find(|instance| instance.id == *id);
        let unknown = || Refusal::new("InvalidInstanceID.NotFound", format!("no instance {id}"));
        found.push(instance.ok_or_else(unknown)?);
    }
    for instance in found {
        instance.restarts.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// `DescribeInstances`, which knows no resources.
pub(super) fn describe(aws: &StandIn, signed: &Signed, form: &Form) -> Result<Answer, Refusal> {
    form.only(&["InstanceId.N"])?;
    let asked = form.numbered("InstanceId");
    let permitted = aws.permits(signed, "ec2:DescribeInstances", "*", None);
    let refused = (!permitted).then(|| unauthorized("ec2:DescribeInstances", "*"));
    let request = json!({ "instancesSet": { "items": asked.iter().map(|id| json!({ "instanceId": id })).collect::<Vec<_>>() } });
    let event = Event::of(Service::Ec2, "DescribeInstances", signed, request);
    aws.trail.record(Event { refused: refused.clone(), ..event });
    if let Some(refused) = refused {
        return Err(refused);
    }
    let state = element("instanceState", &(text("code", "16") + &text("name", "running")));
    let described = aws.instances.iter().filter(|instance| asked.is_empty() || asked.contains(&instance.id));
    let items: String = described
        .map(|instance| {
            let launched = text("launchTime", &moment::format_seconds(aws.started_seconds));
            element("item", &(text("instanceId", instance.id) + &state + &launched))
        })
        .collect();
    let reservation = text("reservationId", "r-0123456789abcdef0")
        + &text("ownerId", ACCOUNT)
        + &element("instancesSet", &items);
    Ok(Answer::Xml(element("reservationSet", &element("item", &reservation))))
}

impl Instance {
    pub(super) fn is(&self, id: &str) -> bool {
        self.id == id
    }

    pub(super) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }
}

fn unauthorized(action: &str, resource: &str) -> Refusal {
    let message = format!("You are not authorized to perform this operation: {action} on {resource}");
    Refusal::new("UnauthorizedOperation", message)
}

/// The instances.
pub const INSTANCES: [&str; 2] = ["i-0a1b2c3d4e5f60718", "i-0f9e8d7c6b5a40312"];
