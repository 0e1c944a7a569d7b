//! `deputize audit tail`: the newest records, and those that come.

use deputize_issuer::log::{LogError, LogReader};
use std::time::Duration;

use super::Record;
use crate::commands::{
    data::{DataArgs, DataFolder, unreadable},
    exit::{CommandError, CommandResult, Exit},
    output::Output,
};

/// Shows the newest records, oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize audit tail                      the last ten records
  deputize audit tail -n 100 -o json       the last hundred, one JSON object a line
  deputize audit tail --follow             and go on with those that come, until Ctrl-C")]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: u64,
    /// Go on with the records that come
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn run(args: Args, output: Output) -> CommandResult {
    let folder = args.data.find()?;
    let reader = folder.log()?;
    let mut next = reader.size().saturating_sub(args.lines);
    show(&reader, &mut next, output).map_err(|(_, error)| error)?;
    if !args.follow {
        return Ok(Exit::Ok);
    }
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        look_again(&folder, &mut next, output)?;
    }
}

/// Shows what is new. A record that the running broker is just writing looks broken: it is read again next time.
fn look_again(folder: &DataFolder, next: &mut u64, output: Output) -> Result<(), CommandError> {
    match show(&folder.log()?, next, output) {
        Ok(()) | Err((true, _)) => Ok(()),
        Err((false, error)) => Err(error),
    }
}

/// Shows the records from `next` on. An error says whether it may be gone when looked at again.
fn show(reader: &LogReader, next: &mut u64, output: Output) -> Result<(), (bool, CommandError)> {
    for entry in reader.entries(*next, reader.size()) {
        let (index, bytes) =
            entry.map_err(|error| (matches!(error, LogError::Absent { .. }), unreadable(error)))?;
        let record = Record::read(index, &bytes);
        output.record(&record, || record.line()).map_err(|error| (false, error))?;
        *next = index + 1;
    }
    Ok(())
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
