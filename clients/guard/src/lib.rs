//! The verification core that stands before an MCP server.
