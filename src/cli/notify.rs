//! What the daemon tells the service manager that started it, by the protocol of sd_notify(3): datagrams of lines `NAME=value` to
//! the socket that `$NOTIFY_SOCKET` names. Without one nothing is said.

use super::size;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// While bytes go through, the manager is asked for this much more time,
const PATIENCE: Duration = Duration::from_secs(60);
/// once in this time.
const PAUSE: Duration = Duration::from_secs(1);

/// The mount answers.
pub fn ready(status: &str) {
    say(&format!("READY=1\nSTATUS={status}"));
}

/// The end has begun.
pub fn stopping(status: &str) {
    say(&format!("STOPPING=1\nSTATUS={status}"));
}

/// Something long is under way. The manager's patience is stretched only as long as there is progress: a store that is away
/// must not hold up the end of the system, and the journal keeps everything.
pub struct Effort {
    what: &'static str,
    done: u64,
    said: Option<Instant>,
}

impl Effort {
    /// `what` is "replaying" or "shipping".
    pub fn new(what: &'static str) -> Effort {
        Effort { what, done: 0, said: None }
    }

    /// `done` of `total` bytes are through.
    pub fn at(&mut self, done: u64, total: u64) {
        let due = self.said.is_none_or(|said| said.elapsed() >= PAUSE);
        if due && (done > self.done || self.said.is_none()) {
            (self.done, self.said) = (done, Some(Instant::now()));
            let (done, total) = (size::show(done), size::show(total));
            say(&format!("STATUS={} {done} of {total}\nEXTEND_TIMEOUT_USEC={}", self.what, PATIENCE.as_micros()));
        }
    }
}

fn say(lines: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(e) = send(&socket, lines) {
        log::warn!("the service manager is not told how it goes: {e}");
    }
}

fn send(socket: &OsStr, lines: &str) -> io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(lines.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let named = UnixDatagram::bind(&path).unwrap();
        let name = format!("skylog-test-{}", std::process::id());
        let abstracted = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(named, path.into_os_string()), (abstracted, format!("@{name}").into())] {
            send(&address, "READY=1").unwrap();
            let mut said = [0; 64];
            let bytes = socket.recv(&mut said).unwrap();
            assert_eq!(&said[..bytes], b"READY=1");
        }
    }
}
