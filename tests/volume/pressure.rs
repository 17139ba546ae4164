//! Steps of pressure: a journal that fills up faster than it is emptied.

use super::life::{LONG, Life, ROOT, SHORT};
use super::outage::answer;
use skylog::format::ids::InodeNo;
use skylog::fs::Error;
use skylog::volume::{Patience, WhenFull};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

const PIECE: usize = 8000;

/// Writes until one write has no answer, while the clock stands still; returns that one.
fn fill(life: &Life, file: InodeNo) -> Receiver<Result<u32, Error>> {
    for n in 0..100 {
        let told = life.write(file, n * PIECE as u64, PIECE);
        match told.recv_timeout(SHORT) {
            Ok(written) => assert_eq!(written, Ok(PIECE as u32)),
            Err(_) => return told,
        }
    }
    panic!("the journal takes more than it holds: {:?}", life.status())
}

#[test]
fn promise_s10_a_journal_above_half_is_shipped_though_nobody_asks_and_no_time_goes_by() {
    let life = Life::new();
    let file = life.create("file").expect("created");
    life.volume.drain(&mut |_, _| Ok(())).expect("drained");
    let (before, mut bytes) = (life.status().counters.windows_shipped, 0);
    while life.status().counters.windows_shipped == before {
        life.write(file, bytes, PIECE).recv_timeout(LONG).expect("answered").expect("written");
        bytes += PIECE as u64;
    }
    let capacity = life.status().journal_capacity_bytes;
    assert!((capacity / 4..capacity * 2).contains(&bytes), "shipped after {bytes} bytes, the journal takes {capacity}");
}

#[test]
fn promise_s10_a_full_journal_makes_writers_wait_for_a_day_and_nobody_else() {
    let life = Life::new();
    let file = life.create("file").expect("created");
    let doomed = life.create("doomed").expect("created");
    life.store.set_down(true);
    let waits = fill(&life, file);
    let status = life.until("known to be full", |status| status.pressure == "full" && status.last_error.is_some());
    let reason = status.pressure_reason.expect("a reason");
    assert!(
        reason.contains("the journal is full and the store does not answer: ") && reason.ends_with("wait"),
        "{reason}"
    );
    for _ in 0..24 {
        life.clock.advance(Duration::from_secs(3600));
        assert_eq!(waits.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout));
    }
    assert!(life.is_there("file"), "reading goes on");
    let removed = life.change(|fs, cx| fs.unlink(cx, ROOT, b"doomed"));
    removed.recv_timeout(LONG).expect("what frees waits for nobody").expect("removed");
    life.sync().recv_timeout(LONG).expect("a sync waits for nobody").expect("synced");
    life.store.set_down(false);
    life.until("emptied", |status| status.pressure == "none");
    assert_eq!(waits.recv_timeout(LONG).expect("answered"), Ok(PIECE as u32));
    assert_eq!(life.status().counters.refused, 0);
    assert_ne!(file, doomed);
}

#[test]
fn promise_s10_a_full_journal_refuses_by_enospc_if_that_is_wanted() {
    let life = Life::new();
    life.volume.set_patience(Patience { when_full: WhenFull::Enospc, ..Patience::default() });
    let file = life.create("file").expect("created");
    life.store.set_down(true);
    let refused = (0..100).find_map(|n| {
        // Writers are slowed before they are refused: an answer may be held back until its time has come.
        answer(&life, &life.write(file, n * PIECE as u64, PIECE)).err()
    });
    assert_eq!(refused, Some(Error::DiskFull));
    let status = life.until("told", |status| status.pressure == "full" && status.store_state != "ok");
    assert!(status.pressure_reason.as_ref().is_some_and(|why| why.ends_with("writers get ENOSPC")), "{status:?}");
    assert!(status.counters.refused > 0);
    life.store.set_down(false);
    life.until("emptied", |status| status.pressure == "none");
    life.write(file, 0, PIECE).recv_timeout(LONG).expect("answered").expect("written");
}

#[test]
fn promise_x10_writers_that_wait_for_room_are_answered_when_the_mount_is_to_go() {
    let life = Life::new();
    let file = life.create("file").expect("created");
    life.store.set_down(true);
    let waits = fill(&life, file);
    life.until("full", |status| status.pressure == "full");
    life.volume.set_leaving(true);
    assert_eq!(waits.recv_timeout(LONG).expect("answered"), Err(Error::DiskFull));
}
