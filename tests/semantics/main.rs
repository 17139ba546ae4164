//! Runs `docs/semantics.md`. Each claim of the document, a point of a list, is followed by a block of shell commands; the block
//! runs in a fresh directory of a real mount, as root, and the claim holds when it ends with 0. A claim without a block fails.
//! `helpers.sh` says what blocks may use. `SKYLOG_CLAIM=words` runs only claims that contain the words.
//!
//! Needs root, `/dev/fuse`, bash, python3, and the tools of the blocks: coreutils, util-linux, attr, acl.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Blocks that run at once.
const THREADS: usize = 4;
/// Fewer claims than this were not the document.
const CLAIMS_MIN: usize = 40;

/// A claim and what backs it.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    /// Where it stands, from 1.
    line: usize,
    text: String,
    /// Commands; none is a fault of the document.
    block: Option<String>,
}

/// The claims of a document: points of lists, outside of blocks, and the block below each.
fn claims(text: &str) -> Vec<Claim> {
    let mut claims: Vec<Claim> = Vec::new();
    let mut block: Option<String> = None;
    for (n, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        match &mut block {
            Some(_) if trimmed == "```" => {
                let done = block.take();
                let claim = claims.last_mut().unwrap_or_else(|| panic!("line {}: a block without a claim", n + 1));
                assert!(claim.block.is_none(), "line {}: a second block for one claim", n + 1);
                claim.block = done;
            }
            Some(commands) => {
                commands.push_str(line.strip_prefix("  ").unwrap_or(line));
                commands.push('\n');
            }
            None if trimmed.starts_with("```") => {
                assert_eq!(trimmed, "```sh", "line {}: blocks are shell commands", n + 1);
                block = Some(String::new());
            }
            None if line.starts_with("- ") => {
                claims.push(Claim { line: n + 1, text: line[2..].to_string(), block: None });
            }
            None if line.starts_with("  ") => {
                let claim = claims.last_mut().unwrap_or_else(|| panic!("line {}: text of no claim", n + 1));
                claim.text.push(' ');
                claim.text.push_str(trimmed);
            }
            None => {}
        }
    }
    assert!(block.is_none(), "the last block does not end");
    claims
}

/// The mount that most blocks share.
struct Shared {
    root: PathBuf,
    pid: u64,
    _folder: tempfile::TempDir,
}

fn skylog(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_skylog")).args(arguments).output().expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skylog {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Shared {
    fn new() -> Shared {
        assert!(Path::new("/dev/fuse").exists(), "this test needs /dev/fuse");
        let folder = tempfile::Builder::new().prefix("skylog-semantics.").tempdir().expect("a scratch folder");
        let root = folder.path().canonicalize().expect("it exists");
        // Blocks that act as another user must reach the mount.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&root, open).expect("it is ours");
        let path = |name: &str| root.join(name).to_str().expect("paths of tests are text").to_string();
        let (store, mnt) = (path("store"), path("mnt"));
        std::fs::create_dir(&mnt).expect("a mount point");
        skylog(&["mkfs", "--segment-size", "1MiB", &store]);
        skylog(&["mount", "-o", "allow_other", &store, &mnt]);
        let status: serde_json::Value = serde_json::from_str(&skylog(&["status", "--json", &mnt])).expect("JSON");
        Shared { root, pid: status["pid"].as_u64().expect("a process"), _folder: folder }
    }

    /// Runs one block; what it said when it failed.
    fn run(&self, n: usize, block: &str) -> Result<(), String> {
        let (place, scratch) = (self.root.join("mnt").join(n.to_string()), self.root.join(format!("scratch.{n}")));
        std::fs::create_dir(&place).expect("a directory of its own");
        std::fs::create_dir(&scratch).expect("a folder of its own");
        let helpers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/semantics/helpers.sh");
        let script = format!(". '{}'\n{block}", helpers.display());
        let mut command = Command::new("bash");
        command.args(["-c", &script]).current_dir(&place);
        command.env("SKYLOG", env!("CARGO_BIN_EXE_skylog")).env("SCRATCH", &scratch);
        let output = command.output().expect("bash is there");
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!("{}: {}", output.status, String::from_utf8_lossy(&said)))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        Command::new("umount").arg("-lq").arg(self.root.join("mnt")).output().ok();
        Command::new("kill").args(["-9", &self.pid.to_string()]).output().ok();
    }
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/semantics.md");
    std::fs::read_to_string(path).expect("docs/semantics.md is there")
}

#[test]
fn every_claim_of_the_document_holds_on_a_mount() {
    let only = std::env::var("SKYLOG_CLAIM").unwrap_or_default();
    let all = claims(&document());
    assert!(all.len() >= CLAIMS_MIN, "only {} claims were found", all.len());
    let shared = Shared::new();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(claim) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = match &claim.block {
                        None => Err("no block backs it".to_string()),
                        Some(_) if !claim.text.contains(&only) => continue,
                        Some(block) => shared.run(claim.line, block),
                    };
                    if let Err(why) = verdict {
                        let failure = format!("docs/semantics.md:{}: {}\n{why}", claim.line, claim.text);
                        failures.lock().expect("no panic while it is held").push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no thread panicked");
    assert!(failures.is_empty(), "{} of {} claims do not hold:\n{}", failures.len(), all.len(), failures.join("\n"));
}

#[test]
fn a_claim_is_found_with_its_block_and_one_without_is_seen() {
    let text = "# Title\n\n- Holds,\n  really.\n  ```sh\n  true\n    indented\n  ```\n- Bare.\n";
    let found = claims(text);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].line, found[0].text.as_str()), (3, "Holds, really."));
    assert_eq!(found[0].block.as_deref(), Some("true\n  indented\n"));
    assert_eq!(found[1].block, None);
}

#[test]
fn a_block_that_fails_is_a_claim_that_does_not_hold() {
    let shared = Shared::new();
    assert_eq!(shared.run(1, "echo text >f; grep -q text f"), Ok(()));
    assert!(shared.run(2, "false; true").is_err(), "the first command that fails ends a block");
    assert!(shared.run(3, "fails 'No such file' true").is_err(), "what was to fail did not");
    assert!(shared.run(4, "is one two").is_err());
}
