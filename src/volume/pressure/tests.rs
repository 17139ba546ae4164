//! A writer, a journal and a store in step: who is slowed, when, and by how much.

use super::*;
use crate::base::clock::{Clock, SimClock, Time};
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 1024 * MIB;
const PIECE: u64 = MIB / 4;
/// Steps of the clock in a second.
const SECOND: u64 = 100;

/// A journal, a store that empties it, and one writer who writes as soon as the last write is answered.
struct Line {
    clock: Arc<SimClock>,
    health: Health,
    pressure: Pressure,
    used: u64,
    reclaimed: u64,
    asked: u64,
    answered: Arc<AtomicU64>,
}

impl Line {
    fn new(used: u64) -> Line {
        let clock = Arc::new(SimClock::default());
        let (health, pressure) = (Health::new(clock.clone()), Pressure::default());
        Line { clock, health, pressure, used, reclaimed: 0, asked: 0, answered: Arc::default() }
    }

    fn fill(&self) -> Fill {
        let free_bytes = CAPACITY.saturating_sub(self.used);
        let is_full = free_bytes < 2 * MIB;
        let (used_bytes, reclaimed_bytes) = (self.used, self.reclaimed);
        Fill { used_bytes, capacity_bytes: CAPACITY, free_bytes, reclaimed_bytes, is_full }
    }

    /// Goes on for a while, in which the store makes so much room every second and the writer would bring at most so much;
    /// returns how much it brought.
    fn run(&mut self, seconds: u64, emptied: u64, wanted: u64) -> u64 {
        let before = self.answered.load(Ordering::Relaxed);
        for _ in 0..seconds * SECOND {
            self.clock.advance(Duration::from_secs(1) / SECOND as u32);
            self.reclaimed += emptied / SECOND;
            self.used = self.used.saturating_sub(emptied / SECOND);
            let now = self.clock.elapsed();
            self.pressure.look(&self.fill(), &self.health, now);
            self.pressure.due(now).into_iter().for_each(|answer| answer());
            for _ in 0..wanted / SECOND / PIECE {
                self.write(now);
            }
        }
        (self.answered.load(Ordering::Relaxed) - before) * PIECE
    }

    fn write(&mut self, now: Duration) {
        if self.answered.load(Ordering::Relaxed) < self.asked || self.fill().is_full {
            return;
        }
        self.asked += 1;
        self.used += PIECE;
        let answered = self.answered.clone();
        self.pressure.answer(now, PIECE as usize, move || {
            answered.fetch_add(1, Ordering::Relaxed);
        });
    }
}

#[test]
fn promise_s10_nobody_is_slowed_below_three_quarters() {
    let mut line = Line::new(0);
    assert_eq!(line.run(7, 0, 100 * MIB), 700 * MIB);
    assert_eq!(line.pressure.slowed(), 0);
}

#[test]
fn promise_s10_writers_no_faster_than_the_store_are_not_slowed_however_full_the_journal_is() {
    let mut line = Line::new(CAPACITY / 20 * 13);
    line.run(10, 100 * MIB, 100 * MIB);
    line.used = CAPACITY / 20 * 19;
    assert_eq!(line.run(60, 100 * MIB, 100 * MIB), 6000 * MIB);
    assert_eq!(line.pressure.slowed(), 0);
}

#[test]
fn promise_s10_writers_come_down_to_the_speed_of_the_store_while_the_last_room_goes() {
    let mut line = Line::new(CAPACITY / 2);
    let speeds: Vec<u64> = (0..12).map(|_| line.run(5, 40 * MIB, 400 * MIB) / 5 / MIB).collect();
    assert!(speeds[0] > 60, "{speeds:?}");
    assert!(speeds[6..].iter().all(|speed| (36..=44).contains(speed)), "{speeds:?}");
    assert!(line.pressure.slowed() > 0);
    assert!(!line.fill().is_full, "nobody ran into the wall");
}

