//! What is done with a store: everybody reads it, somebody writes to it, everything in the background runs.

use bytes::Bytes;
use skylog::base::clock::SimClock;
use skylog::base::random::SeededRandom;
use skylog::check::{Depth, check};
use skylog::checkpoint::nodes::NodeStore;
use skylog::follow;
use skylog::format::ids::InodeNo;
use skylog::fs::{Attr, Cx, DirEntry, DiskSpace, Fs, Options, Place, Seek, SetAttr, Stop};
use skylog::map::{Db, Wait};
use skylog::media::Media;
use skylog::media::sim::{CallLog, SimDisk};
use skylog::recovery::{MountError, Mounted, Tuning, World, mount};
use skylog::rig::{Rig, known, small};
use skylog::salvage::Salvage;
use skylog::store::Store;
use skylog::store::sim::SimStore;
use skylog::volume::resolve;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const ROOT: InodeNo = InodeNo::ROOT;
/// An operation that began again so often never ends.
const ROUNDS_MAX: usize = 2000;
/// Most names that are looked at: a directory that goes round has more.
const NAMES_MAX: usize = 400;
/// Steps of each actor.
const STEPS_MAX: usize = 40;
/// Bytes that are read of a file at a time, at a few places.
const READ_BYTES: u32 = 200_000;

/// What came of it.
#[derive(Debug, Default)]
pub struct Lived {
    /// Operations that read, and those that changed something, and went well.
    pub read: u64,
    pub changed: u64,
    /// What was said to those that did not.
    pub refused: Vec<String>,
    /// Names that were listed.
    pub shown: Vec<Bytes>,
}

/// A store of ours, with files of each kind, all of it in a base.
pub fn honest_store() -> SimStore {
    let mut rig = Rig::new(3, &small());
    let dir = rig.run(|fs, cx| fs.mkdir(cx, ROOT, b"dir", 0o755)).expect("made").0.ino;
    let deep = rig.run(|fs, cx| fs.mkdir(cx, dir, b"deep", 0o755)).expect("made").0.ino;
    for (n, len) in [0usize, 100, 3000, 9000].into_iter().enumerate() {
        for parent in [ROOT, dir, deep] {
            let name = format!("file {n}");
            let ino = rig.run(|fs, cx| fs.create(cx, parent, name.as_bytes(), 0o644)).expect("created").0.ino;
            if len > 0 {
                rig.run(|fs, cx| fs.write(cx, ino, 0, &vec![n as u8; len])).expect("written");
                rig.run(|fs, cx| fs.write(cx, ino, 100_000 * n as u64, &[9; 2500])).expect("written");
            }
            rig.run(|fs, cx| fs.set_xattr(cx, ino, b"user.colour", b"blue", 0)).expect("set");
            rig.run(|fs, cx| fs.release(cx, ino)).expect("released");
        }
    }
    rig.run(|fs, cx| fs.symlink(cx, dir, b"link", b"deep/file 1")).expect("linked");
    rig.run(|fs, cx| fs.mknod(cx, dir, b"fifo", libc::S_IFIFO | 0o600, 0)).expect("made");
    rig.drain();
    SimStore::from_image(&rig.store.image(), &CallLog::new())
}

fn tuning() -> Tuning {
    let mut tuning = small();
    tuning.policy.age_max = Duration::from_secs(1);
    tuning
}

fn world(store: &SimStore, disk: &SimDisk, clock: &Arc<SimClock>) -> World {
    World {
        media: Arc::new(disk.clone()),
        cache_media: Arc::new(disk.clone()),
        store: Arc::new(store.clone()),
        clock: clock.clone(),
        random: Arc::new(SeededRandom::new(5)),
        known: known(store),
    }
}

/// Does all that is done with a store. What it finds may be wrong in any way; it must come to an end.
pub fn live(store: &SimStore) -> Lived {
    let mut lived = Lived::default();
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    lived.note(check(&shared, None, Depth::Data, &mut |_, _, _| {}).problems.iter().map(ToString::to_string));
    let clock = Arc::new(SimClock::default());
    match follow::open(&world(store, &SimDisk::new(&CallLog::new()), &clock), &tuning()) {
        Ok(opened) => {
            let mut user = User::new(&opened.db, &opened.nodes, &mut lived);
            let tree = user.look();
            user.read(&tree);
        }
        Err(e) => lived.refused.push(e.to_string()),
    }
    let disk = SimDisk::new(&CallLog::new());
    match mount(&world(store, &disk, &clock), &tuning(), &mut |_, _| {}) {
        Ok(mounted) => write_and_mount_again(mounted, store, &disk, &clock, &mut lived),
        Err(e) => lived.refused.push(e.to_string()),
    }
    lived
}

