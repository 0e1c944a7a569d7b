//! The authorities that sign SVIDs, as commands show and change them.

use deputize_issuer::authority::{self, Kind, Life, Member, NotNow, Register, Stage};
use serde::Serialize;
use std::path::Path;

use super::{now_seconds, unusable};
use crate::{
    backends::spiffe_keys::{Kept, NotDone, SpiffeKeys},
    commands::{
        data::DataArgs,
        exit::{CommandError, CommandResult, Exit},
        moment,
        output::{Columns, Output},
    },
};

/// What authorities sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Signs {
    /// X.509-SVIDs
    X509Svids,
    /// JWT-SVIDs
    JwtSvids,
}

/// Makes the next authority: in the bundle from now on, so that everybody knows it before it signs
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize keys prepare --purpose x509-svids
  deputize keys activate --purpose x509-svids

Without any of this authorities follow each other by themselves: one is prepared at half of the life of the one that signs,
and signs after five sixths of it. A running broker takes every change within a second.
Exit code 1: one is prepared already.")]
pub struct PrepareArgs {
    /// What it signs
    #[arg(long, value_enum)]
    purpose: Signs,
    #[command(flatten)]
    data: DataArgs,
}

/// Has the prepared authority sign from now on
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize keys activate --purpose x509-svids
  deputize keys activate --purpose jwt-svids --at-once

What the old one signed still holds, and the old one stays in the bundle until its own end.
Exit code 1: none is prepared, or not everybody knows it yet.")]
pub struct ActivateArgs {
    /// What it signs
    #[arg(long, value_enum)]
    purpose: Signs,
    /// Whether or not everybody who verifies has it: those who have not refuse what it signs until they ask for the
    /// bundle again
    #[arg(long)]
    at_once: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Has everything replaced that an old authority signed
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize keys ls
  deputize keys taint 4f1c2b9e

Processes that hold open streams get new X.509-SVIDs at once; JWT-SVIDs are asked for anew by those who use them. The
authority stays in the bundle until it is revoked, so that no connection fails meanwhile.
Exit code 1: it is not an old one.")]
pub struct TaintArgs {
    /// Its id, or the beginning of it
    id: String,
    #[command(flatten)]
    data: DataArgs,
}

/// Takes an authority out of the bundle: what it signed verifies no longer
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize keys taint 4f1c2b9e
  deputize keys revoke 4f1c2b9e

Only one that was tainted, or that was prepared and is not wanted. Under an upstream authority its certificate stays good
for whoever has its key until it ends: the root that vouches for it is still trusted.
Exit code 1: what it signed is still in use.")]
pub struct RevokeArgs {
    /// Its id, or the beginning of it
    id: String,
    #[command(flatten)]
    data: DataArgs,
}

/// One authority.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Shown {
    pub(super) purpose: &'static str,
    pub(super) id: String,
    pub(super) state: &'static str,
    /// When it begins to sign, where that is to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signs_from: Option<String>,
    /// When it ends.
    pub(super) until: String,
}

#[derive(Debug, Serialize)]
struct Answer {
    keys: Vec<Shown>,
    /// What to do now.
    next: &'static str,
}

pub(super) fn prepare(args: &PrepareArgs, output: Output) -> CommandResult {
    change(&args.data, output, NEXT_PREPARED, |keys, now| keys.prepare(args.purpose.kind(), now, None))
}

pub(super) fn activate(args: &ActivateArgs, output: Output) -> CommandResult {
    change(&args.data, output, NEXT_ACTIVE, |keys, now| keys.activate(args.purpose.kind(), now, args.at_once))
}

pub(super) fn taint(args: &TaintArgs, output: Output) -> CommandResult {
    change(&args.data, output, NEXT_TAINTED, |keys, now| keys.taint(&full_id(keys, &args.id)?, now))
}

pub(super) fn revoke(args: &RevokeArgs, output: Output) -> CommandResult {
    change(&args.data, output, NEXT_REVOKED, |keys, now| keys.revoke(&full_id(keys, &args.id)?, now))
}

/// The next one, which signs after `signs_in` seconds; or, where others have the key, at once.
pub(super) fn rotate(
    kind: Kind,
    signs_in_seconds: Option<u64>,
    compromised: bool,
    data: &DataArgs,
    output: Output,
) -> CommandResult {
    if compromised {
        return change(data, output, NEXT_COMPROMISED, |keys, now| keys.replace_compromised(kind, now));
    }
    let signs_in_seconds = signs_in_seconds.unwrap_or(SIGNS_IN_SECONDS);
    if signs_in_seconds < SIGNS_IN_SECONDS {
        return Err(CommandError::usage(
            "--signs-in: whoever verifies asks for the bundle every five minutes",
            "give 10m or more; where the old keys are not safe any more, --compromised",
        ));
    }
    change(data, output, NEXT_ROTATED, |keys, now| {
        keys.prepare(kind, now, Some(now.saturating_add(signs_in_seconds)))
    })
}

