//! One fixed value of each thing that skylog writes, its bytes, and a check that these decode to it.

use bytes::Bytes;
use skylog::base::clock::Time;
use skylog::format::batch::{Batch, Edit, TreeId, encode_edits, encode_head};
use skylog::format::checkpoint::{Birth, Checkpoint, Plan, Settle, TailFile};
use skylog::format::chunk::ChunkHeader;
use skylog::format::group::{GroupHeader, decode_group, encode_group};
use skylog::format::ids::{InodeNo, JournalNo, Lsn, NodePtr, Nonce, ObjectId, SegmentKind, SegmentNo, Uuid};
use skylog::format::inode::Extent;
use skylog::format::journal_directory::{DIRECTORY_BLOCK, DirectoryEntry, Footer, encode_directory};
use skylog::format::key;
use skylog::format::lease::{Lease, LeaseKind, LeaseState, Owner};
use skylog::format::manifest::{CommitPoint, FreeSlot, JournalEntry, Manifest, PlanEntry, RecordedEnd};
use skylog::format::node::{InteriorBuilder, LeafBuilder, Node};
use skylog::format::object_table::{ObjectTable, TableOf, TableRecord};
use skylog::format::publication::{Base, Body, Closing, Increment, Log, Publication, WindowEntry, WindowSegment};
use skylog::format::repair_file::RepairFile;
use skylog::format::store_file::StoreFile;
use skylog::format::store_segment::{SegmentBuilder, StoreSegment};
use skylog::format::superblock::Superblock;
use skylog::format::window::{IndexEntry, WindowIndex};

/// Bytes that are kept in `tests/golden/`.
pub struct Sample {
    pub file: &'static str,
    pub bytes: Vec<u8>,
    /// Panics unless the bytes decode to the value they were made from.
    pub check: fn(&[u8]),
}

