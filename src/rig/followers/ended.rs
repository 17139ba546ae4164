//! Generations that ended and were deleted while a follower stood still, and creates of theirs that come late.

use super::*;
use crate::format::publication::Increment;
use crate::ship::fence::{deletable, find_closing};

/// A follower that stood still, with its lease renewed, while generations ended; the next number of its state; and what was
/// published there.
fn left_behind(seed: u64) -> (Rig, Model, Reader, Position, Publication) {
    let tuning = keeping();
    let mut rig = Rig::new(seed, &tuning);
    let (random, mut model) = (SeededRandom::new(seed), Model::default());
    model.note(&mut rig);
    put(&mut rig, "file", b"first");
    model.note(&mut rig);
    rig.drain();
    let mut reader = Reader::open(&rig, seed, &tuning).expect("opens");
    assert_is_newest(&rig, &mut reader);
    let at = reader.seen().position;
    // The window after it changes something.
    put(&mut rig, "file", b"other");
    model.note(&mut rig);
    rig.drain();
    while newest(&rig).generation < at.generation + 3 {
        go_on(&mut rig, &mut model, &random);
        reader.opened.renewal.step();
    }
    let next = Position { number: at.number + 1, ..at };
    let there = rig.world.store.get(&names::publication(next.generation, next.number)).expect("there");
    let there = Publication::decode(&there).expect("whole");
    for generation in at.generation..newest(&rig).generation {
        let closing = find_closing(&*rig.world.store, generation).expect("looked").expect("it has ended");
        deletable(closing).iter().for_each(|name| rig.world.store.delete(name).expect("deleted"));
    }
    (rig, model, reader, next, there)
}

/// The follower goes on, and everything it shows on the way was published.
fn assert_goes_on(rig: &Rig, model: &Model, reader: &mut Reader) {
    for _ in 0..20 {
        rig.advance(POLL);
        reader.step();
        model.assert_is(reader, &reader.seen());
    }
    assert_is_newest(rig, reader);
    model.assert_is(reader, &reader.seen());
    let figures = reader.opened.follower.figures().lock().clone();
    assert_eq!((figures.reopened, figures.leases_lost, figures.error), (1, 0, None));
}

#[test]
fn what_comes_late_to_a_number_that_was_deleted_is_not_taken_for_the_chain() {
    for seed in 40..44 {
        let (rig, model, mut reader, next, there) = left_behind(seed);
        let Body::Increment(increment) = there.body.clone() else { panic!("{next:?} is no window") };
        assert!(!increment.batches.is_empty());
        // An attempt that the writer thought over: it fits, and is nothing that was published.
        let body = Body::Increment(Increment { batches: Vec::new().into(), ..increment });
        let late = Publication { body, ..there }.encode();
        let name = names::publication(next.generation, next.number);
        assert!(matches!(rig.world.store.create(&name, late.into()), Ok(Created::New)));
        assert_goes_on(&rig, &model, &mut reader);
    }
}

#[test]
fn what_comes_late_and_fits_nowhere_stops_no_follower() {
    let behind = |there: Publication| {
        let later = |lsn: Lsn| Lsn { pos: lsn.pos + 1000, ..lsn };
        Publication { start: later(there.start), end: later(there.end), ..there }.encode()
    };
    let unreadable = |_: Publication| b"nothing that can be read".to_vec();
    for late in [&behind as &dyn Fn(Publication) -> Vec<u8>, &unreadable] {
        let (rig, model, mut reader, next, there) = left_behind(50);
        let (name, late) = (names::publication(next.generation, next.number), late(there));
        assert!(matches!(rig.world.store.create(&name, late.into()), Ok(Created::New)));
        assert_goes_on(&rig, &model, &mut reader);
    }
}

#[test]
fn a_gap_that_lasts_while_nobody_publishes_is_no_end() {
    let tuning = keeping();
    let mut rig = Rig::new(60, &tuning);
    put(&mut rig, "file", b"first");
    rig.drain();
    let mut reader = Reader::open(&rig, 61, &tuning).expect("opens");
    for _ in 0..100 {
        rig.advance(POLL);
        assert_eq!(reader.step(), []);
    }
    put(&mut rig, "file", b"other");
    rig.drain();
    assert_is_newest(&rig, &mut reader);
    assert_eq!(reader.tree(None), tree_of_writer(&mut rig));
    assert_eq!(reader.opened.follower.figures().lock().reopened, 0);
}