/// All that are there.
pub(super) fn read(data_dir: &Path) -> Result<Vec<Shown>, CommandError> {
    let kept = SpiffeKeys::existing(data_dir).read().map_err(unusable)?;
    Ok(kept.map(|kept| Shown::all(&kept.register)).unwrap_or_default())
}

fn change(
    data: &DataArgs,
    output: Output,
    next: &'static str,
    change: impl FnOnce(&SpiffeKeys, u64) -> Result<Kept, NotDone>,
) -> CommandResult {
    let folder = data.find()?;
    let keys = SpiffeKeys::existing(&folder.folder);
    if keys.read().map_err(unusable)?.is_none() {
        return Err(CommandError::failure(
            format!("{}: there are no authorities", folder.folder.display()),
            "`deputize serve` makes them where the configuration has `spiffe`",
        ));
    }
    let kept = change(&keys, now_seconds()).map_err(|error| CommandError::failure(&error, advice(&error)))?;
    let answer = Answer { keys: Shown::all(&kept.register), next };
    output.show(&answer, || answer.to_text())?;
    Ok(Exit::Ok)
}

/// The one id that begins so.
fn full_id(keys: &SpiffeKeys, beginning: &str) -> Result<String, NotDone> {
    let kept = keys.read()?;
    let members = kept.as_ref().map(|kept| kept.register.members()).unwrap_or_default();
    let mut found = members.iter().filter(|member| member.id.starts_with(beginning));
    match (found.next(), found.next()) {
        (Some(member), None) if beginning.len() >= LEAST_ID => Ok(member.id.clone()),
        _ => Err(NotNow::Unknown.into()),
    }
}

fn advice(error: &NotDone) -> &'static str {
    match error {
        NotDone::Files(_) => "correct the file, or its mode, and run it again",
        NotDone::NotNow(NotNow::AlreadyPrepared) => {
            "`deputize keys activate` has it sign, `keys revoke` takes it away"
        }
        NotDone::NotNow(NotNow::NonePrepared) => "`deputize keys prepare` first",
        NotDone::NotNow(NotNow::NotKnownYet(_)) => "wait ten minutes, or give --at-once",
        NotDone::NotNow(NotNow::Signs) => "`deputize keys prepare` and `keys activate` another first",
        NotDone::NotNow(NotNow::SignedNothing) => "`deputize keys revoke` takes it away",
        NotDone::NotNow(NotNow::InUse) => "`deputize keys taint` first, and give processes a minute",
        NotDone::NotNow(NotNow::AlreadyTainted) => "`deputize keys revoke` takes it away",
        NotDone::NotNow(NotNow::Unknown) => {
            "`deputize keys ls` shows them; eight characters of an id suffice"
        }
    }
}

impl Signs {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::X509Svids => Kind::X509,
            Self::JwtSvids => Kind::Jwt,
        }
    }
}

impl Shown {
    fn all(register: &Register) -> Vec<Self> {
        let of =
            |member: &Member| Self::of(member, register.active(member.kind()).map(|active| &active.life));
        register.members().iter().map(of).collect()
    }

    fn of(member: &Member, active: Option<&Life>) -> Self {
        let (state, signs_from) = match member.life.stage {
            Stage::Prepared => ("prepared", active.map(|active| authority::activation(active, &member.life))),
            Stage::Active => ("active", None),
            Stage::Old => ("old", None),
            Stage::Tainted => ("tainted", None),
        };
        Self {
            purpose: match member.kind() {
                Kind::X509 => "X.509-SVIDs",
                Kind::Jwt => "JWT-SVIDs",
            },
            id: member.id.clone(),
            state,
            signs_from: signs_from.map(moment::format_seconds),
            until: moment::format_seconds(member.life.not_after_seconds),
        }
    }

    /// Its state, in words.
    pub(super) fn says(&self) -> String {
        match &self.signs_from {
            Some(from) => format!("{}, signs from {from}", self.state),
            None => format!("{}, until {}", self.state, self.until),
        }
    }
}

impl Answer {
    fn to_text(&self) -> String {
        let mut columns = Columns::new(&["PURPOSE", "STATE", "ID"]);
        for key in &self.keys {
            columns.row(&[key.purpose, &key.says(), &key.id]);
        }
        format!("{columns}\n next: {}\n", self.next)
    }
}

/// Everybody who verifies has asked for the bundle twice by then.
const SIGNS_IN_SECONDS: u64 = 600;
/// So many characters of an id are no slip.
const LEAST_ID: usize = 8;
const NEXT_PREPARED: &str =
    "it signs when its time has come, or with `deputize keys activate` in ten minutes";
const NEXT_ACTIVE: &str =
    "the old one stays in the bundle until its end; where it is not to, `deputize keys taint`";
const NEXT_TAINTED: &str = "once processes have new SVIDs, within a minute, `deputize keys revoke`";
const NEXT_REVOKED: &str = "whoever verifies learns of it with the next bundle, within five minutes";
const NEXT_ROTATED: &str = "nothing: it signs at its time, and the old one goes with its end";
const NEXT_COMPROMISED: &str =
    "once processes have new SVIDs, within a minute, `deputize keys revoke` the tainted one";
