//! Which files damage may cost something after a repair: those of which a byte lay there, and lies nowhere else.

use crate::kinds::Kind;
use crate::scene::{Object, Scene};
use crate::sweep::Damage;
use crate::views;
use bytes::Bytes;
use skylog::format::batch::{Batch, Edit, TreeId};
use skylog::format::checkpoint::Checkpoint;
use skylog::format::group::{GROUP_BLOCK, decode_group};
use skylog::format::ids::{InodeNo, Lsn, ObjectId, SegmentNo};
use skylog::format::inode::{CookieValue, Extent, NameValue};
use skylog::format::key::Key;
use skylog::format::node::{Leaf, Node};
use skylog::format::publication::{Body, Publication};
use skylog::format::store_segment::{SegmentEntry, StoreSegment};
use skylog::format::window::WindowIndex;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

/// Files that may have lost something.
#[derive(Clone, Debug, Default)]
pub struct Hits {
    /// Attributes or contents,
    pub contents: BTreeSet<InodeNo>,
    /// or the name by which they are found.
    pub names: BTreeSet<InodeNo>,
}

impl Hits {
    fn key(&mut self, key: &Bytes, value: Option<&Bytes>) {
        let named = match Key::decode(key).expect("whole") {
            Key::Name(..) => value.map(|value| NameValue::decode(value).expect("whole").ino),
            Key::Cookie(..) => value.map(|value| CookieValue::decode(value).expect("whole").ino),
            _ => None,
        };
        self.names.extend(named);
        self.ino_of(key);
    }

    fn ino_of(&mut self, key: &Bytes) {
        use Key::*;
        if let Ok(Inode(ino) | Inline(ino) | Name(ino, _) | Cookie(ino, _) | Xattr(ino, _) | Extent(ino, _)) =
            Key::decode(key)
        {
            self.contents.insert(ino);
        }
    }

    fn batch(&mut self, batch: &Batch) {
        for (_, edit) in batch.edits.iter().filter(|(tree, _)| *tree == TreeId::Files) {
            match edit {
                Edit::Put { key, value } => self.key(key, Some(value)),
                Edit::Delete { key } => self.key(key, None),
                Edit::DeleteRange { from, .. } => self.ino_of(from),
                Edit::OwnExtent { ino, .. } => drop(self.contents.insert(*ino)),
            }
        }
    }

    fn leaf(&mut self, leaf: &Leaf) {
        // Keys of the space map begin with a letter.
        for i in (0..leaf.len()).filter(|i| leaf.key(*i)[0] == 0) {
            self.key(&leaf.key(i), Some(&leaf.value(i)));
        }
    }

    fn batches(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let (batch, used) = Batch::decode(&bytes, 0).expect("whole");
            self.batch(&batch);
            bytes = bytes.slice(used..);
        }
    }
}

/// What is where, undamaged.
pub struct Places {
    /// Files by the objects that they have a part of, seen from the state directory, and from the store alone.
    files: [HashMap<ObjectId, BTreeSet<InodeNo>>; 2],
    /// Objects by where their chunk starts.
    chunks: HashMap<(SegmentNo, u64), Vec<ObjectId>>,
    /// Objects in chunks, in logs, and in the journal.
    chunked: HashSet<ObjectId>,
    logged: HashSet<ObjectId>,
    journalled: HashSet<ObjectId>,
    /// All batches up to this one are in the local checkpoint.
    checkpoint: Lsn,
}

impl Places {
    pub fn of(scene: &Scene) -> Places {
        let mut places = Places {
            files: [true, false].map(|state| views::extents(&scene.machine(), state)).map(by_object),
            chunks: HashMap::new(),
            chunked: HashSet::new(),
            logged: HashSet::new(),
            journalled: HashSet::new(),
            checkpoint: Lsn::ZERO,
        };
        for object in &scene.objects {
            match object.kind {
                Kind::WindowIndex => places.index(&WindowIndex::decode(&object.bytes).expect("whole")),
                Kind::Base | Kind::LogIncrement => places.log(object),
                Kind::JournalSealed | Kind::JournalLive => {
                    let objects = groups(object).into_iter().flat_map(|(_, batches)| batches);
                    places.journalled.extend(objects.flat_map(|batch| objects_of(&batch)));
                }
                Kind::Checkpoint => {
                    let checkpoint = Checkpoint::decode(&object.bytes).expect("whole");
                    places.checkpoint = places.checkpoint.max(checkpoint.lsn);
                }
                _ => {}
            }
        }
        places
    }

    fn index(&mut self, index: &WindowIndex) {
        for entry in &index.entries {
            let segment = index.segments[entry.segment as usize];
            self.chunks.entry((segment, entry.chunk_offset)).or_default().push(entry.object);
            self.chunked.insert(entry.object);
        }
    }

    fn log(&mut self, object: &Object) {
        let bytes = object.bytes.clone().into();
        let log = match Publication::decode(&bytes).expect("whole").body {
            Body::Base(base) => base.log,
            Body::Log(log) => log,
            _ => unreachable!("of another kind"),
        };
        let batches = log.batches().map(|batch| batch.expect("whole").batch);
        self.logged.extend(batches.flat_map(|batch| objects_of(&batch)));
    }

