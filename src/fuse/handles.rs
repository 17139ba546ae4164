//! What is open on the mount of a follower, and which published state each of it reads.
//!
//! An open file or directory reads the state of its opening, so that a file read in many requests, or a listing, is one that was
//! there. It moves on to the newest state where nobody can tell: a file once its end was read, so that a log can be followed, a
//! directory when it is listed from its start again, both as long as nothing was read.
//!
//! A state that is read keeps store objects from being deleted, so it is given up some time after a newer one came: what is
//! still open then says ESTALE.
//!
//! Pages of the kernel's cache are another matter: all who have a file open share them, and nobody says whether they are for a
//! mapping or for `sendfile`. As long as they are asked for one after the other from the file's start, they are of the state of the
//! opening, as those of `sendfile` should be. All else is taken for a mapping, which shows the newest state.

use crate::base::clock::Time;
use crate::format::ids::InodeNo;
use crate::map::Seen;
use fuser::{Errno, FileHandle};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How long an open file may read a state after a newer one came.
const OLD_MAX: Duration = Duration::from_secs(600);
/// The kernel asks so far ahead, in any order, bytes.
const AHEAD_MAX: u64 = 8 << 20;
/// Whoever reads a file through pages from its start pauses no longer.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// All that is open.
#[derive(Default)]
pub struct Handles(Mutex<Table>);

#[derive(Default)]
struct Table {
    last: u64,
    open: HashMap<u64, Handle>,
    /// What the pages of open files are of that have any; nothing if not all of them are of one known version.
    paged: HashMap<InodeNo, Option<Version>>,
}

struct Handle {
    ino: InodeNo,
    /// Nothing when it was given up.
    seen: Option<Arc<Seen>>,
    /// Since when there may be a newer one.
    since: Duration,
    /// Something of this state was read.
    is_read: bool,
    /// The end of the file was read.
    at_end: bool,
    pages: Pages,
}

/// What the kernel asked for to keep it.
enum Pages {
    Nothing,
    /// Everything up to here, one piece after the other.
    Sequence {
        end: u64,
        last: Duration,
    },
    Mapped,
}

/// What tells contents of a file from others: when they changed, and how much there is.
pub type Version = (Time, Time, u64, u64);

/// What a request reads.
pub struct Reading {
    pub seen: Arc<Seen>,
    /// The file may have been removed since its end was read.
    pub may_be_gone: bool,
}

impl Handle {
    fn take(&mut self, newest: &Arc<Seen>, now: Duration) {
        self.seen = Some(newest.clone());
        self.since = now;
        self.is_read = false;
    }

    /// Whether nobody can tell when it reads another state.
    fn may_move(&self) -> bool {
        self.at_end || !self.is_read
    }

    fn state(&mut self) -> Result<Arc<Seen>, Errno> {
        self.is_read = true;
        self.seen.clone().ok_or(Errno::ESTALE)
    }

    fn age(&mut self, newest: &Arc<Seen>, now: Duration) {
        let Some(seen) = &self.seen else { return };
        if Arc::ptr_eq(seen, newest) {
            self.since = now;
        } else if seen.is_lost() || now.saturating_sub(self.since) >= OLD_MAX {
            match self.may_move() {
                true => self.take(newest, now),
                false => self.seen = None,
            }
        }
        if matches!(self.pages, Pages::Sequence { last, .. } if now.saturating_sub(last) >= PAUSE_MAX) {
            self.pages = Pages::Mapped;
        }
    }
}

impl Handles {
    /// Something was opened that reads this state.
    pub fn open(&self, ino: InodeNo, seen: Arc<Seen>, now: Duration) -> FileHandle {
        let mut table = self.0.lock();
        table.last += 1;
        let handle = Handle { ino, seen: Some(seen), since: now, is_read: false, at_end: false, pages: Pages::Nothing };
        let number = table.last;
        table.open.insert(number, handle);
        FileHandle(number)
    }

    /// It was closed.
    pub fn close(&self, handle: FileHandle) {
        self.0.lock().open.remove(&handle.0);
    }

