//! A check finds nothing where nothing is wrong: at every moment of a life, after crashes, from the store alone.

use super::*;
use skylog::base::random::SeededRandom;
use skylog::check::PASSES;
use skylog::fs::{Place, SetAttr};
use std::time::Duration;

/// An access control list with an entry for user 7.
fn list() -> Vec<u8> {
    let entries = [(1, 7, u32::MAX), (2, 6, 7), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 4, u32::MAX)];
    let entry = |(tag, perm, id): (u32, u32, u32)| [(tag | perm << 16).to_le_bytes(), id.to_le_bytes()].concat();
    [vec![2, 0, 0, 0], entries.into_iter().flat_map(entry).collect()].concat()
}

/// Something a user might do, by chance.
pub fn act(rig: &mut Rig, random: &SeededRandom, files: &mut Vec<(String, InodeNo)>, serial: &mut u64) {
    let pick = |len: usize| random.below(len as u64) as usize;
    match random.below(15) {
        0..=2 => {
            *serial += 1;
            let name = format!("file-{serial}");
            let ino = create(rig, ROOT, &name);
            write(rig, ino, 0, 1 + pick(6000));
            files.push((name, ino));
        }
        3..=5 if !files.is_empty() => {
            let ino = files[pick(files.len())].1;
            write(rig, ino, random.below(20_000), 1 + pick(5000));
        }
        6 if !files.is_empty() => {
            let size = Some(random.below(12_000));
            let ino = files[pick(files.len())].1;
            rig.run(|fs, cx| fs.setattr(cx, ino, SetAttr { size, ..SetAttr::default() })).expect("truncated");
        }
        7 if !files.is_empty() => {
            let (name, _) = files.swap_remove(pick(files.len()));
            unlink(rig, ROOT, &name);
        }
        8 => {
            *serial += 1;
            let name = format!("dir-{serial}");
            let dir = mkdir(rig, ROOT, &name);
            mkdir(rig, dir, "below");
        }
        9 if !files.is_empty() => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            let (ino, offset, len) = (files[pick(files.len())].1, random.below(12_000), 1 + random.below(5000));
            rig.run(|fs, cx| fs.fallocate(cx, ino, offset, len, mode)).expect("punched");
        }
        13 if !files.is_empty() => {
            let (ino, value) = (files[pick(files.len())].1, vec![7; pick(3000)]);
            let (which, mode) = (pick(3), Some(0o600 + random.below(0o200) as u32));
            let name = ["user.a", "user.b", "security.capability"][which].as_bytes();
            rig.run(|fs, cx| fs.set_xattr(cx, ino, name, &value, 0)).expect("set");
            rig.run(|fs, cx| fs.set_xattr(cx, ino, b"system.posix_acl_access", &list(), 0)).expect("set");
            rig.run(|fs, cx| fs.setattr(cx, ino, SetAttr { mode, ..SetAttr::default() })).expect("changed");
        }
        14 if !files.is_empty() => {
            let (from, to) = (pick(files.len()), pick(files.len()));
            let (old, new) = (files[from].0.clone(), files[to].0.clone());
            let mut rename = |old: &str, new: &str, flags| {
                rig.run(|fs, cx| fs.rename(cx, ROOT, old.as_bytes(), ROOT, new.as_bytes(), flags)).expect("renamed");
            };
            rename(&old, &new, libc::RENAME_EXCHANGE);
            (files[from].1, files[to].1) = (files[to].1, files[from].1);
            *serial += 1;
            rename(&new, &format!("file-{serial}"), libc::RENAME_WHITEOUT);
            files[to].0 = format!("file-{serial}");
        }
        10..=11 if !files.is_empty() => copy(rig, random, files),
        _ => rig.advance(Duration::from_millis(random.below(4000))),
    }
}

/// Shares a part of a file with another, or with another part of itself.
fn copy(rig: &mut Rig, random: &SeededRandom, files: &[(String, InodeNo)]) {
    let place = || Place { ino: files[random.below(files.len() as u64) as usize].1, offset: random.below(12_000) };
    let (from, to, len) = (place(), place(), random.below(8000));
    match rig.run(|fs, cx| fs.copy_file_range(cx, from, to, len)) {
        Ok(_) => {}
        Err(e) => assert!(from.ino == to.ino, "{from:?} to {to:?}: {e}"),
    }
}

#[test]
fn a_new_filesystem_is_clean() {
    let rig = Rig::new(1, &small());
    assert_clean_everywhere(&rig, "new");
}

#[test]
fn a_living_filesystem_is_clean_at_every_moment() {
    for seed in 0..6 {
        live(seed, 120);
    }
}

