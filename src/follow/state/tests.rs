//! Publications made by hand, in any order that a writer may publish them in: the state is always the batches up to its end.

use super::*;
use crate::base::random::SeededRandom;
use crate::checkpoint::nodes::NodeStore;
use crate::format::batch::{Batch, Edit, encode_edits, encode_head};
use crate::format::chunk::ChunkHeader;
use crate::format::ids::{InodeNo, Nonce, ObjectId};
use crate::format::publication::{Closing, Log};
use crate::format::space::{self, Mark};
use crate::map::{NodeCache, Pins};
use crate::media::sim::{CallLog, SimDisk};
use crate::recovery::Fetcher;
use crate::store::sim::SimStore;
use bytes::Bytes;

/// Nodes are never asked for: the trees are empty.
struct Trees {
    cache: NodeCache,
    nodes: NodeStore,
    fetcher: Fetcher,
}

impl Trees {
    fn new() -> Trees {
        let log = CallLog::new();
        let nodes = NodeStore::of_store(Arc::new(SimDisk::new(&log)), Arc::new(SimStore::new(&log)), None);
        Trees { cache: NodeCache::new(0), nodes, fetcher: Fetcher::new(1) }
    }

    fn reader(&self) -> Reader<'_> {
        Reader { cache: &self.cache, nodes: &self.nodes, fetcher: &self.fetcher }
    }
}

const FILESYSTEM: Uuid = Uuid(9);

/// A writer's log, and what it has published of it.
struct Writer {
    random: SeededRandom,
    /// As the journal holds them.
    batches: Vec<(Lsn, Bytes)>,
    window: Lsn,
    log: Lsn,
    next: Position,
    trees: Trees,
}

impl Writer {
    fn new(seed: u64) -> Writer {
        let next = Position { generation: 1, number: 0 };
        let (random, trees) = (SeededRandom::new(seed), Trees::new());
        Writer { random, batches: Vec::new(), window: Lsn::ZERO, log: Lsn::ZERO, next, trees }
    }

