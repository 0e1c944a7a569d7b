//! `deputize connect`: the agent's side of a guarded MCP server, as a local MCP server.

mod door;

use async_trait::async_trait;
use deputize_client::{
    Client, SystemClock, TokenType,
    connect::{
        ConnectSettings, Connector, Level,
        user_tokens::{TokenCommand, TokenFile, UserToken, UserTokenError, UserTokens},
    },
};
use deputize_issuer::clock::Clock;
use std::{
    io,
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    client_certificate::ClientCertificate,
    exit::{CommandError, CommandResult, Exit},
    input,
    output::announce,
    ready::Ready,
    serve::StopSignal,
};
use crate::sign_in::{Provider, SignInError, SignedInUser};

/// Serves a guarded MCP server to a local MCP client: exchanges the user's token for each call.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize connect https://crm.example.com/mcp --issuer https://deputize.example.com --client-id support-bot \\
      --key-file support-bot.private.jwk.json --token-file user.jwt
  deputize connect --ready-file dev.json          what `deputize dev --ready-file dev.json` runs; user alice, server 0
  deputize connect --ready-file dev.json --listen 127.0.0.1:8090          as HTTP, at http://127.0.0.1:8090/mcp

MCP clients start it as a command; messages go over stdin and stdout. It says what goes wrong on stderr, and to the
client as the result of the call. The user's token, and those made from it, stay in this program.")]
pub struct Args {
    /// The guarded MCP server
    #[arg(value_name = "URL", required_unless_present = "ready_file")]
    url: Option<String>,
    /// Its resource URI at the broker [default: its URL]
    #[arg(long, value_name = "URI")]
    resource: Option<String>,
    /// The broker: `iss` of its tokens
    #[arg(long, value_name = "URL", required_unless_present = "ready_file")]
    issuer: Option<String>,
    /// Who acts: this agent's client at the broker
    #[arg(long, value_name = "ID", required_unless_present = "ready_file")]
    client_id: Option<String>,
    /// Private key of that client (JWK)
    #[arg(long, value_name = "FILE", required_unless_present_any = ["ready_file", "certificate"],
        conflicts_with = "certificate")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    certificate: ClientCertificate,
    #[command(flatten)]
    user_token: UserTokenArgs,
    /// This program's client id at the provider of --sign-in [default: --client-id]
    #[arg(long, value_name = "ID", requires = "sign_in")]
    sign_in_client_id: Option<String>,
    /// Ask that provider for this scope too, for example offline_access; may be repeated
    #[arg(long, value_name = "SCOPE", requires = "sign_in")]
    sign_in_scope: Vec<String>,
    /// Serve HTTP at this loopback address instead of stdin and stdout; the secret that clients need is said on stderr
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Write the secret here, for its owner alone, instead of saying it
    #[arg(long, value_name = "FILE", requires = "listen")]
    secret_file: Option<PathBuf>,
    /// How tightly to bind the token of a call of a tool of which nothing is known: L3 to that one call; L1 to the
    /// tool, which is faster, and tightened where the tool demands it
    #[arg(long, value_enum, default_value = "l3", ignore_case = true, value_name = "L1|L3")]
    level: StartLevel,
    /// How long the server may take for one answer
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Certificates (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Take what is not given from the ready file of `deputize dev`
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// User of the ready file
    #[arg(long, default_value = "alice", requires = "ready_file")]
    user: String,
    /// Server of the ready file, by its place in the list
    #[arg(long, default_value_t = 0, requires = "ready_file", value_name = "INDEX")]
    server: usize,
}

/// Where the user's token comes from.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct UserTokenArgs {
    /// The user's token: a file, read anew at each exchange
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The user's token: what this shell command prints; run again before it expires
    #[arg(long, value_name = "COMMAND")]
    token_command: Option<String>,
    /// Sign the user in at this OpenID provider, with code and PKCE: the address to open is said on stderr. Without a
    /// provider at that of the ready file
    #[arg(long, value_name = "PROVIDER", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    sign_in: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum StartLevel {
    L1,
    L3,
}

/// Runs until the client leaves.
///
/// # Errors
/// If the arguments are of no use, or stdin cannot be read.
pub async fn run(args: Args) -> CommandResult {
    let ready = args.ready_file.as_deref().map(Ready::read).transpose()?;
    let client = Arc::new(client(&args, ready.as_ref())?);
    let users = users(&args, ready.as_ref()).await?;
    let (url, resource) = match (&args.url, &ready) {
        (Some(url), _) => (url, args.resource.clone()),
        (None, Some(ready)) => {
            let server = ready.server(args.server)?;
            (&server.guard_url, Some(args.resource.as_ref().unwrap_or(&server.resource).clone()))
        }
        (None, None) => return Err(missing("the server's URL")),
    };
    let settings = ConnectSettings {
        resource,
        unknown_tools: match args.level {
            StartLevel::L1 => Level::L1,
            StartLevel::L3 => Level::L3,
        },
        request_timeout: Duration::from_secs(args.timeout),
        ca_pem: ca_pem(&args)?,
        ..ConnectSettings::new(url)
    };
    let connector = Connector::new(client, users, settings)
        .map_err(|error| CommandError::usage(error, "correct the URL or --ca-file"))?;
    match args.listen {
        Some(address) => door::serve(&connector, address, args.secret_file.as_deref()).await?,
        None => serve_stdio(connector).await.map_err(|error| {
            CommandError::failure(
                format!("stdin or stdout: {error}"),
                "let an MCP client start it, or pipe messages in",
            )
        })?,
    }
    Ok(Exit::Ok)
}

