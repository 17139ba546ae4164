//! The processes of the model: a writer that mounts its state directory, publishes, dies and comes back; one that takes the
//! filesystem over first; and one that only reads. What they do with the store is done by the product; what stands here is what
//! a state directory remembers, and in which order things are asked for.

use crate::fence::script::{Fact, Script, life};
use skylog::checkpoint::files;
use skylog::format::batch::{Edit, TreeId, encode_edits, encode_head};
use skylog::format::checkpoint::Checkpoint;
use skylog::format::ids::{Lsn, Nonce, SegmentNo, Uuid};
use skylog::format::manifest::{Manifest, PlanEntry};
use skylog::format::publication::{Base, Body, Closing, Increment, Log, Position, Publication};
use skylog::format::space::Published;
use skylog::media::Media;
use skylog::media::sim::{CallLog, SimDisk};
use skylog::recovery::{Fetcher, MountError, Remote, next_position, read_remote};
use skylog::ship::ShipError;
use skylog::ship::fence::{Win, deletable, win};
use skylog::ship::publish::{Actor, Draft, Held, Identity, Outcome, Past, Publisher};
use skylog::store::Store;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex};

pub const FILESYSTEM: Uuid = Uuid(1);

/// Checkpoints that a state directory may come to in a model.
const CHECKPOINTS_MAX: u64 = 12;

/// What a writer is to do, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Publish a window as an increment.
    Window,
    /// Publish what an fsync waits for.
    Log,
    /// Start a generation.
    Base,
    /// Delete what was listed when the newest base was recorded.
    Delete,
}

/// A state directory: what survives the death of a process.
#[derive(Clone)]
pub struct Dir {
    pub state: Uuid,
    /// Which of several copies of it.
    pub copy: u8,
    pub epoch: u32,
    pub generation: u64,
    pub recorded: Option<Published>,
    plans: Vec<PlanEntry>,
    next_checkpoint: u64,
    window_end: Lsn,
    /// Batches that a log may carry, as far as no recorded window has them, and how far the journal has those of each life.
    tail: Vec<(Lsn, Vec<u8>)>,
    lasts: HashMap<Nonce, Lsn>,
    jobs: Vec<Job>,
    dead: BTreeSet<String>,
    lives: u128,
}

impl Dir {
    /// What a takeover makes.
    fn taken(state: Uuid, epoch: u32, remote: &Remote, jobs: &[Job]) -> Dir {
        Dir {
            state,
            copy: 0,
            epoch,
            generation: u64::from(epoch),
            recorded: None,
            plans: Vec::new(),
            next_checkpoint: remote.checkpoint + 1,
            window_end: remote.end,
            tail: Vec::new(),
            lasts: HashMap::new(),
            jobs: jobs.to_vec(),
            dead: BTreeSet::new(),
            lives: 0,
        }
    }

    /// The same with other things to do.
    pub fn with(&self, copy: u8, jobs: &[Job]) -> Dir {
        Dir { copy, jobs: jobs.to_vec(), ..self.clone() }
    }

    fn media(&self) -> Arc<dyn Media> {
        type Disks = HashMap<(u8, u32), Arc<dyn Media>>;
        static DISKS: LazyLock<Mutex<Disks>> = LazyLock::new(Mutex::default);
        let mut disks = DISKS.lock().expect("no panic while it is held");
        disks.entry((self.copy, self.epoch)).or_insert_with(|| disk(self.copy, self.epoch)).clone()
    }

    /// The window that is to be published: the one whose publication is not recorded, or a new one.
    fn plan(&mut self) -> PlanEntry {
        if let Some(plan) = self.plans.first() {
            return *plan;
        }
        let number = self.next_checkpoint;
        let plan = PlanEntry { number, start: self.window_end, end: window_end(self.epoch, number), edits: None };
        self.next_checkpoint += 1;
        self.window_end = plan.end;
        self.plans.push(plan);
        plan
    }

    /// Notes what was published.
    fn record(&mut self, at: Position, checkpoint: u64, end: Lsn) {
        let end = self.recorded.map_or(end, |recorded| recorded.end.max(end));
        self.recorded = Some(Published { end, checkpoint, generation: at.generation, number: at.number });
        self.plans.retain(|plan| plan.end > end);
        self.tail.retain(|(lsn, _)| *lsn > end);
    }

