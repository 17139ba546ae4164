//! A mount of skylog, and an ext4 beside it. Needs root, `/dev/fuse` and, where temporary files do not lie on ext4, `mkfs.ext4`
//! and loop devices; a run that cannot have them fails.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Both filesystems.
pub struct Ground {
    root: PathBuf,
    pid: Option<u32>,
    _folder: tempfile::TempDir,
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn skylog(arguments: &[&str]) -> String {
    run(env!("CARGO_BIN_EXE_skylog"), arguments)
}

fn words(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

impl Ground {
    /// A fresh filesystem of each kind. Neither notes when a file was read, so that times can be compared.
    pub fn new() -> Ground {
        assert!(Path::new("/dev/fuse").exists(), "this test needs /dev/fuse");
        let folder = tempfile::Builder::new().prefix("skylog-differential.").tempdir().expect("a scratch folder");
        let root = folder.path().canonicalize().expect("it exists");
        let mut ground = Ground { root, pid: None, _folder: folder };
        for name in ["mnt", "ext4", "own"] {
            std::fs::create_dir(ground.root.join(name)).expect("a fresh folder");
        }
        ground.make_ext4();
        skylog(&["mkfs", "--segment-size", "1MiB", words(&ground.root.join("store"))]);
        ground.mount_skylog();
        ground
    }

    /// Where skylog is mounted.
    pub fn mount(&self) -> PathBuf {
        self.root.join("mnt")
    }

    /// Where ext4 is.
    pub fn ext4(&self) -> PathBuf {
        self.root.join("ext4")
    }

    fn make_ext4(&self) {
        let (at, own, image) = (self.ext4(), self.root.join("own"), self.root.join("image"));
        let kind = run("stat", &["-f", "-c", "%T", words(&self.root)]);
        if kind.trim() == "ext2/ext3" && run("findmnt", &["-nro", "FSTYPE", "-T", words(&self.root)]).trim() == "ext4" {
            run("mount", &["--bind", words(&own), words(&at)]);
            run("mount", &["-o", "remount,bind,noatime", words(&at)]);
        } else {
            std::fs::File::create(&image).and_then(|file| file.set_len(8 << 30)).expect("a sparse image");
            run("mkfs.ext4", &["-q", "-F", "-I", "256", words(&image)]);
            run("mount", &["-o", "loop,noatime", words(&image), words(&at)]);
        }
    }

    fn mount_skylog(&mut self) {
        let (store, mnt) = (self.root.join("store"), self.mount());
        let more = std::env::var("SKYLOG_DIFF_OPTIONS").map_or(String::new(), |words| format!(",{words}"));
        let options = format!("allow_other,noatime{more}");
        skylog(&["mount", "-o", &options, "--journal-size", "256MiB", words(&store), words(&mnt)]);
        let status: serde_json::Value =
            serde_json::from_str(&skylog(&["status", "--json", words(&mnt)])).expect("status prints JSON");
        self.pid = Some(u32::try_from(status["pid"].as_u64().expect("a process")).expect("small"));
    }

    /// Unmounts and mounts again; or syncs, kills the daemon and mounts again.
    pub fn mount_again(&mut self, kill: bool) {
        if kill {
            skylog(&["sync", words(&self.mount())]);
            self.end();
        } else {
            skylog(&["umount", words(&self.mount())]);
        }
        self.mount_skylog();
    }

    /// Unmounts, and checks every checksum and account of what the sequences left.
    pub fn check(&mut self) {
        skylog(&["umount", words(&self.mount())]);
        self.pid = None;
        skylog(&["check", "--data", words(&self.root.join("store"))]);
    }

    /// Kills the daemon and clears its mount.
    fn end(&mut self) {
        if let Some(pid) = self.pid.take() {
            let dead = Path::new("/proc").join(pid.to_string());
            run("kill", &["-9", &pid.to_string()]);
            Command::new("umount").arg("-lq").arg(self.mount()).output().ok();
            while dead.exists() {
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        Command::new("umount").arg("-lq").arg(self.mount()).output().ok();
        if let Some(pid) = self.pid.take() {
            Command::new("kill").args(["-9", &pid.to_string()]).output().ok();
        }
        Command::new("umount").arg("-q").arg(self.ext4()).output().ok();
    }
}
