//! `deputize exchange`: swaps a user's token for a tool-call token at a running broker.

mod attested;

use deputize_call::{action::Action, constraints::Constraints};
use deputize_client::{Client, Detail, ErrorDetails, ExchangeError, ExchangeRequest, TokenType, ToolToken};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

use super::{
    client_certificate::ClientCertificate,
    exit::{CommandError, CommandResult, Exit},
    input,
    output::{Output, note},
    ready::Ready,
};

/// Swaps a user's token for one that is good for one tool call, at a running broker.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize exchange --issuer https://deputize.example.com --client-id support-bot --key support-bot.private.jwk.json \\
      --subject-token - --resource https://crm.example.com/mcp --tool refund_payment \\
      --arguments '{\"payment_id\": \"pay_81\", \"amount_cents\": 4200}' < user.jwt
  deputize exchange --issuer https://deputize.example.com --client-id support --certificate svid.pem \\
      --certificate-key svid.key --subject-token - --resource https://crm.example.com/mcp < user.jwt
  deputize exchange --ready-file dev.json --tool refund_payment          what `deputize dev` wrote; user alice
  deputize exchange --workload-api /run/deputize/workload-api.sock --issuer https://deputize.example.com \\
      --subject-token - --resource https://crm.example.com/mcp --tool lookup_customer < user.jwt

With --workload-api the process is nobody's client and has no key of its own to show: the kernel says who it is, and its
registration entry what it may exchange.
Without --tool, --prompt or --read the token is good for listing (L0); with it alone for that (L1); with --constraints for arguments
within them (L2); with --arguments for that one call (L3).
Prints the token; everything about it with -o json. Exit code 3: denied, 4: a person has to decide, 6: unreachable.")]
pub struct Args {
    /// The broker: `iss` of its tokens
    #[arg(long, value_name = "URL", required_unless_present = "ready_file")]
    issuer: Option<String>,
    /// Who asks
    #[arg(long, value_name = "ID", required_unless_present_any = ["ready_file", "workload_api"])]
    client_id: Option<String>,
    /// Private key of the client (JWK)
    #[arg(long, value_name = "FILE", conflicts_with = "certificate",
        required_unless_present_any = ["ready_file", "workload_api", "certificate"])]
    key: Option<PathBuf>,
    #[command(flatten)]
    certificate: ClientCertificate,
    /// Ask at this socket of the Workload API instead, as the attested process that this command is
    #[arg(long, value_name = "PATH", conflicts_with_all = ["client_id", "key", "certificate", "ca_file"])]
    workload_api: Option<String>,
    /// Of several identities at the socket, this one
    #[arg(long, value_name = "ID", requires = "workload_api")]
    spiffe_id: Option<String>,
    /// Private key (JWK) that the token is bound to [default: a fresh one that ends with this command]
    #[arg(long, value_name = "FILE")]
    dpop_key: Option<PathBuf>,
    /// The user's token: a file, or - for stdin
    #[arg(long, value_name = "FILE|-", required_unless_present = "ready_file")]
    subject_token: Option<String>,
    /// Kind of the user's token
    #[arg(long, value_enum, default_value = "jwt")]
    subject_token_type: Kind,
    /// Resource URI of the MCP server
    #[arg(long, value_name = "URI", required_unless_present = "ready_file")]
    resource: Option<String>,
    /// The tool to call
    #[arg(long, value_name = "NAME", group = "target")]
    tool: Option<String>,
    /// The prompt to get
    #[arg(long, value_name = "NAME", group = "target")]
    prompt: Option<String>,
    /// The resource to read
    #[arg(long, value_name = "URI", group = "target")]
    read: Option<String>,
    /// The exact arguments: L3
    #[arg(long, value_name = "JSON|@FILE", requires = "target", conflicts_with = "constraints")]
    arguments: Option<String>,
    /// What each argument may be: L2
    #[arg(long, value_name = "JSON|@FILE", requires = "target")]
    constraints: Option<String>,
    /// Come back for a call that had to wait for a person
    #[arg(long, value_name = "ID")]
    approval_id: Option<String>,
    /// Go on with a transaction
    #[arg(long, value_name = "ID")]
    transaction_id: Option<String>,
    /// Certificates (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Take what is not given from the ready file of `deputize dev`
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// User of the ready file
    #[arg(long, default_value = "alice", requires = "ready_file")]
    user: String,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Jwt,
    AccessToken,
    IdToken,
}

