//! The model of the fence: the product's own publisher, walk, takeover and deletion, by two and by three processes, in every
//! order and with everything that may become of their calls to the store, up to a bound. What is proved, and the bounds, are in
//! `docs/fence.md`.
//!
//! `SKYLOG_FENCE_MORE=1` raises the bounds: for the soak. `SKYLOG_FENCE_FAULTS=n` and `SKYLOG_FENCE_DEATHS=n` set
//! them.

mod oracle;
mod process;
mod script;
mod search;

use crate::counts::Counts;
use process::{Dir, FILESYSTEM, Job, reader, resident, taker};
use search::{Bound, Image, Process, Search, Seen, prepare};
use skylog::base::canary::{Canary, with_removed};
use skylog::format::ids::{Lsn, Nonce, SegmentNo, Uuid};
use skylog::format::names;
use skylog::format::publication::{Base, Body, Log, Publication};
use std::sync::{Arc, Mutex};

use Job::{Base as NewBase, Delete, Log as Sync, Window};

/// How often a takeover is tried.
const TRIES: u32 = 2;

/// A new filesystem.
fn new_store() -> Image {
    let base = Publication {
        uuid: FILESYSTEM,
        state: Uuid(9),
        nonce: Nonce(9),
        epoch: 1,
        generation: 1,
        number: 0,
        wall: 0,
        checkpoint: 0,
        start: Lsn::ZERO,
        end: Lsn { epoch: 1, pos: 1 },
        body: Body::Base(Base {
            roots: [None, None],
            windows: Vec::new(),
            node_segments: vec![(SegmentNo { epoch: 1, number: 1 }, 1)],
            settlement: Vec::new(),
            log: Log::default(),
        }),
    };
    [(names::publication(1, 0), base.encode().into())].into()
}

/// A store that a writer has used, and its state directory.
fn used(jobs: &'static [Job]) -> (Image, Dir) {
    let left = Arc::new(Mutex::new(None));
    let out = left.clone();
    let process: Process = Box::new(move |script| {
        *out.lock().expect("no panic while it is held") = taker(script, 1, jobs, 1);
    });
    let image = prepare(&process, &new_store());
    let dir = left.lock().expect("no panic while it is held").take().expect("nobody disturbs it");
    (image, dir)
}

fn writer(dir: &Dir, copy: u8, jobs: &[Job]) -> Process {
    let dir = dir.with(copy, jobs);
    Box::new(move |script| resident(script, &mut dir.clone()))
}

fn takes_over(name: u128, jobs: &'static [Job]) -> Process {
    Box::new(move |script| drop(taker(script, name, jobs, TRIES)))
}

fn reads(times: u32) -> Process {
    Box::new(move |script| reader(script, times))
}

/// A start and who is at work there.
type Scene = fn() -> (Image, Vec<(Process, bool)>);

/// A writer that publishes, ends its generation and deletes, while another takes over.
fn writer_and_taker() -> (Image, Vec<(Process, bool)>) {
    let (image, dir) = used(&[NewBase, Window]);
    let a = writer(&dir, 0, &[Window, Sync]);
    (image, vec![(a, true), (takes_over(2, &[NewBase]), false)])
}

/// A takeover that is slow, beside a writer whose generation ends and is deleted.
fn slow_taker() -> (Image, Vec<(Process, bool)>) {
    let (image, dir) = used(&[NewBase, Window, Window]);
    let a = writer(&dir, 0, &[NewBase, Delete, Window]);
    (image, vec![(a, false), (takes_over(2, &[NewBase]), false)])
}

/// A writer that was slow, beside a takeover that deletes its generation.
fn slow_writer() -> (Image, Vec<(Process, bool)>) {
    let (image, dir) = used(&[NewBase, Window, Window]);
    let a = writer(&dir, 0, &[Window, Sync]);
    (image, vec![(a, true), (takes_over(2, &[NewBase, Delete]), false)])
}

/// Two takeovers at once.
fn two_takers() -> (Image, Vec<(Process, bool)>) {
    let (image, _) = used(&[NewBase, Window]);
    (image, vec![(takes_over(2, &[NewBase]), true), (takes_over(3, &[NewBase]), true)])
}

