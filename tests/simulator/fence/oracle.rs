//! What must hold in every state of the model: there is one chain of publications, every number of which was taken once and in
//! order, each generation by one state directory; who was told that something is published finds it there; who walks finds the chain as it was at a moment of the walk;
//! no two winners have one epoch.

use crate::fence::script::Fact;
use bytes::Bytes;
use skylog::format::ids::Lsn;
use skylog::format::names;
use skylog::format::publication::{Body, Log, Position, Publication};
use skylog::media::sim::{hash_of, mix};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Something that must not be.
#[derive(Debug)]
pub struct Violation(pub String);

fn violation<T>(what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(what.into()))
}

/// The chain: all that was ever published, in order, also what is deleted.
#[derive(Clone, Default)]
pub struct Chain {
    links: Arc<Vec<Link>>,
    epochs: BTreeSet<u32>,
    hash: u128,
}

struct Link {
    publication: Publication,
    bytes: Bytes,
    /// The newest state when it was the last: windows up to here,
    end: Lsn,
    checkpoint: u64,
    /// and with log increments up to here.
    reach: Lsn,
}

impl Clone for Link {
    fn clone(&self) -> Link {
        let Link { publication, bytes, end, checkpoint, reach } = self;
        let (publication, bytes) = (publication.clone(), bytes.clone());
        Link { publication, bytes, end: *end, checkpoint: *checkpoint, reach: *reach }
    }
}

fn position(publication: &Publication) -> Position {
    Position { generation: publication.generation, number: publication.number }
}

fn parse(name: &str) -> Option<Position> {
    let mut parts = name.strip_prefix("gen/")?.split('/').map(|part| part.parse().ok());
    Some(Position { generation: parts.next()??, number: parts.next()?? })
}

impl Chain {
    /// That of a store in which nothing was deleted.
    pub fn of(image: &std::collections::BTreeMap<String, Bytes>) -> Chain {
        let mut chain = Chain::default();
        for (name, bytes) in image {
            chain.writes(name, bytes).unwrap_or_else(|Violation(what)| panic!("a bad start: {what}"));
        }
        chain
    }

    pub fn len(&self) -> usize {
        self.links.len()
    }

    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// The number behind all of it.
    fn free(&self) -> Position {
        self.links.last().map_or(Position { generation: 1, number: 0 }, |link| free_behind(&link.publication))
    }

    fn at(&self, at: Position) -> Option<&Link> {
        let found = self.links.binary_search_by_key(&at, |link| position(&link.publication)).ok()?;
        Some(&self.links[found])
    }

    /// Whether the generation has ended and the next one is there: then its numbers mean nothing any more.
    fn is_history(&self, generation: u64) -> bool {
        self.free() > Position { generation: generation + 1, number: 0 }
    }

    /// An object is written where there was none, or over what was there.
    pub fn writes(&mut self, name: &str, bytes: &Bytes) -> Result<(), Violation> {
        let Some(at) = parse(name) else { return violation(format!("{name} is no number of a generation")) };
        if let Some(link) = self.at(at) {
            // What was deleted may come back; nobody may take it for something.
            return match link.bytes == *bytes || self.is_history(at.generation) {
                true => Ok(()),
                false => violation(format!("{name} is changed")),
            };
        }
        if at != self.free() {
            return violation(format!("{name} is taken out of order: the next is {:?}", self.free()));
        }
        let publication = match Publication::decode(bytes) {
            Ok(publication) if position(&publication) == at => publication,
            other => return violation(format!("{name} is {other:?}")),
        };
        let (end, checkpoint) = match (&publication.body, self.links.last()) {
            (Body::Base(_) | Body::Increment(_), _) => (publication.end, publication.checkpoint),
            (_, Some(last)) => (last.end, last.checkpoint),
            (_, None) => return violation(format!("{name} is not a base")),
        };
        if matches!(publication.body, Body::Base(_)) != (at.number == 0) && !is_closing(&publication) {
            return violation(format!("{name} is {:?}", publication.body));
        }
        // A generation is that of who closed the one before.
        let owner = self.links.last().map(|link| link.publication.state);
        if !is_closing(&publication) && owner.is_some_and(|owner| owner != publication.state) {
            return violation(format!("{name} is by {}, and the one before by {owner:?}", publication.state));
        }
        let last = self.links.last().map_or(Lsn::ZERO, |link| link.end);
        if end < last || matches!(publication.body, Body::Increment(_)) && publication.start != last {
            return violation(format!("{name} goes from {} to {end} after {last}", publication.start));
        }
        let before = self.links.last().map_or(Lsn::ZERO, |link| link.reach);
        let reach = match &publication.body {
            Body::Log(_) => before.max(publication.end),
            Body::Base(base) => last_of(&base.log)?.max(end),
            Body::Increment(_) | Body::Closing(_) => before.max(end),
        };
        if reach < before {
            return violation(format!("{name} reaches {reach}, and {before} was published before it"));
        }
        self.hash = mix(self.hash ^ hash_of(bytes), 4);
        Arc::make_mut(&mut self.links).push(Link { publication, bytes: bytes.clone(), end, checkpoint, reach });
        Ok(())
    }

