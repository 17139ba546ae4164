//! The simulated store: keeps objects in memory, logs every change beside those of the disk, and fails on demand.

mod crash;
mod image;
#[cfg(test)]
mod tests;

pub use crash::{Crash, Crashes, Recording};
pub use image::StoreImage;

use super::{Created, Store, StoreError, name};
use crate::media::sim::{Blob, Call, CallLog, Faults, Nth, StoreCall};
use bytes::Bytes;
use parking_lot::Mutex;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

/// A kind of call to the store, for [`SimStore::fail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the call of that name; `Get` is also a range and a size")]
pub enum StoreOp {
    Get,
    Put,
    Create,
    Delete,
    List,
}

/// How a call to the store fails. A call that reads just fails, but for the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing was done.
    Refused,
    /// It was done, and the answer was lost.
    AnswerLost,
    /// It was done, the answer was lost, and the client tried again by itself: the answer is that of the second try.
    TriedAgain,
    /// It was not done yet, and may be at any later time, also after a crash: see [`SimStore::land_adrift`].
    Adrift,
    /// Nothing was done, and the way to the store is away.
    Away,
    /// There is no room, and nothing was done.
    Full,
    /// The first half of what a read asked for comes as if it were all; a call that writes is refused.
    Cut,
    /// A bit of what a read asked for is another one; a call that writes is refused.
    Flipped,
}

/// A simulated store. A clone is the same store; for a copy, start one from [`SimStore::image`].
#[derive(Clone)]
pub struct SimStore {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    log: Arc<CallLog>,
    start: StoreImage,
}

struct State {
    image: StoreImage,
    faults: Faults<StoreOp, StoreFault>,
    adrift: Vec<StoreCall>,
    down: bool,
    calls: Calls,
    side_by_side: usize,
}

/// How often the store was called, whatever came of it: a [`StoreOp`] each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the call of that name")]
pub struct Calls {
    pub gets: u64,
    pub puts: u64,
    pub creates: u64,
    pub deletes: u64,
    pub lists: u64,
}

impl Calls {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.gets + self.puts + self.creates + self.deletes + self.lists
    }

    fn count(&mut self, op: StoreOp) {
        *match op {
            StoreOp::Get => &mut self.gets,
            StoreOp::Put => &mut self.puts,
            StoreOp::Create => &mut self.creates,
            StoreOp::Delete => &mut self.deletes,
            StoreOp::List => &mut self.lists,
        } += 1;
    }
}

impl SimStore {
    /// An empty store, the only one that keeps its calls in `log`.
    pub fn new(log: &Arc<CallLog>) -> SimStore {
        SimStore::from_image(&StoreImage::default(), log)
    }

    /// A store that holds `image`.
    pub fn from_image(image: &StoreImage, log: &Arc<CallLog>) -> SimStore {
        let state = State {
            image: image.clone(),
            faults: Faults::default(),
            adrift: Vec::new(),
            down: false,
            calls: Calls::default(),
            side_by_side: 1,
        };
        let shared = Shared { state: Mutex::new(state), log: Arc::clone(log), start: image.clone() };
        SimStore { shared: Arc::new(shared) }
    }

    /// What it holds now.
    pub fn image(&self) -> StoreImage {
        self.shared.state.lock().image.clone()
    }

    /// What it held at the start.
    pub fn start(&self) -> &StoreImage {
        &self.shared.start
    }

    /// The log its calls are in.
    pub fn log(&self) -> &Arc<CallLog> {
        &self.shared.log
    }

    /// Makes a call fail.
    pub fn fail(&self, which: Nth<StoreOp>, how: StoreFault) {
        self.shared.state.lock().faults.add(which, how);
    }

    /// From now on nothing fails on demand.
    pub fn heal(&self) {
        self.shared.state.lock().faults.clear();
    }

    /// How many calls were made to fail so far, without those of an outage.
    pub fn failed(&self) -> u64 {
        self.shared.state.lock().faults.struck()
    }

    /// How often it was called so far.
    pub fn calls(&self) -> Calls {
        self.shared.state.lock().calls
    }

    /// Begins or ends an outage, in which every call fails and does nothing.
    pub fn set_down(&self, down: bool) {
        self.shared.state.lock().down = down;
    }

    /// From now on it is far away: callers ask for so many things at a time. What they do then is in no order.
    pub fn set_side_by_side(&self, calls: usize) {
        self.shared.state.lock().side_by_side = calls;
    }

    /// Whether an outage is on.
    pub fn is_down(&self) -> bool {
        self.shared.state.lock().down
    }

    /// How many calls asked for an object, a part of one, or its size so far.
    pub fn gets(&self) -> u64 {
        self.shared.state.lock().calls.gets
    }

    /// A late call arrives, such as [`Crash::late`]. It reaches the store in an outage too: it was sent before.
    pub fn land(&self, call: &StoreCall) {
        self.apply(&mut self.shared.state.lock(), call.clone());
    }