impl Lived {
    fn note(&mut self, what: impl Iterator<Item = String>) {
        self.refused.extend(what);
    }
}

fn write_and_mount_again(
    mut mounted: Mounted,
    store: &SimStore,
    disk: &SimDisk,
    clock: &Arc<SimClock>,
    lived: &mut Lived,
) {
    let mut user = User::new(&mounted.db, &mounted.nodes, lived);
    let orphans = user.run(|fs, cx| fs.free_orphans(cx)).map(drop);
    user.lived.refused.extend(orphans.err());
    let tree = user.look();
    user.read(&tree);
    user.change(&tree);
    drop(user);
    step(&mut mounted, clock);
    let user = User::new(&mounted.db, &mounted.nodes, lived);
    for (_, entry) in &tree {
        let _ = user.run(|fs, cx| fs.getattr(cx, entry.ino));
    }
    drop(user);
    let _ = mounted.writer.close();
    drop(mounted);
    let state: Arc<dyn Media> = Arc::new(disk.clone());
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let _ = check(&shared, Some(state.clone()), Depth::Data, &mut |_, _, _| {});
    if let Ok(salvage) = Salvage::open(shared, state, &mut |_, _| {}) {
        for found in salvage.findings().found {
            let _ = salvage.read::<()>(&found, &mut |_| Ok(()));
        }
    }
    let again: Result<Mounted, MountError> = mount(&world(store, disk, clock), &tuning(), &mut |_, _| {});
    if let Ok(mut mounted) = again {
        step(&mut mounted, clock);
    }
}

fn step(mounted: &mut Mounted, clock: &SimClock) {
    for _ in 0..STEPS_MAX {
        mounted.checkpointer.wanted().checkpoint();
        mounted.writer.step();
        mounted.checkpointer.step();
        if let Some(job) = mounted.desk.take_job() {
            let report = mounted.shipper.run(&job).unwrap_or_else(|e| e.into_report());
            mounted.desk.report(report);
        }
        clock.advance(Duration::from_secs(1));
    }
}

struct User<'a> {
    db: &'a Arc<Db>,
    nodes: &'a NodeStore,
    fs: Fs,
    lived: &'a mut Lived,
}

