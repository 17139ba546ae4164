//! What stays in the store of generations that have ended.

use super::{Rig, small};
use crate::base::clock::{Clock, SimClock, Time};
use crate::format::ids::InodeNo;
use crate::format::names;
use crate::format::publication::{Body, Position, Publication};
use crate::journal::Journal;
use crate::media::sim::SimDisk;
use crate::ship::publish::read;
use crate::store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn publish_some(rig: &mut Rig, times: usize) {
    for n in 0..times {
        let name = format!("file {n} at {:?}", rig.mounted.db.last());
        let (attr, _) = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created");
        rig.run(|fs, cx| fs.release(cx, attr.ino)).expect("released");
        rig.drain();
        // A base is worth its work now and then only.
        rig.advance(Duration::from_secs(60));
    }
}

/// The numbers in the store, by generation.
fn numbers(rig: &Rig) -> BTreeMap<u64, Vec<u64>> {
    let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for name in rig.store.image().names().filter(|name| name.starts_with("gen/")) {
        let mut parts = name.split('/').skip(1).map(|part| part.parse().expect("a number"));
        let generation = parts.next().expect("a generation");
        found.entry(generation).or_default().push(parts.next().expect("a number"));
    }
    found
}

/// Every generation but the newest two has its first number, its closing object and the number before that, and no other.
fn assert_only_ends(rig: &Rig) -> usize {
    let mut found = numbers(rig);
    // What the newest has put an end to is deleted after an increment has listed it.
    found.pop_last().and_then(|_| found.pop_last()).expect("there are two");
    for (&generation, numbers) in &found {
        let closing = *numbers.last().expect("not empty");
        let last = read(&rig.store, Position { generation, number: closing }).expect("nothing fails").expect("listed");
        assert!(matches!(last.body, Body::Closing(_)), "generation {generation} ends at {closing}");
        assert!(numbers.iter().all(|number| [0, closing - 1, closing].contains(number)), "{generation}: {numbers:?}");
    }
    found.values().filter(|numbers| numbers.len() == 3 && numbers[1] > 1).count()
}

#[test]
fn of_a_generation_that_has_ended_its_ends_stay() {
    let mut rig = Rig::new(1, &small());
    publish_some(&mut rig, 40);
    assert!(assert_only_ends(&rig) >= 5, "{:?}", numbers(&rig));
}

#[test]
fn what_a_writer_published_and_could_not_record_goes_after_a_takeover() {
    let mut rig = Rig::new(1, &small());
    publish_some(&mut rig, 4);
    let (&generation, before) = numbers(&rig).last_key_value().map(|(g, n)| (g, n.len() as u64)).expect("one");
    // Increments of which no space tree that a reader finds knows.
    let sample = read(&rig.store, Position { generation, number: before - 1 }).expect("nothing fails").expect("there");
    for number in before..before + 5 {
        let log = Body::Log(crate::format::publication::Log::default());
        let more = crate::format::publication::Publication { number, start: sample.end, body: log, ..sample.clone() };
        rig.store.create(&names::publication(generation, number), more.encode().into()).expect("nothing fails");
    }
    let Rig { log, store, clock, .. } = rig;
    let mut other = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 3, &small()).expect("taken over");
    publish_some(&mut other, 12);
    assert_only_ends(&other);
    let left = &numbers(&other)[&generation];
    assert_eq!(left[..], [0, before + 4, before + 5], "generation {generation}, {before} numbers before");
}

/// A clock at whose every look somebody else could act, and would see what is in the store.
struct Looks {
    clock: Arc<SimClock>,
    store: Arc<dyn Store>,
    journal: Arc<Journal>,
    /// So often a log was there that a base would not have carried.
    left_out: AtomicU32,
}

impl Clock for Looks {
    fn now(&self) -> Time {
        self.clock.now()
    }

    fn elapsed(&self) -> Duration {
        let (published, names) = (self.journal.tail().published(), self.store.list("gen").expect("listed"));
        for name in names {
            let found = Publication::decode(&self.store.get(&name).expect("listed")).expect("decodes");
            let left_out = matches!(found.body, Body::Log(_)) && found.end > published.end();
            self.left_out.fetch_add(u32::from(left_out), Ordering::Relaxed);
        }
        self.clock.elapsed()
    }

    fn elapsed_asleep(&self) -> Duration {
        self.elapsed()
    }
}

#[test]
fn a_log_that_is_published_is_noted_before_a_base_can_leave_it_out() {
    let mut rig = Rig::new(3, &small());
    publish_some(&mut rig, 1);
    let journal = rig.mounted.db.journal().clone();
    journal.tail().set_open(true);
    let (clock, store) = (rig.clock.clone(), rig.world.store.clone());
    let looks = Arc::new(Looks { clock, store, journal: journal.clone(), left_out: AtomicU32::new(0) });
    rig.mounted.syncer.set_clock(looks.clone());
    rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, b"synced", 0o644)).expect("created");
    let last = rig.mounted.db.last();
    journal.when_durable(last, Box::new(|_| {}));
    while rig.step_journal() {}
    rig.mounted.syncer.stored().when_stored(last, Box::new(|answer| answer.expect("stored")));
    assert!(rig.step_syncer());
    assert_eq!(rig.mounted.syncer.stored().figures().increments, 1);
    assert_eq!(looks.left_out.load(Ordering::Relaxed), 0);
}
