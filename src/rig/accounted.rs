//! Space maps that a repair makes from scratch: against the records that there were, and against the checker.

use super::found::{changed, copy_of, files, found, indexes, lively, remote, uses, without_tables};
use super::{Rig, small};
use crate::base::random::SeededRandom;
use crate::check::{Depth, Problem, check};
use crate::format::batch::TreeId;
use crate::format::ids::{InodeNo, Lsn, NodePtr, Nonce, ObjectId, SegmentKind, SegmentNo, Uuid};
use crate::format::names;
use crate::format::publication::{Base, Body, Closing, Position, Publication};
use crate::format::space::{self, Key};
use crate::format::store_segment::SegmentBuilder;
use crate::format::window::{BIRTH_UNKNOWN, IndexEntry, WindowIndex};
use crate::map::{MapError, NewTree, NodeSink, Shape};
use crate::media::Media;
use crate::media::sim::{CallLog, SimDisk};
use crate::recovery::Remote;
use crate::repair::RepairError;
use crate::repair::gather::{Contents, Entry, Source};
use crate::repair::objects::{Objects, find_objects};
use crate::repair::space::{Rebuilt, Terms, account};
use crate::repair::tree::Trees;
use crate::ship::fence::{deletable, find_closing};
use crate::store::sim::SimStore;
use crate::store::{Created, Store};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

type Entries = Vec<(Bytes, Bytes)>;

/// A store with a generation whose space map was made anew, and what came of that.
struct Remade {
    store: SimStore,
    rebuilt: Rebuilt,
}

/// Makes a generation of these files, which are published in `before`, out of what is left in `store`.
fn remade(before: &SimStore, store: &SimStore, entries: &Entries, contents: &Contents, doomed: &[String]) -> Remade {
    let (uuid, remote) = remote(before);
    let store = copy_of(store);
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let objects = find_objects(&shared, uuid, &remote.windows, 0, &mut |_, _, _| {}).expect("found");
    let base = Position { generation: remote.free.generation + 1, number: 0 };
    let epoch = u32::try_from(base.generation).expect("small");
    let closing = Body::Closing(Closing { next_epoch: epoch, owner: "repair".to_owned() });
    assert!(publish(&store, &remote, (remote.free, base), (remote.end, remote.end), closing));
    let mut sink = Sink { store: &store, uuid, epoch, next: 0, written: Vec::new() };
    let file_root = sink.tree(entries);
    let end = Lsn { epoch, pos: remote.end.pos + 1000 };
    let terms = Terms {
        uuid,
        base,
        checkpoint: remote.checkpoint + 1,
        end,
        now: 5,
        inode_mark: 1 << 20,
        segment_bytes: 32 << 10,
        first_segment: sink.next,
        doomed: doomed.iter().cloned().collect(),
    };
    let rebuilt = account(&shared, &objects, contents, &uses(entries), &terms).expect("accounted");
    sink.next = rebuilt.next_segment;
    for (name, bytes) in &rebuilt.indexes {
        let created = store.create(name, bytes.clone()).expect("answered");
        assert!(created == Created::New || store.get(name).expect("there") == *bytes, "{name}");
    }
    let roots = [file_root, sink.tree(&rebuilt.entries)];
    let body = Body::Base(Base { roots, node_segments: sink.written, ..Base::default() });
    assert!(publish(&store, &remote, (base, base), (Lsn::ZERO, end), body));
    Remade { store, rebuilt }
}

/// Says whether the number was free.
fn publish(
    store: &SimStore,
    of: &Remote,
    (at, base): (Position, Position),
    (start, end): (Lsn, Lsn),
    body: Body,
) -> bool {
    let publication = Publication {
        uuid: remote(store).0,
        state: Uuid(77),
        nonce: Nonce(77),
        epoch: u32::try_from(base.generation).expect("small"),
        generation: at.generation,
        number: at.number,
        wall: 5,
        checkpoint: of.checkpoint + u64::from(matches!(body, Body::Base(_))),
        start,
        end,
        body,
    };
    let name = names::publication(at.generation, at.number);
    store.create(&name, publication.encode().into()).expect("answered") == Created::New
}

