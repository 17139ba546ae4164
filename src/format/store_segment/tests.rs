//! Store segments: the trip, damage, limits.

use super::*;
use crate::format::faults::assert_damage_is_found;
use crate::format::node::{LeafBuilder, Node};

const SEGMENT: SegmentNo = SegmentNo { epoch: 2, number: 9 };
const BODIES: [&[u8]; 3] = [b"first body", b"2", b"the third"];

fn builder() -> SegmentBuilder {
    let mut builder = SegmentBuilder::new(Uuid(1), SEGMENT, SegmentKind::Chunks);
    for body in BODIES {
        builder.push(ChunkHeader::raw(body), body);
    }
    builder
}

fn decode(bytes: &[u8]) -> Result<StoreSegment, FormatError> {
    let bytes = Bytes::copy_from_slice(bytes);
    let segment = StoreSegment::parse(&bytes)?;
    segment.verify(&bytes).map_err(|(_, error)| error)?;
    Ok(segment)
}

#[test]
fn segments_survive_the_trip_and_bodies_lie_where_they_were_said_to() {
    let mut builder = SegmentBuilder::new(Uuid(1), SEGMENT, SegmentKind::Chunks);
    let offsets = BODIES.map(|body| builder.push(ChunkHeader::raw(body), body));
    let len = builder.finished_len();
    let bytes = Bytes::from(builder.finish());
    assert_eq!(bytes.len() as u64, len);
    let segment = StoreSegment::parse(&bytes).expect("valid");
    assert_eq!(segment.header, SegmentHeader { uuid: Uuid(1), segment: SEGMENT, kind: SegmentKind::Chunks });
    for (i, body) in BODIES.iter().enumerate() {
        assert_eq!(segment.entries[i].offset, offsets[i]);
        assert_eq!(&bytes[offsets[i] as usize..][..body.len()], *body);
        assert_eq!(&segment.body(&bytes, i).expect("valid")[..], *body);
    }
    let empty = SegmentBuilder::new(Uuid(1), SEGMENT, SegmentKind::Nodes).finish();
    assert_eq!(decode(&empty).map(|segment| segment.entries.len()), Ok(0));
}

#[test]
fn a_segment_written_in_parts_is_the_same() {
    let mut parts = SegmentBuilder::new(Uuid(1), SEGMENT, SegmentKind::Chunks);
    let mut written = Vec::new();
    for body in BODIES {
        parts.push(ChunkHeader::raw(body), body);
        written.append(&mut parts.drain());
    }
    written.append(&mut parts.finish());
    assert_eq!(written, builder().finish());
}

#[test]
fn a_node_pointer_leads_to_the_node() {
    let mut leaf = LeafBuilder::new();
    leaf.push(b"key", b"value");
    let node = leaf.finish();
    let mut builder = SegmentBuilder::new(Uuid(1), SEGMENT, SegmentKind::Nodes);
    builder.push_node(&[1; 5000]);
    let ptr = builder.push_node(&node);
    let bytes = Bytes::from(builder.finish());
    assert_eq!(ptr.segment, SEGMENT);
    let read = bytes.slice(ptr.offset as usize..(ptr.offset + ptr.len) as usize);
    assert!(Node::read(&ptr, read).is_ok());
}

#[test]
fn promise_s4_every_flipped_bit_and_every_cut_of_a_segment_is_found() {
    assert_damage_is_found(&builder().finish(), decode);
}

#[test]
fn promise_s4_a_body_of_another_place_is_refused() {
    let bytes = Bytes::from(builder().finish());
    let segment = StoreSegment::parse(&bytes).expect("valid");
    let range = segment.entries[0].framed_range();
    let framed = bytes.slice(range.start as usize..range.end as usize);
    assert!(segment.footer.open(&segment.entries[0], &framed).is_ok());
    assert!(matches!(segment.footer.open(&segment.entries[1], &framed), Err(FormatError::Value(_))));
    let other = SegmentFooter { segment: SegmentNo { epoch: 2, number: 10 }, ..segment.footer };
    assert!(matches!(other.open(&segment.entries[0], &framed), Err(FormatError::Value(_))));
}

#[test]
fn damage_in_one_body_leaves_the_others_readable_and_says_where_it_is() {
    let mut bytes = builder().finish();
    let at = StoreSegment::parse(&bytes).expect("valid").entries[1].offset;
    bytes[at as usize] ^= 1;
    let bytes = Bytes::from(bytes);
    let segment = StoreSegment::parse(&bytes).expect("the directory is whole");
    assert!(segment.body(&bytes, 0).is_ok() && segment.body(&bytes, 2).is_ok());
    let (offset, error) = segment.verify(&bytes).expect_err("damage");
    assert_eq!(offset, at);
    assert!(matches!(error, FormatError::Checksum { .. }));
    let said = error.at("seg/0000000002/0000000000000009", offset).to_string();
    assert!(said.starts_with("seg/0000000002/0000000000000009 at offset 186: checksum mismatch"), "{said}");
}

#[test]
fn promise_g1_segment_faults_are_told_apart() {
    let bytes = builder().finish();
    let footer = bytes.len() - SEGMENT_FOOTER_BYTES;
    let changed = |at: usize, to: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = to;
        decode(&bytes)
    };
    assert!(matches!(changed(header_at::MAGIC, 0), Err(FormatError::Magic { .. })));
    assert_eq!(changed(header_at::VERSION, 2), Err(FormatError::Version { supported: 1, found: 2 }));
    assert!(matches!(changed(header_at::UUID, 9), Err(FormatError::Checksum { .. })));
    assert!(matches!(changed(footer, 0), Err(FormatError::Magic { .. })));
    assert!(matches!(changed(footer - 1, 9), Err(FormatError::Checksum { .. })));
    assert!(matches!(decode(&bytes[..50]), Err(FormatError::TooShort { .. })));

    let footer = &bytes[footer..];
    let len = bytes.len() as u64;
    assert!(matches!(SegmentFooter::decode(footer, len - 1), Err(FormatError::TooShort { .. })));
    assert!(matches!(SegmentFooter::decode(footer, len + 1), Err(FormatError::TooBig { .. })));
    let resealed = |at: usize, to: u8| {
        let mut footer = footer.to_vec();
        footer[at] = to;
        seal(&mut footer, footer_at::CRC);
        SegmentFooter::decode(&footer, len)
    };
    assert_eq!(resealed(footer_at::KIND, 3), Err(FormatError::Kind { found: 3 }));
    assert!(matches!(resealed(footer_at::RESERVED, 1), Err(FormatError::Value(_))));
    assert!(matches!(resealed(footer_at::COUNT + 3, 1), Err(FormatError::TooShort { .. })));
    let mut far = footer.to_vec();
    far[footer_at::DIRECTORY_OFFSET..][..8].fill(0xff);
    seal(&mut far, footer_at::CRC);
    assert!(matches!(SegmentFooter::decode(&far, len), Err(FormatError::Value(_))));
}

#[test]
fn bodies_with_gaps_between_them_are_refused() {
    let gap = |change: fn(&mut Vec<SegmentEntry>)| {
        let mut builder = builder();
        change(&mut builder.entries);
        decode(&builder.finish())
    };
    assert!(matches!(gap(|entries| entries[1].offset += 1), Err(FormatError::Value(_))));
    assert!(matches!(gap(|entries| entries.truncate(2)), Err(FormatError::Value(_))));
}
