//! Filesystems that earlier versions made stay readable and writable. Each folder of `tests/older/` is the store of one, as that
//! version left it after an unmount:
//!
//! | folder | made before |
//! |---|---|
//! | `uncounted` | usage was counted, and inodes knew of extended attributes |

use skylog::base::clock::SimClock;
use skylog::check::{Depth, check};
use skylog::format::ids::InodeNo;
use skylog::fs::{Error, SetLimit};
use skylog::media::Media;
use skylog::media::sim::{CallLog, SimDisk};
use skylog::rig::{Rig, small};
use skylog::store::Store;
use skylog::store::sim::SimStore;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Puts all files below `dir` into the store, by their names below `root`.
fn put_all(store: &SimStore, root: &Path, dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("the folder is there") {
        let path = entry.expect("a name").path();
        if path.is_dir() {
            put_all(store, root, &path);
        } else {
            let name = path.strip_prefix(root).expect("below the root").to_str().expect("text");
            store.put(name, std::fs::read(&path).expect("read").into()).expect("put");
        }
    }
}

fn older(folder: &str) -> SimStore {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/older").join(folder);
    let store = SimStore::new(&CallLog::new());
    put_all(&store, &root, &root);
    store
}

/// Mounted on a machine that has nothing of it.
fn mounted(store: &SimStore) -> Rig {
    let log = CallLog::new();
    let store = SimStore::from_image(&store.image(), &log);
    Rig::mount(log.clone(), SimDisk::new(&log), store, Arc::new(SimClock::default()), 1, &small()).expect("mounts")
}

fn assert_clean(rig: &Rig, when: &str) {
    let log = CallLog::new();
    let store: Arc<dyn Store> = Arc::new(SimStore::from_image(&rig.store.image(), &log));
    let media: Arc<dyn Media> = Arc::new(SimDisk::from_image(&rig.disk.image(), &log));
    let report = check(&store, Some(media), Depth::Data, &mut |_, _, _| {});
    assert!(report.is_clean(), "{when}: {:?}", report.problems);
}

fn lookup(rig: &mut Rig, dir: InodeNo, name: &str) -> InodeNo {
    rig.run(|fs, cx| fs.lookup(cx, dir, name.as_bytes())).expect("looked up").expect("it is there").ino
}

/// The contents that the earlier version wrote.
fn assert_readable(rig: &mut Rig) -> InodeNo {
    let d = lookup(rig, InodeNo::ROOT, "d");
    let (tiny, numbers) = (lookup(rig, d, "tiny"), lookup(rig, d, "numbers"));
    let read = |rig: &mut Rig, ino| rig.run(|fs, cx| fs.read(cx, ino, 0, 1 << 16)).expect("read");
    assert_eq!(read(rig, tiny), b"a tiny file\n");
    let expected: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(read(rig, numbers), expected.as_bytes());
    assert_eq!(lookup(rig, InodeNo::ROOT, "link"), tiny);
    let symlink = lookup(rig, InodeNo::ROOT, "symlink");
    assert_eq!(rig.run(|fs, cx| fs.readlink(cx, symlink)).expect("read")[..], b"d/tiny"[..]);
    d
}

#[test]
fn a_filesystem_that_does_not_count_what_it_holds_is_read_and_written_and_takes_no_limit() {
    let mut rig = mounted(&older("uncounted"));
    assert_eq!(rig.mounted.db.usage().0, None);
    let d = assert_readable(&mut rig);
    let (attr, _) = rig.run(|fs, cx| fs.create(cx, d, b"new", 0o644)).expect("created");
    rig.run(|fs, cx| fs.write(cx, attr.ino, 0, &[7; 5000])).expect("written");
    rig.run(|fs, cx| fs.set_xattr(cx, attr.ino, b"user.x", b"value", 0)).expect("set");
    let limit = SetLimit { bytes: Some(1 << 20), ..SetLimit::default() };
    assert_eq!(rig.run(|fs, cx| fs.set_limit(cx, limit)).expect_err("refused"), Error::NotCounted);
    rig.drain();
    assert_clean(&rig, "written to");
    let mut moved = mounted(&rig.store);
    assert_readable(&mut moved);
    assert_eq!(moved.run(|fs, cx| fs.get_xattr(cx, attr.ino, b"user.x")).expect("kept"), "value");
    assert_eq!(moved.run(|fs, cx| fs.read(cx, attr.ino, 0, 8192)).expect("read"), [7; 5000]);
    assert_clean(&moved, "on another machine");
}