    /// The name of a life.
    fn nonce(&self) -> Nonce {
        Nonce(self.state.0 * 1000 + u128::from(self.copy) * 100 + self.lives)
    }

    /// The batches after `start` that a log may carry.
    fn log_after(&self, start: Lsn) -> Log {
        let batches: Vec<&[u8]> =
            self.tail.iter().filter(|(lsn, _)| *lsn > start).map(|(_, batch)| &batch[..]).collect();
        Log { batches: batches.concat().into() }
    }
}

fn window_end(epoch: u32, checkpoint: u64) -> Lsn {
    Lsn { epoch, pos: checkpoint * 10 }
}

/// One batch that says who made it.
fn batch(lsn: Lsn, copy: u8) -> Vec<u8> {
    let edit = Edit::Put { key: vec![9, copy].into(), value: lsn.pos.to_le_bytes().to_vec().into() };
    encode_head(lsn, 1, &encode_edits(&[(TreeId::Files, edit)]), &[], true)
}

/// The files of every checkpoint that there may be.
fn disk(copy: u8, epoch: u32) -> Arc<dyn Media> {
    let media = SimDisk::new(&CallLog::new());
    media.make_dir(files::CHECKPOINTS).expect("nothing fails");
    for number in 1..=CHECKPOINTS_MAX {
        let lsn = window_end(epoch, number);
        let checkpoint = Checkpoint {
            uuid: FILESYSTEM,
            number,
            lsn,
            previous_lsn: lsn,
            wall: 0,
            roots: [None, None],
            settlement: Vec::new(),
            windows: Vec::new(),
            tail: None,
        };
        let files = files::Files { checkpoint: &checkpoint, births: Vec::new(), edits: batch(lsn, copy) };
        files::write(&media, files).expect("nothing fails");
    }
    Arc::new(media)
}

/// One mount of a state directory.
struct Mount<'a> {
    script: &'a Arc<Script>,
    dir: &'a mut Dir,
    publisher: Arc<Publisher>,
    /// The generation was closed, and the next has no base.
    closed: bool,
    ended: Vec<Position>,
}

/// Why a mount does nothing more.
enum Stop {
    /// It has lost.
    Fenced,
    /// The store did not answer; worth another try.
    Away,
}