/// A reader beside a writer that starts generations and deletes them.
fn reader_beside() -> (Image, Vec<(Process, bool)>) {
    let (image, dir) = used(&[NewBase, Window, Window]);
    let a = writer(&dir, 0, &[NewBase, Window, NewBase, Delete]);
    (image, vec![(a, false), (reads(1), false)])
}

/// Two copies of one state directory.
fn copies() -> (Image, Vec<(Process, bool)>) {
    let (image, dir) = used(&[NewBase, Window]);
    let (a, b) = (writer(&dir, 0, &[Window, Sync, NewBase]), writer(&dir, 1, &[Window, NewBase]));
    (image, vec![(a, true), (b, true)])
}

/// Three writers, one after the other and all at once.
fn three_writers() -> (Image, Vec<(Process, bool)>) {
    let (image, dir) = used(&[NewBase, Window, Window]);
    let a = writer(&dir, 0, &[Window]);
    let (b, c) = (takes_over(2, &[NewBase, Delete, Window]), takes_over(3, &[NewBase, Delete]));
    (image, vec![(a, true), (b, false), (c, false)])
}

const fn bound(faults: u8, deaths: u8, switches: Option<u8>) -> Bound {
    Bound { faults, deaths, switches }
}

fn look(scene: Scene, bound: Bound) -> Result<Seen, String> {
    let (image, processes) = scene();
    Search::new(processes).run(&image, bound)
}

/// Looks at every state of a scene, to the usual bound or to the one of the soak.
fn keeps_one_chain(scene: Scene, usual: Bound, raised: Bound) {
    let number =
        |name: &str, usual: u8| crate::env(name).map_or(usual, |number| u8::try_from(number).expect("a small number"));
    let bound = if crate::env("SKYLOG_FENCE_MORE").is_some() { raised } else { usual };
    let faults = number("SKYLOG_FENCE_FAULTS", bound.faults);
    let bound = Bound { faults, deaths: number("SKYLOG_FENCE_DEATHS", bound.deaths), ..bound };
    match look(scene, bound) {
        Ok(seen) => {
            println!("{bound:?}: {seen:?}");
            Counts { part: "model of the fence", histories: 1, states: seen.states, ..Counts::default() }.print();
        }
        Err(what) => panic!("{bound:?}: {what}"),
    }
}

#[test]
fn a_writer_and_a_takeover_in_every_order_keep_one_chain() {
    keeps_one_chain(writer_and_taker, bound(1, 0, None), bound(2, 1, None));
}

#[test]
fn a_slow_takeover_in_every_order_keeps_one_chain() {
    keeps_one_chain(slow_taker, bound(1, 0, None), bound(2, 0, None));
}

#[test]
fn a_slow_writer_in_every_order_keeps_one_chain() {
    keeps_one_chain(slow_writer, bound(1, 0, None), bound(2, 1, None));
}

#[test]
fn two_takeovers_in_every_order_keep_one_chain() {
    keeps_one_chain(two_takers, bound(0, 1, None), bound(1, 1, None));
}

#[test]
fn a_reader_in_every_order_finds_the_chain() {
    keeps_one_chain(reader_beside, bound(1, 0, None), bound(2, 0, None));
}

#[test]
fn two_copies_in_every_order_keep_one_chain() {
    keeps_one_chain(copies, bound(1, 1, None), bound(2, 2, None));
}

#[test]
fn three_writers_keep_one_chain() {
    keeps_one_chain(three_writers, bound(0, 0, Some(3)), bound(1, 0, Some(4)));
}

/// The scene and the number of faults in which it shows that `rule` is missing.
fn scene_of(rule: Canary) -> Option<(Scene, u8)> {
    Some(match rule {
        Canary::NumbersOnce | Canary::OthersFence => (writer_and_taker, 0),
        Canary::AnswerReadBack => (writer_and_taker, 1),
        Canary::LookBehindGap => (slow_taker, 0),
        Canary::WalkAsks => (slow_taker, 1),
        Canary::FirstNumberStays => (reader_beside, 0),
        Canary::LastNumberStays => (slow_writer, 1),
        Canary::ClosingStays => (slow_writer, 0),
        _ => return None,
    })
}

/// What must not be and is, without `rule`; else after how many states it was not found.
pub fn without(rule: Canary) -> Result<u64, String> {
    let (scene, faults) = scene_of(rule).expect("a rule of the fence");
    with_removed(rule, || look(scene, bound(faults, 0, None))).map(|seen| seen.states)
}
