//! The core: decides, records, mints. No HTTP, no sockets.
