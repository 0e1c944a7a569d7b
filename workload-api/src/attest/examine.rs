//! What the kernel says about a process, read from its folder in /proc.

use super::{
    cgroup::Placement,
    executable::{Content, Digests, Executable, Identity},
    namespaces,
    status::Credentials,
};
use crate::peer::{NotAttested, Peer};
use rustix::fs::OFlags;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
};

/// What was seen of a process, all of it true of it at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) credentials: Credentials,
    pub(crate) placement: Placement,
    /// Whether it lives in namespaces that are not ours, as in a container.
    pub(crate) is_contained: bool,
    /// The path of its program, where it means the same file to us.
    pub(crate) path: Option<String>,
    /// What is in its program, unless that is not for us to read.
    pub(crate) content: Option<Content>,
}

/// The folder of one process, held open.
///
/// INVARIANT: it is that of the peer, and what is read in it never is another's: the kernel answers that there is no
/// such process once this one is gone, even when its number is given out again.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Keeps the folder open.
    _held: File,
    path: PathBuf,
}

impl Folder {
    /// Opens the peer's.
    pub(crate) fn of(peer: &Peer) -> Result<Self, NotAttested> {
        let held = File::open(format!("/proc/{}", peer.pid())).map_err(|error| unread(&error))?;
        // Only now is it certain whose folder this is.
        if peer.is_gone() {
            return Err(NotAttested::Gone);
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        Ok(Self { _held: held, path })
    }

    /// Looks at the process, and reads its program for this user, if for any. What changes while it is looked at is
    /// looked at again, a few times.
    ///
    /// # Errors
    /// If the process is gone, /proc is not what it should be, or the process does not hold still.
    pub(crate) fn examine(&self, digests: &Digests, reader: Option<u32>) -> Result<Seen, NotAttested> {
        for _ in 0..MOST_LOOKS {
            let credentials = self.credentials()?;
            let executable = self.executable()?;
            let placement = Placement::parse(&self.text("cgroup")?);
            let is_contained =
                credentials.is_nested || placement.container.is_some() || namespaces::differ(&self.path);
            let path = executable.as_ref().and_then(|one| one.path().map(str::to_owned));
            let content = executable.as_ref().map(|one| digests.sha256(one, reader)).transpose();
            let is_same = self.identity() == executable.as_ref().map(Executable::identity);
            if let (true, Ok(content)) = (is_same && self.credentials()? == credentials, content) {
                return Ok(Seen { credentials, placement, is_contained, path, content });
            }
        }
        Err(NotAttested::Unavailable("the process does not hold still"))
    }

    fn credentials(&self) -> Result<Credentials, NotAttested> {
        Credentials::parse(&self.text("status")?)
    }

    /// `None` if it has none, or if we may not look.
    fn executable(&self) -> Result<Option<Executable>, NotAttested> {
        let link = self.path.join("exe");
        // Opened through the kernel's link, never by its name: the name may mean another file by now, or here.
        let opened = fs::read_link(&link).and_then(|named| {
            let no_wait = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
            let file = OpenOptions::new().read(true).custom_flags(no_wait).open(&link)?;
            Executable::opened(file, named)
        });
        match opened {
            Ok(executable) => Ok(Some(executable)),
            Err(error) => match unread(&error) {
                // It has no program: it is about to end, or is the kernel's. The text files tell the difference.
                NotAttested::Gone | NotAttested::Unreadable(_) => Ok(None),
                other => Err(other),
            },
        }
    }

    fn identity(&self) -> Option<Identity> {
        Identity::at(&self.path.join("exe")).ok()
    }

    fn text(&self, name: &str) -> Result<String, NotAttested> {
        let mut bytes = Vec::new();
        File::open(self.path.join(name))
            .and_then(|file| file.take(MAX_TEXT_BYTES).read_to_end(&mut bytes))
            .map_err(|error| unread(&error))?;
        // Names that a process chooses need not be UTF-8.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn unread(error: &io::Error) -> NotAttested {
    const NO_SUCH_PROCESS: i32 = rustix::io::Errno::SRCH.raw_os_error();
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) | (_, Some(NO_SUCH_PROCESS)) => NotAttested::Gone,
        (io::ErrorKind::PermissionDenied, _) => {
            NotAttested::Unreadable("/proc does not let us look at the process")
        }
        _ => NotAttested::Unavailable("/proc cannot be read now"),
    }
}

const MOST_LOOKS: usize = 3;
const MAX_TEXT_BYTES: u64 = 1024 * 1024;
