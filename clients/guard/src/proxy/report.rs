//! What a proxy tells about what it sees, to whoever keeps the record.

use crate::Event;

/// Takes in what a proxy saw. Must not wait: it is called on the way of requests.
pub trait Reports: Send + Sync {
    /// One thing that was seen.
    fn report(&self, event: Event);
}

#[cfg(feature = "link")]
impl Reports for crate::link::Link {
    fn report(&self, event: Event) {
        Self::report(self, event);
    }
}

/// Keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReports;

impl Reports for NoReports {
    fn report(&self, _: Event) {}
}
