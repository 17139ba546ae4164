//! The one who writes and removes cache files.

use super::state::{Doomed, RunKey, State};
use super::{CACHE, Cache, Class, Limits, name};
use crate::base::canary::{Canary, sync};
use crate::base::clock::Clock;
use crate::format::ids::Uuid;
use crate::media::{File, Media};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

/// The disk is filled by others too: its free room is looked at this often when nothing is written.
const LOOK: Duration = Duration::from_secs(1);
/// After an error of the disk nothing is tried for so long.
const REST: Duration = Duration::from_secs(1);

/// No file of ours is longer, bytes: more than the longest segment, and little enough for sums of very many.
const FILE_BYTES_MAX: u64 = 1 << 40;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something, and there may be more.
    Worked,
    /// Nothing; [`Cache::wait_for_work`].
    Idle,
}

/// Writes pending runs, evicts, and keeps the free minimum; one for each cache.
pub struct Keeper {
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    looked: Duration,
    rest_until: Duration,
}

impl Keeper {
    pub(super) fn new(cache: Arc<Cache>, clock: Arc<dyn Clock>, limits: Limits) -> Keeper {
        let looked = clock.elapsed();
        Keeper { cache, clock, limits, looked, rest_until: Duration::ZERO }
    }

    /// The cache it keeps.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// How much of the disk the cache may take.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Removes one file that must go, makes room for node files, looks at the disk when that is due, writes one run.
    pub fn step(&mut self) -> Progress {
        let resting = self.clock.elapsed() < self.rest_until;
        let removed = !resting && self.remove_one();
        if !resting {
            self.count_node_files();
        }
        if self.clock.elapsed() >= self.looked + LOOK {
            self.shrink();
        }
        if removed || self.write_one(resting) { Progress::Worked } else { Progress::Idle }
    }

    /// Evicts what is above the limit, or takes room that must stay free.
    pub(super) fn shrink(&mut self) {
        self.looked = self.clock.elapsed();
        if let Some(allowed) = self.allowed() {
            self.make_room(Class::Data, 0, allowed);
        }
    }

    /// They count once there is room for them; the least of what is in the way goes.
    fn count_node_files(&mut self) {
        let Some(room) = self.cache.state.lock().room_beside_node_files() else { return };
        self.make_room(Class::Data, 0, room);
        self.cache.state.lock().count_node_files();
    }

    /// Bytes that cache files may take now: what node files leave of the limit, but no more than leaves the minimum free. `None` if
    /// the disk does not say how much is free.
    fn allowed(&mut self) -> Option<u64> {
        match self.cache.media.space() {
            Ok(space) => {
                let mut state = self.cache.state.lock();
                let whole = state.used() + space.available;
                let allowed = state.share().min(whole.saturating_sub(self.limits.free_bytes_min));
                state.set_allowed(allowed);
                Some(allowed)
            }
            Err(e) => {
                self.failed(CACHE, &e);
                None
            }
        }
    }

    /// Evicts until `bytes` more are allowed. Never what is being read.
    fn make_room(&mut self, class: Class, bytes: u64, allowed: u64) -> bool {
        loop {
            let victim = {
                let mut state = self.cache.state.lock();
                if state.fits(bytes, allowed) {
                    return true;
                }
                state.evict(class, bytes, allowed)
            };
            let Some(victim) = victim else { return false };
            if !self.remove(victim) {
                return false;
            }
        }
    }

    fn remove_one(&mut self) -> bool {
        let doomed = self.cache.state.lock().next_doomed();
        doomed.is_some_and(|doomed| self.remove(doomed))
    }

