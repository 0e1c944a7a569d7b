//! Deputize's own clients in other languages, as they stand in the tree.

use crate::node::node;
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// Python that has the client, and what its tests need: the official MCP client and FastMCP among them.
pub fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python");
    assert!(python.exists(), "python packages are missing: run ./test, which installs them");
    python
}

/// The client for TypeScript, built into `dist` of a folder.
pub fn typescript() -> TempDir {
    let (source, folder) = (typescript_source(), node_folder());
    let mut build = Command::new(node());
    build.arg(source.join("node_modules/typescript/bin/tsc")).args(["-p", "tsconfig.build.json", "--outDir"]);
    assert!(build.current_dir(source).arg(folder.path().join("dist")).status().unwrap().success());
    folder
}

/// A folder in which the packages of that client's tests are found, AWS's own among them.
pub fn node_folder() -> TempDir {
    let (source, folder) = (typescript_source(), tempfile::tempdir().unwrap());
    let packages = source.join("node_modules");
    assert!(packages.exists(), "npm packages are missing: run ./test, which installs them");
    std::os::unix::fs::symlink(packages, folder.path().join("node_modules")).unwrap();
    std::fs::copy(source.join("package.json"), folder.path().join("package.json")).unwrap();
    folder
}

fn typescript_source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/typescript").canonicalize().unwrap()
}