#[test]
fn promise_s10_without_a_store_writers_are_slowed_more_and_more_and_none_stands_still() {
    let mut line = Line::new(CAPACITY / 4 * 3 + MIB);
    line.run(1, 0, 0);
    let speeds: Vec<u64> = (0..5).map(|_| line.run(5, 0, 400 * MIB)).collect();
    assert!(speeds.windows(2).all(|pair| pair[1] < pair[0] && pair[1] > 0), "{speeds:?}");
    assert!(speeds[0] > 100 * MIB, "{speeds:?}");
}

#[test]
fn promise_s10_an_answer_is_held_back_for_a_second_at_most_and_the_first_in_is_the_first_out() {
    let mut line = Line::new(CAPACITY - 3 * MIB);
    line.run(1, 0, 0);
    let now = line.clock.elapsed();
    let order = Arc::new(Mutex::new(Vec::new()));
    for n in 0..100 {
        let order = order.clone();
        line.pressure.answer(now, MIB as usize, move || order.lock().push(n));
    }
    assert!(order.lock().len() < 10, "held back");
    assert!(line.pressure.next_due(now).is_some_and(|due| due <= PAUSE_MAX));
    line.pressure.due(now + PAUSE_MAX).into_iter().for_each(|answer| answer());
    assert_eq!(*order.lock(), (0..100).collect::<Vec<_>>());
}

#[test]
fn whether_answers_are_held_back_is_known_until_a_second_after() {
    let mut line = Line::new(CAPACITY / 5 * 4);
    line.run(1, 0, 0);
    assert!(!line.pressure.holds_back(line.clock.elapsed()), "nobody writes");
    line.run(2, 0, 1000 * MIB);
    assert!(line.pressure.slowed() > 0 && line.pressure.holds_back(line.clock.elapsed()));
    line.run(4, 0, 0);
    assert!(!line.pressure.holds_back(line.clock.elapsed()));
}

#[test]
fn at_the_end_nobody_is_held_back() {
    let mut line = Line::new(CAPACITY - 3 * MIB);
    line.run(1, 0, 0);
    let now = line.clock.elapsed();
    let count = (0..10).filter(|_| line.pressure.answer(now, MIB as usize, || ())).count();
    assert!(count > 5);
    assert_eq!(line.pressure.end().len(), count);
    assert!(!line.pressure.answer(now, MIB as usize, || ()));
}

#[test]
fn the_reason_is_one_sentence() {
    let outage =
        || Hindrance::Away(Outage::new("store: put seg/1: no answer: timeout".into(), Time::default(), Duration::ZERO));
    let describe = |used: u64, hindrance: Option<Hindrance>, when_full, holds_back| {
        describe(&Line::new(used).fill(), hindrance.as_ref(), when_full, holds_back)
    };
    let say = |used, hindrance, when_full| describe(used, hindrance, when_full, true).1.unwrap_or_default();
    assert_eq!(say(CAPACITY / 2, Some(outage()), WhenFull::Wait), "");
    assert_eq!(say(CAPACITY / 5 * 3, None, WhenFull::Wait), "the journal is 59 % full and is being shipped");
    assert_eq!(
        say(CAPACITY / 5 * 4, Some(outage()), WhenFull::Wait),
        "the journal is 79 % full and the store does not answer: store: put seg/1: no answer: timeout; writers are slowed"
    );
    let (step, reason) = describe(CAPACITY / 5 * 4, None, WhenFull::Wait, false);
    assert_eq!(step, Step::Shipping);
    assert_eq!(reason.as_deref(), Some("the journal is 79 % full and is being shipped"), "nobody is slowed");
    assert_eq!(
        describe(CAPACITY / 5 * 4, Some(outage()), WhenFull::Wait, false).1.as_deref(),
        Some("the journal is 79 % full and the store does not answer: store: put seg/1: no answer: timeout")
    );
    assert_eq!(
        say(CAPACITY, None, WhenFull::Wait),
        "the journal is full and the store takes less than is written; writers wait"
    );
    let failing = || Some(Hindrance::Failing("403".into()));
    assert_eq!(say(CAPACITY, failing(), WhenFull::Wait), "the journal is full and shipping fails: 403; writers wait");
    for when_full in [WhenFull::Wait, WhenFull::Enospc] {
        let said = say(CAPACITY, Some(Hindrance::Full), when_full);
        assert_eq!(said, "the journal is full and the store has no room; writers get ENOSPC");
    }
}
