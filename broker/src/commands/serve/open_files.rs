//! How many files this process may have open: a connection takes one, and at the Workload API two.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as the system allows. What it gives at first is a courtesy to programs that know no more than 1,024.
pub(in crate::commands) fn raise_limit() {
    let Rlimit { current: from, maximum: to } = getrlimit(Resource::Nofile);
    if from == to {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: to, maximum: to }) {
        Ok(()) => tracing::info!(from, to, "limit of open files raised"),
        Err(error) => tracing::warn!(from, to, %error, "limit of open files not raised"),
    }
}
