//! Runs sections of README.md as they are written, on a service of the environment.

use super::scratch::Scratch;
use super::server;
use std::fs;
use std::path::Path;

/// What the README calls the bucket and the filesystem in it.
const BUCKET: &str = "my-bucket";
const STORE: &str = "s3://my-bucket/sky";
const STORE_OF_TWO: &str = "s3://my-bucket/two";

/// The shell commands of a section, up to the next.
fn commands(text: &str, section: &str) -> String {
    let inside = text.split("\n## ").find(|part| part.starts_with(section)).expect("the section is there");
    let blocks = inside.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// Runs the commands of a section, in which all of `words` stand, and destroys the filesystem; what they said.
fn run(scratch: &Scratch, section: &str, words: &[&str], store: &str, mount_points: &[&str]) -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it is there");
    let commands = commands(&readme, section);
    for word in words.iter().chain([&store]) {
        assert!(commands.contains(word), "README.md, {section}: no {word:?} in {commands}");
    }
    let answer = server::request(scratch.upstream, "PUT", &format!("/{BUCKET}"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let destroyed = format!("{commands}\nskylog destroy --yes {store}\n");
    let output = scratch.shell(&destroyed).output().expect("bash starts");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    // What a failure leaves mounted must not stay.
    if !output.status.success() {
        for dir in mount_points {
            scratch.shell(&format!(r#"umount -l "$HOME/{dir}""#)).output().expect("bash starts");
        }
    }
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn the_commands_of_the_readme_work_as_written() {
    let scratch = Scratch::new(1);
    let words = ["skylog mkfs", "skylog mount", "skylog umount", "skylog check"];
    let said = run(&scratch, "On S3", &words, STORE, &["sky"]);
    assert!(said.contains(".bashrc") && scratch.counts().of("PUT", "gen") > 0, "{said}");
}

#[test]
fn the_commands_of_the_readme_for_two_machines_work_as_written() {
    let scratch = Scratch::new(1);
    let said = run(&scratch, "On two machines", &["--takeover", "skylog umount"], STORE_OF_TWO, &["first", "second"]);
    for words in [
        "it is held by process",
        "\nheld, as it says\n",
        "\nshipped\n",
        "\nunmounted, and the store",
        "skylog salvage ",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}
