//! `deputize keep`: between a guard and the server that it starts. A guard that is killed can end nothing any more; its
//! end of the keeper's stdin closes all the same, and then the keeper ends the server.

use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group};
use std::{
    io::{self, Read as _},
    process::Stdio,
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::timeout,
};

use super::exit::{CommandError, CommandResult, Exit};

/// Run a program until stdin closes; `deputize guard` starts this
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it to its end.
///
/// # Errors
/// If it cannot be started.
pub async fn run(args: Args) -> CommandResult {
    // All of the group goes with it: nobody else may be in there.
    if getpgrp() != getpid() {
        return Err(CommandError::usage("keep is for `deputize guard` alone", "see `deputize guard --help`"));
    }
    let cannot = |error: io::Error| CommandError::failure(error, "check the command after --");
    // Sent to the group: it is for the program, and its keeper waits for that one.
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err(CommandError::usage("there is no command", "give one after --"));
    };
    let mut child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn().map_err(cannot)?;
    let mut closed = stdin_closed().map_err(cannot)?;
    tokio::select! {
        status = child.wait() => {
            let well = status.is_ok_and(|status| status.success());
            return Ok(if well { Exit::Ok } else { Exit::Failure });
        }
        _ = &mut closed => {}
        _ = terminate.recv() => {}
    }
    end(&mut child).await;
    Ok(Exit::Ok)
}

/// First politely; then whatever is left of the group goes, this process last.
async fn end(child: &mut Child) {
    // This process is of the group and has said that it stays, so there is one to signal.
    let _ = kill_current_process_group(Signal::TERM);
    drop(timeout(PATIENCE, child.wait()).await);
    let _ = kill_current_process_group(Signal::KILL);
}

/// Told when stdin closes. A thread of its own: a read that waits there must not keep the program from ending.
fn stdin_closed() -> io::Result<oneshot::Receiver<()>> {
    let (closes, closed) = oneshot::channel();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        // An error is an end too.
        while io::stdin().lock().read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        let _ = closes.send(());
    })?;
    Ok(closed)
}

/// Less than the guard's own, which would kill the keeper too.
const PATIENCE: Duration = Duration::from_millis(1500);
