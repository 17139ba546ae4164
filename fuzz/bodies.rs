//! What each fuzz target does with its bytes. `tests/decoders.rs` calls the same functions with random and mutated bytes,
//! so that they run without a nightly toolchain.
//!
//! Nearly all random bytes end at a checksum. So each body decodes the bytes as they are, and again with the checksums
//! made right, to reach what lies behind them. Nothing may panic; what decodes is encoded again and must be the same. Each body
//! returns how often something decoded, so that a test can tell that it is not stopped at the door.

use bytes::Bytes;
use skylog::format::FormatError;
use skylog::format::batch::{BATCH_HEAD_BYTES, Batch, encode_edits, encode_head};
use skylog::format::checkpoint::{Checkpoint, Plan, PlanHeader};
use skylog::format::chunk::{CHUNK_HEADER_BYTES, ChunkHeader};
use skylog::format::group::{decode_group, padded_len, peek};
use skylog::format::ids::Uuid;
use skylog::format::inode::{CookieValue, Extent, Inode, NameValue};
use skylog::format::journal_directory::{DIRECTORY_BLOCK, Footer};
use skylog::format::key;
use skylog::format::lease::Lease;
use skylog::format::manifest::Manifest;
use skylog::format::node::{InteriorBuilder, LeafBuilder, Node};
use skylog::format::object_table::{ObjectTable, Tables};
use skylog::format::publication::{Body, Log, Publication};
use skylog::format::repair_file::RepairFile;
use skylog::format::space::{self, Pending, Published, SegmentRecord, Settled, WindowRecord};
use skylog::format::store_file::StoreFile;
use skylog::format::store_segment::{SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentFooter, StoreSegment};
use skylog::format::superblock::Superblock;
use skylog::format::usage::{Usage, UsageLimit};
use skylog::format::window::{WINDOW_HEADER_BYTES, WindowHeader, WindowIndex};
use std::ops::Range;

/// Takes any bytes; returns how often something decoded.
pub type FuzzBody = fn(&[u8]) -> usize;

/// All bodies by the name of their target.
pub const ALL: [(&str, FuzzBody); 15] = [
    ("keys_and_values", keys_and_values),
    ("batch", batch),
    ("group", group),
    ("journal_directory", journal_directory),
    ("node", node),
    ("checkpoint", checkpoint),
    ("publication", publication),
    ("lease", lease),
    ("store_segment", store_segment),
    ("object_table", object_table),
    ("window_index", window_index),
    ("manifest", manifest),
    ("superblock", superblock),
    ("store_file", store_file),
    ("repair_file", repair_file),
];

/// Where nearly every header has its checksum: after the magic.
const CRC_AT: usize = 4;

/// Makes the checksum at `crc_at` of the bytes in `range` right, if they are all there.
fn reseal(bytes: &mut [u8], range: Range<usize>, crc_at: usize) {
    let Some(covered) = bytes.get_mut(range).filter(|covered| covered.len() >= crc_at + 4) else { return };
    covered[crc_at..crc_at + 4].fill(0);
    let crc = crc32c::crc32c(covered);
    covered[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).map_or(0, |field| u32::from_le_bytes(field.try_into().expect("four bytes")) as usize)
}

/// Keys and values of both maps. Each has one encoding only, save those with a free text part.
pub fn keys_and_values(data: &[u8]) -> usize {
    let decoded = [
        same(data, key::Key::decode(data), key::Key::encode),
        same(data, Inode::decode(data), Inode::encode),
        same(data, NameValue::decode(data), NameValue::encode),
        same(data, CookieValue::decode(data), CookieValue::encode),
        same(data, Extent::decode(data), Extent::encode),
        same(data, Usage::decode(data), Usage::encode),
        same(data, UsageLimit::decode(data), UsageLimit::encode),
        same(data, space::Key::decode(data), space::Key::encode),
        same(data, space::decode_number(data), |number| space::encode_number(*number)),
        same(data, space::decode_count(data), |count| space::encode_count(*count)),
        same(data, SegmentRecord::decode(data), SegmentRecord::encode),
        same(data, WindowRecord::decode(data), WindowRecord::encode),
        same(data, Pending::decode(data), Pending::encode),
        same(data, Published::decode(data), Published::encode),
        same(data, Settled::decode(data), Settled::encode),
        chunk_header(data),
    ];
    decoded.into_iter().filter(|decoded| *decoded).count()
}

