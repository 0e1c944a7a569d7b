//! `deputize dev`: a whole environment for development, in one process, on loopback, until it is stopped.

use crate::{
    assemble::CannotStart,
    commands::serve::StopSignal,
    dev::{
        environment::{self, Choices, Environment},
        identity_provider::users::USERS,
        ready_file,
    },
};
use clap::Args;
use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// What may be said to `deputize dev`.
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Where the broker listens on loopback; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Where its files go: a folder that does not exist yet. By default a temporary one, removed at the end
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Write here, once everything answers, where everything is, with tokens and keys to use it
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Registry record (YAML or JSON) of an MCP server of your own, approved as it stands; its tenant becomes the
    /// environment's. Once for each server
    #[arg(long, value_name = "FILE")]
    register: Vec<PathBuf>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`CannotStart`].
pub(crate) async fn dev(arguments: Dev) -> Result<(), CannotStart> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let choices = Choices { listen, folder: arguments.folder, register: arguments.register };
    let mut stop = StopSignal::listen().map_err(|error| CannotStart(error.to_string()))?;
    let environment = tokio::select! {
        started = environment::start(&choices) => started?,
        () = stop.wait() => return Ok(()),
    };
    if let Some(file) = &arguments.ready_file {
        let written = ready_file::write(file, &environment.ready);
        if let Err(error) = written {
            drop(environment.stop().await);
            return Err(CannotStart(format!("{}: {error}", file.display())));
        }
    }
    // Whoever does not read it has the ready file.
    let _ = io::stdout().write_all(greeting(&environment, arguments.ready_file.as_ref()).as_bytes());
    stop.wait().await;
    drop(environment.stop().await);
    if let Some(file) = &arguments.ready_file {
        // It names credentials of what no longer runs. That it is gone already changes nothing.
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

fn greeting(environment: &Environment, ready_file: Option<&PathBuf>) -> String {
    let ready = &environment.ready;
    let users: Vec<String> =
        USERS.iter().map(|user| format!("{} ({})", user.name, user.groups.join(", "))).collect();
    let mut text = format!(
        "\nDeputize for development. NOT FOR PRODUCTION: fresh keys, no passwords, loopback only.\n\n\
         broker             {}\n\
         administration     {}\n\
         identity provider  {}\n\
         users              {}\n",
        ready.issuer,
        ready.admin_url,
        ready.idp,
        users.join(", "),
    );
    let own = [environment.crm.record(), environment.mailer.record()];
    for record in own.into_iter().chain(&environment.registered) {
        text.push_str(&format!("{:<19}{}\n", record.id, record.resource));
    }
    text.push_str(&format!("files              {}\n", environment.files.folder.display()));
    match ready_file {
        Some(file) => {
            text.push_str(&format!("\nTokens and keys are in {}. Ctrl-C stops it all.\n", file.display()))
        }
        None => text.push_str("\n--ready-file FILE writes tokens and keys to use it. Ctrl-C stops it all.\n"),
    }
    text
}
