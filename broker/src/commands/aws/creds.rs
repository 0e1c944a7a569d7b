//! `deputize aws creds`: what AWS's SDKs and tools run as `credential_process`.

use deputize_client::{AwsAsk, AwsCredentials, Client};
use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::commands::{
    client_certificate::ClientCertificate,
    exchange,
    exit::{CommandError, CommandResult, Exit},
    input,
    output::Output,
};

/// Print the AWS credentials of a call, as `credential_process` has to
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  [profile call]                                     in the AWS configuration of a program that runs for one call
  credential_process = deputize aws creds

  deputize aws creds --uri \"$URI\" --authorization-file secret      what a guard's headers said of a call
  deputize aws creds --issuer https://deputize.example.com --client-id ops --key-file ops.private.jwk.json \\
      --token-file call.jwt --arguments-file arguments.json         as the server that was called

Without --uri and --token-file, address and secret are those of DEPUTIZE_AWS_CREDENTIALS_URI and
DEPUTIZE_AWS_AUTHORIZATION, or of AWS_CONTAINER_CREDENTIALS_FULL_URI and AWS_CONTAINER_AUTHORIZATION_TOKEN.
On stdout stands the one JSON object that SDKs read, and nothing else; -o changes nothing about it. What is wrong stands on
stderr. Exit code 3: denied, 6: unreachable.")]
pub struct Args {
    /// Where a guard says that the call's credentials are
    #[arg(long, value_name = "URL", requires = "authorization_file")]
    uri: Option<String>,
    /// File with the secret that goes with it
    #[arg(long, value_name = "FILE", requires = "uri")]
    authorization_file: Option<PathBuf>,
    /// The token that the server was called with: asks the broker itself; - for stdin
    #[arg(long, value_name = "FILE|-", conflicts_with = "uri", requires_all = ["arguments_file", "issuer", "client_id"])]
    token_file: Option<String>,
    /// The arguments that it was called with (JSON object)
    #[arg(long, value_name = "FILE", requires = "token_file")]
    arguments_file: Option<PathBuf>,
    /// The role template that has to match
    #[arg(long, value_name = "NAME", requires = "token_file")]
    template: Option<String>,
    /// The broker
    #[arg(long, value_name = "URL", requires = "token_file")]
    issuer: Option<String>,
    /// The client that the server is at the broker
    #[arg(long, value_name = "ID", requires = "token_file")]
    client_id: Option<String>,
    /// Its private key (JWK)
    #[arg(long, value_name = "FILE", requires = "token_file", conflicts_with = "certificate")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    certificate: ClientCertificate,
    /// Its private key for sealed answers (JWK or PKCS#8 PEM), where the broker knows one with use enc
    #[arg(long, value_name = "FILE", requires = "token_file")]
    decryption_key_file: Option<PathBuf>,
    /// Certificates (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE", requires = "token_file")]
    ca_file: Option<PathBuf>,
    /// Print to a terminal all the same
    #[arg(long)]
    show: bool,
}

/// Where a call's credentials are, and what has to be said there.
pub(super) struct Place {
    pub(super) uri: Url,
    pub(super) authorization: Zeroizing<String>,
}

/// Runs it.
///
/// # Errors
/// If there are no credentials.
pub async fn run(args: Args, _: Output) -> CommandResult {
    if std::io::stdout().is_terminal() && !args.show {
        return Err(CommandError::usage(
            "these are secrets: they are not shown on a terminal",
            "let an SDK run this as credential_process, pipe it on, or give --show",
        ));
    }
    let credentials = match &args.token_file {
        Some(token) => from_broker(&args, token).await?,
        None => from_place(&Place::of(&args, |name| std::env::var(name).ok())?).await?,
    };
    let mut text = credentials.to_process_json();
    text.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
        CommandError::failure(format!("stdout: {error}"), "let whoever runs this read what it prints")
    })?;
    Ok(Exit::Ok)
}

impl Place {
    /// As the command line says, else the environment.
    pub(super) fn of(args: &Args, variable: impl Fn(&str) -> Option<String>) -> Result<Self, CommandError> {
        if let (Some(uri), Some(file)) = (&args.uri, &args.authorization_file) {
            return Self::checked(uri, Zeroizing::new(input::file_text(file)?.trim().to_owned()));
        }
        // Address and secret belong together: never one of these and the other of those.
        let mut pairs =
            VARIABLES.iter().filter_map(|[uri, authorization]| Some((variable(uri)?, authorization)));
        let Some((uri, name)) = pairs.next() else {
            return Err(CommandError::usage(
                "nothing says where the credentials are",
                "give --uri and --authorization-file, or --token-file; a guard with --aws-credentials hands both to its \
                 server with each call",
            ));
        };
        let authorization = variable(name).map(Zeroizing::new).ok_or_else(|| {
            CommandError::usage(
                format!("{name} is not set"),
                "set it to the secret that came with the address",
            )
        })?;
        Self::checked(&uri, authorization)
    }

