//! Secrets that cannot be printed by accident.

use zeroize::{Zeroize, Zeroizing};

/// A value whose `Debug` says nothing, which has no `Display`, and which is wiped when dropped.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes a secret in.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }
    /// Opens it. Every use is easy to find by this name.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<String> for Secret<String> {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new("canary".to_owned());
        assert!(!format!("{secret:?}").contains("canary"));
        assert_eq!(secret.expose(), "canary");
    }
}
