//! What `warm` and `evict` share: from paths to inodes, how far it is, and the daemon's side of both.

use super::control::{self, Ask, Conversation, Say};
use super::failure::Failure;
use super::progress::Progress;
use super::{mount_point, registry, size};
use skylog::format::ids::InodeNo;
use skylog::fuse::Unwritten;
use skylog::volume::{Copies, Volume};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How often it is said how far it is.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Asks the daemon of a mount to do something with what lies at these paths; the answer, where it was before and what came of it.
pub fn converse(
    dir: &Path,
    paths: &[PathBuf],
    what: &'static str,
    ask: impl FnOnce(Vec<u64>) -> Ask,
) -> Result<(Copies, Copies), Failure> {
    let dir = mount_point::canonical(dir)?;
    registry::socket_of(&dir)?;
    let inodes = paths.iter().map(|path| inode(&dir, path)).collect::<Result<_, _>>()?;
    let mut conversation = Conversation::with(&dir, &ask(inodes))?;
    let progress = Progress::bytes(what);
    let answer = loop {
        match conversation.next()? {
            Say::Progress { done, total, .. } => progress.at(done, total),
            Say::Copies { before, after } => break (before, after),
            other => return Err(Failure::failed(format_args!("the daemon answered {other:?}"))),
        }
    };
    progress.end();
    Ok(answer)
}

/// So many files, for people.
pub fn files(copies: &Copies) -> String {
    match copies.files {
        1 => "1 file".to_owned(),
        n => format!("{n} files"),
    }
}

fn inode(dir: &Path, path: &Path) -> Result<u64, Failure> {
    let shown = path.display();
    let found = path.canonicalize().and_then(|path| Ok((path.metadata()?, path)));
    let (found, path) = found.map_err(|e| Failure::failed(format_args!("{shown}: {e}")))?;
    let of_mount = dir.metadata().map_err(|e| Failure::failed(format_args!("{}: {e}", dir.display())))?;
    match path.starts_with(dir) && found.dev() == of_mount.dev() {
        true => Ok(found.ino()),
        false => Err(Failure::failed(format_args!("{shown} does not lie in the mount {}", dir.display()))),
    }
}

/// Brings copies here; what is to be said in the end.
pub fn warm(volume: &Volume, dir: &Path, stream: &UnixStream, inodes: &[u64]) -> Say {
    let inodes: Vec<InodeNo> = inodes.iter().copied().map(InodeNo).collect();
    let bring = || {
        let limit = limit(volume, dir)?;
        if let Some(why) = away(volume) {
            return Err(format!("nothing can be fetched while {why}; run it again when the store answers"));
        }
        let mut teller = Teller::new(stream);
        let before = volume.survey(&inodes, &mut |so_far| teller.at(0, so_far.bytes))?;
        let wanted = before.bytes - before.journal_bytes;
        if wanted > limit {
            let [wanted, limit] = [wanted, limit].map(size::show);
            return Err(format!(
                "that is {wanted} and the cache takes {limit} at most; name less, or mount with a larger --cache-size"
            ));
        }
        let after = volume.warm(&inodes, &mut |so_far| {
            teller.at(so_far.here_bytes + so_far.journal_bytes + so_far.no_room_bytes, before.bytes)
        })?;
        Ok(Say::Copies { before, after })
    };
    bring().unwrap_or_else(|why| Say::Failed { why })
}

/// Drops copies; what is to be said in the end.
pub fn evict(volume: &Volume, dir: &Path, unwritten: &Unwritten, stream: &UnixStream, inodes: &[u64]) -> Say {
    let inodes: Vec<InodeNo> = inodes.iter().copied().map(InodeNo).collect();
    let mut drop_pages = |ino| {
        let (tell, told) = mpsc::sync_channel(1);
        unwritten.pages_dropped(ino, move || tell.send(()).unwrap_or_default());
        // The mount may be gone meanwhile; then so are its pages.
        told.recv().unwrap_or_default();
    };
    let mut teller = Teller::new(stream);
    let dropped = limit(volume, dir).and_then(|_| {
        volume.evict(&inodes, &mut drop_pages, &mut |so_far| teller.at(so_far.freed_bytes, so_far.bytes))
    });
    match dropped {
        Ok(after) => Say::Copies { before: Copies::default(), after },
        Err(why) => Say::Failed { why },
    }
}

fn limit(volume: &Volume, dir: &Path) -> Result<u64, String> {
    volume.cache_limit().ok_or_else(|| {
        format!(
            "{} keeps no copies of its store, which is a directory; `skylog mount --cache-size SIZE` makes it keep some",
            dir.display()
        )
    })
}

fn away(volume: &Volume) -> Option<String> {
    Some(volume.status().store_state).filter(|state| state != "ok").map(|state| format!("the store is {state}"))
}

/// Says how far it is, not too often.
struct Teller<'a> {
    stream: &'a UnixStream,
    told: Option<Instant>,
}

impl<'a> Teller<'a> {
    fn new(stream: &'a UnixStream) -> Teller<'a> {
        Teller { stream, told: None }
    }

    fn at(&mut self, done: u64, total: u64) -> Result<(), String> {
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return Ok(());
        }
        self.told = Some(Instant::now());
        let say = Say::Progress { done, total, waiting: None };
        // Whoever interrupted the command does not want it done.
        control::answer(self.stream, &say).map_err(|_| "the command that asked for it has ended".to_owned())
    }
}
