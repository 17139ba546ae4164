//! Several operations at once: one stands at a wait, for what is to be fetched or for room, and others begin and end; and the
//! deeds of whoever looks after the cache by hand.

use crate::audit::try_rows;
use crate::model::Model;
use crate::model::driver::Mount;
use crate::model::op::{At, Call, Op, Who};
use crate::run::Runner;
use crate::step::{Step, may_wait, moments};
use crate::world::Waiting;
use skylog::base::clock::Time;
use skylog::format::batch::TreeId;
use skylog::format::ids::ObjectId;
use skylog::format::inode::Extent;
use skylog::format::key::Key;
use skylog::fs::{self, Cx, Fs};
use skylog::locate::{Evicted, Warmed};
use std::collections::BTreeMap;

/// The way of one operation to the filesystem, on which others go on at one of its waits.
struct Standing<'r, 's> {
    runner: &'r mut Runner,
    /// Waits until then.
    wait: u32,
    /// What is done then; or after it, if it never waits so often.
    steps: &'s [Step],
    /// It has its Lsn: what is begun now comes later.
    done: bool,
}

impl Runner {
    /// Does an operation at whose nth wait others go on.
    pub fn do_while(&mut self, op: &Op, wait: u32, steps: &[Step]) {
        if !may_wait(&op.call) {
            self.do_op(op);
            return steps.iter().for_each(|step| self.perform(step));
        }
        // Those that come between have their times before it.
        let at = self.line().last().step() + 1 + moments(steps);
        let mut driver = std::mem::take(&mut self.driver);
        self.standing.push((op.clone(), looked_up(&op.call)));
        self.begin_op();
        let mut standing = Standing { runner: self, wait, steps, done: false };
        let found = driver.apply(&mut standing, crate::model::time_of(at), op);
        let left = standing.steps;
        self.standing.pop();
        let mut model = Model::clone(self.line().last());
        model.wait_until(at);
        let expected = model.apply(op);
        assert_eq!(found, expected, "operation {}, which others overtook: {op:?}", self.line().len() + 1);
        driver.absorb(std::mem::take(&mut self.driver));
        self.driver = driver;
        self.end_op(model);
        left.iter().for_each(|step| self.perform_beside(step));
        if self.standing.is_empty() {
            std::mem::take(&mut self.deferred).iter().for_each(|step| self.perform(step));
        }
    }

    /// Does a step beside the operations that stand still, or after the last of them if it cannot be done now.
    fn perform_beside(&mut self, step: &Step) {
        let now = match step {
            Step::Do(op) | Step::While { op, .. } => self.standing.is_empty() || self.may_overtake(op),
            Step::Act(_) | Step::Sleep { .. } | Step::Sync { .. } | Step::Checkpoint | Step::Policy(_) => true,
            // The end of the mount waits for them.
            _ => self.standing.is_empty(),
        };
        match now {
            true => self.perform(step),
            false => self.deferred.push(step.clone()),
        }
    }

    /// Whether an operation that begins now may end before those that stand still: it leaves everything where they found it,
    /// and holds nothing that they hold. That must hold for those that end before others, too: what it does may change what they do.
    fn may_overtake(&self, op: &Op) -> bool {
        let model = self.line().last();
        if !may_wait(&op.call) || slots(&op.call) {
            return false;
        }
        let before = model.ids();
        let mut after = Model::clone(model);
        let at = |ids: &BTreeMap<String, u64>, path: &String| ids.get(path).copied();
        // The last of them ends first.
        let ending = std::iter::once(op).chain(self.standing.iter().rev().map(|(op, _)| op));
        ending.enumerate().all(|(ended, op)| {
            let _ = after.apply(op);
            let ids = after.ids();
            let left = &self.standing[..self.standing.len() - ended];
            left.iter().flat_map(|(_, paths)| paths).all(|path| at(&before, path) == at(&ids, path))
        })
    }

    /// Does a deed to every object of every file whose place can be found, as the command that names the root does.
    fn each_object(&mut self, deed: impl Fn(&mut Runner, &ObjectId) -> bool) -> u64 {
        let Ok(rows) = try_rows(self.instance(), TreeId::Files) else { return 0 };
        let extent = |(key, value)| match Key::decode(key) {
            Ok(Key::Extent(..)) => Extent::decode(value).ok().map(|extent| extent.object),
            _ => None,
        };
        let objects: Vec<ObjectId> = rows.iter().filter_map(|(key, value)| extent((key, value))).collect();
        objects.iter().map(|object| u64::from(deed(self, object))).sum()
    }

