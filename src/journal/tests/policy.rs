//! When things are written and synced without anyone asking.

use super::*;
use crate::media::sim::{DiskFault, DiskOp, Nth};

fn rig(policy: SyncPolicy) -> Rig {
    let mut rig = Rig::new(CONFIG);
    rig.journal.set_policy(policy);
    rig.settle();
    rig
}

#[test]
fn promise_r6_always_acknowledges_only_what_is_durable() {
    let mut rig = rig(SyncPolicy::Always);
    for number in 1..=30 {
        let told = rig.ask(rig.submit(&[500]));
        assert_eq!(told.take(), vec![], "acknowledged before anything was written");
        rig.settle();
        assert_eq!(told.take(), vec![Ok(())]);
        assert_eq!(numbers_on(&rig.disk.image_durable()), up_to(number));
    }
}

#[test]
fn promise_r6_always_makes_durable_also_what_nobody_waits_for() {
    let mut rig = rig(SyncPolicy::Always);
    rig.submit(&[]);
    rig.settle();
    assert_eq!(rig.journal.durable(), rig.journal.submitted());
}

#[test]
fn everysec_puts_at_most_one_second_at_risk() {
    let mut rig = rig(SyncPolicy::EverySecond);
    let lsn = rig.submit(&[500]);
    rig.settle();
    assert!(rig.journal.resident(&ObjectId { lsn, n: 0 }).is_some(), "small and young: gathered, not yet written");
    rig.wait(200);
    assert_eq!(rig.journal.resident(&ObjectId { lsn, n: 0 }), None);
    assert_eq!(rig.journal.durable(), Lsn::ZERO);
    rig.wait(799);
    assert_eq!(rig.journal.durable(), Lsn::ZERO);
    rig.wait(1);
    assert_eq!(rig.journal.durable(), lsn);
    assert_eq!(numbers_on(&rig.disk.image_durable()), up_to(1));
}

#[test]
fn none_syncs_when_asked_only() {
    let mut rig = rig(SyncPolicy::None);
    let syncs = rig.journal.stats().syncs;
    let lsn = rig.submit(&[500]);
    rig.wait(60_000);
    assert_eq!(rig.journal.resident(&ObjectId { lsn, n: 0 }), None, "written all the same");
    assert_eq!((rig.journal.durable(), rig.journal.stats().syncs), (Lsn::ZERO, syncs));
    rig.sync();
    assert_eq!(rig.journal.durable(), lsn);
}

#[test]
fn promise_r4_what_was_pending_is_synced_after_a_switch() {
    let policies = [SyncPolicy::Always, SyncPolicy::EverySecond, SyncPolicy::None];
    for (from, to) in policies.into_iter().flat_map(|from| policies.map(|to| (from, to))) {
        let mut rig = rig(from);
        rig.submit(&[500]);
        rig.journal.set_policy(to);
        rig.settle();
        assert_eq!(rig.journal.policy(), to);
        if from != to {
            assert_eq!(numbers_on(&rig.disk.image_durable()), up_to(1), "{from} to {to}");
        }
    }
}

#[test]
fn policies_are_written_as_they_are_read() {
    for policy in [SyncPolicy::Always, SyncPolicy::EverySecond, SyncPolicy::None] {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    assert!("sometimes".parse::<SyncPolicy>().is_err());
}

#[test]
fn promise_r8_sync_errors_and_delays_are_visible() {
    let mut rig = rig(SyncPolicy::Always);
    let clock = Arc::clone(&rig.clock);
    // The simulated disk takes no time, so the clock moves while the writer looks the other way.
    let ticking: Arc<dyn crate::base::clock::Clock> = Arc::new(Ticking(clock));
    let media: Arc<dyn crate::media::Media> = Arc::new(rig.disk.clone());
    rig.writer.close().expect("closes");
    let manifest = ManifestStore::load(Arc::clone(&media)).expect("readable").expect("there");
    let mut ignore = |_: Batch| Ok::<(), JournalError>(());
    let accepted =
        replay(Arc::clone(&media), &manifest.current(), Lsn::ZERO, &mut |_, _| (), &mut ignore).expect("replays");
    let (journal, mut writer) =
        open(media, ticking, Arc::new(SeededRandom::new(3)), manifest, accepted, CONFIG).expect("opens");
    let lsn = journal.submitted().next(1);
    journal.reserve(Journal::cost(edits_of(lsn.pos).len(), &[]), Room::Ordinary).expect("room");
    journal.submit(pending(lsn, &edits_of(lsn.pos), Vec::new()));
    journal.when_durable(lsn, Box::new(|result| assert_eq!(result, Ok(()))));
    while writer.step() == Progress::Worked {}
    let stats = journal.stats();
    assert!(stats.syncs == 1 && stats.synced_waiters == 1 && stats.sync_max_nanos >= 1_000_000);
    assert_eq!((stats.last_error, stats.latched), (None, None));

    rig.disk.fail(Nth::new(1).of(DiskOp::Sync).on("journal/"), DiskFault::Failed);
    let lsn = lsn.next(1);
    journal.reserve(Journal::cost(edits_of(lsn.pos).len(), &[]), Room::Ordinary).expect("room");
    journal.submit(pending(lsn, &edits_of(lsn.pos), Vec::new()));
    journal.when_durable(lsn, Box::new(|result| assert!(result.is_err())));
    while writer.step() == Progress::Worked {}
    let stats = journal.stats();
    assert!(stats.last_error.is_some_and(|e| e.contains("sync of journal segment")));
    assert!(stats.latched.is_some());
}

/// A clock that moves a millisecond whenever it is read.
struct Ticking(Arc<SimClock>);

impl crate::base::clock::Clock for Ticking {
    fn now(&self) -> crate::base::clock::Time {
        self.0.now()
    }
    fn elapsed(&self) -> Duration {
        self.0.advance(Duration::from_millis(1));
        self.0.elapsed()
    }
    fn elapsed_asleep(&self) -> Duration {
        self.0.elapsed_asleep()
    }
}
