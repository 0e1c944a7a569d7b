//! What is given on the command line, on stdin or in a file.

use deputize_call::{
    json::{self, Object},
    sign::SigningKey,
};
use deputize_client::DecryptionKey;
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use std::{
    io::Read as _,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

use super::exit::CommandError;
use crate::{
    assemble::DEVELOPMENT_MARKER,
    config::{
        private_file::is_private,
        read,
        resolved::{self, Mode, Resolved},
    },
};

/// Where the configuration is.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgs {
    /// Configuration of the broker
    #[arg(long, value_name = "FILE", env = "DEPUTIZE_CONFIG", default_value = "deputize.yaml")]
    pub config: PathBuf,
}

impl ConfigArgs {
    /// Which rules hold for it: those of `dev` only for what `dev` made.
    pub fn mode(&self) -> Mode {
        let data_dir = read::read_config(&self.config, std::env::vars()).ok().map(|config| config.data_dir);
        let folder = self.config.parent().unwrap_or(Path::new("."));
        let marked = data_dir.is_some_and(|data_dir| folder.join(data_dir).join(DEVELOPMENT_MARKER).exists());
        if marked { Mode::Development } else { Mode::Production }
    }

    /// Issuer of the identity that AWS knows us by, whatever is wrong with the rest.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn web_identity_issuer(&self) -> Result<String, CommandError> {
        let config = read::read_config(&self.config, std::env::vars());
        config.map(|config| config.web_identity_issuer()).map_err(|error| {
            CommandError::configuration(error, "give --issuer URL, or --config FILE of the broker")
        })
    }

    /// Audience of that identity, likewise.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn web_identity_audience(&self) -> Result<String, CommandError> {
        let config = read::read_config(&self.config, std::env::vars());
        config.map(|config| config.web_identity_audience()).map_err(|error| {
            CommandError::configuration(error, "give --audience TEXT, or --config FILE of the broker")
        })
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Resolved, CommandError> {
        resolved::load(&self.config, self.mode()).map_err(|errors| {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            CommandError::configuration(
                all.join("\n"),
                "correct it, or give --config FILE; `deputize lint` checks everything",
            )
        })
    }
}

/// A token: as given, from stdin (`-`), or from a file (`@FILE`).
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn token(given: &str) -> Result<Zeroizing<String>, CommandError> {
    let text = match given.strip_prefix('@') {
        None if given == "-" => stdin()?,
        None => Zeroizing::new(given.to_owned()),
        Some(file) => file_text(Path::new(file))?,
    };
    let token =
        Zeroizing::new(text.trim().trim_start_matches("Bearer ").trim_start_matches("DPoP ").to_owned());
    if token.is_empty() {
        return Err(CommandError::usage(
            "there is no token",
            "give it as argument, in a file as @FILE, or on stdin as -",
        ));
    }
    Ok(token)
}

/// A JSON object: as given, or from a file (`@FILE`). Read as strictly as a guard would.
///
/// # Errors
/// If it is none.
pub fn object(given: &str, option: &str) -> Result<Object, CommandError> {
    let text = match given.strip_prefix('@') {
        None => Zeroizing::new(given.to_owned()),
        Some(file) => file_text(Path::new(file))?,
    };
    json::parse_object(text.as_bytes()).map_err(|error| {
        CommandError::usage(format!("{option}: {error}"), "give one JSON object, or @FILE with one")
    })
}

/// A private key (JWK) from a file that its owner alone may read.
///
/// # Errors
/// If it is none, or others may read it.
pub fn private_key(file: &Path) -> Result<SigningKey, CommandError> {
    key_from(&json::parse_object(private_text(file)?.as_bytes()).map_err(|error| not_a_key(file, &error))?)
        .map_err(|error| not_a_key(file, &error))
}

/// A private key for sealed answers, as JWK (P-256) or PKCS#8 in PEM (P-256, RSA), from a file that its owner alone may
/// read.
///
/// # Errors
/// If it is none, or others may read it.
pub fn decryption_key(file: &Path) -> Result<DecryptionKey, CommandError> {
    let text = private_text(file)?;
    let key = match PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()) {
        Ok(der) => DecryptionKey::from_pkcs8(der.secret_pkcs8_der(), None),
        Err(_) => {
            let jwk = json::parse_object(text.as_bytes()).map_err(|error| not_a_key(file, &error))?;
            DecryptionKey::from_private_jwk(&jwk)
        }
    };
    key.map_err(|error| {
        CommandError::failure(
            format!("{}: {error}", file.display()),
            "give the private half of the key with use enc that the broker knows, as JWK or PKCS#8",
        )
    })
}

/// The text of a file that its owner alone may read.
///
/// # Errors
/// If it cannot be read, or others may read it.
pub fn private_text(file: &Path) -> Result<Zeroizing<String>, CommandError> {
    if std::fs::metadata(file).is_ok_and(|metadata| !is_private(&metadata)) {
        return Err(CommandError::failure(
            format!("{}: others may read this private key", file.display()),
            "chmod 600, and make a new key if they did",
        ));
    }
    file_text(file)
}

/// A private key from a JWK.
///
/// # Errors
/// If it is none.
pub fn key_from(jwk: &Object) -> Result<SigningKey, deputize_call::jws::JwsError> {
    SigningKey::from_private_jwk(jwk)
}

fn not_a_key(file: &Path, error: &dyn std::fmt::Display) -> CommandError {
    CommandError::failure(
        format!("{}: no private key: {error}", file.display()),
        "give the .private.jwk.json that `deputize client add` wrote",
    )
}

/// The text of a file.
///
/// # Errors
/// If it cannot be read.
pub fn file_text(file: &Path) -> Result<Zeroizing<String>, CommandError> {
    read::read_text(file)
        .map(Zeroizing::new)
        .map_err(|error| CommandError::failure(error, "give a file that can be read"))
}

fn stdin() -> Result<Zeroizing<String>, CommandError> {
    let mut text = Zeroizing::new(String::new());
    let read = std::io::stdin().take(MAX_STDIN_BYTES).read_to_string(&mut text);
    read.map_err(|error| CommandError::failure(format!("stdin: {error}"), "pipe the token in as text"))?;
    Ok(text)
}

const MAX_STDIN_BYTES: u64 = 256 * 1024;
