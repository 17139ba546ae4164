//! A batch in the middle of the journal is lost, and later ones count: what it had of a file is not zeros, whatever the later ones say of
//! the file's size.
//!
//! Found by `tests/damage` with `SKYLOG_DAMAGE_SEED=1`: a flip of bit 1 of byte 13094 of `journal/slot-000003` took the second of four
//! writes to `/in the journal`, and the file read zeros there.

use super::*;
use bytes::Bytes;
use skylog::format::batch::Batch;
use skylog::format::group::decode_group;
use skylog::format::ids::InodeNo;
use skylog::fs::{Error, SetAttr};
use std::collections::BTreeMap;
use world::contents;

const ROOT: InodeNo = InodeNo::ROOT;
/// What is looked at together; no write begins or ends inside.
const PIECE: usize = 100;

/// So many batches in a row are lost at most.
const RUN_MAX: usize = 3;
/// A byte of a batch that its checksum covers.
const INSIDE: u64 = 20;

/// Everything that each file held, in order, and the position of the batch with which it held that.
type Versions = BTreeMap<InodeNo, (&'static str, Vec<(u64, Vec<u8>)>)>;

/// A filesystem whose last changes, each in a group of its own, only the journal has.
struct Changed {
    rig: Rig,
    versions: Versions,
}

impl Changed {
    fn create(&mut self, name: &'static str) -> InodeNo {
        let ino = self.rig.run(|fs, cx| fs.create(cx, ROOT, name.as_bytes(), 0o644)).expect("created").0.ino;
        self.versions.insert(ino, (name, vec![(0, Vec::new())]));
        self.end(ino, |_| ());
        ino
    }

    fn write(&mut self, ino: InodeNo, at: usize, len: usize) {
        let (name, versions) = &self.versions[&ino];
        let data = contents(&format!("{name} {}", versions.len()), len);
        let (written, _) = self.rig.run(|fs, cx| fs.write(cx, ino, at as u64, &data)).expect("written");
        assert_eq!(written as usize, len);
        self.end(ino, |version| {
            version.resize(version.len().max(at + len), 0);
            version[at..at + len].copy_from_slice(&data);
        });
    }

    fn truncate(&mut self, ino: InodeNo, size: usize) {
        self.set(ino, &SetAttr { size: Some(size as u64), ..SetAttr::default() });
        self.end(ino, |version| version.resize(size, 0));
    }

    fn chmod(&mut self, ino: InodeNo) {
        self.set(ino, &SetAttr { mode: Some(0o600), ..SetAttr::default() });
        self.end(ino, |_| ());
    }

    fn set(&mut self, ino: InodeNo, set: &SetAttr) {
        self.rig.run(|fs, cx| fs.setattr(cx, ino, *set)).expect("set");
    }

    /// Ends a group.
    fn end(&mut self, ino: InodeNo, change: impl FnOnce(&mut Vec<u8>)) {
        while self.rig.step_journal() {}
        let pos = self.rig.mounted.db.last().pos;
        let (_, versions) = self.versions.get_mut(&ino).expect("created");
        let (_, mut version) = versions.last().expect("there is one").clone();
        change(&mut version);
        versions.push((pos, version));
    }

    fn empty() -> Changed {
        Changed { rig: Rig::new(11, &small()), versions: Versions::new() }
    }

    /// Files that were there, and are changed; and some that are new.
    fn new() -> Changed {
        let mut new = Changed::empty();
        let [sparse, emptied, tiny, least, cut] =
            ["sparse", "emptied", "tiny", "least", "cut"].map(|name| new.create(name));
        new.write(sparse, 0, 5000);
        new.write(sparse, 50_000, 5000);
        new.write(emptied, 0, 8000);
        new.write(tiny, 0, 300);
        new.write(least, 0, 300);
        for at in [0, 8000, 16_000] {
            new.write(cut, at, 8000);
        }
        new.rig.drain();
        let grown = new.create("grown");
        for at in [0, 8000, 16_000, 24_000] {
            new.write(grown, at, 8000);
        }
        new.write(tiny, 300, 100);
        new.chmod(tiny);
        new.write(tiny, 400, 500);
        new.chmod(tiny);
        new.write(least, 300, 100);
        new.chmod(least);
        new.chmod(sparse);
        new.truncate(emptied, 0);
        new.truncate(emptied, 8000);
        new.truncate(cut, 5000);
        new.write(cut, 12_000, 8000);
        new.chmod(cut);
        let short = new.create("short");
        new.write(short, 0, 200);
        new.write(short, 200, 3000);
        new.chmod(short);
        new.rig.mounted.writer.close().expect("closed");
        new
    }

    /// Files whose contents were shipped, then cut off, which was shipped as well; and got new ones that only the journal has.
    fn refilled() -> Changed {
        let mut new = Changed::empty();
        let [long, brief, shrunk, other] = ["long", "brief", "shrunk", "other"].map(|name| new.create(name));
        new.write(long, 0, 8000);
        new.write(brief, 0, 8000);
        for at in [0, 8000, 16_000] {
            new.write(shrunk, at, 8000);
        }
        // So much that what is cut off does not make a segment worth writing anew.
        for at in 0..6 {
            new.write(other, at * 8000, 8000);
        }
        new.rig.drain();
        new.truncate(long, 0);
        new.truncate(brief, 0);
        new.truncate(shrunk, 5000);
        new.rig.drain();
        new.write(long, 0, 8000);
        new.chmod(long);
        new.write(brief, 0, 600);
        new.chmod(brief);
        new.write(shrunk, 8000, 8000);
        new.chmod(shrunk);
        new.truncate(long, 3000);
        new.truncate(long, 9000);
        new.chmod(long);
        new.rig.mounted.writer.close().expect("closed");
        new
    }

    /// Loses each batch that the journal has, by itself and with those behind it. How often batches were missing, and contents.
    fn lose_each(&self) -> (u32, u32) {
        let (store, disk) = (self.rig.store.image(), self.rig.disk.image());
        let batches = batches(&disk);
        let (mut missed, mut lost) = (0, 0);
        for run in (1..=RUN_MAX).flat_map(|len| batches.windows(len)) {
            let place = Place::of(&store, Some(&disk));
            run.iter()
                .for_each(|(name, at, _)| world::flip_file(place.disk.as_ref().expect("there"), name, at + INSIDE));
            let report = place.repair(77, false).unwrap_or_else(|e| panic!("{run:?}: {e}"));
            let when = format!("{run:?}, without {:?}", report.lost);
            place.assert_clean(&when);
            let since = report.lost.first().map_or(run[0].2 - 1, |(from, _)| from.pos);
            missed += u32::from(!report.lost.is_empty());
            lost += u32::from(self.judge(&place, &report, since, &when) > 0);
        }
        (missed, lost)
    }

    /// Every piece of each file is one that it held there with the last batch up to `since`, or later; a hole that no batch tells of
    /// is one still. How many cannot be read.
    fn judge(&self, place: &Place, report: &Report, since: u64, when: &str) -> usize {
        let mut rig = place.mount(5, when);
        let mut lost = 0;
        for (ino, (name, versions)) in &self.versions {
            let Ok(attr) = rig.run(|fs, cx| fs.getattr(cx, *ino)) else {
                assert!(report.may_miss_changes(), "{when}: {name} is gone");
                continue;
            };
            let older = versions.iter().filter(|(pos, _)| *pos <= since).count() - 1;
            let is_told = report.touched.iter().any(|touched| touched.ino == *ino);
            for at in (0..attr.size as usize).step_by(PIECE) {
                match rig.run(|fs, cx| fs.read(cx, *ino, at as u64, PIECE as u32)) {
                    Ok(got) => {
                        let mut had = versions[older..].iter().filter_map(|(_, version)| version.get(at..));
                        let is_right = had.any(|rest| rest.starts_with(&got));
                        assert!(is_right, "{when}: {name} has wrong bytes at {at}: {got:?}; {report:#?}");
                    }
                    Err(e) => {
                        assert!(matches!(e, Error::Io) && is_told, "{when}: {name}: {e}");
                        assert!(*name != "sparse", "{when}: nothing of it was lost");
                        lost += 1;
                    }
                }
            }
        }
        lost
    }
}

/// Where the batches lie in the journal: the file, where each begins, and its position.
fn batches(disk: &Image) -> Vec<(&str, u64, u64)> {
    let mut found = Vec::new();
    for name in disk.names().filter(|name| name.starts_with("journal/")) {
        let (bytes, mut at) = (Bytes::from(disk.file(name).expect("there").to_vec()), 0);
        while let Ok((header, payload, len)) = decode_group(&bytes[at..]) {
            let group = bytes.slice(at..at + payload.end);
            let mut from = payload.start;
            for _ in 0..header.batches {
                let (batch, used) = Batch::decode(&group, from).expect("whole");
                found.push((name, (at + from) as u64, batch.lsn.pos));
                from += used;
            }
            at += len;
        }
    }
    found
}

#[test]
fn what_a_batch_had_that_is_lost_between_others_is_not_zeros() {
    let (missed, lost) = Changed::new().lose_each();
    assert!(missed >= 30 && lost >= 10, "batches were missing {missed} times, contents {lost} times");
}

/// Segments still say where it was, and nothing says that it went but what came before the lost batch.
#[test]
fn what_was_cut_off_before_a_lost_batch_does_not_come_back_in_place_of_what_that_had() {
    let (missed, lost) = Changed::refilled().lose_each();
    assert!(missed >= 15 && lost >= 5, "batches were missing {missed} times, contents {lost} times");
}

/// Where in a sparse file a lost batch had something nothing tells, so all its holes count; there are other files beside it.
#[test]
fn a_sparse_file_that_a_lost_batch_hit_leaves_something_for_others() {
    const GIB: u64 = 1 << 30;
    let mut new = Changed::empty();
    let [sparse, later] = ["sparse", "later"].map(|name| new.create(name));
    new.write(sparse, 0, 8000);
    new.write(later, 0, 8000);
    new.set(sparse, &SetAttr { size: Some(100 * GIB), ..SetAttr::default() });
    new.rig.drain();
    new.rig.run(|fs, cx| fs.write(cx, sparse, 50 * GIB, &[7; 8000])).expect("written");
    while new.rig.step_journal() {}
    new.chmod(sparse);
    new.write(later, 8000, 8000);
    new.chmod(later);
    new.rig.mounted.writer.close().expect("closed");
    let (store, disk) = (new.rig.store.image(), new.rig.disk.image());
    let batches = batches(&disk);
    let place = Place::of(&store, Some(&disk));
    // Both writes; a change of attributes comes after each.
    for (name, at, _) in [&batches[batches.len() - 4], &batches[batches.len() - 2]] {
        world::flip_file(place.disk.as_ref().expect("there"), name, at + INSIDE);
    }
    let report = place.repair(77, false).expect("repaired");
    assert_eq!(report.lost.len(), 2, "{:?}", report.lost);
    place.assert_clean("without both writes");
    let mut rig = place.mount(5, "without both writes");
    let mut read = |ino, at| rig.run(|fs, cx| fs.read(cx, ino, at, 100));
    for (ino, at) in [(sparse, 8000), (sparse, GIB / 2), (later, 8000), (later, 15_900)] {
        assert!(matches!(read(ino, at), Err(Error::Io)), "{ino} at {at}: {:?}", report.touched);
    }
    assert_eq!(rig.run(|fs, cx| fs.getattr(cx, later)).expect("there").size, 16_000);
    let told = report.touched.iter().find(|touched| touched.ino == sparse).expect("told of");
    assert!(told.what.iter().any(|what| what.contains("than can be named")), "{told:?}");
}
