//! Promises of checkpoint, shipping and recovery, each seen on a whole filesystem over simulated disk and store. A test's
//! name is the promise it keeps; it goes red when the line that keeps it is removed.

use skylog::base::clock::Clock;
use skylog::base::random::SeededRandom;
use skylog::checkpoint::Policy;
use skylog::format::ids::InodeNo;
use skylog::format::publication::{Body, Publication};
use skylog::media::Media;
use skylog::media::sim::{Call, CallLog, DiskCall, DiskFault, DiskOp, Nth, SimDisk};
use skylog::recovery::{MkfsOptions, MountError, Tuning, mkfs};
use skylog::rig::{Rig, small};
use skylog::store::Store;
use skylog::store::sim::{SimStore, StoreFault, StoreOp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ROOT: InodeNo = InodeNo::ROOT;

fn bytes(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((i * 31 + n * 17) % 251) as u8).collect()
}

fn put(rig: &mut Rig, name: &str, data: &[u8]) -> InodeNo {
    let ino = match rig.run(|fs, cx| fs.lookup(cx, ROOT, name.as_bytes())).expect("looked up") {
        Some(attr) => attr.ino,
        None => rig.run(|fs, cx| fs.create(cx, ROOT, name.as_bytes(), 0o644)).expect("created").0.ino,
    };
    for (i, part) in data.chunks(8000).enumerate() {
        rig.run(|fs, cx| fs.write(cx, ino, i as u64 * 8000, part)).expect("written");
    }
    ino
}

fn get(rig: &mut Rig, name: &str) -> Option<Vec<u8>> {
    let attr = rig.run(|fs, cx| fs.lookup(cx, ROOT, name.as_bytes())).expect("looked up")?;
    let mut found = Vec::new();
    loop {
        let more = rig.run(|fs, cx| fs.read(cx, attr.ino, found.len() as u64, 65536)).expect("read");
        if more.is_empty() {
            return Some(found);
        }
        found.extend(more);
    }
}

/// The daemon is killed; the machine lives on.
fn kill(rig: Rig, seed: u64) -> Result<Rig, MountError> {
    let Rig { disk, store, clock, .. } = rig;
    let log = CallLog::new();
    let disk = SimDisk::from_image(&disk.image(), &log);
    let store = SimStore::from_image(&store.image(), &log);
    Rig::mount(log, disk, store, clock, seed, &small())
}

fn kill_and_mount(rig: Rig, seed: u64) -> Rig {
    kill(rig, seed).expect("mounts after a kill")
}

fn from_store_alone(rig: &Rig, seed: u64) -> Rig {
    let log = CallLog::new();
    let store = SimStore::from_image(&rig.store.image(), &log);
    Rig::mount(log.clone(), SimDisk::new(&log), store, rig.clock.clone(), seed, &small())
        .expect("mounts from the store")
}

fn publications(rig: &Rig) -> Vec<Publication> {
    let names = rig.store.list("gen").expect("listed");
    names.iter().map(|n| Publication::decode(&rig.store.get(n).expect("read")).expect("decodes")).collect()
}

#[test]
fn promise_s6_all_before_a_checkpoint_is_durable_before_the_commit_point_names_it() {
    let mut rig = Rig::new(1, &small());
    rig.settle();
    let before = rig.mounted.db.journal().manifest().current().checkpoint.expect("a checkpoint").number;
    put(&mut rig, "file", &bytes(1, 5000));
    rig.mounted.checkpointer.wanted().checkpoint();
    for _ in 0..20 {
        rig.step_checkpointer();
    }
    let now = |rig: &Rig| rig.mounted.db.journal().manifest().current().checkpoint.expect("a checkpoint");
    assert_eq!(now(&rig).number, before, "committed while its batches were not durable");
    while rig.step_journal() {}
    for _ in 0..20 {
        rig.step_checkpointer();
    }
    assert_eq!(now(&rig).number, before + 1);
    assert!(now(&rig).lsn <= rig.mounted.db.journal().durable());
}

