//! How often each L1 and L2 token was used here, where it has a limit.

use crate::refusal::Reason;
use deputize_call::claims::ToolCallClaims;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Counts by `jti`, until the token has expired. Never evicts what may still be used: when full, it refuses.
#[derive(Debug)]
pub(crate) struct Uses {
    capacity: usize,
    counts: Mutex<HashMap<String, Count>>,
}

#[derive(Debug)]
struct Count {
    used: u32,
    /// Monotonic time after which the token can no longer pass.
    until: Duration,
}

impl Uses {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, counts: Mutex::default() }
    }

    /// Takes one use of a token that is good for `max_uses`. `remaining` is how long it can still pass.
    pub(crate) fn take(
        &self,
        claims: &ToolCallClaims,
        max_uses: u32,
        uptime: Duration,
        remaining: Duration,
    ) -> Result<(), Reason> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&claims.jti) {
            if count.used >= max_uses {
                return Err(Reason::UsedUp);
            }
            count.used += 1;
            return Ok(());
        }
        if counts.len() >= self.capacity {
            counts.retain(|_, count| count.until >= uptime);
        }
        if counts.len() >= self.capacity {
            return Err(Reason::Unavailable("too many counted tokens"));
        }
        if max_uses == 0 {
            return Err(Reason::UsedUp);
        }
        counts.insert(claims.jti.clone(), Count { used: 1, until: uptime + remaining });
        Ok(())
    }
}
