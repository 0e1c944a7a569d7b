//! An example server beside its record, as the registry reads it.

use deputize_issuer::registry::ServerRecord;
use deputize_stand_ins::example_server::ExampleServer;
use std::sync::Arc;

/// One of the environment's own MCP servers.
#[derive(Debug)]
pub(crate) struct Example {
    /// The server.
    pub(crate) server: Arc<ExampleServer>,
    /// What the registry says of it.
    pub(crate) record: ServerRecord,
}

impl Example {
    /// This server, and its record as a file of the registry would be read.
    ///
    /// # Errors
    /// What is wrong with its record.
    pub(crate) fn of(server: ExampleServer) -> Result<Self, serde_json::Error> {
        let record = serde_json::from_value(server.record().clone())?;
        Ok(Self { server: Arc::new(server), record })
    }
}
