//! A filesystem on S3 behind a proxy of its own, mounted in a scratch folder.

use super::proxy::{Counts, Plan, Proxy};
use super::server;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// No command of a test takes longer, unless the store is away.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A bucket, a proxy before it, a state directory and a mount point; unmounted and removed when dropped.
pub struct Scratch {
    /// The folder of everything local.
    pub root: PathBuf,
    pub mnt: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// The store.
    pub url: String,
    pub proxy: Proxy,
    /// The bucket of the store.
    pub bucket: String,
    /// The server, past the proxy.
    pub upstream: SocketAddr,
    environment: Vec<(&'static str, String)>,
    pid: Option<u32>,
    _folder: tempfile::TempDir,
}

/// What a run of the program came to.
pub struct Said {
    command: String,
    output: Output,
}

impl Said {
    pub fn is_success(&self) -> bool {
        self.output.status.success()
    }

    /// It did what it was asked; what it printed, errors last.
    pub fn succeeds(self) -> String {
        let text = self.text();
        assert!(self.output.status.success(), "`{}`: {}: {text}", self.command, self.output.status);
        text
    }

    /// It failed with exit code 1 and one sentence, which is returned.
    pub fn fails(self) -> String {
        self.fails_with(1)
    }

    /// It failed with this exit code and one sentence.
    pub fn fails_with(self, code: i32) -> String {
        let said = String::from_utf8_lossy(&self.output.stderr).into_owned();
        assert_eq!(self.output.status.code(), Some(code), "`{}`: {}", self.command, self.text());
        assert!(said.starts_with("skylog: ") && said.trim_end().lines().count() == 1, "one sentence, not {said:?}");
        said
    }

    /// It asked, nobody answered, and it did nothing.
    pub fn fails_after_asking(self) -> String {
        let said = self.text();
        assert_eq!(self.output.status.code(), Some(1), "{said}");
        assert!(said.contains("Type `yes`") && said.contains("nothing was removed"), "{said}");
        said
    }