pub const UUID: Uuid = Uuid(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
pub const STATE: Uuid = Uuid(0xffee_ddcc_bbaa_9988_7766_5544_3322_1100);
pub const NONCE: Nonce = Nonce(0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0);
/// 2026-11-21T12:00:00.123456789Z.
pub const WALL: i64 = 1_795_262_400_123_456_789;
pub const TIME: Time = Time { secs: 1_795_262_400, nanos: 123_456_789 };
pub const SEGMENT: SegmentNo = SegmentNo { epoch: 2, number: 17 };
pub const FILE: InodeNo = InodeNo(0x1234);
pub const REPAIR: RepairFile = RepairFile { id: STATE, from: 17 };
const OBJECTS: [&[u8]; 2] = [b"the first object", b"and the second one"];

pub fn lsn(pos: u64) -> Lsn {
    Lsn { epoch: 2, pos }
}

pub fn object(n: u32) -> ObjectId {
    ObjectId { lsn: lsn(0x0102_0304), n }
}

pub fn all() -> Vec<Sample> {
    let sample = |file, bytes, check| Sample { file, bytes, check };
    vec![
        sample("batch.bin", batch_with_payload(), check_batch),
        sample("batch_head.bin", batch_head(false), check_batch_head),
        sample("group.bin", group(), check_group),
        sample("journal_directory.bin", directory(), check_directory),
        sample("leaf.bin", leaf(), check_leaf),
        sample("interior.bin", interior(), check_interior),
        sample("checkpoint.bin", checkpoint().encode(), |b| assert_eq!(Checkpoint::decode(b), Ok(checkpoint()))),
        sample("checkpoint_with_tail.bin", with_tail().encode(), |b| {
            assert_eq!(Checkpoint::decode(b), Ok(with_tail()))
        }),
        sample("plan.bin", plan().encode(), |b| assert_eq!(Plan::decode(b), Ok(plan()))),
        sample("base.bin", publication(base()).encode(), |b| check_publication(b, base())),
        sample("increment.bin", publication(increment()).encode(), |b| check_publication(b, increment())),
        sample("lease.bin", lease().encode(), |b| assert_eq!(Lease::decode(b), Ok(lease()))),
        sample("closing.bin", publication(closing()).encode(), |b| check_publication(b, closing())),
        sample("log.bin", publication(log()).encode(), |b| check_publication(b, log())),
        sample("base_with_log.bin", publication(base_with_log()).encode(), |b| check_publication(b, base_with_log())),
        sample("store_segment.bin", store_segment(), check_store_segment),
        sample("object_table.bin", table().encode(), |b| assert_eq!(ObjectTable::decode(b), Ok(table()))),
        sample("window_index.bin", index().encode(), |b| assert_eq!(WindowIndex::decode(b), Ok(index()))),
        sample("manifest.txt", manifest().encode().into_bytes(), |b| assert_eq!(Manifest::decode(b), Ok(manifest()))),
        sample("superblock.json", superblock().encode(), |b| assert_eq!(Superblock::decode(b), Ok(superblock()))),
        sample("store.txt", store_file().encode(), |b| assert_eq!(StoreFile::decode(b), Ok(store_file()))),
        sample("repair.txt", REPAIR.encode(), |b| assert_eq!(RepairFile::decode(b), Some(REPAIR))),
    ]
}

pub fn edits() -> Vec<(TreeId, Edit)> {
    vec![
        (TreeId::Files, Edit::Put { key: key::inode(FILE), value: Bytes::from_static(b"attributes") }),
        (TreeId::Files, Edit::OwnExtent { ino: FILE, offset: 65536, n: 1 }),
        (TreeId::Files, Edit::DeleteRange { from: key::extent(FILE, 0), to: key::extent(FILE, 65536) }),
        (TreeId::Space, Edit::Delete { key: Bytes::from_static(b"\x05seg/x") }),
    ]
}

fn batch_head(payload_present: bool) -> Vec<u8> {
    let edits = edits();
    encode_head(lsn(7), edits.len() as u32, &encode_edits(&edits), &OBJECTS.map(ChunkHeader::raw), payload_present)
}

fn batch_with_payload() -> Vec<u8> {
    [&batch_head(true)[..], OBJECTS[0], OBJECTS[1]].concat()
}

fn check_batch(bytes: &[u8]) {
    let buffer = Bytes::copy_from_slice(bytes);
    let (batch, used) = Batch::decode(&buffer, 0).expect("decodes");
    assert_eq!((batch.lsn, &batch.edits, used), (lsn(7), &edits(), bytes.len()));
    assert_eq!(batch.verify_payload(&buffer), Ok(()));
    let stored = batch.objects.iter().map(|o| &buffer[o.offset..][..o.header.stored_len as usize]);
    assert_eq!(stored.collect::<Vec<_>>(), OBJECTS);
}

fn check_batch_head(bytes: &[u8]) {
    let (batch, used) = Batch::decode(&Bytes::copy_from_slice(bytes), 0).expect("decodes");
    assert_eq!((batch.lsn, &batch.edits, used), (lsn(7), &edits(), bytes.len()));
    assert!(!batch.payload_present);
    assert_eq!(batch.headers(), OBJECTS.map(ChunkHeader::raw));
}

fn group_header(payload_len: u32) -> GroupHeader {
    let (segment, durable, first) = (JournalNo(9), lsn(5), lsn(7));
    let (sequence, offset, batches) = (3, 8192, 1);
    GroupHeader { nonce: NONCE, sequence, segment, offset, durable, first, wall: WALL, batches, payload_len }
}

fn group() -> Vec<u8> {
    encode_group(group_header(0), &[&batch_with_payload()])
}

fn check_group(bytes: &[u8]) {
    let (header, range, padded) = decode_group(bytes).expect("decodes");
    assert_eq!((header, padded), (group_header(range.len() as u32), bytes.len()));
    assert_eq!(&bytes[range], batch_with_payload());
}

fn directory_entries() -> Vec<DirectoryEntry> {
    (0..3).map(|n| DirectoryEntry { object: object(n), offset: 4096 * n, len: 100 + n, crc: 0xc0de + n }).collect()
}

fn footer(count: u32) -> Footer {
    let (segment, first, last) = (JournalNo(9), lsn(7), lsn(0x0102_0304));
    Footer { nonce: NONCE, segment, end: 20480, sequence: 3, first, last, count }
}

fn directory() -> Vec<u8> {
    encode_directory(footer(0), &directory_entries())
}

fn check_directory(bytes: &[u8]) {
    let (block, last) = bytes.split_at(DIRECTORY_BLOCK);
    assert_eq!(Footer::decode(last), Ok(footer(3)));
    assert_eq!(footer(3).decode_block(0, block), Ok(directory_entries()));
}

/// A plain entry, and extents that the leaf holds as a run.
fn leaf_entries() -> Vec<(Bytes, Bytes)> {
    let extent = |n: u32| Extent { len: if n == 2 { 100 } else { 65536 }, object: object(n), object_offset: 0 };
    let run = (0..3).map(|n| (key::extent(FILE, u64::from(n) << 16), extent(n).encode()));
    [(key::inode(FILE), Bytes::from_static(b"attributes"))].into_iter().chain(run).collect()
}

pub fn leaf() -> Vec<u8> {
    let mut builder = LeafBuilder::new();
    leaf_entries().iter().for_each(|(key, value)| builder.push(key, value));
    builder.finish()
}

fn check_leaf(bytes: &[u8]) {
    let Ok(Node::Leaf(leaf)) = Node::decode(Bytes::copy_from_slice(bytes)) else { panic!("not a leaf") };
    let entries: Vec<_> = (0..leaf.len()).map(|i| (leaf.key(i), leaf.value(i))).collect();
    assert_eq!(entries, leaf_entries());
}

fn child(n: u32) -> NodePtr {
    NodePtr { segment: SEGMENT, offset: 108 + n, len: 8000, crc: 0xdead_0000 + n }
}

fn interior() -> Vec<u8> {
    let mut builder = InteriorBuilder::new(1);
    builder.push(&key::inode(InodeNo(1)), child(0));
    builder.push(&key::name(InodeNo(1), b"middle"), child(1));
    builder.push(&key::extent(FILE, 1 << 32), child(2));
    builder.finish()
}

fn check_interior(bytes: &[u8]) {
    let Ok(Node::Interior(node)) = Node::decode(Bytes::copy_from_slice(bytes)) else { panic!("not an interior node") };
    assert_eq!((node.level(), node.len()), (1, 3));
    assert_eq!((0..3).map(|i| node.child(i)).collect::<Vec<_>>(), [child(0), child(1), child(2)]);
    assert_eq!(node.first_key(1), key::name(InodeNo(1), b"middle"));
}

fn settlement() -> Vec<Settle> {
    vec![Settle { object: object(0), delta: -1 }, Settle { object: object(1), delta: 2 }]
}

fn checkpoint() -> Checkpoint {
    let (lsn, previous_lsn, roots) = (lsn(900), lsn(400), [Some(child(0)), None]);
    let (settlement, windows) = (settlement(), windows());
    Checkpoint { uuid: UUID, number: 6, lsn, previous_lsn, wall: WALL, roots, settlement, windows, tail: None }
}

fn with_tail() -> Checkpoint {
    Checkpoint { tail: Some(TailFile { end: lsn(950), bytes: 7000 }), ..checkpoint() }
}

fn plan() -> Plan {
    let birth = |n: u32| Birth { ino: FILE, offset: u64::from(n) << 16, object: object(n), len: 65536 };
    Plan { uuid: UUID, start: lsn(400), end: lsn(900), births: (0..3).map(birth).collect() }
}

fn publication(body: Body) -> Publication {
    let (epoch, generation, number) = (2, 3, 4);
    let (checkpoint, start, end) = (6, lsn(400), lsn(900));
    let (uuid, state, nonce, wall) = (UUID, STATE, NONCE, WALL);
    Publication { uuid, state, nonce, epoch, generation, number, wall, checkpoint, start, end, body }
}

fn check_publication(bytes: &[u8], body: Body) {
    assert_eq!(Publication::decode(&Bytes::copy_from_slice(bytes)), Ok(publication(body)));
}

fn windows() -> Vec<WindowEntry> {
    let segments = vec![WindowSegment { segment: SEGMENT, bytes: 8 << 20, objects: 3 }];
    vec![WindowEntry { start: lsn(400), end: lsn(900), segments, objects: 3 }]
}

fn base() -> Body {
    let node_segments = vec![(SEGMENT, 1 << 20), (SegmentNo { epoch: 2, number: 18 }, 4096)];
    Body::Base(Base {
        roots: [Some(child(0)), Some(child(1))],
        windows: windows(),
        node_segments,
        settlement: settlement(),
        log: Log::default(),
    })
}

fn increment() -> Body {
    Body::Increment(Increment { windows: windows(), settlement: settlement(), batches: batch_head(false).into() })
}

fn closing() -> Body {
    Body::Closing(Closing { next_epoch: 3, owner: "host.example, process 4711".into() })
}

fn lease() -> Lease {
    let (host, boot, mount_point) = ("host.example".into(), "0011-2233".into(), "/mnt/photos".into());
    Lease {
        filesystem: UUID,
        who: Uuid(0x1122_3344),
        number: 5,
        kind: LeaseKind::Follower,
        state: LeaseState::Held,
        owner: Owner { host, boot, pid: 4711, started: 123_456, mount_point },
        since: WALL - 1_000_000_000,
        wall: WALL,
        seconds: 60,
        checkpoint: 6,
        epoch: 0,
    }
}

fn log_bytes() -> Bytes {
    let second = encode_head(lsn(9), 0, &[], &[], true);
    [batch_with_payload(), second].concat().into()
}

fn log() -> Body {
    Body::Log(Log { batches: log_bytes() })
}

fn base_with_log() -> Body {
    let Body::Base(base) = base() else { panic!("a base") };
    Body::Base(Base { log: Log { batches: log_bytes() }, ..base })
}

fn store_segment() -> Vec<u8> {
    let mut builder = SegmentBuilder::new(UUID, SEGMENT, SegmentKind::Chunks);
    for body in OBJECTS {
        builder.push(ChunkHeader::raw(body), body);
    }
    builder.finish()
}

fn check_store_segment(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let segment = StoreSegment::parse(&bytes).expect("decodes");
    assert_eq!((segment.header.uuid, segment.header.segment), (UUID, SEGMENT));
    let bodies: Vec<Bytes> = (0..2).map(|i| segment.body(&bytes, i).expect("verifies")).collect();
    assert_eq!(bodies, OBJECTS);
}

fn table() -> ObjectTable {
    let record = |n: u32| TableRecord {
        object: object(n),
        chunk_offset: 108,
        offset_in_chunk: 8 * n,
        len: 8,
        birth_ino: FILE,
        birth_offset: u64::from(n) << 16,
    };
    let (start, end) = (lsn(400), lsn(0x0102_0305));
    let of = TableOf { uuid: UUID, segment: SEGMENT, start, end, chunks: 3, tables: 2 };
    ObjectTable { of, number: 1, records: (0..3).map(record).collect() }
}

fn index() -> WindowIndex {
    let entry = |n: u32| IndexEntry {
        object: object(n),
        segment: n / 2,
        chunk_offset: 108,
        chunk: ChunkHeader::raw(b"a chunk with three objects"),
        offset_in_chunk: 8 * n,
        len: 8,
        birth_ino: FILE,
        birth_offset: u64::from(n) << 16,
    };
    let segments = vec![SEGMENT, SegmentNo { epoch: 2, number: 18 }];
    WindowIndex { uuid: UUID, start: lsn(400), end: lsn(900), segments, entries: (0..3).map(entry).collect() }
}

fn manifest() -> Manifest {
    let size = 65536;
    let end = RecordedEnd { offset: 20480, last: lsn(950), sequence: 3 };
    Manifest {
        uuid: UUID,
        state: STATE,
        epoch: 2,
        generation: 3,
        next_checkpoint: 7,
        checkpoint: Some(CommitPoint { number: 6, lsn: lsn(900) }),
        plans: vec![PlanEntry { number: 6, start: lsn(400), end: lsn(900), edits: Some(317) }],
        journal: vec![
            JournalEntry { number: JournalNo(9), slot: 1, size, nonce: NONCE, end: Some(end) },
            JournalEntry { number: JournalNo(10), slot: 0, size, nonce: NONCE, end: None },
        ],
        free: vec![FreeSlot { slot: 2, size }],
        history: vec!["ckpt/5".into()],
    }
}

fn superblock() -> Superblock {
    Superblock { uuid: UUID, created: TIME.secs, segment_size: 64 << 20, append_only: false, usage: true }
}

fn store_file() -> StoreFile {
    let endpoint = Some("https://minio.example:9000".into());
    StoreFile { url: "s3://bucket/prefix".into(), endpoint, superblock: superblock() }
}