fn client(args: &Args, ready: Option<&Ready>) -> Result<Client, CommandError> {
    let issuer = args.issuer.as_deref().or(ready.map(|ready| ready.issuer.as_str()));
    let client_id = args.client_id.as_deref().or(ready.map(|ready| ready.client.client_id.as_str()));
    let issuer = issuer.ok_or_else(|| missing("--issuer"))?;
    let builder = Client::builder(issuer, client_id.ok_or_else(|| missing("--client-id"))?);
    let mut builder = args.certificate.or_key(builder, || match (&args.key_file, ready) {
        (Some(file), _) => input::private_key(file),
        (None, Some(ready)) => ready.key(),
        (None, None) => Err(missing("--key-file")),
    })?;
    if let Some(pem) = ca_pem(args)? {
        builder = builder.ca_pem(pem);
    }
    builder
        .build()
        .map_err(|error| CommandError::usage(error, "correct --issuer, --certificate or --ca-file"))
}

async fn users(args: &Args, ready: Option<&Ready>) -> Result<Arc<dyn UserTokens>, CommandError> {
    let given = &args.user_token;
    if let Some(file) = &given.token_file {
        return Ok(Arc::new(TokenFile::new(file, TokenType::Jwt)));
    }
    if let Some(command) = &given.token_command {
        let clock = Arc::new(SystemClock::new());
        return Ok(Arc::new(TokenCommand::new(command, TokenType::Jwt, clock)));
    }
    if let Some(provider) = &given.sign_in {
        return sign_in(args, provider, ready).await;
    }
    match &args.ready_file {
        Some(file) => Ok(Arc::new(ReadyToken { file: file.clone(), user: args.user.clone() })),
        None => Err(missing("--token-file, --token-command or --sign-in")),
    }
}

/// Sends the user to the provider at once: by the time that a client asks something he may be back.
async fn sign_in(
    args: &Args,
    provider: &str,
    ready: Option<&Ready>,
) -> Result<Arc<dyn UserTokens>, CommandError> {
    let issuer = match (provider, ready) {
        ("", Some(ready)) => ready.idp.as_str(),
        ("", None) => return Err(missing("the provider of --sign-in")),
        (provider, _) => provider,
    };
    let client_id = args.sign_in_client_id.as_ref().or(args.client_id.as_ref());
    let client_id = client_id.or(ready.map(|ready| &ready.client.client_id));
    let client_id = client_id.ok_or_else(|| missing("--sign-in-client-id"))?;
    let clock: Arc<dyn Clock> = Arc::new(deputize_issuer::clock::SystemClock::start());
    let cannot = |error: SignInError| {
        CommandError::unreachable(error, "check the provider of --sign-in and --sign-in-client-id")
    };
    let provider = Provider::discover(issuer, client_id, Arc::clone(&clock)).await.map_err(cannot)?;
    let provider = provider.with_scopes(&args.sign_in_scope);
    let user = SignedInUser::new(provider, clock, |url| announce(&format!("sign in at {url}")));
    user.begin().await.map_err(cannot)?;
    Ok(Arc::new(user))
}

/// The token of a user of `deputize dev`.
struct ReadyToken {
    file: PathBuf,
    user: String,
}

#[async_trait]
impl UserTokens for ReadyToken {
    async fn current(&self) -> Result<UserToken, UserTokenError> {
        let token = Ready::read(&self.file).and_then(|ready| ready.user_token(&self.user));
        let token =
            token.map_err(|error| UserTokenError::new(error.message, "start `deputize dev` again"))?;
        UserToken::new(&token, TokenType::Jwt)
    }
}

fn ca_pem(args: &Args) -> Result<Option<Vec<u8>>, CommandError> {
    let read = |file: &PathBuf| Ok(input::file_text(Path::new(file))?.as_bytes().to_vec());
    args.ca_file.as_ref().map(read).transpose()
}

/// Serves stdin and stdout, each through a thread of its own: a read or a write that waits there must not keep the
/// program from ending.
async fn serve_stdio(connector: Arc<Connector>) -> io::Result<()> {
    let mut stop = StopSignal::listen()?;
    let (input, mut from_stdin) = pipe()?;
    let (output, mut to_stdout) = pipe()?;
    let (written, all_written) = tokio::sync::oneshot::channel();
    // Either end may close first: then there is nothing more to read, or nobody who reads it.
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut from_stdin);
    })?;
    std::thread::Builder::new().name("stdout".to_owned()).spawn(move || {
        let _ = io::copy(&mut to_stdout, &mut io::stdout().lock());
        let _ = written.send(());
    })?;
    tokio::select! {
        served = connector.serve_stdio(input, output) => served?,
        () = stop.wait() => return Ok(()),
    }
    let _ = tokio::time::timeout(LAST_WORDS, all_written).await;
    Ok(())
}

/// Two ends of a pipe: one for the runtime, one for a thread.
fn pipe() -> io::Result<(tokio::net::UnixStream, UnixStream)> {
    let (here, there) = UnixStream::pair()?;
    here.set_nonblocking(true)?;
    Ok((tokio::net::UnixStream::from_std(here)?, there))
}

fn missing(option: &str) -> CommandError {
    CommandError::usage(format!("{option} is missing"), format!("give {option}, or --ready-file"))
}

/// How long a client that left may take to read what was said last.
const LAST_WORDS: Duration = Duration::from_secs(2);
