//! Accounts against a full scan, for a mount where everything is shipped and settled: every extent's object is in a shipped
//! window, what the space tree says lives is what extents name, and the store holds nothing that nobody knows.

use crate::world::Instance;
use bytes::Bytes;
use skylog::format::batch::TreeId;
use skylog::format::ids::{Lsn, ObjectId, SegmentKind, SegmentNo};
use skylog::format::inode::Extent;
use skylog::format::key;
use skylog::format::names;
use skylog::format::space::{self, SegmentRecord, WindowRecord};
use skylog::format::window::WindowIndex;
use skylog::map::{Pins, Stop, Wait, verify};
use skylog::store::Store;
use skylog::volume::resolve;
use std::collections::{BTreeMap, BTreeSet};

/// Every row of a map.
pub fn rows(instance: &Instance, tree: TreeId) -> Vec<(Bytes, Bytes)> {
    try_rows(instance, tree).expect("nodes can be read")
}

/// The same; the reason when disk and store do not give what it takes.
pub fn try_rows(instance: &Instance, tree: TreeId) -> Result<Vec<(Bytes, Bytes)>, String> {
    let db = &instance.mounted.db;
    let mut pins = Pins::default();
    loop {
        match db.begin(&pins).scan(tree, &[], &[0xff; 16], usize::MAX) {
            Ok(rows) => return Ok(rows),
            Err(Stop::Wait(wait @ Wait::Node(_))) => {
                resolve(&wait, db, &instance.mounted.nodes, &mut pins).map_err(|e| e.to_string())?;
            }
            Err(stop) => panic!("a scan stopped: {stop:?}"),
        }
    }
}

/// What is wrong with the trees of the newest checkpoint, and with the rows of all files.
pub fn check_trees(instance: &Instance) {
    for root in instance.mounted.db.roots() {
        let problems = verify(root, &*instance.mounted.nodes, &mut |_, _| {});
        assert!(problems.is_empty(), "a tree is no tree: {problems:?}");
    }
    let decode = |(key, value): (Bytes, Bytes)| (key::Key::decode(&key).expect("a key"), value);
    crate::model::rows::check_rows(rows(instance, TreeId::Files).into_iter().map(decode).collect());
}

/// What the space tree says.
#[derive(Default)]
struct Space {
    segments: BTreeMap<SegmentNo, SegmentRecord>,
    windows: BTreeMap<Lsn, WindowRecord>,
    counts: BTreeMap<ObjectId, u32>,
    pending: BTreeSet<String>,
}

impl Space {
    fn read(instance: &Instance) -> Space {
        let mut space = Space::default();
        for (key, value) in rows(instance, TreeId::Space) {
            match space::Key::decode(&key).expect("a key of the space tree") {
                space::Key::Segment(no) => {
                    space.segments.insert(no, SegmentRecord::decode(&value).expect("a segment"));
                }
                space::Key::Window(end) => {
                    space.windows.insert(end, WindowRecord::decode(&value).expect("a window"));
                }
                space::Key::Count(object) => {
                    space.counts.insert(object, space::decode_count(&value).expect("a count"));
                }
                space::Key::Pending(name) => {
                    space.pending.insert(String::from_utf8(name.to_vec()).expect("a name"));
                }
                space::Key::Waiting(object) => panic!("object {object} still waits for its window"),
                space::Key::Mark(_) | space::Key::Settled | space::Key::Published => {}
            }
        }
        space
    }
}

/// Checks all accounts of a drained mount. `strays` may be in the store when a call that nobody waits for any more put an
/// object that was deleted since: it costs room, and nobody can know of it.
pub fn check_accounts(instance: &Instance, strays: bool) {
    let mut named: BTreeMap<ObjectId, u32> = BTreeMap::new();
    for (key, value) in rows(instance, TreeId::Files) {
        if let Ok(key::Key::Extent(..)) = key::Key::decode(&key) {
            *named.entry(Extent::decode(&value).expect("an extent").object).or_default() += 1;
        }
    }
    // Nothing is on its way: a drain ends after rounds in a row in which nothing was due, also by the clock.
    let journal = instance.mounted.db.journal();
    assert_eq!(journal.stats().queue_bytes, 0, "room in the journal that nobody gives back");
    let space = Space::read(instance);
    let many: BTreeMap<ObjectId, u32> = named.iter().filter(|(_, n)| **n > 1).map(|(o, n)| (*o, *n)).collect();
    assert_eq!(space.counts, many, "counts of shared objects");
    check_windows(instance, &space, &named);
    check_store(instance, &space, strays);
}

fn check_windows(instance: &Instance, space: &Space, named: &BTreeMap<ObjectId, u32>) {
    let mut live: BTreeMap<SegmentNo, u32> = BTreeMap::new();
    let mut dead: BTreeMap<SegmentNo, u64> = BTreeMap::new();
    let mut shipped = BTreeSet::new();
    for (end, record) in &space.windows {
        let name = names::window(record.start, *end);
        let bytes = instance.machine.store.get(&name).expect("a recorded window is in the store");
        let index = WindowIndex::decode(&bytes).expect("an index");
        let mut lives = 0;
        for entry in &index.entries {
            let segment = index.segments[entry.segment as usize];
            if !named.contains_key(&entry.object) {
                *dead.entry(segment).or_default() += u64::from(entry.len);
                continue;
            }
            *live.entry(segment).or_default() += 1;
            lives += 1;
            assert!(shipped.insert(entry.object), "object {} is in two windows", entry.object);
        }
        assert_eq!(record.live_objects, lives, "live objects of the window that ends at {end}");
    }
    let missing: Vec<_> = named.keys().filter(|object| !shipped.contains(object)).collect();
    assert!(missing.is_empty(), "objects in no window: {missing:?}");
    let recorded = space.segments.iter().filter(|(_, record)| record.kind == SegmentKind::Chunks);
    let recorded: BTreeMap<_, _> = recorded.map(|(no, r)| (*no, (r.live_objects, r.bytes - r.live_bytes))).collect();
    let counted = live.into_iter().map(|(no, objects)| (no, (objects, dead.get(&no).copied().unwrap_or(0)))).collect();
    assert_eq!(recorded, counted, "live objects and dead bytes of segments");
}

/// The store holds every recorded segment; and what it holds is recorded, or to be deleted. Only what a writer had begun that
/// was then taken over from is left behind.
fn check_store(instance: &Instance, space: &Space, strays: bool) {
    let held: BTreeSet<String> = instance.machine.store.image().names().map(str::to_owned).collect();
    let planned_too = space.segments.keys().map(|no| names::segment(*no));
    let segments = space.segments.iter().filter(|(_, record)| record.bytes > 0).map(|(no, _)| names::segment(*no));
    let windows = space.windows.iter().map(|(end, record)| names::window(record.start, *end));
    let known: BTreeSet<String> = segments.chain(windows).collect();
    let planned_too: BTreeSet<String> = planned_too.collect();
    let gone: Vec<_> = known.iter().filter(|name| !held.contains(*name)).collect();
    assert!(gone.is_empty(), "recorded and not in the store: {gone:?}");
    let ours = format!("/{:010}/", instance.mounted.db.epoch());
    let stray = |name: &&String| {
        let packed = name.starts_with("seg/") || name.starts_with("win/");
        packed
            && name.contains(&ours)
            && !known.contains(*name)
            && !planned_too.contains(*name)
            && !space.pending.contains(*name)
    };
    let stray: Vec<_> = held.iter().filter(stray).collect();
    assert!(strays || stray.is_empty(), "in the store and known to nobody: {stray:?}");
}
