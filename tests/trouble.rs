//! Promises about disks that fail for a while, and about open files, each seen on a whole filesystem over simulated disk and store. A test's name is
//! the promise it keeps; it goes red when the line that keeps it is removed.

use skylog::base::clock::Clock;
use skylog::format::ids::InodeNo;
use skylog::media::sim::{DiskFault, DiskOp, Nth};
use skylog::rig::{Rig, small};
use std::time::Duration;

fn write(rig: &mut Rig, name: &str, len: usize) -> Result<(), skylog::fs::Error> {
    let ino = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644))?.0.ino;
    for offset in (0..len).step_by(8000) {
        rig.run(|fs, cx| fs.write(cx, ino, offset as u64, &vec![7; 8000.min(len - offset)]))?;
    }
    Ok(())
}

fn checkpoint_of(rig: &Rig) -> u64 {
    rig.mounted.db.journal().manifest().current().checkpoint.expect("there is one").number
}

fn failures(rig: &Rig) -> u32 {
    rig.mounted.checkpointer.figures().lock().checkpoint_failures
}

/// A filesystem with changes whose checkpoint fails once, and for as long as nobody heals the disk.
fn failing(op: DiskOp, prefix: &str, fault: DiskFault) -> Rig {
    let mut rig = Rig::new(1, &small());
    write(&mut rig, "shipped", 3000).expect("written");
    rig.drain();
    rig.disk.fail(Nth::new(1).of(op).on(prefix).forever(), fault);
    write(&mut rig, "new", 3000).expect("written");
    rig.mounted.checkpointer.wanted().checkpoint();
    rig.settle();
    assert_eq!((failures(&rig), rig.disk.failed()), (1, 1));
    rig
}

/// Seconds between the next `count` attempts.
fn gaps(rig: &mut Rig, count: usize) -> Vec<u64> {
    let mut gaps = Vec::new();
    let mut gap = 0;
    while gaps.len() < count {
        rig.advance(Duration::from_secs(1));
        let before = failures(rig);
        rig.settle();
        gap += 1;
        assert!(gap < 10_000, "no further attempt after {gaps:?}");
        if failures(rig) > before {
            gaps.push(std::mem::take(&mut gap));
        }
    }
    gaps
}

#[test]
fn promise_r13_a_failing_checkpoint_backs_off_after_three_failures_up_to_an_hour() {
    let mut rig = failing(DiskOp::Write, "ckpt/", DiskFault::NoSpace);
    let minutes = [1, 2, 4, 8, 16, 32, 60, 60].map(|minutes| minutes * 60);
    assert_eq!(gaps(&mut rig, 10), [&[1, 1][..], &minutes].concat());
    rig.disk.heal();
    let before = checkpoint_of(&rig);
    rig.advance(Duration::from_secs(3600));
    rig.settle();
    assert_eq!((checkpoint_of(&rig), failures(&rig)), (before + 1, 0));
    assert_eq!(rig.mounted.checkpointer.figures().lock().last_error, None);
}

#[test]
fn promise_r13_by_hand_a_checkpoint_runs_at_once() {
    let mut rig = failing(DiskOp::Write, "ckpt/", DiskFault::Failed);
    gaps(&mut rig, 6);
    rig.advance(Duration::from_secs(1));
    let before = failures(&rig);
    rig.settle();
    assert_eq!(failures(&rig), before, "nobody asked");
    rig.mounted.checkpointer.wanted().checkpoint();
    rig.settle();
    assert_eq!(failures(&rig), before + 1, "one attempt for one request");
    for _ in 0..100 {
        // As often as an unmount asks, which is no reason to wear the disk out.
        rig.mounted.checkpointer.wanted().checkpoint();
        rig.settle();
    }
    assert_eq!(failures(&rig), before + 1);
    rig.disk.heal();
    rig.advance(Duration::from_secs(1));
    rig.settle();
    assert_eq!(failures(&rig), 0);
}

