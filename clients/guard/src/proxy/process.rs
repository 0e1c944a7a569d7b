//! The program as a process: started alone in its process group, which ends with it.

use super::{failure::Failure, settings::Program};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{ChildStdin, ChildStdout, Command},
    sync::oneshot,
    time::timeout,
};

/// A running program.
pub(super) struct Running {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    /// Dropped or used, it ends the program.
    pub(super) stop: oneshot::Sender<()>,
}

/// Starts the program. `at_end` is told, when it has ended, whether it did so by itself.
pub(super) fn start(
    program: &Program,
    at_end: impl FnOnce(bool) + Send + 'static,
) -> Result<Running, Failure> {
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        // Nothing of the guard's own environment: what the program is given is given by name.
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value.as_str())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(folder) = &program.folder {
        command.current_dir(folder);
    }
    let mut child = command.spawn().map_err(|error| {
        tracing::error!(%error, program = %program.path.display(), "program not started");
        Failure::Unreachable
    })?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(Failure::Unreachable) };
    tokio::spawn(log(stderr));
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(supervise(child, stopped, at_end));
    Ok(Running { stdin, stdout, stop })
}

/// Waits for the program's end, or ends it: first by the end of its stdin, which the caller has closed, then by
/// SIGTERM, then by SIGKILL. Whatever it started and left behind goes with it.
async fn supervise(
    mut child: tokio::process::Child,
    stopped: oneshot::Receiver<()>,
    at_end: impl FnOnce(bool) + Send,
) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let signal = |signal| {
        // A group that is gone already needs no signal.
        group.map(|group| kill_process_group(group, signal)).is_some_and(|sent| sent.is_ok())
    };
    let died = tokio::select! {
        status = child.wait() => {
            tracing::warn!(?status, "program ended");
            true
        }
        _ = stopped => false,
    };
    if !died && timeout(PATIENCE, child.wait()).await.is_err() {
        signal(Signal::TERM);
        if timeout(PATIENCE, child.wait()).await.is_err() {
            signal(Signal::KILL);
            drop(child.wait().await);
        }
    }
    signal(Signal::KILL);
    at_end(died);
}

/// What the program says beside the protocol goes into the log: cut, and no more than so many lines.
pub(super) async fn log(said: impl AsyncRead + Unpin) {
    let mut lines = Lines::new(BufReader::new(said), MAX_LOG_LINE_BYTES);
    let mut left = LOG_LINES;
    let mut refill = tokio::time::interval(LOG_LINES_EVERY);
    loop {
        tokio::select! {
            line = lines.next() => match line {
                // It is quoted: a program cannot write lines of its own into the log.
                Some(Line::Whole(line) | Line::Cut(line)) if left > 0 => {
                    left -= 1;
                    tracing::info!(line = ?String::from_utf8_lossy(&line), "program says");
                }
                Some(_) => {}
                None => break,
            },
            _ = refill.tick() => left = LOG_LINES,
        }
    }
}

/// How often a program died young, one time after another.
#[derive(Default)]
pub(super) struct Starts(Mutex<Start>);

#[derive(Default)]
struct Start {
    died_young: u32,
    died_at: Option<Duration>,
}

impl Starts {
    /// How long to wait yet: a program that dies as soon as it is started is not started again at once.
    pub(super) fn wait(&self, uptime: Duration) -> Duration {
        let start = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = FIRST_WAIT.saturating_mul(1 << start.died_young.min(9)).min(LONGEST_WAIT);
        match start.died_at {
            Some(died) if start.died_young > 0 => wait.saturating_sub(uptime.saturating_sub(died)),
            _ => Duration::ZERO,
        }
    }

    /// It ended.
    pub(super) fn ended(&self, died: bool, started: Duration, uptime: Duration) {
        let mut start = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let young = uptime.saturating_sub(started) < YOUNG;
        start.died_young = if died && young { start.died_young.saturating_add(1) } else { 0 };
        start.died_at = Some(uptime);
    }
}

/// Lines of bounded length.
pub(super) struct Lines<R> {
    reader: R,
    max_bytes: usize,
    line: Vec<u8>,
    cut: bool,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it.
    Whole(Vec<u8>),
    /// Its beginning: it is longer than allowed.
    Cut(Vec<u8>),
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, max_bytes: usize) -> Self {
        Self { reader, max_bytes, line: Vec::new(), cut: false }
    }

    /// The next line; `None` at the end. Dropped halfway, it goes on where it was.
    pub(super) async fn next(&mut self) -> Option<Line> {
        loop {
            let (used, ended) = {
                let buffer = self.reader.fill_buf().await.ok().filter(|buffer| !buffer.is_empty())?;
                let end = buffer.iter().position(|byte| *byte == b'\n');
                let piece = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
                let room = self.max_bytes.saturating_sub(self.line.len());
                self.cut |= piece.len() > room;
                self.line.extend(piece.iter().take(room));
                (piece.len() + usize::from(end.is_some()), end.is_some())
            };
            self.reader.consume(used);
            if ended {
                let line = std::mem::take(&mut self.line);
                let cut = std::mem::take(&mut self.cut);
                return Some(if cut { Line::Cut(line) } else { Line::Whole(line) });
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(2);
const YOUNG: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const MAX_LOG_LINE_BYTES: usize = 1024;
const LOG_LINES: u32 = 200;
const LOG_LINES_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_at_their_bound() {
        let text = b"one\n\nlonger than it may be\nlast\nhalf";
        let mut lines = Lines::new(BufReader::with_capacity(3, &text[..]), 5);
        let whole = |text: &str| Some(Line::Whole(text.as_bytes().to_vec()));
        assert_eq!(lines.next().await, whole("one"));
        assert_eq!(lines.next().await, whole(""));
        assert_eq!(lines.next().await, Some(Line::Cut(b"longe".to_vec())));
        assert_eq!(lines.next().await, whole("last"));
        assert_eq!(lines.next().await, None, "a line without its end is none");
    }
    #[test]
    fn a_program_that_dies_young_is_started_again_ever_later() {
        let starts = Starts::default();
        let mut now = Duration::from_secs(100);
        assert!(starts.wait(now).is_zero());
        let mut waits = Vec::new();
        for _ in 0..12 {
            starts.ended(true, now, now);
            let died = now;
            while !starts.wait(now).is_zero() {
                now += Duration::from_millis(100);
            }
            waits.push(now - died);
        }
        assert!(
            waits.is_sorted() && waits[0] < Duration::from_secs(1) && waits[11] == LONGEST_WAIT,
            "{waits:?}"
        );
        starts.ended(true, now - YOUNG, now);
        assert!(starts.wait(now).is_zero(), "one that ran for a while is started again at once");
    }
}
