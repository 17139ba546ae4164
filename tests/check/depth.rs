//! A check that reads no contents: all but the bytes of chunks is verified, and the rest is not fetched.

use super::counting::Counting;
use super::*;
use bytes::Bytes;
use skylog::base::random::SeededRandom;
use skylog::format::chunk::ChunkHeader;
use skylog::format::ids::SegmentKind;
use skylog::format::object_table::{ObjectTable, Tables};
use skylog::format::store_segment::{SegmentBuilder, StoreSegment};

/// What a check of the store alone found, with how many requests for segments, and bytes of them.
fn counted(store: &SimStore, depth: Depth) -> (Report, u64, u64) {
    let counting = Counting::of(store, 1);
    let report = check(&(counting.clone() as Arc<dyn Store>), None, depth, &mut |_, _, _| {});
    let (requests, bytes) = counting.of_segments();
    (report, requests, bytes)
}

fn metadata(store: &SimStore) -> Report {
    check(&(Arc::new(store.clone()) as Arc<dyn Store>), None, Depth::Metadata, &mut |_, _, _| {})
}

/// Two segments of chunks, one of them longer than what is read of its end.
fn shipped() -> (Rig, Vec<(String, StoreSegment)>) {
    let mut tuning = small();
    tuning.policy.segment_bytes = 512 << 10;
    let (mut rig, random) = (Rig::new(21, &tuning), SeededRandom::new(21));
    for (n, len) in [180_000, 9_000].into_iter().enumerate() {
        let ino = create(&mut rig, ROOT, &format!("file-{n}"));
        // What no codec makes shorter.
        let data: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
        let mut at = 0;
        while at < len {
            let (done, _) = rig.run(|fs, cx| fs.write(cx, ino, at as u64, &data[at..])).expect("written");
            at += done as usize;
        }
        rig.drain();
    }
    let names = rig.store.list("seg").expect("listed").into_iter();
    let parsed =
        names.map(|name| (name.clone(), StoreSegment::parse(&rig.store.get(&name).expect("there")).expect("whole")));
    let chunks: Vec<_> = parsed.filter(|(_, segment)| segment.header.kind == SegmentKind::Chunks).collect();
    assert!(chunks.len() == 2 && chunks.iter().any(|(_, s)| s.footer.directory_offset > 128 << 10));
    (rig, chunks)
}

fn with(rig: &Rig, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> SimStore {
    let store = SimStore::from_image(&rig.store.image(), &CallLog::new());
    let mut bytes = store.get(name).expect("there").to_vec();
    change(&mut bytes);
    store.put(name, bytes.into()).expect("put");
    store
}

fn names_it(report: &Report, name: &str, how: &str) {
    let lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(report.problems.iter().any(|problem| problem.place == name), "{how}: {name} is not named in {lines:#?}");
}

#[test]
fn contents_are_not_fetched_and_are_said_not_to_have_been_read() {
    let (rig, segments) = shipped();
    let (report, requests, bytes) = counted(&rig.store, Depth::Metadata);
    assert_clean(&report, "metadata");
    let stored: u64 = segments.iter().flat_map(|(_, s)| &s.entries).map(|e| u64::from(e.chunk.stored_len)).sum();
    assert_eq!(report.figures.unread_bytes, stored);
    let (deep, all_requests, all_bytes) = counted(&rig.store, Depth::Data);
    assert_clean(&deep, "data");
    assert_eq!(deep.figures.unread_bytes, 0);
    // Of the long one the end and the header; the other fits into what is read at first.
    assert_eq!((requests, all_requests), (all_requests + 1, all_requests), "one request more, for the header");
    assert!(bytes + 100_000 < all_bytes, "{bytes} of {all_bytes} bytes");
    let figures = Figures { unread_bytes: 0, ..report.figures };
    assert_eq!(figures, deep.figures, "both look at the same");
}

#[test]
fn without_contents_every_byte_around_them_is_verified() {
    let (rig, segments) = shipped();
    for (name, segment) in &segments {
        let len = rig.store.size(name).expect("there");
        let directory = segment.footer.directory_offset;
        let around = (0..40).chain(directory..len);
        for at in around {
            let at = usize::try_from(at).expect("small");
            let store = with(&rig, name, |bytes| bytes[at] ^= 0x10);
            names_it(&metadata(&store), name, &format!("byte {at} flipped"));
        }
        for keep in [0, 1, 39, 79, directory, len - 41, len - 1] {
            let store = with(&rig, name, |bytes| bytes.truncate(usize::try_from(keep).expect("small")));
            names_it(&metadata(&store), name, &format!("cut to {keep}"));
        }
        for more in [1, 100_000] {
            let store = with(&rig, name, |bytes| bytes.extend(vec![0; more]));
            names_it(&metadata(&store), name, &format!("{more} bytes longer"));
        }
        let store = SimStore::from_image(&rig.store.image(), &CallLog::new());
        store.delete(name).expect("deleted");
        names_it(&metadata(&store), name, "deleted");
    }
}

#[test]
fn damaged_contents_are_found_when_they_are_read_and_only_then() {
    let (rig, segments) = shipped();
    for (name, segment) in &segments {
        for entry in &segment.entries {
            let at = usize::try_from(entry.offset).expect("small");
            let store = with(&rig, name, |bytes| bytes[at] ^= 1);
            assert_clean(&metadata(&store), "contents are not looked at");
            names_it(&checked(&store, None), name, &format!("byte {at} flipped"));
        }
    }
}

/// The segment with its last bodies changed.
fn with_tables(bytes: &Bytes, change: impl Fn(&mut Vec<ObjectTable>)) -> Bytes {
    let segment = StoreSegment::parse(bytes).expect("valid");
    let bodies: Vec<Bytes> = (0..segment.entries.len()).map(|i| segment.body(bytes, i).expect("whole")).collect();
    let first = Tables::of_segment(&segment, bytes).first;
    assert!(first < bodies.len(), "a segment has tables");
    let mut tables: Vec<ObjectTable> =
        bodies[first..].iter().map(|body| ObjectTable::decode(body).expect("valid")).collect();
    change(&mut tables);
    let mut builder = SegmentBuilder::new(segment.header.uuid, segment.header.segment, SegmentKind::Chunks);
    let tables = tables.iter().map(|table| Bytes::from(table.encode()));
    for body in bodies[..first].iter().cloned().chain(tables) {
        builder.push(ChunkHeader::raw(&body), &body);
    }
    builder.finish().into()
}

#[test]
fn a_table_that_says_something_else_than_the_index_is_found() {
    let (rig, segments) = shipped();
    let all: [fn(&mut Vec<ObjectTable>); 4] = [
        |tables| tables[0].records[0].birth_offset += 1,
        |tables| tables[0].records[0].object.n += 1000,
        |tables| tables[0].records.truncate(1),
        |tables| tables[0].of.segment.number += 1,
    ];
    for (name, _) in &segments {
        let bytes = rig.world.store.get(name).expect("got");
        assert_eq!(with_tables(&bytes, |_| {}), bytes);
        for change in all {
            let changed = with_tables(&bytes, change);
            if changed == bytes {
                continue;
            }
            let store = SimStore::from_image(&rig.store.image(), &CallLog::new());
            store.put(name, changed).expect("put");
            let report = checked(&store, None);
            let words = ["its object table", "is of no use to anybody"];
            let said = report.problems.iter().any(|p| p.place == *name && words.iter().any(|w| p.what.contains(w)));
            assert!(said, "{:?}", report.problems);
        }
    }
}
