//! The order of a repair: all is read before anything is written, and what is written is named by nothing until the base is.

use super::gather::{Evidence, StatePart, append_only, gather};
use super::mend::{KeyRange, Known, Mended, mend};
use super::objects::{Objects, find_objects};
use super::report::Report;
use super::space::{Terms, Uses, account};
use super::tree::Trees;
use super::watched::Failed;
use super::write::{Author, Edited, Segments};
use super::{Damaged, Means, Progress, RepairError, aside, differs};
use crate::base::canary::{Canary, removed};
use crate::check::{self, Depth, Problem, check};
use crate::format::batch::TreeId;
use crate::format::ids::{InodeNo, Lsn, NodePtr, Nonce, ObjectId, Uuid};
use crate::format::inode::Extent;
use crate::format::key::Key;
use crate::format::names::{self, SUPERBLOCK};
use crate::format::publication::{Base, Position, Publication};
use crate::format::repair_file::RepairFile;
use crate::format::space::{self, Mark, WindowRecord};
use crate::format::store_file::STORE_FILE;
use crate::media::Media;
use crate::recovery::{Asker, Before, Holding, MountError, ask};
use crate::store::Created;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How often all is done anew because somebody else was faster.
const TRIES: u32 = 4;

/// A step of a repair.
pub struct Pass {
    /// Its name.
    pub id: &'static str,
    /// Whether anything is changed by it, or by what comes after it.
    pub writes: bool,
    /// What it does.
    pub does: &'static str,
    run: fn(&mut Repair<'_>) -> Result<Next, RepairError>,
}

/// What comes after a pass.
enum Next {
    /// The next one.
    Pass,
    /// Nothing: the repair is done.
    End,
    /// Only the state directory is in the way.
    Aside,
    /// Somebody else was faster: all of them once more.
    Again,
}

/// All passes in the order in which they run.
pub const PASSES: &[Pass] = &[
    Pass {
        id: "evidence",
        writes: false,
        does: "reads what is left of superblock, publications, manifest, checkpoint, journal",
        run: |repair| repair.gather(),
    },
    Pass {
        id: "hold",
        writes: false,
        does: "asks whether somebody else holds the filesystem",
        run: |repair| repair.ask(),
    },
    Pass {
        id: "check",
        writes: false,
        does: "checks every byte, twice if anything is wrong; a filesystem that is whole is left alone",
        run: |repair| repair.check(),
    },
    Pass { id: "objects", writes: false, does: "finds which objects of files are whole", run: |repair| repair.find() },
    Pass { id: "files", writes: false, does: "mends the map of files", run: |repair| repair.mend() },
    Pass {
        id: "note",
        writes: true,
        does: "notes in the state directory that a repair is under way",
        run: |repair| repair.note(),
    },
    Pass {
        id: "copies",
        writes: true,
        does: "copies damaged store objects, and puts the report beside them",
        run: |repair| repair.copy(),
    },
    Pass {
        id: "fence",
        writes: true,
        does: "wins the numbers at which the filesystem would go on",
        run: |repair| repair.win(),
    },
    Pass {
        id: "trees",
        writes: true,
        does: "builds both trees, window indexes, segments for what only a journal or a log has",
        run: |repair| repair.build(),
    },
    Pass { id: "base", writes: true, does: "publishes the base of a new generation", run: |repair| repair.publish() },
    Pass {
        id: "aside",
        writes: true,
        does: "moves what the state directory holds into a folder of its own",
        run: |repair| repair.put_aside(),
    },
    Pass { id: "again", writes: true, does: "checks every byte again", run: |repair| repair.check_again() },
];

/// Repairs a filesystem; with `dry_run` it says what there is to repair, and nothing is changed.
pub fn repair(means: &Means, dry_run: bool, progress: &mut Progress<'_>) -> Result<Report, RepairError> {
    let note = means.state.as_ref().map(|state| aside::noted(&**state)).transpose()?.flatten();
    let noted = note.flatten();
    let mut repair = Repair::new(means, noted, progress);
    if let Some(base) = noted.map(|noted| aside::base_of(&*means.store, noted)).transpose()?.flatten() {
        repair.complete(&base, dry_run)?;
        return Ok(repair.report);
    }
    let mut tries = 0;
    while matches!(repair.run(dry_run)?, Next::Again) {
        log::info!("somebody else has published meanwhile; all is read anew");
        tries += 1;
        if tries == TRIES {
            return Err(RepairError::Refused("others publish while it is read; unmount it there".to_owned()));
        }
    }
    // One that had done nothing yet, and there is nothing to do any more: an earlier one, or this one before somebody was faster.
    if let (Some(state), None, false) = (&means.state, repair.report.base, dry_run) {
        if aside::noted(&**state)?.is_some() {
            aside::forget(&**state)?;
        }
    }
    Ok(repair.report)
}

/// A repair under way: what the passes learned so far.
struct Repair<'a> {
    means: &'a Means,
    progress: &'a mut (dyn FnMut(&'static str, u64, u64) + 'a),
    /// The repair, as its publications and the copies name it: the same one when it is run again.
    id: Uuid,
    /// No generation before this one can be its own, if that is known.
    from: u64,
    /// It was begun, before or by an earlier try of this one, and came to no end.
    noted: bool,
    nonce: Nonce,
    report: Report,
    /// The state directory counts, and moves aside.
    owns_state: bool,
    evidence: Option<Evidence>,
    left: Option<Left>,
    /// Holds that end with this repair.
    before: Before,
    /// Where the new generation starts, and with what.
    base: Option<(Lsn, Base)>,
    /// What is put when the base is there: nothing, as long as the rules hold.
    late: Vec<(String, Bytes)>,
}

