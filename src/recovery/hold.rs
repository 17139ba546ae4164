//! Who holds a filesystem: the leases of writers, for a mount that has no local state and for people.
//!
//! A hold is a hint. What it says keeps nobody from what the fence allows; it is there so that nobody takes a filesystem from a machine
//! that uses it without having been told. So it is read before a takeover only, it is not renewed, and when it cannot be written that is
//! told and has no other consequence.
//!
//! The hold of a winner is written once the fence is won, and those of the writers before it go after that.

use super::numbers::newest_publication;
use super::{MountError, Tuning, World};
use crate::base::clock::{Clock, Time};
use crate::format::ids::Uuid;
use crate::format::lease::{LEASE_NUMBER_MAX, Lease, LeaseKind, LeaseState, Owner};
use crate::format::manifest::Manifest;
use crate::format::names::{self, LEASES};
use crate::format::publication::Publication;
use crate::media::Standing;
use crate::ship::leases::{Leases, numbers_of};
use crate::ship::publish;
use crate::store::{Created, Store, StoreError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// A number that somebody else has is passed over so often.
const TRIES: u64 = 16;

/// A process that was killed may take so long to end, and is looked at so often meanwhile.
const DYING: (u32, Duration) = (25, Duration::from_millis(20));

/// How a mount deals with others who hold the filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Nobody is asked, and nobody is told: where a test steps all actors by hand.
    Untold,
    /// What somebody else holds is not mounted.
    Asks,
    /// It is, and that other one is the writer no longer.
    TakesOver,
}

/// Why a filesystem is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Somebody else has it mounted, as far as can be known here.
    #[error(
        "it is held by {who}, since {since}, last published {published}: unmount it there, or leave there what it changed since \
         and has not shipped, and run: skylog mount --takeover STORE DIR"
    )]
    Held {
        /// The process, in words.
        who: String,
        /// Since when.
        since: Time,
        /// When the newest publication was made, in words.
        published: String,
    },
    /// Somebody may have it mounted.
    #[error(
        "who holds it cannot be told, {name}: {reason}; if nobody else has it mounted, run: skylog mount --takeover STORE DIR"
    )]
    Unknown {
        /// The object that would say so.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else took it over while this mount was about to.
    #[error(
        "it was taken over at the same moment by {by}: unmount it there, or take it from there by: skylog mount --takeover STORE DIR"
    )]
    Overtaken {
        /// Who, and when by the clock of that machine, in words.
        by: String,
    },
}

/// The hold of this mount.
pub struct Hold {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    filesystem: Uuid,
    state: Uuid,
    epoch: u32,
    owner: Owner,
    since: Time,
    /// Locked while a number is written: by the mount, by the shipper after it, and at the end.
    said: Mutex<Said>,
}

/// What was said in the store so far.
struct Said {
    /// The numbers there, if they are known.
    numbers: Option<Vec<u64>>,
    /// This mount has said that it holds the filesystem.
    held: bool,
    /// That something could not be said was told.
    failed: bool,
}

impl Hold {
    /// That of the state directory of this manifest, which is not said yet; nothing where nobody is told. One that `is_new` has said
    /// nothing before.
    pub(super) fn new(world: &World, tuning: &Tuning, manifest: &Manifest, is_new: bool) -> Option<Hold> {
        let (store, clock, owner) = (world.store.clone(), world.clock.clone(), tuning.owner.clone());
        let Manifest { uuid: filesystem, state, epoch, .. } = *manifest;
        let said = Mutex::new(Said { numbers: is_new.then(Vec::new), held: false, failed: false });
        let hold = Hold { store, since: clock.now(), clock, filesystem, state, epoch, owner, said };
        (tuning.holding != Holding::Untold).then_some(hold)
    }

    /// Says in the store that this mount holds the filesystem, unless that is said already.
    pub fn take(&self) {
        let mut said = self.said.lock();
        if !said.held {
            said.held = self.say(LeaseState::Held, &mut said);
        }
    }

    /// Says that it does so no longer: everything it had is in the store.
    pub fn release(&self) {
        let mut said = self.said.lock();
        self.say(LeaseState::Released, &mut said);
        // Whatever the shipper does until it ends does not take it again.
        said.held = true;
    }

    /// Takes back what was said: the filesystem was lost before anything was done with it.
    pub(super) fn withdraw(&self) {
        let numbers = self.said.lock().numbers.take().unwrap_or_default();
        delete(&*self.store, numbers.into_iter().map(|number| names::lease(self.state, number)));
    }

    fn say(&self, state: LeaseState, said: &mut Said) -> bool {
        let written = self.write(state, said);
        if let (Err(e), false) = (&written, said.failed) {
            let what = if state == LeaseState::Held { "has" } else { "no longer has" };
            log::warn!("the store does not hear that this machine {what} the filesystem: {e}");
            said.failed = true;
        }
        written.is_ok()
    }

    /// Writes the number after the newest one, and deletes those before it.
    fn write(&self, state: LeaseState, said: &mut Said) -> Result<(), StoreError> {
        let before = match &said.numbers {
            Some(known) => known.clone(),
            None => numbers_of(&*self.store, self.state)?,
        };
        // No mount of this state directory came near the end of numbers: what is there is somebody else's, and goes.
        let ours = before.iter().filter(|number| **number < LEASE_NUMBER_MAX - TRIES);
        let first = ours.max().map_or(1, |newest| newest + 1);
        said.numbers = Some(vec![self.create(state, first)?]);
        delete(&*self.store, before.into_iter().map(|number| names::lease(self.state, number)));
        Ok(())
    }

