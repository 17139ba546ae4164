//! Which leaf speaks for which keys of a lost range.
//!
//! **The rule.** Nodes are never changed, and each is a true word on its keys as of the checkpoint that wrote it; what a later
//! checkpoint wrote lies behind it ([`Scanned`]). So the nodes that were found are asked from the newest to the oldest, each for
//! the keys about which none before it had a word:
//!
//! 1. Nothing behind the lost node is asked: a child is written before its parent, so all that the lost one led to lies before
//!    it. What lies behind belongs to another checkpoint, or to a merge that never became one.
//! 2. A **leaf** speaks of all keys from its first to its last: those it does not have did not exist.
//! 3. An **interior node** speaks of all keys from its first to the last under it, through its children: each of them for all
//!    keys up to the next one's first, also those in which no leaf has an entry. So an older version of a lost interior node keeps
//!    leaves from coming back that had been dropped before it was written. A child that is lost is a lost range of its own,
//!    for which nothing behind that child is asked (1).
//! 4. What nobody has a word on is gone.
//!
//! So a leaf that the lost node led to, and that is whole, is always found, and no value is older than that in the newest whole
//! leaf with its key.
//!
//! **Its limits.** A leaf alone says nothing of the keys between its last and the next leaf's first: what an older leaf has there
//! comes back, even if it had been deleted. The same is so of what was deleted since the newest version of a leaf that is whole.
//! What was changed since has its older value. Nodes that a merge left which never became a checkpoint may be taken for the past of
//! what was written after them, and where nobody knows the place of the root for the newest: as a merge begins only when its
//! batches are durable, they are what the map once was. (What a writer that was taken over did not come to publish is no such
//! thing, and left out: `lineage.rs`.) All that is returned for a lost range may therefore be old, and is counted.

use super::super::RepairError;
use super::copies::Copies;
use super::scan::{Scanned, Seen};
use super::walk::Span;
use crate::format::ids::{NodePtr, SegmentNo};
use crate::format::node::{Interior, Node};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Steps after which the rest of a range is given up. Damage takes thousands; only what was made to harm comes here.
const STEPS_MAX: u64 = 1 << 26;

/// Keys for which a leaf speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub from: Bytes,
    /// Behind the last.
    pub to: Bytes,
    pub leaf: NodePtr,
}

/// Where a node lies in the order of writing.
pub(super) type Place = (SegmentNo, u32);

const BEHIND_ALL: Place = (SegmentNo { epoch: u32::MAX, number: u64::MAX }, u32::MAX);

/// The place right behind that of a node.
pub(super) fn behind(ptr: &NodePtr) -> Place {
    (ptr.segment, ptr.offset.saturating_add(1))
}

pub(super) fn place(ptr: &NodePtr) -> Place {
    (ptr.segment, ptr.offset)
}

/// The key right behind `key`.
fn after(key: &Bytes) -> Bytes {
    [key, &b"\0"[..]].concat().into()
}

/// What speaks for the keys of a range, in their order, instead of a lost node at `bound`, or a root nobody knows the place of.
pub(super) fn plan(
    scanned: &Scanned,
    copies: &Copies,
    (from, to): Span<'_>,
    bound: Option<Place>,
) -> Result<Vec<Piece>, RepairError> {
    let bound = bound.unwrap_or(BEHIND_ALL);
    let open = BTreeMap::from([(from.clone(), (to.clone(), bound))]);
    let mut plan = Plan { scanned, copies, open, pieces: Vec::new(), steps: 0 };
    for (ptr, seen) in scanned.nodes.iter().rev() {
        if plan.open.is_empty() || plan.steps > STEPS_MAX {
            break;
        }
        if place(ptr) < bound && seen.first < *to && seen.last >= *from {
            plan.ask(ptr, seen)?;
        }
    }
    let mut pieces = plan.pieces;
    pieces.sort_by(|a, b| a.from.cmp(&b.from));
    Ok(pieces)
}

struct Plan<'a> {
    scanned: &'a Scanned,
    copies: &'a Copies,
    /// Keys nobody had a word on so far: from, behind the last, and the place from which on nothing is asked.
    open: BTreeMap<Bytes, (Bytes, Place)>,
    pieces: Vec<Piece>,
    steps: u64,
}

impl Plan<'_> {
    fn ask(&mut self, ptr: &NodePtr, seen: &Seen) -> Result<(), RepairError> {
        let here = self.open_between(&seen.first, &after(&seen.last), place(ptr));
        self.steps += here.len() as u64;
        if seen.level == 0 {
            here.into_iter().for_each(|(from, to)| self.give(from, to, *ptr));
            return Ok(());
        }
        if here.is_empty() {
            return Ok(());
        }
        // It was whole when it was scanned.
        let Ok(Node::Interior(interior)) = self.copies.node(ptr)? else { return Ok(()) };
        here.iter().try_for_each(|(from, to)| self.descend(ptr, &interior, (from, to)))
    }

    /// Lets the children of a node speak for a range that lies within its keys, the last one up to its end.
    fn descend(&mut self, ptr: &NodePtr, interior: &Interior, (from, to): Span<'_>) -> Result<(), RepairError> {
        for at in interior.child_for(from)..interior.len() {
            let first = interior.first_key(at);
            if first >= *to {
                break;
            }
            self.steps += 1;
            let start = first.clone().max(from.clone());
            let next = (at + 1 < interior.len()).then(|| interior.first_key(at + 1));
            let end = next.as_ref().map_or(to, |next| next.min(to)).clone();
            let child = interior.child(at);
            let fits = |seen: &&Seen| place(&child) < place(ptr) && next.as_ref().is_none_or(|next| seen.last < *next);
            match self.scanned.child(&child, interior.level() - 1, &first).filter(fits) {
                Some(seen) if seen.level == 0 => self.give(start, end, child),
                Some(_) => {
                    if let Ok(Node::Interior(below)) = self.copies.node(&child)? {
                        self.descend(&child, &below, (&start, &end))?;
                    }
                }
                None => self.bound(&start, &end, place(&child).min(place(ptr))),
            }
        }
        Ok(())
    }

    /// The open parts of a range for which a node at `at` may speak.
    fn open_between(&self, from: &Bytes, to: &Bytes, at: Place) -> Vec<(Bytes, Bytes)> {
        let before = self.open.range::<Bytes, _>(..from).next_back();
        let within = self.open.range::<Bytes, _>(from..to);
        let parts = before.into_iter().chain(within).filter(|(_, (end, bound))| end > from && at < *bound);
        parts.map(|(start, (end, _))| (start.max(from).clone(), end.min(to).clone())).collect()
    }

    fn give(&mut self, from: Bytes, to: Bytes, leaf: NodePtr) {
        self.cut(&from, &to);
        self.pieces.push(Piece { from, to, leaf });
    }

    /// Leaves a range open, for what lies before `bound`.
    fn bound(&mut self, from: &Bytes, to: &Bytes, bound: Place) {
        if let Some(before) = self.cut(from, to) {
            self.open.insert(from.clone(), (to.clone(), bound.min(before)));
        }
    }

    /// Takes a range out of the open part that it lies in; returns the bound of that.
    fn cut(&mut self, from: &Bytes, to: &Bytes) -> Option<Place> {
        let (start, (end, bound)) = self.open.range::<Bytes, _>(..=from).next_back()?;
        let (start, end, bound) = (start.clone(), end.clone(), *bound);
        self.open.remove(&start);
        if start < *from {
            self.open.insert(start, (from.clone(), bound));
        }
        if *to < end {
            self.open.insert(to.clone(), (end, bound));
        }
        Some(bound)
    }
}
