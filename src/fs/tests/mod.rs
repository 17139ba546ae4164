//! The filesystem core on a map in memory, one operation at a time. Random histories are in `tests/fs_model.rs`.

mod acls;
mod atimes;
mod damage;
mod exchanges;
mod files;
mod limits;
mod lost;
mod names;
mod orphans;
mod privileges;
mod ranges;
mod renames;
mod waits;
mod xattrs;

use super::*;
use crate::base::clock::SimClock;
use crate::base::random::SeededRandom;
use crate::format::batch::TreeId;
use crate::format::ids::InodeNo;
use crate::format::ids::{Lsn, Uuid};
use crate::format::inode::Extent;
use crate::format::key::{self, Key};
use crate::format::manifest::Manifest;
use crate::format::usage::{Usage, UsageLimit};
use crate::journal::{Config, JournalError, ManifestStore, Progress, Writer, open, replay};
use crate::locate::{CacheBytes, Locate};
use crate::map::{Limits, NodeCache, Room, Start, Wait};
use crate::media::Media;
use crate::media::sim::{CallLog, SimDisk};
use crate::store::sim::SimStore;
use bytes::Bytes;
use parking_lot::Mutex;

const ROOT: InodeNo = InodeNo::ROOT;

/// Small journals are made fast.
const SEGMENT_BYTES: u32 = 2 << 20;
/// Together with what else is in the batch a quarter of a segment.
const WRITE_BYTES_MAX: usize = 256 << 10;

struct Fixture {
    db: Arc<Db>,
    fs: Fs,
    writer: Mutex<Writer>,
}

impl Fixture {
    /// An empty root directory.
    fn new() -> Fixture {
        Fixture::with_queue(1 << 30)
    }

    /// An empty root directory over a journal of the smallest segments.
    fn with_small_segments() -> Fixture {
        Fixture::over(open_db(1 << 30, 64 << 10))
    }

    /// An empty root directory over a journal that queues no more than this many bytes unwritten.
    fn with_queue(queue_bytes_max: u64) -> Fixture {
        Fixture::over(open_db(queue_bytes_max, SEGMENT_BYTES))
    }

    fn over((db, writer): (Arc<Db>, Writer)) -> Fixture {
        let fixture = Fixture { fs: Fixture::fs_over(&db), db, writer: Mutex::new(writer) };
        fixture.put(key::inode(ROOT), root_inode(Time::default(), 0o755, 0, 0).encode());
        fixture.put(key::usage(), Usage::EMPTY.encode());
        fixture
    }

    fn fs_over(db: &Arc<Db>) -> Fs {
        let space = Box::new(|| DiskSpace { total: 8 << 20, free: 4 << 20, available: 3 << 20 });
        Fs::new(Arc::clone(db), Options { write_bytes_max: WRITE_BYTES_MAX, space })
    }

    /// Lets the journal's writer do what is due.
    fn settle(&self) {
        while self.writer.lock().step() == Progress::Worked {}
    }

    /// What is left after the daemon died and came back.
    fn crashed(self) -> Fixture {
        Fixture { fs: Fixture::fs_over(&self.db), ..self }
    }

    fn put(&self, key: Bytes, value: Bytes) {
        let pins = Pins::default();
        self.settle();
        let mut tx = self.db.begin(&pins);
        tx.put(TreeId::Files, key, value);
        tx.commit(Room::Ordinary).expect("committed");
    }

    fn rows(&self) -> Vec<(Bytes, Bytes)> {
        let pins = Pins::default();
        self.db.begin(&pins).scan(TreeId::Files, &[], &[0xff; 9], usize::MAX).expect("nothing to wait for")
    }

    fn keys_of(&self, ino: InodeNo) -> Vec<Key> {
        let (from, to) = key::all_of(ino);
        let rows = self.rows().into_iter().filter(|(key, _)| (&from..&to).contains(&key));
        rows.map(|(key, _)| Key::decode(&key).expect("a key")).collect()
    }

    /// The number of orphan marks.
    fn orphans(&self) -> usize {
        let (from, to) = key::orphans();
        self.rows().iter().filter(|(key, _)| (&from..&to).contains(&key)).count()
    }

    /// A new file that nothing uses.
    fn file(&self, name: &str) -> InodeNo {
        self.settle();
        self.forget(self.fs.mknod(&root(), ROOT, name.as_bytes(), 0o644, 0).expect("made").0)
    }

    /// A new directory that nothing uses.
    fn dir(&self, parent: InodeNo, name: &str) -> InodeNo {
        self.forget(self.fs.mkdir(&root(), parent, name.as_bytes(), 0o755).expect("made").0)
    }

    fn forget(&self, attr: Attr) -> InodeNo {
        self.fs.forget(&root(), attr.ino, 1).expect("forgotten");
        attr.ino
    }

    /// Looks a name up without keeping it in use.
    fn find(&self, parent: InodeNo, name: &str) -> Option<Attr> {
        let found = self.fs.lookup(&root(), parent, name.as_bytes()).expect("looked up");
        if let Some(attr) = found {
            self.forget(attr);
        }
        found
    }

