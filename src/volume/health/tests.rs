//! Outages, begun and ended by what calls come to.

use super::*;
use crate::base::clock::SimClock;
use crate::media::sim::CallLog;
use crate::store::sim::SimStore;

/// A store behind a watch, with one object `seg/1`.
fn watched() -> (SimStore, Arc<SimClock>, Arc<Health>, Watched) {
    let (store, clock) = (SimStore::new(&CallLog::new()), Arc::new(SimClock::default()));
    store.put("seg/1", Bytes::from_static(b"object")).expect("put");
    let health = Arc::new(Health::new(clock.clone()));
    let watched = Watched::new(Arc::new(store.clone()), health.clone());
    (store, clock, health, watched)
}

/// Whether a call got no further than the watch.
fn held(result: Result<Bytes, StoreError>) -> bool {
    matches!(result, Err(StoreError::Away { reason, .. }) if reason.starts_with("not asked"))
}

#[test]
fn in_an_outage_the_store_is_asked_after_pauses_that_grow() {
    let (store, clock, health, watched) = watched();
    store.set_down(true);
    assert!(!held(watched.get("seg/1")), "nobody knew");
    assert!(health.is_away());
    let mut asked = Vec::new();
    for tenths in 1..=300 {
        clock.advance(Duration::from_millis(100));
        if !held(watched.get("seg/1")) {
            asked.push(tenths);
        }
    }
    assert_eq!(asked, [3, 8, 18, 38, 78, 128, 178, 228, 278]);
    assert_eq!(health.to_string(), "away since 2026-01-01T00:00:00Z: store: get seg/1: no answer: an outage");
}

#[test]
fn the_first_answer_ends_an_outage_whoever_gets_it() {
    let (store, clock, health, watched) = watched();
    for write in [false, true] {
        store.set_down(true);
        watched.size("seg/1").expect_err("an outage");
        assert!(held(watched.get("seg/1")) && !health.may_be_asked());
        store.set_down(false);
        match write {
            // What writes is let through always.
            true => watched.put("seg/2", Bytes::from_static(b"other")).expect("put"),
            false => {
                clock.advance(PROBE_MIN);
                assert!(health.may_be_asked());
                // An object that is not there is an answer too.
                assert!(matches!(watched.get("seg/9"), Err(StoreError::NotFound { .. })));
            }
        }
        assert_eq!((health.is_away(), health.to_string().as_str()), (false, "ok"));
        assert_eq!(watched.get("seg/1").expect("there"), "object");
    }
    assert_eq!(health.written(), 5);
}

#[test]
fn only_one_call_at_a_time_sees_whether_the_store_is_back() {
    let (store, clock, health, watched) = watched();
    store.set_down(true);
    watched.get("seg/1").expect_err("an outage");
    clock.advance(PROBE_MAX);
    let probe = health.admit("seg/1").expect("let through");
    clock.advance(PROBE_MAX * 10);
    assert!(held(watched.get("seg/1")), "the first one is still on its way");
    let lost: Result<(), _> = Err(StoreError::Away { action: "get", name: "seg/1".into(), reason: "late".into() });
    health.note(probe, lost).expect_err("handed on");
    clock.advance(PROBE_MAX);
    assert!(!held(watched.get("seg/1")), "the next one");
}

#[test]
fn an_error_that_is_an_answer_begins_no_outage() {
    let (_, _, health, watched) = watched();
    watched.get("no name").expect_err("refused");
    watched.get("seg/9").expect_err("not there");
    assert!(!health.is_away());
}

#[test]
fn a_call_that_panics_while_it_sees_whether_the_store_is_back_is_not_the_last() {
    let (store, clock, health, watched) = watched();
    store.set_down(true);
    watched.get("seg/1").expect_err("an outage");
    clock.advance(PROBE_MAX);
    let panics = || watched.read("seg/1", |_| -> Result<(), StoreError> { panic!("meant to") });
    std::panic::catch_unwind(AssertUnwindSafe(panics)).expect_err("passed on");
    store.set_down(false);
    assert_eq!(watched.get("seg/1").expect("the next one is let through"), "object");
    assert!(!health.is_away());
}