/// Runs it.
///
/// # Errors
/// If it was refused, waits, or the broker cannot be reached.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let ready = args.ready_file.as_deref().map(Ready::read).transpose()?;
    let request = request(&args, ready.as_ref())?;
    let granted = match &args.workload_api {
        Some(socket) => {
            let issuer = issuer(&args, ready.as_ref())?;
            attested::exchange(socket, &args, issuer, &request).await?
        }
        None => Granted::of(&client(&args, ready.as_ref())?.exchange(&request).await.map_err(explain)?),
    };
    show(&args, &granted, output)?;
    Ok(Exit::Ok)
}

/// What came of it.
#[derive(Serialize)]
struct Granted {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    scope: String,
    authorization_details: Value,
    transaction_id: String,
    decision_id: String,
}

impl Granted {
    fn of(token: &ToolToken) -> Self {
        Self {
            access_token: token.access_token().to_owned(),
            token_type: TOKEN_TYPE,
            expires_in: token.expires_in_seconds(),
            scope: token.scope().to_owned(),
            authorization_details: token.authorization_details().clone(),
            transaction_id: token.transaction_id().to_owned(),
            decision_id: token.decision_id().to_owned(),
        }
    }
}

fn issuer<'a>(args: &'a Args, ready: Option<&'a Ready>) -> Result<&'a str, CommandError> {
    given(args.issuer.as_deref(), ready.map(|ready| ready.issuer.as_str()), "--issuer")
}

fn client(args: &Args, ready: Option<&Ready>) -> Result<Client, CommandError> {
    let issuer = issuer(args, ready)?;
    let client_id =
        given(args.client_id.as_deref(), ready.map(|ready| ready.client.client_id.as_str()), "--client-id")?;
    let mut builder =
        args.certificate.or_key(Client::builder(issuer, client_id), || match (&args.key, ready) {
            (Some(file), _) => input::private_key(file),
            (None, Some(ready)) => ready.key(),
            (None, None) => Err(missing("--key")),
        })?;
    if let Some(file) = &args.dpop_key {
        builder = builder.dpop_key(input::private_key(file)?);
    }
    if let Some(file) = &args.ca_file {
        builder = builder.ca_pem(input::file_text(file)?.as_bytes());
    }
    builder
        .build()
        .map_err(|error| CommandError::usage(error, "correct --issuer, --key, --certificate or --ca-file"))
}

fn request(args: &Args, ready: Option<&Ready>) -> Result<ExchangeRequest, CommandError> {
    let subject = match (&args.subject_token, ready) {
        (Some(place), _) if place == "-" => input::token("-")?,
        (Some(file), _) => input::token(&format!("@{file}"))?,
        (None, Some(ready)) => ready.user_token(&args.user)?,
        (None, None) => return Err(missing("--subject-token")),
    };
    let resource = match (&args.resource, ready) {
        (Some(resource), _) => resource,
        (None, Some(ready)) => ready.resource(args.tool.as_deref())?,
        (None, None) => return Err(missing("--resource")),
    };
    let kind = match args.subject_token_type {
        Kind::Jwt => TokenType::Jwt,
        Kind::AccessToken => TokenType::AccessToken,
        Kind::IdToken => TokenType::IdToken,
    };
    let (action, detail) = detail(args, ready)?;
    let mut request =
        ExchangeRequest::new(resource, &subject).subject_token_type(kind).action(action).detail(detail);
    if let Some(id) = &args.approval_id {
        request = request.approval(id, None);
    }
    if let Some(id) = &args.transaction_id {
        request = request.transaction(id);
    }
    Ok(request)
}

