//! The newest bundle of each foreign trust domain, in files of the data folder: one each, put there as a whole, and
//! believed only if it is still what was written.

use deputize_call::digest::{Digest, sha256};
use deputize_issuer::{bundle, svid::Bundle};
use serde::{Deserialize, Serialize};
use spiffe::TrustDomain;
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::super::key_files::{KeyFileError, make_private_folder, read_private, replace};
use crate::federation::{Decided, KeepBundles, Kept, NotKept, OnDisk, Origin};

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
    /// What was decided since and is not known to be on record. It has neither of these two members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decided: Option<Box<Written>>,
    /// As much of both as is trusted until then: a document, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<String>,
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

    /// The file at this place, where it is this trust domain's; nothing where there is none.
    fn written(&self, path: &Path) -> Result<Option<Written>, String> {
        let Some(bytes) = read_private(path).map_err(|error| error.problem)? else { return Ok(None) };
        let written: Written = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let decided = written.decided.as_ref();
        if self.file(&written.trust_domain) != path
            || decided.is_some_and(|decided| decided.trust_domain != written.trust_domain)
        {
            return Err("it is that of another trust domain".to_owned());
        }
        Ok(Some(written))
    }

    fn read(&self, path: &Path) -> Result<OnDisk, String> {
        let mut written = self.written(path)?.ok_or("it is gone")?;
        let (decided, held) = (written.decided.take(), written.held.take());
        let settled = written.into_kept()?;
        let decided = match decided {
            None => None,
            Some(decided) => {
                let trust_domain = &settled.bundle.trust_domain;
                let held = held.map(|held| read_document(trust_domain, held.as_bytes())).transpose()?;
                Some(Decided { kept: decided.into_kept()?, held })
            }
        };
        Ok(OnDisk { settled, decided })
    }
}

impl Written {
    fn of(kept: &Kept) -> Result<Self, NotKept> {
        Ok(Self {
            trust_domain: kept.bundle.trust_domain.to_string(),
            from: kept.origin.name().to_owned(),
            at: kept.at_seconds,
            endpoint: kept.endpoint.clone(),
            file: kept.file,
            sha256: Digest::from_bytes(sha256(&kept.document)),
            document: String::from_utf8(kept.document.clone()).map_err(not_kept)?,
            decided: None,
            held: None,
        })
    }

    fn into_kept(self) -> Result<Kept, String> {
        let document = self.document.into_bytes();
        if Digest::from_bytes(sha256(&document)) != self.sha256 {
            return Err("it is not what was written".to_owned());
        }
        let trust_domain = TrustDomain::new(&self.trust_domain).map_err(|error| error.to_string())?;
        let bundle = read_document(&trust_domain, &document)?;
        let origin = match self.from.as_str() {
            "file" => Origin::File,
            "endpoint" => Origin::Endpoint,
            _ => return Err("it came from somewhere unknown".to_owned()),
        };
        let (at_seconds, endpoint, file) = (self.at, self.endpoint, self.file);
        Ok(Kept { bundle, document, origin, endpoint, at_seconds, file })
    }

    fn put(&self, path: &Path) -> Result<(), NotKept> {
        replace(path, &serde_json::to_vec(self).map_err(not_kept)?).map_err(not_kept)
    }
}

fn read_document(trust_domain: &TrustDomain, document: &[u8]) -> Result<Arc<Bundle>, String> {
    let bundle = bundle::from_document(trust_domain.clone(), document);
    bundle.map(Arc::new).map_err(|error| error.to_string())
}

fn not_kept(error: impl std::fmt::Display) -> NotKept {
    NotKept(error.to_string())
}

impl KeepBundles for BundleFolder {
    fn all(&self) -> Vec<OnDisk> {
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
        Written::of(kept)?.put(&self.file(kept.bundle.trust_domain.as_str()))
    }

    fn note(&self, decided: &Decided) -> Result<(), NotKept> {
        let path = self.file(decided.kept.bundle.trust_domain.as_str());
        let Some(mut written) = self.written(&path).map_err(NotKept)? else { return Ok(()) };
        let held = decided.held.as_ref().map(|held| bundle::to_document(held)).transpose();
        written.held = held.map_err(not_kept)?.map(|document| document.to_string());
        written.decided = Some(Box::new(Written::of(&decided.kept)?));
        written.put(&path)
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
        let [on_disk] = &BundleFolder::open(data.path()).unwrap().all()[..] else { panic!() };
        let again = &on_disk.settled;
        assert!(on_disk.decided.is_none());
        assert_eq!((&again.document, again.at_seconds, again.file), (&newest.document, 5, newest.file));
        assert_eq!((again.origin, again.bundle.sequence), (Origin::Endpoint, 2));
        assert_eq!(again.endpoint.as_deref(), Some("https_web https://partner.test/bundle"));
        let mode =
            fs::metadata(data.path().join("federation/partner.test.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_was_decided_lies_beside_what_is_on_record_until_that_is_it() {
        let data = tempfile::tempdir().unwrap();
        let folder = BundleFolder::open(data.path()).unwrap();
        let (first, second, third) =
            (kept("partner.test", 1), kept("partner.test", 2), kept("partner.test", 3));
        let decided = |kept: &Kept, held: Option<&Kept>| Decided {
            kept: kept.clone(),
            held: held.map(|held| Arc::clone(&held.bundle)),
        };
        folder.note(&decided(&second, None)).unwrap();
        assert!(folder.all().is_empty(), "there is nothing that it could narrow");
        folder.keep(&first).unwrap();
        folder.note(&decided(&second, Some(&first))).unwrap();
        folder.note(&decided(&third, Some(&second))).unwrap();
        let [on_disk] = &folder.all()[..] else { panic!() };
        let again = on_disk.decided.as_ref().unwrap();
        assert_eq!((&on_disk.settled.document, &again.kept.document), (&first.document, &third.document));
        assert_eq!((again.kept.file, &again.kept.endpoint), (third.file, &third.endpoint));
        let held = again.held.as_ref().unwrap();
        assert!(bundle::has_same_authorities(held, &second.bundle) && held.sequence == 2);
        folder.note(&decided(&third, None)).unwrap();
        assert!(folder.all()[0].decided.as_ref().unwrap().held.is_none(), "nothing is trusted");
        let path = data.path().join("federation/partner.test.json");
        let original: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let other = String::from_utf8(kept("partner.test", 9).document).unwrap();
        for (member, value) in [("document", json!(other)), ("trust_domain", json!("other.test"))] {
            let mut changed = original.clone();
            changed["decided"][member] = value;
            fs::write(&path, changed.to_string()).unwrap();
            assert!(folder.all().is_empty(), "{member} of what was decided");
            assert!(member == "document" || folder.note(&decided(&third, None)).is_err());
        }
        folder.keep(&third).unwrap();
        let [on_disk] = &folder.all()[..] else { panic!() };
        assert!(on_disk.settled.document == third.document && on_disk.decided.is_none());
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
