//! The journal on a simulated disk.

mod close;
mod crash;
mod damage;
mod failing;
mod full;
mod local;
mod manifest;
mod policy;
mod queue;
mod remains;
mod segments;
mod trouble;

use super::*;
use crate::base::clock::SimClock;
use crate::base::random::SeededRandom;
use crate::format::batch::{Batch, Edit, TreeId, encode_edits, encode_head};
use crate::format::ids::{ObjectId, Uuid};
use crate::format::manifest::Manifest;
use crate::media::sim::{CallLog, Image, SimDisk};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Small enough that a few batches fill a segment.
const CONFIG: Config =
    Config { segment_bytes: 64 << 10, journal_bytes: 8 * (64 << 10), queue_bytes_max: 64 << 10, reserve_bytes: 0 };

/// A mounted journal.
struct Rig {
    disk: SimDisk,
    clock: Arc<SimClock>,
    journal: Arc<Journal>,
    writer: Writer,
    /// What replay found at the mount, as the number in each batch.
    replayed: Vec<u64>,
}

fn fresh_manifest() -> Manifest {
    Manifest::new(Uuid(1), Uuid(2), 1, 1)
}

/// The data of object `n` of the batch with this number.
fn data(number: u64, n: u32, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (number * 31 + u64::from(n) * 7 + i) as u8).collect()
}

impl Rig {
    fn new(config: Config) -> Rig {
        Rig::mount(&SimDisk::new(&CallLog::new()), config, 1).expect("a fresh disk can be mounted")
    }

    /// Mounts what is on the disk.
    fn mount(disk: &SimDisk, config: Config, seed: u64) -> Result<Rig, JournalError> {
        let media: Arc<dyn crate::media::Media> = Arc::new(disk.clone());
        let manifest = match ManifestStore::load(Arc::clone(&media))? {
            Some(manifest) => manifest,
            None => ManifestStore::create(Arc::clone(&media), fresh_manifest())?,
        };
        let mut replayed = Vec::new();
        let from = manifest.current().checkpoint.map_or(Lsn::ZERO, |point| point.lsn);
        let accepted = replay(Arc::clone(&media), &manifest.current(), from, &mut |_, _| (), &mut |batch: Batch| {
            replayed.push(number_of(&batch));
            Ok::<(), JournalError>(())
        })?;
        let clock = Arc::new(SimClock::default());
        let random = Arc::new(SeededRandom::new(seed));
        let (journal, writer) = open(media, Arc::clone(&clock) as _, random, manifest, accepted, config)?;
        Ok(Rig { disk: disk.clone(), clock, journal, writer, replayed })
    }

    /// Mounts a disk that holds `image`.
    fn mount_image(image: &Image, config: Config) -> Result<Rig, JournalError> {
        Rig::mount(&SimDisk::from_image(image, &CallLog::new()), config, 2)
    }

    /// Queues the next batch, with objects of these lengths. Its number is its position.
    fn try_submit(&self, lens: &[usize], room: Room) -> Result<Lsn, Refusal> {
        try_submit(&self.journal, lens, room)
    }

    fn submit(&self, lens: &[usize]) -> Lsn {
        self.try_submit(lens, Room::Ordinary).expect("there is room")
    }

    /// Steps the writer until nothing is due.
    fn settle(&mut self) {
        let busy = (0..10_000).take_while(|_| self.writer.step() == Progress::Worked).count();
        assert!(busy < 10_000, "the writer never rests");
    }

    /// Submits, waiting for room as an operation does.
    fn submit_waiting(&mut self, lens: &[usize]) -> Lsn {
        for _ in 0..100 {
            if let Ok(lsn) = self.try_submit(lens, Room::Ordinary) {
                return lsn;
            }
            self.settle();
        }
        panic!("no room came: {:?}", self.try_submit(lens, Room::Ordinary));
    }

    /// Asks for durability and steps.
    fn sync(&mut self) {
        let told = self.ask(self.journal.submitted());
        self.settle();
        assert_eq!(told.take(), vec![Ok(())]);
    }

    fn ask(&self, lsn: Lsn) -> Told {
        let told = Told::default();
        self.journal.when_durable(lsn, told.waiter());
        told
    }

    fn wait(&mut self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
        self.settle();
    }

    fn assert_reads(&self, lsn: Lsn, lens: &[usize]) {
        for (n, &len) in (0..).zip(lens) {
            let read = self.journal.read(&ObjectId { lsn, n }).expect("readable");
            assert_eq!(read, Some(data(lsn.pos, n, len).into()), "object {lsn}#{n}");
        }
    }
}

fn try_submit(journal: &Journal, lens: &[usize], room: Room) -> Result<Lsn, Refusal> {
    let lsn = journal.submitted().next(1);
    let (edits, objects) = (edits_of(lsn.pos), objects_of(lsn.pos, lens));
    journal.reserve(Journal::cost(edits.len(), lens), room)?;
    journal.submit(pending(lsn, &edits, objects));
    Ok(lsn)
}

fn edits_of(number: u64) -> Vec<u8> {
    let (key, value) = (Bytes::from_static(b"number"), Bytes::copy_from_slice(&number.to_le_bytes()));
    encode_edits(&[(TreeId::Files, Edit::Put { key, value })])
}

fn number_of(batch: &Batch) -> u64 {
    match &batch.edits[..] {
        [(TreeId::Files, Edit::Put { value, .. })] => u64::from_le_bytes(value[..].try_into().expect("eight bytes")),
        other => panic!("not a batch of these tests: {other:?}"),
    }
}

fn objects_of(number: u64, lens: &[usize]) -> Vec<(ChunkHeader, Bytes)> {
    let objects = (0..).zip(lens).map(|(n, &len)| Bytes::from(data(number, n, len)));
    objects.map(|bytes| (ChunkHeader::raw(&bytes), bytes)).collect()
}

fn pending(lsn: Lsn, edits: &[u8], objects: Vec<(ChunkHeader, Bytes)>) -> PendingBatch {
    let headers: Vec<ChunkHeader> = objects.iter().map(|(header, _)| *header).collect();
    PendingBatch { lsn, head: encode_head(lsn, 1, edits, &headers, true).into(), objects, concerns_files: true }
}

/// What waiters were told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Result<(), String>>>>);

impl Told {
    fn waiter(&self) -> Waiter {
        let told = self.clone();
        Box::new(move |result| told.0.lock().push(result))
    }

    fn take(&self) -> Vec<Result<(), String>> {
        std::mem::take(&mut self.0.lock())
    }
}

/// The numbers that a mount of this image replays.
fn numbers_on(image: &Image) -> Vec<u64> {
    Rig::mount_image(image, CONFIG).expect("can be mounted").replayed
}

fn up_to(last: u64) -> Vec<u64> {
    (1..=last).collect()
}
