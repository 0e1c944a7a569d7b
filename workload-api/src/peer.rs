//! Who is at the other end of a connection: the kernel's word, and a handle on that very process.

use crate::attest::status::Credentials;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, setsockopt, sockopt},
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    task::{Context, Poll, ready},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::{UnixListener, UnixStream},
};

/// The process that connected. It may have handed the connection on since: its word counts, nobody else's.
///
/// INVARIANT: while [`Peer::is_gone`] answers no, its process id is that of the process which connected: the kernel
/// gives an id to another only after the handle has become readable.
#[derive(Debug)]
pub struct Peer {
    pid: i32,
    uid: u32,
    gid: u32,
    process: AsyncFd<OwnedFd>,
}

/// Why nothing is said about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAttested {
    /// It has ended.
    #[error("the process that connected is gone")]
    Gone,
    /// It is where nothing can be known about it.
    #[error("{0}")]
    Foreign(&'static str),
    /// It is no longer who it was when it connected.
    #[error("{0}")]
    Changed(&'static str),
    /// The kernel does not tell what must be known.
    #[error("{0}")]
    Unreadable(&'static str),
    /// Not now: asking again may help.
    #[error("{0}")]
    Unavailable(&'static str),
}

/// Has the kernel write the sender on everything that clients of this socket send, from the first byte on. To be done
/// before the first connection: [`crate::peer_stream::PeerStream`] takes nothing without a sender.
///
/// # Errors
/// As the kernel says.
pub fn demand_credentials(listener: &UnixListener) -> io::Result<()> {
    Ok(setsockopt(listener, sockopt::PassCred, &true)?)
}

impl Peer {
    /// Asks the kernel who connected. To be called when the connection has just been accepted, within a runtime.
    ///
    /// # Errors
    /// [`NotAttested`] if the process is gone already, or is not in our process namespace.
    pub fn of(stream: &UnixStream) -> Result<Self, NotAttested> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials)
            .map_err(|_| NotAttested::Unreadable("the kernel does not say who connected"))?;
        let ids = (credentials.pid(), credentials.uid(), credentials.gid());
        match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(process) => Self::held(ids, process),
            Err(Errno::ENOPROTOOPT) => Self::found(ids),
            Err(Errno::ESRCH | Errno::EINVAL | Errno::ENODATA) => Err(NotAttested::Gone),
            Err(_) => Err(NO_HANDLE),
        }
    }

    /// A process by its number, for an administrator who asks what this door would see of it: nobody is given anything
    /// on that account. To be called within a runtime.
    ///
    /// # Errors
    /// [`NotAttested`] if there is none, or it is not in our process namespace.
    pub fn of_process(pid: i32) -> Result<Self, NotAttested> {
        let handle = pidfd_open(Pid::from_raw(pid).ok_or(ELSEWHERE)?, PidfdFlags::empty());
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| NotAttested::Gone)?;
        let ids = Credentials::parse(&status)?;
        Self::held((pid, ids.effective_uid, ids.effective_gid), handle.map_err(|_| NotAttested::Gone)?)
    }

    /// Kernels before 6.5 give no handle with the connection: the process is looked for by its number, which another
    /// may have got since. None gets it before all others were given out once, so who began well before this moment
    /// is who connected, as long as connections are taken up faster than that. A younger one asks again.
    fn found(ids: (i32, u32, u32)) -> Result<Self, NotAttested> {
        let pid = Pid::from_raw(ids.0).ok_or(ELSEWHERE)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| match error {
            rustix::io::Errno::SRCH | rustix::io::Errno::INVAL => NotAttested::Gone,
            _ => NO_HANDLE,
        })?;
        let peer = Self::held(ids, process)?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", ids.0)).map_err(|_| NotAttested::Gone)?;
        let uptime = fs::read_to_string("/proc/uptime").map_err(|_| NO_PROC)?;
        let age = age_ticks(&stat, &uptime).ok_or(NO_PROC)?;
        if peer.is_gone() {
            return Err(NotAttested::Gone);
        }
        if age < LEAST_AGE_TICKS {
            return Err(NotAttested::Unavailable("the process has only just begun: connect again"));
        }
        Ok(peer)
    }

    fn held((pid, uid, gid): (i32, u32, u32), process: OwnedFd) -> Result<Self, NotAttested> {
        // A process outside of our process namespace has no id here. Whatever else could be learned about it: the
        // sender of what it writes reads as 0 too, like that of every other process out there.
        if pid <= 0 {
            return Err(ELSEWHERE);
        }
        let path = format!("/proc/self/fdinfo/{}", process.as_raw_fd());
        let info = fs::read_to_string(path).map_err(|_| NO_PROC)?;
        match pid_of_handle(&info) {
            Some(-1) => return Err(NotAttested::Gone),
            Some(known) if known == pid => {}
            Some(_) => return Err(NotAttested::Foreign("/proc belongs to another process namespace")),
            None => return Err(NO_PROC),
        }
        let process = watched(process).map_err(|_| NO_HANDLE)?;
        let peer = Self { pid, uid, gid, process };
        if peer.is_gone() { Err(NotAttested::Gone) } else { Ok(peer) }
    }

    /// Its process id, in our namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The effective user that it had when it connected, as we see it: root of a user namespace is not 0 here.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The effective group that it had when it connected.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Whether it has ended, this very moment.
    pub fn is_gone(&self) -> bool {
        loop {
            let mut asked = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
            match poll(&mut asked, PollTimeout::ZERO) {
                Ok(0) => return false,
                Err(Errno::EINTR) => {}
                // What cannot be asked is not vouched for.
                Ok(_) | Err(_) => return true,
            }
        }
    }

    /// Waits until it has ended, whoever else still holds the connection. Any number may wait.
    pub async fn gone(&self) {
        while let Ok(mut ready) = self.process.readable().await {
            if self.is_gone() {
                return;
            }
            ready.clear_ready();
        }
    }

    /// As [`Peer::gone`], for the one task that reads the connection.
    pub(crate) fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let Ok(mut ready) = ready!(self.process.poll_read_ready(context)) else { return Poll::Ready(()) };
            if self.is_gone() {
                return Poll::Ready(());
            }
            ready.clear_ready();
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe: it asks for what an owned descriptor keeps by its type"
)]
fn watched(process: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(process, Interest::READABLE)
}