    /// The secret goes to this machine and nowhere else.
    fn checked(uri: &str, authorization: Zeroizing<String>) -> Result<Self, CommandError> {
        let parsed = Url::parse(uri).ok().filter(|url| {
            let is_here = match url.host() {
                Some(Host::Ipv4(address)) => address.is_loopback(),
                Some(Host::Ipv6(address)) => address.is_loopback(),
                Some(Host::Domain(_)) | None => false,
            };
            url.scheme() == "http" && is_here && url.username().is_empty() && url.password().is_none()
        });
        let uri = parsed.ok_or_else(|| {
            CommandError::usage(
                "the address is not of this machine",
                "give http://127.0.0.1:… as the guard said it",
            )
        })?;
        if authorization.is_empty() || !authorization.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CommandError::usage("the secret is none", "give it as the guard said it"));
        }
        Ok(Self { uri, authorization })
    }
}

async fn from_place(place: &Place) -> Result<AwsCredentials, CommandError> {
    let unreachable = |error: reqwest::Error| {
        CommandError::unreachable(
            format!("the guard does not answer: {}", error.without_url()),
            "check that the call still runs: the address ends with it",
        )
    };
    // Nothing here is TLS, yet the client wants a provider; an error says that the process has one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(TIMEOUT);
    let http = http.build().map_err(|error| CommandError::failure(error, "start again"))?;
    let asked = http.get(place.uri.clone()).header("authorization", place.authorization.as_str());
    let mut response = asked.send().await.map_err(unreachable)?;
    let status = response.status().as_u16();
    let mut body = Zeroizing::new(Vec::new());
    while let Some(piece) = response.chunk().await.map_err(unreachable)? {
        if body.len() + piece.len() > MAX_ANSWER_BYTES {
            return Err(CommandError::failure(
                "the answer is too long",
                "check that the address is a guard's",
            ));
        }
        body.extend_from_slice(&piece);
    }
    match status {
        200 => AwsCredentials::from_json(&body)
            .map_err(|error| CommandError::failure(error, "check that the address is a guard's")),
        status => Err(refused(status, &body)),
    }
}

fn refused(status: u16, body: &[u8]) -> CommandError {
    let said: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let said =
        said.get("message").and_then(serde_json::Value::as_str).unwrap_or("no reason given").to_owned();
    match status {
        404 => CommandError::new(
            Exit::Denied,
            said,
            "the call is over, or the secret is another call's: nothing to do",
        ),
        429 | 500..=599 => CommandError::unreachable(said, "try again in a moment"),
        _ => CommandError::new(
            Exit::Denied,
            said,
            "`deputize explain` on the broker tells why, by the decision's id",
        ),
    }
}

async fn from_broker(args: &Args, token: &str) -> Result<AwsCredentials, CommandError> {
    let missing =
        |option: &str| CommandError::usage(format!("{option} is missing"), format!("give {option}"));
    let (issuer, id) = (args.issuer.as_deref(), args.client_id.as_deref());
    let issuer = issuer.ok_or_else(|| missing("--issuer"))?;
    let builder = Client::builder(issuer, id.ok_or_else(|| missing("--client-id"))?);
    let mut builder = args.certificate.or_key(builder, || {
        input::private_key(args.key_file.as_deref().ok_or_else(|| missing("--key-file"))?)
    })?;
    if let Some(file) = &args.decryption_key_file {
        builder = builder.decryption_key(input::decryption_key(file)?);
    }
    if let Some(file) = &args.ca_file {
        builder = builder.ca_pem(input::file_text(file)?.as_bytes());
    }
    let client = builder.build();
    let client = client.map_err(|error| {
        CommandError::usage(error, "correct --issuer, --key-file, --certificate or --ca-file")
    })?;
    let token = input::token(&if token == "-" { token.to_owned() } else { format!("@{token}") })?;
    let file = args.arguments_file.as_deref().ok_or_else(|| missing("--arguments-file"))?;
    let arguments = input::object(&format!("@{}", file.display()), "--arguments-file")?;
    let mut asked = AwsAsk::new(&token, &arguments);
    if let Some(template) = &args.template {
        asked = asked.template(template);
    }
    client.aws_credentials(&asked).await.map_err(exchange::explain)
}

/// Address and secret: as a server passes on what its guard said, and as AWS's SDKs know it.
const VARIABLES: [[&str; 2]; 2] = [
    ["DEPUTIZE_AWS_CREDENTIALS_URI", "DEPUTIZE_AWS_AUTHORIZATION"],
    ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"],
];
/// The guard may have to ask the broker, and that one AWS.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER_BYTES: usize = 64 * 1024;
