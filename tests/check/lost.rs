//! Ranges that a repair named as lost, on their way through checkpoint, store and other machines: no object to anybody, counted
//! and no problem to the check.

use super::clean::crashed;
use super::*;
use skylog::format::batch::TreeId;
use skylog::format::inode::Extent;
use skylog::format::key;
use skylog::fs::{Error, Place};
use skylog::map::{Pins, Room};

/// Of a file; so that no object lies across two.
const PART: u64 = 4096;
const PARTS: u64 = 6;

/// A file of [`PARTS`] objects.
fn file(rig: &mut Rig, name: &str) -> InodeNo {
    let ino = create(rig, ROOT, name);
    for n in 0..PARTS {
        write(rig, ino, n * PART, PART as usize);
    }
    ino
}

/// Names its second part and its third as lost, as a repair does.
fn lose(rig: &mut Rig, ino: InodeNo) {
    let pins = Pins::new();
    let mut tx = rig.mounted.db.begin(&pins);
    for n in 1..3 {
        tx.put(TreeId::Files, key::extent(ino, n * PART), Extent::lost(PART as u32).encode());
    }
    tx.commit(Room::Maintenance).expect("committed");
}

/// Which parts of a file can be read.
fn readable(rig: &mut Rig, ino: InodeNo) -> Vec<bool> {
    let read = |n: u64| match rig.run(|fs, cx| fs.read(cx, ino, n * PART, PART as u32)) {
        Ok(bytes) => bytes.len() as u64 == PART,
        Err(Error::Io) => false,
        Err(e) => panic!("{e}"),
    };
    (0..PARTS).map(read).collect()
}

const LOSS: [bool; PARTS as usize] = [true, false, false, true, true, true];

/// The check finds nothing wrong, whatever it looks at, and this loss.
fn assert_clean_with(rig: &Rig, ranges: u64, parts: u64, when: &str) {
    assert_clean_everywhere(rig, when);
    let figures = checked(&rig.store, Some(&rig.disk.image())).figures;
    assert_eq!((figures.lost_ranges, figures.lost_bytes), (ranges, parts * PART), "{when}");
}

fn checkpoint(rig: &mut Rig) {
    rig.mounted.checkpointer.wanted().checkpoint();
    while rig.step_journal() || rig.step_checkpointer() {}
}

/// Everything that can happen to a file with a loss; `pause` comes between.
fn story(seed: u64, pause: fn(&mut Rig)) {
    let mut rig = Rig::new(seed, &small());
    let ino = file(&mut rig, "file");
    pause(&mut rig);
    lose(&mut rig, ino);
    pause(&mut rig);
    assert_clean_with(&rig, 1, 2, "lost");
    assert_eq!(readable(&mut rig, ino), LOSS);

    let copy = create(&mut rig, ROOT, "copy");
    let place = |ino| Place { ino, offset: 0 };
    rig.run(|fs, cx| fs.copy_file_range(cx, place(ino), place(copy), PARTS * PART)).expect("copied");
    rig.run(|fs, cx| fs.rename(cx, ROOT, b"copy", ROOT, b"clone", 0)).expect("renamed");
    pause(&mut rig);
    assert_clean_with(&rig, 2, 4, "copied");
    assert_eq!(readable(&mut rig, copy), LOSS);

    rig.run(|fs, cx| fs.write(cx, ino, PART, &[9; PART as usize / 2])).expect("written");
    pause(&mut rig);
    assert_clean_everywhere(&rig, "healed in part");
    write(&mut rig, ino, 0, 3 * PART as usize);
    pause(&mut rig);
    assert_clean_with(&rig, 1, 2, "healed");
    assert_eq!(readable(&mut rig, ino), [true; PARTS as usize]);

    unlink(&mut rig, ROOT, "file");
    pause(&mut rig);
    assert_clean_with(&rig, 1, 2, "the other is removed");
    let mut rig = rig.remount(seed + 1, &small()).expect("mounts again");
    assert_eq!(readable(&mut rig, copy), LOSS, "after a remount");
    pause(&mut rig);
    unlink(&mut rig, ROOT, "clone");
    pause(&mut rig);
    assert_clean_with(&rig, 0, 0, "removed");
    rig.drain();
    rig.settle();
    assert_clean_everywhere(&rig, "at the end");
    assert_eq!(checked(&rig.store, Some(&rig.disk.image())).figures.objects, 0, "nothing is left to be counted");
}

#[test]
fn what_is_lost_is_no_object_to_anybody_in_the_journal() {
    story(1, |rig| {
        let journal = rig.mounted.db.journal().clone();
        journal.when_durable(rig.mounted.db.last(), Box::new(|_| {}));
        while rig.step_journal() {}
    });
}

#[test]
fn what_is_lost_is_no_object_to_anybody_in_a_checkpoint() {
    story(10, checkpoint);
}

#[test]
fn what_is_lost_is_no_object_to_anybody_in_the_store() {
    story(20, Rig::drain);
}

#[test]
fn what_is_lost_is_lost_on_another_machine_too_and_can_be_healed_there() {
    let mut rig = Rig::new(30, &small());
    let ino = file(&mut rig, "file");
    rig.drain();
    lose(&mut rig, ino);
    rig.drain();
    let mut other = crashed(&rig, &Image::default(), 31);
    assert_eq!(readable(&mut other, ino), LOSS);
    other.run(|fs, cx| fs.write(cx, ino, PART, &[9; 2 * PART as usize])).expect("written");
    other.drain();
    assert_clean_with(&other, 0, 0, "healed elsewhere");
    assert_eq!(readable(&mut other, ino), [true; PARTS as usize]);
}

/// An object of which a file has lost a part is still whole to the other file that names it.
#[test]
fn an_object_lives_on_in_the_copy_of_a_file_that_lost_it() {
    let mut rig = Rig::new(40, &small());
    let ino = file(&mut rig, "file");
    let copy = create(&mut rig, ROOT, "copy");
    let place = |ino| Place { ino, offset: 0 };
    rig.run(|fs, cx| fs.copy_file_range(cx, place(ino), place(copy), PARTS * PART)).expect("copied");
    rig.drain();
    lose(&mut rig, ino);
    rig.drain();
    assert_clean_with(&rig, 1, 2, "one has lost it");
    assert_eq!((readable(&mut rig, ino), readable(&mut rig, copy)), (LOSS.to_vec(), vec![true; PARTS as usize]));
    unlink(&mut rig, ROOT, "copy");
    rig.drain();
    assert_clean_with(&rig, 1, 2, "and the other is gone");
}
