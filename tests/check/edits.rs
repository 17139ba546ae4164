//! Maps that are whole and do not agree with themselves.

use super::*;
use bytes::Bytes;
use skylog::format::batch::TreeId;
use skylog::format::ids::{Lsn, ObjectId};
use skylog::format::inode::{Extent, Inode, NameValue, Xattrs};
use skylog::format::key;
use skylog::format::names;
use skylog::format::space::{self, Mark, Pending, SegmentRecord};
use skylog::format::usage::Usage;
use skylog::map::{Pins, Room, Tx};

const TEXT: InodeNo = InodeNo(3);

/// A directory 2 with a file 3 of three objects, of which one is shared, and a tiny file 4; all shipped.
fn rig() -> Rig {
    let mut rig = Rig::new(21, &small());
    let dir = mkdir(&mut rig, ROOT, "dir");
    let text = create(&mut rig, dir, "text");
    assert_eq!((dir, text), (InodeNo(2), TEXT));
    write(&mut rig, text, 0, 10_000);
    write(&mut rig, text, 4000, 100);
    let tiny = create(&mut rig, ROOT, "tiny");
    write(&mut rig, tiny, 0, 10);
    rig.drain();
    assert_clean_everywhere(&rig, "before");
    rig
}

/// Changes the maps behind everybody's back, as one batch.
fn edit(rig: &mut Rig, change: impl Fn(&mut Tx<'_>)) {
    let pins = Pins::new();
    let mut tx = rig.mounted.db.begin(&pins);
    change(&mut tx);
    tx.commit(Room::Maintenance).expect("committed");
    rig.mounted.db.journal().when_durable(rig.mounted.db.last(), Box::new(|_| {}));
    while rig.step_journal() {}
}

fn get(tx: &mut Tx<'_>, tree: TreeId, key: &[u8]) -> Bytes {
    tx.get(tree, key).expect("in memory").expect("there")
}

fn change_inode(tx: &mut Tx<'_>, ino: InodeNo, change: impl Fn(&mut Inode)) {
    let mut inode = Inode::decode(&get(tx, TreeId::Files, &key::inode(ino))).expect("an inode");
    change(&mut inode);
    tx.put(TreeId::Files, key::inode(ino), inode.encode());
}

/// The change must give a problem at this place that says this, and no other.
fn assert_found(change: impl Fn(&mut Tx<'_>), expected: &[(&str, &str)]) {
    let mut rig = rig();
    edit(&mut rig, change);
    let report = checked(&rig.store, Some(&rig.disk.image_durable()));
    let found: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    for (place, what) in expected {
        let named = report.problems.iter().any(|p| p.place == *place && p.what.contains(what));
        assert!(named, "{place}: {what} is not in {found:#?}");
    }
    assert_eq!(report.problems.len(), expected.len(), "{found:#?}");
}

#[test]
fn wrong_link_counts_are_found() {
    assert_found(|tx| change_inode(tx, TEXT, |inode| inode.nlink = 2), &[("inode 3", "has 2 links, 1 names")]);
    assert_found(|tx| change_inode(tx, InodeNo(2), |inode| inode.nlink = 3), &[("inode 2", "has 3 links")]);
    assert_found(|tx| change_inode(tx, ROOT, |inode| inode.nlink = 2), &[("inode 1", "has 2 links")]);
}

#[test]
fn names_and_cookies_that_do_not_match_are_found() {
    let cookie = |tx: &mut Tx<'_>| tx.delete(TreeId::Files, key::cookie(InodeNo(2), 3));
    assert_found(cookie, &[("inode 2", "name \"text\" has no cookie 3")]);
    let name = |tx: &mut Tx<'_>| tx.delete(TreeId::Files, key::name(InodeNo(2), b"text"));
    assert_found(name, &[("inode 2", "cookie 3 lists \"text\""), ("inode 3", "has 1 links, 0 names")]);
    let kind = |tx: &mut Tx<'_>| {
        let value = NameValue { ino: TEXT, kind: libc::DT_LNK, cookie: 3 };
        tx.put(TreeId::Files, key::name(InodeNo(2), b"text"), value.encode());
    };
    assert_found(kind, &[("inode 2", "its cookie says"), ("inode 3", "is of type 8")]);
    let next = |tx: &mut Tx<'_>| change_inode(tx, InodeNo(2), |inode| inode.next_cookie = 3);
    assert_found(next, &[("inode 2", "next cookie is 3")]);
}

#[test]
fn names_that_lead_nowhere_and_inodes_that_nothing_leads_to_are_found() {
    let gone = |tx: &mut Tx<'_>| tx.delete(TreeId::Files, key::inode(InodeNo(4)));
    let counted = ("files tree", "hold 4 inodes with 22 blocks, it holds 3 with 21");
    assert_found(gone, &[("inode 4", "does not exist"), ("inode 4", "directory 1 has a name for it"), counted]);
    let new = |tx: &mut Tx<'_>| {
        let inode = Inode { mode: libc::S_IFREG | 0o644, nlink: 1, ..Inode::default() };
        tx.put(TreeId::Files, key::inode(InodeNo(9)), inode.encode());
    };
    assert_found(new, &[("inode 9", "has 1 links, 0 names"), ("files tree", "it holds 5 with 22")]);
    let circle = |tx: &mut Tx<'_>| change_inode(tx, InodeNo(2), |inode| inode.parent = InodeNo(2));
    assert_found(circle, &[("inode 2", "its parent is 2"), ("inode 2", "circle")]);
}