#[test]
fn promise_s6_the_journal_goes_only_when_its_live_data_is_in_the_store() {
    let mut rig = Rig::new(2, &small());
    rig.settle();
    for n in 0..12 {
        put(&mut rig, &format!("file-{n}"), &bytes(n, 16_000));
        rig.step_journal();
    }
    rig.mounted.checkpointer.wanted().checkpoint();
    for _ in 0..50 {
        rig.step_journal();
        rig.step_checkpointer();
    }
    assert_eq!(rig.mounted.db.journal().stats().recycled, 0, "reclaimed before it was shipped");
    let mut rig = kill_and_mount(rig, 3);
    assert_eq!(get(&mut rig, "file-7"), Some(bytes(7, 16_000)), "checkpointed, and read from the journal");
    rig.drain();
    assert!(rig.mounted.db.journal().stats().recycled > 0, "shipped, and never reclaimed");
    assert_eq!(get(&mut rig, "file-7"), Some(bytes(7, 16_000)));
}

#[test]
fn promise_s9_replay_takes_the_newest_commit_point_later_versions_win_and_numbers_go_on() {
    let mut rig = Rig::new(3, &small());
    put(&mut rig, "file", &bytes(1, 3000));
    rig.drain();
    let old = put(&mut rig, "file", &bytes(2, 3000));
    let open = rig.run(|fs, cx| fs.create(cx, ROOT, b"open", 0o644)).expect("created").0.ino;
    rig.run(|fs, cx| fs.write(cx, open, 0, &bytes(3, 3000))).expect("written");
    rig.run(|fs, cx| fs.unlink(cx, ROOT, b"open")).expect("unlinked while open");
    rig.advance(Duration::from_secs(2));
    while rig.step_journal() {}
    let mut rig = kill_and_mount(rig, 4);
    assert_eq!(get(&mut rig, "file"), Some(bytes(2, 3000)));
    let new = put(&mut rig, "new", b"x");
    assert!(new > open && open > old, "inode {new} after {open}");
    assert!(rig.run(|fs, cx| fs.getattr(cx, open)).is_err(), "an unlinked file came back");
}

#[test]
fn promise_s10_no_checkpoint_when_nothing_changed() {
    let mut rig = Rig::new(5, &small());
    put(&mut rig, "file", &bytes(1, 3000));
    rig.drain();
    rig.settle();
    let checkpoint = rig.mounted.db.journal().manifest().current().checkpoint;
    let published = publications(&rig).len();
    // What the drain listed for deletion is deleted a little later, which one more batch records.
    rig.advance(Duration::from_secs(600));
    rig.settle();
    let (last, syncs) = (rig.mounted.db.last(), rig.mounted.db.journal().stats().syncs);
    for _ in 0..100 {
        rig.advance(Duration::from_secs(600));
        rig.mounted.checkpointer.wanted().checkpoint();
        rig.settle();
    }
    assert_eq!(rig.mounted.db.last(), last, "an idle filesystem logs on");
    assert!(rig.mounted.db.journal().stats().syncs <= syncs + 1, "an idle filesystem syncs on");
    assert_eq!(rig.mounted.db.journal().manifest().current().checkpoint, checkpoint);
    assert_eq!(publications(&rig).len(), published);
}

#[test]
fn promise_s10_a_store_that_is_away_makes_writers_wait_when_the_journal_is_full_and_heals() {
    let mut rig = Rig::new(6, &small());
    let ino = put(&mut rig, "file", &bytes(1, 3000));
    rig.drain();
    rig.store.set_down(true);
    let mut waited = false;
    for n in 0..200u64 {
        let mut cx = skylog::fs::Cx { now: rig.clock.now(), ..Default::default() };
        let fs = rig.fs.clone();
        let wrote = fs.write(&cx, ino, n * 8000, &bytes(n, 8000));
        if matches!(wrote, Err(skylog::fs::Stop::Wait(skylog::map::Wait::Pressure))) {
            waited = true;
            break;
        }
        cx.now = rig.clock.now();
        rig.step_journal();
        rig.step_checkpointer();
        rig.advance(Duration::from_millis(300));
    }
    assert!(waited, "a full journal took everything");
    let attr = rig.run(|fs, cx| fs.lookup(cx, ROOT, b"file")).expect("reads go on").expect("there");
    assert_eq!(attr.ino, ino);
    rig.run(|fs, cx| fs.unlink(cx, ROOT, b"file")).expect("what frees space has its reserve");
    rig.store.set_down(false);
    put(&mut rig, "after", &bytes(9, 8000));
    rig.drain();
    assert_eq!(get(&mut rig, "after"), Some(bytes(9, 8000)));
}

