//! Publishing into a generation: numbered objects, each created if absent, one in flight at a time.
//!
//! That creation is the fence. To take over, a writer must win the first free number of the newest generation with a
//! closing object; whoever finds another's object at its next number has lost and writes no more. A lost or ambiguous
//! answer is settled by reading back: our own object, even one that a dead life of ours sent late, is adopted. The rules
//! and their proof are in `docs/fence.md`.
//!
//! Two actors publish through one [`Publisher`], each for as long as it holds it ([`Publisher::hold`]).

use super::ShipError;
use super::fence::{behind_gap, find_closing};
use crate::base::canary::{self, Canary};
use crate::base::clock::Time;
use crate::base::threads::side_by_side;
use crate::checkpoint::{CheckpointError, files};
use crate::format::ids::{Lsn, NodePtr, Nonce, Uuid};
use crate::format::manifest::{Manifest, PlanEntry};
use crate::format::names::{self, SUPERBLOCK};
use crate::format::publication::{Body, Closing, Log, Position, Publication};
use crate::format::space::Published;
use crate::format::superblock::Superblock;
use crate::media::Media;
use crate::store::{Created, Store, StoreError};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;

/// Who publishes.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The filesystem.
    pub filesystem: Uuid,
    /// The state directory.
    pub state: Uuid,
    /// This mount.
    pub nonce: Nonce,
    /// The writer epoch.
    pub epoch: u32,
    /// Host and process, for people.
    pub owner: String,
}

/// Who takes a number. Either may find that an answer which was lost had been a success, also one that the other waited for:
/// then it is put by for the other, which hears of it when it publishes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Ships windows; starts generations.
    Shipper,
    /// Publishes what an fsync waits for.
    Syncer,
}

impl Actor {
    /// Whose publication it is.
    fn of(body: &Body) -> Actor {
        match body {
            Body::Base(_) | Body::Increment(_) | Body::Closing(_) => Actor::Shipper,
            Body::Log(_) => Actor::Syncer,
        }
    }
}

/// What became of an attempt to publish.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the store.
    Published(Position),
    /// An object of ours that is not this one has that number: what an earlier attempt sent, or a dead life of ours, and whose
    /// answer was lost. It counts, and the attempt must be thought over.
    Adopted(Box<Publication>),
    /// Nothing was done: the generation has no base yet, and nobody would read what comes before that.
    NoBase,
}

/// The next free number, as far as we know, and the way to take it.
pub struct Publisher {
    store: Arc<dyn Store>,
    identity: Identity,
    /// Numbers that are asked for together.
    at_once: u64,
    state: Mutex<State>,
}

struct State {
    next: Position,
    past: Past,
    ready: bool,
    /// Found by one actor, to be heard of by the other.
    put_by: Vec<Publication>,
    /// The closing objects that were passed, oldest first.
    closings: Vec<Position>,
}

/// The right to publish: until it is dropped, nobody else does. It is held across calls to the store.
pub struct Held<'a> {
    publisher: &'a Publisher,
    state: MutexGuard<'a, State>,
    actor: Actor,
}

/// What earlier lives of a state directory can have published and not lived to record: a window goes into the store from its
/// plan, and the plan stays until the record is durable; a log increment when the journal holds its batches, which stay there
/// as long. Whatever else carries the name of the state directory was published by another copy of it, which gave the same
/// numbers to other batches.
pub struct Past {
    media: Arc<dyn Media>,
    plans: Vec<PlanEntry>,
    recorded: Lsn,
    /// The last batch of each mount that the journal holds.
    lasts: HashMap<Nonce, Lsn>,
}

impl Past {
    /// As it was when this mount began: no plan of its own is in it, for none is published before all that is known.
    pub fn new(media: Arc<dyn Media>, manifest: &Manifest, published: Option<Published>) -> Past {
        let recorded = published.map_or(Lsn::ZERO, |published| published.end);
        Past { media, plans: manifest.plans.clone(), recorded, lasts: HashMap::new() }
    }

    /// With what replay found of each mount in the journal.
    pub fn holding(self, lasts: HashMap<Nonce, Lsn>) -> Past {
        Past { lasts, ..self }
    }

    /// Fails unless a publication is what the plan that ends there says. Two copies may come to the same number, so the
    /// contents are compared too.
    fn check(&self, found: &Publication) -> Result<(), ShipError> {
        // What a mount has published its journal has; an older copy of it ends before.
        let is_held = matches!(found.body, Body::Log(_)) && self.lasts.get(&found.nonce) >= Some(&found.end);
        if found.end <= self.recorded || is_held {
            return Ok(());
        }
        let Some(plan) = self.plans.iter().find(|plan| (plan.number, plan.end) == (found.checkpoint, found.end)) else {
            return Err(ShipError::OldState { published: found.end });
        };
        let same = match &found.body {
            Body::Increment(increment) => {
                plan.start == found.start && edits(&*self.media, plan.number, plan.edits)? == increment.batches
            }
            Body::Base(base) => self.roots(plan.number)? == base.roots,
            Body::Closing(_) => true,
            Body::Log(_) => false,
        };
        if same { Ok(()) } else { Err(ShipError::OldState { published: found.end }) }
    }