    /// All calls that failed as [`StoreFault::Adrift`] arrive; returns how many there were.
    pub fn land_adrift(&self) -> usize {
        let mut state = self.shared.state.lock();
        let adrift = std::mem::take(&mut state.adrift);
        for call in &adrift {
            state.image.apply(call);
            self.shared.log.add(Call::Landed(call.clone()));
        }
        adrift.len()
    }

    fn apply(&self, state: &mut State, call: StoreCall) -> bool {
        let changed = state.image.apply(&call);
        self.shared.log.add(Call::Store(call));
        changed
    }

    /// A call that writes; says whether it changed anything.
    fn change(&self, op: StoreOp, action: &'static str, name: &str, call: StoreCall) -> Result<bool, StoreError> {
        name::check(action, name)?;
        let mut state = self.shared.state.lock();
        state.calls.count(op);
        if state.down {
            return Err(away(action, name));
        }
        match state.faults.strike(op, name) {
            None => Ok(self.apply(&mut state, call)),
            Some(StoreFault::Away) => Err(away(action, name)),
            Some(StoreFault::Full) => Err(StoreError::Full { name: name.into() }),
            Some(StoreFault::Refused | StoreFault::Cut | StoreFault::Flipped) => Err(failed(action, name, "refused")),
            Some(StoreFault::AnswerLost) => {
                self.apply(&mut state, call);
                Err(failed(action, name, "no answer"))
            }
            Some(StoreFault::TriedAgain) => {
                self.apply(&mut state, call.clone());
                Ok(self.apply(&mut state, call))
            }
            Some(StoreFault::Adrift) => {
                self.shared.log.add(Call::Adrift(call.clone()));
                state.adrift.push(call);
                Err(failed(action, name, "no answer"))
            }
        }
    }

    /// A call that reads; with how its answer comes.
    fn look(
        &self,
        op: StoreOp,
        action: &'static str,
        name: &str,
    ) -> Result<(StoreImage, Option<StoreFault>), StoreError> {
        let mut state = self.shared.state.lock();
        state.calls.count(op);
        if state.down {
            return Err(away(action, name));
        }
        match state.faults.strike(op, name) {
            Some(StoreFault::Away) => Err(away(action, name)),
            fault @ (None | Some(StoreFault::Cut | StoreFault::Flipped)) => Ok((state.image.clone(), fault)),
            Some(_) => Err(failed(action, name, "refused")),
        }
    }

    /// A range of an object as it comes.
    fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        name::check("get", name)?;
        let (image, fault) = self.look(StoreOp::Get, "get", name)?;
        let whole = image.object(name).ok_or_else(|| StoreError::NotFound { name: name.into() })?;
        let place = |at: u64| usize::try_from(at).map_or(whole.len(), |at| at.min(whole.len()));
        let bytes = whole.slice(place(range.start)..place(range.end).max(place(range.start)));
        Ok(match fault {
            Some(StoreFault::Cut) => bytes.slice(..bytes.len() / 2),
            Some(StoreFault::Flipped) if !bytes.is_empty() => {
                let mut flipped = bytes.to_vec();
                flipped[bytes.len() / 2] ^= 4;
                flipped.into()
            }
            _ => bytes,
        })
    }
}

fn away(action: &'static str, name: &str) -> StoreError {
    StoreError::Away { action, name: name.into(), reason: "an outage".into() }
}

fn failed(action: &'static str, name: &str, reason: &str) -> StoreError {
    StoreError::Failed { action, name: name.into(), reason: reason.into() }
}

impl Store for SimStore {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.read(name, 0..u64::MAX)
    }

    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.read(name, range)
    }

    fn side_by_side(&self) -> usize {
        self.shared.state.lock().side_by_side
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        name::check("get", name)?;
        let (image, _) = self.look(StoreOp::Get, "get", name)?;
        let whole = image.object(name).ok_or_else(|| StoreError::NotFound { name: name.into() })?;
        Ok(whole.len() as u64)
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let call = StoreCall::Put { name: name.into(), blob: Blob::new(bytes) };
        self.change(StoreOp::Put, "put", name, call).map(|_| ())
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let call = StoreCall::Create { name: name.into(), blob: Blob::new(bytes) };
        let changed = self.change(StoreOp::Create, "create", name, call)?;
        Ok(if changed { Created::New } else { Created::Exists })
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let call = StoreCall::Delete { name: name.into() };
        self.change(StoreOp::Delete, "delete", name, call).map(|_| ())
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        let folder = prefix.trim_end_matches('/');
        if !folder.is_empty() {
            name::check("list", folder)?;
        }
        let (image, _) = self.look(StoreOp::List, "list", folder)?;
        let inside = |name: &&str| match name.strip_prefix(folder) {
            Some(rest) => folder.is_empty() || rest.starts_with('/'),
            None => false,
        };
        let _ = image.names().filter(inside).try_for_each(each);
        Ok(())
    }

    /// Never: no file of this machine is on a simulated disk.
    fn publish_local(&self, _file: &Path, _name: &str) -> Result<bool, StoreError> {
        Ok(false)
    }
}
