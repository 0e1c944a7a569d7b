//! Secrets on the wire between agent and broker.

use deputize_issuer::secret::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A token or proof that one of the two says to the other: written whole there, for that is what it is for, and nowhere else.
/// `Debug` says nothing of it, and it is wiped when it is dropped.
#[derive(Clone, Debug)]
pub struct Told(Secret<String>);

impl Told {
    /// Says it.
    pub fn new(secret: String) -> Self {
        Self(Secret::new(secret))
    }

    /// Opens it. Every use is easy to find by this name.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The secret, which goes no further over this wire.
    pub fn into_secret(self) -> Secret<String> {
        self.0
    }
}

impl Serialize for Told {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