/// What is left.
struct Left {
    trees: Trees,
    objects: Objects,
    mended: Mended,
}

impl<'a> Repair<'a> {
    fn new(means: &'a Means, noted: Option<RepairFile>, progress: &'a mut Progress<'_>) -> Repair<'a> {
        let new = RepairFile { id: Uuid(means.random.u128()), from: u64::MAX };
        let RepairFile { id, from } = noted.unwrap_or(new);
        Repair {
            means,
            progress,
            id,
            from,
            noted: noted.is_some(),
            nonce: Nonce(means.random.u128()),
            report: Report::default(),
            owns_state: false,
            evidence: None,
            left: None,
            before: Before::default(),
            base: None,
            late: Vec::new(),
        }
    }

    fn run(&mut self, dry_run: bool) -> Result<Next, RepairError> {
        (self.report, self.owns_state) = (Report::default(), false);
        for pass in PASSES.iter().filter(|pass| !(dry_run && pass.writes)) {
            (self.progress)(pass.id, 0, 0);
            match (pass.run)(self)? {
                Next::Pass => {}
                Next::Aside if dry_run => return Ok(Next::End),
                Next::Aside => {
                    self.put_aside()?;
                    return self.check_again();
                }
                next => return Ok(next),
            }
        }
        Ok(Next::End)
    }

    /// Brings a repair to its end that was interrupted after it had made this base.
    fn complete(&mut self, base: &Publication, dry_run: bool) -> Result<(), RepairError> {
        self.owns_state = true;
        self.report.resumed = true;
        self.report.base = Some(Position { generation: base.generation, number: 0 });
        self.report.kept = Some(names::damaged(self.id, aside::REPORT));
        if !dry_run {
            aside::close_leases(self.means, base.uuid)?;
            self.put_aside()?;
            self.check_again()?;
        }
        Ok(())
    }

    fn evidence(&self) -> &Evidence {
        self.evidence.as_ref().expect("the pass `evidence` came before")
    }

    fn left(&self) -> &Left {
        self.left.as_ref().expect("the pass `files` came before")
    }

    fn state(&self) -> Option<&Arc<dyn Media>> {
        self.means.state.as_ref().filter(|_| self.owns_state)
    }

    fn gather(&mut self) -> Result<Next, RepairError> {
        let evidence = gather(&self.means.store, self.means.state.as_ref(), &mut *self.progress)?;
        if evidence.superblock.append_only {
            return Err(RepairError::Refused("nothing of it may ever be deleted or replaced (append only)".to_owned()));
        }
        self.ask_append_only(&evidence)?;
        match &evidence.state {
            StatePart::None => {}
            StatePart::Owner => self.owns_state = true,
            StatePart::Outlived(reason) => {
                self.report.outlived = Some(reason.clone());
                self.report.is_unusable =
                    self.means.state.as_ref().map(aside::is_unusable).transpose()?.unwrap_or(false);
            }
        }
        self.report.damaged.extend(evidence.damaged.iter().cloned());
        self.report.lost = evidence.lost.clone();
        self.evidence = Some(evidence);
        Ok(Next::Pass)
    }

    /// What is left of a damaged superblock may not say whether anything may be deleted.
    fn ask_append_only(&self, evidence: &Evidence) -> Result<(), RepairError> {
        let Means { store, state, not_append_only, .. } = self.means;
        let is_damaged = evidence.damaged.iter().any(|damaged| !damaged.local && damaged.place == SUPERBLOCK);
        if !is_damaged || *not_append_only || append_only(&**store, state.as_ref(), evidence.superblock.uuid)?.is_some()
        {
            return Ok(());
        }
        let what = "whether it is append only cannot be told, for its superblock is damaged, and no state directory has a copy of it";
        Err(RepairError::Refused(format!("{what}; if it is not, run it again with --not-append-only")))
    }

    fn ask(&mut self) -> Result<Next, RepairError> {
        let Means { store, clock, owner, holding, .. } = self.means;
        // Whose state directory is the newest writer's need not ask, if the fence says so.
        let surely = self.owns_state && self.evidence().published_last;
        let holding = if surely && *holding == Holding::Asks { Holding::TakesOver } else { *holding };
        let asker = Asker { store: &**store, clock: &**clock, owner, holding };
        self.before = ask(&asker, self.evidence().superblock.uuid).map_err(|e| match e {
            MountError::Hold(e) => RepairError::Hold(e),
            e => e.into(),
        })?;
        Ok(Next::Pass)
    }

    fn check(&mut self) -> Result<Next, RepairError> {
        self.report.before = self.check_all(self.state().cloned())?;
        if !self.report.before.is_clean() {
            // What fails or comes wrong once is no damage, and no reason to touch what is whole.
            let again = self.check_all(self.state().cloned())?;
            if again.problems != self.report.before.problems || again.skipped != self.report.before.skipped {
                return Err(differs("the filesystem"));
            }
        }
        let leases = self.report.before.problems.iter().filter(|problem| names::is_lease(&problem.place));
        let damaged =
            |problem: &Problem| Damaged { place: problem.place.clone(), local: false, what: problem.what.clone() };
        self.report.damaged.extend(leases.map(damaged));
        // What an earlier one has sent may come at any time, and would take the filesystem from this state directory.
        self.report.begun = self.noted && self.owns_state && !removed(Canary::RepairDoneAgain);
        Ok(match (self.report.before.is_clean(), self.report.is_unusable) {
            (true, true) => Next::Aside,
            (true, false) if !self.report.begun => Next::End,
            _ => Next::Pass,
        })
    }

    fn find(&mut self) -> Result<Next, RepairError> {
        let last = self.author()?.base.generation - 1;
        let (store, evidence) = (&self.means.store, self.evidence.as_ref().expect("the pass `evidence` came before"));
        let uuid = evidence.superblock.uuid;
        let trees = Trees::new(uuid, self.state().cloned(), store.clone());
        let epoch = named_epoch(evidence, &trees)?.min(u32::try_from(last).unwrap_or(u32::MAX));
        let objects = find_objects(store, uuid, &evidence.windows, epoch, &mut *self.progress)?;
        self.report.damaged.extend(objects.damaged().iter().cloned());
        self.left = Some(Left { trees, objects, mended: Mended::default() });
        Ok(Next::Pass)
    }

    fn mend(&mut self) -> Result<Next, RepairError> {
        let Repair { evidence: Some(evidence), left: Some(left), report, .. } = self else {
            unreachable!("see `left`")
        };
        let Left { trees, objects, mended } = left;
        let mut source = |each: &mut dyn FnMut(Bytes, Bytes)| -> Result<Vec<KeyRange>, RepairError> {
            let found = trees.each(TreeId::Files, root_of(evidence, TreeId::Files), &evidence.overlays[0], each)?;
            Ok(found.into_iter().map(|lost| KeyRange { from: lost.from, to: lost.to }).collect())
        };
        let whole = |object: &ObjectId| objects.len_of(object).max(evidence.contents.len_of(object));
        let births = |ino: InodeNo| objects.births_of(ino);
        let known = Known {
            whole: &whole,
            births: &births,
            counted: evidence.superblock.usage,
            inode_max: evidence.inode_max,
            lost: &evidence.lost,
            after_loss: &evidence.after_loss,
            now: self.means.clock.now(),
        };
        *mended = mend(&mut source, &known, &mut |touched| report.touch(touched))?;
        report.damaged.extend(trees.damaged());
        Ok(Next::Pass)
    }

    /// What all that is published says.
    fn author(&self) -> Result<Author<'_>, RepairError> {
        let evidence = self.evidence();
        let last = evidence.close.last().map_or(0, |at| at.generation);
        let generation = last + 1;
        if u64::from(evidence.epoch_max) >= generation {
            return Err(RepairError::Refused(format!(
                "it holds something of epoch {}, and its newest generation is {last}",
                evidence.epoch_max
            )));
        }
        Ok(Author {
            store: &*self.means.store,
            filesystem: evidence.superblock.uuid,
            repair: self.id,
            nonce: self.nonce,
            wall: self.means.clock.now().as_nanos(),
            base: Position { generation, number: 0 },
            checkpoint: evidence.checkpoint_max + 1,
        })
    }