    fn with<T>(&self, handle: FileHandle, act: impl FnOnce(&mut Handle) -> Result<T, Errno>) -> Result<T, Errno> {
        self.0.lock().open.get_mut(&handle.0).map_or(Err(Errno::EBADF), act)
    }

    /// What a reader of the file reads.
    pub fn read(&self, handle: FileHandle, newest: &Arc<Seen>, now: Duration) -> Result<Reading, Errno> {
        self.with(handle, |handle| {
            // When the newest is lost there will be another one soon.
            let may_be_gone = handle.at_end && !newest.is_lost();
            if may_be_gone {
                handle.at_end = false;
                handle.take(newest, now);
            }
            Ok(Reading { seen: handle.state()?, may_be_gone })
        })
    }

    /// A reader of the file has heard that it ends here.
    pub fn ended(&self, handle: FileHandle) {
        if let Some(handle) = self.0.lock().open.get_mut(&handle.0) {
            handle.at_end = true;
        }
    }

    /// What looks into the file without reading it, looks into.
    pub fn state(&self, handle: FileHandle) -> Result<Arc<Seen>, Errno> {
        self.with(handle, |handle| handle.seen.clone().ok_or(Errno::ESTALE))
    }

    /// What pages of the file are to show.
    pub fn pages(
        &self,
        handle: FileHandle,
        offset: u64,
        bytes: u32,
        newest: &Arc<Seen>,
        now: Duration,
    ) -> Result<Arc<Seen>, Errno> {
        let mut table = self.0.lock();
        let Table { open, paged, .. } = &mut *table;
        let handle = open.get_mut(&handle.0).ok_or(Errno::EBADF)?;
        let version = paged.entry(handle.ino).or_default();
        let end = match handle.pages {
            Pages::Nothing if offset <= AHEAD_MAX => Some(0),
            Pages::Sequence { end, .. } if offset <= end.saturating_add(AHEAD_MAX) => Some(end),
            _ => None,
        };
        let Some(end) = end.filter(|_| handle.seen.is_some()) else {
            handle.pages = Pages::Mapped;
            return Ok(newest.clone());
        };
        *version = None;
        handle.pages = Pages::Sequence { end: end.max(offset.saturating_add(u64::from(bytes))), last: now };
        handle.state()
    }

    /// What a listing of the directory reads that goes on after this cookie.
    pub fn list(&self, handle: FileHandle, after: u64, newest: &Arc<Seen>, now: Duration) -> Result<Arc<Seen>, Errno> {
        self.with(handle, |handle| {
            if after == 0 {
                handle.take(newest, now);
            }
            handle.state()
        })
    }

    /// The newest state in which somebody has it open.
    pub fn of(&self, ino: InodeNo) -> Option<Arc<Seen>> {
        let table = self.0.lock();
        let seen = table.open.values().filter(|handle| handle.ino == ino).filter_map(|handle| handle.seen.as_ref());
        seen.max_by_key(|seen| seen.position).cloned()
    }

    /// Time has passed: gives up what was read for too long. Returns the files whose pages are for mappings, as it seems.
    pub fn age(&self, newest: &Arc<Seen>, now: Duration) -> HashSet<InodeNo> {
        let mut table = self.0.lock();
        table.open.values_mut().for_each(|handle| handle.age(newest, now));
        let Table { open, paged, .. } = &mut *table;
        let of = |is: fn(&Pages) -> bool| -> HashSet<InodeNo> {
            open.values().filter(|handle| is(&handle.pages)).map(|handle| handle.ino).collect()
        };
        let (all, mapped) = (of(|_| true), of(|pages| matches!(pages, Pages::Mapped)));
        let in_sequence = of(|pages| matches!(pages, Pages::Sequence { .. }));
        paged.retain(|ino, _| all.contains(ino));
        let looked_at = paged.keys().filter(|ino| mapped.contains(ino) || !in_sequence.contains(ino));
        looked_at.copied().collect()
    }