#[test]
fn promise_r9_a_sync_does_not_wait_for_a_checkpoint_in_the_making() {
    let mut rig = Rig::new(7, &small());
    put(&mut rig, "file", &bytes(1, 30_000));
    rig.mounted.checkpointer.wanted().checkpoint();
    rig.step_checkpointer();
    put(&mut rig, "other", &bytes(2, 3000));
    let synced = Arc::new(AtomicBool::new(false));
    let told = synced.clone();
    let db = rig.mounted.db.clone();
    db.journal().when_durable(db.last(), Box::new(move |r| told.store(r.is_ok(), Ordering::SeqCst)));
    while rig.step_journal() {}
    assert!(synced.load(Ordering::SeqCst), "the sync waited for the checkpointer");
}

#[test]
fn promise_r10_a_torn_tail_is_cut_and_all_before_it_is_there() {
    let mut rig = Rig::new(28, &small());
    for n in 0..5 {
        put(&mut rig, &format!("file-{n}"), &bytes(n, 6000));
    }
    rig.advance(Duration::from_secs(2));
    while rig.step_journal() {}
    put(&mut rig, "late", &bytes(9, 6000));
    rig.advance(Duration::from_millis(300));
    let before = rig.log.len();
    rig.step_journal();
    let calls = rig.log.calls();
    let group = calls[before..].iter().find_map(|call| match call {
        Call::Disk(_, DiskCall::Write { file, patch }) => Some((*file, patch.end() - patch.len(), patch.len())),
        _ => None,
    });
    let (file, at, len) = group.expect("a group was written, and not synced");
    let slot = calls.iter().rev().find_map(|call| match call {
        Call::Disk(_, DiskCall::Create { name, file: made }) if *made == file => Some(name.to_string()),
        _ => None,
    });
    let slot = slot.expect("the slot was made");
    assert!(slot.starts_with("journal/"), "{slot}");
    let log = CallLog::new();
    let disk = SimDisk::from_image(&rig.disk.image(), &log);
    let torn = vec![0; usize::try_from(len / 2).expect("small")];
    disk.open(&slot).and_then(|f| f.write_at(&torn, at + len / 2)).expect("torn");
    let store = SimStore::from_image(&rig.store.image(), &log);
    let mut rig = Rig::mount(log, disk, store, rig.clock.clone(), 29, &small()).expect("a torn tail is no damage");
    for n in 0..5 {
        assert_eq!(get(&mut rig, &format!("file-{n}")), Some(bytes(n, 6000)));
    }
    assert_eq!(get(&mut rig, "late"), None, "its group was torn");
    put(&mut rig, "after", b"goes on");
    rig.drain();
    assert_eq!(get(&mut rig, "after"), Some(b"goes on".to_vec()));
}

#[test]
fn promise_r10_damage_before_durable_groups_is_refused_with_the_command_to_run() {
    let mut rig = Rig::new(8, &small());
    for n in 0..5 {
        put(&mut rig, &format!("file-{n}"), &bytes(n, 6000));
        rig.advance(Duration::from_secs(2));
        while rig.step_journal() {}
    }
    let image = rig.disk.image();
    let slot = image.names().find(|n| n.starts_with("journal/")).expect("a journal segment").to_owned();
    let damage = |at: u64| {
        let log = CallLog::new();
        let disk = SimDisk::from_image(&image, &log);
        disk.open(&slot).and_then(|f| f.write_at(&[0xff; 64], at)).expect("damaged");
        let store = SimStore::from_image(&rig.store.image(), &log);
        Rig::mount(log, disk, store, rig.clock.clone(), 9, &small())
    };
    let refused = damage(8192 + 200).err().expect("damage before durable groups is refused").to_string();
    assert!(refused.contains("skylog check") && refused.contains("segment"), "{refused}");
}

#[test]
fn promise_r10_a_long_load_shows_its_progress() {
    let mut rig = Rig::new(9, &small());
    for n in 0..5 {
        put(&mut rig, &format!("file-{n}"), &bytes(n, 6000));
    }
    rig.advance(Duration::from_secs(2));
    while rig.step_journal() {}
    let mut heard = Vec::new();
    let world = rig.world.clone();
    drop(rig);
    skylog::recovery::mount(&world, &small(), &mut |done, total| heard.push((done, total))).expect("mounts");
    let (done, total) = *heard.last().expect("progress was shown");
    assert!(done > 0 && done <= total, "{done} of {total}");
    assert!(heard.is_sorted());
}

/// Whether the call is about a name in a folder of a checkpoint.
fn of_checkpoint(name: &str) -> bool {
    name.starts_with("ckpt/") || name.starts_with("nodes/")
}

