//! A scratch store and mount for a test, and the program's words.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// How every script begins. The mounts of others, which the namespace holds copies of, are let go: as long as they are held, those
/// daemons cannot end. A script that fails takes the daemon it started with it. And a daemon that has ended may stay as a zombie
/// until the machine's first process asks.
const BEGIN: &str = r#"
    findmnt -n -r -o TARGET -t fuse.skylog | while read -r other; do umount -i -l "$(printf "%b" "$other")"; done || true
    end() {
        local code=$? pid
        pid=$(sed -n 's/^pid=//p' "$STORE/lock" 2> /dev/null) || true
        if [ $code != 0 ] && [ -n "$pid" ] && [ "$(readlink /proc/$pid/ns/mnt)" = "$(readlink /proc/$$/ns/mnt)" ]; then kill -9 $pid; fi
    }
    trap end EXIT
    ended() { ! grep -s '^State:' /proc/$1/status | grep -qv '[ZX] ('; }
    cd "$ROOT"
"#;

/// What a run of the program came to.
pub struct Said {
    command: String,
    output: Output,
}

/// Runs the program.
pub fn skylog(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_skylog")).args(arguments).output().expect("the program starts");
    Said { command: arguments.join(" "), output }
}

impl Said {
    pub fn is_success(&self) -> bool {
        self.output.status.success()
    }

    /// It did what it was asked; what it printed.
    pub fn succeeds(self) -> String {
        let errors = String::from_utf8_lossy(&self.output.stderr);
        assert!(self.output.status.success(), "`skylog {}`: {}: {errors}", self.command, self.output.status);
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// It failed with exit code 1 and one sentence, which is returned.
    pub fn fails(self) -> String {
        self.fails_with(1)
    }

    /// It asked, nobody answered, and it did nothing.
    pub fn fails_after_asking(self) {
        let said = String::from_utf8_lossy(&self.output.stderr).into_owned();
        assert_eq!(self.output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("Type `yes`") && (said.contains("nothing was removed") || said.contains("left alone")),
            "{said}"
        );
    }

    /// The command line makes no sense: exit code 2.
    pub fn means_nothing(self) {
        assert_eq!(self.output.status.code(), Some(2), "`skylog {}`", self.command);
    }

    /// It failed with this exit code and one sentence.
    pub fn fails_with(self, code: i32) -> String {
        let said = String::from_utf8_lossy(&self.output.stderr).into_owned();
        assert_eq!(self.output.status.code(), Some(code), "`skylog {}`: {said}", self.command);
        assert!(said.starts_with("skylog: ") && said.trim_end().lines().count() == 1, "one sentence, not {said:?}");
        said
    }
}

/// A path as an argument.
pub fn words(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// A folder with a store and a mount point; unmounted and removed when dropped.
pub struct Scratch {
    /// The folder.
    pub root: PathBuf,
    /// The mount point.
    pub mnt: PathBuf,
    store: String,
    pid: Option<u32>,
    _folder: tempfile::TempDir,
}

impl Scratch {
    /// A mount point, and no store yet.
    pub fn new() -> Scratch {
        assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse");
        let folder = tempfile::Builder::new().prefix("skylog-test.").tempdir().expect("a scratch folder");
        let root = folder.path().canonicalize().expect("it exists");
        let (mnt, store) = (root.join("mnt"), words(&root.join("store")).to_string());
        fs::create_dir(&mnt).expect("a mount point");
        Scratch { root, mnt, store, pid: None, _folder: folder }
    }

    /// A fresh store, mounted.
    pub fn mounted() -> Scratch {
        let mut scratch = Scratch::new();
        scratch.make();
        scratch.mount();
        scratch
    }

    /// Makes the store, with small segments so that small tests fill several.
    pub fn make(&self) {
        self.make_with(&[]);
    }

    pub fn make_with(&self, options: &[&str]) {
        skylog(&[&["mkfs", "--segment-size", "1MiB"], options, &[&self.store]].concat()).succeeds();
    }

    /// The store as an argument.
    pub fn store(&self) -> &str {
        &self.store
    }

    pub fn mount(&mut self) {
        self.mount_with(&[]);
    }

    /// Mounts a store that was made with segments of the usual size.
    pub fn mount_large(&mut self) {
        skylog(&["mount", "--journal-size", "256MiB", &self.store, words(&self.mnt)]).succeeds();
        self.adopt();
    }

    pub fn mount_with(&mut self, options: &[&str]) {
        let arguments = [&["mount", "--journal-size", "32MiB"], options, &[&self.store, words(&self.mnt)]].concat();
        skylog(&arguments).succeeds();
        self.adopt();
    }

    /// Runs a script as root in a mount namespace of its own, where it may mount over what the machine has; `$STORE`, `$MNT`,
    /// `$ROOT` and `$SKYLOG` are set, and `ended PID` says whether a process has ended. It succeeds; what it printed.
    pub fn script(&self, script: &str) -> String {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-xeuo", "pipefail", "-c"]);
        command.arg(format!("{BEGIN}{script}"));
        command.env("STORE", self.store()).env("MNT", &self.mnt).env("ROOT", &self.root);
        let output = command.env("SKYLOG", env!("CARGO_BIN_EXE_skylog")).output().expect("unshare starts");
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {said}{errors}", output.status);
        said.into_owned()
    }

    /// Takes over a mount that the test has made itself.
    pub fn adopt(&mut self) {
        let pid = self.status()["pid"].as_u64().expect("a process");
        self.pid = Some(u32::try_from(pid).expect("small"));
    }

    pub fn umount(&mut self) {
        skylog(&["umount", words(&self.mnt)]).succeeds();
        self.gone();
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.pid.expect("it is mounted")
    }

    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&skylog(&["status", "--json", words(&self.mnt)]).succeeds()).expect("status prints JSON")
    }

    /// Kills the daemon without warning, and does not wait until it is dead.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.pid = None;
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal).expect("the daemon is alive");
    }

    /// Waits until the daemon has ended by itself.
    pub fn gone(&mut self) {
        let pid = self.pid.take().expect("it was mounted");
        for _ in 0..6000 {
            if !Path::new("/proc").join(pid.to_string()).exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("process {pid} does not end");
    }
}

fn send(pid: u32, signal: Signal) -> nix::Result<()> {
    kill(Pid::from_raw(i32::try_from(pid).expect("process numbers are small")), signal)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            send(pid, Signal::SIGKILL).ok();
        }
        // A dead mount is cleared; one that is gone already is none of our business.
        Command::new("umount").arg("-lq").arg(&self.mnt).output().ok();
    }
}