    fn last(&self) -> Lsn {
        self.batches.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn)
    }

    /// One of: a file written, a key put or deleted, the usage, the space map alone.
    fn write(&mut self) {
        let lsn = self.last().next(1);
        let ino = InodeNo(2 + self.random.below(8));
        let value = Bytes::copy_from_slice(&lsn.pos.to_le_bytes());
        let usage = Usage { inodes: lsn.pos, blocks: 7 };
        let object = vec![lsn.pos as u8; 100];
        let space = (TreeId::Space, Edit::Put { key: space::mark(Mark::Segment), value: value.clone() });
        let (edits, object) = match self.random.below(7) {
            0 => (vec![space], None),
            1 => (vec![(TreeId::Files, Edit::Put { key: key::usage(), value: usage.encode() })], None),
            2 => {
                let (from, to) = key::all_of(ino);
                (vec![space, (TreeId::Files, Edit::DeleteRange { from, to })], None)
            }
            3 => (vec![(TreeId::Files, Edit::Delete { key: key::inode(ino) })], None),
            4 => (vec![(TreeId::Files, Edit::Put { key: key::inode(ino), value })], None),
            n => (vec![(TreeId::Files, Edit::OwnExtent { ino, offset: 4096 * n, n: 0 })], Some(object)),
        };
        let headers: Vec<ChunkHeader> = object.iter().map(|object| ChunkHeader::raw(object)).collect();
        let count = u32::try_from(edits.len()).expect("few");
        let mut bytes = encode_head(lsn, count, &encode_edits(&edits), &headers, true);
        bytes.extend(object.iter().flatten());
        self.batches.push((lsn, bytes.into()));
    }

    fn between(&self, start: Lsn, end: Lsn) -> impl Iterator<Item = &Bytes> {
        self.batches.iter().filter(move |(lsn, _)| *lsn > start && *lsn <= end).map(|(_, bytes)| bytes)
    }

    fn log_of(&self, start: Lsn, end: Lsn) -> Log {
        let parts = self.between(start, end).filter_map(|bytes| Log::part_of(bytes).expect("whole"));
        Log { batches: parts.collect::<Vec<_>>().concat().into() }
    }

    fn publication(&mut self, start: Lsn, end: Lsn, body: Body) -> Publication {
        let Position { generation, number } = self.next;
        self.next = match body {
            Body::Closing(_) => Position { generation: generation + 1, number: 0 },
            _ => Position { generation, number: number + 1 },
        };
        let (state, nonce, epoch, wall, checkpoint) = (Uuid(1), Nonce(1), 1, 0, generation);
        Publication { uuid: FILESYSTEM, state, nonce, epoch, generation, number, wall, checkpoint, start, end, body }
    }

    /// As a checkpoint freezes it: several batches, all at its end.
    fn window(&mut self, end: Lsn) -> Publication {
        let heads = self.between(self.window, end).map(|bytes| {
            let (batch, _) = Batch::decode(bytes, 0).expect("whole");
            let (lsn, headers) = (batch.lsn, batch.headers());
            let edits = batch.edits.into_iter().map(|(tree, edit)| (tree, edit.resolve(lsn, &headers)));
            let edits: Vec<(TreeId, Edit)> = edits.collect();
            encode_head(end, u32::try_from(edits.len()).expect("few"), &encode_edits(&edits), &[], false)
        });
        let batches = heads.collect::<Vec<_>>().concat().into();
        let start = std::mem::replace(&mut self.window, end);
        self.publication(start, end, Body::Increment(Increment { windows: vec![], settlement: vec![], batches }))
    }

    fn log(&mut self, end: Lsn) -> Publication {
        let start = self.log.max(self.window);
        let log = self.log_of(start, end);
        self.log = end;
        self.publication(start, end, Body::Log(log))
    }

    fn closing(&mut self) -> Publication {
        let closing = Closing { next_epoch: 1, owner: "test".into() };
        self.publication(self.window, self.window, Body::Closing(closing))
    }

    /// With an empty tree, so that what came before the log is gone.
    fn base(&mut self, end: Lsn) -> Publication {
        self.window = end;
        let log = self.log_of(end, self.log);
        self.publication(end, end, Body::Base(Base { log, ..Base::default() }))
    }

    /// What the batches from `base` up to `last` come to, and what the objects among them hold.
    fn model(&self, base: Lsn, last: Lsn) -> (Overlay, Vec<(ObjectId, Bytes)>) {
        let (mut overlay, mut noted, mut objects) = (Overlay::new(), Noted::default(), Vec::new());
        for bytes in self.between(base, last) {
            let (batch, _) = Batch::decode(bytes, 0).expect("whole");
            for object in &batch.objects {
                let end = object.offset + object.header.stored_len as usize;
                objects.push((ObjectId { lsn: batch.lsn, n: 0 }, bytes.slice(object.offset..end)));
            }
            noted.apply(&mut overlay, batch).expect("whole");
        }
        (overlay, objects)
    }

    fn assert_shows(&self, state: &State, base: Lsn) {
        let seen = state.seen(&Arc::new(Term::new(|| true)));
        let (model, objects) = self.model(base, seen.last);
        let scan = |overlay: &Overlay, layers: &[Arc<Overlay>]| {
            let view = View { overlay, layers, root: None };
            view.scan(&self.trees.cache, &Pins::default(), b"", &[0xff; 9], 100_000).expect("no tree")
        };
        assert_eq!(scan(&Overlay::new(), &seen.layers), scan(&model, &[]));
        assert!(seen.layers.len() <= 8, "{} layers", seen.layers.len());
        for (id, bytes) in objects.iter().filter(|(id, _)| id.lsn > self.window) {
            assert_eq!(seen.objects.get(id), Some(bytes), "{id} is in no window");
        }
    }
}

