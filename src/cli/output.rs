//! What a command says on standard output and standard error. Whoever reads may have enough and go (`skylog status DIR | head -1`):
//! that is no failure, the command ends as it would have, and with the exit code it would have had.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// A line on standard output. What cannot be written for another reason than that nobody reads any more ends the command with
/// exit code 1: a script must not take half an answer for a whole one.
pub fn line(text: impl Display) {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            note(format_args!("skylog: what it says cannot be written: {e}"));
            std::process::exit(1);
        }
        _ => {}
    }
}

/// A line on standard error.
pub fn note(text: impl Display) {
    part(format_args!("{text}\n"));
}

/// The beginning of a line on standard error.
pub fn part(text: impl Display) {
    let mut out = io::stderr().lock();
    // There is nobody else to tell.
    write!(out, "{text}").and_then(|()| out.flush()).ok();
}
