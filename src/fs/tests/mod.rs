//! The filesystem core on a map in memory, one operation at a time. Random histories are in `tests/fs_model.rs`.

mod damage;
mod files;
mod names;
mod orphans;
mod renames;

use super::*;
use crate::format::batch::TreeId;
use crate::format::ids::InodeNo;
use crate::format::key::{self, Key};
use crate::map::db::Room;
use bytes::Bytes;

const ROOT: InodeNo = InodeNo::ROOT;

struct Fixture {
    db: Arc<Db>,
    fs: Fs,
}

impl Fixture {
    /// An empty root directory.
    fn new() -> Fixture {
        let (db, _) = crate::rig::bare();
        let fixture = Fixture { fs: Fixture::fs_over(&db), db };
        fixture.put(key::inode(ROOT), root_inode(Time::default(), 0o755, 0, 0).encode());
        fixture
    }

    fn fs_over(db: &Arc<Db>) -> Fs {
        let space = Box::new(|| DiskSpace { total: 8 << 20, free: 4 << 20, available: 3 << 20 });
        Fs::new(Arc::clone(db), Options { write_bytes_max: 1 << 20, space })
    }

    /// What is left after the daemon died and came back.
    fn crashed(self) -> Fixture {
        Fixture { fs: Fixture::fs_over(&self.db), db: self.db }
    }

    fn put(&self, key: Bytes, value: Bytes) {
        let pins = Pins::default();
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
        let (written, _) = self.fs.write(&root(), ino, offset, data).expect("written");
        assert_eq!(written as usize, data.len());
    }

    fn read(&self, ino: InodeNo, offset: u64, len: u32) -> Vec<u8> {
        self.fs.read(&root(), ino, offset, len).expect("read")
    }

    fn truncate(&self, ino: InodeNo, size: u64) {
        self.fs.setattr(&root(), ino, SetAttr { size: Some(size), ..SetAttr::default() }).expect("truncated");
    }

    fn names(&self, dir: InodeNo) -> Vec<String> {
        let entries = self.fs.readdir(&root(), dir, 0, usize::MAX).expect("listed");
        entries.iter().skip(2).map(|entry| text(&entry.name)).collect()
    }
}

fn root() -> Cx {
    Cx::default()
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
    let stat = Fixture::new().fs.statfs();
    assert_eq!((stat.block_size, stat.blocks, stat.blocks_free, stat.blocks_available), (4096, 2048, 1024, 768));
    assert!(stat.files_free > 1 << 32 && stat.name_max == 255);
}