    /// Removes a file; one that stays counts on, and is tried again.
    fn remove(&mut self, mut doomed: Doomed) -> bool {
        drop(doomed.open.take());
        let name = name::of(&doomed.run, doomed.class);
        match self.cache.media.remove(&name) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                self.failed(&name, &e);
                self.cache.state.lock().not_removed(doomed);
                false
            }
            _ => {
                self.cache.state.lock().removed(doomed.weight);
                true
            }
        }
    }

    fn write_one(&mut self, resting: bool) -> bool {
        let Some((run, class, len)) = self.cache.state.lock().next_pending() else { return false };
        let weight = super::state::weight(len);
        let allowed = if resting { None } else { self.allowed() };
        let has_room = allowed.is_some_and(|allowed| weight <= allowed && self.make_room(class, weight, allowed));
        if !has_room {
            let mut state = self.cache.state.lock();
            state.drop_run(&run);
            if allowed.is_some_and(|allowed| allowed < weight && allowed < state.share()) {
                let least = self.limits.free_bytes_min >> 20;
                state.error(format!("the disk has less than {least} MiB free, so nothing is kept"));
            }
            return true;
        }
        let Some(bytes) = self.cache.state.lock().begin(&run) else { return true };
        let doomed = match write(&*self.cache.media, &name::of(&run, class), &bytes) {
            Ok(file) => self.written(run, class, len, file),
            Err(e) => {
                self.failed(&name::of(&run, class), &e);
                Some(self.cache.state.lock().failed(run, class, len))
            }
        };
        doomed.is_none_or(|doomed| self.remove(doomed))
    }

    fn written(&self, run: RunKey, class: Class, len: u64, file: Arc<dyn File>) -> Option<Doomed> {
        let (doomed, _closed) = self.cache.state.lock().written(run, class, len, file);
        doomed
    }

    fn failed(&mut self, name: &str, error: &io::Error) {
        self.rest_until = self.clock.elapsed() + REST;
        self.cache.state.lock().error(format!("{name}: {error}"));
    }
}

/// Writes a file anew. It is not synced: what a crash leaves of it its readers verify.
fn write(media: &dyn Media, name: &str, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
    let file = match media.create(name) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            media.remove(name)?;
            media.create(name)?
        }
        made => made?,
    };
    file.write_at(bytes, 0)?;
    Ok(file)
}

/// Finds the files that earlier mounts of this filesystem left. Names and lengths are believed, nothing else.
pub(super) fn take_up(media: &dyn Media, filesystem: Uuid, state: &mut State) -> io::Result<()> {
    media.make_dir(CACHE)?;
    if !is_owner(media, filesystem) {
        return take_over(media, filesystem);
    }
    let (mut found, mut strange) = (Vec::new(), Vec::new());
    media.visit(CACHE, &mut |entry| match name::parse(entry.name) {
        Some((run, class)) if entry.bytes <= FILE_BYTES_MAX => found.push((entry.used, run, class, entry.bytes)),
        _ if entry.name != name::OWNER && name::is_cache_file(entry.name) => strange.push(entry.name.to_owned()),
        _ => {}
    })?;
    // The one that was used last comes last.
    found.sort_unstable_by_key(|(used, run, ..)| (*used, *run));
    found.into_iter().for_each(|(_, run, class, bytes)| state.adopt(run, class, bytes));
    strange.iter().try_for_each(|name| media.remove(&format!("{CACHE}/{name}")))
}

fn owner_file() -> String {
    format!("{CACHE}/{}", name::OWNER)
}

fn is_owner(media: &dyn Media, filesystem: Uuid) -> bool {
    let file = match media.open(&owner_file()) {
        Ok(file) => file,
        // Nobody's, or what cannot be read: it is made anew.
        Err(_) => return false,
    };
    let expected = filesystem.to_string();
    let mut found = vec![0; expected.len()];
    let readable = file.len().is_ok_and(|len| len == expected.len() as u64) && file.read_at(&mut found, 0).is_ok();
    readable && found == expected.as_bytes()
}

/// Empties the cache of another filesystem and takes it. That nothing is left is durable before the name on it changes.
fn take_over(media: &dyn Media, filesystem: Uuid) -> io::Result<()> {
    let mut theirs = Vec::new();
    media.visit(CACHE, &mut |entry| {
        if name::is_cache_file(entry.name) {
            theirs.push(entry.name.to_owned());
        }
    })?;
    theirs.iter().try_for_each(|name| media.remove(&format!("{CACHE}/{name}")))?;
    sync(Canary::CacheEmptiedSync, || media.sync_dir(CACHE))?;
    write(media, &owner_file(), filesystem.to_string().as_bytes())?.sync()?;
    sync(Canary::CacheOwnerDirSync, || media.sync_dir(CACHE))
}