    /// The files that damage may cost something, with the state directory or without.
    pub fn hit(&self, scene: &Scene, object: &Object, damage: Damage, with_state: bool) -> Hits {
        let mut hits = Hits::default();
        match object.kind {
            Kind::ChunkSegment => {
                let segment = StoreSegment::parse(&object.bytes).expect("whole");
                for entry in bodies(&segment, damage) {
                    let objects = self.chunks.get(&(segment.header.segment, entry.offset)).into_iter().flatten();
                    let only = objects.filter(|object| {
                        !(self.logged.contains(object) || with_state && self.journalled.contains(object))
                    });
                    only.for_each(|object| self.object(&mut hits, object, with_state));
                }
            }
            Kind::NodeSegment | Kind::Nodes => self.nodes(&mut hits, scene, object, damage, with_state),
            Kind::Base | Kind::Increment | Kind::LogIncrement if !with_state => {
                match Publication::decode(&object.bytes.clone().into()).expect("whole").body {
                    Body::Base(base) => hits.batches(base.log.batches),
                    Body::Increment(increment) => hits.batches(increment.batches),
                    Body::Log(log) => hits.batches(log.batches),
                    Body::Closing(_) => {}
                }
            }
            Kind::JournalSealed | Kind::JournalLive => {
                for (_, batches) in groups(object).into_iter().filter(|(range, _)| damage.reaches(range)) {
                    batches.iter().for_each(|batch| self.batch(&mut hits, batch));
                }
            }
            _ => {}
        }
        hits
    }

    fn object(&self, hits: &mut Hits, object: &ObjectId, with_state: bool) {
        hits.contents.extend(self.files[usize::from(!with_state)].get(object).into_iter().flatten());
    }

    /// A batch of the journal is in the checkpoint too, and its objects in the store, or they are not.
    fn batch(&self, hits: &mut Hits, batch: &Batch) {
        if batch.lsn > self.checkpoint {
            hits.batch(batch);
        }
        let only = objects_of(batch).into_iter().filter(|id| !self.chunked.contains(id) && !self.logged.contains(id));
        only.for_each(|object| self.object(hits, &object, true));
    }

    fn nodes(&self, hits: &mut Hits, scene: &Scene, object: &Object, damage: Damage, with_state: bool) {
        let other = match object.local {
            true => scene.store.object(&object.name.replace("nodes/", "seg/").replace('-', "/")).is_some(),
            false => {
                let copy = format!("nodes/{}", object.name.replace("seg/", "").replace('/', "-"));
                with_state && scene.disk.file(&copy).is_some()
            }
        };
        if other {
            return;
        }
        let (segment, bytes) = (StoreSegment::parse(&object.bytes).expect("whole"), Bytes::from(object.bytes.clone()));
        for i in 0..segment.entries.len() {
            if damage.reaches(&segment.entries[i].framed_range()) {
                let body = segment.body(&bytes, i).expect("whole");
                if let Ok(Node::Leaf(leaf)) = Node::decode(body) {
                    hits.leaf(&leaf);
                }
            }
        }
    }
}

fn by_object(extents: Vec<(InodeNo, Extent)>) -> HashMap<ObjectId, BTreeSet<InodeNo>> {
    let mut files: HashMap<ObjectId, BTreeSet<InodeNo>> = HashMap::new();
    for (ino, extent) in extents {
        files.entry(extent.object).or_default().insert(ino);
    }
    files
}

fn objects_of(batch: &Batch) -> Vec<ObjectId> {
    (0..).zip(&batch.objects).map(|(n, _)| ObjectId { lsn: batch.lsn, n }).collect()
}

fn bodies(segment: &StoreSegment, damage: Damage) -> impl Iterator<Item = &SegmentEntry> {
    segment.entries.iter().filter(move |entry| damage.reaches(&entry.framed_range()))
}

/// The groups of a journal segment, and where they are.
fn groups(object: &Object) -> Vec<(Range<u64>, Vec<Batch>)> {
    let (bytes, mut at, mut found) = (Bytes::from(object.bytes.clone()), 0, Vec::new());
    // What lies behind the last one is of an earlier life.
    while at + GROUP_BLOCK as u64 <= object.spare.start {
        let start = usize::try_from(at).expect("small");
        let (header, payload, len) = decode_group(&bytes[start..]).expect("whole");
        let buffer = bytes.slice(start..start + payload.end);
        let (mut from, mut batches) = (payload.start, Vec::new());
        for _ in 0..header.batches {
            let (batch, used) = Batch::decode(&buffer, from).expect("whole");
            from += used;
            batches.push(batch);
        }
        found.push((at..at + len as u64, batches));
        at += len as u64;
    }
    found
}

/// Where every inode is that can be found, by path.
pub fn numbers(tree: &views::Tree) -> BTreeMap<&str, InodeNo> {
    tree.iter().filter_map(|(path, node)| Some((path.as_str(), node.as_ref().ok()?.attr.ino))).collect()
}
