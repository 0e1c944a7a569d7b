//! A fresh key pair in two files: the private half for its owner alone, the public half for configurations.

use deputize_call::{
    json::Object,
    jws::JwsError,
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

use super::exit::CommandError;
use crate::backends::key_files::write_new;

/// Where the halves are.
pub struct KeyPair {
    /// The private half, a JWK.
    pub private_file: PathBuf,
    /// The public half, a JWKS.
    pub public_file: PathBuf,
    /// The private half of a second key, to which answers with secrets in them are sealed.
    pub sealing_file: Option<PathBuf>,
    /// Key id, the thumbprint of RFC 7638.
    pub kid: String,
}

impl KeyPair {
    /// Makes a key and writes `NAME.private.jwk.json` and `NAME.jwks.json`; nothing is overwritten.
    ///
    /// # Errors
    /// If a file is there already, or cannot be written.
    pub fn write(folder: &Path, owner: &str) -> Result<Self, CommandError> {
        Self::make(folder, owner, false)
    }

    /// The same, with a second key for encryption in `NAME.sealing.private.jwk.json`.
    ///
    /// # Errors
    /// As [`KeyPair::write`].
    pub fn write_with_sealing(folder: &Path, owner: &str) -> Result<Self, CommandError> {
        Self::make(folder, owner, true)
    }

    fn make(folder: &Path, owner: &str, with_sealing: bool) -> Result<Self, CommandError> {
        let name = file_name(owner);
        let sealing_file = with_sealing.then(|| folder.join(format!("{name}.sealing.private.jwk.json")));
        let private_file = folder.join(format!("{name}.private.jwk.json"));
        let public_file = folder.join(format!("{name}.jwks.json"));
        // Looked at before anything is made: no private key without its public half. The writing itself is exclusive.
        if let Some(taken) = [&private_file, &public_file]
            .into_iter()
            .chain(&sealing_file)
            .find(|file| file.symlink_metadata().is_ok())
        {
            return Err(CommandError::failure(
                format!("{} is there already", taken.display()),
                "nothing is overwritten: choose another --folder, or move it away if there is to be a new key anyway",
            ));
        }
        let cannot = |error: &dyn std::fmt::Display| {
            CommandError::failure(error, "make the folder writable, or give another --folder")
        };
        std::fs::create_dir_all(folder).map_err(|error| cannot(&error))?;
        let key = SigningKey::generate(SigningAlgorithm::ES256).map_err(|error| cannot(&error))?;
        let private = key.to_private_jwk().map_err(|error| cannot(&error))?;
        let mut public = KeySet::new(vec![key.public().clone()]).to_jwks();
        write_new(&private_file, private.as_bytes()).map_err(|error| cannot(&error))?;
        if let Some(file) = &sealing_file {
            let (private, jwk) = sealing_key().map_err(|error| cannot(&error))?;
            write_new(file, private.as_bytes()).map_err(|error| cannot(&error))?;
            if let Some(keys) = public.get_mut("keys").and_then(serde_json::Value::as_array_mut) {
                keys.push(jwk.into());
            }
        }
        write_public(&public_file, &format!("{public:#}\n")).map_err(|error| cannot(&error))?;
        Ok(Self { private_file, public_file, sealing_file, kid: key.kid().to_owned() })
    }
}

/// A key on P-256 for encryption: its private half as text, its public half as JWK.
fn sealing_key() -> Result<(Zeroizing<String>, Object), JwsError> {
    let key = SigningKey::generate(SigningAlgorithm::ES256)?;
    let mut public = key.public().to_jwk();
    public.insert("use".to_owned(), "enc".into());
    public.insert("alg".to_owned(), "ECDH-ES+A256KW".into());
    // As text, so that the private half is in no buffer that is not wiped; its members are base64url, without quotes.
    let private = key.to_private_jwk()?;
    let private = Zeroizing::new(private.replace("\"ES256\"", "\"ECDH-ES+A256KW\""));
    Ok((Zeroizing::new(private.replace("\"sig\"", "\"enc\"")), public))
}

/// Owners may be SPIFFE IDs; file names may not.
fn file_name(owner: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = owner.chars().map(plain).take(100).collect();
    // A leading dot would hide the file; and of two names that look alike here, the second finds its file taken.
    name.trim_start_matches('.').to_owned()
}

fn write_public(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