#[test]
fn orphans_without_a_mark_and_marks_without_an_orphan_are_found() {
    let marked = |tx: &mut Tx<'_>| tx.put(TreeId::Files, key::orphan(TEXT), Bytes::new());
    assert_found(marked, &[("inode 3", "marked as an orphan")]);
    let nothing = |tx: &mut Tx<'_>| tx.put(TreeId::Files, key::orphan(InodeNo(9)), Bytes::new());
    assert_found(nothing, &[("inode 9", "does not exist, yet is marked")]);
    let unmarked = |tx: &mut Tx<'_>| {
        let inode = Inode { mode: libc::S_IFREG, ..Inode::default() };
        tx.put(TreeId::Files, key::inode(InodeNo(9)), inode.encode());
    };
    assert_found(unmarked, &[("inode 9", "not marked as an orphan"), ("files tree", "it holds 5 with 22")]);
}

#[test]
fn wrong_blocks_sizes_and_extents_are_found() {
    let counted = ("files tree", "it holds 4 with 23");
    assert_found(|tx| change_inode(tx, TEXT, |inode| inode.blocks += 1), &[("inode 3", "blocks"), counted]);
    assert_found(|tx| change_inode(tx, TEXT, |inode| inode.size = 9999), &[("inode 3", "reaches to 10000")]);
    assert_found(|tx| change_inode(tx, InodeNo(4), |inode| inode.size = 9), &[("inode 4", "inline value of 10")]);
    let overlap = |tx: &mut Tx<'_>| {
        let value = get(tx, TreeId::Files, &key::extent(TEXT, 4000));
        let extent = Extent { len: 101, ..Extent::decode(&value).expect("an extent") };
        tx.put(TreeId::Files, key::extent(TEXT, 4000), extent.encode());
    };
    assert_found(
        overlap,
        &[("inode 3 at offset 4100", "reaches to 4101"), ("inode 3 at offset 4000", "has 100 bytes")],
    );
    let nowhere = |tx: &mut Tx<'_>| {
        let value = get(tx, TreeId::Files, &key::extent(TEXT, 4000));
        let object = ObjectId { lsn: Lsn { epoch: 1, pos: 1 }, n: 7 };
        let extent = Extent { object, ..Extent::decode(&value).expect("an extent") };
        tx.put(TreeId::Files, key::extent(TEXT, 4000), extent.encode());
    };
    assert_found(nowhere, &[("inode 3 at offset 4000", "neither in the journal nor in a window")]);
}

#[test]
fn wrong_marks_of_extended_attributes_and_lists_out_of_step_are_found() {
    let unmarked = |tx: &mut Tx<'_>| tx.put(TreeId::Files, key::xattr(TEXT, b"user.x"), Bytes::from_static(b"v"));
    assert_found(unmarked, &[("inode 3", "marks of extended attributes")]);
    let marked = |tx: &mut Tx<'_>| change_inode(tx, TEXT, |inode| inode.xattrs = Xattrs::CAPABILITY);
    assert_found(marked, &[("inode 3", "marks of extended attributes")]);
    let list = |value: &'static [u8]| {
        move |tx: &mut Tx<'_>| {
            tx.put(TreeId::Files, key::xattr(TEXT, b"system.posix_acl_access"), Bytes::from_static(value));
            change_inode(tx, TEXT, |inode| inode.xattrs = Xattrs::ACCESS_ACL);
        }
    };
    assert_found(list(b"no list"), &[("inode 3", "its access control list is none")]);
    let default = |tx: &mut Tx<'_>| {
        tx.put(TreeId::Files, key::xattr(InodeNo::ROOT, b"system.posix_acl_default"), Bytes::from_static(b"no list"));
        change_inode(tx, InodeNo::ROOT, |inode| inode.xattrs = Xattrs::DEFAULT_ACL);
    };
    assert_found(default, &[("inode 1", "its default access control list is none")]);
    let other = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\x01\0\xff\xff\xff\xff";
    assert_found(list(other), &[("inode 3", "its access control list says 751")]);
}

