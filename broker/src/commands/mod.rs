//! One file for each command of the program.

mod admin_socket;
pub mod agent;
pub mod audit;
pub mod aws;
pub mod can_i;
pub mod client;
mod client_certificate;
pub mod completions;
pub mod connect;
mod data;
pub mod demo;
pub mod dev;
pub mod doctor;
pub mod entry;
pub mod exchange;
mod exit;
pub mod explain;
mod findings;
pub mod guard;
mod input;
mod keep;
mod key_pair;
pub mod keys;
mod keysource;
pub mod lint;
pub mod node;
mod output;
mod progress;
mod ready;
pub mod registry;
pub mod serve;
pub mod svid;
pub mod templates;
pub mod token;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

use self::{
    exit::{CommandResult, Exit},
    output::{Format, Output},
};
use crate::{
    moment,
    telemetry::{self, LogFormat},
};

/// Identity and token-exchange broker for AI agents.
#[derive(Debug, Parser)]
#[command(name = "deputize", version, propagate_version = true, after_help = START)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Form of what is printed
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
    /// How log lines on stderr look
    #[arg(long, global = true, value_enum, default_value = "text", value_name = "FORM")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker
    Serve {
        /// Configuration file
        #[arg(long, env = "DEPUTIZE_CONFIG", default_value = "deputize.yaml")]
        config: PathBuf,
        /// Write the address here once requests are taken
        #[arg(long)]
        ready_file: Option<PathBuf>,
    },
    /// Run a broker, an identity provider, an AWS stand-in and three guarded MCP servers for development, on loopback
    Dev(dev::Dev),
    /// See the whole story of one call, every refusal included, in a second
    Demo(demo::Demo),
    Guard(guard::Args),
    Agent(Box<agent::Args>),
    Lint(lint::Args),
    Doctor(doctor::Args),
    CanI(can_i::Args),
    Explain(explain::Args),
    Audit(audit::Args),
    Aws(aws::Args),
    Exchange(exchange::Args),
    Connect(Box<connect::Args>),
    Token(token::Args),
    Client(client::Args),
    Entry(entry::Args),
    Node(node::Args),
    Svid(svid::Args),
    Keys(keys::Args),
    Registry(registry::Args),
    Templates(templates::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Keep(keep::Args),
}

impl Cli {
    /// Runs the command; what went wrong is said on stderr.
    pub async fn run(self) -> Exit {
        telemetry::start(self.log_format, self.command.log_level());
        self.command.run(Output::new(self.output)).await.unwrap_or_else(|error| {
            output::complain(&error);
            error.exit
        })
    }
}

impl Command {
    async fn run(self, output: Output) -> CommandResult {
        match self {
            Self::Serve { config, ready_file } => {
                Ok(serve::serve(&config, ready_file).await.map(|()| Exit::Ok)?)
            }
            Self::Dev(dev) => Ok(dev::dev(dev).await.map(|()| Exit::Ok)?),
            Self::Demo(demo) => Ok(if demo::demo(demo, output).await? { Exit::Ok } else { Exit::Failure }),
            Self::Guard(args) => guard::run(args, output).await,
            Self::Agent(args) => agent::run(*args).await,
            Self::Lint(args) => lint::run(args, output).await,
            Self::Doctor(args) => doctor::run(args, output).await,
            Self::CanI(args) => can_i::run(args, output).await,
            Self::Explain(args) => explain::run(args, output).await,
            Self::Audit(args) => audit::run(args, output).await,
            Self::Aws(args) => aws::run(args, output).await,
            Self::Exchange(args) => exchange::run(args, output).await,
            Self::Connect(args) => connect::run(*args).await,
            Self::Token(args) => token::run(args, output).await,
            Self::Client(args) => client::run(args, output).await,
            Self::Entry(args) => entry::run(args, output).await,
            Self::Node(args) => node::run(args, output).await,
            Self::Svid(args) => svid::run(args, output).await,
            Self::Keys(args) => keys::run(args, output).await,
            Self::Registry(args) => registry::run(args, output).await,
            Self::Templates(args) => templates::run(args, output).await,
            Self::Completions(args) => completions::run(args, output).await,
            Self::Keep(args) => keep::run(args).await,
        }
    }

    /// Servers tell what they do; other commands only what goes wrong.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Serve { .. } | Self::Dev(_) | Self::Guard(_) | Self::Agent(_) => "info",
            Self::Demo(_) => "error",
            // A doctor says itself what its fetches came to.
            Self::Doctor(_) => "off",
            _ => "warn",
        }
    }
}

const START: &str = "Start here:
  deputize demo                     the whole story of one call, in a second
  deputize dev                      a whole environment to play with
  deputize client add my-agent      a key for a client; then `deputize lint` and `deputize serve`

Exit codes: 0 ok, 1 failure, 2 usage, 3 denied, 4 waiting for a person, 5 bad configuration, 6 unreachable.";
