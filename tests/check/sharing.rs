//! Objects named by several extents, of one file or of two: they are shipped once, live as long as one extent names them,
//! and give their space back after the last one. Whatever of it happens before a checkpoint, after it, or after the ship.

use super::clean::crashed;
use super::*;
use skylog::fs::{Place, SetAttr};

/// How far what happened so far gets before the story goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pause {
    /// It is in the journal's queue.
    None,
    /// It is in a checkpoint, and its window waits.
    Checkpoint,
    /// It is in the store.
    Ship,
}

const PAUSES: [Pause; 3] = [Pause::None, Pause::Checkpoint, Pause::Ship];
/// Four objects, and a bit of a fifth.
const BYTES: usize = 33_000;
/// The copy begins inside an object, and lies across others than the source does.
const FROM: u64 = 1000;
const TO: u64 = 5555;
const LEN: u64 = 30_000;

fn pause(rig: &mut Rig, pause: Pause) {
    match pause {
        Pause::None => {}
        Pause::Checkpoint => {
            rig.mounted.checkpointer.wanted().checkpoint();
            while rig.step_journal() || rig.step_checkpointer() {}
        }
        Pause::Ship => rig.drain(),
    }
}

fn read(rig: &mut Rig, ino: InodeNo) -> Vec<u8> {
    rig.run(|fs, cx| fs.read(cx, ino, 0, 100_000)).expect("read")
}

fn copy(rig: &mut Rig, from: (InodeNo, u64), to: (InodeNo, u64), len: u64) {
    let place = |(ino, offset)| Place { ino, offset };
    let (copied, _) = rig.run(|fs, cx| fs.copy_file_range(cx, place(from), place(to), len)).expect("copied");
    assert_eq!(u64::from(copied), len);
}

fn truncate(rig: &mut Rig, ino: InodeNo, size: u64) {
    let set = SetAttr { size: Some(size), ..SetAttr::default() };
    rig.run(|fs, cx| fs.setattr(cx, ino, set)).expect("truncated");
}

/// The objects in use, and the segments with data, once everything is in the store.
fn in_store(rig: &Rig) -> (u64, u64) {
    let figures = checked(&rig.store, Some(&rig.disk.image())).figures;
    (figures.objects, figures.segments)
}

/// The same filesystem, mounted from its store alone.
fn elsewhere(rig: &mut Rig, seed: u64) -> Rig {
    rig.drain();
    crashed(rig, &Image::default(), seed)
}

/// Writes a file, copies a part of it, removes one of the two, then the other; `pauses` says what happens between.
fn story(seed: u64, copy_first: bool, source_dies: bool, pauses: [Pause; 3]) {
    let when = format!("copy first: {copy_first}, source dies: {source_dies}, {pauses:?}");
    let mut rig = Rig::new(seed, &small());
    // The lower inode number comes first in a merge.
    let names = if copy_first { ["copy", "source"] } else { ["source", "copy"] };
    let mut inos = names.map(|name| create(&mut rig, ROOT, name));
    if copy_first {
        inos.reverse();
    }
    let [source, target] = inos;
    write(&mut rig, source, 0, BYTES);
    let original = read(&mut rig, source);
    pause(&mut rig, pauses[0]);
    copy(&mut rig, (source, FROM), (target, TO), LEN);
    let copied = [&vec![0; TO as usize][..], &original[FROM as usize..][..LEN as usize]].concat();
    assert_eq!(read(&mut rig, target), copied, "{when}");
    pause(&mut rig, pauses[1]);
    assert_clean_everywhere(&rig, &when);

    let (gone, left, expected) = if source_dies { ("source", target, &copied) } else { ("copy", source, &original) };
    unlink(&mut rig, ROOT, gone);
    pause(&mut rig, pauses[2]);
    assert_clean_everywhere(&rig, &when);
    assert_eq!(read(&mut rig, left), *expected, "{when}");
    let mut other = elsewhere(&mut rig, seed + 1000);
    assert_eq!(read(&mut other, left), *expected, "{when}, from the store alone");
    assert!(in_store(&rig).0 > 0);

    for (mut rig, place) in [(rig, "here"), (other, "from the store alone")] {
        unlink(&mut rig, ROOT, if source_dies { "copy" } else { "source" });
        rig.drain();
        rig.drain();
        assert_clean_everywhere(&rig, &when);
        assert_eq!(in_store(&rig), (0, 0), "{when}, {place}: the space is given back");
    }
}

