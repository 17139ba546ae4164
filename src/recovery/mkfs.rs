//! Making a filesystem: generation 1 is an empty base and an increment whose one batch makes the root directory. The
//! configuration comes last: without it nothing is a store of ours.

use super::MountError;
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::format::batch::{Edit, TreeId, encode_edits, encode_head};
use crate::format::ids::{InodeNo, Lsn, Nonce, Uuid};
use crate::format::inode::Inode;
use crate::format::key;
use crate::format::names::{self, LOCK, SUPERBLOCK};
use crate::format::publication::{Base, Body, Increment, Publication, WindowEntry};
use crate::format::superblock::Superblock;
use crate::store::{Created, Store};

/// What a new filesystem is like.
#[derive(Clone, Copy, Debug)]
pub struct MkfsOptions {
    /// Bytes of a journal segment.
    pub segment_size: u32,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
}

/// Makes a filesystem in a store that holds nothing.
pub fn mkfs(
    store: &dyn Store,
    clock: &dyn Clock,
    random: &dyn Random,
    options: MkfsOptions,
) -> Result<Superblock, MountError> {
    let there = store.list("")?;
    if there.iter().any(|name| name == SUPERBLOCK) {
        return Err(MountError::Occupied("there is a skylog filesystem already".to_owned()));
    }
    // Whoever makes one in a folder holds the lock that lies there.
    if let Some(name) = there.iter().find(|name| *name != LOCK) {
        return Err(MountError::Occupied(format!("the store is not empty (it holds {name})")));
    }
    let superblock = Superblock {
        uuid: Uuid(random.u128()),
        created: clock.now().secs,
        segment_size: u64::from(options.segment_size),
        append_only: false,
    };
    let publication = |number: u64, start: Lsn, end: Lsn, body: Body| Publication {
        uuid: superblock.uuid,
        state: superblock.uuid,
        nonce: Nonce(random.u128()),
        epoch: 1,
        generation: 1,
        number,
        wall: clock.now().as_nanos(),
        checkpoint: number,
        start,
        end,
        body,
    };
    let base = Base { roots: [None; 2], windows: Vec::new(), node_segments: Vec::new(), settlement: Vec::new() };
    let first = Lsn::ZERO.next(1);
    let publications = [
        publication(0, Lsn::ZERO, Lsn::ZERO, Body::Base(base)),
        publication(1, Lsn::ZERO, first, root_directory(clock, first, options)),
    ];
    for publication in publications {
        create(store, &names::publication(1, publication.number), publication.encode().into())?;
    }
    create(store, SUPERBLOCK, superblock.encode().into())?;
    Ok(superblock)
}

fn create(store: &dyn Store, name: &str, bytes: bytes::Bytes) -> Result<(), MountError> {
    match store.create(name, bytes)? {
        Created::New => Ok(()),
        Created::Exists => Err(MountError::Occupied(format!("somebody else is making one (found {name})"))),
    }
}

fn root_directory(clock: &dyn Clock, lsn: Lsn, options: MkfsOptions) -> Body {
    let now = clock.now();
    let root = Inode {
        mode: libc::S_IFDIR | 0o755,
        uid: options.uid,
        gid: options.gid,
        nlink: 2,
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        rdev: 0,
        flags: 0,
        parent: InodeNo::ROOT,
        next_cookie: 3,
        target: bytes::Bytes::new(),
    };
    let edits = [(TreeId::Files, Edit::Put { key: key::inode(InodeNo::ROOT), value: root.encode() })];
    let batches = encode_head(lsn, 1, &encode_edits(&edits), &[], false).into();
    let window = WindowEntry { start: Lsn::ZERO, end: lsn, segments: Vec::new(), objects: 0 };
    Body::Increment(Increment { windows: vec![window], settlement: Vec::new(), batches })
}
