//! The narrow seam to the file system: everything that changes the disk goes through [`Disk`].

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
};

/// What the log asks of a disk.
pub(super) trait Disk: Send + Sync {
    /// Creates a file that must not exist yet, readable by its owner only.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Writes all of `bytes` at `offset`.
    fn write(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file's content and length durable.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Makes names created in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Cuts a file to `length` bytes.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()>;
    /// Gives a file another name, replacing what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Bytes that this process may still write in `folder`.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// The disk of the machine.
#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)
    }

    fn write(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(folder)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

/// Whether [`replace`] returns only once the new content would survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    /// It would.
    Now,
    /// It need not: the content can be derived again.
    Eventually,
}

/// Replaces a file as a whole: readers see the old content or the new, never a mixture.
pub(super) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8], durable: Durable) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    let unfinished = Path::new(&name);
    match disk.remove(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(unfinished)?;
    disk.write(&file, 0, bytes)?;
    if durable == Durable::Now {
        disk.sync(&file)?;
    }
    disk.rename(unfinished, path)?;
    match path.parent() {
        Some(parent) if durable == Durable::Now => disk.sync_folder(parent),
        _ => Ok(()),
    }
}

/// Creates a folder and those above it, open to their owner only.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// Whether an error says that there is no space, which may pass.
pub(super) fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(super) const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
const UNFINISHED: &str = ".new";
