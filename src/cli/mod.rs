//! Layer 9: the commands, one file each. A command parses, calls the layers below, and says in one sentence how it went.
//!
//! Exit codes: 0 the command did what it was asked; 1 it failed, or `check` found damage; 2 the command line is wrong.

mod ask;
mod break_lock;
mod cache_words;
mod check;
pub(crate) mod control;
mod copies;
mod daemon;
mod destroy;
mod documents;
mod evict;
mod failure;
mod follower;
mod helper;
mod log_file;
mod metrics;
mod metrics_endpoint;
mod mkfs;
mod mount;
pub(crate) mod mount_options;
mod mount_point;
mod mount_words;
mod notify;
mod output;
mod progress;
mod registry;
mod remote_words;
mod remount;
mod repaired;
mod salvage;
mod salvage_out;
mod set;
mod site;
mod size;
mod state_dir;
mod state_root;
mod status;
pub(crate) mod store_arg;
mod sync;
mod umount;
mod users;
mod utab;
mod warm;
mod world;

use clap::{CommandFactory, Parser, Subcommand};
use failure::Failure;
use std::ffi::OsString;
use std::process::ExitCode;

/// An ordinary directory whose contents live in an object store.
#[derive(Parser)]
#[command(name = "skylog", version, disable_help_subcommand = true)]
#[command(
    after_help = "STORE is a directory or a URL: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, file:///path; \
                  memory:// for a mount that keeps nothing. Exit codes: 0 done, 1 failed or damage found, 2 usage."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Mkfs(mkfs::Mkfs),
    Mount(Box<mount::Mount>),
    Umount(umount::Umount),
    Sync(sync::Sync),
    Status(status::Status),
    Metrics(metrics::Metrics),
    Warm(warm::Warm),
    Evict(evict::Evict),
    Set(set::Set),
    Check(check::Check),
    Salvage(salvage::SalvageCommand),
    BreakLock(break_lock::BreakLock),
    Destroy(destroy::Destroy),
    #[command(hide = true)]
    Documents(documents::Documents),
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    // What lies in store and state directory is for their owner alone, whatever the modes of the files in the filesystem.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    skylog::media::limit_heap();
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(helper) = helper::called_as(&words) {
        return helper.run();
    }
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(e) if e.use_stderr() && !is_help(&e) => return usage(&e, &command_of(&words)).report(),
        Err(e) => {
            e.print().ok();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    let done = match arguments.command {
        Command::Mkfs(command) => command.run(),
        Command::Mount(command) => command.run(&words),
        Command::Umount(command) => command.run(),
        Command::Sync(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Metrics(command) => command.run(),
        Command::Warm(command) => command.run(),
        Command::Evict(command) => command.run(),
        Command::Set(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Salvage(command) => command.run(),
        Command::BreakLock(command) => command.run(),
        Command::Destroy(command) => command.run(),
        Command::Documents(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The command whose help says more about a command line: that of its first word, if there is such a command.
fn command_of(words: &[OsString]) -> String {
    let first = words.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    match Arguments::command().find_subcommand(first) {
        Some(_) => format!("skylog {first}"),
        None => "skylog".to_owned(),
    }
}

/// No word at all: the parser answers with its help.
fn is_help(error: &clap::Error) -> bool {
    error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// What is wrong with a command line, as one sentence.
fn usage(error: &clap::Error, command: &str) -> Failure {
    let text = error.to_string();
    let what = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let what: Vec<&str> = what.split_whitespace().collect();
    Failure::usage(format_args!("{}; `{command} --help` shows what there is", what.join(" ")))
}
