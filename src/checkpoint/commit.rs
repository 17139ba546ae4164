//! From what is frozen to a checkpoint: merging, committing, and trying again.

use super::backoff::Haste;
use super::cost::Chain;
use super::nodes::{self, NodeWriter};
use super::{CheckpointError, Checkpointer, NUMBERS_LOW, Phase, files, merge};
use crate::base::canary::{self, Canary};
use crate::format::checkpoint::Checkpoint;
use crate::format::manifest::{CommitPoint, PlanEntry};
use crate::journal::ManifestError;
use crate::map::{Frozen, Merge};

impl Checkpointer {
    /// A checkpoint at L is a root for recovery only once L is durable: otherwise a crash could lose batches that the
    /// trees already hold, and files would come from the future of the log.
    pub(super) fn merge_when_durable(&mut self) -> Result<bool, CheckpointError> {
        let Phase::Frozen(_, lsn) = &self.phase else { return Ok(false) };
        if self.db.journal().durable() < *lsn && !canary::removed(Canary::DurableBeforeCheckpoint) {
            return Ok(false);
        }
        let Phase::Frozen(frozen, _) = std::mem::replace(&mut self.phase, Phase::Idle) else { return Ok(false) };
        match self.commit(&frozen) {
            Ok((checkpoint, chain)) => {
                self.backoff.succeeded();
                self.db.install(&frozen, checkpoint.roots);
                drop(frozen);
                self.installed(checkpoint, chain)?;
                Ok(true)
            }
            Err(e) => {
                self.backoff.failed(self.clock.elapsed());
                self.figures.lock().checkpoint_failures = self.backoff.failures();
                self.phase = Phase::Failed(frozen);
                Err(e)
            }
        }
    }

    /// Once it is time, what is frozen is merged again, with numbers of its own, which are to be durable as well.
    pub(super) fn merge_again(&mut self) -> Result<bool, CheckpointError> {
        if !self.is_backing_off() || !self.backoff.is_over(self.clock.elapsed(), self.haste()) {
            return Ok(false);
        }
        self.wanted.take();
        self.reserve_numbers(NUMBERS_LOW)?;
        let lsn = self.db.last();
        self.ask_durable(lsn);
        if let Phase::Failed(frozen) = std::mem::replace(&mut self.phase, Phase::Idle) {
            self.phase = Phase::Frozen(frozen, lsn);
        }
        Ok(true)
    }

    fn haste(&self) -> Haste {
        match self.db.overlays_crowded() || self.db.journal().reclaim_wanted() {
            _ if self.wanted.is_set() => Haste::Asked,
            true => Haste::Room,
            false => Haste::None,
        }
    }

    /// The manifest never names a file or a tree that is not durable: nodes, then the checkpoint's files, then the
    /// manifest.
    fn commit(&mut self, frozen: &Frozen) -> Result<(Checkpoint, Chain), CheckpointError> {
        let previous = self.checkpoint.lsn;
        let trees = Merge { source: &*self.nodes, cache: Some(self.db.cache()), shape: self.policy.shape };
        let numbers = &mut self.numbers;
        let mut take = || numbers.take();
        let mut writer = NodeWriter::new(&*self.media, self.filesystem, &mut take, self.policy.segment_bytes);
        let merged = match merge::merge_all(frozen, previous, &trees, &mut writer) {
            Ok(merged) => merged,
            Err(e) => {
                writer.abandon();
                return Err(e);
            }
        };
        let nodes = writer.finish()?;
        let edits = merge::encode_changes(frozen);
        let node_bytes: u64 = nodes.iter().map(|(_, bytes)| bytes).sum();
        let chain = Chain {
            increments: 1,
            bytes: edits.len() as u64,
            nodes: node_bytes / (self.policy.shape.node_bytes as u64).max(1),
        };
        let committed = self.commit_merged(frozen, merged, edits);
        match &committed {
            // Whether the manifest on disk names the new checkpoint is unknown: its files stay, and nothing is tried again.
            Err(CheckpointError::Manifest(e @ ManifestError::Latched(_))) => self.db.journal().latch(e.to_string()),
            Err(_) => {
                nodes::remove_nodes(&*self.media, &nodes);
                self.remove_unnamed();
            }
            Ok(_) => self.new_nodes.extend(nodes),
        }
        committed.map(|checkpoint| (checkpoint, chain))
    }

    /// The files of a checkpoint that failed take room that others may need.
    fn remove_unnamed(&self) {
        if let Err(e) = files::sweep(&*self.media, &self.db.journal().manifest().current()) {
            log::warn!("files of a checkpoint that failed are removed by the next one: {e}");
        }
    }

    /// The rest of [`Checkpointer::commit`], once the nodes are durable.
    fn commit_merged(
        &mut self,
        frozen: &Frozen,
        merged: merge::Merged,
        edits: Vec<u8>,
    ) -> Result<Checkpoint, CheckpointError> {
        let previous = self.checkpoint.lsn;
        let mut settlement = if self.unsettled { self.unsettled_rest()? } else { Vec::new() };
        settlement.extend(merged.settlement);
        let checkpoint = Checkpoint {
            uuid: self.filesystem,
            number: self.checkpoint.number + 1,
            lsn: frozen.lsn,
            previous_lsn: previous,
            roots: merged.roots,
            wall: self.clock.now().as_nanos(),
            settlement,
            windows: Vec::new(),
            tail: None,
        };
        let bytes = edits.len() as u64;
        files::write(&*self.media, files::Files { checkpoint: &checkpoint, births: merged.births, edits })
            .map_err(CheckpointError::disk)?;
        self.db.journal().manifest().update(|m| {
            m.checkpoint = Some(CommitPoint { number: checkpoint.number, lsn: checkpoint.lsn });
            m.next_checkpoint = checkpoint.number + 1;
            let (number, start, end) = (checkpoint.number, previous, checkpoint.lsn);
            m.plans.push(PlanEntry { number, start, end, edits: Some(bytes) });
        })?;
        Ok(checkpoint)
    }
}
