//! Progress bars for long work: on stderr, only where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over bytes.
pub fn bytes(what: &'static str) -> ProgressBar {
    bar(what, "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left")
}

/// A bar over records.
pub fn records(what: &'static str, count: u64) -> ProgressBar {
    let bar = bar(what, "{msg} {wide_bar} {pos}/{len} records, {eta} left");
    bar.set_length(count);
    bar
}

fn bar(what: &'static str, template: &str) -> ProgressBar {
    // Draws to stderr, and not at all where that is no terminal.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}