#[test]
fn shared_objects_live_as_long_as_one_file_names_them_and_no_longer() {
    let mut seed = 0;
    for copy_first in [false, true] {
        for source_dies in [false, true] {
            for before in PAUSES {
                for between in PAUSES {
                    for after in PAUSES {
                        seed += 1;
                        story(seed, copy_first, source_dies, [before, between, after]);
                    }
                }
            }
        }
    }
}

#[test]
fn both_sharers_gone_before_or_after_the_ship_give_the_space_back() {
    for (seed, before) in PAUSES.into_iter().enumerate() {
        for between in PAUSES {
            let mut rig = Rig::new(seed as u64, &small());
            let (source, target) = (create(&mut rig, ROOT, "source"), create(&mut rig, ROOT, "copy"));
            write(&mut rig, source, 0, BYTES);
            pause(&mut rig, before);
            copy(&mut rig, (source, 0), (target, 0), BYTES as u64);
            pause(&mut rig, between);
            unlink(&mut rig, ROOT, "source");
            unlink(&mut rig, ROOT, "copy");
            rig.drain();
            rig.drain();
            assert_clean_everywhere(&rig, &format!("{before:?}, {between:?}"));
            assert_eq!(in_store(&rig), (0, 0), "{before:?}, {between:?}");
        }
    }
}

/// Parts of an object that one file names many times go one by one.
#[test]
fn an_object_that_one_file_names_many_times_dies_with_the_last() {
    for between in PAUSES {
        let mut rig = Rig::new(7, &small());
        let ino = create(&mut rig, ROOT, "file");
        write(&mut rig, ino, 0, 8000);
        pause(&mut rig, between);
        for n in 1..6 {
            copy(&mut rig, (ino, 100 * n), (ino, 8000 * n + 1), 4000);
            pause(&mut rig, between);
            assert_clean_everywhere(&rig, &format!("{between:?}, copy {n}"));
        }
        let whole = read(&mut rig, ino);
        for n in (1..6).rev() {
            truncate(&mut rig, ino, 8000 * n + 1);
            pause(&mut rig, between);
            assert_clean_everywhere(&rig, &format!("{between:?}, cut {n}"));
            assert_eq!(read(&mut rig, ino), whole[..8000 * n as usize + 1]);
        }
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        rig.run(|fs, cx| fs.fallocate(cx, ino, 0, 7999, punch)).expect("punched");
        rig.drain();
        assert_eq!(in_store(&rig), (1, 1), "its last byte keeps the object");
        rig.run(|fs, cx| fs.fallocate(cx, ino, 7999, 1, punch)).expect("punched");
        rig.drain();
        rig.drain();
        assert_clean_everywhere(&rig, &format!("{between:?}, punched"));
        assert_eq!(in_store(&rig), (0, 0), "{between:?}");
    }
}

/// A power cut at any place leaves a copy whole or undone, and every object that it names.
#[test]
fn a_copy_is_there_whole_after_a_crash_or_not_at_all() {
    for (seed, between) in PAUSES.into_iter().enumerate() {
        let mut rig = Rig::new(seed as u64, &small());
        let (target, source) = (create(&mut rig, ROOT, "copy"), create(&mut rig, ROOT, "source"));
        write(&mut rig, source, 0, BYTES);
        pause(&mut rig, between);
        let original = read(&mut rig, source);
        copy(&mut rig, (source, 0), (target, 0), BYTES as u64);
        unlink(&mut rig, ROOT, "source");
        let mut whole = 0;
        for n in 0..40 {
            let mut crashed = crashed(&rig, &rig.disk.image_durable(), 100 + n);
            if crashed.run(|fs, cx| fs.lookup(cx, ROOT, b"copy")).expect("looked up").is_some() {
                let found = read(&mut crashed, target);
                assert!(found.is_empty() || found == original, "{between:?}, step {n}: {} bytes", found.len());
                whole += usize::from(!found.is_empty());
            }
            crashed.drain();
            assert_clean_everywhere(&crashed, &format!("{between:?}, crashed at step {n}"));
            rig.mounted.checkpointer.wanted().checkpoint();
            rig.step();
        }
        assert!(whole > 0, "the copy becomes durable");
    }
}
