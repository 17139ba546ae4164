//! The two places in which a node may be: the state directory's node segments, and the store's.

use super::super::{Damaged, RepairError, confirm};
use crate::checkpoint::nodes::{NODES, node_file, parse_node_file};
use crate::format::ids::{NodePtr, SegmentNo, Uuid};
use crate::format::names::{self, Parsed};
use crate::format::node::Node;
use crate::media::{File, Media};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// What is read of a store's segment at once: neighbours lie beside each other.
const AHEAD_BYTES: u64 = 256 << 10;
/// How many of these are kept.
const AHEAD_MAX: usize = 16;

/// Where a copy of a segment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Local,
    Store,
}

/// Why a node cannot be had: where it should be, and what is wrong there.
pub(super) type Why = (String, String);

pub(super) struct Copies {
    pub uuid: Uuid,
    state: Option<Arc<dyn Media>>,
    store: Arc<dyn Store>,
    /// Neighbours lie in the same file.
    open: Mutex<Option<(SegmentNo, Arc<dyn File>)>>,
    /// What was read of the store last: segment, where it begins, bytes.
    ahead: Mutex<VecDeque<(SegmentNo, u64, Bytes)>>,
    /// What was met first in each place: (place, whether it is local).
    damaged: Mutex<BTreeMap<(String, bool), String>>,
}

impl Copies {
    pub fn new(uuid: Uuid, state: Option<Arc<dyn Media>>, store: Arc<dyn Store>) -> Copies {
        let (open, ahead, damaged) = (Mutex::default(), Mutex::default(), Mutex::default());
        Copies { uuid, state, store, open, ahead, damaged }
    }

    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The node, if one of the copies is whole.
    pub fn node(&self, ptr: &NodePtr) -> Result<Result<Node, Why>, RepairError> {
        let range = u64::from(ptr.offset)..u64::from(ptr.offset) + u64::from(ptr.len);
        let mut why = None;
        for side in [Side::Local, Side::Store] {
            let bytes = match side {
                Side::Local => self.range(side, ptr.segment, range.clone())?,
                Side::Store => self.read_ahead(ptr.segment, range.clone())?,
            };
            let Some(bytes) = bytes else { continue };
            match Node::read(ptr, bytes.clone()) {
                Ok(node) => return Ok(Ok(node)),
                Err(e) => {
                    if side == Side::Store {
                        confirm(self.store(), &names::segment(ptr.segment), Some(range.clone()), &bytes)?;
                    }
                    let what = format!("damaged node at offset {}: {e}", ptr.offset);
                    self.note(side, ptr.segment, &what);
                    why.get_or_insert((self.place(side, ptr.segment), what));
                }
            }
        }
        Ok(Err(why.unwrap_or_else(|| {
            let what = "is missing, and is not in the state directory";
            self.note(Side::Store, ptr.segment, what);
            (names::segment(ptr.segment), what.to_owned())
        })))
    }

