//! How much of one thing the guards of each server may hold at once: no server takes up the room of others.

use deputize_issuer::registry::Server;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Places of one kind. As bounded as the registry: only registered servers come here.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    held: Arc<Mutex<HashMap<String, usize>>>,
}

/// One of a server's places, until it is dropped.
#[derive(Debug)]
pub struct Place {
    resource: String,
    held: Arc<Mutex<HashMap<String, usize>>>,
}

impl Places {
    /// Each server has this many.
    pub(super) fn new(most: usize) -> Self {
        Self { most, held: Arc::default() }
    }

    /// One of this server's, if it has one left.
    pub(super) fn enter(&self, server: &Server) -> Option<Place> {
        let resource = &server.record.resource;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(resource.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { resource: resource.clone(), held: Arc::clone(&self.held) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.resource) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.resource);
            }
        }
    }
}
