//! Signed checkpoints: C2SP tlog-checkpoint over C2SP signed-note, with Ed25519.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    digest::{Context, SHA256},
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::tree::Hash;

/// A size of a log and the root of its tree at that size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log, as a schema-less URL (C2SP tlog-checkpoint, "Note text").
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The root over them, RFC 6962 §2.1.
    pub root: Hash,
}

/// A checkpoint with the note that carries its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Arc<str>,
}

impl SignedCheckpoint {
    /// What was signed.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// How many entries it covers.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// The root over them.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.checkpoint.root
    }

    /// The signed note, as it is published.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }
}

/// Why a checkpoint is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The key is not an Ed25519 key in PKCS#8, or not a verifier key of a signed note.
    #[error("the checkpoint key cannot be read")]
    Key,
    /// The key's name is empty, too long, or holds a space, a line break or a plus sign.
    #[error("the checkpoint key's name must have 1 to 255 bytes without spaces and plus signs")]
    Name,
    /// The note is not formed as C2SP tlog-checkpoint says.
    #[error("the checkpoint is malformed")]
    Malformed,
    /// The checkpoint is of another log.
    #[error("the checkpoint is of another log")]
    Origin,
    /// No signature by the expected key.
    #[error("the checkpoint has no signature by this log's key")]
    Unsigned,
    /// A signature of the expected key's name that does not verify.
    #[error("the checkpoint's signature is wrong")]
    Signature,
    /// Signing failed.
    #[error("the checkpoint could not be signed")]
    Signing,
}

/// Signs the checkpoints of one log. The key stays inside the cryptographic library, which clears it on drop.
pub struct CheckpointSigner {
    key: Ed25519KeyPair,
    verifier: CheckpointVerifier,
}

impl fmt::Debug for CheckpointSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CheckpointSigner").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

impl CheckpointSigner {
    /// The signer named `name`, which is the log's origin, from an Ed25519 key in PKCS#8 (RFC 8410).
    ///
    /// # Errors
    /// [`CheckpointError::Key`] or [`CheckpointError::Name`].
    pub fn from_pkcs8(name: &str, pkcs8: &Zeroizing<Vec<u8>>) -> Result<Self, CheckpointError> {
        let key = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| CheckpointError::Key)?;
        let public = key.public_key().as_ref().try_into().map_err(|_| CheckpointError::Key)?;
        Ok(Self { key, verifier: CheckpointVerifier::new(name, public)? })
    }

    /// A new key in PKCS#8, to be kept sealed.
    ///
    /// # Errors
    /// [`CheckpointError::Key`] where the system gives no randomness.
    pub fn generate_pkcs8() -> Result<Zeroizing<Vec<u8>>, CheckpointError> {
        let key = Ed25519KeyPair::generate().map_err(|_| CheckpointError::Key)?;
        let document = key.to_pkcs8().map_err(|_| CheckpointError::Key)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// What verifies this signer's checkpoints.
    #[must_use]
    pub fn verifier(&self) -> &CheckpointVerifier {
        &self.verifier
    }

    /// Signs a size and its root.
    ///
    /// # Errors
    /// [`CheckpointError::Signing`].
    pub fn sign(&self, size: u64, root: Hash) -> Result<SignedCheckpoint, CheckpointError> {
        let name = &self.verifier.name;
        let text = format!("{name}\n{size}\n{}\n", STANDARD.encode(root));
        let signature = self.key.try_sign(text.as_bytes()).map_err(|_| CheckpointError::Signing)?;
        let mut line = self.verifier.key_id.to_vec();
        line.extend(signature.as_ref());
        // C2SP signed-note, "Format": an em dash, the name, the key ID and signature in base64.
        let note = format!("{text}\n{SIGNATURE_START}{name} {}\n", STANDARD.encode(line));
        let checkpoint = Checkpoint { origin: name.clone(), size, root };
        Ok(SignedCheckpoint { checkpoint, note: note.into() })
    }
}

/// Verifies the checkpoints of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointVerifier {
    name: String,
    key_id: [u8; 4],
    public: [u8; 32],
}

impl CheckpointVerifier {
    /// The verifier of an Ed25519 public key under a name.
    ///
    /// # Errors
    /// [`CheckpointError::Name`].
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, CheckpointError> {
        // C2SP signed-note, "Format": a key name is non-empty, without spaces and plus signs.
        let fits = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
        if name.is_empty() || name.len() > NAME_MOST || !name.chars().all(fits) {
            return Err(CheckpointError::Name);
        }
        // C2SP signed-note, "Signatures": SHA-256(name ‖ 0x0A ‖ type ‖ public key), cut to 4 bytes.
        let mut context = Context::new(&SHA256);
        context.update(name.as_bytes());
        context.update(&[b'\n', ED25519_TYPE]);
        context.update(&public);
        let digest = context.finish();
        let key_id = *digest.as_ref().first_chunk().ok_or(CheckpointError::Key)?;
        Ok(Self { name: name.to_owned(), key_id, public })
    }

