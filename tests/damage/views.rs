//! Who may read a filesystem: a mount of the state directory, one of the store alone, a follower, the check.

use super::heard;
use bytes::Bytes;
use skylog::base::clock::SimClock;
use skylog::base::random::SeededRandom;
use skylog::check::{Depth, Report, check};
use skylog::checkpoint::nodes::NodeStore;
use skylog::follow;
use skylog::format::batch::TreeId;
use skylog::format::ids::InodeNo;
use skylog::format::inode::Extent;
use skylog::format::key::Key;
use skylog::fs::{Attr, Cx, DirEntry, DiskSpace, Error, Fs, Options, Stop};
use skylog::map::{Db, Pins};
use skylog::media::Media;
use skylog::media::sim::{CallLog, SimDisk};
use skylog::recovery::{MountError, Tuning, World, mount};
use skylog::repair;
use skylog::rig::{Rig, known};
use skylog::store::Store;
use skylog::store::sim::SimStore;
use skylog::volume::resolve;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// An operation that began again so often never ends.
const ROUNDS_MAX: usize = 1000;
/// Steps of each actor that goes on.
const STEPS_MAX: usize = 60;
/// More than this no directory of a scene has.
const NAMES_MAX: usize = 1000;

/// A disk, a store and what mounts them.
pub struct Machine {
    pub disk: SimDisk,
    pub store: SimStore,
    pub tuning: Tuning,
}

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub attr: Attr,
    /// Of a file, or the target of a link.
    pub contents: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Bytes>,
}

/// All there is by path, or why it cannot be read.
pub type Tree = BTreeMap<String, Result<Node, String>>;

/// What is wrong with what was found, if anything is: something else than what is there, or something missing without an error.
pub fn difference(expected: &Tree, found: &Tree) -> Option<String> {
    for (path, node) in found {
        match (expected.get(path), node) {
            (_, Err(_)) => {}
            (Some(Ok(expected)), Ok(node)) if expected == node => {}
            (expected, node) => return Some(format!("{path}: {node:?} instead of {expected:?}")),
        }
    }
    let unread = |path: &str| {
        let above = path.match_indices('/').map(|(at, _)| if at == 0 { "/" } else { &path[..at] });
        above.into_iter().any(|dir| matches!(found.get(dir), Some(Err(_))))
    };
    expected.keys().find(|path| !found.contains_key(*path) && !unread(path)).map(|path| format!("{path} is missing"))
}

struct Reader<'a> {
    db: &'a Arc<Db>,
    nodes: &'a NodeStore,
    fs: Fs,
}

