//! The ordered map at the size of a million keys: reads, scans, and merges of a few thousand changes.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use skylog::format::batch::Edit;
use skylog::format::ids::{InodeNo, Lsn, NodePtr, SegmentNo};
use skylog::format::key;
use skylog::map::{MapError, NodeCache, NodeSink, NodeSource, Overlay, Pins, View, merge};
use std::hint::black_box;
use std::sync::Mutex;

const INODES: u64 = 500_000;
const SEGMENT: SegmentNo = SegmentNo { epoch: 1, number: 0 };

/// One node segment in memory, read while it grows.
#[derive(Default)]
struct Memory(Mutex<Vec<u8>>);

impl NodeSource for Memory {
    fn read_node(&self, ptr: &NodePtr) -> Result<Bytes, MapError> {
        let from = ptr.offset as usize;
        Ok(Bytes::copy_from_slice(&self.0.lock().unwrap()[from..from + ptr.len as usize]))
    }
}

/// A sink that keeps the nodes.
struct Append<'a>(&'a Memory);

impl NodeSink for Append<'_> {
    fn append(&mut self, node: &[u8]) -> Result<NodePtr, MapError> {
        let mut bytes = self.0.0.lock().unwrap();
        let ptr = NodePtr::to(SEGMENT, u32::try_from(bytes.len()).unwrap(), node);
        bytes.extend_from_slice(node);
        Ok(ptr)
    }
}

/// A sink that forgets them.
struct Forget;

impl NodeSink for Forget {
    fn append(&mut self, node: &[u8]) -> Result<NodePtr, MapError> {
        Ok(NodePtr::to(SEGMENT, 0, node))
    }
}

fn overlay(edits: impl IntoIterator<Item = Edit>) -> Overlay {
    let (mut overlay, mut lsn) = (Overlay::new(), Lsn::ZERO);
    for edit in edits {
        lsn = lsn.next(1);
        overlay.apply(lsn, &edit);
    }
    overlay
}

/// An inode and its entry in a directory of a thousand: two keys for each file.
fn file(i: u64) -> [Edit; 2] {
    let directory = InodeNo(1_000_000 + i / 1000);
    let attributes = Bytes::copy_from_slice(&[i as u8; 100]);
    let entry = Bytes::copy_from_slice(&[i as u8; 17]);
    [
        Edit::Put { key: key::inode(InodeNo(i)), value: attributes },
        Edit::Put { key: key::name(directory, format!("file-{i:07}").as_bytes()), value: entry },
    ]
}

/// Touches inodes all over the tree.
fn scattered(count: u64) -> Overlay {
    let touched = (0..count).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) % INODES);
    overlay(touched.map(|i| Edit::Put { key: key::inode(InodeNo(i)), value: Bytes::from_static(&[9; 100]) }))
}

fn map(c: &mut Criterion) {
    let memory = Memory::default();
    let all = overlay((0..INODES).flat_map(file));
    let root = merge(None, &[&all], &memory, None, &mut Append(&memory), &mut |_, _, _| {}).unwrap();
    drop(all);
    let cache = NodeCache::new(1 << 30);
    skylog::map::walk(root, &memory, &mut |ptr, node| drop(cache.insert(*ptr, node.clone()))).unwrap();
    let (empty, pins) = (Overlay::new(), Pins::new());
    let view = View { overlay: &empty, layers: &[], root };

    let mut i = 0;
    c.bench_function("get of 1M keys", |b| {
        b.iter(|| {
            i = (i + 7919) % INODES;
            black_box(view.get(&cache, &pins, &key::inode(InodeNo(i))).unwrap())
        });
    });
    c.bench_function("scan of 1000 entries", |b| {
        let (from, to) = key::names_of(InodeNo(1_000_123));
        b.iter(|| black_box(view.scan(&cache, &pins, &from, &to, 1000).unwrap()));
    });
    let mut group = c.benchmark_group("merge into 1M keys");
    group.sample_size(10);
    for count in [10, 1000, 10_000] {
        group.bench_function(format!("{count} scattered keys"), |b| {
            b.iter_batched_ref(
                || scattered(count),
                |layer| merge(root, &[layer], &memory, Some(&cache), &mut Forget, &mut |_, _, _| {}).unwrap(),
                BatchSize::PerIteration,
            );
        });
    }
    group.bench_function("100k new files", |b| {
        let layer = overlay((INODES..INODES + 100_000).flat_map(file));
        b.iter(|| merge(root, &[&layer], &memory, Some(&cache), &mut Forget, &mut |_, _, _| {}).unwrap());
    });
    group.finish();
    c.bench_function("apply of one put", |b| {
        let mut growing = Overlay::new();
        b.iter(|| {
            i += 1;
            let [edit, _] = file(i);
            growing.apply(Lsn { epoch: 1, pos: i }, &edit);
        });
    });
}

criterion_group!(benches, map);
criterion_main!(benches);