    fn note(&mut self) -> Result<Next, RepairError> {
        self.from = self.from.min(self.author()?.base.generation);
        let file = RepairFile { id: self.id, from: self.from };
        if let Some(state) = self.state() {
            aside::note(&**state, file)?;
            // Also for this one, if somebody is faster and all is done anew: what it has sent by then may still come.
            self.noted = true;
        }
        Ok(Next::Pass)
    }

    fn copy(&mut self) -> Result<Next, RepairError> {
        if removed(Canary::CopiesBeforeBase) && self.report.base.is_none() {
            return Ok(Next::Pass);
        }
        let (store, evidence) = (&*self.means.store, self.evidence());
        let superblock = &evidence.superblock;
        if removed(Canary::CopyBeforeSuperblock) {
            store.put(SUPERBLOCK, superblock.encode().into())?;
        }
        aside::copy_objects(store, self.id, &self.report.damaged)?;
        let text = self.report.to_text(superblock.uuid, self.id, self.means.clock.now());
        let report = aside::put_report(store, self.id, text)?;
        // Nothing can be read without it, and it says nothing that changes.
        if self.report.damaged.iter().any(|damaged| !damaged.local && damaged.place == SUPERBLOCK) {
            store.put(SUPERBLOCK, superblock.encode().into())?;
        }
        self.report.kept = Some(report);
        Ok(Next::Pass)
    }

