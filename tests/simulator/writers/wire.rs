//! The store as one mount sees it: every call may be where its machine is stopped, before it arrives or before its answer
//! does; it may fail, lose its answer, be tried again by the client, or arrive much later.

use super::stage::Stage;
use super::truth::LifeNo;
use super::turns::DIRECTOR;
use bytes::Bytes;
use skylog::media::sim::{Blob, StoreCall};
use skylog::store::{Created, Store, StoreError};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A call that failed for its caller and may yet arrive.
#[derive(Clone)]
pub struct Sent {
    pub life: LifeNo,
    pub call: StoreCall,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    Refused,
    AnswerLost,
    Twice,
    Adrift,
}

/// The way of one mount to the store.
pub struct Wire {
    stage: Arc<Stage>,
    machine: usize,
    life: LifeNo,
    /// The process is gone: nothing arrives any more, and nobody waits.
    dead: AtomicBool,
    /// No answers for now.
    down: AtomicBool,
    /// Nothing fails and nobody is stopped.
    calm: AtomicBool,
    /// Calls until the machine is stopped in one; 0 if it is not to be.
    stop_in: AtomicU64,
    /// It stands in such a call.
    stopped: AtomicBool,
    /// Calls that failed.
    failed: AtomicU64,
}

impl Wire {
    pub fn new(stage: &Arc<Stage>, machine: usize, life: LifeNo) -> Arc<Wire> {
        Arc::new(Wire {
            stage: stage.clone(),
            machine,
            life,
            dead: AtomicBool::default(),
            down: AtomicBool::default(),
            calm: AtomicBool::default(),
            stop_in: AtomicU64::default(),
            stopped: AtomicBool::default(),
            failed: AtomicU64::default(),
        })
    }

    pub fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub fn set_calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::Relaxed);
    }

    /// The machine is to stop in one of the next calls.
    pub fn stop_in(&self, calls: u64) {
        self.stop_in.store(calls, Ordering::Relaxed);
    }

    /// Whether it stands in such a call, which is said once.
    pub fn take_stopped(&self) -> bool {
        self.stopped.swap(false, Ordering::Relaxed)
    }

    /// Calls that failed so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Others may run now.
    fn pause(&self) {
        if self.is_dead() || self.calm.load(Ordering::Relaxed) {
            return;
        }
        let stop = self.stop_in.load(Ordering::Relaxed);
        self.stop_in.store(stop.saturating_sub(1), Ordering::Relaxed);
        if stop == 1 {
            self.stopped.store(true, Ordering::Relaxed);
        } else if !self.stage.odds.pause.comes(&self.stage.random) {
            return;
        }
        self.stage.count(|figures| figures.switches += 1);
        self.stage.turns.hand(self.machine, DIRECTOR);
    }

    fn away(&self, action: &'static str, name: &str) -> StoreError {
        self.failed.fetch_add(1, Ordering::Relaxed);
        StoreError::Away { action, name: name.into(), reason: "no way to the store".into() }
    }

    fn lost(&self, action: &'static str, name: &str, reason: &str) -> StoreError {
        self.failed.fetch_add(1, Ordering::Relaxed);
        StoreError::Failed { action, name: name.into(), reason: reason.into() }
    }

    fn fate(&self) -> Fate {
        if self.calm.load(Ordering::Relaxed) || !self.stage.odds.fault.comes(&self.stage.random) {
            return Fate::Done;
        }
        let fates = [Fate::Refused, Fate::AnswerLost, Fate::AnswerLost, Fate::Twice, Fate::Adrift, Fate::Adrift];
        fates[self.stage.below(fates.len())]
    }

    /// A call that reads.
    fn look<T>(
        &self,
        action: &'static str,
        name: &str,
        read: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.pause();
        if self.is_dead() || self.is_down() {
            return Err(self.away(action, name));
        }
        if matches!(self.fate(), Fate::Refused | Fate::Adrift) {
            self.stage.count(|figures| figures.refused += 1);
            return Err(self.lost(action, name, "refused"));
        }
        let answer = read();
        self.pause();
        match self.is_dead() {
            true => Err(self.away(action, name)),
            false => answer,
        }
    }

    /// A call that writes; whether it changed anything.
    fn change(&self, action: &'static str, name: &str, call: StoreCall) -> Result<bool, StoreError> {
        let dead = self.is_dead();
        self.pause();
        if self.is_dead() {
            // What the process had sent when it died may still be on its way.
            if !dead && self.stage.one_in(2) {
                self.stage.send(Sent { life: self.life, call });
            }
            return Err(self.away(action, name));
        }
        if self.is_down() {
            return Err(self.away(action, name));
        }
        let fate = self.fate();
        self.stage.count(|figures| match fate {
            Fate::Done => {}
            Fate::Refused => figures.refused += 1,
            Fate::AnswerLost => figures.lost += 1,
            Fate::Twice => figures.repeated += 1,
            Fate::Adrift => figures.adrift += 1,
        });
        let changed = match fate {
            Fate::Refused => return Err(self.lost(action, name, "refused")),
            Fate::Adrift => {
                self.stage.send(Sent { life: self.life, call });
                return Err(self.lost(action, name, "no answer"));
            }
            Fate::Twice => {
                self.stage.apply(self.life, &call);
                self.pause();
                self.stage.arrive(self.life, &call, true)
            }
            Fate::Done | Fate::AnswerLost => self.stage.apply(self.life, &call),
        };
        self.pause();
        if self.is_dead() {
            return Err(self.away(action, name));
        }
        if fate == Fate::AnswerLost {
            return Err(self.lost(action, name, "no answer"));
        }
        Ok(changed)
    }
}

impl Store for Wire {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.look("get", name, || self.stage.store.get(name))
    }

    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.look("get", name, || self.stage.store.get_some(name, range))
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.look("get", name, || self.stage.store.size(name))
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.change("put", name, StoreCall::Put { name: name.into(), blob: Blob::new(bytes) }).map(|_| ())
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let changed = self.change("create", name, StoreCall::Create { name: name.into(), blob: Blob::new(bytes) })?;
        Ok(if changed { Created::New } else { Created::Exists })
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.change("delete", name, StoreCall::Delete { name: name.into() }).map(|_| ())
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.look("list", prefix, || self.stage.store.walk(prefix, each))
    }

    fn publish_local(&self, _file: &Path, _name: &str) -> Result<bool, StoreError> {
        Ok(false)
    }
}
