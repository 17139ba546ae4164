//! Which segments of nodes never were part of the filesystem: a writer that was taken over, or a repair that was interrupted, may
//! have put nodes of a tree into the store that it did not come to publish. They look newer than what was published before, and
//! are of a history that nobody else ever saw.
//!
//! A writer of an epoch begins with a base in the generation of that number or a later one. So what is of an epoch after the last
//! generation that holds anything but its end was never published; unless it lies in the state directory, the tree of which
//! need not be published yet.
//!
//! Who takes over begins with what is published. So of the epochs before that of a base, a tree holds what that base names, and
//! nothing else; and what no base names that could have named it was never published. A base that cannot be read may have
//! named anything written since the base before it began: then nothing of that time is thought to be strange.

use super::super::RepairError;
use super::copies::{Copies, Side};
use crate::format::ids::SegmentNo;
use crate::format::publication::{Body, Position, Publication};
use crate::ship::ShipError;
use crate::ship::publish::read;
use crate::store::Store;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Those of `segments` that never were published.
pub(super) fn strangers(copies: &Copies, segments: BTreeSet<SegmentNo>) -> Result<BTreeSet<SegmentNo>, RepairError> {
    let store = copies.store();
    let Generations { based, mut last } = generations(store)?;
    let mut unnamed = segments.clone();
    // Whether a base that cannot be read may have named some.
    let mut doubt = true;
    for generation in based.into_iter().rev() {
        // A segment is named by no generation before its epoch.
        if !doubt && unnamed.iter().all(|no| u64::from(no.epoch) > generation) {
            break;
        }
        let found = read(store, Position { generation, number: 0 });
        // A generation that was closed before it had a base says nothing.
        if matches!(&found, Ok(Some(found)) if !matches!(found.body, Body::Base(_))) {
            continue;
        }
        last = last.max(Some(generation));
        match found {
            Ok(Some(Publication { uuid, epoch, body: Body::Base(base), .. })) if uuid == copies.uuid => {
                if std::mem::take(&mut doubt) {
                    unnamed.retain(|no| no.epoch < epoch);
                }
                let named: BTreeSet<SegmentNo> = base.node_segments.iter().map(|(no, _)| *no).collect();
                unnamed.retain(|no| !named.contains(no));
            }
            Ok(_) | Err(ShipError::Damaged { .. }) => doubt = true,
            Err(ShipError::Store(e)) => return Err(RepairError::Store(e)),
            Err(e) => return Err(e.into()),
        }
    }
    if doubt {
        unnamed.clear();
    }
    let Some(last) = last else { return Ok(unnamed) };
    for no in segments.into_iter().filter(|no| u64::from(no.epoch) > last) {
        if copies.len(Side::Local, no)?.is_none() {
            unnamed.insert(no);
        }
    }
    Ok(unnamed)
}

/// The generations in the store.
#[derive(Default)]
struct Generations {
    /// Those that have an object with the number of a base.
    based: BTreeSet<u64>,
    /// The last one that has an object with another number.
    last: Option<u64>,
}

fn generations(store: &dyn Store) -> Result<Generations, RepairError> {
    let mut found = Generations::default();
    store.walk("gen", &mut |name| {
        let mut numbers = name.split('/').skip(1).map(str::parse::<u64>);
        if let (Some(Ok(generation)), Some(Ok(number))) = (numbers.next(), numbers.next()) {
            match number {
                0 => found.based.extend([generation]),
                _ => found.last = found.last.max(Some(generation)),
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}