    fn text(&self) -> String {
        [&self.output.stdout, &self.output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
    }
}

/// Unmounts, again while somebody is in the way: a program that another test is about to start has all files of this process open
/// for a moment, those in mounts too.
pub fn undisturbed(mut umount: impl FnMut() -> Said) -> Said {
    for _ in 0..20 {
        let said = umount();
        if said.is_success() || !said.text().contains("is in use by") {
            return said;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    umount()
}

/// A path as an argument.
pub fn words(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

impl Scratch {
    /// A bucket and a mount point; no filesystem yet.
    pub fn new(seed: u64) -> Scratch {
        assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse");
        let folder = tempfile::Builder::new().prefix("skylog-stores.").tempdir().expect("a scratch folder");
        let root = folder.path().canonicalize().expect("it exists");
        let (mnt, state) = (root.join("mnt"), root.join("state"));
        fs::create_dir(&mnt).expect("a mount point");
        let (upstream, bucket) = server::bucket();
        let proxy = Proxy::start(([127, 0, 0, 1], 0).into(), upstream, seed).expect("a free port");
        let environment = vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", proxy.address())),
            ("AWS_ACCESS_KEY_ID", server::ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", server::SECRET_KEY.into()),
            ("AWS_REGION", server::REGION.into()),
            // No test asks the network for keys.
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ];
        let url = format!("s3://{bucket}/some/prefix");
        Scratch { root, mnt, state, url, proxy, bucket, upstream, environment, pid: None, _folder: folder }
    }

    /// A fresh filesystem, mounted.
    pub fn mounted(seed: u64, options: &[&str]) -> Scratch {
        let mut scratch = Scratch::new(seed);
        scratch.make();
        scratch.mount(options);
        scratch
    }

    /// Makes the filesystem, with small segments so that small tests fill several.
    pub fn make(&self) {
        self.skylog(&["mkfs", "--segment-size", "1MiB", &self.url]).succeeds();
    }

    /// The program as this store needs it, with the credentials in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skylog"));
        self.surround(command.args(arguments));
        command
    }

    /// A shell that finds the program, stops at the first command that fails, and has the same environment.
    pub fn shell(&self, script: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_skylog"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-xeuo", "pipefail", "-c", script]);
        command.env("PATH", format!("{}:{path}", words(program.parent().expect("a folder"))));
        self.surround(&mut command);
        command
    }

    fn surround(&self, command: &mut Command) {
        command.env_remove("AWS_PROFILE").env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("HOME", &self.root).envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// Sets a variable of the environment for all that follows; `None` takes it away.
    pub fn set_variable(&mut self, name: &'static str, value: Option<&str>) {
        self.environment.retain(|(have, _)| *have != name);
        self.environment.extend(value.map(|value| (name, value.to_string())));
    }

    /// Runs the program; it ends within [`PATIENCE`].
    pub fn skylog(&self, arguments: &[&str]) -> Said {
        self.ends(self.start(arguments), arguments)
    }

    /// Starts the program.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program starts")
    }

    /// Waits for a program that was started.
    pub fn ends(&self, mut child: Child, arguments: &[&str]) -> Said {
        let command = format!("skylog {}", arguments.join(" "));
        let begin = Instant::now();
        while child.try_wait().expect("it is our child").is_none() {
            if begin.elapsed() > PATIENCE {
                child.kill().ok();
                panic!("`{command}` does not end; the log of the daemon: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Said { command, output: child.wait_with_output().expect("it has ended") }
    }

    pub fn mount(&mut self, options: &[&str]) {
        self.try_mount(options).succeeds();
        self.adopt();
    }

    /// Takes over a mount that the test has made itself.
    pub fn adopt(&mut self) {
        self.pid = Some(u32::try_from(self.status()["pid"].as_u64().expect("a process")).expect("small"));
    }

    pub fn try_mount(&self, options: &[&str]) -> Said {
        let place = ["--state", words(&self.state), &self.url, words(&self.mnt)];
        self.skylog(&[&["mount", "--journal-size", "64MiB"], options, &place].concat())
    }

    /// Leaves the mount to the test; its process.
    pub fn detach(&mut self) -> i32 {
        i32::try_from(self.pid.take().expect("it is mounted")).expect("small")
    }

    /// All names of the store below this one.
    pub fn names(&self, below: &str) -> Vec<String> {
        let path = format!("/{}?list-type=2&prefix=some/prefix/{below}", self.bucket);
        let answer = server::request(self.upstream, "GET", &path);
        let keys = answer.split("<Key>").skip(1);
        keys.filter_map(|rest| rest.split_once("</Key>")).map(|(name, _)| name.to_owned()).collect()
    }

    /// Unmounts; everything is in the store then.
    pub fn umount(&mut self) -> String {
        let said = undisturbed(|| self.skylog(&["umount", words(&self.mnt)])).succeeds();
        self.gone();
        said
    }

    /// Unmounts at once; says what stays in the journal.
    pub fn umount_now(&mut self) -> String {
        let said = self.skylog(&["umount", "--now", words(&self.mnt)]).succeeds();
        self.gone();
        said
    }

    /// Waits until the daemon has ended by itself.
    pub fn gone(&mut self) {
        let Some(pid) = self.pid else { return };
        let begin = Instant::now();
        while Path::new("/proc").join(pid.to_string()).exists() {
            assert!(begin.elapsed() < PATIENCE, "process {pid} does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.pid = None;
    }

    /// Kills the daemon without warning.
    pub fn kill(&mut self) {
        send(self.pid.expect("it is mounted"), Signal::SIGKILL);
        self.gone();
        Command::new("umount").arg("-l").arg(&self.mnt).output().expect("umount starts");
    }

    /// Forgets all that is local: what is left is what the store has.
    pub fn wipe(&self) {
        assert!(self.pid.is_none(), "it is mounted");
        fs::remove_dir_all(&self.state).expect("there was local state");
    }

    /// All checksums and all accounting agree; reads the store directly.
    pub fn check(&self) {
        self.skylog(&["check", "--data", "--state", words(&self.state), &self.url]).succeeds();
    }

    pub fn status(&self) -> serde_json::Value {
        let said = self.skylog(&["status", "--json", words(&self.mnt)]).succeeds();
        serde_json::from_str(&said).expect("status prints JSON")
    }

    /// What happens to requests from now on.
    pub fn plan(&self, words: &str) {
        self.proxy.set(words.parse::<Plan>().expect("a plan"));
    }

    pub fn counts(&self) -> Counts {
        self.proxy.counts()
    }

    /// The end of the daemon's log, for messages.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.state.join("skylog.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("process numbers are small")), signal).ok();
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            send(pid, Signal::SIGKILL);
        }
        // A dead mount is cleared; one that is gone already is none of our business.
        Command::new("umount").arg("-lq").arg(&self.mnt).output().ok();
    }
}
