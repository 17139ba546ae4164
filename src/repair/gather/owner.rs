//! Whether the state directory is still the writer's: by what a mount asks, as far as that is left.
//!
//! A manifest says which state directory this is; where it is lost, the epoch of its newest batch or node segment does, for no two
//! writers share one. Whoever published last has the filesystem; a repair that came to no end has nothing.

use super::StatePart;
use super::generations::{Header, Kind, Published};
use super::local::{self, Local};
use super::shelf::Shelf;
use super::starts::Nodes;
use crate::base::clock::Time;
use crate::checkpoint::files::edits_file;
use crate::format::ids::Lsn;
use crate::format::manifest::PlanEntry;
use crate::format::names;
use crate::format::publication::{Body, Position};
use crate::format::space;
use crate::repair::RepairError;
use crate::ship::publish::read;
use crate::store::Store;

/// What part the state directory has.
pub(super) fn part(
    local: Option<&Local>,
    published: &Published,
    shelf: &mut Shelf,
    store: &dyn Store,
) -> Result<StatePart, RepairError> {
    let Some(local) = local else { return Ok(StatePart::None) };
    // Who began it may be a repair, of which the closing object says nothing yet.
    if let Some((generation, _)) = published.begun.filter(|(_, epoch)| local.epoch < *epoch) {
        let name = names::publication(generation, 0);
        return Ok(StatePart::Outlived(format!("{name} came after it, from somebody else, and cannot be read")));
    }
    let newest = published.headers.iter().max_by_key(|header| header.at);
    // Whose epoch is newer has won, whatever is left of the closing object which said so.
    let outlived = newest.and_then(|newest| match &local.manifest {
        Some(manifest) => (newest.state != manifest.state && newest.epoch >= manifest.epoch)
            .then(|| format!("{} came after it", describe(newest))),
        None => (local.epoch < newest.epoch)
            .then(|| "its MANIFEST is lost, and nothing else in it says that it is the newest writer's".to_owned()),
    });
    if let Some(reason) = outlived {
        return Ok(StatePart::Outlived(reason));
    }
    let own = published.headers.iter().filter(|header| header.epoch == local.epoch);
    let past = Past { local, store, recorded: recorded(local, shelf, store)? };
    for header in own {
        if !past.holds(header)? {
            let Position { generation, number } = header.at;
            return Ok(StatePart::Outlived(format!(
                "it is an old copy: another one of it has published {}, which this one does not know",
                names::publication(generation, number)
            )));
        }
    }
    Ok(StatePart::Owner)
}

/// Whether the newest that can be read of what was published came from this state directory: then nobody else has the filesystem.
pub(super) fn published_last(local: Option<&Local>, published: &Published) -> bool {
    let newest = published.headers.iter().max_by_key(|header| header.at);
    local.zip(newest).is_some_and(|(local, newest)| match &local.manifest {
        Some(manifest) => newest.state == manifest.state,
        None => newest.epoch == local.epoch,
    })
}

/// Up to where it is recorded that windows were published: a batch of the journal says so, or the space tree. Nothing if that cannot
/// be read.
fn recorded(local: &Local, shelf: &mut Shelf, store: &dyn Store) -> Result<Option<Lsn>, RepairError> {
    let Some(newest) = local.checkpoints.first() else { return Ok(None) };
    let key = space::published();
    let found = Nodes::new(Some(&local.media), store).value(newest.roots[1], &key)?;
    if let Some(Some(value)) = &found {
        shelf.space(&key, value);
    }
    Ok(found.map(|_| shelf.recorded))
}

/// What a state directory can have published.
struct Past<'a> {
    local: &'a Local,
    store: &'a dyn Store,
    recorded: Option<Lsn>,
}

impl Past<'_> {
    /// Whether it holds what was published from it: it has recorded that, or has the plan of it, or the journal of the mount which did
    /// it. Two copies may come to the same number, so what a plan says is compared.
    fn holds(&self, header: &Header) -> Result<bool, RepairError> {
        let Header { nonce, checkpoint, end, kind, .. } = *header;
        let journal = &self.local.remains;
        let is_ours = journal.open == Some(nonce) || journal.lasts.get(&nonce) >= Some(&end);
        if kind == Kind::Closing || is_ours || Some(end) <= self.recorded {
            return Ok(true);
        }
        match self.local.plans.iter().find(|plan| (plan.number, plan.end) == (checkpoint, end)) {
            Some(plan) => self.is_planned(header, plan),
            // What was recorded cannot be read: then a checkpoint that is as new will do.
            None => Ok(self.recorded.is_none() && self.checkpoint().is_some_and(|at| at >= (checkpoint, end))),
        }
    }

    fn is_planned(&self, header: &Header, plan: &PlanEntry) -> Result<bool, RepairError> {
        let Some(found) = read(self.store, header.at)? else { return Ok(true) };
        Ok(match found.body {
            // What is damaged here cannot be compared.
            Body::Increment(increment) => match local::read(&*self.local.media, &edits_file(plan.number))? {
                Some(Ok(edits)) => plan.start == found.start && edits == increment.batches,
                _ => plan.start == found.start,
            },
            Body::Base(base) => {
                let mut checkpoints = self.local.checkpoints.iter();
                checkpoints.find(|own| own.number == plan.number).is_none_or(|own| own.roots == base.roots)
            }
            Body::Closing(_) => true,
            Body::Log(_) => false,
        })
    }

    fn checkpoint(&self) -> Option<(u64, Lsn)> {
        let point = self.local.manifest.as_ref().and_then(|manifest| manifest.checkpoint);
        let point = point.map(|point| (point.number, point.lsn));
        point.or(self.local.checkpoints.first().map(|newest| (newest.number, newest.lsn)))
    }
}

fn describe(header: &Header) -> String {
    let name = names::publication(header.at.generation, header.at.number);
    format!("{name}, published from state directory {} at {},", header.state, Time::from_nanos(header.wall))
}
