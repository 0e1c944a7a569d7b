//! The checkpoints that were signed earlier, in the folder and outside it: what the log is compared with.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{
    LogConfig, LogError,
    checkpoint::{CheckpointSigner, NOTE_MOST, SignedCheckpoint},
    disk::{self, Disk, Durable},
    reader::LogReader,
    tree::Tree,
    writer::CHECKPOINT_FILE,
};

/// What was signed earlier: in the folder, and outside it.
pub(super) struct Records {
    pub(super) own: Option<(PathBuf, SignedCheckpoint)>,
    pub(super) anchor: Option<(PathBuf, SignedCheckpoint)>,
}

impl Records {
    pub(super) fn read(config: &LogConfig, signer: &CheckpointSigner) -> Result<Self, LogError> {
        let own = read_checkpoint(config.folder.join(CHECKPOINT_FILE), signer)?;
        let anchor = match &config.anchor {
            Some(anchor) => read_checkpoint(anchor.clone(), signer)?,
            None => None,
        };
        Ok(Self { own, anchor })
    }

    fn all(&self) -> impl Iterator<Item = &(PathBuf, SignedCheckpoint)> {
        self.own.iter().chain(&self.anchor)
    }

    /// Entries that were signed for.
    pub(super) fn covered(&self) -> u64 {
        self.all().map(|(_, record)| record.size()).max().unwrap_or(0)
    }

    /// INVARIANT: the first checkpoint is written before the first segment.
    pub(super) fn check_presence(&self, config: &LogConfig, firsts: &[u64]) -> Result<(), LogError> {
        if self.own.is_none() && !firsts.is_empty() {
            let file = config.folder.join(CHECKPOINT_FILE);
            return Err(rolled_back(
                &file,
                0,
                0,
                "there are segments, but the log's own checkpoint is missing",
            ));
        }
        Ok(())
    }

    pub(super) fn check_size(&self, size: u64) -> Result<(), LogError> {
        match self.all().find(|(_, record)| record.size() > size) {
            Some((file, record)) => Err(rolled_back(file, record.size(), size, "entries are lost")),
            None => Ok(()),
        }
    }

    /// Signs what was found, where it is news.
    pub(super) fn renew(
        &self,
        config: &LogConfig,
        signer: &CheckpointSigner,
        disk: &dyn Disk,
        tree: &Tree,
    ) -> Result<SignedCheckpoint, LogError> {
        let current = |record: &Option<(PathBuf, SignedCheckpoint)>| {
            record
                .as_ref()
                .filter(|(_, record)| record.size() == tree.size())
                .map(|(_, record)| record.clone())
        };
        let own = config.folder.join(CHECKPOINT_FILE);
        let write = |file: &Path, record: &SignedCheckpoint| {
            let written = disk::replace(disk, file, record.note().as_bytes(), Durable::Now);
            written.map_err(|cause| LogError::io(file, cause))
        };
        let checkpoint = match current(&self.own) {
            Some(record) => record,
            None => {
                let signed = signer.sign(tree.size(), tree.root());
                let signed = signed.map_err(|cause| LogError::Checkpoint { file: own.clone(), cause })?;
                write(&own, &signed)?;
                signed
            }
        };
        if let Some(anchor) = &config.anchor
            && current(&self.anchor).is_none()
        {
            write(anchor, &checkpoint)?;
        }
        Ok(checkpoint)
    }

    /// The first record whose root is not that of the log.
    pub(super) fn disagreement(
        &self,
        reader: &LogReader,
    ) -> Result<Option<&(PathBuf, SignedCheckpoint)>, LogError> {
        for record in self.all() {
            if reader.root_at(record.1.size())? != record.1.root() {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

pub(super) fn rolled_back(file: &Path, recorded: u64, found: u64, reason: &'static str) -> LogError {
    LogError::RolledBack { file: file.to_owned(), recorded, found, reason }
}

fn read_checkpoint(
    file: PathBuf,
    signer: &CheckpointSigner,
) -> Result<Option<(PathBuf, SignedCheckpoint)>, LogError> {
    let note = match read_note(&file) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(LogError::io(&file, cause)),
    };
    match signer.verifier().verify(&note) {
        Ok(record) => Ok(Some((file, record))),
        Err(cause) => Err(LogError::Checkpoint { file, cause }),
    }
}

/// Reads a note, at most a byte more than is allowed.
pub(super) fn read_note(file: &Path) -> io::Result<Vec<u8>> {
    let mut note = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(file)?, NOTE_MOST as u64 + 1), &mut note)?;
    Ok(note)
}