#[test]
fn promise_r13_changes_that_wait_for_room_do_not_wait_an_hour_for_a_disk_that_healed() {
    let mut rig = failing(DiskOp::Create, "nodes/", DiskFault::NoSpace);
    gaps(&mut rig, 6);
    // More than the journal takes: it ends with an error while the disk is ill.
    let begun = rig.clock.elapsed();
    rig.disk.heal();
    write(&mut rig, "much", 900_000).expect("written once there is room");
    let waited = rig.clock.elapsed() - begun;
    assert!(waited < Duration::from_secs(30), "waited {waited:?}");
    assert_eq!(failures(&rig), 0);
}

#[test]
fn promise_r13_a_failed_checkpoint_leaves_no_file() {
    let cases = [(DiskOp::Write, "nodes/"), (DiskOp::Sync, "nodes/"), (DiskOp::SyncDir, "nodes")];
    let more =
        [(DiskOp::Write, "ckpt/"), (DiskOp::Sync, "ckpt/"), (DiskOp::SyncDir, "ckpt"), (DiskOp::Write, "MANIFEST")];
    for (op, prefix) in cases.into_iter().chain(more) {
        for fault in [DiskFault::Short, DiskFault::NoSpace] {
            let mut rig = Rig::new(2, &small());
            write(&mut rig, "shipped", 3000).expect("written");
            rig.drain();
            let files = |rig: &Rig| {
                let names = rig.disk.image();
                let names = names.names().filter(|name| !name.starts_with("journal/"));
                names.map(str::to_owned).collect::<Vec<_>>()
            };
            let before = files(&rig);
            rig.disk.fail(Nth::new(1).of(op).on(prefix).forever(), fault);
            write(&mut rig, "new", 3000).expect("written");
            rig.mounted.checkpointer.wanted().checkpoint();
            rig.settle();
            assert_eq!((failures(&rig), files(&rig)), (1, before), "{op:?} {prefix} {fault:?}");
            rig.disk.heal();
            rig.drain();
            assert_eq!(failures(&rig), 0);
        }
    }
}

#[test]
fn promise_r13_while_a_checkpoint_backs_off_the_one_before_is_shipped() {
    let mut rig = Rig::new(4, &small());
    rig.drain();
    rig.store.set_down(true);
    write(&mut rig, "first", 3000).expect("written");
    rig.mounted.checkpointer.wanted().checkpoint();
    rig.settle();
    let waiting = |rig: &Rig| rig.mounted.checkpointer.figures().lock().windows_waiting;
    assert_eq!(waiting(&rig), 1);
    rig.disk.fail(Nth::new(1).of(DiskOp::Write).on("ckpt/").forever(), DiskFault::NoSpace);
    write(&mut rig, "second", 3000).expect("written");
    rig.mounted.checkpointer.wanted().checkpoint();
    gaps(&mut rig, 8);
    rig.store.set_down(false);
    let before = failures(&rig);
    for _ in 0..90 {
        rig.advance(Duration::from_secs(1));
        rig.settle();
    }
    assert_eq!((waiting(&rig), failures(&rig)), (0, before), "not shipped while the next checkpoint backs off");
    rig.disk.heal();
    rig.drain();
    assert_eq!((waiting(&rig), failures(&rig)), (0, 0));
}

#[test]
fn promise_g12_few_files_are_open_however_many_segments_of_nodes_there_are() {
    let mut tuning = small();
    tuning.node_cache_bytes = 0;
    tuning.policy.segment_bytes = 1 << 10;
    let mut rig = Rig::new(3, &tuning);
    for n in 0..1500 {
        write(&mut rig, &format!("file-{n}"), 1).expect("written");
    }
    rig.drain();
    let nodes = rig.disk.image().names().filter(|name| name.starts_with("nodes/")).count();
    assert!(nodes > 200, "{nodes} segments of nodes");
    for n in 0..1500 {
        let name = format!("file-{n}");
        assert!(rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, name.as_bytes())).expect("looked up").is_some());
    }
    let open = rig.disk.open_files_max();
    assert!(open < 160, "{open} files were open");
}
