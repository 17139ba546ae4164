//! `--durability store` on a whole filesystem over simulated disk and store: what is published for an fsync, when it is
//! answered, and what a store that is slow, away or another's makes of it.

use skylog::base::clock::Clock;
use skylog::format::batch::TreeId;
use skylog::format::ids::{InodeNo, Lsn};
use skylog::format::publication::{Body, Log, Publication};
use skylog::fs::{Cx, Fs, Stop};
use skylog::map::Wait;
use skylog::media::sim::{CallLog, Nth, SimDisk};
use skylog::recovery::Tuning;
use skylog::rig::{Rig, small};
use skylog::ship::ShipError;
use skylog::ship::syncer::Step;
use skylog::store::Store;
use skylog::store::sim::{SimStore, StoreFault, StoreOp};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ROOT: InodeNo = InodeNo::ROOT;
const TIMEOUT: Duration = Duration::from_secs(60);

type Answer = Arc<Mutex<Option<Result<(), String>>>>;

/// A filesystem whose generation has a base, and whose tail is open.
fn mounted(seed: u64, tuning: &Tuning) -> Rig {
    let mut rig = Rig::new(seed, tuning);
    write(&mut rig, "first", 100);
    rig.drain();
    rig.mounted.db.journal().tail().set_open(true);
    rig
}

fn write(rig: &mut Rig, name: &str, len: usize) {
    let ino = match run(rig, |fs, cx| fs.lookup(cx, ROOT, name.as_bytes())) {
        Some(attr) => attr.ino,
        None => run(rig, |fs, cx| fs.create(cx, ROOT, name.as_bytes(), 0o644)).0.ino,
    };
    let part = vec![len as u8; 8000];
    for at in (0..len).step_by(8000) {
        run(rig, |fs, cx| fs.write(cx, ino, at as u64, &part[..(len - at).min(8000)]));
    }
}

