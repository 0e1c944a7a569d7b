//! `deputize audit`, run as a process of its own: it looks things up while the log grows, and verifies files at rest, of
//! which a byte was changed behind its back.

use super::Trouble;
use deputize_issuer::clock::fill_random;
use serde_json::Value;
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

/// What the process said.
pub(super) struct Verdict {
    pub(super) sound: bool,
    pub(super) text: String,
}

/// Looks up records that fit these conditions.
pub(super) async fn query(data: &Path, conditions: &[&str]) -> Result<Vec<Value>, Trouble> {
    let output = Command::new(std::env::current_exe()?)
        .args(["audit", "query", "-o", "json", "--data"])
        .arg(data)
        .args(conditions)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        return Err(Trouble::new(format!(
            "audit query failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(serde_json::from_slice).collect::<Result<_, _>>()?)
}

/// Runs `deputize audit verify` on a data folder, by the newest checkpoint that was kept outside it.
pub(super) async fn verify(data: &Path, anchor: &Path) -> Result<Verdict, Trouble> {
    let output = Command::new(std::env::current_exe()?)
        .args(["audit", "verify", "--data"])
        .arg(data)
        .arg("--anchor")
        .arg(anchor)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Verdict { sound: output.status.success(), text })
}

/// A byte that was changed.
pub(super) struct Flip {
    /// The file, within the data folder.
    pub(super) file: PathBuf,
    /// Where in it.
    pub(super) offset: usize,
}

/// Changes one random byte of one random segment.
pub(super) fn flip_a_byte(data: &Path) -> Result<Flip, Trouble> {
    let mut segments = Vec::new();
    find_segments(data, &mut segments)?;
    segments.sort();
    let file = segments.get(below(segments.len())?).ok_or_else(|| Trouble::new("the log has no segment"))?;
    let mut bytes = fs::read(file)?;
    let offset = below(bytes.len())?;
    let byte = bytes.get_mut(offset).ok_or_else(|| Trouble::new("the segment is empty"))?;
    // Any change but none.
    *byte ^= u8::try_from(1 + below(255)?).unwrap_or(1);
    fs::write(file, bytes)?;
    Ok(Flip { file: file.strip_prefix(data).unwrap_or(file).to_owned(), offset })
}

/// A copy of a folder, to be damaged instead of it.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn find_segments(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find_segments(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == SEGMENT_EXTENSION) {
            found.push(path);
        }
    }
    Ok(())
}

/// A random number below `bound`; zero where there is none.
fn below(bound: usize) -> Result<usize, Trouble> {
    let mut random = [0_u8; 8];
    fill_random(&mut random)?;
    // The bias of the remainder does not matter here.
    Ok(usize::try_from(u64::from_le_bytes(random) % (bound.max(1) as u64)).unwrap_or(0))
}

/// What the log's segment files are called by.
const SEGMENT_EXTENSION: &str = "seg";
