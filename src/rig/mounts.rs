//! Mounts whose store does not answer.

use super::{Rig, small};
use crate::checkpoint::nodes::NODES;
use crate::format::ids::InodeNo;
use crate::format::names::SUPERBLOCK;
use crate::media::sim::{Nth, SimDisk};
use crate::recovery::MountError;
use crate::store::sim::{StoreFault, StoreOp};

fn make(rig: &mut Rig, name: &str) {
    let (attr, _) = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created");
    rig.run(|fs, cx| fs.write(cx, attr.ino, 0, &[7; 5000])).expect("written");
    rig.run(|fs, cx| fs.release(cx, attr.ino)).expect("released");
}

fn has(rig: &mut Rig, name: &str) -> bool {
    rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, name.as_bytes())).expect("looked up").is_some()
}

fn a_used_filesystem() -> Rig {
    let mut rig = Rig::new(1, &small());
    for n in 0..20 {
        make(&mut rig, &format!("file {n}"));
    }
    rig.drain();
    make(&mut rig, "in the journal alone");
    rig
}

#[test]
fn local_state_is_mounted_without_the_store_and_ships_when_it_is_back() {
    let rig = a_used_filesystem();
    rig.store.set_down(true);
    let mut rig = rig.remount(2, &small()).expect("mounts");
    let figures = rig.mounted.checkpointer.figures();
    assert!(figures.lock().offline);
    assert!(has(&mut rig, "file 3") && has(&mut rig, "in the journal alone"));
    let checkpoint = figures.lock().checkpoint;
    make(&mut rig, "made meanwhile");
    rig.mounted.checkpointer.wanted().checkpoint();
    for _ in 0..100 {
        rig.step();
    }
    assert!(figures.lock().checkpoint > checkpoint, "checkpoints go on");
    assert!(figures.lock().offline);

    rig.store.set_down(false);
    rig.advance(std::time::Duration::from_secs(60));
    rig.drain();
    assert!(!figures.lock().offline);
    let Rig { log, store, clock, .. } = rig;
    let mut other = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 3, &small()).expect("from the store");
    assert!(has(&mut other, "made meanwhile") && has(&mut other, "in the journal alone"));
}

#[test]
fn what_the_store_alone_has_is_not_mounted_without_it() {
    let Rig { log, store, clock, .. } = a_used_filesystem();
    store.set_down(true);
    let refused = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 2, &small()).err().expect("refused");
    assert!(matches!(refused, MountError::NotLocal { .. }), "{refused}");
    let sentence = refused.to_string();
    assert!(sentence.contains("does not hold the filesystem") && !sentence.contains('\n'), "{sentence}");
}

#[test]
fn local_state_without_its_nodes_is_not_mounted_without_the_store() {
    let mut rig = a_used_filesystem();
    rig.drain();
    for name in rig.world.media.list(NODES).expect("listed") {
        rig.world.media.remove(&format!("{NODES}/{name}")).expect("removed");
    }
    rig.store.set_down(true);
    let refused = rig.remount(3, &small()).err().expect("refused");
    assert!(matches!(refused, MountError::NotLocal { .. }), "{refused}");
}

#[test]
fn a_store_that_refuses_is_not_away() {
    let rig = a_used_filesystem();
    rig.store.fail(Nth::new(1).of(StoreOp::Get).on(SUPERBLOCK), StoreFault::Refused);
    let refused = rig.remount(2, &small()).err().expect("refused");
    assert!(matches!(refused, MountError::Store(_)), "{refused}");
}