#[test]
fn promise_r12_new_files_are_synced_then_the_manifest_names_them_then_old_ones_go() {
    let mut rig = Rig::new(30, &small());
    put(&mut rig, "file", &bytes(1, 3000));
    rig.drain();
    put(&mut rig, "file", &bytes(2, 3000));
    rig.advance(Duration::from_secs(2));
    while rig.step_journal() {}
    let before = rig.log.len();
    let number = |rig: &Rig| rig.mounted.db.journal().manifest().current().checkpoint.map(|c| c.number);
    let old = number(&rig);
    rig.mounted.checkpointer.wanted().checkpoint();
    while number(&rig) == old {
        assert!(rig.step_checkpointer(), "no checkpoint was made");
    }
    // The last change of the manifest is the one that names the new checkpoint.
    let calls: Vec<Call> = rig.log.calls().split_off(before);
    let named = |call: &Call| matches!(call, Call::Disk(_, DiskCall::Rename { to, .. }) if &**to == "MANIFEST");
    let commit = calls.iter().rposition(named).expect("the manifest was changed");
    let mut made = 0;
    for (at, call) in calls[..commit].iter().enumerate() {
        match call {
            Call::Disk(_, DiskCall::Create { name, file }) if of_checkpoint(name) => {
                made += 1;
                let folder = name.split('/').next();
                let later = &calls[at..commit];
                let synced = |call: &Call| matches!(call, Call::Disk(_, DiskCall::Sync { file: f }) if f == file);
                let listed =
                    |call: &Call| matches!(call, Call::Disk(_, DiskCall::SyncDir { dir }) if Some(&**dir) == folder);
                assert!(later.iter().any(synced), "{name} was named before it was synced");
                assert!(later.iter().any(listed), "{name} was named before its name was durable");
            }
            Call::Disk(_, DiskCall::Remove { name }) => assert!(!of_checkpoint(name), "{name} went too early"),
            _ => {}
        }
    }
    assert!(made >= 3, "{made} files made");
    rig.drain();
    let calls = rig.log.calls().split_off(before + commit);
    let root = |call: &Call| matches!(call, Call::Disk(_, DiskCall::SyncDir { dir }) if dir.is_empty());
    let gone = |call: &Call| matches!(call, Call::Disk(_, DiskCall::Remove { name }) if of_checkpoint(name));
    let durable = calls.iter().position(root).expect("the manifest's name was made durable");
    let removed = calls.iter().position(gone).expect("old files went");
    assert!(durable < removed, "old files went before the manifest was durable");
}

#[test]
fn promise_r12_old_files_may_fail_to_go() {
    let mut rig = Rig::new(10, &small());
    put(&mut rig, "file", &bytes(1, 3000));
    rig.drain();
    rig.disk.fail(Nth::new(1).of(DiskOp::Remove).on("ckpt").forever(), DiskFault::Failed);
    put(&mut rig, "file", &bytes(2, 3000));
    rig.mounted.checkpointer.wanted().checkpoint();
    for _ in 0..30 {
        rig.step();
        rig.advance(Duration::from_secs(2));
    }
    assert!(rig.disk.failed() > 0, "nothing failed");
    let mut rig = kill_and_mount(rig, 11);
    assert_eq!(get(&mut rig, "file"), Some(bytes(2, 3000)));
    rig.drain();
    let left = rig.disk.list("ckpt").expect("listed");
    assert!(left.len() <= 1, "left over: {left:?}");
}

#[test]
fn promise_g3_a_lost_or_damaged_copy_of_a_node_segment_is_fetched_again() {
    let mut rig = Rig::new(12, &small());
    for n in 0..50 {
        put(&mut rig, &format!("file-{n}"), &bytes(n, 3000));
    }
    rig.drain();
    let mut rig = from_store_alone(&rig, 13);
    assert_eq!(get(&mut rig, "file-3"), Some(bytes(3, 3000)));
    rig.drain();
    put(&mut rig, "one", b"more");
    rig.drain();
    // A base is published by now, so every node segment has its copy in the store.
    let uploaded = rig.store.list("seg").expect("listed");
    let local = rig.disk.list("nodes").expect("listed");
    let mut lost = 0;
    for name in local {
        let (epoch, number) = name.split_once('-').expect("epoch and number");
        if uploaded.contains(&format!("seg/{epoch}/{number}")) {
            let local = format!("nodes/{name}");
            match lost % 2 {
                0 => rig.disk.remove(&local).expect("removed"),
                _ => rig.disk.open(&local).and_then(|f| f.write_at(&[0xff; 4096], 0)).expect("damaged"),
            }
            lost += 1;
        }
    }
    assert!(lost > 1, "only {lost} node segments were both local and in the store");
    let mut rig = kill_and_mount(rig, 14);
    for n in 0..50 {
        assert_eq!(get(&mut rig, &format!("file-{n}")), Some(bytes(n, 3000)));
    }
}

