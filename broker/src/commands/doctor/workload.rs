//! Whether the Workload API answers, whom it would entitle, and whose bundles it has.

use http::Method;
use serde_json::Value;
use std::path::Path;

use super::{Check, federation};
use crate::commands::{
    admin_socket::AdminSocket,
    exit::{CommandError, Exit},
    svid::{Endpoint, EndpointArgs, Explained},
};

/// What is looked at.
pub(super) struct Examined<'a> {
    /// Configuration of the broker.
    pub(super) config: &'a Path,
    /// The process whose identities are asked about.
    pub(super) pid: u32,
}

impl Examined<'_> {
    /// Looks at the socket, then at the process.
    ///
    /// # Errors
    /// If the configuration has no Workload API.
    pub(super) async fn examine(&self) -> Result<Vec<Check>, CommandError> {
        let args = EndpointArgs { socket: None, config: self.config.to_owned() };
        let socket = args.find()?;
        let broker = AdminSocket::find(None, self.config)?;
        let mut checks = vec![socket_answers(&socket).await, self.is_entitled(&broker).await];
        checks.extend(other_nodes(&broker).await);
        checks.extend(federation::examine(&broker).await);
        Ok(checks)
    }

    async fn is_entitled(&self, broker: &AdminSocket) -> Check {
        let what = format!("process {} is entitled to an identity", self.pid);
        let explained = match Explained::ask(broker, self.pid).await {
            Ok(explained) => explained,
            Err(error) if error.exit == Exit::Unreachable => {
                return Check::unknown(&what, error.message, error.next);
            }
            Err(error) => return Check::bad(&what, error.message, error.next),
        };
        let ids: Vec<&str> = explained.entitled().collect();
        if ids.is_empty() {
            let next = format!(
                "`deputize svid fetch --explain --pid {}` shows what each entry lacks; `deputize entry create` makes one",
                self.pid
            );
            return Check::bad(&what, "no entry is for it", next);
        }
        Check::good(&what, ids.join(", "))
    }
}

/// How other machines do, where there may be any.
async fn other_nodes(broker: &AdminSocket) -> Option<Check> {
    let what = "other nodes";
    let answer = match broker.ask(Method::GET, "/admin/nodes", None).await {
        Ok(answer) => answer,
        // Without `spiffe.nodes` there is no such path; who cannot ask has been told so already.
        Err(_) => return None,
    };
    let nodes = answer.get("nodes").and_then(Value::as_array)?;
    let expired: Vec<&str> = nodes
        .iter()
        .filter(|node| node.get("state").and_then(Value::as_str) == Some("expired"))
        .filter_map(|node| node.get("id").and_then(Value::as_str))
        .collect();
    if expired.is_empty() {
        return Some(Check::good(what, format!("{} known, none of them is overdue", nodes.len())));
    }
    let next = "see that `deputize agent` runs there; `deputize node evict NODE` forgets one that is gone";
    Some(Check::bad(what, format!("not renewed in time: {}", expired.join(", ")), next))
}

async fn socket_answers(path: &Path) -> Check {
    let what = format!("the Workload API answers at {}", path.display());
    match Endpoint::identities(path).await {
        Ok(ids) => Check::good(&what, format!("this command gets {}", ids.join(", "))),
        // An answer as well: whom it entitles is the next question.
        Err(error) if error.exit == Exit::Denied => Check::good(&what, "no entry is for this command"),
        Err(error) if error.exit == Exit::Unreachable => Check::unknown(&what, error.message, error.next),
        Err(error) => Check::bad(&what, error.message, error.next),
    }
}
