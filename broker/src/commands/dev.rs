//! `deputize dev`: a whole environment for development, in one process, on loopback, until it is stopped.

use crate::{
    assemble::CannotStart,
    commands::serve::StopSignal,
    dev::{
        DESK_TOOL,
        environment::{self, Choices, Environment},
        ready_file,
        registered::Upstream,
    },
};
use clap::Args;
use deputize_stand_ins::identity_provider::users::USERS;
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
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
    /// Write here, once everything answers, where everything is, with tokens and keys to use it [default: ready.json
    /// in its folder]
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Registry record (YAML or JSON) of an MCP server of your own, approved as it stands; its tenant becomes the
    /// environment's. Once for each server
    #[arg(long, value_name = "FILE")]
    register: Vec<PathBuf>,
    /// Where such a server runs, for a guard to stand before it at its resource URI; without it the guard is yours to
    /// run. Once for each server
    #[arg(long, value_name = "ID=URL", requires = "register")]
    upstream: Vec<Upstream>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`CannotStart`].
pub(crate) async fn dev(arguments: Dev) -> Result<(), CannotStart> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let choices = Choices {
        listen,
        folder: arguments.folder,
        register: arguments.register,
        upstreams: arguments.upstream,
    };
    let mut stop = StopSignal::listen().map_err(|error| CannotStart(error.to_string()))?;
    let environment = tokio::select! {
        started = environment::start(&choices) => started?,
        () = stop.wait() => return Ok(()),
    };
    let file = arguments.ready_file.unwrap_or_else(|| environment.files.folder.join("ready.json"));
    if let Err(error) = ready_file::write(&file, &environment.ready) {
        drop(environment.stop().await);
        return Err(CannotStart(format!("{}: {error}", file.display())));
    }
    // Whoever does not read it has the ready file.
    let _ = io::stdout().write_all(greeting(&environment, &file).as_bytes());
    stop.wait().await;
    let files = environment.stop().await;
    // It names credentials of what no longer runs. That it is gone already changes nothing.
    let _ = std::fs::remove_file(&file);
    drop(files);
    Ok(())
}

fn greeting(environment: &Environment, ready_file: &Path) -> String {
    let ready = &environment.ready;
    let users: Vec<String> =
        USERS.iter().map(|user| format!("{} ({})", user.name, user.groups.join(", "))).collect();
    let mut text = format!(
        "\nDeputize for development. NOT FOR PRODUCTION: fresh keys, no passwords, loopback only.\n\n\
         broker             {}\n\
         administration     {}\n\
         identity provider  {}\n\
         users              {}\n\
         AWS stand-in       {}\n\
         Workload API       {}\n\
         tokens and keys    {}\n\
         files              {}\n\n\
         MCP servers, each behind its guard:\n",
        ready.issuer,
        ready.admin_url,
        ready.idp,
        users.join(", "),
        ready.aws.endpoint_url,
        ready.workload_api_socket,
        ready_file.display(),
        environment.files.folder.display(),
    );
    let own = [&environment.crm.record, &environment.mailer.record, &environment.ops.0.record];
    for record in own.into_iter().chain(&environment.registered) {
        let guarded = environment.is_guarded(&record.id);
        let note = if guarded { "" } else { "  (start its guard: deputize guard --from-dev)" };
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{:<19}{}{note}", record.id, record.resource);
    }
    let program = program();
    let file = ready_file.display();
    let _ = write!(
        text,
        "\nTry it:\n\
         \x20 curl -i -H 'content-type: application/json' -d '{PING}' {url}\n\
         \x20       401: who brings no token is told where tokens come from\n\
         \x20 {program} connect --ready-file {file}\n\
         \x20       what an MCP client starts to use crm in alice's name\n\
         \x20 npx @modelcontextprotocol/inspector -- {program} connect --ready-file {file}\n\
         \x20       the same in the MCP Inspector\n\
         \x20 {program} svid fetch --socket {socket}\n\
         \x20       the identity of every process of yours, as any SPIFFE client gets it\n\
         \x20 {program} exchange --workload-api {socket} --ready-file {file} --tool {DESK_TOOL}\n\
         \x20       alice's token becomes one for a tool, because of what this program is\n\
         \x20 docs/aws.md, \"Trying it without an account\": the AWS CLI with a session for one call\n\n\
         Ctrl-C stops it all.\n",
        url = environment.crm.record.resource,
        socket = ready.workload_api_socket,
    );
    text
}

/// This program, as a shell finds it from anywhere.
fn program() -> String {
    std::env::current_exe().map_or_else(|_| "deputize".to_owned(), |path| path.display().to_string())
}

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