/// All that a log may carry up to there.
fn carried(writer: &Writer, upto: Lsn) -> Lsn {
    let log = writer.log_of(Lsn::ZERO, upto);
    log.batches().last().map_or(Lsn::ZERO, |batch| batch.expect("whole").batch.lsn)
}

#[test]
fn a_state_is_the_batches_up_to_its_end_however_windows_and_logs_follow_each_other() {
    for seed in 1..12 {
        let mut writer = Writer::new(seed);
        let (first, mut base) = (writer.base(Lsn::ZERO), Lsn::ZERO);
        let reader = writer.trees.reader();
        let (mut state, _) = State::of_base(FILESYSTEM, first, &reader).expect("taken");
        for _ in 0..200 {
            (0..writer.random.below(5)).for_each(|_| writer.write());
            let last = writer.last();
            let some = |writer: &Writer, from: Lsn| Lsn {
                pos: from.pos + writer.random.below(last.pos - from.pos + 1),
                ..last
            };
            let before = (state.last(), writer.window);
            let next = match writer.random.below(10) {
                0..3 if last > writer.window => {
                    let end = some(&writer, writer.window);
                    writer.window(end)
                }
                3 => {
                    let closing = writer.closing();
                    assert!(matches!(state.take(closing, &writer.trees.reader()), Ok(Taken::Closed)));
                    base = some(&writer, writer.window);
                    writer.base(base)
                }
                _ if last > writer.log.max(writer.window) => {
                    let end = some(&writer, writer.log.max(writer.window));
                    writer.log(end)
                }
                _ => continue,
            };
            assert_eq!(state.next, Position { generation: next.generation, number: next.number });
            let taken = state.take(next, &writer.trees.reader());
            let taken = taken.unwrap_or_else(|e| panic!("refused after {before:?}: {e}"));
            assert!(state.last() >= before.0, "it goes back");
            assert!(state.last() >= carried(&writer, writer.log).max(writer.window));
            writer.assert_shows(&state, base);
            if let Taken::Changes(_, changed) = taken
                && state.last() == before.0
            {
                assert_eq!(changed, Changed::default(), "nothing is new");
            }
        }
    }
}

#[test]
fn what_does_not_follow_is_refused_and_changes_nothing() {
    let mut writer = Writer::new(1);
    let base = writer.base(Lsn::ZERO);
    let (mut state, _) = State::of_base(FILESYSTEM, base.clone(), &writer.trees.reader()).expect("taken");
    (0..40).for_each(|_| writer.write());
    let at = |pos| Lsn { epoch: 1, pos };
    let log = writer.log(at(10));
    state.take(log.clone(), &writer.trees.reader()).expect("taken");
    let (next, last) = (state.next, state.last());
    let good = writer.window(at(20));
    let mut bad = vec![
        Publication { uuid: Uuid(1), ..good.clone() },
        Publication { start: at(3), ..good.clone() },
        Publication { start: at(15), ..log.clone() },
        Publication { number: 2, ..base },
    ];
    let Body::Increment(increment) = &good.body else { panic!("a window") };
    let mut batches = increment.batches.to_vec();
    let middle = batches.len() / 2;
    batches[middle] ^= 1;
    bad.push(Publication {
        body: Body::Increment(Increment { batches: batches.into(), ..increment.clone() }),
        ..good.clone()
    });
    let foreign = Log { batches: writer.between(Lsn::ZERO, at(40)).cloned().collect::<Vec<_>>().concat().into() };
    bad.push(Publication { start: at(10), end: at(40), body: Body::Log(foreign), ..log });
    for publication in bad {
        let refused = state.take(publication.clone(), &writer.trees.reader());
        assert!(matches!(refused, Err(MountError::Damaged { .. })), "{publication:?}");
        assert_eq!((state.next, state.last()), (next, last));
        writer.window = Lsn::ZERO;
        writer.assert_shows(&state, Lsn::ZERO);
    }
    state.take(good, &writer.trees.reader()).expect("taken");
    writer.window = at(20);
    writer.assert_shows(&state, Lsn::ZERO);
}