    fn roots(&self, number: u64) -> Result<[Option<NodePtr>; 2], ShipError> {
        let damaged =
            |e: CheckpointError| ShipError::Damaged { place: files::checkpoint_file(number), reason: e.to_string() };
        Ok(files::read_checkpoint(&*self.media, number).map_err(damaged)?.roots)
    }
}

/// What the increment of a checkpoint replays.
pub(super) fn edits(media: &dyn Media, number: u64, bytes: Option<u64>) -> Result<Bytes, ShipError> {
    let damaged = |e: CheckpointError| ShipError::Damaged { place: files::edits_file(number), reason: e.to_string() };
    files::read_edits(media, number, bytes).map_err(damaged)
}

impl Publisher {
    /// A publisher that goes on at `next`.
    pub fn new(store: Arc<dyn Store>, identity: Identity, next: Position, past: Past) -> Publisher {
        let state = State { next, past, ready: false, put_by: Vec::new(), closings: Vec::new() };
        Publisher { store, identity, at_once: 1, state: Mutex::new(state) }
    }

    /// One that asks for several numbers at a time where there are many; with 1 in order, on the caller's thread.
    pub fn asking(self, at_once: usize) -> Publisher {
        Publisher { at_once: at_once.max(1) as u64, ..self }
    }

    /// Waits until nobody else publishes, and keeps others from it: one numbered object is in flight at a time, and what is
    /// published under one hold lies side by side.
    pub fn hold(&self, actor: Actor) -> Held<'_> {
        Held { publisher: self, state: self.state.lock(), actor }
    }

    /// Makes sure that a store which was away is still that of this filesystem: the names below would mean something else in
    /// another, which may have come to its place, or have been made there.
    pub fn confirm_store(&self) -> Result<(), ShipError> {
        let filesystem = self.identity.filesystem;
        let changed = |what: String| Err(ShipError::AnotherStore { filesystem, what });
        match self.store.get(SUPERBLOCK) {
            Ok(bytes) => match Superblock::decode(&bytes) {
                Ok(found) if found.uuid == filesystem => Ok(()),
                Ok(found) => changed(format!("is that of filesystem {}", found.uuid)),
                Err(e) => Err(ShipError::Damaged { place: SUPERBLOCK.to_owned(), reason: e.to_string() }),
            },
            Err(StoreError::NotFound { .. }) => changed("is gone".to_owned()),
            Err(e) => Err(e.into()),
        }
    }

    /// Finds what earlier lives of this state directory published from here on, log increments without their batches, and goes
    /// behind it. After an error it may be called again.
    pub fn resume(&self) -> Result<Vec<Publication>, ShipError> {
        let mut state = self.state.lock();
        let start = state.next;
        let found = self.go_behind(&mut state);
        match found {
            Ok(_) => state.ready = true,
            Err(_) => state.next = start,
        }
        found
    }

    /// Fails if another writer has the filesystem, as far as the store says so now. Changes nothing: what is ours at the next number
    /// is for whoever publishes there.
    pub fn look(&self) -> Result<(), ShipError> {
        let next = self.state.lock().next;
        for found in [read(&*self.store, next)?, behind_gap(&*self.store, next)?].iter().flatten() {
            self.check_ours(found)?;
        }
        Ok(())
    }

    fn go_behind(&self, state: &mut State) -> Result<Vec<Publication>, ShipError> {
        let before = state.next.number.checked_sub(1).map(|number| Position { number, ..state.next });
        // A closing object of another writer tells more than what that writer has deleted since.
        let mut found = self.walk(state)?;
        let gone = match before {
            Some(before) if read(&*self.store, before)?.is_none() => Some(before),
            _ => None,
        };
        // After all that was read: what is gone may have gone with a generation that has ended. What comes to the free number itself
        // meanwhile is no later generation.
        while let Some(later) = behind_gap(&*self.store, state.next)? {
            self.check_ours(&later)?;
            if (later.generation, later.number) != (state.next.generation, state.next.number) {
                return Err(self.gone_on(later)?);
            }
            found.extend(self.walk(state)?);
        }
        // First: who published what is not ours to know may also have deleted it.
        found.iter().try_for_each(|publication| state.past.check(publication))?;
        if let Some(Position { generation, number }) = gone {
            let place = names::publication(generation, number);
            return Err(ShipError::Damaged { place, reason: "was published and is gone".to_owned() });
        }
        Ok(found)
    }

    /// All up to the first number that is free: hundreds, if they are log increments, of which the batches are not kept.
    fn walk(&self, state: &mut State) -> Result<Vec<Publication>, ShipError> {
        let at_once = usize::try_from(self.at_once).unwrap_or(1);
        let (mut found, mut together) = (Vec::new(), 1);
        loop {
            let from = state.next;
            let numbers: Vec<u64> = (from.number..from.number + together).collect();
            for read in
                side_by_side(at_once, &numbers, |number| read(&*self.store, Position { number: *number, ..from }))
            {
                let Some(mut publication) = read? else { return Ok(found) };
                self.check_ours(&publication)?;
                state.pass(&publication);
                let ends = matches!(publication.body, Body::Closing(_));
                if let Body::Log(log) = &mut publication.body {
                    *log = Log::default();
                }
                found.push(publication);
                if ends {
                    break;
                }
            }
            together = self.at_once;
        }
    }

    /// Without us, from a generation on that is not ours to know: by another, or by another copy of what we hold. The first
    /// number of a generation is never deleted.
    fn gone_on(&self, later: Publication) -> Result<ShipError, ShipError> {
        let mut generation = later.generation + 1;
        while let Some(next) = read(&*self.store, Position { generation, number: 0 })? {
            self.check_ours(&next)?;
            generation += 1;
        }
        Ok(ShipError::OldState { published: later.end })
    }

    /// Fails if the generation of a number that is not there has ended: then the number was deleted.
    fn check_open(&self, at: Position) -> Result<(), ShipError> {
        let Some(later) = behind_gap(&*self.store, at)? else { return Ok(()) };
        self.check_ours(&later)?;
        Err(ShipError::OldState { published: later.end })
    }

    /// Another's object means that we are fenced.
    fn check_ours(&self, publication: &Publication) -> Result<(), ShipError> {
        match publication.state == self.identity.state || canary::removed(Canary::OthersFence) {
            true => Ok(()),
            false => Err(fenced_by(publication)),
        }
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        match canary::removed(Canary::NumbersOnce) {
            true => self.store.put(name, bytes).map(|()| Created::New),
            false => self.store.create(name, bytes),
        }
    }
}