impl Mount<'_> {
    fn stop(&self, e: ShipError) -> Stop {
        match e {
            ShipError::Store(_) => Stop::Away,
            e if e.ends_writing() => {
                self.script.say(Fact::Fenced);
                Stop::Fenced
            }
            e => {
                self.script.say(Fact::Wrong(e.to_string()));
                Stop::Fenced
            }
        }
    }

    fn told(&self, at: Position, end: Lsn, body: Body) {
        self.script.say(Fact::Told { at, end, body });
    }

    /// Takes up what was found to be published, as the owner of the space tree does.
    fn adopt(&mut self, found: Publication) {
        let Publication { generation, number, checkpoint, end, .. } = found;
        let at = Position { generation, number };
        self.told(at, end, found.body.clone());
        self.script.point();
        match found.body {
            Body::Increment(_) => self.dir.record(at, checkpoint, end),
            Body::Base(_) => {
                self.dir.record(at, checkpoint, end);
                let ended = std::mem::take(&mut self.ended);
                self.dir.dead.extend(ended.into_iter().flat_map(deletable));
                self.closed = false;
            }
            Body::Closing(_) => {
                self.closed = true;
                self.ended.push(at);
            }
            Body::Log(_) => {}
        }
    }

    /// Settles an attempt; whether it was the very one that is in the store.
    fn settle(&mut self, outcome: Result<Outcome, ShipError>, end: Lsn, body: Body) -> Result<Option<Position>, Stop> {
        match outcome.map_err(|e| self.stop(e))? {
            Outcome::Published(at) => {
                self.told(at, end, body);
                self.script.point();
                Ok(Some(at))
            }
            Outcome::Adopted(found) => {
                self.adopt(*found);
                Ok(None)
            }
            Outcome::NoBase => Ok(None),
        }
    }

    fn window(&mut self) -> Result<bool, Stop> {
        let PlanEntry { number, start, end, .. } = self.dir.plan();
        let batches = files::read_edits(&*self.dir.media(), number, None).expect("nothing fails");
        let body = Body::Increment(Increment { windows: Vec::new(), settlement: Vec::new(), batches });
        let draft = Draft { wall: Default::default(), checkpoint: number, start, end };
        let outcome = self.publisher.hold(Actor::Shipper).publish(draft, body.clone());
        let Some(at) = self.settle(outcome, end, body)? else { return Ok(self.dir.plans.is_empty()) };
        self.dir.record(at, number, end);
        Ok(true)
    }

    fn base(&mut self) -> Result<bool, Stop> {
        let PlanEntry { number, end, .. } = self.dir.plan();
        let draft = Draft { wall: Default::default(), checkpoint: number, start: Lsn::ZERO, end };
        let publisher = self.publisher.clone();
        self.base_under(&mut publisher.hold(Actor::Shipper), draft)
    }

    fn base_under(&mut self, held: &mut Held<'_>, draft: Draft) -> Result<bool, Stop> {
        match held.start_generation(draft).map_err(|e| self.stop(e))? {
            Outcome::Adopted(found) => {
                self.adopt(*found);
                return Ok(false);
            }
            Outcome::Published(_) | Outcome::NoBase => {}
        }
        let first = self.dir.recorded.map_or(self.dir.generation - 1, |recorded| recorded.generation);
        let ended = held.closings(first).map_err(|e| self.stop(e))?;
        let segment = SegmentNo { epoch: self.dir.epoch, number: draft.checkpoint };
        let body = Body::Base(Base {
            roots: [None, None],
            windows: Vec::new(),
            node_segments: vec![(segment, u64::from(self.dir.copy) + 1)],
            settlement: Vec::new(),
            log: self.dir.log_after(draft.end),
        });
        let outcome = held.publish(draft, body.clone());
        let Some(at) = self.settle(outcome, draft.end, body)? else { return Ok(self.dir.plans.is_empty()) };
        self.dir.dead.extend(ended.into_iter().flat_map(deletable));
        self.dir.record(at, draft.checkpoint, draft.end);
        self.closed = false;
        Ok(true)
    }

    fn log(&mut self) -> Result<bool, Stop> {
        let Some(recorded) = self.dir.recorded else { return Ok(true) };
        let last = self.dir.tail.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn).max(self.dir.window_end);
        // A longer one than the one before, whatever became of that; and the journal has it first.
        let end = Lsn { epoch: self.dir.epoch, pos: last.pos + 1 };
        self.dir.tail.push((end, batch(end, self.dir.copy)));
        self.dir.lasts.insert(self.dir.nonce(), end);
        let body = Body::Log(self.dir.log_after(recorded.end));
        let draft = Draft { wall: Default::default(), checkpoint: recorded.checkpoint, start: recorded.end, end };
        let outcome = self.publisher.hold(Actor::Syncer).publish(draft, body.clone());
        self.settle(outcome, end, body)?;
        Ok(true)
    }

    fn delete(&mut self) -> Result<bool, Stop> {
        // What cannot be deleted stays listed, and stops nothing else.
        for name in self.dir.dead.clone() {
            if self.script.delete(&name).is_ok() {
                self.dir.dead.remove(&name);
            }
        }
        Ok(true)
    }

    fn run(&mut self) {
        loop {
            match self.publisher.resume().map_err(|e| self.stop(e)) {
                Ok(found) => {
                    found.into_iter().for_each(|publication| self.adopt(publication));
                    break;
                }
                Err(Stop::Away) => {}
                Err(Stop::Fenced) => return,
            }
        }
        while let Some(&job) = self.dir.jobs.first() {
            let done = match job {
                Job::Window if self.closed || !self.publisher.hold(Actor::Shipper).has_base() => self.base(),
                Job::Window => self.window(),
                Job::Base => self.base(),
                Job::Log => self.log(),
                Job::Delete => self.delete(),
            };
            match done {
                Ok(true) => drop(self.dir.jobs.remove(0)),
                Ok(false) => {}
                Err(Stop::Fenced) => return,
                // The other actor may come first.
                Err(Stop::Away) => {
                    if let [job, next, ..] = &mut self.dir.jobs[..] {
                        if (*job == Job::Log) != (*next == Job::Log) && *next != Job::Delete {
                            std::mem::swap(job, next);
                        }
                    }
                }
            }
        }
    }
}