    /// What there is of a range of a copy: less if it ends within. `None` when there is no copy.
    pub fn range(&self, side: Side, no: SegmentNo, range: Range<u64>) -> Result<Option<Bytes>, RepairError> {
        match side {
            Side::Store => match self.store.get_some(&names::segment(no), range) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(e) => Err(e.into()),
            },
            Side::Local => match self.read_file(no, range) {
                Err(e) if is_damage(&e) => {
                    self.note(side, no, &e.to_string());
                    Ok(Some(Bytes::new()))
                }
                read => Ok(read?),
            },
        }
    }

    /// The length of a copy in bytes.
    pub fn len(&self, side: Side, no: SegmentNo) -> Result<Option<u64>, RepairError> {
        match side {
            Side::Store => match self.store.size(&names::segment(no)) {
                Ok(len) => Ok(Some(len)),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(e) => Err(e.into()),
            },
            Side::Local => match self.file(no).and_then(|file| file.map(|file| file.len()).transpose()) {
                Err(e) if is_damage(&e) => {
                    self.note(side, no, &e.to_string());
                    Ok(Some(0))
                }
                len => Ok(len?),
            },
        }
    }

    /// All segments there are, in the store with those of file data.
    pub fn segments(&self) -> Result<BTreeSet<SegmentNo>, RepairError> {
        let mut found = BTreeSet::new();
        if let Some(state) = &self.state {
            match state.list(NODES) {
                Ok(files) => found.extend(files.iter().filter_map(|name| parse_node_file(name))),
                Err(e) if e.kind() == ErrorKind::NotFound || is_damage(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.store.walk("seg", &mut |name| {
            if let Some(Parsed::Segment(no)) = names::parse(name) {
                found.insert(no);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Remembers that a copy is damaged.
    pub fn note(&self, side: Side, no: SegmentNo, what: &str) {
        let place = (self.place(side, no), side == Side::Local);
        self.damaged.lock().entry(place).or_insert_with(|| what.to_owned());
    }

    /// The same of all copies there are. Returns where one of them is.
    pub fn note_both(&self, no: SegmentNo, what: &str) -> Result<String, RepairError> {
        for side in [Side::Store, Side::Local] {
            if self.len(side, no)?.is_some() {
                self.note(side, no, what);
            }
        }
        self.home(no)
    }

    /// Where a segment is: in the state directory, else in the store.
    pub fn home(&self, no: SegmentNo) -> Result<String, RepairError> {
        let local = self.len(Side::Local, no)?.is_some();
        Ok(self.place(if local { Side::Local } else { Side::Store }, no))
    }

    pub fn damaged(&self) -> Vec<Damaged> {
        let damaged = self.damaged.lock();
        damaged
            .iter()
            .map(|((place, local), what)| Damaged { place: place.clone(), local: *local, what: what.clone() })
            .collect()
    }

    pub fn place(&self, side: Side, no: SegmentNo) -> String {
        match side {
            Side::Local => node_file(no),
            Side::Store => names::segment(no),
        }
    }

    fn file(&self, no: SegmentNo) -> io::Result<Option<Arc<dyn File>>> {
        let Some(state) = &self.state else { return Ok(None) };
        let mut open = self.open.lock();
        if let Some((_, file)) = open.as_ref().filter(|(of, _)| *of == no) {
            return Ok(Some(file.clone()));
        }
        match state.open(&node_file(no)) {
            Ok(file) => Ok(Some(open.insert((no, file)).1.clone())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn read_file(&self, no: SegmentNo, range: Range<u64>) -> io::Result<Option<Bytes>> {
        let Some(file) = self.file(no)? else { return Ok(None) };
        let end = range.end.min(file.len()?);
        let len =
            usize::try_from(end.saturating_sub(range.start)).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        let mut bytes = vec![0; len];
        if len > 0 {
            file.read_at(&mut bytes, range.start)?;
        }
        Ok(Some(bytes.into()))
    }

    /// A range of the store's copy, read with what follows it.
    fn read_ahead(&self, no: SegmentNo, range: Range<u64>) -> Result<Option<Bytes>, RepairError> {
        let mut ahead = self.ahead.lock();
        let has = |(of, from, bytes): &&(SegmentNo, u64, Bytes)| {
            *of == no && *from <= range.start && range.end <= from + bytes.len() as u64
        };
        let part = |from: u64, bytes: &Bytes| {
            let place = |at: u64| usize::try_from(at - from).map_or(bytes.len(), |at| at.min(bytes.len()));
            // A copy: what is kept does not keep all that was read.
            Bytes::copy_from_slice(&bytes[place(range.start)..place(range.end)])
        };
        if let Some((_, from, bytes)) = ahead.iter().find(has) {
            return Ok(Some(part(*from, bytes)));
        }
        let end = range.end.max(range.start + AHEAD_BYTES);
        let Some(bytes) = self.range(Side::Store, no, range.start..end)? else { return Ok(None) };
        let found = part(range.start, &bytes);
        ahead.truncate(AHEAD_MAX - 1);
        ahead.push_front((no, range.start, bytes));
        Ok(Some(found))
    }
}

/// Whether a call to the local disk failed because of what is there: something under the name of a file that is none, or is shorter.
/// A disk that fails (EIO) is no damage: the next try may find all of it, and what it had is not to be taken for gone.
fn is_damage(error: &io::Error) -> bool {
    let codes = [libc::EISDIR, libc::ENOTDIR, libc::ELOOP];
    error.raw_os_error().is_some_and(|code| codes.contains(&code)) || error.kind() == ErrorKind::UnexpectedEof
}
