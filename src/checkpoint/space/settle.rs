//! Settling: what a merge found about objects becomes changes of counts, of live bytes, and of what is dead.

use super::{Context, TxError, get, waiting_object};
use crate::checkpoint::CheckpointError;
use crate::format::batch::TreeId;
use crate::format::checkpoint::Settle;
use crate::format::ids::{Lsn, ObjectId, SegmentNo};
use crate::format::names;
use crate::format::space::{self, SegmentRecord, Settled, WindowRecord};
use crate::locate::Locate;
use crate::map::Tx;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::ControlFlow;

impl Context<'_> {
    /// Applies a part of a checkpoint's settlement, from where an earlier call or an earlier life stopped; `false` when all
    /// of it is applied.
    pub fn settle_some(&self, checkpoint: u64, settlement: &[Settle]) -> Result<bool, CheckpointError> {
        let (number, cursor) = self.settled()?;
        if number > checkpoint {
            return Ok(false);
        }
        let done = if number == checkpoint { usize::try_from(cursor).unwrap_or(usize::MAX) } else { 0 };
        let rest = settlement.get(done..).unwrap_or_default();
        let Some(part) = rest.chunks(self.objects_per_batch()).next() else { return Ok(false) };
        let settled = Settled { checkpoint, cursor: (done + part.len()) as u64 };
        let (effects, _) = self.run(|tx| {
            let mut ledger = Ledger::new(self);
            for settle in part {
                ledger.settle(tx, settle)?;
            }
            tx.put(TreeId::Space, space::settled(), settled.encode());
            ledger.write(tx)
        })?;
        effects.apply(self.locate());
        Ok(true)
    }

    /// Settles the deaths that waited for their window to be recorded, which all are up to `recorded`. A window without a
    /// record by then held nothing else that lived, so a death in it changes nothing.
    pub fn settle_waiting(&self, recorded: Lsn) -> Result<(), CheckpointError> {
        if self.away.get() {
            return Ok(());
        }
        self.pages(space::waitings(), self.objects_per_batch(), &mut |rows| {
            let mut due = Vec::new();
            for (key, _) in rows {
                let object = waiting_object(key)?;
                if object.lsn <= recorded {
                    due.push(object);
                }
            }
            if due.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let (effects, _) = self.run(|tx| {
                let mut ledger = Ledger::new(self);
                for object in &due {
                    tx.delete(TreeId::Space, space::waiting(*object));
                    if self.locate().windows().of(object.lsn).is_some() {
                        ledger.dies(tx, *object)?;
                    }
                }
                ledger.write(tx)
            })?;
            effects.apply(self.locate());
            // The rest waits on.
            Ok(if self.away.get() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }
}

/// The records one transaction changes, read once and written once.
struct Ledger<'a> {
    context: &'a Context<'a>,
    segments: BTreeMap<SegmentNo, SegmentRecord>,
    windows: BTreeMap<Lsn, WindowRecord>,
}

/// What must follow once the batch is in the log.
struct Effects {
    dead_windows: Vec<Lsn>,
}

impl Effects {
    fn apply(self, locate: &Locate) {
        for end in self.dead_windows {
            locate.windows().remove(end);
        }
    }
}

impl<'a> Ledger<'a> {
    fn new(context: &'a Context<'a>) -> Ledger<'a> {
        Ledger { context, segments: BTreeMap::new(), windows: BTreeMap::new() }
    }

    fn settle(&mut self, tx: &mut Tx<'_>, settle: &Settle) -> Result<(), TxError> {
        let key = space::count(settle.object);
        let known = get(tx, &key, space::decode_count)?;
        let count = i64::from(known.unwrap_or(1)) + i64::from(settle.delta);
        match count {
            i64::MIN..=0 => {
                if known.is_some() {
                    tx.delete(TreeId::Space, key);
                }
                self.dies(tx, settle.object)?;
            }
            1 if known.is_none() => {}
            1 => tx.delete(TreeId::Space, key),
            n => tx.put(TreeId::Space, key, space::encode_count(u32::try_from(n).unwrap_or(u32::MAX))),
        }
        Ok(())
    }

    /// No extent names the object any more. A death whose window is not recorded yet waits for it.
    fn dies(&mut self, tx: &mut Tx<'_>, object: ObjectId) -> Result<(), TxError> {
        let Some((segment, row)) = self.context.find(&object) else {
            tx.put(TreeId::Space, space::waiting(object), Bytes::new());
            return Ok(());
        };
        let record = match self.segments.entry(segment) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => match get(tx, &space::segment(segment), SegmentRecord::decode)? {
                Some(record) => new.insert(record),
                None => return Ok(()),
            },
        };
        record.live_bytes = record.live_bytes.saturating_sub(u64::from(row.len));
        record.live_objects = record.live_objects.saturating_sub(1);
        let end = record.window_end;
        let window = match self.windows.entry(end) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => match get(tx, &space::window(end), WindowRecord::decode)? {
                Some(window) => new.insert(window),
                None => return Ok(()),
            },
        };
        window.live_objects = window.live_objects.saturating_sub(1);
        Ok(())
    }

    fn write(self, tx: &mut Tx<'_>) -> Result<Effects, TxError> {
        let mut dead_windows = Vec::new();
        for (no, record) in self.segments {
            match record.live_objects {
                0 => {
                    tx.delete(TreeId::Space, space::segment(no));
                    tx.put(TreeId::Space, space::pending(names::segment(no).as_bytes()), self.context.pending());
                }
                _ => tx.put(TreeId::Space, space::segment(no), record.encode()),
            }
        }
        for (end, record) in self.windows {
            match record.live_objects {
                0 => {
                    let name = names::window(record.start, end);
                    tx.delete(TreeId::Space, space::window(end));
                    tx.put(TreeId::Space, space::pending(name.as_bytes()), self.context.pending());
                    dead_windows.push(end);
                }
                _ => tx.put(TreeId::Space, space::window(end), record.encode()),
            }
        }
        Ok(Effects { dead_windows })
    }
}
