//! Why a broker cannot start.

/// Why a broker cannot start; says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CannotStart(pub String);
