//! What a repair could not bring back is no more to be read where the filesystem is followed.

use super::*;
use crate::format::batch::TreeId;
use crate::format::inode::Extent;
use crate::format::key;
use crate::map::{Pins, Room};

#[test]
fn a_follower_cannot_read_what_is_lost_either() {
    let mut rig = Rig::new(90, &small());
    put(&mut rig, "file", &[1; 8192]);
    let ino = rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, b"file")).expect("looked up").expect("found").ino;
    rig.run(|fs, cx| fs.write(cx, ino, 8192, &[1; 808])).expect("written");
    rig.drain();
    let pins = Pins::new();
    let mut tx = rig.mounted.db.begin(&pins);
    tx.put(TreeId::Files, key::extent(ino, 0), Extent::lost(8192).encode());
    tx.commit(Room::Maintenance).expect("committed");
    rig.drain();
    let mut reader = Reader::open(&rig, 92, &small()).expect("opened");
    let read = |reader: &Reader, at, len| reader.run(None, |fs, cx| fs.read(cx, ino, at, len));
    assert_eq!(read(&reader, 0, 100), Err(Error::Io));
    assert_eq!(read(&reader, 8192, 808), Ok(vec![1; 808]));
    rig.run(|fs, cx| fs.write(cx, ino, 0, &[3; 8192])).expect("written");
    rig.drain();
    rig.advance(POLL);
    reader.step();
    assert_eq!(read(&reader, 0, 8192), Ok(vec![3; 8192]), "it was written anew");
}