/// Makes trees, each in one segment.
struct Sink<'a> {
    store: &'a SimStore,
    uuid: Uuid,
    epoch: u32,
    next: u64,
    written: Vec<(SegmentNo, u64)>,
}

impl Sink<'_> {
    fn tree(&mut self, entries: &Entries) -> Option<NodePtr> {
        let no = SegmentNo { epoch: self.epoch, number: self.next };
        self.next += 1;
        let mut nodes = Nodes(SegmentBuilder::new(self.uuid, no, SegmentKind::Nodes));
        let mut tree = NewTree::new(&mut nodes, Shape::default());
        entries.iter().for_each(|(key, value)| tree.add(key.clone(), value.clone()).expect("added"));
        let root = tree.finish().expect("finished");
        let bytes = nodes.0.finish();
        self.written.push((no, bytes.len() as u64));
        self.store.put(&names::segment(no), bytes.into()).expect("put");
        root
    }
}

struct Nodes(SegmentBuilder);

impl NodeSink for Nodes {
    fn append(&mut self, node: &[u8]) -> Result<NodePtr, MapError> {
        Ok(self.0.push_node(node))
    }
}

fn problems(store: &SimStore) -> Vec<Problem> {
    let store: Arc<dyn Store> = Arc::new(copy_of(store));
    check(&store, None, Depth::Data, &mut |_, _, _| {}).problems
}

fn assert_clean(store: &SimStore, when: &str) {
    let all = problems(store);
    assert!(all.is_empty(), "{when}: {all:#?}");
}

/// The records of segments of chunks, of windows and of counts that are published.
fn records(store: &SimStore) -> Entries {
    let (uuid, remote) = remote(store);
    let trees = Trees::new(uuid, None, Arc::new(copy_of(store)));
    let mut entries = Vec::new();
    let root = remote.roots[TreeId::Space as usize];
    let each = &mut |key: Bytes, value: Bytes| {
        let keep = match Key::decode(&key).expect("valid") {
            Key::Segment(_) => space::SegmentRecord::decode(&value)
                .is_ok_and(|record| record.kind == SegmentKind::Chunks && !record.is_planned()),
            Key::Window(_) | Key::Count(_) => true,
            _ => false,
        };
        if keep {
            entries.push((key, value));
        }
    };
    trees.each(TreeId::Space, Some(root), &remote.overlays[1], each).expect("read");
    entries
}

/// A filesystem of which a publication says all there is to be said.
fn settled(seed: u64) -> SimStore {
    let mut rig = lively(seed);
    // What a change made dead is found when it has been published, and is in the publication after that.
    for n in 0..3 {
        let name = format!("empty-{n}");
        rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created");
        rig.drain();
    }
    assert_clean(&rig.store, "before");
    rig.store.clone()
}

#[test]
fn what_is_not_damaged_gets_the_records_it_had() {
    for seed in 1..4 {
        let store = settled(seed);
        let entries = files(&store);
        let before = records(&store);
        assert!(before.iter().any(|(key, _)| matches!(Key::decode(key), Ok(Key::Count(_)))), "something is shared");
        let Remade { store: after, rebuilt } = remade(&store, &store, &entries, &Contents::default(), &[]);
        assert_eq!(rebuilt.indexes, []);
        assert_eq!(rebuilt.moved, (0, 0));
        assert_eq!(records(&after), before);
        assert_clean(&after, "after");
        let kept = rebuilt.dead.iter().filter(|name| name.starts_with("gen/") && name.ends_with("/0000000000"));
        assert_eq!(kept.count(), 0, "{:?}", rebuilt.dead);
    }
}

