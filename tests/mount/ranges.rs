//! Ranges of files as programs see them through the kernel: allocated, punched, looked for, copied, mapped, appended to.

use super::scratch::{Scratch, skylog, words};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek64};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

const KEEP: FallocateFlags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
const PUNCH: FallocateFlags = FallocateFlags::FALLOC_FL_PUNCH_HOLE;
const ZERO: FallocateFlags = FallocateFlags::FALLOC_FL_ZERO_RANGE;

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8 + 1).collect()
}

/// Where each stretch of data starts and ends.
fn map(file: &File) -> Vec<(i64, i64)> {
    let mut found: Vec<(i64, i64)> = Vec::new();
    while let Ok(data) = lseek64(file, found.last().map_or(0, |last| last.1), Whence::SeekData) {
        found.push((data, lseek64(file, data, Whence::SeekHole).unwrap()));
    }
    found
}

/// Runs a Python program.
fn python(program: &str, arguments: &[&str]) {
    let output = Command::new("python3").args(["-c", program]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn promise_x14_ranges_are_allocated_punched_and_zeroed_and_the_kernel_forgets_what_it_had_cached() {
    let scratch = Scratch::mounted();
    let file = open(&scratch.mnt.join("file"));
    let mut expected = pattern(100_000);
    file.write_all_at(&expected, 0).unwrap();
    let read = |len| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    assert!(read(100_000) == expected);
    fallocate(&file, PUNCH | KEEP, 5000, 50_000).unwrap();
    expected[5000..55_000].fill(0);
    assert!(read(100_000) == expected);
    assert_eq!(file.metadata().unwrap().blocks(), 10 + 21 + 68, "two parts of the first object, and the second");
    fallocate(&file, ZERO, 90_000, 20_000).unwrap();
    expected[90_000..].fill(0);
    expected.resize(110_000, 0);
    assert!(read(110_000) == expected);
    assert_eq!(file.metadata().unwrap().len(), 110_000);
    fallocate(&file, FallocateFlags::empty(), 1 << 20, 5).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (1 << 20) + 5);
    fallocate(&file, KEEP, 1 << 20, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (1 << 20) + 5);
    assert_eq!(map(&file), [(0, 8192), (53_248, 90_112)]);
    for (mode, len, expected) in [
        (FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 4096, Errno::EOPNOTSUPP),
        (FallocateFlags::FALLOC_FL_INSERT_RANGE, 4096, Errno::EOPNOTSUPP),
        (FallocateFlags::FALLOC_FL_UNSHARE_RANGE, 4096, Errno::EOPNOTSUPP),
        (KEEP, 0, Errno::EINVAL),
        (KEEP, i64::MAX, Errno::EFBIG),
        (KEEP, 1 << 60, Errno::ENOSPC),
    ] {
        assert_eq!(fallocate(&file, mode, 1, len), Err(expected), "{mode:?}, {len} bytes");
    }
}

#[test]
fn promise_x14_what_is_stored_through_a_mapping_is_data_before_anyone_syncs_it() {
    let scratch = Scratch::mounted();
    let path = scratch.mnt.join("mapped");
    python(
        "import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20)
for n in range(3):
    m[200000 * n + 100000] = 7
    found = os.lseek(os.open(sys.argv[1], os.O_RDONLY), 200000 * n, os.SEEK_DATA)
    assert found == (200000 * n + 100000) // 4096 * 4096, found
os.close(fd)
m[700000] = 8
assert os.lseek(os.open(sys.argv[1], os.O_RDONLY), 690000, os.SEEK_DATA) == 700000 // 4096 * 4096
m.close()
assert os.lseek(os.open(sys.argv[1], os.O_RDONLY), 690000, os.SEEK_DATA) == 700000 // 4096 * 4096
",
        &[words(&path)],
    );
    assert_eq!(map(&open(&path)).len(), 4);
}

#[test]
fn stores_through_a_shared_mapping_are_there_after_unmount_and_those_of_a_private_one_are_not() {
    let mut scratch = Scratch::mounted();
    let path = scratch.mnt.join("mapped");
    python(
        "import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
shared, private = mmap.mmap(fd, 1 << 20), mmap.mmap(fd, 1 << 20, mmap.MAP_PRIVATE)
shared[:] = bytes(n % 251 + 1 for n in range(1 << 20))
private[5] = 255
shared.flush()
os.pwrite(fd, b'written', 5000)
assert shared[5000:5007] == b'written' and os.pread(fd, 1 << 20, 0) == shared[:]
",
        &[words(&path)],
    );
    let mut expected = pattern(1 << 20);
    expected[5000..5007].copy_from_slice(b"written");
    assert!(fs::read(&path).unwrap() == expected);
    scratch.umount();
    scratch.mount();
    assert!(fs::read(&path).unwrap() == expected);
}

#[test]
fn promise_x14_a_copied_range_shares_what_is_stored_and_lives_on_its_own() {
    let mut scratch = Scratch::mounted();
    let at = |name: &str| scratch.mnt.join(name);
    let (source, copy) = (open(&at("source")), open(&at("copy")));
    source.write_all_at(&pattern(3 << 20), 0).unwrap();
    source.set_len(4 << 20).unwrap();
    // The standard library asks for `copy_file_range` first.
    assert_eq!(io::copy(&mut &source, &mut &copy).unwrap(), 4 << 20);
    assert_eq!(map(&copy), [(0, 3 << 20)]);
    source.write_all_at(&[0; 100_000], 1000).unwrap();
    drop((source, copy));
    scratch.umount();
    // Twice the data would not go into half as much again.
    let stored: u64 = walk(&scratch.root.join("store/seg"));
    assert!((3 << 20..9 << 19).contains(&stored), "{stored} bytes are stored for 3 MiB that two files share");
    scratch.mount();
    let at = |name: &str| scratch.mnt.join(name);
    let mut expected = pattern(3 << 20);
    expected.resize(4 << 20, 0);
    assert!(fs::read(at("copy")).unwrap() == expected);
    fs::remove_file(at("copy")).unwrap();
    expected[1000..101_000].fill(0);
    assert!(fs::read(at("source")).unwrap() == expected);
    scratch.umount();
    skylog(&["check", "--data", scratch.store()]).succeeds();
}

/// Bytes of all files below a folder.
fn walk(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(
            |entry| {
                if entry.file_type().unwrap().is_dir() { walk(&entry.path()) } else { entry.metadata().unwrap().len() }
            },
        )
        .sum()
}

#[test]
fn records_that_two_processes_append_are_all_whole() {
    const RECORDS: usize = 2000;
    let scratch = Scratch::mounted();
    let path = scratch.mnt.join("log");
    let program = "import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for n in range(int(sys.argv[3])):
    record = (sys.argv[2] + ' %d ' % n).ljust(50 + n % 57, '.').encode() + b'\\n'
    assert os.write(fd, record) == len(record)
";
    std::thread::scope(|scope| {
        for who in ["a", "b"] {
            let path = words(&path);
            scope.spawn(move || python(program, &[path, who, &RECORDS.to_string()]));
        }
    });
    let text = fs::read_to_string(&path).unwrap();
    for who in ["a", "b"] {
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with(who)).collect();
        let expected: Vec<String> =
            (0..RECORDS).map(|n| format!("{:.<1$}", format!("{who} {n} "), 50 + n % 57)).collect();
        assert!(found == expected, "the records of {who}");
    }
    assert_eq!(text.lines().count(), 2 * RECORDS);
}