fn same<T>(data: &[u8], decoded: Result<T, FormatError>, encode: impl Fn(&T) -> Bytes) -> bool {
    match decoded {
        Ok(value) => encode(&value) == data || panic!("another encoding than {data:?}"),
        Err(_) => false,
    }
}

fn chunk_header(data: &[u8]) -> bool {
    let Ok(header) = ChunkHeader::decode(data) else { return false };
    let mut encoded = Vec::new();
    header.encode_to(&mut encoded);
    assert_eq!(encoded, data[..CHUNK_HEADER_BYTES]);
    true
}

/// A batch, also one that does not start where the buffer does.
pub fn batch(data: &[u8]) -> usize {
    let mut sealed = data.to_vec();
    let head = BATCH_HEAD_BYTES + u32_at(data, 28) + u32_at(data, 32) * CHUNK_HEADER_BYTES;
    reseal(&mut sealed, 0..head, CRC_AT);
    let shifted = [b"before", &sealed[..]].concat();
    decode_batch(data, 0) + decode_batch(&sealed, 0) + decode_batch(&shifted, b"before".len())
}

fn decode_batch(data: &[u8], at: usize) -> usize {
    let buffer = Bytes::copy_from_slice(data);
    let Ok((batch, used)) = Batch::decode(&buffer, at) else { return 0 };
    assert!(at + used <= buffer.len());
    let _ = batch.verify_payload(&buffer);
    let bare = Bytes::from(encode_head(
        batch.lsn,
        batch.edits.len() as u32,
        &encode_edits(&batch.edits),
        &batch.headers(),
        false,
    ));
    let (again, _) = Batch::decode(&bare, 0).expect("what was decoded can be encoded");
    assert_eq!((again.lsn, &again.edits, again.headers()), (batch.lsn, &batch.edits, batch.headers()));
    for (_, edit) in batch.edits {
        edit.resolve(batch.lsn, &again.headers());
    }
    1
}

/// A group of a journal segment.
pub fn group(data: &[u8]) -> usize {
    let decode = |data: &[u8]| {
        let Ok((header, range, padded)) = decode_group(data) else { return 0 };
        assert!(range.end <= padded && padded <= data.len());
        assert_eq!(range.len(), header.payload_len as usize);
        assert_eq!(peek(data).map(|peek| peek.padded_len), Ok(padded));
        1
    };
    let mut sealed = data.to_vec();
    if let Ok(peek) = peek(data) {
        assert!(peek.padded_len >= padded_len(0));
        reseal(&mut sealed, 0..peek.padded_len, CRC_AT);
    }
    decode(data) + decode(&sealed)
}

/// A footer block and then directory blocks.
pub fn journal_directory(data: &[u8]) -> usize {
    let decode = |data: &[u8]| {
        let mut blocks = data.chunks(DIRECTORY_BLOCK);
        let Some(Ok(footer)) = blocks.next().map(Footer::decode) else { return 0 };
        let _ = footer.block_offset(footer.blocks(), 1 << 20);
        blocks.enumerate().filter(|(number, block)| footer.decode_block(*number, block).is_ok()).count()
    };
    let mut sealed = data.to_vec();
    sealed.chunks_mut(DIRECTORY_BLOCK).for_each(|block| {
        let len = block.len();
        reseal(block, 0..len, CRC_AT);
    });
    decode(data) + decode(&sealed)
}