    /// What all files hold is brought into the cache.
    pub fn warm(&mut self) {
        let brought = self.each_object(|runner, object| {
            let locate = runner.instance().mounted.db.locate().clone();
            matches!(locate.warm(object), Ok(Warmed::Cached))
        });
        self.figures.warmed += brought;
    }

    /// What all files hold is dropped from the cache.
    pub fn evict(&mut self) {
        let dropped = self.each_object(|runner, object| {
            let locate = runner.instance().mounted.db.locate().clone();
            matches!(locate.evict(object), Ok(Evicted::Dropped(_)))
        });
        self.figures.dropped += dropped;
    }
}

impl Standing<'_, '_> {
    /// Others go on.
    fn stand(&mut self) {
        let steps = std::mem::take(&mut self.steps);
        let before = self.runner.line().len();
        steps.iter().for_each(|step| self.runner.perform_beside(step));
        self.runner.figures.overtook += (self.runner.line().len() - before) as u64;
        self.runner.begin_op();
    }
}

impl Mount for Standing<'_, '_> {
    fn run<T>(&mut self, who: Who, now: Time, mut op: impl FnMut(&Fs, &Cx) -> Result<T, fs::Stop>) -> Result<T, i32> {
        let mut waiting = Waiting::new(who, now);
        loop {
            let instance = self.runner.instance();
            let before = instance.mounted.db.last();
            let tried = instance.attempt(&waiting, &mut op);
            self.done |= instance.mounted.db.last() != before;
            match tried {
                Ok(result) => return result,
                Err(wait) => {
                    self.wait = self.wait.saturating_sub(1);
                    if self.wait == 0 && !self.done && !self.steps.is_empty() {
                        self.stand();
                    }
                    self.runner.instance().bring(&mut waiting, wait)?;
                }
            }
        }
    }
}

/// The paths whose names an operation looks up before its request, with all that they lead through.
fn looked_up(call: &Call) -> Vec<String> {
    let parent = |path: &str| path.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned());
    let at = |at: &At| match at {
        At::Path(path) => vec![path.clone()],
        At::Slot(_) => Vec::new(),
    };
    let whole = match call {
        Call::Create { path, .. } | Call::Mkdir { path, .. } | Call::Mknod { path, .. } => vec![parent(path)],
        Call::Symlink { path, .. } | Call::Unlink { path } | Call::Rmdir { path } => vec![parent(path)],
        Call::Link { from, to } => vec![from.clone(), parent(to)],
        Call::Rename { from, to, .. } => vec![parent(from), parent(to)],
        Call::Write { at: file, .. } | Call::Read { at: file, .. } | Call::Truncate { at: file, .. } => at(file),
        Call::Allocate { at: file, .. } | Call::ReadData { at: file } | Call::Stat { at: file } => at(file),
        Call::Copy { from, to, .. } => [at(from), at(to)].concat(),
        Call::Chmod { path, .. } | Call::Chown { path, .. } | Call::Utimens { path, .. } => vec![path.clone()],
        Call::SetXattr { path, .. } | Call::RemoveXattr { path, .. } | Call::ListXattrs { path } => vec![path.clone()],
        Call::SetAcl { path, .. } | Call::Open { path, .. } | Call::Readlink { path } => vec![path.clone()],
        Call::Readdir { path, .. } => vec![path.clone()],
        Call::Close { .. } | Call::Forget => Vec::new(),
    };
    let through = |path: &String| {
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]).collect();
        ends.into_iter().map(|end| path[..end].to_owned()).collect::<Vec<_>>()
    };
    whole.iter().flat_map(through).filter(|path| !path.is_empty()).collect()
}

/// Whether a call is of a file that is held open.
fn slots(call: &Call) -> bool {
    let slot = |at: &At| matches!(at, At::Slot(_));
    match call {
        Call::Write { at, .. } | Call::Read { at, .. } | Call::Truncate { at, .. } => slot(at),
        Call::Allocate { at, .. } | Call::Stat { at } => slot(at),
        Call::Copy { from, to, .. } => slot(from) || slot(to),
        _ => false,
    }
}
