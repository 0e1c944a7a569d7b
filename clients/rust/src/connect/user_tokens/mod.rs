//! Where the user's token comes from: it is asked for at each exchange, and kept by nobody else.

mod command;
mod file;

pub use command::TokenCommand;
pub use file::TokenFile;

use crate::TokenType;
use async_trait::async_trait;
use zeroize::Zeroizing;

/// A source of the user's token.
#[async_trait]
pub trait UserTokens: Send + Sync {
    /// The token as it is now.
    async fn current(&self) -> Result<UserToken, UserTokenError>;

    /// The broker does not accept this token: whoever remembers it should forget it.
    async fn refused(&self, _token: &UserToken) {}
}

/// A user's token.
#[derive(Clone)]
pub struct UserToken {
    token: Zeroizing<String>,
    kind: TokenType,
}

/// Why there is no token of the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct UserTokenError {
    problem: String,
    next: &'static str,
}

impl UserToken {
    /// A token of this kind. Space around it is taken off.
    ///
    /// # Errors
    /// If it is empty, or has characters that no token has.
    pub fn new(token: &str, kind: TokenType) -> Result<Self, UserTokenError> {
        let token = token.trim();
        let token = token.strip_prefix("Bearer ").unwrap_or(token);
        if token.is_empty() {
            return Err(UserTokenError::new("it is empty", "put the user's token there"));
        }
        if token.len() > MAX_TOKEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UserTokenError::new("it is no token", "give one token, and nothing around it"));
        }
        Ok(Self { token: Zeroizing::new(token.to_owned()), kind })
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.token
    }

    /// What it is.
    pub fn kind(&self) -> TokenType {
        self.kind
    }
}

impl std::fmt::Debug for UserToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserToken").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl UserTokenError {
    /// What is wrong, and what to do about it. Neither may carry anything of a token.
    pub fn new(problem: impl Into<String>, next: &'static str) -> Self {
        Self { problem: problem.into(), next }
    }

    /// What to do about it.
    pub fn next(&self) -> &'static str {
        self.next
    }
}

const MAX_TOKEN_BYTES: usize = 64 * 1024;