fn detail(args: &Args, ready: Option<&Ready>) -> Result<(Action, Detail), CommandError> {
    let given = [
        (Action::CallTool, &args.tool),
        (Action::GetPrompt, &args.prompt),
        (Action::ReadResource, &args.read),
    ];
    let found = given.into_iter().find_map(|(action, name)| Some((action, name.clone()?)));
    let Some((action, name)) = found else { return Ok((Action::CallTool, Detail::Listing)) };
    if let Some(text) = &args.constraints {
        let constraints: Constraints = serde_json::from_value(Value::Object(input::object(text, "--constraints")?))
            .map_err(|error| {
                CommandError::usage(
                    format!("--constraints: {error}"),
                    "map JSON Pointers to enum, minimum/maximum or prefix: {\"/payment_id\": {\"enum\": [\"pay_81\"]}}",
                )
            })?;
        return Ok((action, Detail::Constrained { name, constraints }));
    }
    let arguments = match (&args.arguments, ready) {
        (Some(text), _) => Some(Value::Object(input::object(text, "--arguments")?)),
        // In development the registry's example will do.
        (None, Some(ready)) if action == Action::CallTool => ready.example_arguments(&name),
        (None, _) => None,
    };
    let detail = match arguments {
        Some(arguments) => Detail::Call { name, arguments, input_responses: None, request_state: None },
        None => Detail::Tool { name },
    };
    Ok((action, detail))
}

fn show(args: &Args, granted: &Granted, output: Output) -> Result<(), CommandError> {
    output.show(granted, || granted.access_token.clone())?;
    let (seconds, decision) = (granted.expires_in, &granted.decision_id);
    note(&format!("good for {seconds} s; `deputize explain {decision}` tells why"));
    if args.dpop_key.is_none() {
        note("its key ends with this command: give --dpop-key FILE for a token that can be used");
    }
    Ok(())
}

/// Which exit code an error has, and what to do about it.
pub(super) fn explain(error: ExchangeError) -> CommandError {
    let message = error.to_string();
    let ask = |details: &ErrorDetails| match &details.decision_id {
        Some(id) => format!("`deputize explain {id}` on the broker tells why"),
        None => "the broker's log tells why: `deputize audit query --kind denials --since 10m`".to_owned(),
    };
    match error {
        ExchangeError::AccessDenied { details, .. }
        | ExchangeError::InvalidTarget(details)
        | ExchangeError::InvalidScope(details)
        | ExchangeError::InvalidAuthorizationDetails(details)
        | ExchangeError::InvalidRequest(details)
        | ExchangeError::InvalidClient(details)
        | ExchangeError::InvalidProof(details)
        | ExchangeError::Expired(details) => CommandError::new(Exit::Denied, message, ask(&details)),
        ExchangeError::InsufficientUserAuthentication { acr_values, max_age_seconds, .. } => {
            let age = max_age_seconds.map(|age| format!(", at most {age} s ago")).unwrap_or_default();
            let strength = if acr_values.is_empty() {
                "again".to_owned()
            } else {
                format!("with {}", acr_values.join(" or "))
            };
            CommandError::new(Exit::Denied, message, format!("let the user sign in {strength}{age}"))
        }
        ExchangeError::Waiting { approval_id, approval_uri, interval_seconds, .. } => {
            let place = approval_uri.map(|uri| format!(" at {uri}")).unwrap_or_default();
            let next = format!(
                "let the person decide{place}; then again with --approval-id {approval_id}, every {interval_seconds} s at most"
            );
            CommandError::new(Exit::Waiting, message, next)
        }
        ExchangeError::SlowDown(_) => CommandError::new(Exit::Waiting, message, "ask less often"),
        ExchangeError::RateLimited { retry_after_seconds, .. }
        | ExchangeError::Unavailable { retry_after_seconds, .. } => {
            let next = retry_after_seconds
                .map_or("try again".to_owned(), |seconds| format!("try again in {seconds} s"));
            CommandError::unreachable(message, next)
        }
        ExchangeError::Unreachable(_) => {
            CommandError::unreachable(message, "check --issuer, the network, and whether the broker runs")
        }
        ExchangeError::Refused { .. } | ExchangeError::Protocol(_) => {
            CommandError::failure(message, "check that --issuer is a Deputize broker")
        }
        ExchangeError::Key(_) => CommandError::failure(message, "make a new key with `deputize client add`"),
        _ => CommandError::failure(message, "update this program: it does not know this answer"),
    }
}

fn given<'a>(given: Option<&'a str>, ready: Option<&'a str>, option: &str) -> Result<&'a str, CommandError> {
    given.or(ready).ok_or_else(|| missing(option))
}

fn missing(option: &str) -> CommandError {
    CommandError::usage(format!("{option} is missing"), format!("give {option}, or --ready-file"))
}

/// RFC 9449 §5.
const TOKEN_TYPE: &str = "DPoP";