impl Reader<'_> {
    fn new<'a>(db: &'a Arc<Db>, nodes: &'a NodeStore) -> Reader<'a> {
        let options = Options { write_bytes_max: 8 << 10, space: Box::new(DiskSpace::default) };
        Reader { db, nodes, fs: Fs::new(db.clone(), options) }
    }

    /// The answer, or why there is none: what the caller is told and what the log says.
    fn run<T>(&self, op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Result<T, String> {
        self.attempt(op).map_err(|e| [vec![e.to_string()], heard::take()].concat().join("; "))
    }

    fn attempt<T>(&self, mut op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Result<T, Error> {
        let mut cx = Cx::default();
        for _ in 0..ROUNDS_MAX {
            match op(&self.fs, &cx) {
                Ok(value) => return Ok(value),
                Err(Stop::Error(e)) => return Err(e),
                Err(Stop::Wait(wait)) => {
                    if let Err(reason) = resolve(&wait, self.db, self.nodes, &mut cx.pins) {
                        log::info!("{reason}");
                        return Err(Error::Io);
                    }
                }
            }
        }
        panic!("an operation waits for ever");
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let root = self.run(|fs, cx| fs.getattr(cx, InodeNo::ROOT));
        let mut open = vec![("/".to_owned(), InodeNo::ROOT)];
        tree.insert("/".to_owned(), root.and_then(|attr| self.node(attr)));
        while let Some((path, dir)) = open.pop() {
            let entries = match self.run(|fs, cx| fs.members(cx, dir, 0, NAMES_MAX)) {
                Ok(entries) => entries,
                Err(e) => {
                    tree.insert(path, Err(e));
                    continue;
                }
            };
            assert!(entries.len() < NAMES_MAX, "{path} has very many names");
            for entry in entries {
                let name = String::from_utf8_lossy(&entry.name);
                let path = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
                if entry.kind == libc::DT_DIR {
                    open.push((path.clone(), entry.ino));
                }
                let node = self.entry(dir, &entry);
                assert!(tree.insert(path, node).is_none() && tree.len() < NAMES_MAX, "names go on for ever");
            }
        }
        tree
    }

    /// What can be read of a file, piece by piece; nothing if it cannot be found or is none.
    fn pieces(&self, path: &str) -> Option<InPieces> {
        let root = self.run(|fs, cx| fs.getattr(cx, InodeNo::ROOT)).ok()?;
        let attr = path
            .split('/')
            .filter(|name| !name.is_empty())
            .try_fold(root, |dir, name| self.run(|fs, cx| fs.lookup(cx, dir.ino, name.as_bytes())).ok().flatten())?;
        if attr.mode & libc::S_IFMT != libc::S_IFREG {
            return None;
        }
        let starts = (0..attr.size).step_by(PIECE as usize);
        let read = |at: u64| self.attempt(|fs, cx| fs.read(cx, attr.ino, at, PIECE));
        let pieces = starts.map(|at| (usize::try_from(at).expect("small"), read(at))).collect();
        Some(InPieces { attr, pieces })
    }

    fn entry(&self, dir: InodeNo, entry: &DirEntry) -> Result<Node, String> {
        let found = self.run(|fs, cx| fs.lookup(cx, dir, &entry.name))?;
        let attr = found.ok_or_else(|| format!("{:?} is listed and not there", entry.name))?;
        assert_eq!(attr.ino, entry.ino, "a name is listed as something else");
        self.node(attr)
    }

    fn node(&self, attr: Attr) -> Result<Node, String> {
        let ino = attr.ino;
        let contents = match attr.mode & libc::S_IFMT {
            libc::S_IFREG => {
                let size = u32::try_from(attr.size).map_err(|e| e.to_string())?;
                self.run(|fs, cx| fs.read(cx, ino, 0, size))?
            }
            libc::S_IFLNK => self.run(|fs, cx| fs.readlink(cx, ino))?.to_vec(),
            _ => Vec::new(),
        };
        let names = self.run(|fs, cx| fs.list_xattrs(cx, ino))?;
        let mut xattrs = BTreeMap::new();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            xattrs.insert(name.to_vec(), self.run(|fs, cx| fs.get_xattr(cx, ino, name))?);
        }
        Ok(Node { attr, contents, xattrs })
    }
}

/// What a mounted filesystem holds.
pub fn of_rig(rig: &Rig) -> Tree {
    Reader::new(&rig.mounted.db, &rig.mounted.nodes).tree()
}

fn world(machine: &Machine, disk: &SimDisk) -> World {
    World {
        media: Arc::new(disk.clone()),
        cache_media: Arc::new(disk.clone()),
        store: Arc::new(machine.store.clone()),
        clock: Arc::new(SimClock::default()),
        random: Arc::new(SeededRandom::new(99)),
        known: known(&machine.store),
    }
}

/// A mount of the state directory.
pub fn local(machine: &Machine) -> Result<Tree, MountError> {
    mounted(machine, &machine.disk)
}

/// A mount of the store alone.
pub fn elsewhere(machine: &Machine) -> Result<Tree, MountError> {
    mounted(machine, &SimDisk::new(&CallLog::new()))
}

fn mounted(machine: &Machine, disk: &SimDisk) -> Result<Tree, MountError> {
    let mounted = mount(&world(machine, disk), &machine.tuning, &mut |_, _| {})?;
    Ok(Reader::new(&mounted.db, &mounted.nodes).tree())
}

/// The file that a mount which goes on writes.
pub const WRITTEN: &str = "/written later";