#[test]
fn promise_g4_nothing_committed_says_what_to_run() {
    let log = CallLog::new();
    let rig = Rig::new(15, &small());
    let error = Rig::mount(log.clone(), SimDisk::new(&log), SimStore::new(&log), rig.clock.clone(), 1, &small());
    let said = error.err().expect("an empty store cannot be mounted").to_string();
    assert!(said.contains("skylog mkfs"), "{said}");
}

#[test]
fn promise_g5_what_was_put_and_never_published_is_never_read_and_is_removed() {
    let mut rig = Rig::new(16, &small());
    put(&mut rig, "file", &bytes(1, 20_000));
    rig.drain();
    put(&mut rig, "file", &bytes(2, 20_000));
    rig.store.fail(Nth::new(1).of(StoreOp::Create).forever(), StoreFault::Refused);
    rig.mounted.checkpointer.wanted().checkpoint();
    let before = rig.store.list("seg").expect("listed");
    rig.settle();
    let orphans: Vec<_> = rig.store.list("seg").expect("listed").into_iter().filter(|n| !before.contains(n)).collect();
    assert!(!orphans.is_empty(), "nothing was put before the publication failed");
    let mut alone = from_store_alone(&rig, 17);
    assert_eq!(get(&mut alone, "file"), Some(bytes(1, 20_000)), "the store alone knows what was published");
    rig.store.heal();
    let mut rig = kill_and_mount(rig, 18);
    assert_eq!(get(&mut rig, "file"), Some(bytes(2, 20_000)));
    rig.drain();
    put(&mut rig, "more", &bytes(3, 3000));
    rig.drain();
    rig.advance(Duration::from_secs(5));
    rig.settle();
    let left = rig.store.list("seg").expect("listed");
    assert!(orphans.iter().all(|name| !left.contains(name)), "orphans {orphans:?} are still among {left:?}");
    assert_eq!(get(&mut rig, "file"), Some(bytes(2, 20_000)));
}

#[test]
fn promise_g5_what_is_dead_stays_for_the_grace_time_and_then_goes() {
    let policy = Policy { grace: Duration::from_secs(3600), ..small().policy };
    let mut rig = Rig::new(31, &Tuning { policy, ..small() });
    put(&mut rig, "file", &bytes(1, 30_000));
    rig.drain();
    // The other segments are small, and hold nodes.
    let large = |name: &String| rig.store.size(name).expect("there") > 16_000;
    let dead: Vec<String> = rig.store.list("seg").expect("listed").into_iter().filter(large).collect();
    assert!(!dead.is_empty());
    put(&mut rig, "file", &bytes(2, 30_000));
    rig.drain();
    put(&mut rig, "other", &bytes(3, 3000));
    rig.drain();
    let still_there = |rig: &Rig| {
        let there = rig.store.list("seg").expect("listed");
        dead.iter().filter(|name| there.contains(name)).count()
    };
    for minute in 0..58 {
        assert_eq!(still_there(&rig), dead.len(), "gone after {minute} minutes");
        rig.advance(Duration::from_secs(60));
        rig.settle();
    }
    rig.advance(Duration::from_secs(240));
    rig.settle();
    assert_eq!(still_there(&rig), 0, "dead, and there after the grace time");
    assert_eq!(get(&mut rig, "file"), Some(bytes(2, 30_000)));
}

#[test]
fn promise_q1_the_highest_generation_is_current_and_foreign_names_are_ignored() {
    let mut rig = Rig::new(19, &small());
    for n in 0..12 {
        put(&mut rig, "file", &bytes(n, 3000));
        rig.drain();
    }
    let generations: Vec<u64> = publications(&rig).iter().map(|p| p.generation).collect();
    assert!(generations.is_sorted(), "{generations:?}");
    assert!(generations.last() > generations.first(), "never a new generation");
    rig.store.put("gen/notes.txt", "foreign".into()).expect("put");
    rig.store.put("gen/a-folder/0000000000", "foreign".into()).expect("put");
    let mut rig = from_store_alone(&rig, 20);
    assert_eq!(get(&mut rig, "file"), Some(bytes(11, 3000)));
}

