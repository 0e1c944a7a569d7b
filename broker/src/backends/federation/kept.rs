//! The newest bundle of each foreign trust domain, in files of the data folder: one each, put there as a whole, and
//! believed only if it is still what was written.

use deputize_call::digest::{Digest, sha256};
use deputize_issuer::bundle;
use serde::{Deserialize, Serialize};
use spiffe::TrustDomain;
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::super::key_files::{KeyFileError, make_private_folder, read_private, replace};
use crate::federation::{KeepBundles, Kept, NotKept, Origin};

/// The folder.
#[derive(Debug)]
pub struct BundleFolder {
    path: PathBuf,
}

/// A file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    trust_domain: String,
    /// `file` or `endpoint`.
    from: String,
    /// Unix seconds.
    at: u64,
    /// Which endpoint said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// Digest of the configured file that was looked at last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<Digest>,
    /// Of the document.
    sha256: Digest,
    /// As it was published.
    document: String,
}

impl BundleFolder {
    /// `federation` in the data folder; it is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made, or others may write to it.
    pub fn open(data_dir: &Path) -> Result<Self, KeyFileError> {
        let path = data_dir.join("federation");
        make_private_folder(&path)?;
        Ok(Self { path })
    }

    fn file(&self, trust_domain: &str) -> PathBuf {
        // Small letters, digits, `.`, `-` and `_` alone: never a path, and the ending keeps `.` and `..` from being one.
        self.path.join(format!("{trust_domain}.json"))
    }

    fn read(&self, path: &Path) -> Result<Kept, String> {
        let bytes = read_private(path).map_err(|error| error.problem)?.ok_or("it is gone")?;
        let written: Written = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        if self.file(&written.trust_domain) != path {
            return Err("it is that of another trust domain".to_owned());
        }
        let document = written.document.into_bytes();
        if Digest::from_bytes(sha256(&document)) != written.sha256 {
            return Err("it is not what was written".to_owned());
        }
        let trust_domain = TrustDomain::new(&written.trust_domain).map_err(|error| error.to_string())?;
        let bundle = bundle::from_document(trust_domain, &document).map_err(|error| error.to_string())?;
        let origin = match written.from.as_str() {
            "file" => Origin::File,
            "endpoint" => Origin::Endpoint,
            _ => return Err("it came from somewhere unknown".to_owned()),
        };
        let (at_seconds, endpoint, file) = (written.at, written.endpoint, written.file);
        Ok(Kept { bundle: Arc::new(bundle), document, origin, endpoint, at_seconds, file })
    }
}

impl KeepBundles for BundleFolder {
    fn all(&self) -> Vec<Kept> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "kept foreign bundles cannot be read");
                return Vec::new();
            }
        };
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
        let mut kept = Vec::new();
        for path in files.take(MAX_KEPT) {
            match self.read(&path) {
                Ok(found) => kept.push(found),
                Err(error) => {
                    tracing::warn!(file = %path.display(), error, "kept foreign bundle is damaged and passed over");
                }
            }
        }
        kept
    }

    fn keep(&self, kept: &Kept) -> Result<(), NotKept> {
        let not_kept = |error: &dyn std::fmt::Display| NotKept(error.to_string());
        let written = Written {
            trust_domain: kept.bundle.trust_domain.to_string(),
            from: kept.origin.name().to_owned(),
            at: kept.at_seconds,
            endpoint: kept.endpoint.clone(),
            file: kept.file,
            sha256: Digest::from_bytes(sha256(&kept.document)),
            document: String::from_utf8(kept.document.clone()).map_err(|error| not_kept(&error))?,
        };
        let bytes = serde_json::to_vec(&written).map_err(|error| not_kept(&error))?;
        replace(&self.file(&written.trust_domain), &bytes).map_err(|error| not_kept(&error))
    }

    fn forget(&self, trust_domain: &TrustDomain) -> Result<(), NotKept> {
        match fs::remove_file(self.file(trust_domain.as_str())) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(NotKept(error.to_string())),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// More than can be configured, so that what is no longer configured is found.
const MAX_KEPT: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_call::sign::{SigningAlgorithm, SigningKey};
    use serde_json::{Value, json};
    use std::os::unix::fs::PermissionsExt as _;

    fn kept(domain: &str, sequence: u64) -> Kept {
        let mut jwk = SigningKey::generate(SigningAlgorithm::ES256).unwrap().public().to_jwk();
        jwk.insert("use".to_owned(), json!("jwt-svid"));
        jwk.insert("kid".to_owned(), json!("one"));
        let document = json!({ "keys": [jwk], "spiffe_sequence": sequence }).to_string().into_bytes();
        let bundle = bundle::from_document(TrustDomain::new(domain).unwrap(), &document).unwrap();
        let file = Some(Digest::from_bytes([7; 32]));
        let endpoint = Some(format!("https_web https://{domain}/bundle"));
        Kept { bundle: Arc::new(bundle), document, origin: Origin::Endpoint, endpoint, at_seconds: 5, file }
    }

    #[test]
    fn what_is_kept_is_there_again_and_what_is_forgotten_is_not() {
        let data = tempfile::tempdir().unwrap();
        let folder = BundleFolder::open(data.path()).unwrap();
        folder.keep(&kept("partner.test", 1)).unwrap();
        folder.keep(&kept("other.test", 1)).unwrap();
        let newest = kept("partner.test", 2);
        folder.keep(&newest).unwrap();
        folder.forget(&TrustDomain::new("other.test").unwrap()).unwrap();
        folder.forget(&TrustDomain::new("never.test").unwrap()).unwrap();
        let [again] = &BundleFolder::open(data.path()).unwrap().all()[..] else { panic!() };
        assert_eq!((&again.document, again.at_seconds, again.file), (&newest.document, 5, newest.file));
        assert_eq!((again.origin, again.bundle.sequence), (Origin::Endpoint, 2));
        assert_eq!(again.endpoint.as_deref(), Some("https_web https://partner.test/bundle"));
        let mode =
            fs::metadata(data.path().join("federation/partner.test.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_was_changed_meanwhile_is_passed_over() {
        let data = tempfile::tempdir().unwrap();
        let folder = BundleFolder::open(data.path()).unwrap();
        folder.keep(&kept("partner.test", 1)).unwrap();
        let path = data.path().join("federation/partner.test.json");
        let original = fs::read(&path).unwrap();
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut written: Value = serde_json::from_slice(&original).unwrap();
            change(&mut written);
            written.to_string().into_bytes()
        };
        let other = String::from_utf8(kept("partner.test", 9).document).unwrap();
        for (what, bytes) in [
            ("another document", changed(&|written| written["document"] = json!(other))),
            ("of another trust domain", changed(&|written| written["trust_domain"] = json!("other.test"))),
            ("out of the folder", changed(&|written| written["trust_domain"] = json!("../partner.test"))),
            ("a member more", changed(&|written| written["more"] = json!(1))),
            ("half of it", original[..original.len() / 2].to_vec()),
            ("nothing", Vec::new()),
        ] {
            fs::write(&path, bytes).unwrap();
            assert!(folder.all().is_empty(), "{what}");
        }
        fs::write(&path, &original).unwrap();
        assert_eq!(folder.all().len(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(folder.all().is_empty(), "others could have written to it");
    }
}
