//! Publishing into a generation: numbered objects, each created if absent, one in flight at a time.
//!
//! That creation is the fence. To take over, a writer must win the first free number of the newest generation with a
//! closing object; whoever finds another's object at its next number has lost and writes no more. A lost or ambiguous
//! answer is settled by reading back: our own object, even one that a dead life of ours sent late, is adopted.

use super::ShipError;
use crate::base::clock::Time;
use crate::checkpoint::{CheckpointError, files};
use crate::format::ids::{Lsn, NodePtr, Nonce, Uuid};
use crate::format::manifest::{Manifest, PlanEntry};
use crate::format::names::{self, SUPERBLOCK};
use crate::format::publication::{Body, Closing, Position, Publication};
use crate::format::space::Published;
use crate::format::superblock::Superblock;
use crate::media::Media;
use crate::store::{Created, Store, StoreError};
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

/// What became of an attempt to publish.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the store.
    Published(Position),
    /// An object that a dead life of ours sent has that number; it counts, and the attempt must be thought over.
    Adopted(Box<Publication>),
}

/// The next free number, as far as we know, and the way to take it.
pub struct Publisher {
    store: Arc<dyn Store>,
    identity: Identity,
    next: Position,
    past: Past,
}

/// What earlier lives of a state directory can have published and not lived to record: a window goes into the store from its
/// plan, and the plan stays until the record is durable. Whatever else carries the name of the state directory was published by
/// another copy of it, which gave the same numbers to other batches.
pub struct Past {
    media: Arc<dyn Media>,
    plans: Vec<PlanEntry>,
    recorded: Lsn,
}

impl Past {
    /// As it was when this mount began: no plan of its own is in it, for none is published before all that is known.
    pub fn new(media: Arc<dyn Media>, manifest: &Manifest, published: Option<Published>) -> Past {
        let recorded = published.map_or(Lsn::ZERO, |published| published.end);
        Past { media, plans: manifest.plans.clone(), recorded }
    }

    /// Fails unless a publication is what the plan that ends there says. Two copies may come to the same number, so the
    /// contents are compared too.
    fn check(&self, found: &Publication) -> Result<(), ShipError> {
        if found.end <= self.recorded {
            return Ok(());
        }
        let Some(plan) = self.plans.iter().find(|plan| (plan.number, plan.end) == (found.checkpoint, found.end)) else {
            return Err(ShipError::OldState { published: found.end });
        };
        let same = match &found.body {
            Body::Increment(increment) => {
                plan.start == found.start && files::read_edits(&*self.media, plan.number)? == increment.batches
            }
            Body::Base(base) => self.roots(plan.number)? == base.roots,
            Body::Closing(_) => true,
            // No plan speaks of one; what this state directory holds of its mount does.
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

impl Publisher {
    /// A publisher that goes on at `next`.
    pub fn new(store: Arc<dyn Store>, identity: Identity, next: Position, past: Past) -> Publisher {
        Publisher { store, identity, next, past }
    }

    /// Where the next object goes.
    pub fn next(&self) -> Position {
        self.next
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

    /// Finds what earlier lives of this state directory published from here on, and goes behind it. After an error it may
    /// be called again.
    pub fn resume(&mut self) -> Result<Vec<Publication>, ShipError> {
        let start = self.next;
        let found = self.go_behind();
        if found.is_err() {
            self.next = start;
        }
        found
    }

    fn go_behind(&mut self) -> Result<Vec<Publication>, ShipError> {
        let before = self.next.number.checked_sub(1).map(|number| Position { number, ..self.next });
        let mut found = Vec::new();
        // A closing object of another writer tells more than what that writer has deleted since.
        while let Some(publication) = read(&*self.store, self.next)? {
            self.pass(&publication)?;
            found.push(publication);
        }
        if let Some(before) = before {
            if read(&*self.store, before)?.is_none() {
                let place = names::publication(before.generation, before.number);
                return Err(ShipError::Damaged { place, reason: "was published and is gone".to_owned() });
            }
        }
        found.iter().try_for_each(|publication| self.past.check(publication))?;
        Ok(found)
    }

    /// Publishes `body` at the next number.
    pub fn publish(&mut self, draft: Draft, body: Body) -> Result<Outcome, ShipError> {
        let at = self.next;
        let publication = self.publication(at, &draft, body);
        let bytes = publication.encode();
        let name = names::publication(at.generation, at.number);
        // An error here leaves open whether the object is there; the caller tries again and then finds its own.
        if self.store.create(&name, bytes.into())? == Created::New {
            self.pass(&publication)?;
            return Ok(Outcome::Published(at));
        }
        let Some(found) = read(&*self.store, at)? else {
            return Err(StoreError::Failed { action: "create", name, reason: "it is there and is not".into() }.into());
        };
        self.pass(&found)?;
        if found.nonce != self.identity.nonce {
            // It is met again when the disk could not be read now.
            self.past.check(&found).inspect_err(|_| self.next = at)?;
        }
        let same = found.nonce == self.identity.nonce && found.body == publication.body;
        Ok(if same { Outcome::Published(at) } else { Outcome::Adopted(Box::new(found)) })
    }

    /// Ends the current generation, unless nothing is in it, so that a base can start the next.
    pub fn start_generation(&mut self, draft: Draft) -> Result<Outcome, ShipError> {
        if self.next.number == 0 {
            return Ok(Outcome::Published(self.next));
        }
        let body = Body::Closing(Closing { next_epoch: self.identity.epoch, owner: self.identity.owner.clone() });
        self.publish(draft, body)
    }

    fn publication(&self, at: Position, draft: &Draft, body: Body) -> Publication {
        Publication {
            uuid: self.identity.filesystem,
            state: self.identity.state,
            nonce: self.identity.nonce,
            epoch: self.identity.epoch,
            generation: at.generation,
            number: at.number,
            wall: draft.wall.as_nanos(),
            checkpoint: draft.checkpoint,
            start: draft.start,
            end: draft.end,
            body,
        }
    }

    /// Goes behind an object of ours; another's means that we are fenced.
    fn pass(&mut self, publication: &Publication) -> Result<(), ShipError> {
        let Publication { state, generation, number, .. } = *publication;
        if state != self.identity.state {
            let by = match &publication.body {
                Body::Closing(closing) => closing.owner.clone(),
                _ => format!("state directory {state}"),
            };
            return Err(ShipError::Fenced { generation, number, by });
        }
        self.next = match publication.body {
            Body::Closing(_) => Position { generation: generation + 1, number: 0 },
            _ => Position { generation, number: number + 1 },
        };
        Ok(())
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
