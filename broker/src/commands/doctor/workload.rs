//! Whether the Workload API answers, and whom it would entitle.

use std::path::Path;

use super::Check;
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
        Ok(vec![socket_answers(&socket).await, self.is_entitled(&broker).await])
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