/// What another's publication means to a writer that finds it.
pub fn fenced_by(publication: &Publication) -> ShipError {
    let Publication { state, generation, number, .. } = *publication;
    let at = Time::from_nanos(publication.wall);
    let by = match &publication.body {
        Body::Closing(closing) => format!("{}, at {at}", closing.owner),
        _ => format!("state directory {state}, at {at}"),
    };
    ShipError::Fenced { generation, number, by }
}

impl State {
    /// Goes behind an object of ours.
    fn pass(&mut self, publication: &Publication) {
        if matches!(publication.body, Body::Closing(_)) && self.closings.last() != Some(&self.next) {
            self.closings.push(self.next);
        }
        self.next = behind(publication);
    }
}

impl Held<'_> {
    /// Where the next object goes.
    pub fn next(&self) -> Position {
        self.state.next
    }

    /// Whether the store was asked what earlier lives published: see [`Publisher::resume`].
    pub fn is_ready(&self) -> bool {
        self.state.ready
    }

    /// Whether the generation of the next number has a base.
    pub fn has_base(&self) -> bool {
        self.state.next.number > 0
    }

    /// The closing objects of the generations from `first` on that have ended, as far as they are found.
    pub fn closings(&self, first: u64) -> Result<Vec<Position>, ShipError> {
        let passed = |generation| self.state.closings.iter().find(|at| at.generation == generation).copied();
        let find = |generation| match passed(generation) {
            None => find_closing(&*self.publisher.store, generation),
            known => Ok(known),
        };
        (first.max(1)..self.state.next.generation).filter_map(|generation| find(generation).transpose()).collect()
    }

    /// Publishes `body` at the next number. An error leaves open whether the object is there, or will be: what takes the
    /// number next, with whatever it says, then finds it.
    pub fn publish(&mut self, draft: Draft, body: Body) -> Result<Outcome, ShipError> {
        assert_eq!(Actor::of(&body), self.actor, "everybody publishes what is their own");
        let publisher = self.publisher;
        let mut publication = publisher.identity.publication(&draft, body);
        loop {
            if let Some(found) = self.take_put_by() {
                return Ok(Outcome::Adopted(Box::new(found)));
            }
            let at = self.state.next;
            match &publication.body {
                Body::Closing(_) => {}
                Body::Base(_) => assert_eq!(at.number, 0, "a base starts a generation"),
                _ if at.number == 0 => return Ok(Outcome::NoBase),
                _ => {}
            }
            (publication.generation, publication.number) = (at.generation, at.number);
            let name = names::publication(at.generation, at.number);
            if publisher.create(&name, publication.encode().into())? == Created::New {
                self.state.pass(&publication);
                return Ok(Outcome::Published(at));
            }
            let Some(found) = read(&*publisher.store, at)? else {
                publisher.check_open(at)?;
                return Err(
                    StoreError::Failed { action: "create", name, reason: "it is there and is not".into() }.into()
                );
            };
            publisher.check_ours(&found)?;
            if found.nonce != publisher.identity.nonce {
                self.state.past.check(&found)?;
            }
            self.state.pass(&found);
            if is_same(&found, &publication) || canary::removed(Canary::AnswerReadBack) {
                return Ok(Outcome::Published(at));
            }
            self.state.put_by.push(found);
        }
    }

    /// Ends the current generation, unless nothing is in it, so that a base can start the next. What the base says is made
    /// after that, and published under the same hold.
    pub fn start_generation(&mut self, draft: Draft) -> Result<Outcome, ShipError> {
        if let Some(found) = self.take_put_by() {
            return Ok(Outcome::Adopted(Box::new(found)));
        }
        if !self.has_base() {
            return Ok(Outcome::Published(self.state.next));
        }
        let Identity { epoch, owner, .. } = &self.publisher.identity;
        let body = Body::Closing(Closing { next_epoch: *epoch, owner: owner.clone() });
        self.publish(draft, body)
    }

    /// Up to where log increments reach that were found, and that the syncer has not heard of.
    pub fn found_logs(&self) -> Option<Lsn> {
        let logs = self.state.put_by.iter().filter(|found| matches!(found.body, Body::Log(_)));
        logs.map(|found| found.end).max()
    }

    /// The oldest object that was found and that this actor has not heard of.
    fn take_put_by(&mut self) -> Option<Publication> {
        let mine = self.state.put_by.iter().position(|found| Actor::of(&found.body) == self.actor)?;
        Some(self.state.put_by.remove(mine))
    }
}

