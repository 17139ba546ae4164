//! The `skylog` command.
fn main() {}
