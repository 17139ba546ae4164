//! Runs the section "On S3" of README.md as it is written, on a service of the environment.

use super::scratch::Scratch;
use super::server;
use std::fs;
use std::path::Path;

/// What the README calls the bucket and the filesystem in it.
const BUCKET: &str = "my-bucket";
const STORE: &str = "s3://my-bucket/sky";

/// The shell commands of a section, up to the next.
fn commands(text: &str, section: &str) -> String {
    let inside = text.split("\n## ").find(|part| part.starts_with(section)).expect("the section is there");
    let blocks = inside.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

#[test]
fn the_commands_of_the_readme_work_as_written() {
    let scratch = Scratch::new(1);
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it is there");
    let commands = commands(&readme, "On S3");
    for word in ["skylog mkfs", "skylog mount", "skylog umount", "skylog check", STORE] {
        assert!(commands.contains(word), "README.md, On S3: no {word:?} in {commands}");
    }
    let answer = server::request(scratch.upstream, "PUT", &format!("/{BUCKET}"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let destroyed = format!("{commands}\nskylog destroy --yes {STORE}\n");
    let output = scratch.shell(&destroyed).output().expect("bash starts");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    // What a failure leaves mounted must not stay.
    if !output.status.success() {
        scratch.shell(r#"umount -l "$HOME/sky""#).output().expect("bash starts");
    }
    assert!(output.status.success(), "{said}");
    assert!(said.contains(".bashrc") && scratch.counts().of("PUT", "gen") > 0, "{said}");
}
