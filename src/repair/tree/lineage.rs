//! Which segments of nodes never were part of the filesystem: a writer that was taken over may have put nodes of a tree into the
//! store that it did not come to publish. They look newer than what was published before, and are of a history that nobody
//! else ever saw.
//!
//! Who takes over begins with what is published. So of the epochs before that of a base, a tree holds what that base names, and
//! nothing else; and what no base names that could have named it was never published. A base that cannot be read may have
//! named anything written since the base before it began: then nothing of that time is thought to be strange.

use super::super::RepairError;
use super::copies::Copies;
use crate::format::ids::SegmentNo;
use crate::format::names;
use crate::format::publication::{Body, Position};
use crate::ship::ShipError;
use crate::ship::publish::read;
use crate::store::Store;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Those of `segments` that no published base named, and that are older than the newest.
pub(super) fn strangers(copies: &Copies, segments: BTreeSet<SegmentNo>) -> Result<BTreeSet<SegmentNo>, RepairError> {
    let store = copies.store();
    let mut unnamed = segments;
    // Whether a base that cannot be read may have named some.
    let mut doubt = true;
    for generation in generations(store)?.into_iter().rev() {
        // A segment is named by no generation before its epoch.
        if !doubt && unnamed.iter().all(|no| u64::from(no.epoch) > generation) {
            break;
        }
        match read(store, Position { generation, number: 0 }) {
            Ok(Some(found)) if found.uuid == copies.uuid => {
                // A generation that was closed before it had a base says nothing.
                let Body::Base(base) = found.body else { continue };
                if std::mem::take(&mut doubt) {
                    unnamed.retain(|no| no.epoch < found.epoch);
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
    Ok(unnamed)
}

/// The generations that have an object with the number of a base.
fn generations(store: &dyn Store) -> Result<BTreeSet<u64>, RepairError> {
    let mut found = BTreeSet::new();
    store.walk("gen", &mut |name| {
        let generation = name.split('/').nth(1).and_then(|generation| generation.parse().ok());
        found.extend(generation.filter(|generation| names::publication(*generation, 0) == name));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}
