//! The superblock: as it is, or put together anew.
//!
//! A damaged one is no reason to lose a filesystem: everything else says whose it is. It comes from the copy that the state directory
//! of a remote store has, or is made of what publications, the manifest, and the damaged text itself still say. **A store in
//! which nothing else is ours is none**, and is never made one.

use super::Damaged;
use super::generations::Listing;
use crate::format::ids::Uuid;
use crate::format::manifest::Manifest;
use crate::format::names::{self, Parsed, SUPERBLOCK};
use crate::format::publication::Publication;
use crate::format::store_file::{STORE_FILE, StoreFile};
use crate::format::store_segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::format::superblock::{Superblock, SuperblockError};
use crate::media::Media;
use crate::recovery::MountError;
use crate::repair::{RepairError, confirm};
use crate::store::{Store, StoreError};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Objects that are asked whose they are.
const VOTES: usize = 64;
/// Bytes of a segment that is made where nothing says how long the journal's are.
const SEGMENT_BYTES: u64 = 64 << 20;
/// A store file is a few lines.
const STORE_FILE_BYTES_MAX: u64 = 128 << 10;

/// Reads the superblock, or makes it anew.
pub(super) fn configuration(
    store: &dyn Store,
    state: Option<&Arc<dyn Media>>,
    manifest: Option<&Manifest>,
    listing: &mut Listing,
    damaged: &mut Vec<Damaged>,
) -> Result<Superblock, RepairError> {
    let (bytes, what) = match store.get(SUPERBLOCK) {
        Ok(bytes) => match Superblock::decode(&bytes) {
            Ok(superblock) => return Ok(superblock),
            Err(e) => {
                let is_newer = matches!(e, SuperblockError::Newer { .. } | SuperblockError::Incompatible(_));
                // What a newer program wrote is not damaged.
                if is_newer && Superblock::is_sealed(&bytes) {
                    return Err(MountError::Superblock(e).into());
                }
                confirm(store, SUPERBLOCK, None, &bytes)?;
                (bytes, e.to_string())
            }
        },
        Err(StoreError::NotFound { .. }) => (Default::default(), "is missing".to_owned()),
        Err(e) => return Err(e.into()),
    };
    let evidence = votes(store, listing)?;
    let uuid = evidence.most_named().ok_or(MountError::NotAStore)?;
    damaged.push(Damaged { place: SUPERBLOCK.to_owned(), local: false, what });
    if let Some(known) = state.map(|state| copy_in(&**state)).transpose()?.flatten() {
        if known.uuid == uuid {
            return Ok(known);
        }
    }
    let slot = manifest.and_then(|manifest| manifest.journal.first().map(|entry| entry.size));
    let text = String::from_utf8_lossy(&bytes);
    Ok(Superblock {
        uuid,
        created: number_in(&text, "created").and_then(|created| i64::try_from(created).ok()).unwrap_or(evidence.oldest),
        segment_size: slot.or_else(|| number_in(&text, "segment_size").filter(is_size)).unwrap_or(SEGMENT_BYTES),
        append_only: text.contains("\"append_only\":true"),
        // The maps that are built now are counted.
        usage: true,
    })
}

/// Whether nothing may ever be deleted, of a filesystem whose superblock is damaged: as the copy in the state directory says, or what
/// is left of the text. Nothing if neither does.
pub fn append_only(store: &dyn Store, state: Option<&Arc<dyn Media>>, uuid: Uuid) -> Result<Option<bool>, RepairError> {
    let known = state.map(|state| copy_in(&**state)).transpose()?.flatten();
    if let Some(known) = known.filter(|known| known.uuid == uuid) {
        return Ok(Some(known.append_only));
    }
    let bytes = there(store.get(SUPERBLOCK))?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let is = |said: bool| text.contains(&format!("\"append_only\":{said}"));
    Ok([true, false].into_iter().find(|said| is(*said)))
}

/// A journal segment that skylog makes.
fn is_size(bytes: &u64) -> bool {
    let (min, max) = (u64::from(crate::journal::SEGMENT_BYTES_MIN), u64::from(crate::journal::SEGMENT_BYTES_MAX));
    (min..=max).contains(bytes) && bytes % 4096 == 0
}

/// A number behind the name of a member.
fn number_in(text: &str, member: &str) -> Option<u64> {
    let (_, rest) = text.split_once(&format!("\"{member}\": "))?;
    let (digits, _) = rest.split_once(',')?;
    digits.parse().ok()
}

/// What the state directory says that the superblock was.
fn copy_in(state: &dyn Media) -> Result<Option<Superblock>, RepairError> {
    let file = match state.open(STORE_FILE) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let len = file.len()?;
    if len > STORE_FILE_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(len).expect("bounded")];
    file.read_at(&mut bytes, 0)?;
    Ok(StoreFile::decode(&bytes).ok().map(|file| file.superblock))
}

/// Whose the objects in a store are.
#[derive(Default)]
struct Votes {
    named: HashMap<Uuid, usize>,
    /// When the oldest publication was made, seconds since 1970.
    oldest: i64,
}

impl Votes {
    fn most_named(&self) -> Option<Uuid> {
        self.named.iter().max_by_key(|(uuid, votes)| (**votes, uuid.0)).map(|(uuid, _)| *uuid)
    }
}

fn votes(store: &dyn Store, listing: &mut Listing) -> Result<Votes, RepairError> {
    let mut votes = Votes::default();
    let (mut oldest, mut asked) = (i64::MAX, 0);
    for generation in listing.newest_first() {
        if asked >= VOTES {
            break;
        }
        let numbers: Vec<u64> = listing.numbers(store, generation)?.iter().copied().take(VOTES).collect();
        for number in numbers {
            asked += 1;
            let Some(bytes) = there(store.get(&names::publication(generation, number)))? else { continue };
            if let Ok(publication) = Publication::decode(&bytes) {
                *votes.named.entry(publication.uuid).or_default() += 1;
                oldest = oldest.min(publication.wall / 1_000_000_000);
            }
        }
    }
    votes.oldest = if votes.named.is_empty() { 0 } else { oldest };
    let mut segments = Vec::new();
    store.walk("seg", &mut |name| {
        segments.extend(matches!(names::parse(name), Some(Parsed::Segment(_))).then(|| name.to_owned()));
        if segments.len() == VOTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    for name in segments {
        let Some(bytes) = there(store.get_some(&name, 0..SEGMENT_HEADER_BYTES as u64))? else { continue };
        if let Ok(header) = SegmentHeader::decode(&bytes) {
            *votes.named.entry(header.uuid).or_default() += 1;
        }
    }
    Ok(votes)
}

/// What is in the store; nothing if it is not there any more.
fn there<T>(got: Result<T, StoreError>) -> Result<Option<T>, RepairError> {
    match got {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