    fn win(&mut self) -> Result<Next, RepairError> {
        let (author, evidence) = (self.author()?, self.evidence());
        for at in evidence.close.iter().filter(|_| !removed(Canary::FenceBeforeRepair)) {
            if !author.close(*at, evidence.end, &self.means.owner)? {
                return Ok(Next::Again);
            }
        }
        Ok(Next::Pass)
    }

    fn build(&mut self) -> Result<Next, RepairError> {
        let (author, evidence, Left { trees, objects, mended }) = (self.author()?, self.evidence(), self.left());
        let epoch = author.epoch()?;
        let end = Lsn { epoch, pos: evidence.end.pos + 1 };
        let Means { store, segment_bytes, shape, .. } = self.means;
        let mut segments = Segments {
            store: &**store,
            filesystem: author.filesystem,
            epoch,
            next: 0,
            bytes_max: *segment_bytes,
            shape: *shape,
            late: Vec::new(),
        };
        let (mut uses, mut node_segments) = (Uses::default(), Vec::new());
        let root = root_of(evidence, TreeId::Files);
        let mut entries = |each: &mut dyn FnMut(Bytes, Bytes)| {
            let mut take = |key: Bytes, value: Bytes| {
                if let (Ok(Key::Extent(ino, at)), Ok(extent)) = (Key::decode(&key), Extent::decode(&value)) {
                    uses.take(ino, at, &extent);
                }
                each(key, value);
            };
            let mut edited = Edited::new(mended, &mut take);
            trees.each(TreeId::Files, root, &evidence.overlays[0], &mut |key, value| edited.entry(key, value))?;
            edited.finish();
            Ok(())
        };
        let files = segments.tree(&mut entries, &mut node_segments)?;
        let old = self.old_space()?;
        let terms = Terms {
            uuid: author.filesystem,
            base: author.base,
            checkpoint: author.checkpoint,
            end,
            now: author.wall,
            inode_mark: old.inode_mark.max(evidence.inode_max + 1).max(mended.inode_max + 1),
            segment_bytes: *segment_bytes,
            first_segment: segments.next,
            doomed: old.doomed,
        };
        let rebuilt = account(store, objects, &evidence.contents, &uses, &terms)?;
        segments.next = rebuilt.next_segment;
        segments.late.extend(rebuilt.late);
        for (name, bytes) in &rebuilt.indexes {
            if removed(Canary::RepairIndexesBeforeBase) {
                segments.late.push((name.clone(), bytes.clone()));
                continue;
            }
            if store.create(name, bytes.clone())? == Created::Exists && store.get(name)? != *bytes {
                return Err(RepairError::Refused(format!("{name} is there already, and is another one")));
            }
        }
        let mut entries = |each: &mut dyn FnMut(Bytes, Bytes)| {
            rebuilt.entries.iter().for_each(|(key, value)| each(key.clone(), value.clone()));
            Ok(())
        };
        let space = segments.tree(&mut entries, &mut node_segments)?;
        let base = Base { roots: [files, space], node_segments, ..Base::default() };
        (self.base, self.late) = (Some((end, base)), segments.late);
        Ok(Next::Pass)
    }

