//! How many requests the kernel sends for an operation: exact counts, so no noise touches them. What is waited for in between
//! is only that a request sent without waiting for its answer (`release`, `forget`) has arrived.

use crate::scratch::{Scratch, skylog, words};
use serde_json::Value;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

/// A mount as users have it: large segments, so that writes of 1 MiB are one request.
struct Counted {
    scratch: Scratch,
    before: Value,
}

impl Counted {
    fn mounted() -> Counted {
        let mut scratch = Scratch::new();
        skylog(&["mkfs", scratch.store()]).succeeds();
        skylog(&["mount", scratch.store(), words(&scratch.mnt)]).succeeds();
        scratch.adopt();
        fs::create_dir(scratch.mnt.join("dir")).unwrap();
        let before = Value::Null;
        Counted { scratch, before }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.mnt.join("dir").join(name)
    }

    /// A file with contents, closed, looked up, its attributes known.
    fn file(&mut self, name: &str, bytes: usize) -> PathBuf {
        let path = self.path(name);
        self.begin();
        fs::write(&path, vec![7; bytes]).unwrap();
        self.closed();
        fs::metadata(&path).unwrap();
        path
    }

    /// Asked by the store's name: looking at the mount point would be a request.
    fn requests(&self) -> Value {
        let said = skylog(&["status", "--json", self.scratch.store()]).succeeds();
        serde_json::from_str::<Value>(&said).unwrap()["requests"].clone()
    }

    fn begin(&mut self) {
        self.before = self.requests();
    }

    /// Requests of one kind since [`Counted::begin`].
    fn of(&self, kind: &str) -> u64 {
        count(&self.requests(), kind) - count(&self.before, kind)
    }

    /// All requests since [`Counted::begin`].
    fn all(&self) -> u64 {
        self.of("total")
    }

    /// Waits until the close of one file has arrived; then says how many requests there were.
    fn closed(&self) -> u64 {
        for _ in 0..10_000 {
            if self.of("release") == 1 {
                return self.all();
            }
        }
        panic!("the file is never released: {}", self.requests());
    }
}

fn count(requests: &Value, kind: &str) -> u64 {
    requests[kind].as_u64().unwrap_or(0)
}

macro_rules! at_most {
    ($counted:expr, $found:expr, $limit:expr) => {
        let (found, limit) = ($found, $limit);
        let (now, before) = ($counted.requests(), &$counted.before);
        assert!(found <= limit, "{found} requests, at most {limit} were expected:\nbefore {before}\nafter {now}");
    };
}

#[test]
fn asking_how_many_requests_there_were_is_none() {
    let mut counted = Counted::mounted();
    counted.begin();
    assert_eq!(counted.all(), 0);
}

#[test]
fn a_small_file_takes_six_requests_to_make_and_five_to_overwrite() {
    let mut counted = Counted::mounted();
    let path = counted.path("file");
    fs::metadata(path.parent().unwrap()).unwrap();
    counted.begin();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all(&[1; 4096]).unwrap();
    drop(file);
    at_most!(counted, counted.closed(), 6);

    // The new name changed the directory; who may pass through it is not the overwriting's to ask.
    fs::metadata(path.parent().unwrap()).unwrap();
    // Opening and cutting are two: the kernel must be able to refuse the second for a running program. After it the kernel asks
    // for capabilities once more.
    for limit in [5, 5, 5] {
        counted.begin();
        let mut file = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        file.write_all(&[2; 4096]).unwrap();
        drop(file);
        at_most!(counted, counted.closed(), limit);
    }
    assert_eq!(fs::read(&path).unwrap(), [2; 4096]);
}

#[test]
fn an_append_and_its_fsync_are_two_requests() {
    let mut counted = Counted::mounted();
    let path = counted.file("log", 100);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"the first after opening may refresh attributes").unwrap();
    for _ in 0..3 {
        counted.begin();
        file.write_all(&[3; 200]).unwrap();
        file.sync_all().unwrap();
        assert_eq!((counted.of("write"), counted.of("fsync"), counted.all()), (1, 1, 2), "{}", counted.requests());
    }
}

#[test]
fn what_is_warm_is_answered_by_the_kernel() {
    let mut counted = Counted::mounted();
    let path = counted.file("warm", 300_000);
    counted.begin();
    let seen = fs::read(&path).unwrap();
    counted.closed();
    // A read makes the kernel ask once more for the time of access.
    fs::metadata(&path).unwrap();
    counted.begin();
    fs::metadata(&path).unwrap();
    fs::symlink_metadata(&path).unwrap();
    assert_eq!(counted.all(), 0, "stat: {}", counted.requests());

    let mut again = Vec::with_capacity(seen.len() + 1);
    File::open(&path).unwrap().read_to_end(&mut again).unwrap();
    assert_eq!(again, seen);
    at_most!(counted, counted.closed(), 2);
}

#[test]
fn a_chmod_is_one_request_and_a_rename_at_most_three() {
    let mut counted = Counted::mounted();
    let path = counted.file("file", 10);
    counted.begin();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(counted.all(), 1, "{}", counted.requests());

    counted.begin();
    fs::rename(&path, counted.path("another name")).unwrap();
    at_most!(counted, counted.all(), 3);
}

#[test]
fn a_megabyte_written_is_one_request() {
    let mut counted = Counted::mounted();
    let path = counted.path("large");
    let block = vec![5; 1 << 20];
    counted.begin();
    let mut file = File::create(&path).unwrap();
    for _ in 0..64 {
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    at_most!(counted, counted.closed(), 72);
    assert_eq!(counted.of("write"), 64, "{}", counted.requests());
    assert_eq!(counted.of("bytes_written"), 64 << 20);
}

#[test]
fn capabilities_are_not_looked_up_for_every_write() {
    let mut counted = Counted::mounted();
    let path = counted.file("file", 1 << 20);
    counted.begin();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for n in 0..100 {
        file.write_all_at(&[9; 512], n * 4096).unwrap();
    }
    drop(file);
    counted.closed();
    assert_eq!(counted.of("write"), 100);
    at_most!(counted, counted.of("getxattr"), 1);

    counted.begin();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for n in 0..100 {
        file.write_all_at(&[9; 512], n * 4096).unwrap();
        file.metadata().unwrap();
    }
    at_most!(counted, counted.of("getxattr"), counted.of("getattr"));
}
