//! A local disk without room, under the journal, under the cache, under both: writes say so, reads go on, and when there is room
//! again all goes on without a remount.

use super::load::Load;
use super::scratch::{Scratch, words};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The small disk.
const DISK_MIB: usize = 48;
const FILES: usize = 40;
const BYTES: usize = 500_000;

/// A small disk of its own, in memory; what is there when it is dropped is lost.
struct Disk {
    root: PathBuf,
}

impl Disk {
    fn new(scratch: &Scratch) -> Disk {
        let root = scratch.root.join("disk");
        fs::create_dir(&root).expect("a mount point");
        let size = format!("size={DISK_MIB}m");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&root)
            .status()
            .expect("mount starts");
        assert!(done.success(), "these tests need root");
        Disk { root }
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file =
            File::options().append(true).create(true).open(self.root.join("filler")).expect("a name is free");
        let error = loop {
            if let Err(e) = file.write_all(&[1; 4096]) {
                break e;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    /// Gives it back.
    fn free(&self) {
        fs::remove_file(self.root.join("filler")).expect("it was filled");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.root).status().ok();
    }
}

/// Writes files until one fails for lack of room, which happens before this many bytes; that one is removed, which works.
fn write_until_full(folder: &Path, bytes_max: usize) {
    fs::create_dir(folder).expect("a name takes no room to speak of");
    for n in 0..bytes_max / BYTES {
        let path = folder.join(n.to_string());
        if let Err(e) = fs::write(&path, vec![n as u8; BYTES]) {
            assert_eq!(e.raw_os_error(), Some(libc::ENOSPC), "{e}");
            fs::remove_file(&path).expect("removing works on a full disk");
            return;
        }
    }
    panic!("{bytes_max} bytes fit on a full disk");
}

/// The disk has room: writes succeed, if not the first then soon after, and more of them than the journal had room left for.
fn writes_heal(scratch: &Scratch) {
    let begin = Instant::now();
    for n in 0..FILES / 2 {
        let path = scratch.mnt.join(format!("healed {n}"));
        while let Err(e) = fs::write(&path, [7; BYTES]) {
            assert_eq!(e.raw_os_error(), Some(libc::ENOSPC), "{e}");
            assert!(begin.elapsed() < Duration::from_secs(60), "it does not heal: {}", scratch.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(fs::read(&path).expect("it was written") == [7; BYTES]);
    }
}

/// A filesystem with files that only the store has.
fn with_cold_files(scratch: &mut Scratch, options: &[&str]) -> Load {
    scratch.make();
    scratch.mount(options);
    let mut load = Load::new(&scratch.mnt.join("load"), 1);
    load.fill(FILES, BYTES);
    scratch.umount();
    scratch.wipe();
    scratch.mount(options);
    load
}

/// Everything is in the store.
fn ends_well(scratch: &mut Scratch, load: &mut Load) {
    scratch.umount();
    scratch.wipe();
    scratch.mount(&[]);
    load.verify().expect("all of it is in the store");
    scratch.umount();
    scratch.check();
}

/// Journal and cache on one disk, or the journal alone.
fn full_under_the_journal(cache_too: bool) {
    let mut scratch = Scratch::new(1);
    let disk = Disk::new(&scratch);
    scratch.state = disk.root.join("state");
    let elsewhere = format!("--cache-dir={}", words(&scratch.root.join("cache")));
    let options: &[&str] = if cache_too { &[] } else { &[&elsewhere] };
    let mut load = with_cold_files(&mut scratch, options);
    disk.fill();
    // While the store is away nothing that the journal holds can make room.
    scratch.plan("refuse=1000");
    write_until_full(&scratch.mnt.join("full"), (2 * DISK_MIB) << 20);
    scratch.plan("");
    load.verify().expect("reads go on");
    disk.fill();
    load.verify().expect("reads go on");
    disk.free();
    writes_heal(&scratch);
    ends_well(&mut scratch, &mut load);
}

#[test]
fn promise_r7_no_room_under_the_journal_is_enospc_reads_go_on_and_it_heals() {
    full_under_the_journal(false);
}

#[test]
fn promise_g6_no_room_under_journal_and_cache_is_enospc_reads_go_on_and_it_heals() {
    full_under_the_journal(true);
}

#[test]
fn promise_x11_no_room_under_the_cache_is_nobodys_error() {
    let mut scratch = Scratch::new(1);
    let disk = Disk::new(&scratch);
    let cache = disk.root.join("cache");
    let option = format!("--cache-dir={}", words(&cache));
    let mut load = with_cold_files(&mut scratch, &[&option, "--cache-size=1GiB", "--cache-free=0"]);
    load.verify().expect("there is room");
    let kept = || fs::read_dir(&cache).map_or(0, |entries| entries.count());
    assert!(kept() > 0, "the cache was not used");
    disk.fill();
    load.fill(FILES, BYTES);
    load.verify().expect("reads go on, and writes");
    disk.free();
    load.verify().expect("and when there is room");
    ends_well(&mut scratch, &mut load);
}
