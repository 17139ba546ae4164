//! A volume that follows another one: its threads, what it tells, and how it ends.

use super::life::{LONG, Life, ROOT};
use skylog::base::random::SeededRandom;
use skylog::follow::Changed;
use skylog::format::ids::InodeNo;
use skylog::format::lease::{Lease, LeaseState};
use skylog::format::names;
use skylog::fs::{Cx, Error, Fs, Stop};
use skylog::map::Seen;
use skylog::media::sim::SimDisk;
use skylog::recovery::World;
use skylog::rig::small;
use skylog::store::Store;
use skylog::volume::Volume;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A volume and one that follows it.
struct Beside {
    life: Life,
    follower: Arc<Volume>,
    told: Receiver<Changed>,
}

impl Beside {
    fn new(life: Life) -> Beside {
        let media = Arc::new(SimDisk::new(&life.log));
        let world = World {
            media: media.clone(),
            cache_media: media,
            store: Arc::new(life.store.clone()),
            clock: life.clock.clone(),
            random: Arc::new(SeededRandom::new(7)),
            known: None,
        };
        let follower = Volume::open_follower(&world, &small()).expect("opens");
        let (tell, told) = channel();
        follower.on_change(move |changed| drop(tell.send(changed.clone())));
        Beside { life, follower, told }
    }

    fn drain(&self) {
        self.life.volume.drain(&mut |_, _| Ok(())).expect("drained");
    }

    /// Lets time go on until the follower tells of a change.
    fn change(&self) -> Changed {
        for _ in 0..LONG.as_millis() / 5 {
            match self.told.recv_timeout(Duration::from_millis(5)) {
                Ok(changed) => return changed,
                Err(_) => self.life.clock.advance(Duration::from_millis(100)),
            }
        }
        panic!("never told: {:?}", self.follower.follow_status());
    }

    fn ask<T: Send + 'static>(
        &self,
        seen: Option<Arc<Seen>>,
        op: impl FnMut(&Fs, &mut Cx) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, Error> {
        let (tell, told) = channel();
        self.follower.start(Cx { seen, ..Cx::default() }, op, move |result| drop(tell.send(result)));
        told.recv_timeout(LONG).expect("answered")
    }

    fn find(&self, seen: Option<Arc<Seen>>, name: &'static str) -> Result<Option<InodeNo>, Error> {
        let found = self.ask(seen, move |fs, cx| fs.lookup(cx, ROOT, name.as_bytes()));
        found.map(|attr| attr.map(|attr| attr.ino))
    }

    /// The newest number of the follower's lease.
    fn lease(&self) -> Lease {
        let names = self.life.store.list("lease").expect("listed");
        let leases = names.iter().map(|name| Lease::decode(&self.life.store.get(name).expect("there")).expect("whole"));
        leases.max_by_key(|lease| lease.number).expect("a lease")
    }
}

#[test]
fn a_follower_tells_of_what_is_published_and_answers_from_it() {
    let life = Life::new();
    life.create("before").expect("created");
    life.volume.drain(&mut |_, _| Ok(())).expect("drained");
    let beside = Beside::new(life);
    assert!(beside.follower.is_follower() && !beside.life.volume.is_follower());
    let held = beside.follower.seen().expect("a follower");
    assert!(beside.find(None, "before").expect("looked up").is_some());
    let ino = beside.life.create("later").expect("created");
    beside.drain();
    let Changed::Inodes(changed) = beside.change() else { panic!("an increment says what it changes") };
    assert!(changed.contains(&ROOT) && changed.contains(&ino), "{changed:?}");
    assert_eq!(beside.find(None, "later").expect("looked up"), Some(ino));
    assert_eq!(beside.find(Some(held), "later").expect("looked up"), None, "what is held stays as it is");

    let refused = beside.ask(None, |fs, cx| fs.mkdir(cx, ROOT, b"new", 0o755)).expect_err("refused");
    assert_eq!(refused.errno(), libc::EROFS);
    let status = beside.follower.status();
    assert_eq!((status.state, status.unshipped_bytes, status.last_error), ("following", 0, None));
    beside.follower.drain(&mut |_, _| Ok(())).expect("nothing is to be drained");
    let follow = beside.follower.follow_status().expect("a follower");
    assert_eq!((follow.is_lost, follow.figures.publications), (false, 1));

    assert_eq!(beside.lease().state, LeaseState::Held);
    beside.follower.close().expect("closes");
    assert_eq!(beside.lease().state, LeaseState::Released);
}

#[test]
fn a_follower_that_was_stopped_for_a_minute_says_so_and_goes_on() {
    let life = Life::new();
    life.create("file").expect("created");
    life.volume.drain(&mut |_, _| Ok(())).expect("drained");
    let beside = Beside::new(life);
    let held = beside.follower.seen().expect("a follower");
    beside.life.clock.advance(Duration::from_secs(100));
    assert_eq!(beside.find(Some(held.clone()), "file"), Err(Error::LeaseLost));
    assert_eq!(beside.change(), Changed::Everything);
    assert!(beside.find(None, "file").expect("looked up").is_some());
    assert_eq!(beside.find(Some(held), "file"), Err(Error::LeaseLost), "what was open stays dead");
    let follow = beside.follower.follow_status().expect("a follower");
    assert_eq!((follow.is_lost, follow.figures.leases_lost), (false, 1));
    beside.follower.close().expect("closes");
}

#[test]
fn what_is_gone_from_the_store_is_stale_if_the_lease_is_lost_and_an_error_if_not() {
    let life = Life::new();
    let ino = life.create("file").expect("created");
    life.write(ino, 0, 10_000).recv_timeout(LONG).expect("answered").expect("written");
    life.volume.drain(&mut |_, _| Ok(())).expect("drained");
    let beside = Beside::new(life);
    let store = &beside.life.store;
    for name in store.list("seg").expect("listed") {
        store.delete(&name).expect("deleted");
    }
    let read = || beside.ask(None, move |fs, cx| fs.read(cx, ino, 0, 10_000)).map(|bytes| bytes.len());
    assert_eq!(read(), Err(Error::Io));
    let lease = beside.lease();
    let closed = Lease { number: lease.number + 1, state: LeaseState::Closed, ..lease };
    let name = names::lease(closed.who, closed.number);
    store.create(&name, closed.encode().into()).expect("closed");
    assert_eq!(read(), Err(Error::LeaseLost));
    beside.follower.close().expect("closes");
}

#[test]
fn a_follower_ends_also_while_its_store_is_away() {
    let life = Life::new();
    life.create("file").expect("created");
    life.volume.drain(&mut |_, _| Ok(())).expect("drained");
    let beside = Beside::new(life);
    assert!(beside.find(None, "file").is_ok());
    beside.life.store.set_down(true);
    assert!(beside.find(None, "file").is_ok(), "what is in memory is read");
    beside.life.clock.advance(Duration::from_secs(20));
    beside.follower.close().expect("closes");
    beside.life.store.set_down(false);
    assert_eq!(beside.lease().state, LeaseState::Held, "it ends by itself");
}
