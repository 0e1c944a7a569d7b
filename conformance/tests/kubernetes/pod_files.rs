//! The files that a pod's containers find, laid out as the kubelet does: in a folder of this moment, to which `..data`
//! leads, and a link for each name.

use serde_json::Value;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

use crate::manifests::{Manifests, Pod};
use deputize_conformance::trust::write_private;

/// A root below which the pod's volumes are.
pub(crate) struct PodFiles(TempDir);

impl PodFiles {
    /// All volumes that a pod mounts. `given` says what stands in a file of a Secret or ConfigMap that is not in the
    /// manifests.
    pub(crate) fn of(pod: &Pod, built: &Manifests, given: impl Fn(&str, &str) -> Option<String>) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for mount in pod.mounts() {
            let name = mount["name"].as_str().unwrap();
            let folder = files.path(mount["mountPath"].as_str().unwrap());
            fs::create_dir_all(&folder).unwrap();
            if pod.has_volume(name) {
                let contents = Contents { built, namespace: &pod.namespace, given: &given };
                lay_out(&folder, &contents.of(pod.volume(name)));
            }
        }
        // Paths in what is mounted are those of the container.
        for file in files.all(files.root()) {
            let text = fs::read_to_string(&file).unwrap();
            let root = files.root().display();
            let text =
                ["/etc/deputize", "/var/lib/deputize", "/var/run/secrets"].iter().fold(text, |text, path| {
                    let moved = text.replace(&format!(" {path}"), &format!(" {root}{path}"));
                    moved.replace(&format!("[{path}"), &format!("[{root}{path}"))
                });
            fs::write(&file, text).unwrap();
        }
        files
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// Where a path of the container is here.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root().join(inside.trim_start_matches('/'))
    }

    pub(crate) fn text(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap()
    }

    pub(crate) fn replace(&self, inside: &str, from: &str, to: &str) {
        let text = self.text(inside);
        assert!(text.contains(from), "{from}");
        fs::write(self.path(inside), text.replacen(from, to, 1)).unwrap();
    }

    fn all(&self, folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let found = entries.flat_map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => self.all(&entry.path()),
            kind if kind.is_file() => vec![entry.path()],
            _ => Vec::new(),
        });
        found.collect()
    }
}

/// Where the contents of volumes come from.
struct Contents<'p, G> {
    built: &'p Manifests,
    namespace: &'p str,
    given: &'p G,
}

impl<G: Fn(&str, &str) -> Option<String>> Contents<'_, G> {
    /// Path and text of each file.
    fn of(&self, volume: &Value) -> Vec<(String, String)> {
        if let Some(sources) = volume.pointer("/projected/sources").and_then(Value::as_array) {
            return sources.iter().flat_map(|source| self.of(source)).collect();
        }
        if let Some(map) = volume.get("configMap") {
            return self.of_map(map, map["name"].as_str().unwrap());
        }
        if let Some(secret) = volume.get("secret") {
            return self.of_map(secret, secret["secretName"].as_str().unwrap());
        }
        volume
            .get("serviceAccountToken")
            .map(|token| (token["path"].as_str().unwrap().into(), "token".into()))
            .into_iter()
            .collect()
    }

    fn of_map(&self, source: &Value, name: &str) -> Vec<(String, String)> {
        let data = self.built.config_map(self.namespace, name).and_then(Value::as_object);
        let text = |key: &str| match data {
            Some(data) => Some(data[key].as_str().unwrap().to_owned()),
            None => (self.given)(name, key),
        };
        let items = source.get("items").and_then(Value::as_array);
        let names: Vec<(String, String)> = match (items, data) {
            (Some(items), _) => items
                .iter()
                .map(|item| (item["key"].as_str().unwrap().into(), item["path"].as_str().unwrap().into()))
                .collect(),
            (None, Some(data)) => data.keys().map(|key| (key.clone(), key.clone())).collect(),
            (None, None) => GIVEN.iter().map(|key| ((*key).to_owned(), (*key).to_owned())).collect(),
        };
        names.into_iter().filter_map(|(key, path)| Some((path, text(&key)?))).collect()
    }
}

fn lay_out(folder: &Path, files: &[(String, String)]) {
    let moment = "..2026_11_22_00_00_00.000000001";
    symlink(moment, folder.join("..data")).unwrap();
    fs::create_dir(folder.join(moment)).unwrap();
    for (path, text) in files {
        let file = folder.join(moment).join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        write_private(&file, text);
        let first = Path::new(path).components().next().unwrap();
        // Another file of the same folder may have made it.
        let _ = symlink(Path::new("..data").join(first), folder.join(first));
    }
}

/// The files of what is not in the manifests.
const GIVEN: [&str; 5] = ["tls.crt", "tls.key", "ca.crt", "crm-guard.private.jwk.json", "jwks.json"];