/// Runs an operation for which the journal's writer alone makes room.
fn run<T>(rig: &mut Rig, mut op: impl FnMut(&Fs, &mut Cx) -> Result<T, Stop>) -> T {
    let fs = rig.fs.clone();
    loop {
        match op(&fs, &mut Cx { now: rig.clock.now(), ..Cx::default() }) {
            Ok(value) => return value,
            Err(Stop::Wait(Wait::Pressure)) => assert!(rig.step_journal(), "room comes from the journal's writer"),
            Err(Stop::Wait(_)) => return rig.run(op).expect("done"),
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// Like an fsync that has come through the local sync.
fn fsync(rig: &mut Rig) -> Answer {
    let lsn = rig.mounted.db.last();
    rig.mounted.db.journal().when_durable(lsn, Box::new(|_| ()));
    while rig.step_journal() {}
    wait_for(rig, lsn)
}

fn wait_for(rig: &Rig, lsn: Lsn) -> Answer {
    let answer = Answer::default();
    let told = answer.clone();
    rig.mounted.syncer.stored().when_stored(lsn, Box::new(move |result| *told.lock().unwrap() = Some(result)));
    answer
}

fn told(answer: &Answer) -> Option<bool> {
    answer.lock().unwrap().as_ref().map(Result::is_ok)
}

fn publications(store: &SimStore) -> Vec<Publication> {
    let names = store.list("gen").expect("listed");
    names.iter().map(|n| Publication::decode(&store.get(n).expect("read")).expect("decodes")).collect()
}

fn logs(rig: &Rig) -> Vec<(Lsn, Lsn, Log)> {
    let log = |p: Publication| match p.body {
        Body::Log(log) => Some((p.start, p.end, log)),
        _ => None,
    };
    publications(&rig.store).into_iter().filter_map(log).collect()
}

fn lsns(log: &Log) -> Vec<Lsn> {
    log.batches().map(|batch| batch.expect("decodes").batch.lsn).collect()
}

#[test]
fn an_fsync_is_answered_when_the_store_has_its_batches_with_their_data() {
    let mut rig = mounted(1, &small());
    let before = rig.mounted.syncer.stored().published().end();
    write(&mut rig, "file", 5000);
    let answer = fsync(&mut rig);
    assert_eq!(told(&answer), None, "answered before anything was sent");
    let creates = rig.store.calls().creates;
    assert!(rig.step_syncer());
    assert_eq!((told(&answer), rig.store.calls().creates - creates), (Some(true), 1));
    let [(start, end, log)] = &logs(&rig)[..] else { panic!("one log increment") };
    assert_eq!((*start, *end), (before, rig.mounted.db.last()));
    let batches: Vec<_> = log.batches().map(|batch| batch.expect("decodes")).collect();
    let data: usize =
        batches.iter().map(|b| (0..b.batch.objects.len()).map(|n| b.object(n).len()).sum::<usize>()).sum();
    assert_eq!(data, 5000);

    // What is there needs no other request.
    let again = fsync(&mut rig);
    assert_eq!((told(&again), rig.store.calls().creates - creates), (Some(true), 1));
    // What it carries is published with its window all the same, in the order of windows.
    rig.drain();
    let starts = |p: &Publication| matches!(p.body, Body::Increment(_) | Body::Base(_)).then_some((p.start, p.end));
    let windows: Vec<_> = publications(&rig.store).iter().filter_map(starts).collect();
    assert!(windows.windows(2).all(|pair| pair[1].0 == Lsn::ZERO || pair[0].1 == pair[1].0), "{windows:?}");
}

#[test]
fn batches_of_the_space_map_stay_out() {
    let mut rig = mounted(2, &small());
    for n in 0..5 {
        write(&mut rig, "file", 1000 + n);
        // Between the writes the owner of the space map logs what it does.
        rig.mounted.checkpointer.wanted().checkpoint();
        rig.settle();
        write(&mut rig, "other", 1000 + n);
        let answer = fsync(&mut rig);
        rig.settle();
        assert_eq!(told(&answer), Some(true));
    }
    let logs = logs(&rig);
    assert!(!logs.is_empty());
    for (start, end, log) in &logs {
        for batch in log.batches() {
            let batch = batch.expect("decodes").batch;
            assert!(batch.lsn > *start && batch.lsn <= *end);
            assert!(batch.edits.iter().all(|(tree, edit)| *tree == TreeId::Files || Log::carries(*tree, edit)));
        }
    }
}

#[test]
fn all_that_wait_share_one_object() {
    let mut rig = mounted(3, &small());
    let mut answers = Vec::new();
    for n in 0..10 {
        write(&mut rig, &format!("file-{n}"), 1000);
        answers.push(fsync(&mut rig));
    }
    assert!(rig.step_syncer());
    assert!(answers.iter().all(|answer| told(answer) == Some(true)));
    assert_eq!(logs(&rig).len(), 1);
}

#[test]
fn nothing_goes_into_a_generation_without_a_base() {
    let mut rig = Rig::new(5, &small());
    rig.mounted.db.journal().tail().set_open(true);
    rig.settle();
    write(&mut rig, "file", 3000);
    let answer = fsync(&mut rig);
    assert!(!rig.step_syncer());
    assert_eq!((told(&answer), logs(&rig).len()), (None, 0));
    // It asked for a checkpoint, and the base is the answer.
    rig.settle();
    assert_eq!((told(&answer), logs(&rig).len()), (Some(true), 0));
    assert!(publications(&rig.store).iter().any(|p| matches!(p.body, Body::Base(_)) && p.generation == 2));
    write(&mut rig, "file", 4000);
    let answer = fsync(&mut rig);
    assert!(rig.step_syncer());
    assert_eq!((told(&answer), logs(&rig).len()), (Some(true), 1));
}

fn large() -> Tuning {
    let mut tuning = small();
    tuning.journal.journal_bytes = 128 << 20;
    tuning.journal.queue_bytes_max = u64::MAX / 4;
    tuning.limits.overlay_bytes_max = 64 << 20;
    tuning.policy.segment_bytes = 1 << 20;
    tuning
}

#[test]
fn what_is_too_large_to_go_twice_goes_with_its_window() {
    let mut rig = mounted(6, &large());
    write(&mut rig, "large", 9 << 20);
    let answer = fsync(&mut rig);
    assert!(!rig.step_syncer());
    rig.settle();
    assert_eq!((told(&answer), logs(&rig).len()), (Some(true), 0));
    // Then small ones go by themselves again.
    write(&mut rig, "small", 100);
    let answer = fsync(&mut rig);
    assert!(rig.step_syncer());
    assert_eq!((told(&answer), logs(&rig).len()), (Some(true), 1));
}

#[test]
fn what_was_written_while_fsyncs_were_local_goes_with_its_window() {
    let mut rig = mounted(7, &small());
    let tail = || rig.mounted.db.journal().clone();
    tail().tail().set_open(false);
    write(&mut rig, "file", 1000);
    rig.mounted.db.journal().tail().set_open(true);
    write(&mut rig, "more", 1000);
    let answer = fsync(&mut rig);
    assert!(!rig.step_syncer());
    rig.settle();
    assert_eq!((told(&answer), logs(&rig).len()), (Some(true), 0));
}

/// Freezes a checkpoint, publishes a log behind it, and has the checkpoint published as a base.
fn base_behind_a_log(rig: &mut Rig, lose: bool) -> (Answer, Lsn) {
    write(rig, "before", 3000);
    rig.mounted.checkpointer.wanted().checkpoint();
    let old = rig.mounted.checkpointer.figures().lock().checkpoint;
    while rig.mounted.checkpointer.figures().lock().checkpoint == old {
        rig.step_checkpointer();
        rig.step_journal();
    }
    write(rig, "behind", 3000);
    let answer = fsync(rig);
    if lose {
        rig.store.fail(Nth::new(1).of(StoreOp::Create).on("gen"), StoreFault::AnswerLost);
    }
    let end = rig.mounted.db.last();
    assert_eq!(rig.step_syncer(), !lose);
    (answer, end)
}

#[test]
fn a_base_carries_what_logs_of_the_generation_before_it_carried() {
    for lose in [false, true] {
        let mut tuning = small();
        // Every second publication is a base.
        tuning.policy.replay = skylog::checkpoint::Replay::after(1, 1 << 20);
        let mut rig = mounted(8, &tuning);
        let (answer, end) = base_behind_a_log(&mut rig, lose);
        let last = logs(&rig).pop().expect("a log increment");
        // Bases keep a distance in time.
        rig.advance(Duration::from_secs(60));
        for _ in 0..50 {
            rig.step_checkpointer();
            rig.step_journal();
            rig.step_shipper();
        }
        let base = publications(&rig.store).into_iter().rfind(|p| matches!(p.body, Body::Base(_))).expect("a base");
        let Body::Base(body) = &base.body else { panic!("a base") };
        let expected: Vec<Lsn> = lsns(&last.2).into_iter().filter(|lsn| *lsn > base.end).collect();
        assert!(base.end < end && !expected.is_empty(), "the base at {} is not behind the log to {end}", base.end);
        assert_eq!(lsns(&body.log), expected, "lost answer: {lose}");
        // Where the answer was lost the syncer hears of it when it tries again.
        rig.advance(Duration::from_secs(1));
        rig.settle();
        assert_eq!(told(&answer), Some(true));
    }
}

#[test]
fn a_lost_answer_is_settled_by_the_next_try() {
    for fault in [StoreFault::AnswerLost, StoreFault::TriedAgain, StoreFault::Refused] {
        let mut rig = mounted(9, &small());
        write(&mut rig, "file", 1000);
        let first = fsync(&mut rig);
        rig.store.fail(Nth::new(1).of(StoreOp::Create), fault);
        rig.mounted.syncer.step().ok();
        write(&mut rig, "more", 1000);
        let second = fsync(&mut rig);
        rig.advance(Duration::from_secs(1));
        rig.settle();
        assert_eq!((told(&first), told(&second)), (Some(true), Some(true)), "{fault:?}");
        let logs = logs(&rig);
        let found: Vec<Lsn> = logs.iter().flat_map(|(_, _, log)| lsns(log)).collect();
        assert!(found.is_sorted(), "{fault:?}: {found:?}");
        assert_eq!(logs.last().map(|(_, end, _)| *end), Some(rig.mounted.db.last()), "{fault:?}");
    }
}

#[test]
fn in_an_outage_an_fsync_fails_in_time_and_a_later_one_succeeds() {
    let mut rig = mounted(10, &small());
    rig.store.set_down(true);
    write(&mut rig, "file", 1000);
    let (answer, stored) = (fsync(&mut rig), rig.mounted.syncer.stored());
    let before = rig.store.calls().sum();
    for second in 0..60 {
        rig.mounted.syncer.step().ok();
        stored.look(true, Duration::from_secs(second), TIMEOUT);
        assert_eq!(told(&answer), None, "after {second} s");
        rig.advance(Duration::from_secs(1));
    }
    stored.look(true, Duration::from_secs(60), TIMEOUT);
    assert_eq!((told(&answer), stored.figures().timed_out), (Some(false), 1));
    let asked = rig.store.calls().sum() - before;
    assert!((3..20).contains(&asked), "{asked} requests in a minute");
    // One that comes now waits again; when the store is back nobody waits for the rest of a pause.
    let later = fsync(&mut rig);
    rig.mounted.syncer.step().ok();
    rig.store.set_down(false);
    stored.retry();
    assert!(rig.step_syncer());
    assert_eq!(told(&later), Some(true));
    assert_eq!(logs(&rig).last().map(|(_, end, _)| *end), Some(rig.mounted.db.last()));
}

/// However long the outage was: whoever is given less patience than the pauses have grown to is not failed by a store that is well
/// again.
#[test]
fn whoever_waits_is_tried_for_before_their_time_is_over() {
    let mut rig = mounted(15, &small());
    let short = Duration::from_secs(2);
    write(&mut rig, "file", 1000);
    rig.store.set_down(true);
    let given_up = fsync(&mut rig);
    let stored = rig.mounted.syncer.stored();
    let wait = |rig: &mut Rig, answer: &Answer| {
        for _ in 0..600 {
            stored.look(true, rig.clock.elapsed(), short);
            rig.mounted.syncer.step().ok();
            if let Some(success) = told(answer) {
                return success;
            }
            rig.advance(Duration::from_millis(100));
        }
        panic!("nobody answers");
    };
    assert!(!wait(&mut rig, &given_up));
    for _ in 0..20 {
        let answer = fsync(&mut rig);
        assert!(!wait(&mut rig, &answer));
    }
    rig.store.set_down(false);
    let answer = fsync(&mut rig);
    assert!(wait(&mut rig, &answer), "the store is well, and nobody asked it in time");
}

#[test]
fn a_store_that_is_slow_and_well_gives_nobody_up() {
    let mut rig = mounted(11, &small());
    write(&mut rig, "file", 1000);
    let (answer, stored) = (fsync(&mut rig), rig.mounted.syncer.stored());
    for second in 0..1000 {
        stored.look(false, Duration::from_secs(second), TIMEOUT);
    }
    // Trouble begins now, and ends before the time is up.
    stored.look(true, Duration::from_secs(1000), TIMEOUT);
    stored.look(true, Duration::from_secs(1059), TIMEOUT);
    stored.look(false, Duration::from_secs(1060), TIMEOUT);
    stored.look(true, Duration::from_secs(1061), TIMEOUT);
    stored.look(true, Duration::from_secs(1120), TIMEOUT);
    assert_eq!(told(&answer), None);
    stored.look(true, Duration::from_secs(1121), TIMEOUT);
    assert_eq!(told(&answer), Some(false));
}

#[test]
fn who_is_fenced_answers_with_an_error() {
    let mut rig = mounted(12, &small());
    let log = CallLog::new();
    let other = Rig::mount(log.clone(), SimDisk::new(&log), rig.store.clone(), rig.clock.clone(), 99, &small());
    other.expect("another mount takes over");
    write(&mut rig, "file", 1000);
    let answer = fsync(&mut rig);
    let error = rig.mounted.syncer.step().expect_err("another's object is there");
    assert!(matches!(error, ShipError::Fenced { .. }) && error.ends_writing(), "{error}");
    assert_eq!(told(&answer), None);
    // As the volume does then.
    rig.mounted.db.journal().latch(error.to_string());
    assert_eq!(rig.mounted.syncer.step().expect("nothing to do"), Step::Idle);
    assert_eq!(told(&answer), Some(false));
    // Also for what was in the store before.
    let old = wait_for(&rig, Lsn::ZERO);
    assert_eq!(told(&old), Some(false));
    assert_eq!(logs(&rig).len(), 0);
}

#[test]
fn who_comes_after_the_end_is_told_so() {
    let mut rig = mounted(14, &small());
    write(&mut rig, "file", 1000);
    let (answer, stored) = (fsync(&mut rig), rig.mounted.syncer.stored());
    stored.end("it is over");
    let later = wait_for(&rig, Lsn::ZERO);
    assert_eq!((told(&answer), told(&later)), (Some(false), Some(false)));
}

/// What would be sent of batches that are not durable here.
fn sent_early(rig: &mut Rig) -> usize {
    write(rig, "file", 1000);
    let answer = wait_for(rig, rig.mounted.db.last());
    assert!(rig.mounted.db.journal().durable() < rig.mounted.db.last());
    rig.step_syncer();
    assert_ne!(told(&answer), Some(false));
    logs(rig).len()
}

#[test]
fn what_is_not_durable_here_is_not_sent() {
    let mut rig = mounted(15, &small());
    assert_eq!(sent_early(&mut rig), 0);
    let lsn = rig.mounted.db.last();
    rig.mounted.db.journal().when_durable(lsn, Box::new(|_| ()));
    while rig.step_journal() {}
    assert!(rig.step_syncer());
    assert_eq!(logs(&rig).len(), 1);
}

#[cfg(feature = "canaries")]
#[test]
fn without_the_rule_it_is() {
    use skylog::base::canary::{Canary, with_removed};
    let mut rig = mounted(15, &small());
    assert_eq!(with_removed(Canary::LogAfterDurable, || sent_early(&mut rig)), 1);
}

#[test]
fn a_long_run_of_fsyncs_makes_windows_by_itself() {
    let mut rig = mounted(16, &large());
    let shipped = |rig: &Rig| rig.mounted.checkpointer.figures().lock().windows_shipped;
    let before = shipped(&rig);
    for n in 0..6 {
        write(&mut rig, &format!("file-{n}"), 4 << 20);
        let answer = fsync(&mut rig);
        rig.mounted.syncer.step().expect("published");
        assert_eq!(told(&answer), Some(true), "{n}");
    }
    // No time has passed, so none is due by its age.
    rig.settle();
    assert_eq!(shipped(&rig), before + 1);
    assert!(!rig.mounted.db.journal().tail().is_long());
}
