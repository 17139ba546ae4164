//! A question before something that cannot be undone.

use super::failure::Failure;
use std::io::{self, BufRead, Write};

/// Asks on the terminal; anything but `yes` is a no.
pub fn agreed(question: &str) -> Result<bool, Failure> {
    eprint!("{question}. Type `yes` to go on: ");
    io::stderr().flush().ok();
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(Failure::failed)?;
    Ok(line.trim() == "yes")
}