    /// What is still to be known of the space map that was.
    fn old_space(&self) -> Result<OldSpace, RepairError> {
        let (evidence, trees) = (self.evidence(), &self.left().trees);
        let mut old = OldSpace::default();
        trees.each(
            TreeId::Space,
            root_of(evidence, TreeId::Space),
            &evidence.overlays[1],
            &mut |key: Bytes, value: Bytes| match space::Key::decode(&key) {
                Ok(space::Key::Mark(Mark::Inode)) => old.inode_mark = space::decode_number(&value).unwrap_or(0),
                Ok(space::Key::Pending(name)) => old.doomed.extend(String::from_utf8(name.to_vec())),
                _ => {}
            },
        )?;
        Ok(old)
    }

    fn publish(&mut self) -> Result<Next, RepairError> {
        if removed(Canary::BaseBeforeAside) {
            self.move_aside()?;
        }
        let (end, base) = self.base.take().expect("the pass `trees` came before");
        let author = self.author()?;
        if !author.publish(end, base)? {
            return Ok(Next::Again);
        }
        let base = author.base;
        self.late.iter().try_for_each(|(name, bytes)| self.means.store.put(name, bytes.clone()))?;
        aside::close_leases(self.means, author.filesystem)?;
        let taken = std::mem::take(&mut self.before).end(&*self.means.store);
        self.report.taken = taken.filter(|_| !self.owns_state);
        self.report.base = Some(base);
        if removed(Canary::CopiesBeforeBase) {
            self.copy()?;
        }
        Ok(Next::Pass)
    }

