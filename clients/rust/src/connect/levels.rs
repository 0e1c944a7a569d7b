//! What is known of how tightly each tool wants its tokens bound.

use deputize_call::level::Level;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Levels by tool: what was learned, else what is said at the start.
#[derive(Debug)]
pub(super) struct Levels {
    unknown: Level,
    learned: Mutex<HashMap<String, Level>>,
}

impl Levels {
    /// `unknown` is for tools of which nothing is known.
    pub(super) fn new(unknown: Level) -> Self {
        Self { unknown, learned: Mutex::default() }
    }

    pub(super) fn of(&self, tool: &str) -> Level {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).get(tool).copied().unwrap_or(self.unknown)
    }

    pub(super) fn learn(&self, tool: &str, level: Level) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        // Forgetting costs an exchange, nothing else.
        if learned.len() >= MAX_TOOLS && !learned.contains_key(tool) {
            learned.clear();
        }
        learned.insert(tool.to_owned(), level);
    }
}

const MAX_TOOLS: usize = 2_000;