    /// An object is deleted.
    pub fn deletes(&self, name: &str) -> Result<(), Violation> {
        match parse(name) {
            Some(at) if self.is_history(at.generation) => Ok(()),
            _ => violation(format!("{name} is deleted, and its generation has not ended")),
        }
    }

    /// Judges what a process says now; `walks_from` publications were there when its last walk began.
    pub fn weigh(&mut self, fact: &Fact, walks_from: usize) -> Result<(), Violation> {
        match fact {
            Fact::Wrong(what) => violation(what.clone()),
            Fact::Fenced => Ok(()),
            Fact::Told { at, end, body } => match self.at(*at) {
                Some(link) if link.publication.end == *end && is_what(&link.publication.body, body) => Ok(()),
                found => {
                    let found = found.map(|link| &link.publication);
                    violation(format!("{} was told to be published; there is {found:?}", name_of(*at)))
                }
            },
            Fact::Won { at, epoch, end, reach } => {
                let Some(link) = self.at(*at) else { return violation(format!("{} is won by nobody", name_of(*at))) };
                if !is_closing(&link.publication) || link.publication.epoch != *epoch {
                    return violation(format!("{} is won and has no such closing object", name_of(*at)));
                }
                if (link.end, link.reach) != (*end, *reach) {
                    return violation(format!("the winner knows {end} and {reach} of {} and {}", link.end, link.reach));
                }
                match self.epochs.insert(*epoch) {
                    true => Ok(()),
                    false => violation(format!("epoch {epoch} is given twice")),
                }
            }
            Fact::Walked { free, end, checkpoint } => {
                let found =
                    (walks_from.max(1)..=self.len()).find(|len| free_behind(&self.links[len - 1].publication) == *free);
                match found.map(|len| &self.links[len - 1]) {
                    Some(link) if (link.end, link.checkpoint) == (*end, *checkpoint) => Ok(()),
                    _ => violation(format!(
                        "a walk found {} free after {end}; the chain was at {walks_from} and is at {} of {:?}",
                        name_of(*free),
                        self.len(),
                        self.links.iter().map(|link| (position(&link.publication), link.end)).collect::<Vec<_>>()
                    )),
                }
            }
        }
    }
}

/// The last batch of a log.
fn last_of(log: &Log) -> Result<Lsn, Violation> {
    let mut last = Lsn::ZERO;
    for batch in log.batches() {
        last = batch.map_err(|e| Violation(format!("a bad log: {e}")))?.batch.lsn;
    }
    Ok(last)
}

/// Whether a body is the one that was told; the batches of a log that an earlier life published are not kept.
fn is_what(body: &Body, told: &Body) -> bool {
    match (body, told) {
        (Body::Log(_), Body::Log(told)) if told.batches.is_empty() => true,
        _ => body == told,
    }
}

fn is_closing(publication: &Publication) -> bool {
    matches!(publication.body, Body::Closing(_))
}

fn free_behind(publication: &Publication) -> Position {
    let Publication { generation, number, .. } = *publication;
    match is_closing(publication) {
        true => Position { generation: generation + 1, number: 0 },
        false => Position { generation, number: number + 1 },
    }
}

fn name_of(at: Position) -> String {
    names::publication(at.generation, at.number)
}
