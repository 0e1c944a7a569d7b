//! Whether a process has its users and files from where we have ours (namespaces(7)).

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Whether the process of this folder of /proc is in another user namespace than we are, or has another root. Its
/// process namespace is told by its status.
///
/// Anybody may read how users are mapped; for the rest we need the right to look at the process (ptrace(2)). Without it
/// only what can be read counts.
pub(crate) fn differ(folder: &Path) -> bool {
    let ours = PathBuf::from("/proc/self");
    let users = |of: &Path| fs::read(of.join("uid_map")).ok();
    if users(folder) != users(&ours) {
        return true;
    }
    THINGS.iter().any(|thing| match (file(&folder.join(thing)), file(&ours.join(thing))) {
        (Some(its), Some(own)) => its != own,
        _ => false,
    })
}

/// What tells a file from any other.
fn file(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

const THINGS: [&str; 2] = ["ns/user", "root"];
