//! A small filesystem with every kind of object in it, what its files hold, and how it is damaged.

use skylog::format::batch::TreeId;
use skylog::format::ids::{InodeNo, SegmentKind};
use skylog::format::space::Key;
use skylog::format::store_segment::StoreSegment;
use skylog::fs::{Error, Place};
use skylog::map::Pins;
use skylog::media::Media;
use skylog::media::sim::{Image, SimDisk};
use skylog::repair::Report;
use skylog::rig::{Rig, small};
use skylog::store::Store;
use skylog::store::sim::{SimStore, StoreImage};
use std::collections::BTreeMap;

const ROOT: InodeNo = InodeNo::ROOT;

/// A file that was written over in its middle.
const PATCHED: &str = "dir/file-4";

/// Paths, and what the files hold.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What a file of that name and length holds: no two files the same anywhere, and no zeros.
pub fn contents(name: &str, len: usize) -> Vec<u8> {
    let seed = name.bytes().fold(7u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    (0..len as u32).map(|at| ((at / 251).wrapping_mul(seed | 1).wrapping_add(at ^ seed) % 255) as u8 + 1).collect()
}

fn parent(rig: &mut Rig, path: &str) -> (InodeNo, String) {
    match path.rsplit_once('/') {
        None => (ROOT, path.to_owned()),
        Some((dir, name)) => {
            let ino = find(rig, dir).expect("a directory");
            (ino, name.to_owned())
        }
    }
}

fn find(rig: &mut Rig, path: &str) -> Option<InodeNo> {
    path.split('/').try_fold(ROOT, |dir, name| {
        rig.run(|fs, cx| fs.lookup(cx, dir, name.as_bytes())).ok().flatten().map(|attr| attr.ino)
    })
}

/// Makes a file, or writes an existing one from its start.
pub fn put(rig: &mut Rig, path: &str, len: usize) -> InodeNo {
    let data = contents(path, len);
    write(rig, path, 0, &data)
}

fn write(rig: &mut Rig, path: &str, offset: u64, data: &[u8]) -> InodeNo {
    let (dir, name) = parent(rig, path);
    let ino = match rig.run(|fs, cx| fs.lookup(cx, dir, name.as_bytes())).expect("looked up") {
        Some(attr) => attr.ino,
        None => rig.run(|fs, cx| fs.create(cx, dir, name.as_bytes(), 0o644)).expect("created").0.ino,
    };
    let mut at = 0;
    while at < data.len() {
        let part = &data[at..data.len().min(at + 20_000)];
        at += rig.run(|fs, cx| fs.write(cx, ino, offset + at as u64, part)).expect("written").0 as usize;
    }
    ino
}

fn mkdir(rig: &mut Rig, path: &str) {
    let (dir, name) = parent(rig, path);
    rig.run(|fs, cx| fs.mkdir(cx, dir, name.as_bytes(), 0o755)).expect("made");
}

/// A filesystem as it lies on disk and in the store.
pub struct World {
    pub store: StoreImage,
    pub disk: Image,
    pub files: Files,
    /// Store objects that count: not listed for deletion, not of a generation before the newest.
    pub living: Vec<String>,
}

impl World {
    /// Several windows, a base with increments after it, a log increment, a journal with a tail that nothing else has; cleanly
    /// closed.
    pub fn new() -> World {
        let mut rig = Rig::new(11, &small());
        let mut files = Files::new();
        mkdir(&mut rig, "dir");
        mkdir(&mut rig, "dir/below");
        for n in 0..8 {
            keep(&mut rig, &mut files, &format!("dir/file-{n}"), 9000);
            if n % 3 == 0 {
                rig.drain();
            }
        }
        keep(&mut rig, &mut files, "dir/below/long", 90_000);
        keep(&mut rig, &mut files, "tiny", 100);
        let tiny = find(&mut rig, "tiny").expect("there");
        let dir = find(&mut rig, "dir").expect("there");
        rig.run(|fs, cx| fs.link(cx, tiny, dir, b"also-tiny")).expect("linked");
        files.insert("dir/also-tiny".to_owned(), contents("tiny", 100));
        rig.run(|fs, cx| fs.symlink(cx, ROOT, b"link", b"dir/file-1")).expect("linked");
        rig.run(|fs, cx| fs.set_xattr(cx, tiny, b"user.colour", b"blue", 0)).expect("set");
        rig.drain();
        share(&mut rig, &mut files, "dir/file-2", "shared");
        let patch = contents("a patch", 700);
        write(&mut rig, PATCHED, 3000, &patch);
        files.get_mut(PATCHED).expect("there")[3000..3700].copy_from_slice(&patch);
        let gone = put(&mut rig, "gone", 8000);
        rig.run(|fs, cx| fs.unlink(cx, ROOT, b"gone")).expect("unlinked");
        rig.run(|fs, cx| fs.release(cx, gone)).ok();
        rig.drain();
        // A generation of its own, with increments after its base.
        let mut rig = rig.remount(12, &small()).expect("mounts again");
        for n in 0..2 {
            keep(&mut rig, &mut files, &format!("late-{n}"), 5000);
            rig.drain();
        }
        rig.mounted.db.journal().tail().set_open(true);
        keep(&mut rig, &mut files, "logged", 6000);
        sync_to_store(&mut rig);
        keep(&mut rig, &mut files, "journalled", 7000);
        rig.mounted.writer.close().expect("closed");
        let living = living(&rig);
        World { store: rig.store.image(), disk: rig.disk.image(), files, living }
    }

    /// The store objects in a folder that count.
    pub fn living(&self, folder: &str) -> Vec<String> {
        self.living.iter().filter(|name| name.starts_with(folder)).cloned().collect()
    }

    /// What there is with the state directory, or in the store alone.
    pub fn files(&self, with_state: bool) -> Files {
        let mut files = self.files.clone();
        if !with_state {
            files.remove("journalled").expect("it was written last");
        }
        files
    }

    /// Whether a store object is a segment of chunks.
    pub fn is_of_chunks(&self, name: &str) -> bool {
        let bytes = self.store.object(name).expect("there");
        StoreSegment::parse(bytes).is_ok_and(|segment| segment.header.kind == SegmentKind::Chunks)
    }
}

fn keep(rig: &mut Rig, files: &mut Files, path: &str, len: usize) {
    put(rig, path, len);
    files.insert(path.to_owned(), contents(path, len));
}

fn share(rig: &mut Rig, files: &mut Files, from: &str, to: &str) {
    put(rig, to, 1);
    let (source, target) = (find(rig, from).expect("there"), find(rig, to).expect("there"));
    let (from_place, to_place) = (Place { ino: source, offset: 0 }, Place { ino: target, offset: 0 });
    let (done, _) = rig.run(|fs, cx| fs.copy_file_range(cx, from_place, to_place, 9000)).expect("copied");
    let copied = files[from][..done as usize].to_vec();
    files.insert(to.to_owned(), copied);
}

fn sync_to_store(rig: &mut Rig) {
    let last = rig.mounted.db.last();
    rig.mounted.db.journal().when_durable(last, Box::new(|_| ()));
    while rig.step_journal() {}
    rig.mounted.syncer.stored().when_stored(last, Box::new(|result| result.expect("stored")));
    while rig.step_syncer() {}
}

fn living(rig: &Rig) -> Vec<String> {
    let store = &rig.world.store;
    let all = store.list("").expect("listed");
    let newest = all.iter().filter(|n| n.starts_with("gen/")).max().and_then(|n| n.rsplit_once('/')).expect("a name").0;
    let pins = Pins::new();
    let mut tx = rig.mounted.db.begin(&pins);
    let counts = all.iter().filter(|name| !name.starts_with("gen/") || name.starts_with(newest));
    let live = counts.filter(|name| {
        let key = Key::Pending(name.as_bytes().to_vec().into()).encode();
        !matches!(tx.get(TreeId::Space, &key), Ok(Some(_)))
    });
    live.cloned().collect()
}

/// Flips a byte of a store object.
pub fn flip(store: &SimStore, name: &str, at: usize) {
    let mut bytes = store.get(name).expect("there").to_vec();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 0x20;
    store.put(name, bytes.into()).expect("put");
}

/// Flips a byte of a file in a state directory.
pub fn flip_file(disk: &SimDisk, name: &str, at: u64) {
    let file = disk.open(name).expect("there");
    let mut byte = [0];
    file.read_at(&mut byte, at).expect("read");
    file.write_at(&[byte[0] ^ 0x20], at).expect("written");
    file.sync().expect("synced");
}

/// Every file is what it was, or the report names it and what it gives is right or EIO. Where changes are lost, and the report says
/// so, a file may be gone, or be what it was before.
pub fn assert_files(rig: &mut Rig, files: &Files, report: &Report, when: &str) {
    let touched = |path: &str| {
        let mut paths = report.touched.iter().map(|touched| touched.path.as_deref());
        report.resumed || paths.any(|touched| is_at(touched, path) || is_above(touched, path))
    };
    for (path, expected) in files {
        let Some(ino) = find(rig, path) else {
            let is_told = touched(path) || report.may_miss_changes();
            assert!(
                is_told,
                "{when}: {path} is gone, and the report says nothing: {:#?} {:?}",
                report.damaged, report.lost
            );
            continue;
        };
        if !touched(path) && !report.may_miss_changes() {
            assert!(read(rig, ino, expected.len()).as_ref() == Some(expected), "{when}: {path} is not whole");
            continue;
        }
        let before = before_the_patch(path, expected);
        for at in (0..expected.len()).step_by(100) {
            let expected = [expected, &before].map(|version| &version[at..version.len().min(at + 100)]);
            match rig.run(|fs, cx| fs.read(cx, ino, at as u64, 100)) {
                Ok(got) => {
                    let is_right = expected.iter().any(|expected| expected.starts_with(&got));
                    assert!(is_right, "{when}: {path} has wrong bytes at {at}: {got:?}, not {expected:?}");
                }
                Err(e) => assert!(matches!(e, Error::Io), "{when}: {path}: {e}"),
            }
        }
    }
}

/// The one file that was written over held this before.
fn before_the_patch(path: &str, expected: &[u8]) -> Vec<u8> {
    match path == PATCHED {
        true => contents(path, expected.len()),
        false => expected.to_vec(),
    }
}

fn is_at(touched: Option<&str>, path: &str) -> bool {
    touched.is_some_and(|touched| touched.trim_start_matches('/') == path)
}

fn is_above(touched: Option<&str>, path: &str) -> bool {
    touched.is_some_and(|touched| {
        let touched = touched.trim_matches('/');
        touched.is_empty() || path.starts_with(&format!("{touched}/"))
    })
}

/// All that a file holds, if all of it can be read.
pub fn read(rig: &mut Rig, ino: InodeNo, len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while out.len() <= len {
        let part = rig.run(|fs, cx| fs.read(cx, ino, out.len() as u64, 30_000)).ok()?;
        if part.is_empty() {
            break;
        }
        out.extend(part);
    }
    Some(out)
}
