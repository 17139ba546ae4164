//! The formats do not change by accident: what is written today has the bytes kept in `tests/golden/`, and those decode.
//! After a change on purpose, `SKYLOG_BLESS=1 cargo test --test golden` writes them anew.

mod samples;

use bytes::Bytes;
use samples::{FILE, TIME, lsn, object};
use skylog::format::ids::{InodeNo, SegmentKind, SegmentNo};
use skylog::format::inode::{CookieValue, Extent, Inode, NameValue};
use skylog::format::space::{self, Mark, Pending, Published, SegmentRecord, Settled, WindowRecord};
use skylog::format::usage::{OnLimit, Usage, UsageLimit};
use skylog::format::{key, names};
use std::path::PathBuf;

fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn assert_golden(file: &str, bytes: &[u8]) {
    // Only what differs is written, so that tests beside this one do not read a file that is half there.
    if std::env::var_os("SKYLOG_BLESS").is_some() && std::fs::read(golden(file)).ok().as_deref() != Some(bytes) {
        std::fs::write(golden(file), bytes).expect("the golden file can be written");
    }
    let kept = std::fs::read(golden(file)).unwrap_or_else(|e| panic!("tests/golden/{file}: {e}"));
    assert!(kept == bytes, "tests/golden/{file} is not what is written today");
}

#[test]
fn everything_on_disk_is_written_as_it_was_kept() {
    for sample in samples::all() {
        assert_golden(sample.file, &sample.bytes);
    }
}

#[test]
fn what_was_kept_is_read_as_it_was_meant() {
    for sample in samples::all() {
        (sample.check)(&std::fs::read(golden(sample.file)).expect("the golden file is there"));
    }
}

#[test]
fn no_golden_file_is_left_behind() {
    let known: Vec<&str> = samples::all().iter().map(|sample| sample.file).chain(["keys_and_values.txt"]).collect();
    for entry in std::fs::read_dir(golden("")).expect("the golden files are there") {
        let name = entry.expect("a name").file_name();
        assert!(known.iter().any(|file| name == *file), "{name:?} belongs to nothing");
    }
}

#[test]
fn the_examples_in_the_documentation_are_what_was_kept() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/format.md");
    let text = std::fs::read_to_string(path).expect("the documentation is there");
    for file in ["manifest.txt", "superblock.json", "store.txt"] {
        let kept = std::fs::read_to_string(golden(file)).expect("the golden file is there");
        assert!(text.contains(&kept), "docs/format.md does not show {file}");
    }
}

/// Keys and values are short: one line each.
#[test]
fn keys_and_values_are_written_as_they_were_kept() {
    let lines = [
        ("file key inode", key::inode(FILE)),
        ("file key inline", key::inline(FILE)),
        ("file key name", key::name(FILE, b"name")),
        ("file key cookie", key::cookie(FILE, 0x0102_0304_0506_0708)),
        ("file key xattr", key::xattr(FILE, b"user.x")),
        ("file key extent", key::extent(FILE, 0x0001_0000)),
        ("file key orphan", key::orphan(FILE)),
        ("file key usage", key::usage()),
        ("file key limit", key::limit()),
        ("inode of a file", file().encode()),
        ("inode of a directory", directory().encode()),
        ("inode of a link", Inode { target: Bytes::from_static(b"../target"), ..file() }.encode()),
        ("inode of a device", Inode { rdev: 0x0103, flags: 0x10, ..file() }.encode()),
        ("name value", NameValue { ino: FILE, kind: 8, cookie: 3 }.encode()),
        ("cookie value", CookieValue { ino: FILE, kind: 8, name: Bytes::from_static(b"name") }.encode()),
        ("extent value", Extent { len: 4096, object: object(1), object_offset: 512 }.encode()),
        ("usage value", Usage { inodes: 3, blocks: 16 }.encode()),
        ("limit value", UsageLimit { bytes: 1 << 30, inodes: 1000, on_limit: OnLimit::Quota }.encode()),
        ("space key mark", space::mark(Mark::Inode)),
        ("space key segment", space::segment(samples::SEGMENT)),
        ("space key window", space::window(lsn(900))),
        ("space key count", space::count(object(1))),
        ("space key pending", space::pending(names::segment(samples::SEGMENT).as_bytes())),
        ("space key waiting", space::waiting(object(1))),
        ("space key settled", space::settled()),
        ("space key published", space::published()),
        ("mark value", space::encode_number(4096)),
        ("segment value", segment_record().encode()),
        ("window value", window_record().encode()),
        ("count value", space::encode_count(2)),
        ("pending value", Pending { since: samples::WALL, checkpoint: 6 }.encode()),
        ("published value", Published { end: lsn(900), checkpoint: 6, generation: 3, number: 4 }.encode()),
        ("settled value", Settled { checkpoint: 6, cursor: 2 }.encode()),
    ];
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let text: String = lines.iter().map(|(what, bytes)| format!("{what}: {}\n", hex(bytes))).collect();
    assert_golden("keys_and_values.txt", text.as_bytes());
    for (what, bytes) in &lines {
        match what.split_once(" key ") {
            Some(("file", _)) => assert_eq!(key::Key::decode(bytes).map(|key| key.encode()).as_ref(), Ok(bytes)),
            Some(("space", _)) => assert_eq!(space::Key::decode(bytes).map(|key| key.encode()).as_ref(), Ok(bytes)),
            _ => {}
        }
    }
}

fn file() -> Inode {
    let (mode, uid, gid, nlink, size, blocks) = (0o100644, 1000, 100, 1, 5000, 16);
    Inode {
        mode,
        uid,
        gid,
        nlink,
        size,
        blocks,
        atime: TIME,
        mtime: TIME,
        ctime: TIME,
        btime: TIME,
        ..Inode::default()
    }
}

fn directory() -> Inode {
    Inode { mode: 0o040755, nlink: 2, parent: InodeNo::ROOT, next_cookie: 3, ..file() }
}

fn segment_record() -> SegmentRecord {
    let kind = SegmentKind::Chunks;
    SegmentRecord { kind, bytes: 8 << 20, objects: 7, live_bytes: 1 << 20, live_objects: 3, window_end: lsn(900) }
}

fn window_record() -> WindowRecord {
    let segments = vec![samples::SEGMENT, SegmentNo { epoch: 2, number: 18 }];
    WindowRecord { start: lsn(400), segments, live_objects: 3 }
}
