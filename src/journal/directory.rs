//! Where the objects of a segment are. The segment being written, and one that has no directory on disk, keep every entry
//! in memory; a sealed one keeps the first object of each directory block, and the blocks are read when needed.

use crate::format::FormatError;
use crate::format::ids::ObjectId;
use crate::format::journal_directory::{
    DIRECTORY_BLOCK, DIRECTORY_BLOCK_ENTRIES, DirectoryEntry, Footer, encode_directory,
};
use crate::media::File;
use std::io;

/// The objects of a segment, in order of their names, which is the order in which they were written.
#[derive(Clone)]
pub(super) enum Directory {
    /// Every entry.
    Full(Vec<DirectoryEntry>),
    /// Block `i` on disk starts with object `firsts[i]`.
    Sparse { footer: Footer, firsts: Vec<ObjectId> },
}

/// What the memory knows of an object.
pub(super) enum Found {
    /// It is not in this segment.
    Nowhere,
    /// It is here.
    At(DirectoryEntry),
    /// If it is in this segment, this block of its directory says where.
    InBlock { footer: Footer, number: usize },
}

impl Directory {
    pub fn empty() -> Directory {
        Directory::Full(Vec::new())
    }

    /// How many objects.
    pub fn len(&self) -> usize {
        match self {
            Directory::Full(entries) => entries.len(),
            Directory::Sparse { footer, .. } => footer.count as usize,
        }
    }

    /// Adds objects that come after all others.
    pub fn extend(&mut self, more: Vec<DirectoryEntry>) {
        match self {
            Directory::Full(entries) => {
                debug_assert!(entries.last().zip(more.first()).is_none_or(|(a, b)| a.object < b.object));
                entries.extend(more);
            }
            Directory::Sparse { .. } => unreachable!("a sealed segment is never written"),
        }
    }

    pub fn find(&self, id: &ObjectId) -> Found {
        match self {
            Directory::Full(entries) => match search(entries, id) {
                Some(entry) => Found::At(entry),
                None => Found::Nowhere,
            },
            Directory::Sparse { footer, firsts } => match firsts.partition_point(|first| first <= id) {
                0 => Found::Nowhere,
                after => Found::InBlock { footer: *footer, number: after - 1 },
            },
        }
    }

    /// The bytes that go to the very end of the segment, and what stays in memory once they are there.
    pub fn seal(&self, footer: Footer) -> (Vec<u8>, Directory) {
        let Directory::Full(entries) = self else { unreachable!("a segment is sealed once") };
        let count = u32::try_from(entries.len()).expect("entries fit in a segment");
        let firsts = entries.chunks(DIRECTORY_BLOCK_ENTRIES).map(|block| block[0].object).collect();
        (encode_directory(footer, entries), Directory::Sparse { footer: Footer { count, ..footer }, firsts })
    }

    /// Reads the directory that `footer` says is on disk. `None` when it is not whole: it is rebuilt from the groups.
    pub fn load(file: &dyn File, footer: Footer, segment_bytes: u32) -> io::Result<Option<Directory>> {
        let mut firsts = Vec::new();
        for number in 0..footer.blocks() {
            match read_block(file, from_disk, &footer, number, segment_bytes)? {
                Ok(entries) => firsts.extend(entries.first().map(|entry| entry.object)),
                Err(e) => {
                    log::warn!("the directory of journal segment {} is damaged: {e}", footer.segment);
                    return Ok(None);
                }
            }
        }
        Ok(Some(Directory::Sparse { footer, firsts }))
    }
}

/// Finds an object among entries in order.
pub(super) fn search(entries: &[DirectoryEntry], id: &ObjectId) -> Option<DirectoryEntry> {
    entries.binary_search_by(|entry| entry.object.cmp(id)).ok().map(|at| entries[at])
}

/// How a file is read: [`from_disk`] or [`from_memory`].
pub(super) type ReadAt = fn(&dyn File, &mut [u8], u64) -> io::Result<()>;

/// Waits for the disk if need be.
pub(super) fn from_disk(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_at(buf, offset)
}

/// Fails with `WouldBlock` rather than wait.
pub(super) fn from_memory(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    if file.read_resident_at(buf, offset) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

/// Reads and checks a block of a directory.
pub(super) fn read_block(
    file: &dyn File,
    read_at: ReadAt,
    footer: &Footer,
    number: usize,
    segment_bytes: u32,
) -> io::Result<Result<Vec<DirectoryEntry>, FormatError>> {
    let Some(offset) = footer.block_offset(number, u64::from(segment_bytes)) else {
        return Ok(Err(FormatError::Value("a directory that overlaps the groups")));
    };
    let mut bytes = vec![0; DIRECTORY_BLOCK];
    read_at(file, &mut bytes, offset)?;
    Ok(footer.decode_block(number, &bytes))
}

/// Reads the footer; `None` if there is none that is whole.
pub(super) fn read_footer(file: &dyn File, segment_bytes: u32) -> io::Result<Option<Footer>> {
    let mut bytes = vec![0; DIRECTORY_BLOCK];
    file.read_at(&mut bytes, u64::from(segment_bytes) - DIRECTORY_BLOCK as u64)?;
    Ok(Footer::decode(&bytes).ok())
}
