//! The daemon under a service manager: what it says on the socket of sd_notify(3).

use super::scratch::{Scratch, words};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Service {
    scratch: Scratch,
    daemon: Child,
    socket: UnixDatagram,
}

impl Service {
    fn start() -> Service {
        let scratch = Scratch::new();
        scratch.make();
        let path = scratch.root.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_skylog"));
        command.args(["mount", "--foreground", "-o", "journal_size=32MiB", "--", scratch.store(), words(&scratch.mnt)]);
        let daemon = command.env("NOTIFY_SOCKET", &path).stderr(Stdio::null()).spawn().unwrap();
        Service { scratch, daemon, socket }
    }

    /// What is said, up to and with the line `last`.
    fn until(&self, last: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while !lines.iter().any(|line| line == last) {
            let mut bytes = [0; 1024];
            let length = self.socket.recv(&mut bytes).unwrap_or_else(|e| panic!("no {last} after {lines:?}: {e}"));
            lines.extend(String::from_utf8_lossy(&bytes[..length]).lines().map(String::from));
        }
        lines
    }

    fn ended(&mut self) -> Option<i32> {
        self.daemon.wait().unwrap().code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

#[test]
fn a_service_is_ready_when_the_mount_answers_and_asks_for_time_while_it_drains() {
    let mut service = Service::start();
    let said = service.until("READY=1");
    let mnt = service.scratch.mnt.clone();
    assert!(fs::read_to_string("/proc/self/mountinfo").unwrap().contains(words(&mnt)), "it is mounted");
    assert!(!said.contains(&"STOPPING=1".to_owned()), "{said:?}");
    assert!(said.contains(&format!("STATUS=mounted on {}", mnt.display())), "{said:?}");
    fs::write(mnt.join("file"), vec![7; 3 << 20]).unwrap();
    // As ExecStop does.
    let stop = Command::new(env!("CARGO_BIN_EXE_skylog")).args(["umount", "--", words(&mnt)]).status().unwrap();
    assert!(stop.success());
    let said = service.until("STOPPING=1");
    assert!(said.iter().any(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("STATUS=shipping ")), "{said:?}");
    assert_eq!(service.ended(), Some(0));
}

#[test]
fn a_service_that_is_told_to_end_ships_first() {
    let mut service = Service::start();
    service.until("READY=1");
    let mnt = service.scratch.mnt.clone();
    fs::write(mnt.join("file"), "kept").unwrap();
    kill(Pid::from_raw(service.daemon.id().cast_signed()), Signal::SIGTERM).unwrap();
    let said = service.until("STOPPING=1");
    assert!(said.contains(&"STATUS=unmounted".to_owned()), "{said:?}");
    assert_eq!(service.ended(), Some(0));
    fs::remove_dir_all(service.scratch.root.join("store/state")).unwrap();
    service.scratch.mount();
    assert_eq!(fs::read(mnt.join("file")).unwrap(), b"kept");
}