#[test]
fn an_index_that_is_lost_or_damaged_is_made_anew_under_another_name() {
    let store = settled(4);
    let entries = files(&store);
    let all = indexes(&store);
    for (at, (name, index)) in all.iter().enumerate() {
        let len = store.size(name).expect("there") as usize;
        let flip = |at: usize| changed(&store, name, |bytes| bytes[at] ^= 4);
        let cut = |len: usize| changed(&store, name, |bytes| bytes.truncate(len));
        let damaged = [cut(0), cut(1), cut(len - 1), flip(0), flip(30), flip(58), flip(len / 2), flip(len - 1)];
        for (how, damaged) in damaged.iter().enumerate() {
            let when = format!("{name}, damage {how}");
            let Remade { store: after, rebuilt } = remade(&store, damaged, &entries, &Contents::default(), &[]);
            assert_clean(&after, &when);
            let [(new, bytes)] = &*rebuilt.indexes else { panic!("{when}: {:?}", rebuilt.indexes.len()) };
            assert!(!all.iter().any(|(old, _)| old == new), "{when}");
            assert_eq!(rebuilt.moved, (0, 0), "{when}: its segments are whole");
            let made = WindowIndex::decode(bytes).expect("valid");
            let expected: Vec<&IndexEntry> =
                all[at..(at + 2).min(all.len())].iter().flat_map(|(_, index)| &index.entries).collect();
            for entry in &made.entries {
                let old = expected.iter().find(|old| old.object == entry.object).expect("an old record");
                assert_eq!(IndexEntry { segment: old.segment, ..*entry }, **old, "{when}");
            }
            let alive = index.entries.iter().filter(|entry| uses(&entries).of(&entry.object).is_some());
            assert!(alive.into_iter().all(|entry| made.find(entry.object).is_some()), "{when}");
        }
    }
}

#[test]
fn what_lives_in_a_damaged_segment_is_written_anew_and_the_rest_of_it_is_dead() {
    let store = settled(5);
    let entries = files(&store);
    let records = records(&store);
    let segments = records.iter().filter_map(|(key, _)| match Key::decode(key) {
        Ok(Key::Segment(no)) => Some(no),
        _ => None,
    });
    for no in segments {
        let name = names::segment(no);
        let len = store.size(&name).expect("there") as usize;
        // Header, a frame, the tables, the directory, the footer: no contents.
        for at in [0, 20, 45, len - 300, len - 60, len - 20] {
            let damaged = changed(&store, &name, |bytes| bytes[at] ^= 1);
            let lost = found(&damaged);
            let entries: Entries = entries.iter().filter(|(key, value)| is_whole(&lost, key, value)).cloned().collect();
            let Remade { store: after, rebuilt } = remade(&store, &damaged, &entries, &Contents::default(), &[]);
            let left = problems(&after);
            let ours = left.iter().filter(|problem| problem.pass != "files");
            assert_eq!(ours.collect::<Vec<_>>(), Vec::<&Problem>::new(), "{name}, byte {at}");
            assert!(rebuilt.moved.0 > 0 && rebuilt.dead.contains(&name), "{name}, byte {at}");
        }
        // A writer that was paused may still remove it.
        let Remade { store: after, rebuilt } =
            remade(&store, &store, &entries, &Contents::default(), std::slice::from_ref(&name));
        assert_clean(&after, &name);
        assert!(rebuilt.moved.0 > 0 && rebuilt.dead.contains(&name));
    }
}

