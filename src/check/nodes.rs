//! Reading tree nodes without leaving a trace: from the local node segment, else from the store, from one that is far away many
//! together.

use super::ahead::Ahead;
use crate::checkpoint::nodes::{node_file, read_file};
use crate::format::ids::{NodePtr, SegmentKind, SegmentNo, Uuid};
use crate::format::names;
use crate::format::store_segment::StoreSegment;
use crate::map::{MapError, NodeSource};
use crate::media::{File, Media};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// Node segments of some ten MiB that are read whole at a time.
pub(super) const WHOLE_AT_ONCE: usize = 4;

/// A [`NodeSource`] that keeps nothing on disk.
pub(crate) struct Nodes {
    state: Option<Arc<dyn Media>>,
    store: Arc<dyn Store>,
    /// Neighbours lie in the same file.
    open: Mutex<Option<(SegmentNo, Arc<dyn File>)>>,
    /// Only for a store that is far away. Held while it is asked: a tree is read by one thread.
    ahead: Option<Mutex<Ahead>>,
}

impl Nodes {
    pub fn new(state: Option<Arc<dyn Media>>, store: Arc<dyn Store>) -> Nodes {
        let ahead = (store.side_by_side() > 1).then(Mutex::default);
        Nodes { state, store, open: Mutex::new(None), ahead }
    }

    /// Reads every byte of a node segment; says what is wrong with it, and where, or else of how many bytes the store's object was
    /// found to be, if that was read. A damaged local copy of what the store has is no loss.
    pub fn check_whole(&self, uuid: Uuid, no: SegmentNo) -> Result<Option<u64>, (String, String)> {
        let local = match &self.state {
            None => None,
            Some(state) => match read_file(&**state, &node_file(no)) {
                Ok(bytes) => Some(check_segment(&bytes, uuid, no, SegmentKind::Nodes)),
                Err(e) if e.kind() == ErrorKind::NotFound => None,
                Err(e) => Some(Err(e.to_string())),
            },
        };
        let local = match local {
            Some(Ok(_)) => return Ok(None),
            Some(Err(what)) => Some((node_file(no), what)),
            None => None,
        };
        let name = names::segment(no);
        let remote = match self.store.get(&name) {
            Ok(bytes) => check_segment(&bytes, uuid, no, SegmentKind::Nodes).map(|_| Some(bytes.len() as u64)),
            Err(StoreError::NotFound { .. }) => Err("is missing, and is not in the state directory".to_owned()),
            Err(e) => Err(e.to_string()),
        };
        remote.map_err(|what| local.unwrap_or((name, what)))
    }

    fn local(&self, ptr: &NodePtr) -> io::Result<Option<Bytes>> {
        let Some(state) = &self.state else { return Ok(None) };
        let mut open = self.open.lock();
        let file = match &*open {
            Some((no, file)) if *no == ptr.segment => file.clone(),
            _ => match state.open(&node_file(ptr.segment)) {
                Ok(file) => open.insert((ptr.segment, file)).1.clone(),
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e),
            },
        };
        let mut bytes = vec![0; ptr.len as usize];
        match file.read_at(&mut bytes, u64::from(ptr.offset)) {
            Ok(()) => Ok(Some(bytes.into())),
            // A copy that was cut short says nothing.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(Some(Bytes::new())),
            Err(e) => Err(e),
        }
    }

    /// Whether the state directory has no file of the segment.
    fn is_far(&self, no: SegmentNo) -> bool {
        let open = |state: &Arc<dyn Media>| state.open(&node_file(no));
        self.state.as_ref().is_none_or(|state| open(state).is_err_and(|e| e.kind() == ErrorKind::NotFound))
    }

    fn read_one(&self, ptr: &NodePtr) -> Result<Bytes, MapError> {
        let local = self.local(ptr).map_err(|e| MapError::io(ptr.segment, e))?;
        if let Some(bytes) = local.as_ref().filter(|bytes| ptr.verify(bytes).is_ok()) {
            return Ok(bytes.clone());
        }
        let from = u64::from(ptr.offset);
        match (self.store.get_range(&names::segment(ptr.segment), from..from + u64::from(ptr.len)), local) {
            (Ok(bytes), _) => Ok(bytes),
            (Err(_), Some(damaged)) => Ok(damaged),
            (Err(StoreError::NotFound { .. }), None) => Err(MapError::Missing { segment: ptr.segment }),
            (Err(e), None) => Err(MapError::io(ptr.segment, io::Error::other(e))),
        }
    }
}

impl NodeSource for Nodes {
    fn read_node(&self, ptr: &NodePtr) -> Result<Bytes, MapError> {
        let Some(ahead) = &self.ahead else { return self.read_one(ptr) };
        let mut ahead = ahead.lock();
        let came = match ahead.take(ptr) {
            None if self.is_far(ptr.segment) => {
                let mut known = HashMap::new();
                ahead.fetch(ptr, &*self.store, &mut |no| *known.entry(no).or_insert_with(|| self.is_far(no)))
            }
            came => came,
        };
        // What did not come together, or not whole, is asked for alone, and tells why.
        let bytes = came.map_or_else(|| self.read_one(ptr), Ok)?;
        if ptr.verify(&bytes).is_ok() {
            ahead.note(&bytes);
        }
        Ok(bytes)
    }
}

/// Reads every byte of a segment and says what is wrong with it.
pub(super) fn check_segment(
    bytes: &Bytes,
    uuid: Uuid,
    no: SegmentNo,
    kind: SegmentKind,
) -> Result<StoreSegment, String> {
    let segment = StoreSegment::parse(bytes).map_err(|e| e.to_string())?;
    if segment.header.uuid != uuid {
        return Err(format!("belongs to filesystem {}", segment.header.uuid));
    }
    if (segment.header.segment, segment.header.kind) != (no, kind) {
        return Err(format!("says it is segment {} of {:?}", segment.header.segment, segment.header.kind));
    }
    segment.verify(bytes).map_err(|(offset, e)| format!("damaged at offset {offset}: {e}"))?;
    Ok(segment)
}
