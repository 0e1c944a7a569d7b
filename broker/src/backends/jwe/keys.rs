//! Decryption keys, read once and held, one decrypter for each algorithm that a key serves.

use super::{
    DecryptionKeyFile, JweSetupError,
    header::{self, CheckedHeader, KeyAlgorithm, refuse},
};
use deputize_call::jws::MAX_TOKEN_BYTES;
use deputize_issuer::provider::{TokenDecrypter, UserTokenError};
use josekit::{
    JoseError,
    jwe::{
        JweDecrypter,
        alg::{ecdh_es::EcdhEsJweAlgorithm, rsaes::RsaesJweAlgorithm},
    },
    jwk::{
        Jwk,
        alg::{ec::EcKeyPair, rsa::RsaKeyPair},
    },
};
use std::{collections::HashMap, fs, path::Path};
use zeroize::Zeroizing;

/// The keys that tokens may be encrypted to.
pub struct JweKeys {
    keys: Vec<Key>,
}

struct Key {
    kid: Option<String>,
    /// The curve of an EC key.
    curve: Option<String>,
    decrypters: HashMap<KeyAlgorithm, Box<dyn JweDecrypter + Send + Sync>>,
}

impl JweKeys {
    /// Reads the key files.
    pub fn load(files: &[DecryptionKeyFile]) -> Result<Self, JweSetupError> {
        let mut keys: Vec<Key> = Vec::new();
        for file in files {
            let refuse = |problem: String| JweSetupError::Key { file: file.file.clone(), problem };
            let key = read_key(file).map_err(refuse)?;
            if keys.iter().any(|other| other.kid == key.kid) {
                return Err(refuse("another key has the same kid".to_owned()));
            }
            keys.push(key);
        }
        Ok(Self { keys })
    }

    /// The key of this `kid`; without one, the only key that fits.
    fn find(&self, header: &CheckedHeader) -> Option<&(dyn JweDecrypter + Send + Sync)> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| header.kid.is_none() || key.kid == header.kid)
            .filter(|key| key.curve == header.ephemeral_curve)
            .filter_map(|key| key.decrypters.get(&header.alg));
        match (fitting.next(), fitting.next()) {
            (Some(decrypter), None) => Some(&**decrypter),
            _ => None,
        }
    }
}

impl TokenDecrypter for JweKeys {
    fn decrypt(&self, jwe: &str) -> Result<Zeroizing<String>, UserTokenError> {
        if jwe.len() > MAX_TOKEN_BYTES {
            return Err(refuse("too long"));
        }
        let header = header::check(jwe)?;
        let decrypter = self.find(&header).ok_or(refuse("no such key"))?;
        // One answer for every failure behind this point: what exactly failed is an oracle.
        let (plaintext, _) = josekit::jwe::deserialize_compact(jwe, decrypter)
            .map_err(|_: JoseError| refuse("does not decrypt"))?;
        match String::from_utf8(plaintext) {
            Ok(inside) => Ok(Zeroizing::new(inside)),
            Err(error) => {
                drop(Zeroizing::new(error.into_bytes()));
                Err(refuse("inside is not a token"))
            }
        }
    }
}

impl std::fmt::Debug for JweKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.kid)).finish()
    }
}

fn read_key(file: &DecryptionKeyFile) -> Result<Key, String> {
    let bytes = Zeroizing::new(fs::read(&file.file).map_err(|error| error.to_string())?);
    let mut jwk = if is_jwk(&file.file) {
        Jwk::from_bytes(bytes.as_slice()).map_err(|_| "not a private JWK".to_owned())?
    } else if let Ok(pair) = RsaKeyPair::from_pem(bytes.as_slice()) {
        pair.to_jwk_key_pair()
    } else {
        EcKeyPair::from_pem(bytes.as_slice(), None)
            .map_err(|_| "neither an RSA nor an EC private key in PEM".to_owned())?
            .to_jwk_key_pair()
    };
    if let Some(kid) = &file.kid {
        jwk.set_key_id(kid);
    }
    let kid = jwk.key_id().map(str::to_owned);
    let curve = jwk.curve().map(str::to_owned);
    let alg = jwk.algorithm().map(str::to_owned);
    if jwk.key_use().is_some_and(|usage| usage != "enc") {
        return Err("not a key for encryption".to_owned());
    }
    // What the key itself restricts is applied here; the library would refuse a key that serves several algorithms.
    for restriction in ["alg", "key_ops", "use", "kid"] {
        jwk.set_parameter(restriction, None).map_err(|error| error.to_string())?;
    }
    let mut decrypters = decrypters(&jwk, curve.as_deref(), file.allow_rsa_oaep_sha1)?;
    if let Some(alg) = alg {
        decrypters.retain(|_, decrypter| decrypter.algorithm().name() == alg);
    }
    if decrypters.is_empty() {
        Err("its alg is not allowed".to_owned())
    } else {
        Ok(Key { kid, curve, decrypters })
    }
}

type Decrypters = HashMap<KeyAlgorithm, Box<dyn JweDecrypter + Send + Sync>>;

fn decrypters(jwk: &Jwk, curve: Option<&str>, allow_rsa_oaep_sha1: bool) -> Result<Decrypters, String> {
    let mut decrypters = Decrypters::new();
    match (jwk.key_type(), curve) {
        ("EC", Some("P-256" | "P-384")) => {
            for (name, algorithm) in [
                (KeyAlgorithm::EcdhEs, EcdhEsJweAlgorithm::EcdhEs),
                (KeyAlgorithm::EcdhEsA128Kw, EcdhEsJweAlgorithm::EcdhEsA128kw),
                (KeyAlgorithm::EcdhEsA256Kw, EcdhEsJweAlgorithm::EcdhEsA256kw),
            ] {
                let decrypter =
                    algorithm.decrypter_from_jwk(jwk).map_err(|_| "not a private EC key".to_owned())?;
                decrypters.insert(name, Box::new(decrypter));
            }
        }
        ("RSA", _) => {
            for (name, algorithm) in [
                (KeyAlgorithm::RsaOaep256, RsaesJweAlgorithm::RsaOaep256),
                (KeyAlgorithm::RsaOaep, RsaesJweAlgorithm::RsaOaep),
            ] {
                if name == KeyAlgorithm::RsaOaep && !allow_rsa_oaep_sha1 {
                    continue;
                }
                let decrypter = algorithm
                    .decrypter_from_jwk(jwk)
                    .map_err(|_| "not a private RSA key of at least 2,048 bits".to_owned())?;
                decrypters.insert(name, Box::new(decrypter));
            }
        }
        _ => return Err("neither RSA nor P-256 nor P-384".to_owned()),
    }
    Ok(decrypters)
}

fn is_jwk(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "json" || extension == "jwk")
}
