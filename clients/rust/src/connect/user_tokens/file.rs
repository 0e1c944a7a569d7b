//! The user's token in a file that somebody else keeps fresh.

use super::{UserToken, UserTokenError, UserTokens};
use crate::TokenType;
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

/// Reads the file each time: what replaces its content, or the file, is seen at the next exchange.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    kind: TokenType,
}

impl TokenFile {
    /// The token in this file.
    pub fn new(path: &Path, kind: TokenType) -> Self {
        Self { path: path.to_owned(), kind }
    }

    async fn read(&self) -> std::io::Result<Zeroizing<String>> {
        let mut text = Zeroizing::new(String::new());
        let file = tokio::fs::File::open(&self.path).await?;
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).await?;
        Ok(text)
    }
}

#[async_trait]
impl UserTokens for TokenFile {
    async fn current(&self) -> Result<UserToken, UserTokenError> {
        let place = self.path.display();
        let text = self.read().await.map_err(|error| {
            UserTokenError::new(format!("{place}: {error}"), "put the user's token into that file")
        })?;
        UserToken::new(&text, self.kind)
            .map_err(|error| UserTokenError::new(format!("{place}: {error}"), error.next()))
    }
}

const MAX_FILE_BYTES: u64 = 128 * 1024;