fn live(seed: u64, acts: u32) {
    let random = SeededRandom::new(seed);
    let mut rig = Rig::new(seed, &small());
    let (mut files, mut serial) = (Vec::new(), 0);
    for n in 0..acts {
        act(&mut rig, &random, &mut files, &mut serial);
        let worked = match random.below(4) {
            0 => rig.step_journal(),
            1 => rig.step_checkpointer(),
            2 => rig.step_shipper(),
            _ => rig.step(),
        };
        if worked {
            assert_clean_everywhere(&rig, &format!("seed {seed}, act {n}"));
        }
    }
    rig.mounted.checkpointer.wanted().checkpoint();
    for n in 0..200 {
        if !rig.step() {
            break;
        }
        assert_clean_everywhere(&rig, &format!("seed {seed}, draining step {n}"));
    }
    rig.drain();
    assert_clean_everywhere(&rig, &format!("seed {seed}, drained"));
}

#[test]
fn a_check_writes_nothing() {
    let mut rig = Rig::new(3, &small());
    let ino = create(&mut rig, ROOT, "file");
    write(&mut rig, ino, 0, 9000);
    rig.drain();
    let calls = rig.log.calls().len();
    let report = check(&rig.world.store, Some(rig.world.media.clone()), Depth::Data, &mut |_, _, _| {});
    assert_clean(&report, "drained");
    assert_eq!(rig.log.calls().len(), calls, "no call that changes anything");
    let Figures { inodes, names, objects, bytes, segments, chunks, node_segments, .. } = report.figures;
    assert_eq!((inodes, names, objects, bytes, segments), (2, 1, 2, 9000, 1), "{:?}", report.figures);
    assert!(chunks > 0 && node_segments > 0);
}

#[test]
fn every_pass_comes_after_those_it_needs() {
    for (n, pass) in PASSES.iter().enumerate() {
        for need in pass.needs {
            assert!(PASSES[..n].iter().any(|before| before.id == *need), "{} needs {need}", pass.id);
        }
        assert!(!pass.does.is_empty());
    }
}

/// Lives go on after a crash, from what is durable or from the store alone.
#[test]
fn a_filesystem_is_clean_after_crashes_and_takeovers() {
    for seed in 0..8 {
        let random = SeededRandom::new(1000 + seed);
        let mut rig = Rig::new(seed, &small());
        let mut serial = 0;
        for life in 0..5 {
            let mut files = Vec::new();
            for _ in 0..30 + random.below(30) {
                act(&mut rig, &random, &mut files, &mut serial);
                match random.below(5) {
                    0 => rig.step_journal(),
                    1 => rig.step_checkpointer(),
                    2 => rig.step_shipper(),
                    _ => rig.step(),
                };
            }
            let when = format!("seed {seed}, life {life}");
            assert_clean_everywhere(&rig, &when);
            let image = match random.below(3) {
                0 => rig.disk.image(),
                1 => rig.disk.image_durable(),
                _ => Image::default(),
            };
            rig = crashed(&rig, &image, 100 * seed + life);
            assert_clean_everywhere(&rig, &format!("{when}, mounted again"));
        }
        rig.drain();
        assert_clean_everywhere(&rig, &format!("seed {seed}, drained"));
    }
}

/// Mounts what a crash left.
pub fn crashed(rig: &Rig, image: &Image, seed: u64) -> Rig {
    let log = CallLog::new();
    let disk = SimDisk::from_image(image, &log);
    let store = SimStore::from_image(&rig.store.image(), &log);
    Rig::mount(log, disk, store, rig.clock.clone(), seed, &small()).expect("what a crash left can be mounted")
}

#[test]
fn a_state_directory_that_lost_the_filesystem_is_told_so_and_the_store_is_clean() {
    let mut rig = Rig::new(9, &small());
    let ino = create(&mut rig, ROOT, "file");
    write(&mut rig, ino, 0, 9000);
    rig.drain();
    let lost = rig.disk.image();
    let mut winner = crashed(&rig, &Image::default(), 900);
    winner.drain();
    let report = checked(&winner.store, Some(&lost));
    let fenced = |problem: &skylog::check::Problem| problem.what.contains("another writer has taken over");
    assert!(report.problems.len() == 1 && report.problems.iter().all(fenced), "{:?}", report.problems);
    assert!(report.skipped.contains(&"windows"), "what the store holds is not judged by an old state");
    assert_clean(&checked(&winner.store, None), "store alone");
    assert_clean(&checked(&winner.store, Some(&winner.disk.image())), "winner");
}