#[test]
fn promise_q2_a_generation_starts_with_a_base_and_a_new_one_starts_when_increments_are_many() {
    let mut rig = Rig::new(21, &small());
    let mut bases = 0;
    for n in 0..12 {
        put(&mut rig, "file", &bytes(n, 3000));
        // Bases keep a distance in time.
        rig.advance(Duration::from_secs(60));
        rig.drain();
        for publication in publications(&rig) {
            match publication.body {
                Body::Base(_) => assert_eq!(publication.number, 0, "a base in the middle"),
                Body::Increment(_) | Body::Log(_) => assert!(publication.number > 0, "a generation without a base"),
                Body::Closing(_) => {}
            }
        }
        bases = bases.max(publications(&rig).iter().map(|p| p.generation).max().unwrap_or(0));
    }
    assert!(bases >= 4, "{bases} generations after 12 windows with a base every 3 increments");
}

#[test]
fn promise_q3_leftovers_of_unfinished_work_are_ignored_and_cleaned_at_open() {
    let mut rig = Rig::new(22, &small());
    put(&mut rig, "file", &bytes(1, 3000));
    rig.drain();
    for name in [
        "ckpt/0000009999",
        "ckpt/0000009999.plan",
        "nodes/0000000001-0000000000009999",
        "nodes/0000000001-0000000000009999.part",
    ] {
        rig.disk.create(name).and_then(|f| f.write_at(b"half", 0)).expect("left over");
    }
    let mut rig = kill_and_mount(rig, 23);
    rig.settle();
    let mut left = rig.disk.list("ckpt").expect("listed");
    left.extend(rig.disk.list("nodes").expect("listed"));
    let error = rig.mounted.checkpointer.figures().lock().last_error.clone();
    assert!(left.iter().all(|name| !name.contains("9999")), "{left:?} {error:?}");
    assert_eq!(get(&mut rig, "file"), Some(bytes(1, 3000)));
}

#[test]
fn promise_g11_a_filesystem_is_never_made_over_something() {
    let rig = Rig::new(24, &small());
    let options = MkfsOptions { segment_size: 64 << 10, ..MkfsOptions::default() };
    let random = SeededRandom::new(1);
    let twice = mkfs(&rig.store, &*rig.clock, &random, options).expect_err("there is one").to_string();
    assert!(twice.contains("already"), "{twice}");
    let foreign = SimStore::new(&CallLog::new());
    foreign.put("holiday.jpg", "precious".into()).expect("put");
    let refused = mkfs(&foreign, &*rig.clock, &random, options).expect_err("not empty").to_string();
    assert!(refused.contains("holiday.jpg"), "{refused}");
    assert_eq!(foreign.list("").expect("listed"), ["holiday.jpg"]);
}

#[test]
fn a_writer_that_was_taken_over_is_fenced_and_keeps_its_journal() {
    let mut rig = Rig::new(25, &small());
    put(&mut rig, "file", &bytes(1, 3000));
    rig.drain();
    let log = rig.log.clone();
    let mut other = Rig::mount(log.clone(), SimDisk::new(&log), rig.store.clone(), rig.clock.clone(), 99, &small())
        .expect("takes over");
    put(&mut other, "theirs", &bytes(2, 3000));
    other.drain();
    put(&mut rig, "ours", &bytes(3, 3000));
    rig.mounted.checkpointer.wanted().checkpoint();
    let job = loop {
        let worked = rig.step_journal() | rig.step_checkpointer();
        match rig.mounted.desk.take_job() {
            Some(job) => break job,
            None => assert!(worked, "no job was given"),
        }
    };
    let fenced = rig.mounted.shipper.run(&job).expect_err("the other one owns the store").to_string();
    assert!(fenced.contains("taken over"), "{fenced}");
    assert_eq!(get(&mut rig, "ours"), Some(bytes(3, 3000)), "its own changes are still there");
    let refused = kill(rig, 27).err().expect("its state does not mount over the other's").to_string();
    assert!(refused.contains("taken over") && refused.contains("--state"), "{refused}");
    assert_eq!(get(&mut other, "theirs"), Some(bytes(2, 3000)));
    assert_eq!(get(&mut other, "ours"), None);
}
