//! The check on whole filesystems in the rig: clean whenever nothing is wrong, and everything that is wrong is named.

mod clean;
mod counting;
mod crashes;
mod damage;
mod depth;
mod edits;
mod far;
mod lost;
mod sharing;
mod trees;

use skylog::check::{Depth, Figures, Report, check};
use skylog::format::ids::InodeNo;
use skylog::media::Media;
use skylog::media::sim::{CallLog, Image, SimDisk};
use skylog::rig::{Rig, small};
use skylog::store::Store;
use skylog::store::sim::SimStore;
use std::sync::Arc;

const ROOT: InodeNo = InodeNo::ROOT;

/// Checks a store, with what a disk held.
fn checked(store: &SimStore, image: Option<&Image>) -> Report {
    let store: Arc<dyn Store> = Arc::new(store.clone());
    let disk = image.map(|image| Arc::new(SimDisk::from_image(image, &CallLog::new())) as Arc<dyn Media>);
    check(&store, disk, Depth::Data, &mut |_, _, _| {})
}

fn assert_clean(report: &Report, when: &str) {
    let lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "{when}: {lines:#?}, skipped {:?}", report.skipped);
}

/// What a mount would find if the process died now, if the power went now, and without the state directory.
fn assert_clean_everywhere(rig: &Rig, when: &str) {
    assert_clean(&checked(&rig.store, Some(&rig.disk.image())), &format!("{when}, process gone"));
    assert_clean(&checked(&rig.store, Some(&rig.disk.image_durable())), &format!("{when}, power gone"));
    assert_clean(&checked(&rig.store, None), &format!("{when}, store alone"));
}

fn create(rig: &mut Rig, dir: InodeNo, name: &str) -> InodeNo {
    let ino = rig.run(|fs, cx| fs.create(cx, dir, name.as_bytes(), 0o644)).expect("created").0.ino;
    rig.run(|fs, cx| fs.release(cx, ino)).expect("released");
    rig.run(|fs, cx| fs.forget(cx, ino, 1)).expect("forgotten");
    ino
}

fn mkdir(rig: &mut Rig, dir: InodeNo, name: &str) -> InodeNo {
    let ino = rig.run(|fs, cx| fs.mkdir(cx, dir, name.as_bytes(), 0o755)).expect("made").0.ino;
    rig.run(|fs, cx| fs.forget(cx, ino, 1)).expect("forgotten");
    ino
}

fn write(rig: &mut Rig, ino: InodeNo, offset: u64, len: usize) {
    let data: Vec<u8> = (0..len).map(|i| (i as u64 * 7 + offset + ino.0) as u8).collect();
    let mut at = 0;
    while at < len {
        let (done, _) = rig.run(|fs, cx| fs.write(cx, ino, offset + at as u64, &data[at..])).expect("written");
        at += done as usize;
    }
}

fn unlink(rig: &mut Rig, dir: InodeNo, name: &str) {
    rig.run(|fs, cx| fs.unlink(cx, dir, name.as_bytes())).expect("unlinked");
}