#[test]
fn a_wrong_usage_is_found() {
    let wrong =
        |inodes, blocks| move |tx: &mut Tx<'_>| tx.put(TreeId::Files, key::usage(), Usage { inodes, blocks }.encode());
    assert_found(wrong(5, 22), &[("files tree", "hold 5 inodes with 22 blocks, it holds 4 with 22")]);
    assert_found(wrong(4, 21), &[("files tree", "hold 4 inodes with 21 blocks, it holds 4 with 22")]);
    assert_found(|tx| tx.delete(TreeId::Files, key::usage()), &[("files tree", "its usage is not recorded")]);
    let limit = |tx: &mut Tx<'_>| tx.put(TreeId::Files, key::limit(), Bytes::from_static(b"much"));
    assert_found(limit, &[("files tree", "too short: 8 bytes needed, 4 there")]);
}

/// The first segment of chunks that the space tree records.
fn a_segment(tx: &mut Tx<'_>) -> (Bytes, SegmentRecord) {
    let (from, to) = space::segments();
    let rows = tx.scan(TreeId::Space, &from, &to, 100).expect("in memory");
    let records = rows.into_iter().map(|(key, value)| (key, SegmentRecord::decode(&value).expect("a record")));
    records.into_iter().find(|(_, record)| record.objects > 0).expect("a segment of chunks")
}

#[test]
fn promise_g8_wrong_live_counts_are_found() {
    let bytes = |tx: &mut Tx<'_>| {
        let (key, record) = a_segment(tx);
        let live_bytes = record.live_bytes - 1;
        tx.put(TreeId::Space, key, SegmentRecord { live_bytes, ..record }.encode());
    };
    assert_found(bytes, &[("space tree", "is said to have")]);
    let objects = |tx: &mut Tx<'_>| {
        let (key, record) = a_segment(tx);
        let live_objects = record.live_objects - 1;
        tx.put(TreeId::Space, key, SegmentRecord { live_objects, ..record }.encode());
    };
    assert_found(objects, &[("space tree", "live objects, its segments have"), ("space tree", "is said to have")]);
}

#[test]
fn wrong_counts_of_shared_objects_are_found() {
    let shared = |tx: &mut Tx<'_>| {
        let (from, to) = space::counts();
        let rows = tx.scan(TreeId::Space, &from, &to, 2).expect("in memory");
        assert_eq!(rows.len(), 1, "one object is shared");
        tx.put(TreeId::Space, rows[0].0.clone(), space::encode_count(3));
    };
    assert_found(shared, &[("space tree", "named by 2 extents, its count says 3")]);
    let stale = |tx: &mut Tx<'_>| {
        let object = ObjectId { lsn: Lsn { epoch: 1, pos: 1 }, n: 0 };
        tx.put(TreeId::Space, space::count(object), space::encode_count(2));
    };
    assert_found(stale, &[("space tree", "named by no extent")]);
}

#[test]
fn what_is_in_use_and_listed_for_deletion_is_found() {
    let named = rig();
    let pins = Pins::new();
    let (segment, _) = a_segment(&mut named.mounted.db.begin(&pins));
    let Ok(space::Key::Segment(no)) = space::Key::decode(&segment) else { panic!("a segment's key") };
    let name = names::segment(no);
    let listed = |tx: &mut Tx<'_>| {
        let value = Pending { since: 0, checkpoint: 9 }.encode();
        tx.put(TreeId::Space, space::pending(name.as_bytes()), value);
    };
    assert_found(listed, &[(name.as_str(), "in use and listed for deletion")]);
}

#[test]
fn marks_below_what_is_used_are_found() {
    let low = |which| move |tx: &mut Tx<'_>| tx.put(TreeId::Space, space::mark(which), space::encode_number(1));
    assert_found(low(Mark::Inode), &[("space tree", "numbers from 1 on may be given again")]);
    assert_found(low(Mark::Segment), &[("space tree", "numbers from 1 on may be given again")]);
}
