//! Further mounts of a scratch filesystem: each is what another machine would be, with a state directory and a mount point of its own.

use super::scratch::{PATIENCE, Said, Scratch, undisturbed, words};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A mount point and a state directory. What is mounted there is killed and taken away when dropped.
pub struct Place {
    pub mnt: PathBuf,
    pub state: PathBuf,
    pid: Option<u32>,
}

/// Every file below a folder, with its contents.
pub type Tree = BTreeMap<String, Vec<u8>>;

impl Place {
    /// Nothing is mounted yet.
    pub fn new(scratch: &Scratch, name: &str) -> Place {
        let (mnt, state) = (scratch.root.join(name), scratch.root.join(format!("{name}.state")));
        fs::create_dir(&mnt).expect("a new name");
        Place { mnt, state, pid: None }
    }

    pub fn mounted(scratch: &Scratch, name: &str, options: &[&str]) -> Place {
        let mut place = Place::new(scratch, name);
        place.mount(scratch, options).succeeds();
        place
    }

    /// Mounts, or is refused.
    pub fn mount(&mut self, scratch: &Scratch, options: &[&str]) -> Said {
        let child = self.start(scratch, options);
        self.ends(scratch, child)
    }

    /// Starts a mount, for [`Place::ends`].
    pub fn start(&self, scratch: &Scratch, options: &[&str]) -> Child {
        let place = ["--state", words(&self.state), &scratch.url, words(&self.mnt)];
        scratch.start(&[&["mount", "--journal-size", "32MiB"], options, &place].concat())
    }

    pub fn ends(&mut self, scratch: &Scratch, mount: Child) -> Said {
        let said = scratch.ends(mount, &["mount", words(&self.mnt)]);
        if said.is_success() {
            let pid = self.status(scratch)["pid"].as_u64().expect("a process");
            self.pid = Some(u32::try_from(pid).expect("small"));
        }
        said
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.pid.expect("it is mounted")
    }

    pub fn status(&self, scratch: &Scratch) -> serde_json::Value {
        let said = scratch.skylog(&["status", "--json", words(&self.mnt)]).succeeds();
        serde_json::from_str(&said).expect("status prints JSON")
    }

    /// Waits until the writer knows that another one has taken over.
    pub fn until_fenced(&self, scratch: &Scratch) {
        let begin = Instant::now();
        loop {
            let status = self.status(scratch);
            if status["state"] == "fenced" {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "it goes on: {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn umount(&mut self, scratch: &Scratch) -> Said {
        undisturbed(|| {
            let umount = self.start_umount(scratch);
            self.ends_umount(scratch, umount)
        })
    }

    /// Starts an unmount, for [`Place::ends_umount`].
    pub fn start_umount(&self, scratch: &Scratch) -> Child {
        scratch.start(&["umount", words(&self.mnt)])
    }

    pub fn ends_umount(&mut self, scratch: &Scratch, umount: Child) -> Said {
        let said = scratch.ends(umount, &["umount", words(&self.mnt)]);
        if !Path::new("/proc").join(self.pid().to_string()).exists() {
            self.pid = None;
        }
        said
    }

    /// Whether its daemon runs.
    pub fn is_mounted(&self) -> bool {
        self.pid.is_some()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    pub fn kill(&mut self) {
        if let Some(pid) = self.pid.take() {
            send(pid, Signal::SIGKILL);
        }
        // A dead mount is cleared; one that is gone already is none of our business.
        Command::new("umount").arg("-lq").arg(&self.mnt).output().ok();
    }

    pub fn tree(&self) -> Tree {
        let (mut found, mut folders) = (Tree::new(), vec![self.mnt.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder of the mount") {
                let path = entry.expect("listed").path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => {
                        let name = words(path.strip_prefix(&self.mnt).expect("below it")).to_owned();
                        found.insert(name, fs::read(&path).expect("a file of the mount"));
                    }
                }
            }
        }
        found
    }
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("process numbers are small")), signal).ok();
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill();
    }
}