    /// Whether the pages of a file may be of another version than this one; from now on they are of this.
    pub fn has_changed(&self, ino: InodeNo, version: Version) -> bool {
        let mut table = self.0.lock();
        table.paged.get_mut(&ino).is_some_and(|paged| paged.replace(version) != Some(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ids::Lsn;
    use crate::format::publication::Position;
    use crate::format::usage::UsageLimit;
    use crate::map::Term;

    const FILE: InodeNo = InodeNo(7);
    const PIECE: u32 = 1 << 20;

    fn state(number: u64) -> Arc<Seen> {
        Arc::new(Seen {
            layers: Vec::new(),
            root: None,
            objects: Default::default(),
            last: Lsn::ZERO,
            position: Position { generation: 1, number },
            checkpoint: number,
            wall: 0,
            usage: None,
            usage_limit: UsageLimit::default(),
            term: Arc::new(Term::new(|| true)),
        })
    }

    fn number(found: Result<Arc<Seen>, Errno>) -> Result<u64, i32> {
        found.map(|seen| seen.position.number).map_err(|errno| errno.code())
    }

    fn read(handles: &Handles, handle: FileHandle, newest: &Arc<Seen>, now: Duration) -> Result<u64, i32> {
        number(handles.read(handle, newest, now).map(|reading| reading.seen))
    }

    #[test]
    fn a_file_is_read_as_it_was_opened_until_its_end() {
        let (handles, now, first, second) = (Handles::default(), Duration::ZERO, state(1), state(2));
        let file = handles.open(FILE, first, now);
        assert_eq!(read(&handles, file, &second, now), Ok(1));
        assert_eq!(read(&handles, file, &second, now), Ok(1));
        handles.ended(file);
        let again = handles.read(file, &second, now).expect("it is open");
        assert_eq!((again.seen.position.number, again.may_be_gone), (2, true));
        assert!(!handles.read(file, &second, now).expect("it is open").may_be_gone, "it was there then");
        assert_eq!(handles.of(FILE).map(|seen| seen.position.number), Some(2));
        handles.close(file);
        assert_eq!(read(&handles, file, &second, now), Err(libc::EBADF));
        assert!(handles.of(FILE).is_none());
    }

    #[test]
    fn a_listing_is_of_one_state_and_begins_with_the_newest() {
        let (handles, now, first, second) = (Handles::default(), Duration::ZERO, state(1), state(2));
        let dir = handles.open(FILE, first.clone(), now);
        let list = |after, newest: &Arc<Seen>| number(handles.list(dir, after, newest, now));
        assert_eq!((list(0, &first), list(30, &second), list(60, &second)), (Ok(1), Ok(1), Ok(1)));
        assert_eq!((list(0, &second), list(30, &second)), (Ok(2), Ok(2)), "from its start");
    }

    #[test]
    fn what_is_old_is_given_up_unless_nobody_can_tell() {
        let (handles, begin, first, second) = (Handles::default(), Duration::ZERO, state(1), state(2));
        let [half, ended, unread] = [(); 3].map(|()| handles.open(FILE, first.clone(), begin));
        for file in [half, ended] {
            assert_eq!(read(&handles, file, &first, begin), Ok(1));
        }
        handles.ended(ended);
        let long = begin + 3 * OLD_MAX;
        handles.age(&first, long);
        assert_eq!(read(&handles, half, &first, long), Ok(1), "nothing newer came");
        handles.age(&second, long + OLD_MAX / 2);
        assert_eq!(number(handles.state(unread)), Ok(1));
        let longer = long + OLD_MAX;
        handles.age(&second, longer);
        let third = state(3);
        assert_eq!(read(&handles, half, &third, longer), Err(libc::ESTALE));
        assert_eq!(read(&handles, ended, &third, longer), Ok(3));
        assert_eq!(read(&handles, unread, &third, longer), Ok(2));
        assert_eq!(Arc::strong_count(&first), 1, "and it is held no more");
    }

    #[test]
    fn a_lost_state_is_given_up_at_once() {
        let (handles, now, first, second) = (Handles::default(), Duration::ZERO, state(1), state(2));
        let [half, unread] = [(); 2].map(|()| handles.open(FILE, first.clone(), now));
        assert_eq!(read(&handles, half, &first, now), Ok(1));
        first.term.end();
        handles.age(&second, now);
        assert_eq!(
            (read(&handles, half, &second, now), read(&handles, unread, &second, now)),
            (Err(libc::ESTALE), Ok(2))
        );
    }

    #[test]
    fn who_waits_at_the_end_goes_on_under_another_lease() {
        let (handles, now, first, third) = (Handles::default(), Duration::ZERO, state(1), state(3));
        let file = handles.open(FILE, first.clone(), now);
        assert_eq!(read(&handles, file, &first, now), Ok(1));
        handles.ended(file);
        let lost = state(2);
        lost.term.end();
        for _ in 0..2 {
            assert!(!handles.read(file, &lost, now).expect("it is open").may_be_gone);
            handles.age(&lost, now);
        }
        assert_eq!(read(&handles, file, &third, now), Ok(3));
    }

    #[test]
    fn pages_in_sequence_are_of_the_opening_and_others_of_the_newest_state() {
        let (handles, now, first, second) = (Handles::default(), Duration::ZERO, state(1), state(2));
        let pages = |file, offset, now| number(handles.pages(file, offset, PIECE, &second, now));
        let [sent, mapped, slow] = [(); 3].map(|()| handles.open(FILE, first.clone(), now));
        for piece in 0..100 {
            // Two are on their way at a time, and either may come first.
            assert_eq!(pages(sent, (piece ^ 1) * u64::from(PIECE), now), Ok(1));
        }
        assert!(handles.age(&second, now).is_empty());
        assert_eq!(pages(mapped, 1 << 40, now), Ok(2));
        assert_eq!(pages(mapped, 0, now), Ok(2), "and it stays mapped");
        assert_eq!(handles.age(&second, now), HashSet::from([FILE]));
        assert_eq!(pages(slow, 0, now), Ok(1));
        handles.age(&second, now + PAUSE_MAX);
        assert_eq!(pages(slow, u64::from(PIECE), now), Ok(2));
    }

    #[test]
    fn a_change_of_a_mapped_file_is_seen_once() {
        let (handles, now, newest) = (Handles::default(), Duration::ZERO, state(1));
        let file = handles.open(FILE, newest.clone(), now);
        handles.pages(file, 1 << 40, PIECE, &newest, now).expect("it is open");
        handles.age(&newest, now);
        let version = |size| (Time::default(), Time::default(), size, 0);
        assert!(handles.has_changed(FILE, version(1)), "nobody knows what was shown before");
        assert!(!handles.has_changed(FILE, version(1)) && handles.has_changed(FILE, version(2)));
        handles.close(file);
        handles.age(&newest, now);
        assert!(!handles.has_changed(FILE, version(3)), "it was forgotten with its last opening");
    }

    #[test]
    fn pages_of_an_old_state_that_others_may_have_mapped_are_dropped_after_the_sequence() {
        let (handles, now, first, second) = (Handles::default(), Duration::ZERO, state(1), state(2));
        let [sent, mapped] = [(); 2].map(|()| handles.open(FILE, first.clone(), now));
        let version = (Time::default(), Time::default(), 1, 0);
        for (file, begin) in [(sent, now), (mapped, now + PAUSE_MAX)] {
            assert_eq!(number(handles.pages(file, 0, PIECE, &second, begin)), Ok(1));
            let after = begin + PAUSE_MAX;
            assert_eq!(handles.age(&second, after), HashSet::from([FILE]));
            assert!(handles.has_changed(FILE, version) && !handles.has_changed(FILE, version));
        }
        handles.close(sent);
        assert_eq!(number(handles.pages(mapped, 0, PIECE, &second, now)), Ok(2));
        assert!(!handles.has_changed(FILE, version), "that is what it shows");
    }
}
