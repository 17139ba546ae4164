//! A mounted volume for a test, on simulated disk and store.

use skylog::base::clock::{Clock, SimClock};
use skylog::base::random::SeededRandom;
use skylog::cache::Limits;
use skylog::format::ids::{InodeNo, Lsn};
use skylog::fs::{Cx, Error, Fs, Stop};
use skylog::media::Media;
use skylog::media::sim::{CallLog, SimDisk};
use skylog::recovery::{Tuning, World};
use skylog::rig::{new_store, small};
use skylog::store::Store;
use skylog::store::sim::SimStore;
use skylog::volume::{Status, Volume};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub const ROOT: InodeNo = InodeNo::ROOT;
/// A test that waits longer has failed.
pub const LONG: Duration = Duration::from_secs(20);
/// What has not happened after this will not happen by itself.
pub const SHORT: Duration = Duration::from_millis(150);

/// A mounted volume and what it stands on. Time moves only when a test moves it.
pub struct Life {
    pub log: Arc<CallLog>,
    pub disk: SimDisk,
    pub store: SimStore,
    pub clock: Arc<SimClock>,
    pub volume: Arc<Volume>,
}

impl Life {
    pub fn new() -> Life {
        Life::with(|disk| Arc::new(disk), |clock| clock)
    }

    /// A volume that sees its store through something.
    pub fn before(store: impl FnOnce(SimStore) -> Arc<dyn Store>) -> Life {
        Life::build(|disk| Arc::new(disk), store, |clock| clock, &small())
    }

    /// The same where the store is far away.
    pub fn far(store: impl FnOnce(SimStore) -> Arc<dyn Store>) -> Life {
        let limits = Limits { bytes_max: 64 << 20, free_bytes_min: 0 };
        let tuning = Tuning { cache_files: Some(limits), ..small() };
        Life::build(|disk| Arc::new(disk), store, |clock| clock, &tuning)
    }

    /// A volume that sees disk and clock through something.
    pub fn with(
        media: impl FnOnce(SimDisk) -> Arc<dyn Media>,
        time: impl FnOnce(Arc<SimClock>) -> Arc<dyn Clock>,
    ) -> Life {
        Life::build(media, |store| Arc::new(store), time, &small())
    }

    fn build(
        media: impl FnOnce(SimDisk) -> Arc<dyn Media>,
        seen: impl FnOnce(SimStore) -> Arc<dyn Store>,
        time: impl FnOnce(Arc<SimClock>) -> Arc<dyn Clock>,
        tuning: &Tuning,
    ) -> Life {
        let (log, clock, random) = (CallLog::new(), Arc::new(SimClock::default()), SeededRandom::new(1));
        let store = new_store(&log, &clock, &random).expect("a new store takes a filesystem");
        let disk = SimDisk::new(&log);
        let world = World {
            media: media(disk.clone()),
            cache_media: Arc::new(disk.clone()),
            store: seen(store.clone()),
            clock: time(clock.clone()),
            random: Arc::new(random),
            known: None,
        };
        let volume = Volume::open(&world, tuning, &mut |_, _| ()).expect("mounts");
        Life { log, disk, store, clock, volume }
    }

    pub fn read<T: Send + 'static>(
        &self,
        op: impl FnMut(&Fs, &mut Cx) -> Result<T, Stop> + Send + 'static,
    ) -> Receiver<Result<T, Error>> {
        let (tell, told) = channel();
        self.volume.start(Cx::default(), op, move |result| drop(tell.send(result)));
        told
    }

    pub fn change<T: Send + 'static>(
        &self,
        op: impl FnMut(&Fs, &mut Cx) -> Result<(T, Lsn), Stop> + Send + 'static,
    ) -> Receiver<Result<T, Error>> {
        let (tell, told) = channel();
        self.volume.start_changing(Cx::default(), 0, op, move |result| drop(tell.send(result)));
        told
    }

    /// The same for an operation that adds.
    pub fn add<T: Send + 'static>(
        &self,
        bytes: usize,
        op: impl FnMut(&Fs, &mut Cx) -> Result<(T, Lsn), Stop> + Send + 'static,
    ) -> Receiver<Result<T, Error>> {
        let (tell, told) = channel();
        self.volume.start_adding(Cx::default(), bytes, op, move |result| drop(tell.send(result)));
        told
    }

    /// Writes `bytes` into a file at an offset.
    pub fn write(&self, ino: InodeNo, offset: u64, bytes: usize) -> Receiver<Result<u32, Error>> {
        let data = vec![7; bytes];
        self.add(bytes, move |fs, cx| fs.write(cx, ino, offset, &data))
    }

    pub fn create(&self, name: &'static str) -> Result<InodeNo, Error> {
        let made = self.change(move |fs, cx| fs.create(cx, ROOT, name.as_bytes(), 0o644));
        made.recv_timeout(LONG).expect("answered").map(|attr| attr.ino)
    }

    pub fn is_there(&self, name: &'static str) -> bool {
        let found = self.read(move |fs, cx| fs.lookup(cx, ROOT, name.as_bytes()));
        found.recv_timeout(LONG).expect("answered").expect("looked up").is_some()
    }

    pub fn sync(&self) -> Receiver<Result<(), String>> {
        let (tell, told) = channel();
        self.volume.sync(move |result| drop(tell.send(result)));
        told
    }

    pub fn status(&self) -> Status {
        self.volume.status()
    }

    /// Lets time go on until the status is like this.
    pub fn until(&self, what: &str, is: impl Fn(&Status) -> bool) -> Status {
        for _ in 0..LONG.as_millis() / 5 {
            let status = self.status();
            if is(&status) {
                return status;
            }
            self.clock.advance(Duration::from_millis(100));
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("never {what}: {:?}", self.status());
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // A volume whose journal has failed cannot end cleanly, and says so.
        self.volume.close().ok();
    }
}
