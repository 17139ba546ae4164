#![no_main]

#[allow(dead_code, reason = "no command is run")]
#[path = "../../src/cli/mod.rs"]
mod cli;
#[allow(dead_code, reason = "the other target is another program")]
#[path = "../commands.rs"]
mod commands;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    commands::mount_options(data);
});
