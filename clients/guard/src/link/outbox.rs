//! Reports that wait for the broker: lines in two files, the older of which makes room for what is new.

use crate::EventRecord;
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// What waits, on disk so that a restart does not lose it, and in memory so that it is sent soon.
#[derive(Debug)]
pub(super) struct Outbox {
    older: PathBuf,
    newer: PathBuf,
    file: File,
    /// Bytes in the newer file.
    bytes: u64,
    /// What waits, in order: that of the older file first.
    waiting: VecDeque<EventRecord>,
    /// How many of them stand in the older file.
    in_older: usize,
    /// What had to make room, or could not be read back.
    lost: u64,
}

impl Outbox {
    /// Opens the files of a state folder. Lines that a sudden end cut off are lost.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let (older, newer) = (folder.join("events.older.jsonl"), folder.join("events.jsonl"));
        let mut lost = 0;
        let mut waiting: VecDeque<EventRecord> = VecDeque::new();
        read(&older, &mut waiting, &mut lost)?;
        let in_older = waiting.len();
        read(&newer, &mut waiting, &mut lost)?;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&newer)?;
        let bytes = file.metadata()?.len();
        let mut outbox = Self { older, newer, bytes, file, waiting, in_older, lost };
        if bytes > 0 {
            // What was cut off must not become the beginning of the next line.
            outbox.file.write_all(b"\n")?;
        }
        Ok(outbox)
    }

    /// Adds reports.
    pub(super) fn push(&mut self, records: Vec<EventRecord>) -> io::Result<()> {
        let mut lines = Vec::new();
        for record in &records {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        if self.bytes + lines.len() as u64 > MAX_FILE_BYTES {
            self.turn()?;
        }
        self.waiting.extend(records);
        self.file.write_all(&lines)?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// The oldest, at most so many. They stay until [`Outbox::sent`].
    pub(super) fn first(&self, most: usize) -> Vec<EventRecord> {
        self.waiting.iter().take(most).cloned().collect()
    }

    /// These, the oldest as they were given, are at the broker. Files go when nothing in them waits: until then a restart
    /// sends again what was sent, and the broker knows it by its id.
    pub(super) fn sent(&mut self, batch: &[EventRecord]) -> io::Result<()> {
        for record in batch {
            // Some may have had to make room meanwhile.
            if self.waiting.front().is_some_and(|first| first.id == record.id) {
                self.waiting.pop_front();
                self.in_older = self.in_older.saturating_sub(1);
            }
        }
        if self.waiting.is_empty() && self.bytes > 0 {
            remove(&self.older)?;
            self.file.set_len(0)?;
            self.bytes = 0;
        }
        Ok(())
    }

    /// Gives these up: the broker will never take them.
    pub(super) fn give_up(&mut self, batch: &[EventRecord]) -> io::Result<()> {
        self.lost += batch.len() as u64;
        self.sent(batch)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many are lost since this process began.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// The newer file becomes the older one, whose place it takes: what still waited there is lost.
    fn turn(&mut self) -> io::Result<()> {
        self.lost += self.in_older as u64;
        self.waiting.drain(..self.in_older);
        fs::rename(&self.newer, &self.older)?;
        self.in_older = self.waiting.len();
        self.file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.newer)?;
        self.bytes = 0;
        Ok(())
    }
}

fn read(path: &Path, waiting: &mut VecDeque<EventRecord>, lost: &mut u64) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        match serde_json::from_slice(&line) {
            Ok(record) => waiting.push_back(record),
            Err(_) if line.is_empty() => {}
            Err(_) => *lost += 1,
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Some ten thousand reports each, in two files.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, EventKind};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("deputize-outbox-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
        fn open(&self) -> Outbox {
            Outbox::open(&self.0).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn event(n: usize) -> EventRecord {
        Event::new(EventKind::Executed).into_record(format!("event-{n}"), n as u64)
    }

    fn ids(records: &[EventRecord]) -> Vec<&str> {
        records.iter().map(|record| record.id.as_str()).collect()
    }

    #[test]
    fn what_waits_outlives_a_restart_and_what_was_sent_goes() {
        let folder = Folder::new("restart");
        let mut outbox = folder.open();
        outbox.push(vec![event(1), event(2)]).unwrap();
        outbox.push(vec![event(3)]).unwrap();
        drop(outbox);
        let mut outbox = folder.open();
        let first = outbox.first(2);
        assert_eq!(ids(&first), ["event-1", "event-2"]);
        outbox.sent(&first).unwrap();
        assert_eq!(ids(&outbox.first(9)), ["event-3"]);
        let rest = outbox.first(9);
        outbox.sent(&rest).unwrap();
        drop(outbox);
        let outbox = folder.open();
        assert_eq!((outbox.len(), outbox.lost()), (0, 0));
    }

    #[test]
    fn a_line_that_was_cut_off_is_lost_alone() {
        let folder = Folder::new("torn");
        let mut outbox = folder.open();
        outbox.push(vec![event(1), event(2)]).unwrap();
        let path = outbox.newer.clone();
        drop(outbox);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        let mut outbox = folder.open();
        assert_eq!((ids(&outbox.first(9)), outbox.lost()), (vec!["event-1"], 1));
        outbox.push(vec![event(3)]).unwrap();
        drop(outbox);
        assert_eq!(ids(&folder.open().first(9)), ["event-1", "event-3"]);
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let folder = Folder::new("room");
        let mut outbox = folder.open();
        let mut pushed = 0;
        let batch_in_flight = loop {
            outbox.push((0..1000).map(|n| event(pushed + n)).collect()).unwrap();
            pushed += 1000;
            if outbox.in_older > 0 {
                break outbox.first(100);
            }
        };
        assert_eq!(outbox.lost(), 0, "the first turn loses nothing");
        while outbox.lost() == 0 {
            outbox.push((0..1000).map(|n| event(pushed + n)).collect()).unwrap();
            pushed += 1000;
        }
        assert_eq!(outbox.len() as u64 + outbox.lost(), pushed as u64);
        let first = outbox.first(1);
        outbox.sent(&batch_in_flight).unwrap();
        assert_eq!(outbox.first(1), first, "what made room is not taken for its successor");
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        assert!(size(&outbox.older) <= MAX_FILE_BYTES && size(&outbox.newer) <= MAX_FILE_BYTES);
        let (len, newest) = (outbox.len(), outbox.waiting.back().cloned());
        drop(outbox);
        let outbox = folder.open();
        assert_eq!((outbox.len(), outbox.waiting.back().cloned()), (len, newest));
    }
}