/// The process id of a process handle, from what /proc/self/fdinfo says about it: -1 if the process is gone, 0 if it
/// is not in the namespace of that /proc.
fn pid_of_handle(info: &str) -> Option<i32> {
    info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// How long ago a process began, from its /proc/PID/stat and /proc/uptime, in hundredths of a second.
fn age_ticks(stat: &str, uptime: &str) -> Option<u64> {
    // The second field is a name in parentheses, which may hold spaces and parentheses of its own.
    let (_, after_name) = stat.rsplit_once(')')?;
    let started: u64 = after_name.split_ascii_whitespace().nth(STARTTIME_AFTER_NAME)?.parse().ok()?;
    let (seconds, hundredths) = uptime.split_ascii_whitespace().next()?.split_once('.')?;
    let now = seconds.parse::<u64>().ok()?.checked_mul(100)?.checked_add(hundredths.parse().ok()?)?;
    Some(now.saturating_sub(started))
}

const ELSEWHERE: NotAttested =
    NotAttested::Foreign("the process is in a process namespace that is not below ours");
const NO_HANDLE: NotAttested = NotAttested::Unavailable("no handle on the process could be had");
const NO_PROC: NotAttested = NotAttested::Unreadable("/proc does not say what it should about the process");
/// Field 22 of proc_pid_stat(5), counted from the one after the name; in units of 1/100 s wherever Linux runs today.
const STARTTIME_AFTER_NAME: usize = 19;
/// A quarter of a second: far longer than a connection waits, far shorter than it takes to give out every number.
const LEAST_AGE_TICKS: u64 = 25;

#[cfg(test)]
pub(crate) mod tests;