/// A tree node; it has no checksum of its own. What decodes is read in full and built again.
pub fn node(data: &[u8]) -> usize {
    match Node::decode(Bytes::copy_from_slice(data)) {
        Ok(Node::Leaf(leaf)) => {
            let mut builder = LeafBuilder::new();
            for i in 0..leaf.len() {
                let (key, value) = (leaf.key(i), leaf.value(i));
                assert_eq!((leaf.lower_bound(&key), leaf.get(&key).as_ref()), (i, Some(&value)));
                builder.push(&key, &value);
            }
            // Built anew it may be shorter: neighbours become runs, and the common prefix is as long as can be.
            assert!(builder.finish().len() <= data.len());
            1
        }
        Ok(Node::Interior(node)) => {
            let mut builder = InteriorBuilder::new(node.level());
            for i in 0..node.len() {
                assert_eq!(node.child_for(&node.first_key(i)), i);
                builder.push(&node.first_key(i), node.child(i));
            }
            assert!(builder.finish().len() <= data.len());
            1
        }
        Err(_) => 0,
    }
}

/// A checkpoint, and a window plan.
pub fn checkpoint(data: &[u8]) -> usize {
    let mut decoded = 0;
    let mut sealed = data.to_vec();
    reseal(&mut sealed, 0..data.len(), CRC_AT);
    for bytes in [data, &sealed] {
        if let Ok(checkpoint) = Checkpoint::decode(bytes) {
            assert_eq!(checkpoint.encode(), bytes);
            decoded += 1;
        }
    }
    let mut sealed = data.to_vec();
    reseal(&mut sealed, 0..56, CRC_AT);
    if let Ok(header) = PlanHeader::decode(&sealed) {
        (0..header.blocks().min(9)).for_each(|number| reseal_block(&mut sealed, header.block_range(number)));
    }
    for bytes in [data, &sealed] {
        if let Ok(plan) = Plan::decode(bytes) {
            assert_eq!(plan.encode(), bytes);
            decoded += 1;
        }
    }
    decoded
}

/// A block of records starts with its checksum.
fn reseal_block(bytes: &mut [u8], range: Range<u64>) {
    reseal(bytes, range.start as usize..range.end as usize, 0);
}

/// A base, an increment or a closing object.
pub fn publication(data: &[u8]) -> usize {
    let mut decoded = 0;
    let mut sealed = data.to_vec();
    reseal(&mut sealed, 0..data.len(), CRC_AT);
    for bytes in [data, &sealed] {
        if let Ok(publication) = Publication::decode(&Bytes::copy_from_slice(bytes)) {
            assert_eq!(publication.encode(), bytes);
            match &publication.body {
                Body::Increment(increment) => assert!(increment.batches().count() <= bytes.len()),
                Body::Base(base) => log_batches(&base.log),
                Body::Log(log) => log_batches(log),
                Body::Closing(_) => {}
            }
            decoded += 1;
        }
    }
    decoded
}

/// A lease.
pub fn lease(data: &[u8]) -> usize {
    let mut decoded = 0;
    let mut sealed = data.to_vec();
    reseal(&mut sealed, 0..data.len(), CRC_AT);
    for bytes in [data, &sealed] {
        if let Ok(lease) = Lease::decode(bytes) {
            assert_eq!(lease.encode(), bytes);
            decoded += 1;
        }
    }
    decoded
}

fn log_batches(log: &Log) {
    for batch in log.batches().filter_map(Result::ok) {
        (0..batch.batch.objects.len()).for_each(|n| drop(batch.object(n)));
        assert!(Log::part_of(&batch.encoded).is_ok());
    }
}

/// A store segment.
pub fn store_segment(data: &[u8]) -> usize {
    let decode = |data: &[u8]| {
        let bytes = Bytes::copy_from_slice(data);
        let Ok(segment) = StoreSegment::parse(&bytes) else { return 0 };
        let _ = segment.verify(&bytes);
        let tables = Tables::of_segment(&segment, &bytes);
        assert!(tables.first <= segment.entries.len());
        1
    };
    let mut sealed = data.to_vec();
    reseal(&mut sealed, 0..SEGMENT_HEADER_BYTES, CRC_AT);
    if let Some(footer_at) = data.len().checked_sub(SEGMENT_FOOTER_BYTES) {
        reseal(&mut sealed, footer_at..data.len(), CRC_AT);
        if let Ok(footer) = SegmentFooter::decode(&sealed[footer_at..], data.len() as u64) {
            let range = footer.directory_range();
            let crc = crc32c::crc32c(&sealed[range.start as usize..range.end as usize]);
            sealed[footer_at + 32..footer_at + 36].copy_from_slice(&crc.to_le_bytes());
            reseal(&mut sealed, footer_at..data.len(), CRC_AT);
        }
    }
    decode(data) + decode(&sealed)
}

