//! How commands talk to the daemon of a mount: one request and any number of answers, each a line of JSON, over a unix
//! socket that only the daemon's user may open.

use super::failure::Failure;
use super::registry::{self, Registration};
use serde::{Deserialize, Serialize};
use skylog::volume::Copies;
use std::io::{self, BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// What a command may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// The volume's status.
    Status,
    /// Everything that is counted.
    Metrics,
    /// Bring copies of what these inodes hold, and of what lies below them.
    Warm {
        /// Their numbers.
        inodes: Vec<u64>,
    },
    /// Drop the copies of what these inodes hold, and of what lies below them.
    Evict {
        /// Their numbers.
        inodes: Vec<u64>,
    },
    /// Make everything written so far durable.
    Sync,
    /// Change the sync policy of the running mount.
    Set {
        /// `always`, `everysec` or `none`.
        sync: String,
    },
    /// Change when an fsync returns.
    Durability {
        /// `local` or `store`.
        word: String,
    },
    /// Change at which age changes are shipped.
    ShipInterval {
        /// The age.
        seconds: u64,
    },
    /// Change what operations that add do when the journal is full.
    WhenFull {
        /// `wait` or `enospc`.
        word: String,
    },
    /// Change how much the files may take; what is left out stays.
    Limit {
        /// Most bytes; 0 takes the limit away.
        size: Option<u64>,
        /// Most inodes; 0 takes the limit away.
        inodes: Option<u64>,
        /// `enospc` or `edquot`.
        on_limit: Option<String>,
    },
    /// Unmount and end.
    Umount {
        /// Leave in the journal what is not yet in the store.
        now: bool,
    },
}

impl Ask {
    /// Whether it makes sense only where files are changed.
    pub fn is_for_a_writer(&self) -> bool {
        match self {
            Ask::Sync
            | Ask::Set { .. }
            | Ask::ShipInterval { .. }
            | Ask::WhenFull { .. }
            | Ask::Limit { .. }
            | Ask::Durability { .. } => true,
            Ask::Status | Ask::Metrics | Ask::Warm { .. } | Ask::Evict { .. } | Ask::Umount { .. } => false,
        }
    }
}

/// What the daemon says back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Say {
    /// A step is under way; `Done` or `Failed` follows.
    Progress {
        /// Bytes through.
        done: u64,
        /// Bytes in all.
        total: u64,
        /// What it waits for, if the store does not take anything now.
        waiting: Option<String>,
    },
    /// The unmount waits for somebody; `Done` or `Failed` follows.
    Waiting {
        /// One sentence: for whom, and what to run.
        why: String,
    },
    /// The status asked for.
    Status {
        /// The fields of the volume's status.
        status: serde_json::Value,
    },
    /// The counts asked for.
    Metrics {
        /// As monitoring reads them.
        text: String,
    },
    /// Copies were brought or dropped.
    Copies {
        /// What there was,
        before: Copies,
        /// and what there is, or came of it.
        after: Copies,
    },
    /// Done. After an unmount: what stays in the journal.
    Done {
        /// Bytes in the journal that are not in the store.
        unshipped_bytes: u64,
        /// Why they never will be, if another writer has taken over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fenced: Option<String>,
    },
    /// Not done.
    Failed {
        /// One sentence.
        why: String,
    },
}

/// The longest request, bytes: a million inodes to warm.
const REQUEST_BYTES_MAX: u64 = 16 << 20;

/// Takes one request from a connection.
pub fn receive(stream: &UnixStream) -> io::Result<Ask> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    read_request(stream)
}

/// Reads one request.
pub fn read_request(from: impl Read) -> io::Result<Ask> {
    let mut line = Vec::new();
    BufReader::new(from.take(REQUEST_BYTES_MAX)).read_until(b'\n', &mut line)?;
    if line.len() as u64 == REQUEST_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is too long"));
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Reads one answer.
pub fn read_answer(line: &[u8]) -> serde_json::Result<Say> {
    serde_json::from_slice(line)
}

/// Writes one answer.
pub fn answer(mut stream: &UnixStream, say: &Say) -> io::Result<()> {
    let mut line = serde_json::to_vec(say)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// A command's end of the conversation.
pub struct Conversation {
    lines: Lines<BufReader<UnixStream>>,
    registration: Registration,
}

impl Conversation {
    /// Asks the daemon of a mount point.
    pub fn with(dir: &Path, ask: &Ask) -> Result<Conversation, Failure> {
        let (socket, registration) = registry::socket_of(dir)?;
        Conversation::over(&socket, registration, ask)
    }

    /// Asks over a known socket.
    pub fn over(socket: &Path, registration: Registration, ask: &Ask) -> Result<Conversation, Failure> {
        let gone = |_| Failure::failed(gone(&registration));
        let stream = UnixStream::connect(socket).map_err(gone)?;
        let mut line = serde_json::to_vec(ask).expect("a request is plain data");
        line.push(b'\n');
        (&stream).write_all(&line).map_err(gone)?;
        Ok(Conversation { lines: BufReader::new(stream).lines(), registration })
    }

    /// The next answer. It fails when the daemon says that it failed, or ends without a word.
    pub fn next(&mut self) -> Result<Say, Failure> {
        let line = match self.lines.next() {
            Some(Ok(line)) => line,
            _ => return Err(Failure::failed(gone(&self.registration))),
        };
        match read_answer(line.as_bytes()) {
            Ok(Say::Failed { why }) => Err(Failure::failed(why)),
            Ok(say) => Ok(say),
            Err(e) => {
                Err(Failure::failed(format_args!("the daemon's answer makes no sense ({e}); is it another version?")))
            }
        }
    }

    /// Its state directory.
    pub fn state(&self) -> &Path {
        &self.registration.state
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.registration.pid
    }
}

fn gone(registration: &Registration) -> String {
    format!(
        "the daemon of {} is gone (process {}); `skylog umount {0}` clears the mount point, mounting again recovers everything synced",
        registration.dir.display(),
        registration.pid
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_survive_the_socket() {
        let (near, far) = UnixStream::pair().unwrap();
        (&near).write_all(b"{\"ask\":\"set\",\"sync\":\"always\"}\n").unwrap();
        assert_eq!(receive(&far).unwrap(), Ask::Set { sync: "always".into() });
        answer(&far, &Say::Done { unshipped_bytes: 7, fenced: None }).unwrap();
        drop(far);
        let line = BufReader::new(near).lines().next().unwrap().unwrap();
        assert_eq!(line, r#"{"say":"done","unshipped_bytes":7}"#);
    }

    #[test]
    fn a_request_without_an_end_is_refused() {
        let endless = io::repeat(b' ');
        assert_eq!(read_request(endless).unwrap_err().to_string(), "it is too long");
    }

    #[test]
    fn a_request_that_makes_no_sense_is_refused() {
        let (near, far) = UnixStream::pair().unwrap();
        (&near).write_all(b"{\"ask\":\"fly\"}\n").unwrap();
        assert!(receive(&far).is_err());
    }
}
