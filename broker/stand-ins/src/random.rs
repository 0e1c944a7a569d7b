//! Randomness of the stand-ins: the only place that asks the system for it.

/// Fills a buffer from the system's generator.
pub(crate) fn fill_random(buffer: &mut [u8]) -> Result<(), NoRandomness> {
    aws_lc_rs::rand::fill(buffer).map_err(|_| NoRandomness)
}

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct NoRandomness;