fn publisher(store: Arc<dyn Store>, dir: &Dir) -> Publisher {
    let Dir { state, epoch, generation, recorded, .. } = *dir;
    let manifest = Manifest { plans: dir.plans.clone(), ..Manifest::new(FILESYSTEM, state, epoch, generation) };
    let nonce = dir.nonce();
    let identity = Identity { filesystem: FILESYSTEM, state, nonce, epoch, owner: String::new() };
    let past = Past::new(dir.media(), &manifest, recorded).holding(dir.lasts.clone());
    Publisher::new(store, identity, next_position(&manifest, recorded), past)
}

/// Mounts a state directory, again and again while it dies.
pub fn resident(script: &Arc<Script>, dir: &mut Dir) {
    loop {
        dir.lives += 1;
        let lived = life(|| {
            let publisher = Arc::new(publisher(script.clone(), dir));
            Mount { script, dir: &mut *dir, publisher, closed: false, ended: Vec::new() }.run();
        });
        if lived.is_some() {
            return;
        }
    }
}

/// Reads the newest state as a takeover or a follower does.
fn walk(script: &Arc<Script>) -> Option<Remote> {
    match read_remote(&**script, FILESYSTEM, &Fetcher::new(1)) {
        Ok(remote) => {
            let Remote { free, end, checkpoint, .. } = remote;
            script.say(Fact::Walked { free, end, checkpoint });
            Some(remote)
        }
        Err(MountError::Store(_)) => None,
        Err(e) => {
            script.say(Fact::Wrong(format!("a walk: {e}")));
            None
        }
    }
}

/// Takes the filesystem over; tries so many times.
fn take_over(script: &Arc<Script>, state: Uuid, jobs: &[Job], tries: u32) -> Option<Dir> {
    let mut remote = walk(script)?;
    for nonce in 1..=tries {
        let at = remote.free;
        let epoch = u32::try_from(at.generation + 1).expect("few generations");
        let closing = Publication {
            uuid: FILESYSTEM,
            state,
            nonce: Nonce(state.0 * 1000 + 900 + u128::from(nonce)),
            epoch,
            generation: at.generation,
            number: at.number,
            wall: 0,
            checkpoint: remote.checkpoint,
            start: remote.end,
            end: remote.end,
            body: Body::Closing(Closing { next_epoch: epoch, owner: String::new() }),
        };
        match win(&**script, &closing) {
            Ok(Win::Won) => {
                let reach = remote.tail.end().map_or(remote.end, |end| end.max(remote.end));
                script.say(Fact::Won { at, epoch, end: remote.end, reach });
                return Some(Dir::taken(state, epoch, &remote, jobs));
            }
            Ok(Win::Lost(_)) => {}
            Err(_) => return None,
        }
        match remote.go_on(&**script, FILESYSTEM, &Fetcher::new(1)) {
            Ok(()) => {}
            Err(MountError::Store(_)) => return None,
            Err(e) => script.say(Fact::Wrong(format!("a walk that goes on: {e}"))),
        }
    }
    None
}

/// Takes the filesystem over and publishes. One that dies before it has local state begins anew under another name.
pub fn taker(script: &Arc<Script>, name: u128, jobs: &[Job], tries: u32) -> Option<Dir> {
    for attempt in 0.. {
        let taken = life(|| {
            let taken = take_over(script, Uuid(name * 10 + attempt), jobs, tries);
            script.point();
            taken
        });
        match taken {
            None => {}
            Some(None) => return None,
            Some(Some(mut dir)) => {
                resident(script, &mut dir);
                return Some(dir);
            }
        }
    }
    None
}

/// Looks at the newest state so many times.
pub fn reader(script: &Arc<Script>, times: u32) {
    for _ in 0..times {
        walk(script);
    }
}