    fn create(&self, state: LeaseState, first: u64) -> Result<u64, StoreError> {
        for number in first..first + TRIES {
            let lease = Lease {
                filesystem: self.filesystem,
                who: self.state,
                number,
                kind: LeaseKind::Writer,
                state,
                owner: self.owner.clone(),
                since: self.since.as_nanos(),
                wall: self.clock.now().as_nanos(),
                seconds: 0,
                checkpoint: 0,
                epoch: self.epoch,
            };
            let (name, bytes) = (names::lease(self.state, number), lease.encode());
            // What is there is a try of ours whose answer was lost, or another copy of this state directory has been here.
            if self.store.create(&name, bytes.clone().into())? == Created::New || self.store.get(&name)? == bytes {
                return Ok(number);
            }
        }
        let name = names::lease(self.state, first);
        Err(StoreError::Failed { action: "create", name, reason: "others take one number after the other".into() })
    }
}

/// What stays costs a few bytes, and is looked at by the next takeover.
fn delete(store: &dyn Store, names: impl IntoIterator<Item = String>) {
    for name in names {
        if let Err(e) = store.delete(&name) {
            log::debug!("an old hold stays: {e}");
        }
    }
}

/// What a mount without local state saw of those who held the filesystem before it.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// Their objects.
    names: Vec<String>,
    /// What is not in the filesystem any more that somebody may look for.
    lost: Option<String>,
}

impl Before {
    /// They have lost the filesystem. Returns what is to be told of that once the mount is sure to have it.
    pub fn end(self, store: &dyn Store) -> Option<String> {
        delete(store, self.names);
        self.lost
    }
}

/// Who asks who else holds a filesystem.
pub(crate) struct Asker<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// Time.
    pub clock: &'a dyn Clock,
    /// The process that asks.
    pub owner: &'a Owner,
    /// How it deals with others.
    pub holding: Holding,
}

impl<'a> Asker<'a> {
    pub(super) fn of(world: &'a World, tuning: &'a Tuning) -> Asker<'a> {
        Asker { store: &*world.store, clock: &*world.clock, owner: &tuning.owner, holding: tuning.holding }
    }
}

/// Fails when somebody else holds the filesystem, unless it may be taken over or that other one is known to be dead.
pub(crate) fn ask(asker: &Asker<'_>, filesystem: Uuid) -> Result<Before, MountError> {
    let (store, takes_over) = (asker.store, asker.holding == Holding::TakesOver);
    let mut before = Before::default();
    if asker.holding == Holding::Untold {
        return Ok(before);
    }
    let mut leases = Leases::new(filesystem);
    leases.look(store, asker.clock)?;
    if let Some(reason) = leases.unknown() {
        if !takes_over {
            return Err(HoldError::Unknown { name: LEASES.to_owned(), reason }.into());
        }
        log::warn!("{LEASES}: {reason}: one of them may have held the filesystem");
    }
    for holder in leases.holders() {
        let numbers = || holder.removable(0).iter().map(|number| names::lease(holder.who, *number));
        match &holder.newest {
            Ok(lease) if lease.kind == LeaseKind::Follower => {}
            Ok(_) => before.names.extend(numbers()),
            Err(reason) => {
                let name = names::lease(holder.who, holder.number());
                // Whoever wrote last holds the filesystem, if anybody does; any other one is none that this mount would take it from.
                if !takes_over && newest(store)?.is_none_or(|newest| newest.state == holder.who) {
                    return Err(HoldError::Unknown { name, reason: reason.clone() }.into());
                }
                log::warn!("{name} is passed over: {reason}");
            }
        }
    }
    let held = leases.writer().map(|(_, lease)| lease).filter(|lease| lease.state == LeaseState::Held);
    let Some(held) = held else { return Ok(before) };
    let (who, since) = (held.owner.describe(), Time::from_nanos(held.since));
    // By the clock of its writer.
    let published = newest(store)?
        .map_or_else(|| "at a time that cannot be read".to_owned(), |newest| Time::from_nanos(newest.wall).to_string());
    let lost = format!("what it changed after its last publication, {published}, and did not ship");
    before.lost = Some(match (is_dead(&held.owner, asker.owner), takes_over) {
        (true, _) => {
            format!("{who} held the filesystem since {since} and has ended: {lost}, is not in what is mounted now")
        }
        (false, true) => {
            format!(
                "taken over from {who}, which held the filesystem since {since}: {lost}, stays in its state directory"
            )
        }
        (false, false) => return Err(HoldError::Held { who, since, published }.into()),
    });
    Ok(before)
}

/// The newest publication, whatever it is; `None` if it cannot be read, which is for those to tell who need more of it.
fn newest(store: &dyn Store) -> Result<Option<Publication>, MountError> {
    let read = newest_publication(store).and_then(|newest| Ok(publish::read(store, newest)?));
    match read {
        Err(MountError::Damaged { .. }) => Ok(None),
        read => read,
    }
}

/// Whether the process of a hold has surely ended. One that was just killed is given a moment.
fn is_dead(held: &Owner, here: &Owner) -> bool {
    let (looks, pause) = DYING;
    for _ in 0..looks {
        match held.standing_anywhere(here) {
            Standing::Dead => return true,
            Standing::Elsewhere if held.boot != here.boot => return false,
            Standing::Elsewhere | Standing::Lives => thread::sleep(pause),
        }
    }
    false
}
