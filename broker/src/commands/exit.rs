//! How a command ends: its exit code, and an error that says what to do next.

use std::process::ExitCode;

use crate::assemble::CannotStart;

/// Exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or yes.
    Ok = 0,
    /// It failed, or what was checked does not hold.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Policy, a person or the broker's rules say no.
    Denied = 3,
    /// A person has to decide first.
    Waiting = 4,
    /// The configuration is wrong.
    Configuration = 5,
    /// The broker or an identity provider cannot be reached, or cannot answer now.
    Unreachable = 6,
}

/// What a command gives back.
pub type CommandResult = Result<Exit, CommandError>;

/// Why a command could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub next: String,
}

impl CommandError {
    /// It failed.
    pub fn failure(message: impl ToString, next: impl Into<String>) -> Self {
        Self::new(Exit::Failure, message, next)
    }

    /// The arguments make no sense together.
    pub fn usage(message: impl ToString, next: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message, next)
    }

    /// The configuration is wrong.
    pub fn configuration(message: impl ToString, next: impl Into<String>) -> Self {
        Self::new(Exit::Configuration, message, next)
    }

    /// The broker or somebody else cannot be reached.
    pub fn unreachable(message: impl ToString, next: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message, next)
    }

    /// With any exit code.
    pub fn new(exit: Exit, message: impl ToString, next: impl Into<String>) -> Self {
        Self { exit, message: message.to_string(), next: next.into() }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<CannotStart> for CommandError {
    fn from(error: CannotStart) -> Self {
        Self::configuration(error, "correct it and start again")
    }
}
