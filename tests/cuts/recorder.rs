//! A disk that notes what reaches it: writes, flushes, and beside them what somebody was told. It is one file of a filesystem in
//! user space, with a loop device over it.

use crate::counted::Counts;
use crate::daemon::{self, Daemon};
use crate::disk::{self, Mount, words};
use crate::work::{Told, WRITERS, Writer};
use crate::{Dice, env, run, seed};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session,
    WriteFlags,
};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

/// Cuts of one recording.
const CUTS: u64 = 8;
/// How long the writers work.
const TIME: Duration = Duration::from_millis(1500);
/// A write may be torn between two of these.
const SECTOR: usize = 512;
const DISK: INodeNo = INodeNo(2);
const FOREVER: Duration = Duration::from_secs(3600);

/// What happened to the disk, in order.
enum Event {
    Write {
        at: u64,
        data: Vec<u8>,
    },
    Flush,
    /// An fsync above was acknowledged, which covers so many operations of that writer.
    Told {
        writer: usize,
        operations: u64,
    },
}

/// The disk as it is now, and what happened since it was last asked.
struct Recorder {
    now: File,
    bytes: u64,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Recorder {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let (kind, perm, size) = match ino {
            DISK => (FileType::RegularFile, 0o600, self.bytes),
            _ => (FileType::Directory, 0o700, 0),
        };
        let time = UNIX_EPOCH;
        FileAttr {
            ino,
            size,
            blocks: size / SECTOR as u64,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn note(&self, event: Event) {
        self.events.lock().expect("nobody panicked").push(event);
    }
}

impl Filesystem for Recorder {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == "disk" {
            true => reply.entry(&FOREVER, &self.attributes(DISK), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut data = vec![0; size as usize];
        match self.now.read_at(&mut data, at) {
            Ok(n) => reply.data(&data[..n]),
            Err(e) => reply.error(e.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.now.write_all_at(data, at) {
            Ok(()) => {
                self.note(Event::Write { at, data: data.to_vec() });
                reply.written(data.len() as u32);
            }
            Err(e) => reply.error(e.into()),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.note(Event::Flush);
        reply.ok();
    }
}

/// A disk whose every write is noted. Detached when dropped.
struct Device {
    path: PathBuf,
    now: PathBuf,
    events: Arc<Mutex<Vec<Event>>>,
    session: Option<BackgroundSession>,
}

impl Device {
    fn new(scratch: &Path, image: &Path) -> Device {
        let at = scratch.join("recorder");
        fs::create_dir(&at).expect("a mount point");
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let now = OpenOptions::new().read(true).write(true).open(image).expect("the image");
        let bytes = now.metadata().expect("the image").len();
        let recorder = Recorder { now, bytes, events: events.clone() };
        let session = Session::new(recorder, &at, &Config::default()).and_then(Session::spawn).expect("mounted");
        let path = run("losetup", &["--direct-io=on", "--find", "--show", words(&at.join("disk"))]);
        Device { path: path.into(), now: image.to_path_buf(), events, session: Some(session) }
    }

    /// What happened since this was last asked.
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().expect("nobody panicked"))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Where a test failed something may still use it.
        let _ = std::process::Command::new("losetup").args(["-d", words(&self.path)]).status();
        drop(self.session.take());
    }
}

/// A history of a disk: how it began, and what happened.
struct Recording {
    before: PathBuf,
    events: Vec<Event>,
    writers: Vec<Writer>,
}

#[derive(Default)]
struct Figures {
    judged: u64,
    owed: u64,
    dirty: u64,
    flushes: u64,
    dropped: u64,
}

/// Has writers work on a fresh filesystem. With `lie` somebody is told that what they did is durable when it was only begun.
fn record(kind: &str, scratch: &Path, lie: bool) -> Recording {
    let (image, before) = (scratch.join("image"), scratch.join("before"));
    let (at, mnt) = (scratch.join("disk"), scratch.join("mnt"));
    disk::format(kind, &image);
    let device = Device::new(scratch, &image);
    let below = Mount::new(&device.path, &at);
    daemon::mkfs(&at.join("store"));
    let daemon = Daemon::start(&at.join("store"), &mnt);
    let writers = Writer::all(&mnt, 0);
    run("sync", &["-f", words(&at)]);
    device.take();
    run("cp", &["--sparse=always", words(&device.now), words(&before)]);
    let events = device.events.clone();
    let note = |writer, operations| {
        events.lock().expect("nobody panicked").push(Event::Told { writer, operations });
    };
    let (told, early): (Told<'_>, Told<'_>) = if lie { (&|_, _| {}, &note) } else { (&note, &|_, _| {}) };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in &writers {
            let stop = &stop;
            scope.spawn(move || {
                let failed = writer.work(stop, seed(), told, early);
                assert!(failed.is_none(), "{failed:?}");
            });
        }
        std::thread::sleep(TIME);
        stop.store(true, Ordering::Relaxed);
    });
    let recorded = device.take();
    daemon.kill();
    below.end();
    Recording { before, events: recorded, writers }
}

impl Recording {
    /// The disk as it may be when the power goes after so many events: everything flushed, and of what came later some writes
    /// whole, some in part and some not at all. How many of these were dropped or torn.
    fn image(&self, cut: usize, dice: &mut Dice, to: &Path) -> u64 {
        run("cp", &["--sparse=always", words(&self.before), words(to)]);
        let image = OpenOptions::new().write(true).open(to).expect("the image");
        let flushed = self.events[..cut].iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
        let (mut dropped, kept) = (0, 1 + dice.below(9));
        for (n, event) in self.events[..cut].iter().enumerate() {
            let Event::Write { at, data } = event else { continue };
            let whole = n < flushed || dice.below(10) < kept;
            let upto = match whole {
                true => data.len(),
                false if dice.below(3) == 0 => dice.below((data.len() / SECTOR) as u64 + 1) as usize * SECTOR,
                false => 0,
            };
            dropped += u64::from(!whole);
            image.write_all_at(&data[..upto], *at).expect("written");
        }
        dropped
    }

    /// The moments right before a flush, when most is not flushed.
    fn full(&self) -> Vec<usize> {
        let is_full = |pair: &[Event]| matches!(pair, [Event::Write { .. } | Event::Told { .. }, Event::Flush]);
        (1..self.events.len()).filter(|n| is_full(&self.events[n - 1..=*n])).collect()
    }

    /// What is owed to each writer when the power goes after so many events.
    fn owed(&self, cut: usize) -> [u64; WRITERS] {
        let mut owed = [0; WRITERS];
        for event in &self.events[..cut] {
            if let Event::Told { writer, operations } = event {
                owed[*writer] = *operations;
            }
        }
        owed
    }

    /// Cuts so often, and judges what is left. The first thing that is wrong.
    fn judge(&self, kind: &str, scratch: &Path, cuts: u64) -> Result<Figures, String> {
        let flushes = self.events.iter().filter(|event| matches!(event, Event::Flush)).count() as u64;
        let mut figures = Figures { flushes, ..Figures::default() };
        let mut dice = Dice::new(seed());
        let (at, mnt) = (scratch.join("disk"), scratch.join("mnt"));
        let full = self.full();
        for n in 0..cuts {
            let cut = match dice.below(4) {
                0 => 1 + dice.below(self.events.len() as u64) as usize,
                _ => full[dice.below(full.len() as u64) as usize],
            };
            // A file of its own: somebody else's namespace may still hold the mount before.
            let image = scratch.join(format!("cut-{n}"));
            figures.dropped += self.image(cut, &mut dice, &image);
            let below = Mount::new(&image, &at);
            let daemon = Daemon::start(&at.join("store"), &mnt);
            for (writer, owed) in self.writers.iter().zip(self.owed(cut)) {
                let found = writer.judge(&mnt, owed);
                let found = found.map_err(|e| format!("{kind}, SKYLOG_CUT_SEED={}, cut {n}: {e}", seed()))?;
                figures.owed += owed;
                figures.dirty += found.saturating_sub(owed);
            }
            figures.judged += 1;
            daemon.end();
            daemon::check(&at.join("store"));
            below.end();
            fs::remove_file(&image).expect("removed");
        }
        Ok(figures)
    }
}

fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("skylog-record.").tempdir_in("/var/tmp").expect("a scratch folder")
}

#[test]
fn what_was_acknowledged_is_on_every_disk_that_a_power_cut_may_leave() {
    for kind in disk::KINDS {
        let scratch = scratch();
        let recording = record(kind, scratch.path(), false);
        let cuts = env("SKYLOG_CUT_ROUNDS").unwrap_or(CUTS);
        let Figures { judged, owed, dirty, flushes, dropped } =
            recording.judge(kind, scratch.path(), cuts).unwrap_or_else(|e| panic!("{e}"));
        let events = recording.events.len();
        println!(
            "{kind}: {cuts} cuts of {events} events with {flushes} flushes: {dropped} writes dropped or torn, {owed} \
             operations owed and there, {dirty} more"
        );
        Counts {
            part: "recorded disks of ext4 and xfs",
            histories: 1,
            states: judged,
            kills: judged,
            ..Counts::default()
        }
        .print();
        assert!(owed > 100 && flushes > 10 && dropped >= cuts / 4, "the cuts proved nothing");
    }
}

/// The proof proves itself: an acknowledgement before the sync is found.
#[test]
fn what_is_acknowledged_before_it_is_synced_is_found() {
    let scratch = scratch();
    let recording = record("ext4", scratch.path(), true);
    let found = recording.judge("ext4", scratch.path(), 40);
    let found = found.err().expect("lies that nobody noticed");
    assert!(found.contains("are owed"), "{found}");
}
