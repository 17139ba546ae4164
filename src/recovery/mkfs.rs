//! Making a filesystem: generation 1 is an empty base and an increment whose one batch makes the root directory. The
//! configuration comes last: without it nothing is a store of ours.

use super::MountError;
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::format::batch::{Edit, TreeId, encode_edits, encode_head};
use crate::format::ids::{InodeNo, Lsn, Nonce, Uuid};
use crate::format::key;
use crate::format::names::{self, LOCK, SUPERBLOCK};
use crate::format::publication::{Base, Body, Increment, Publication, WindowEntry};
use crate::format::superblock::Superblock;
use crate::format::usage::{Usage, UsageLimit};
use crate::fs::root_inode;
use crate::store::{Created, Store, StoreError, is_probe};
use bytes::Bytes;
use std::ops::ControlFlow;

/// What a new filesystem is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct MkfsOptions {
    /// Bytes of a journal segment.
    pub segment_size: u32,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// What the files may take.
    pub limit: UsageLimit,
}

/// Makes a filesystem in a store that holds nothing.
pub fn mkfs(
    store: &dyn Store,
    clock: &dyn Clock,
    random: &dyn Random,
    options: MkfsOptions,
) -> Result<Superblock, MountError> {
    match store.size(SUPERBLOCK) {
        Ok(_) => return Err(MountError::Occupied("there is a skylog filesystem already".to_owned())),
        Err(StoreError::NotFound { .. }) => {}
        Err(e) => return Err(e.into()),
    }
    let mut other = None;
    store.walk("", &mut |name| {
        // Whoever makes one in a folder holds the lock that lies there.
        if name == LOCK || is_probe(name) {
            return ControlFlow::Continue(());
        }
        other = Some(name.to_owned());
        ControlFlow::Break(())
    })?;
    if let Some(name) = other {
        return Err(MountError::Occupied(format!("the store is not empty (it holds {name})")));
    }
    let superblock = Superblock {
        uuid: Uuid(random.u128()),
        created: clock.now().secs,
        segment_size: u64::from(options.segment_size),
        append_only: false,
        usage: true,
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
    let base = Base::default();
    let first = Lsn::ZERO.next(1);
    let publications = [
        publication(0, Lsn::ZERO, Lsn::ZERO, Body::Base(base)),
        publication(1, Lsn::ZERO, first, root_directory(clock, first, options)),
    ];
    let mut objects: Vec<(String, Bytes)> = Vec::new();
    for publication in publications {
        objects.push((names::publication(1, publication.number), publication.encode().into()));
    }
    objects.push((SUPERBLOCK.to_owned(), superblock.encode().into()));
    create_all(store, &objects)?;
    Ok(superblock)
}

/// Creates all or, as far as the store allows, none: what a failed mkfs left would keep the next one out.
fn create_all(store: &dyn Store, objects: &[(String, Bytes)]) -> Result<(), MountError> {
    for (made, (name, bytes)) in objects.iter().enumerate() {
        let Err(e) = create(store, name, bytes) else { continue };
        // The one that failed may be there all the same, or it may be somebody else's.
        let there = match store.get(name) {
            Ok(found) => found == *bytes,
            Err(StoreError::NotFound { .. }) => false,
            // Then what was made stays: it may be whole, and the superblock without the rest would be worse than all or nothing.
            Err(unknown) => {
                log::warn!("whether {name} is in the store is not to be known: {unknown}");
                return Err(e);
            }
        };
        let ours = made + usize::from(there);
        // The superblock goes first: without it nobody takes the rest for a filesystem.
        for (name, _) in objects[..ours].iter().rev() {
            if let Err(e) = store.delete(name) {
                log::warn!("{name} and what was made before it stay in the store: {e}");
                break;
            }
        }
        return Err(e);
    }
    Ok(())
}

/// A client that tries again by itself may meet what its first try made: no other filesystem has the same bytes.
fn create(store: &dyn Store, name: &str, bytes: &Bytes) -> Result<(), MountError> {
    match store.create(name, bytes.clone())? {
        Created::Exists if store.get(name)? != *bytes => {
            Err(MountError::Occupied(format!("somebody else is making one (found {name})")))
        }
        Created::New | Created::Exists => Ok(()),
    }
}

fn root_directory(clock: &dyn Clock, lsn: Lsn, options: MkfsOptions) -> Body {
    let root = root_inode(clock.now(), 0o755, options.uid, options.gid);
    let rows = [
        (key::inode(InodeNo::ROOT), root.encode()),
        (key::usage(), Usage::EMPTY.encode()),
        (key::limit(), options.limit.encode()),
    ];
    let count = u32::try_from(rows.len()).expect("few");
    let edits = rows.map(|(key, value)| (TreeId::Files, Edit::Put { key, value }));
    let batches = encode_head(lsn, count, &encode_edits(&edits), &[], false).into();
    let window = WindowEntry { start: Lsn::ZERO, end: lsn, segments: Vec::new(), objects: 0 };
    Body::Increment(Increment { windows: vec![window], settlement: Vec::new(), batches })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SimClock;
    use crate::base::random::SeededRandom;
    use crate::media::sim::{CallLog, Nth};
    use crate::store::sim::{SimStore, StoreFault, StoreOp};

    #[test]
    fn a_failed_mkfs_leaves_an_empty_store_and_the_next_one_succeeds() {
        for nth in 1..=3 {
            let store = SimStore::new(&CallLog::new());
            let make = || {
                let options = MkfsOptions { segment_size: 1 << 20, ..MkfsOptions::default() };
                mkfs(&store, &SimClock::default(), &SeededRandom::new(nth), options)
            };
            store.fail(Nth::new(nth).of(StoreOp::Create), StoreFault::Refused);
            make().expect_err("refused");
            assert_eq!(store.image().names().count(), 0, "create {nth} was refused");
            make().expect("made");
            assert!(matches!(make(), Err(MountError::Occupied(_))));
        }
    }

    /// It was made, the answer was lost, and so was every other: half of it would be a damaged filesystem for ever.
    #[test]
    fn a_mkfs_that_cannot_tell_what_it_made_leaves_all_or_nothing() {
        let (mut whole, mut nothing) = (0, 0);
        for nth in 1..12 {
            let store = SimStore::new(&CallLog::new());
            let options = MkfsOptions { segment_size: 1 << 20, ..MkfsOptions::default() };
            store.fail(Nth::new(nth).forever(), StoreFault::AnswerLost);
            let made = mkfs(&store, &SimClock::default(), &SeededRandom::new(1), options);
            store.heal();
            match (made, store.get(SUPERBLOCK)) {
                (_, Ok(_)) => {
                    assert!(store.image().names().count() >= 3, "only a part stayed when answer {nth} was lost");
                    whole += 1;
                }
                (Err(_), Err(_)) => nothing += 1,
                (Ok(_), Err(e)) => panic!("made, and not there: {e}"),
            }
        }
        assert!(whole > 0 && nothing > 0, "{whole} were whole, of {nothing} nothing was left");
    }

    #[test]
    fn a_probe_that_stayed_keeps_no_mkfs_out() {
        let store = SimStore::new(&CallLog::new());
        store.put(&format!("probe-{:032x}", 17), Bytes::from_static(b"first")).unwrap();
        let options = MkfsOptions { segment_size: 1 << 20, ..MkfsOptions::default() };
        mkfs(&store, &SimClock::default(), &SeededRandom::new(1), options).expect("made");
    }

    #[test]
    fn a_create_that_meets_its_own_first_try_is_no_other_mkfs() {
        for nth in 1..=3 {
            let store = SimStore::new(&CallLog::new());
            let options = MkfsOptions { segment_size: 1 << 20, ..MkfsOptions::default() };
            store.fail(Nth::new(nth).of(StoreOp::Create), StoreFault::TriedAgain);
            let made = mkfs(&store, &SimClock::default(), &SeededRandom::new(nth), options);
            assert_eq!(super::super::superblock(&store).unwrap().uuid, made.expect("made").uuid);
        }
    }

    /// Another mkfs was faster by a moment: what is there is its, whatever the answer to us was.
    #[test]
    fn a_failed_mkfs_leaves_alone_what_another_one_has_made() {
        let others = Bytes::from_static(b"another's");
        for fault in [None, Some(StoreFault::Refused)] {
            let store = SimStore::new(&CallLog::new());
            let objects = ["a", "b"].map(|name| (name.to_owned(), Bytes::from_static(b"ours")));
            store.put("b", others.clone()).unwrap();
            if let Some(fault) = fault {
                store.fail(Nth::new(2).of(StoreOp::Create), fault);
            }
            create_all(&store, &objects).expect_err("not ours alone");
            assert_eq!(store.image().names().collect::<Vec<_>>(), ["b"]);
            assert_eq!(store.get("b").unwrap(), others);
        }
    }
}
