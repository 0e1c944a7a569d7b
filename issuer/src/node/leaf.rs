//! What tells one SVID of a node from every other: its serial number and its key.

use deputize_call::digest::sha256;
use subtle::ConstantTimeEq as _;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::Attested;
use crate::authority::hex;

/// A node's SVID. The number alone would be whoever's who can sign: it is no secret, and stands on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeLeaf {
    /// Its serial number, in hexadecimal.
    pub(super) serial: String,
    /// SHA-256 of its public key (`SubjectPublicKeyInfo`, DER), in hexadecimal.
    pub(super) key: String,
}

impl NodeLeaf {
    /// Of this certificate (DER); none where it cannot be read.
    pub(super) fn read(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let key = hex(&sha256(certificate.public_key().raw));
        Some(Self { serial: hex(certificate.raw_serial()), key })
    }

    fn has(&self, serial: &str, key: Option<&str>) -> bool {
        let is_key = |key: &str| bool::from(key.as_bytes().ct_eq(self.key.as_bytes()));
        self.serial == serial && key.is_none_or(is_key)
    }
}

impl Attested {
    /// Whether this SVID is one that the node goes on with.
    pub(super) fn goes_on_with(&self, leaf: &NodeLeaf) -> bool {
        let is_previous = |previous: &str| leaf.has(previous, self.previous_key.as_deref());
        leaf.has(&self.serial, self.key.as_deref()) || self.previous.as_deref().is_some_and(is_previous)
    }

    /// Whether its key is missing in what an older broker kept of this SVID.
    pub(super) fn lacks_key_of(&self, leaf: &NodeLeaf) -> bool {
        let is_previous = self.previous.as_ref() == Some(&leaf.serial);
        (self.serial == leaf.serial && self.key.is_none()) || (is_previous && self.previous_key.is_none())
    }

    /// Fills that in: from now on it is the SVID with this key.
    pub(super) fn learn_key_of(&mut self, leaf: &NodeLeaf) {
        if self.serial == leaf.serial {
            self.key.get_or_insert_with(|| leaf.key.clone());
        }
        if self.previous.as_ref() == Some(&leaf.serial) {
            self.previous_key.get_or_insert_with(|| leaf.key.clone());
        }
    }
}