impl Identity {
    /// At a number that is filled in later.
    fn publication(&self, draft: &Draft, body: Body) -> Publication {
        Publication {
            uuid: self.filesystem,
            state: self.state,
            nonce: self.nonce,
            epoch: self.epoch,
            generation: 0,
            number: 0,
            wall: draft.wall.as_nanos(),
            checkpoint: draft.checkpoint,
            start: draft.start,
            end: draft.end,
            body,
        }
    }
}

/// Whether what is found at a number is what was to be put there. When it was written does not count, and a closing object says
/// nothing but that it is one.
fn is_same(found: &Publication, attempt: &Publication) -> bool {
    let range = |p: &Publication| (p.checkpoint, p.start, p.end);
    found.nonce == attempt.nonce
        && found.body == attempt.body
        && (matches!(found.body, Body::Closing(_)) || range(found) == range(attempt))
}

/// The number behind a publication.
pub fn behind(publication: &Publication) -> Position {
    let Publication { generation, number, .. } = *publication;
    match publication.body {
        Body::Closing(_) => Position { generation: generation + 1, number: 0 },
        _ => Position { generation, number: number + 1 },
    }
}

/// What the caller says of a publication; the rest the publisher knows.
#[derive(Clone, Copy, Debug)]
pub struct Draft {
    /// When.
    pub wall: Time,
    /// The checkpoint it publishes.
    pub checkpoint: u64,
    /// It changes the state from here,
    pub start: Lsn,
    /// to here.
    pub end: Lsn,
}

/// The object at a number; `None` if there is none.
pub fn read(store: &dyn Store, at: Position) -> Result<Option<Publication>, ShipError> {
    let name = names::publication(at.generation, at.number);
    let bytes = match store.get(&name) {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let damaged = |reason: String| ShipError::Damaged { place: name.clone(), reason };
    let publication = Publication::decode(&bytes).map_err(|e| damaged(e.to_string()))?;
    let found = Position { generation: publication.generation, number: publication.number };
    if found != at {
        return Err(damaged(format!("says it is number {} of generation {}", found.number, found.generation)));
    }
    Ok(Some(publication))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An object of a generation that says nothing.
    pub fn sample(at: Position, closing: bool) -> Publication {
        let log = Body::Log(crate::format::publication::Log::default());
        let end = Body::Closing(Closing { next_epoch: 1, owner: String::new() });
        Publication {
            uuid: Uuid(1),
            state: Uuid(2),
            nonce: Nonce(3),
            epoch: 1,
            generation: at.generation,
            number: at.number,
            wall: 0,
            checkpoint: 0,
            start: Lsn::ZERO,
            end: Lsn::ZERO,
            body: if closing { end } else { log },
        }
    }
}