    fn attr(&self, ino: InodeNo) -> Attr {
        self.fs.getattr(&root(), ino).expect("it exists")
    }

    fn write(&self, ino: InodeNo, offset: u64, data: &[u8]) {
        self.settle();
        let (written, _) = self.fs.write(&root(), ino, offset, data).expect("written");
        assert_eq!(written as usize, data.len());
    }

    fn read(&self, ino: InodeNo, offset: u64, len: u32) -> Vec<u8> {
        let mut cx = root();
        loop {
            match self.fs.read(&cx, ino, offset, len) {
                Ok(data) => return data,
                Err(Stop::Wait(Wait::Objects(ids))) => {
                    for id in ids {
                        cx.pins.pin_object(id, self.db.locate().fetch(&id).expect("the journal has it"));
                    }
                }
                Err(stop) => panic!("read: {stop:?}"),
            }
        }
    }

    fn truncate(&self, ino: InodeNo, size: u64) {
        self.fs.setattr(&root(), ino, SetAttr { size: Some(size), ..SetAttr::default() }).expect("truncated");
    }

    /// Sets permission bits.
    fn chmod(&self, ino: InodeNo, mode: u32) {
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        self.fs.setattr(&root(), ino, set).expect("changed");
    }

    /// Permission bits.
    fn mode(&self, ino: InodeNo) -> u32 {
        self.attr(ino).mode & 0o7777
    }

    fn set_xattr(&self, ino: InodeNo, name: &str, value: &[u8]) {
        self.fs.set_xattr(&root(), ino, name.as_bytes(), value, 0).expect("set");
    }

    /// The value of an attribute, if it is there.
    fn xattr(&self, ino: InodeNo, name: &str) -> Option<Bytes> {
        match self.fs.get_xattr(&root(), ino, name.as_bytes()) {
            Ok(value) => Some(value),
            Err(Stop::Error(Error::NoSuchXattr)) => None,
            Err(stop) => panic!("{name} of {ino}: {stop:?}"),
        }
    }

    fn names(&self, dir: InodeNo) -> Vec<String> {
        let entries = self.fs.readdir(&root(), dir, 0, usize::MAX).expect("listed");
        entries.iter().skip(2).map(|entry| text(&entry.name)).collect()
    }
}

/// Empty maps over a journal on a simulated disk.
fn open_db(queue_bytes_max: u64, segment_bytes: u32) -> (Arc<Db>, Writer) {
    open_db_from(queue_bytes_max, segment_bytes, Start { usage: Some(Usage::EMPTY), ..Start::default() })
}

fn open_db_from(queue_bytes_max: u64, segment_bytes: u32, start: Start) -> (Arc<Db>, Writer) {
    let log = CallLog::new();
    open_db_on(Arc::new(SimDisk::new(&log)), Arc::default(), queue_bytes_max, segment_bytes, start)
}

fn open_db_on(
    disk: Arc<SimDisk>,
    clock: Arc<SimClock>,
    queue_bytes_max: u64,
    segment_bytes: u32,
    start: Start,
) -> (Arc<Db>, Writer) {
    let log = Arc::clone(disk.log());
    let media: Arc<dyn Media> = disk;
    let manifest = Manifest::new(Uuid(1), Uuid(2), 1, 1);
    let manifest = ManifestStore::create(Arc::clone(&media), manifest).expect("created");
    let replayed =
        replay(media.clone(), &manifest.current(), Lsn::ZERO, &mut |_, _| (), &mut |_| Ok::<_, JournalError>(()))
            .expect("nothing yet");
    let config = Config { segment_bytes, journal_bytes: 1 << 30, queue_bytes_max, reserve_bytes: 1 << 20 };
    let random = Arc::new(SeededRandom::new(1));
    let (journal, writer) = open(media, clock, random, manifest, replayed, config).expect("opened");
    let cache = CacheBytes { data: 1 << 20, indexes: 1 << 20 };
    let locate = Arc::new(Locate::new(Some(Arc::clone(&journal)), Arc::new(SimStore::new(&log)), cache, None));
    let limits = Limits { overlay_bytes_max: 1 << 30, inode_step: 1000 };
    let nodes = Arc::new(NodeCache::new(1 << 20));
    (Arc::new(Db::new(1, start, journal, locate, nodes, limits)), writer)
}

fn root() -> Cx {
    Cx { caller: Caller::PRIVILEGED, ..Cx::default() }
}

fn user() -> Cx {
    Cx { uid: 1000, gid: 100, ..Cx::default() }
}

fn text(name: &[u8]) -> String {
    String::from_utf8(name.to_vec()).expect("test names are text")
}

fn errno<T>(result: Result<T, Stop>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(Stop::Error(error)) => error.errno(),
        Err(Stop::Wait(wait)) => panic!("nothing is waited for, but {wait:?}"),
    }
}

#[test]
fn statfs_reports_the_space_it_is_given_and_many_inodes() {
    let stat = Fixture::new().fs.statfs(&root()).expect("told");
    assert_eq!((stat.block_size, stat.blocks, stat.blocks_free, stat.blocks_available), (4096, 2048, 1024, 768));
    assert!(stat.files_free > 1 << 32 && stat.name_max == 255);
}