/// An older program's index said of an object that an extent has a part of where that extent began. What is moved out of its segment
/// gets a table, which must not say the same: the next repair would believe it.
#[test]
fn where_objects_of_older_segments_were_born_is_not_known_after_they_moved_either() {
    let store = settled(5);
    let entries = files(&store);
    let old = copy_of(&store);
    let segments: BTreeSet<SegmentNo> = indexes(&store).iter().flat_map(|(_, index)| index.segments.clone()).collect();
    for no in &segments {
        if let Ok(bytes) = old.get(&names::segment(*no)) {
            old.put(&names::segment(*no), without_tables(&bytes)).expect("put");
        }
    }
    let doomed: Vec<String> = segments.iter().map(|no| names::segment(*no)).collect();
    let Remade { store: after, rebuilt } = remade(&store, &old, &entries, &Contents::default(), &doomed);
    assert!(rebuilt.moved.0 > 0);
    let objects = found(&after);
    let mut seen = 0;
    for ino in 0..200 {
        for birth in objects.births_of(InodeNo(ino)) {
            assert_eq!(birth.offset, BIRTH_UNKNOWN, "{birth:?}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

fn is_whole(objects: &Objects, key: &[u8], value: &[u8]) -> bool {
    use crate::format::inode::Extent;
    use crate::format::key;
    match key::Key::decode(key) {
        Ok(key::Key::Extent(..)) => Extent::decode(value).is_ok_and(|e| objects.len_of(&e.object).is_some()),
        _ => true,
    }
}

#[test]
fn a_repair_that_was_interrupted_finds_its_own_index_and_uses_it() {
    let store = settled(6);
    let entries = files(&store);
    let all = indexes(&store);
    let (name, _) = &all[1];
    let damaged = changed(&store, name, |bytes| bytes[70] ^= 1);
    let first = remade(&store, &damaged, &entries, &Contents::default(), &[]).rebuilt;
    // The index came into the store, and the base did not.
    for (name, bytes) in &first.indexes {
        damaged.put(name, bytes.clone()).expect("put");
    }
    let Remade { store: after, rebuilt } = remade(&store, &damaged, &entries, &Contents::default(), &[]);
    assert_clean(&after, "after");
    assert!(rebuilt.indexes.is_empty() || rebuilt.indexes == first.indexes, "{:?}", rebuilt.indexes.len());
    assert!(first.indexes.iter().all(|(name, _)| !rebuilt.dead.contains(name)));
}

#[test]
fn a_window_that_was_put_and_never_published_changes_nothing() {
    let store = settled(7);
    let entries = files(&store);
    let all = indexes(&store);
    let segments = |store: &SimStore| {
        let records = records(store);
        records.iter().filter(|(key, _)| matches!(Key::decode(key), Ok(Key::Segment(_)))).count()
    };
    // It overlaps two others, and holds the objects of both; or a third one, too.
    let (first, second) = (&all[1].1, &all[2].1);
    for further in [0, 1] {
        let end = Lsn { pos: second.end.pos + further, ..second.end };
        let mut orphan = WindowIndex { start: first.start, end, ..first.clone() };
        let shift = u32::try_from(orphan.segments.len()).expect("few");
        orphan.segments.extend(&second.segments);
        let moved = |entry: &IndexEntry| IndexEntry { segment: entry.segment + shift, ..*entry };
        orphan.entries.extend(second.entries.iter().map(moved));
        let name = names::window(orphan.start, orphan.end);
        let with = copy_of(&store);
        with.put(&name, orphan.encode().into()).expect("put");
        let Remade { store: after, rebuilt } = remade(&store, &with, &entries, &Contents::default(), &[]);
        assert_clean(&after, "after");
        assert_eq!((rebuilt.moved, segments(&after)), ((0, 0), segments(&store)));
        let dead = |name: &String| rebuilt.dead.contains(name);
        assert_eq!(dead(&all[1].0), dead(&all[2].0), "of these three either the one counts or the two others");
        assert!(dead(&name) != dead(&all[1].0) || further == 1 && rebuilt.indexes.len() == 1);
    }
}

/// Contents of all these objects, as a journal may hold them.
fn contents_of(store: &SimStore, objects: &Objects, wanted: &[ObjectId]) -> Contents {
    let media: Arc<dyn Media> = Arc::new(SimDisk::new(&CallLog::new()));
    let file = media.create("journal").expect("made");
    let (mut all, mut entries) = (Vec::new(), Vec::new());
    for object in wanted {
        let bytes = objects.read(store, &objects.place(object).expect("whole")).expect("read");
        let len = u32::try_from(bytes.len()).expect("short");
        entries.push(Entry { object: *object, source: 0, offset: all.len() as u64, len, crc: crc32c::crc32c(&bytes) });
        all.extend(bytes);
    }
    file.write_at(&all, 0).expect("written");
    Contents::new(entries, vec![Source::Local(media, "journal".to_owned())])
}

#[test]
fn what_only_a_journal_has_is_written_into_the_window_it_belongs_to() {
    let store = settled(8);
    let entries = files(&store);
    let (objects, uses) = (found(&store), uses(&entries));
    for (name, index) in indexes(&store) {
        let live: Vec<ObjectId> =
            index.entries.iter().map(|entry| entry.object).filter(|object| uses.of(object).is_some()).collect();
        let contents = contents_of(&store, &objects, &live);
        let lost = changed(&store, &name, Vec::clear);
        for no in &index.segments {
            lost.delete(&names::segment(*no)).expect("deleted");
        }
        let Remade { store: after, rebuilt } = remade(&store, &lost, &entries, &contents, &[]);
        assert_clean(&after, &name);
        assert_eq!(rebuilt.moved.0 as usize, live.len(), "{name}");
        for entry in &entries {
            assert!(files(&after).contains(entry));
        }
        let again = found(&after);
        for object in &live {
            let read = |store: &SimStore, objects: &Objects| {
                objects.read(store, &objects.place(object).expect("whole")).expect("read")
            };
            assert_eq!(read(&after, &again), read(&store, &objects), "{name}");
        }
    }
}

#[test]
fn with_all_indexes_gone_everything_is_found_and_recorded() {
    let store = settled(9);
    let entries = files(&store);
    let lost = copy_of(&store);
    for (name, _) in indexes(&store) {
        lost.delete(&name).expect("deleted");
    }
    let Remade { store: after, rebuilt } = remade(&store, &lost, &entries, &Contents::default(), &[]);
    assert_clean(&after, "after");
    let windows = indexes(&store).len().div_ceil(2) as u64;
    assert_eq!((rebuilt.moved, rebuilt.windows), ((0, 0), windows), "two by two, for each pair has a new name");
    // What was made is as good as what there was.
    let Remade { store: once_more, rebuilt } = remade(&after, &after, &entries, &Contents::default(), &[]);
    assert_clean(&once_more, "once more");
    assert_eq!((rebuilt.indexes.len(), rebuilt.moved), (0, (0, 0)));
}

#[test]
fn an_object_that_is_nowhere_is_an_error() {
    let store = settled(10);
    let entries = files(&store);
    let (name, index) = &indexes(&store)[0];
    let lost = changed(&store, name, Vec::clear);
    for no in &index.segments {
        lost.delete(&names::segment(*no)).expect("deleted");
    }
    let (uuid, remote) = remote(&store);
    let shared: Arc<dyn Store> = Arc::new(lost);
    let objects = find_objects(&shared, uuid, &remote.windows, 0, &mut |_, _, _| {}).expect("found");
    let base = Position { generation: 5, number: 0 };
    let end = Lsn { epoch: 5, pos: 1 << 40 };
    let (now, inode_mark, segment_bytes, first_segment, doomed) = (0, 0, 32 << 10, 0, BTreeSet::new());
    let terms = Terms { uuid, base, checkpoint: 9, end, now, inode_mark, segment_bytes, first_segment, doomed };
    let made = account(&shared, &objects, &Contents::default(), &uses(&entries), &terms);
    assert!(matches!(made, Err(RepairError::Refused(what)) if what.contains("neither journal nor log")));
}

/// A store with some of its segments of chunks and its indexes damaged, and how.
fn damaged_at_random(store: &SimStore, random: &SeededRandom) -> (SimStore, String) {
    let (after, mut how) = (copy_of(store), String::new());
    let names: Vec<String> = ["seg", "win"].iter().flat_map(|folder| store.list(folder).expect("listed")).collect();
    let holds_nodes = |bytes: &[u8]| bytes.get(10) == Some(&2);
    for _ in 0..1 + random.below(4) {
        let name = &names[random.below(names.len() as u64) as usize];
        let Ok(bytes) = after.get(name) else { continue };
        if name.starts_with("seg/") && holds_nodes(&bytes) || bytes.is_empty() {
            continue;
        }
        let (mut bytes, at) = (bytes.to_vec(), random.below(bytes.len() as u64) as usize);
        let what = random.below(5);
        match what {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => bytes[at..].iter_mut().take(4096).for_each(|byte| *byte = 0),
            3 => bytes.extend_from_within(..at),
            _ => bytes.clear(),
        }
        how += &format!("{name}: {what} at {at}; ");
        match bytes.is_empty() {
            true => after.delete(name).expect("deleted"),
            false => after.put(name, bytes.into()).expect("put"),
        }
    }
    (after, how)
}

#[test]
fn whatever_is_damaged_the_space_map_agrees_with_what_is_left() {
    let random = SeededRandom::new(11);
    let (mut lost, mut moved, mut indexes) = (0, 0, 0);
    for seed in 20..23 {
        let store = settled(seed);
        let all = files(&store);
        for round in 0..40 {
            let (damaged, how) = damaged_at_random(&store, &random);
            let objects = found(&damaged);
            let entries: Entries = all.iter().filter(|(key, value)| is_whole(&objects, key, value)).cloned().collect();
            lost += all.len() - entries.len();
            let Remade { store: after, rebuilt } = remade(&store, &damaged, &entries, &Contents::default(), &[]);
            moved += rebuilt.moved.0;
            indexes += rebuilt.indexes.len();
            let left = problems(&after);
            // What a file lost is for who mends files to say.
            let ours = left.iter().filter(|problem| problem.pass != "files");
            assert_eq!(ours.collect::<Vec<_>>(), Vec::<&Problem>::new(), "seed {seed}, round {round}: {how}");
        }
    }
    assert!(lost > 0 && moved > 0 && indexes > 0, "{lost} lost, {moved} moved, {indexes} indexes");
}

#[test]
fn of_generations_that_have_ended_what_the_fence_needs_stays() {
    let mut rig = lively(12);
    for seed in 0..3u64 {
        let Rig { log, store, clock, .. } = rig;
        // Another machine each time, so another generation.
        rig = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 90 + seed, &small()).expect("mounts");
        for n in 0.. {
            let name = format!("more-{seed}-{n}");
            rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created");
            rig.drain();
            // The newest generation has some in the middle.
            if n > 2 && remote(&rig.store).1.free.number > 3 {
                break;
            }
        }
    }
    let store = rig.store.clone();
    let newest = remote(&store).1.free;
    let Remade { store: after, rebuilt } = remade(&store, &store, &files(&store), &Contents::default(), &[]);
    assert_clean(&after, "after");
    let listed = store.list("gen").expect("listed");
    let mut kept = 0;
    for generation in 1..=newest.generation {
        let numbers: Vec<String> = (0..1000).map(|number| names::publication(generation, number)).collect();
        let there: Vec<&String> = numbers.iter().filter(|name| listed.contains(name)).collect();
        let dead: Vec<&String> = there.iter().copied().filter(|name| rebuilt.dead.contains(name)).collect();
        let Some(Position { number, .. }) = find_closing(&after, generation).expect("answered") else { continue };
        let may = deletable(Position { generation, number });
        assert!(dead.iter().all(|name| may.contains(name)), "generation {generation}: {dead:?}");
        kept += there.len() - dead.len();
    }
    assert!(kept > 4 && rebuilt.dead.iter().any(|name| name.starts_with("gen/")), "{:?}", rebuilt.dead);
}

#[test]
fn births_of_old_segments_are_not_believed_after_they_were_moved() {
    let store = settled(8);
    let entries = files(&store);
    let old = copy_of(&store);
    let mut doomed = Vec::new();
    for (name, mut index) in indexes(&store) {
        for no in &index.segments {
            let Ok(bytes) = old.get(&names::segment(*no)) else { continue };
            old.put(&names::segment(*no), super::found::without_tables(&bytes)).expect("put");
            doomed.push(names::segment(*no));
        }
        // As an earlier version wrote it: where the extent begins, and that had the end of the object only.
        index.entries.iter_mut().for_each(|entry| entry.birth_offset = entry.birth_offset.wrapping_add(4096));
        old.put(&name, index.encode().into()).expect("put");
    }
    let births = |objects: &Objects| {
        let all = (1..2000).flat_map(|ino| objects.births_of(InodeNo(ino)));
        all.filter(|birth| birth.offset != crate::format::window::BIRTH_UNKNOWN).count()
    };
    let before = births(&found(&old));
    let Remade { store: after, rebuilt } = remade(&store, &old, &entries, &Contents::default(), &doomed);
    let after = births(&found(&after));
    assert!(rebuilt.moved.0 > 0, "nothing was moved");
    assert_eq!((before, after), (0, 0));
}