/// An object table.
pub fn object_table(data: &[u8]) -> usize {
    let mut decoded = 0;
    let mut sealed = data.to_vec();
    reseal(&mut sealed, 0..data.len(), CRC_AT);
    for bytes in [data, &sealed] {
        if let Ok(table) = ObjectTable::decode(bytes) {
            assert_eq!(table.encode(), bytes);
            decoded += 1;
        }
    }
    decoded
}

/// The index of a window, whole and by ranged reads.
pub fn window_index(data: &[u8]) -> usize {
    let mut decoded = 0;
    let mut sealed = data.to_vec();
    let segments = u32_at(data, WINDOW_HEADER_BYTES - 4);
    reseal(&mut sealed, 0..WINDOW_HEADER_BYTES + 12 * segments, CRC_AT);
    if let Ok(header) = WindowHeader::decode(&sealed) {
        (0..header.blocks().min(9)).for_each(|number| reseal_block(&mut sealed, header.block_range(number)));
    }
    for bytes in [data, &sealed] {
        if let Ok(index) = WindowIndex::decode(bytes) {
            assert_eq!(index.encode(), bytes);
            let read = |range: Range<u64>| Ok::<_, FormatError>(&bytes[range.start as usize..range.end as usize]);
            for entry in &index.entries {
                assert_eq!(index.header().find(entry.object, read), Ok(Some(*entry)));
            }
            decoded += 1;
        }
    }
    decoded
}

/// Replaces what follows the last `start` by the checksum of what comes before.
fn reseal_text(data: &[u8], start: &str, end: &str) -> Vec<u8> {
    let covered = data.windows(start.len()).rposition(|window| window == start.as_bytes()).unwrap_or(data.len());
    let crc = format!("{start}{:08x}{end}", crc32c::crc32c(&data[..covered]));
    [&data[..covered], crc.as_bytes()].concat()
}

/// The manifest of a state directory.
pub fn manifest(data: &[u8]) -> usize {
    let mut decoded = 0;
    for bytes in [data, &reseal_text(data, "crc=", "\n")] {
        if let Ok(manifest) = Manifest::decode(bytes) {
            assert_eq!(Manifest::decode(manifest.encode().as_bytes()), Ok(manifest));
            decoded += 1;
        }
    }
    decoded
}

/// The file `store` of a state directory.
pub fn store_file(data: &[u8]) -> usize {
    let superblock = Superblock { uuid: Uuid(1), created: 2, segment_size: 1 << 20, append_only: false, usage: true };
    let sealed = [reseal_text(data, "\ncrc=", "\n"), superblock.encode()].concat();
    let mut decoded = 0;
    for bytes in [data, &sealed] {
        if let Ok(file) = StoreFile::decode(bytes) {
            assert_eq!(StoreFile::decode(&file.encode()), Ok(file));
            decoded += 1;
        }
    }
    decoded
}

/// The superblock of a store.
pub fn superblock(data: &[u8]) -> usize {
    let mut decoded = 0;
    for bytes in [data, &reseal_text(data, "  \"crc\": \"", "\"\n}\n")] {
        if let Ok(superblock) = Superblock::decode(bytes) {
            assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
            decoded += 1;
        }
    }
    decoded
}

/// The file `REPAIR` of a state directory.
pub fn repair_file(data: &[u8]) -> usize {
    let mut decoded = 0;
    for bytes in [data, &reseal_text(data, "crc=", "\n")] {
        if let Some(file) = RepairFile::decode(bytes) {
            assert_eq!(file.encode(), bytes);
            decoded += 1;
        }
    }
    decoded
}
