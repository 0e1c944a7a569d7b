//! `deputize keys rotate`: the next keys, published long before they sign.

use deputize_issuer::authority::Kind;
use serde::Serialize;

use super::{
    none, now_seconds, spiffe, unusable,
    web_identity::{Shown, WebIdentitySet},
};
use crate::{
    backends::web_identity_keys::{ANNOUNCED_SECONDS, WebIdentityKeys},
    commands::{
        data::DataArgs,
        exit::{CommandError, CommandResult, Exit},
        moment,
        output::{Columns, Output},
    },
};

/// Makes the next keys of a purpose: published now, to sign later
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize keys rotate --purpose web-identity
  deputize keys rotate --purpose web-identity --signs-in 3d
  deputize keys rotate --purpose web-identity --compromised
  deputize keys rotate --purpose x509-svids

AWS goes on for a day with the key set that it read. So the new keys are published at once, sign after --signs-in (1d at
least), and the old ones stay published for a day after that. A running broker takes all of that by itself; where
discovery and keys are published elsewhere, `deputize keys publish` writes the set that belongs there.

Authorities that sign SVIDs follow each other by themselves. One that is made here signs after --signs-in (10m at least,
and unless you say more); with --compromised at once, and everything that the old ones signed is replaced.
Exit code 1: the next keys are announced already.")]
pub struct Args {
    /// What the keys sign
    #[arg(long, value_enum)]
    purpose: Rotated,
    /// After how long the new keys sign: 36h, 2d [default: 2d; of SVIDs 10m]
    #[arg(long, value_name = "SPAN", value_parser = moment::parse_span)]
    signs_in: Option<u64>,
    /// Somebody else has the keys: destroy them and sign with new ones at once. AWS gives no sessions until it has read
    /// the new set
    #[arg(long, conflicts_with = "signs_in")]
    compromised: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// What can be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Rotated {
    /// The identity that AWS knows us by
    WebIdentity,
    /// X.509-SVIDs
    X509Svids,
    /// JWT-SVIDs
    JwtSvids,
}

#[derive(Debug, Serialize)]
struct Answer {
    keys: Vec<Shown>,
    /// What to do now.
    next: String,
}

/// Runs it.
///
/// # Errors
/// If there are no keys yet, the next ones are announced already, or the folder cannot be written.
pub(super) fn run(args: &Args, output: Output) -> CommandResult {
    let of_svids = match args.purpose {
        Rotated::WebIdentity => None,
        Rotated::X509Svids => Some(Kind::X509),
        Rotated::JwtSvids => Some(Kind::Jwt),
    };
    if let Some(kind) = of_svids {
        return spiffe::rotate(kind, args.signs_in, args.compromised, &args.data, output);
    }
    let signs_in = args.signs_in.unwrap_or(SIGNS_IN_SECONDS);
    if signs_in < ANNOUNCED_SECONDS {
        return Err(CommandError::usage(
            "--signs-in: AWS keeps the set that it read for a day",
            "give 1d or more; where the old keys are not safe any more, --compromised",
        ));
    }
    let folder = args.data.find()?;
    let keys = WebIdentityKeys::existing(&folder.folder);
    let now_seconds = now_seconds();
    if keys.read().map_err(unusable)?.is_empty() {
        return Err(none(&folder));
    }
    let rotated = if args.compromised {
        keys.replace_compromised(now_seconds)
    } else {
        keys.rotate(now_seconds, now_seconds.saturating_add(signs_in))
    };
    rotated.map_err(|error| CommandError::failure(error, "`deputize keys ls` shows their states"))?;
    let set = WebIdentitySet::read(&folder.folder, now_seconds)?;
    let next = if args.compromised { NEXT_COMPROMISED } else { NEXT };
    let answer = Answer { keys: set.keys, next: next.to_owned() };
    output.show(&answer, || answer.to_text())?;
    Ok(Exit::Ok)
}

impl Answer {
    fn to_text(&self) -> String {
        let mut columns = Columns::new(&["STATE", "ALG", "KID"]);
        for key in &self.keys {
            columns.row(&[&key.says(), key.alg, &key.kid]);
        }
        format!("{columns}\n next: {}\n", self.next)
    }
}

/// A day for whoever publishes the set elsewhere, and the day that AWS keeps it.
const SIGNS_IN_SECONDS: u64 = 2 * ANNOUNCED_SECONDS;
const NEXT: &str = "a running broker publishes them within seconds; where AWS reads the set from elsewhere, \
    `deputize keys publish` and upload it today";
const NEXT_COMPROMISED: &str = "where AWS reads the set from elsewhere, `deputize keys publish` and upload it now. \
    Whoever has the old keys can use them as long as AWS keeps the older set: until then take the trust away \
    (delete the OIDC provider in each account, and make it again)";