    /// Parses a verifier key, `name+hash+key` (C2SP signed-note, "Verifier keys").
    ///
    /// # Errors
    /// [`CheckpointError::Key`] where it is malformed or the hash is not that of the key.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(CheckpointError::Key);
        };
        let key = STANDARD.decode(key).map_err(|_| CheckpointError::Key)?;
        let Some((&ED25519_TYPE, public)) = key.split_first() else { return Err(CheckpointError::Key) };
        let verifier = Self::new(name, public.try_into().map_err(|_| CheckpointError::Key)?)?;
        if format!("{:08x}", u32::from_be_bytes(verifier.key_id)) != hash {
            return Err(CheckpointError::Key);
        }
        Ok(verifier)
    }

    /// The key's name, which is the log's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Believes a note: the origin is the key's name and the key's signature verifies.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, note: &[u8]) -> Result<SignedCheckpoint, CheckpointError> {
        let note = Some(note).filter(|note| note.len() <= NOTE_MOST).ok_or(CheckpointError::Malformed)?;
        let note = std::str::from_utf8(note).map_err(|_| CheckpointError::Malformed)?;
        let (body, signatures) = note.rsplit_once("\n\n").ok_or(CheckpointError::Malformed)?;
        let text = note.get(..=body.len()).ok_or(CheckpointError::Malformed)?;
        self.verify_signature(text, signatures)?;
        let checkpoint = parse(text)?;
        if checkpoint.origin != self.name {
            return Err(CheckpointError::Origin);
        }
        Ok(SignedCheckpoint { checkpoint, note: note.into() })
    }

    fn verify_signature(&self, text: &str, signatures: &str) -> Result<(), CheckpointError> {
        let lines = signatures.strip_suffix('\n').ok_or(CheckpointError::Malformed)?;
        let mut verified = false;
        for line in lines.split('\n') {
            let parts = line.strip_prefix(SIGNATURE_START).and_then(|rest| rest.split_once(' '));
            let (name, signature) = parts.ok_or(CheckpointError::Malformed)?;
            let bytes = STANDARD.decode(signature).map_err(|_| CheckpointError::Malformed)?;
            let (key_id, signature) = bytes.split_first_chunk::<4>().ok_or(CheckpointError::Malformed)?;
            // C2SP signed-note, "Signatures": those by unknown keys (witnesses) are ignored.
            if name == self.name && *key_id == self.key_id {
                let key = UnparsedPublicKey::new(&ED25519, self.public);
                key.verify(text.as_bytes(), signature).map_err(|_| CheckpointError::Signature)?;
                verified = true;
            }
        }
        verified.then_some(()).ok_or(CheckpointError::Unsigned)
    }
}

impl fmt::Display for CheckpointVerifier {
    /// The verifier key, `name+hash+key`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519_TYPE];
        key.extend(self.public);
        write!(formatter, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.key_id), STANDARD.encode(key))
    }
}

/// C2SP tlog-checkpoint, "Note text": origin, size in decimal, root in base64, optional extension lines.
fn parse(text: &str) -> Result<Checkpoint, CheckpointError> {
    let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Malformed)?.split('\n');
    let (Some(origin), Some(digits), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(CheckpointError::Malformed);
    };
    let size: u64 = digits.parse().map_err(|_| CheckpointError::Malformed)?;
    let root = STANDARD.decode(root).map_err(|_| CheckpointError::Malformed)?;
    // The size has one spelling, without sign and leading zeroes; extension lines are not empty.
    if origin.is_empty() || size.to_string() != digits || lines.any(str::is_empty) {
        return Err(CheckpointError::Malformed);
    }
    let root = root.try_into().map_err(|_| CheckpointError::Malformed)?;
    Ok(Checkpoint { origin: origin.to_owned(), size, root })
}

const SIGNATURE_START: &str = "\u{2014} ";
/// The signature type of Ed25519 in C2SP signed-note.
const ED25519_TYPE: u8 = 0x01;
/// Bytes of the longest key name and origin.
const NAME_MOST: usize = 255;
/// Bytes of the longest note read: a checkpoint with the signatures of many witnesses.
pub(super) const NOTE_MOST: usize = 16 * 1024;