    fn put_aside(&mut self) -> Result<Next, RepairError> {
        if removed(Canary::NoteGoesLast) {
            self.forget()?;
        }
        self.move_aside()?;
        self.forget()?;
        Ok(Next::Pass)
    }

    fn move_aside(&mut self) -> Result<(), RepairError> {
        let Some(state) = self.means.state.as_ref().filter(|_| self.owns_state || self.report.is_unusable) else {
            return Ok(());
        };
        let damaged = self.report.damaged.iter().filter(|damaged| damaged.local && damaged.place == STORE_FILE);
        let also = damaged.map(|damaged| damaged.place.clone()).collect();
        if aside::move_state(&**state, self.id, &also)? {
            self.report.aside = Some(aside::local_folder(self.id));
        }
        Ok(())
    }

    fn forget(&self) -> Result<(), RepairError> {
        Ok(self.means.state.as_ref().map_or(Ok(()), |state| aside::forget(&**state))?)
    }

    /// Checks every byte. That something cannot be read now is no damage, and whatever is damaged beside it can wait.
    fn check_all(&mut self, state: Option<Arc<dyn Media>>) -> Result<check::Report, RepairError> {
        let failed = Failed::default();
        let (store, state) = (failed.store(&self.means.store), state.map(|state| failed.media(&state)));
        let report = check(&store, state, Depth::Data, &mut *self.progress);
        match failed.first().filter(|_| !report.is_clean()) {
            Some(error) => Err(error),
            None => Ok(report),
        }
    }

    fn check_again(&mut self) -> Result<Next, RepairError> {
        let Report { outlived, is_unusable, .. } = &self.report;
        let state = self.means.state.clone().filter(|_| outlived.is_none() || *is_unusable);
        match self.check_all(state) {
            Ok(after) => self.report.after = Some(after),
            // All is done, and the report must be seen.
            Err(e) => self.report.unchecked = Some(e.to_string()),
        }
        Ok(Next::End)
    }
}

#[derive(Default)]
struct OldSpace {
    inode_mark: u64,
    /// Store objects that are listed for deletion.
    doomed: BTreeSet<String>,
}

/// The highest epoch of which anything is named: by batches, windows, the state directory, or an entry of a tree.
fn named_epoch(evidence: &Evidence, trees: &Trees) -> Result<u32, RepairError> {
    let mut epoch = evidence.epoch;
    trees.each(TreeId::Files, root_of(evidence, TreeId::Files), &evidence.overlays[0], &mut |key, value| {
        if let (Ok(Key::Extent(..)), Ok(extent)) = (Key::decode(&key), Extent::decode(&value)) {
            epoch = epoch.max(extent.object.lsn.epoch);
        }
    })?;
    trees.each(TreeId::Space, root_of(evidence, TreeId::Space), &evidence.overlays[1], &mut |key, value| {
        epoch = epoch.max(match space::Key::decode(&key) {
            Ok(space::Key::Segment(no)) => no.epoch,
            Ok(space::Key::Window(end)) => {
                let segments = WindowRecord::decode(&value).map(|record| record.segments).unwrap_or_default();
                segments.iter().map(|no| no.epoch).max().unwrap_or(0).max(end.epoch)
            }
            _ => 0,
        });
    })?;
    Ok(epoch)
}

fn root_of(evidence: &Evidence, tree: TreeId) -> Option<Option<NodePtr>> {
    evidence.start.roots.map(|roots| roots[tree as usize])
}