/// Mounts the state directory, writes, and does what there is to do in the background, as far as it can be done.
pub fn go_on(machine: &Machine) -> Result<(), MountError> {
    let clock = Arc::new(SimClock::default());
    let world = World { clock: clock.clone(), ..world(machine, &machine.disk) };
    let mut mounted = mount(&world, &machine.tuning, &mut |_, _| {})?;
    let reader = Reader::new(&mounted.db, &mounted.nodes);
    let written = reader.run(|fs, cx| fs.create(cx, InodeNo::ROOT, &WRITTEN.as_bytes()[1..], 0o600));
    let _ = written.and_then(|(attr, _)| reader.run(|fs, cx| fs.write(cx, attr.ino, 0, &[7; 5000])));
    drop(reader);
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
    let _ = mounted.writer.close();
    Ok(())
}

/// Pieces of contents, in order.
const PIECE: u32 = 500;

/// A file that cannot be read whole.
pub struct InPieces {
    pub attr: Attr,
    /// Where each starts, and what it holds.
    pub pieces: Vec<(usize, Result<Vec<u8>, Error>)>,
}

/// By path.
pub type Pieces = BTreeMap<String, InPieces>;

/// A mount of the state directory, or of the store alone, whose files are also read piece by piece where they fail.
pub fn pieces<T>(machine: &Machine, with_state: bool, see: impl FnOnce(&Tree, &Pieces) -> T) -> Result<T, MountError> {
    let empty = SimDisk::new(&CallLog::new());
    let mounted =
        mount(&world(machine, if with_state { &machine.disk } else { &empty }), &machine.tuning, &mut |_, _| {})?;
    let reader = Reader::new(&mounted.db, &mounted.nodes);
    let tree = reader.tree();
    let failing = tree.iter().filter(|(_, node)| node.is_err());
    let pieces = failing.filter_map(|(path, _)| Some((path.clone(), reader.pieces(path)?))).collect();
    Ok(see(&tree, &pieces))
}

/// All extents of a filesystem that is whole.
pub fn extents(machine: &Machine, with_state: bool) -> Vec<(InodeNo, Extent)> {
    let empty = SimDisk::new(&CallLog::new());
    let world = world(machine, if with_state { &machine.disk } else { &empty });
    let mounted = mount(&world, &machine.tuning, &mut |_, _| {}).expect("mounts");
    let (mut pins, mut from, mut found) = (Pins::new(), Bytes::new(), Vec::new());
    loop {
        let rows = match mounted.db.begin(&pins).scan(TreeId::Files, &from, &[0xff; 8], NAMES_MAX).map_err(Stop::from) {
            Ok(rows) => rows,
            Err(Stop::Error(e)) => panic!("it is whole: {e}"),
            Err(Stop::Wait(wait)) => {
                resolve(&wait, &mounted.db, &mounted.nodes, &mut pins).expect("it is whole");
                continue;
            }
        };
        let Some((last, _)) = rows.last() else { return found };
        from = [last, &b"\0"[..]].concat().into();
        found.extend(rows.iter().filter_map(|(key, value)| match Key::decode(key) {
            Ok(Key::Extent(ino, _)) => Some((ino, Extent::decode(value).expect("whole"))),
            _ => None,
        }));
    }
}

/// `skylog check --repair`, with the state directory or without.
pub fn repair(machine: &Machine, with_state: bool) -> Result<repair::Report, repair::RepairError> {
    let Tuning { policy, owner, holding, .. } = &machine.tuning;
    let means = repair::Means {
        store: Arc::new(machine.store.clone()),
        state: with_state.then(|| Arc::new(machine.disk.clone()) as Arc<dyn Media>),
        clock: Arc::new(SimClock::default()),
        random: Arc::new(SeededRandom::new(98)),
        owner: owner.clone(),
        holding: *holding,
        not_append_only: true,
        segment_bytes: policy.segment_bytes,
        shape: policy.shape,
    };
    repair::repair(&means, false, &mut |_, _, _| {})
}

/// A follower.
pub fn follow(machine: &Machine) -> Result<Tree, MountError> {
    let opened = follow::open(&world(machine, &SimDisk::new(&CallLog::new())), &machine.tuning)?;
    Ok(Reader::new(&opened.db, &opened.nodes).tree())
}

/// `skylog check`, every byte.
pub fn checked(machine: &Machine, state: bool) -> Report {
    let store: Arc<dyn Store> = Arc::new(machine.store.clone());
    let state = state.then(|| Arc::new(machine.disk.clone()) as Arc<dyn Media>);
    check(&store, state, Depth::Data, &mut |_, _, _| {})
}
