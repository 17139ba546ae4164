//! The `skylog` command.

// `cli/output.rs` speaks; the macros panic when nobody listens any more.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cli;
#[cfg(test)]
#[path = "../fuzz/commands.rs"]
mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
