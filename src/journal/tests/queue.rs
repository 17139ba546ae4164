//! The queue: order, pinning, bounds, and who is woken when.

use super::*;
use crate::media::sim::{DiskFault, DiskOp, Nth};

#[test]
fn promise_s1_any_thread_queues_and_the_writer_writes_first_in_first_out() {
    let mut rig = Rig::new(Config { segment_bytes: 1 << 20, queue_bytes_max: 1 << 20, ..CONFIG });
    let commit = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let _order = commit.lock();
                    rig.submit(&[100]);
                }
            });
        }
    });
    rig.sync();
    assert_eq!(numbers_on(&rig.disk.image_durable()), up_to(40));
}

#[test]
fn promise_s1_data_is_pinned_until_it_is_written() {
    let mut rig = Rig::new(CONFIG);
    let lsn = rig.submit(&[5000, 1]);
    let second = ObjectId { lsn, n: 1 };
    assert_eq!(rig.journal.resident(&second), Some(data(lsn.pos, 1, 1).into()));
    rig.assert_reads(lsn, &[5000, 1]);
    rig.sync();
    rig.assert_reads(lsn, &[5000, 1]);
}

#[test]
fn promise_s5_written_data_leaves_memory_whatever_the_load() {
    let mut rig = Rig::new(Config { journal_bytes: 64 * (64 << 10), ..CONFIG });
    for _ in 0..200 {
        let lsn = rig.submit_waiting(&[8000]);
        assert!(rig.journal.stats().queue_bytes <= CONFIG.queue_bytes_max);
        let pinned: usize = rig.journal.state.lock().pending.values().map(Bytes::len).sum();
        assert!(pinned as u64 <= CONFIG.queue_bytes_max, "{pinned} bytes are pinned");
        assert!(rig.journal.resident(&ObjectId { lsn, n: 0 }).is_some());
    }
    rig.sync();
    let state = rig.journal.state.lock();
    assert!(state.pending.is_empty() && state.queue.is_empty() && state.reserved == 0);
}

#[test]
fn a_full_queue_refuses_until_the_writer_has_written() {
    let mut rig = Rig::new(CONFIG);
    let mut refused = None;
    while refused.is_none() {
        refused = rig.try_submit(&[8000], Room::Ordinary).err();
    }
    assert_eq!(refused, Some(Refusal::QueueFull));
    rig.settle();
    rig.submit(&[8000]);
}

#[test]
fn promise_s2_one_sync_serves_all_that_queued_and_wakes_them_after_it() {
    let mut rig = Rig::new(CONFIG);
    let syncs = rig.journal.stats().syncs;
    let told: Vec<Told> = (0..8).map(|_| rig.ask(rig.submit(&[10]))).collect();
    let disk = rig.disk.clone();
    let last = rig.journal.submitted();
    rig.journal.when_durable(
        last,
        Box::new(move |result| {
            assert_eq!((result, numbers_on(&disk.image_durable())), (Ok(()), up_to(8)), "woken before the sync");
        }),
    );
    rig.settle();
    assert!(told.iter().all(|told| told.take() == vec![Ok(())]));
    assert_eq!(rig.journal.stats().syncs, syncs + 1);
    assert_eq!(rig.journal.stats().synced_waiters, 9);
    assert_eq!(rig.journal.durable(), last);
}

#[test]
fn promise_s2_a_failed_sync_wakes_waiters_with_the_error_and_latches() {
    let mut rig = Rig::new(CONFIG);
    let safe = rig.submit(&[300]);
    rig.sync();
    let lost = rig.submit(&[400]);
    let told = rig.ask(lost);
    rig.disk.fail(Nth::new(1).of(DiskOp::Sync).on("journal/"), DiskFault::Failed);
    rig.settle();
    assert!(matches!(&told.take()[..], [Err(reason)] if reason.contains("sync of journal segment")));
    assert_eq!(rig.journal.durable(), safe);
    rig.disk.heal();

    let latched = Err(Refusal::Latched(rig.journal.stats().latched.expect("it says why")));
    assert_eq!(rig.journal.reserve(100, Room::Maintenance), latched);
    let told = rig.ask(lost);
    rig.wait(5000);
    assert!(matches!(&told.take()[..], [Err(_)]), "no later success for what a failed sync covered");
    assert_eq!(rig.journal.durable(), safe);
    rig.assert_reads(safe, &[300]);
    rig.assert_reads(lost, &[400]);
    assert!(matches!(rig.writer.close(), Err(JournalError::Latched(_))));
}

#[test]
fn a_failed_write_latches_and_what_it_held_stays_readable() {
    for fault in [DiskFault::Failed, DiskFault::Short, DiskFault::NoSpace, DiskFault::Done] {
        let mut rig = Rig::new(CONFIG);
        let lsn = rig.submit(&[3000]);
        let told = rig.ask(lsn);
        rig.disk.fail(Nth::new(1).of(DiskOp::Write).on("journal/"), fault);
        rig.settle();
        assert!(matches!(&told.take()[..], [Err(_)]), "{fault:?}");
        assert!(matches!(rig.try_submit(&[], Room::Ordinary), Err(Refusal::Latched(_))));
        rig.assert_reads(lsn, &[3000]);
    }
}

#[test]
fn what_is_queued_when_writing_ends_keeps_nobody_awake() {
    let mut rig = Rig::new(CONFIG);
    rig.submit(&[3000]);
    let due = |rig: &Rig| rig.journal.state.lock().next_due(Duration::from_secs(3600));
    assert_eq!(due(&rig), Some(Duration::ZERO));
    rig.journal.latch("another writer has taken over".to_owned());
    assert_eq!((due(&rig), rig.writer.step()), (None, Progress::Idle));
}

#[test]
fn the_writer_thread_waits_without_work_and_is_woken_by_it() {
    let Rig { journal, mut writer, .. } = Rig::new(CONFIG);
    let thread = std::thread::spawn({
        let journal = Arc::clone(&journal);
        move || {
            while journal.durable().pos < 50 {
                journal.wait_for_work(Duration::from_secs(60));
                while writer.step() == Progress::Worked {}
            }
            writer.close().expect("closes");
        }
    });
    for number in 1..=50 {
        let lsn = Lsn { epoch: 1, pos: number };
        let edits = edits_of(number);
        journal.reserve(Journal::cost(edits.len(), &[]), Room::Ordinary).expect("room");
        journal.submit(pending(lsn, &edits, Vec::new()));
        let (tell, told) = std::sync::mpsc::channel();
        journal.when_durable(lsn, Box::new(move |result| tell.send(result).expect("someone listens")));
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(Ok(())));
    }
    thread.join().expect("the writer ends");
}

#[test]
fn promise_x1_once_writing_has_ended_no_sync_succeeds_also_of_what_is_durable() {
    let mut rig = Rig::new(CONFIG);
    let lsn = rig.submit(&[500]);
    rig.sync();
    let ask = |rig: &Rig| {
        let told = Told::default();
        rig.journal.when_synced(lsn, told.waiter());
        told.take()
    };
    assert_eq!(ask(&rig), [Ok(())]);
    rig.journal.latch("taken over".into());
    assert_eq!(ask(&rig), [Err("taken over".into())]);
    assert_eq!(rig.ask(lsn).take(), [Ok(())], "what only this machine has to know is as it was");
}