impl<'a> User<'a> {
    fn new(db: &'a Arc<Db>, nodes: &'a NodeStore, lived: &'a mut Lived) -> User<'a> {
        let options = Options { write_bytes_max: 8 << 10, space: Box::new(DiskSpace::default) };
        User { db, nodes, fs: Fs::new(db.clone(), options), lived }
    }

    fn run<T>(&self, mut op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Result<T, String> {
        let mut cx = Cx::default();
        for _ in 0..ROUNDS_MAX {
            match op(&self.fs, &cx) {
                Ok(value) => return Ok(value),
                Err(Stop::Error(e)) => return Err(e.to_string()),
                Err(Stop::Wait(Wait::Pressure)) => return Err("no room".to_owned()),
                Err(Stop::Wait(wait)) => {
                    resolve(&wait, self.db, self.nodes, &mut cx.pins).map_err(|reason| reason.to_string())?;
                }
            }
        }
        panic!("an operation waits for ever");
    }

    fn try_read<T>(&mut self, op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Option<T> {
        match self.run(op) {
            Ok(value) => {
                self.lived.read += 1;
                Some(value)
            }
            Err(e) => {
                self.lived.refused.push(e);
                None
            }
        }
    }

    fn try_change<T>(&mut self, op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) {
        self.lived.changed += u64::from(self.run(op).is_ok());
    }

    /// Every name, as far as they end.
    fn look(&mut self) -> Vec<(InodeNo, DirEntry)> {
        let (mut all, mut seen, mut open) = (Vec::new(), BTreeSet::from([ROOT]), vec![ROOT]);
        self.try_read(|fs, cx| fs.getattr(cx, ROOT));
        while let Some(dir) = open.pop() {
            let mut after = 0;
            while let Some(page) = self.try_read(|fs, cx| fs.readdir(cx, dir, after, 16)) {
                let Some(last) = page.last() else { break };
                assert!(last.cookie > after, "a listing goes back");
                after = last.cookie;
                for entry in page.into_iter().filter(|entry| entry.cookie > 2) {
                    if entry.kind == libc::DT_DIR && seen.insert(entry.ino) {
                        open.push(entry.ino);
                    }
                    self.lived.shown.push(entry.name.clone());
                    all.push((dir, entry));
                }
                if all.len() > NAMES_MAX {
                    return all;
                }
            }
        }
        all
    }

    fn read(&mut self, tree: &[(InodeNo, DirEntry)]) {
        for (dir, entry) in tree {
            let ino = entry.ino;
            self.try_read(|fs, cx| fs.lookup(cx, *dir, &entry.name));
            let Some(attr) = self.try_read(|fs, cx| fs.getattr(cx, ino)) else { continue };
            let _ = self.run(|fs, cx| fs.members(cx, ino, 0, 100));
            let _ = self.run(|fs, cx| fs.readdir_plus(cx, ino, 0, 100));
            match attr.mode & libc::S_IFMT {
                libc::S_IFREG => self.read_file(&attr),
                libc::S_IFLNK => drop(self.try_read(|fs, cx| fs.readlink(cx, ino))),
                _ => {}
            }
            if let Some(names) = self.try_read(|fs, cx| fs.list_xattrs(cx, ino)) {
                for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                    self.try_read(|fs, cx| fs.get_xattr(cx, ino, name));
                }
            }
        }
    }

    fn read_file(&mut self, attr: &Attr) {
        for at in [0, attr.size.saturating_sub(1000), attr.size / 2, u64::MAX - 100] {
            self.try_read(|fs, cx| fs.read(cx, attr.ino, at, READ_BYTES));
            let _ = self.run(|fs, cx| fs.contents(cx, attr.ino, at, 64));
            for what in [Seek::Data, Seek::Hole] {
                let _ = self.run(|fs, cx| fs.seek(cx, attr.ino, at, what));
            }
        }
    }

    fn change(&mut self, tree: &[(InodeNo, DirEntry)]) {
        let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
        for (n, (dir, entry)) in tree.iter().enumerate() {
            let (dir, ino, name) = (*dir, entry.ino, &entry.name[..]);
            let (other_dir, other) = &tree[(n * 7 + 3) % tree.len()];
            let place = |ino| Place { ino, offset: 0 };
            self.try_change(|fs, cx| fs.write(cx, ino, 10, &[1; 5000]));
            self.try_change(|fs, cx| fs.write(cx, ino, 1 << 40, &[1; 100]));
            self.try_change(|fs, cx| fs.copy_file_range(cx, place(ino), place(other.ino), 100_000));
            self.try_change(|fs, cx| {
                fs.fallocate(cx, ino, 1000, 5000, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE)
            });
            self.try_change(|fs, cx| fs.fallocate(cx, ino, 0, 300_000, 0));
            self.try_change(|fs, cx| fs.setattr(cx, ino, SetAttr { mode: Some(0o700), ..SetAttr::default() }));
            self.try_change(|fs, cx| fs.set_xattr(cx, ino, b"user.new", b"value", 0));
            self.try_change(|fs, cx| fs.remove_xattr(cx, ino, b"user.colour"));
            self.try_change(|fs, cx| fs.setattr(cx, ino, size(50)));
            self.try_change(|fs, cx| fs.setattr(cx, ino, size(1 << 50)));
            self.try_change(|fs, cx| fs.link(cx, ino, ROOT, format!("link {n}").as_bytes()));
            self.try_change(|fs, cx| fs.create(cx, dir, format!("new {n}").as_bytes(), 0o600));
            self.try_change(|fs, cx| fs.mkdir(cx, ino, b"below", 0o700));
            match n % 4 {
                0 => self.try_change(|fs, cx| fs.rename(cx, dir, name, *other_dir, &other.name, 0)),
                1 => self.try_change(|fs, cx| fs.rename(cx, dir, name, *other_dir, &other.name, libc::RENAME_EXCHANGE)),
                2 => self.try_change(|fs, cx| fs.rename(cx, dir, name, other.ino, b"moved", 0)),
                _ => {}
            }
            self.try_change(|fs, cx| fs.unlink(cx, dir, name));
            self.try_change(|fs, cx| fs.rmdir(cx, dir, name));
            self.try_change(|fs, cx| fs.statfs(cx));
        }
    }
}