#[test]
fn a_file_reaches_to_the_largest_offset() {
    let scratch = Scratch::mounted();
    let file = open(&scratch.mnt.join("file"));
    let max = i64::MAX as u64;
    file.write_all_at(b"end", max - 3).unwrap();
    assert_eq!(file.metadata().unwrap().len(), max);
    let mut end = [0; 3];
    file.read_exact_at(&mut end, max - 3).unwrap();
    assert_eq!(&end, b"end");
    assert!(file.write_all_at(b"x", max).is_err());
    assert_eq!(map(&file), [(i64::MAX - 4095, i64::MAX)]);
    file.set_len(max - 1).unwrap();
    fallocate(&file, PUNCH | KEEP, 0, i64::MAX).unwrap();
    assert_eq!(file.metadata().unwrap().blocks(), 0);
}

#[test]
fn direct_and_buffered_access_see_the_same_bytes() {
    let scratch = Scratch::mounted();
    let path = scratch.mnt.join("file");
    fs::write(&path, pattern(1 << 20)).unwrap();
    assert!(fs::read(&path).unwrap() == pattern(1 << 20));
    // The kernel asks for no alignment of a buffer that FUSE copies.
    let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let mut bytes = vec![0; 1 << 20];
    direct.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == pattern(1 << 20));
    direct.write_all_at(&[9; 5000], 333).unwrap();
    bytes[333..5333].fill(9);
    assert!(fs::read(&path).unwrap() == bytes, "the cache gives way");
}
