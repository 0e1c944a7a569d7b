//! What is said on one stream (xDS, state of the world): an answer to what is asked, another whenever it changes, and
//! nothing to an acknowledgement.

use super::secrets::{self, SECRET_TYPE, Trust};
use crate::{
    error::Refused,
    proto::{
        X509svidResponse,
        secrets::{DiscoveryRequest, DiscoveryResponse, Packed},
    },
};

/// One side of it: ours.
#[derive(Default)]
pub(super) struct Conversation {
    /// The names that were asked for last.
    asked: Option<Vec<String>>,
    trust: Trust,
    /// What was said last, and how often something was.
    told: Option<Vec<Packed>>,
    said: u64,
    /// Whether there may be something to say.
    is_open: bool,
}

impl Conversation {
    /// Hears a request: the first one, other names, an acknowledgement, or that the last answer could not be used.
    ///
    /// # Errors
    /// [`Refused`] if it is none.
    pub(super) fn hear(&mut self, request: &DiscoveryRequest) -> Result<(), Refused> {
        if !matches!(request.type_url.as_str(), "" | SECRET_TYPE) {
            return Err(Refused::Invalid("secrets alone are given here"));
        }
        let names = &request.resource_names;
        if names.len() > MAX_NAMES || names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(Refused::Invalid("256 names at most, of 2048 bytes each"));
        }
        if let Some(problem) = &request.error_detail {
            let problem: String = problem.message.chars().take(MAX_LOGGED_CHARACTERS).collect();
            metrics::counter!("deputize_workload_secrets_rejected_total").increment(1);
            tracing::warn!(problem, "secrets were not accepted by who asked for them");
        }
        // An answer to something older than what was said last: the answer to that is on its way.
        if self.said > 0 && request.response_nonce != self.said.to_string() {
            return Ok(());
        }
        // It is said once, with the first request.
        if let Some(node) = &request.node {
            self.trust = Trust::of(node);
        }
        if self.asked.as_ref() != Some(names) {
            self.asked = Some(names.clone());
            self.told = None;
            self.is_open = true;
        }
        Ok(())
    }

    /// Notes that what can be told has changed.
    pub(super) fn state_changed(&mut self) {
        self.is_open = true;
    }

    /// What is to be said of this state, if it is not what was said last.
    ///
    /// # Errors
    /// [`Refused`] if something is asked for that this process has not, or no longer.
    pub(super) fn say(&mut self, state: &X509svidResponse) -> Result<Option<DiscoveryResponse>, Refused> {
        let Some(names) = self.asked.as_ref().filter(|_| self.is_open) else { return Ok(None) };
        let resources = secrets::find(state, names, self.trust)?;
        self.is_open = false;
        if self.told.as_ref() == Some(&resources) {
            return Ok(None);
        }
        self.told = Some(resources.clone());
        self.said += 1;
        let number = self.said.to_string();
        Ok(Some(DiscoveryResponse {
            version_info: number.clone(),
            resources,
            type_url: SECRET_TYPE.to_owned(),
            nonce: number,
        }))
    }
}

const MAX_NAMES: usize = 256;
const MAX_NAME_BYTES: usize = 2048;
const MAX_LOGGED_CHARACTERS: usize = 512;

#[cfg(test)]
mod tests;
