//! A question before something that cannot be undone.

use super::failure::Failure;
use super::output;
use std::io::{self, BufRead};

/// Asks on the terminal; anything but `yes` is a no.
pub fn agreed(question: &str) -> Result<bool, Failure> {
    output::part(format_args!("{question}. Type `yes` to go on: "));
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(Failure::failed)?;
    Ok(line.trim() == "yes")
}
