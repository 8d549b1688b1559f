//! What commands print.

use std::io::{self, Write as _};

/// Prints text on standard output. A reader that has gone (`| head`) is no error.
pub(crate) fn write(text: &str) {
    let mut out = io::stdout().lock();
    // Nobody is left to be told.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Prints a line on standard output.
pub(crate) fn line(text: &str) {
    write(&format!("{text}\n"));
}

/// Prints `ERROR: …` on standard error.
pub(crate) fn error(text: &str) {
    let mut out = io::stderr().lock();
    // Nobody is left to be told.
    drop(writeln!(out, "ERROR: {text}"));
}

/// Prints a line on standard error, for whoever watches.
pub(crate) fn note(text: &str) {
    let mut out = io::stderr().lock();
    // Nobody is left to be told.
    drop(writeln!(out, "{text}"));
}
