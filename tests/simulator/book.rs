//! What was promised when: notes in the log of calls, so that whoever judges a crash knows what had been started and what
//! had been acknowledged just then.

use crate::model::{Model, Tree};
use crate::repairs::Target;
use parking_lot::Mutex;
use skylog::media::sim::{Call, CallLog};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The promises that hold from one moment on. Operations are counted from 1 along a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Which line of states.
    pub line: usize,
    /// So many operations survive any crash.
    pub synced: usize,
    /// So many were begun.
    pub started: usize,
    /// So many are in the store, published and acknowledged.
    pub shipped: usize,
    /// This is damaged, and a repair of it is under way.
    pub repair: Option<Target>,
}

/// The states of the model after 0, 1, 2, … operations. A crash that lost some begins another line.
#[derive(Clone, Default)]
pub struct Line {
    pub models: Vec<Arc<Model>>,
    pub digests: Vec<u64>,
}

impl Line {
    /// After one more operation.
    pub fn push(&mut self, model: Model) {
        self.digests.push(digest(&model.tree()));
        self.models.push(Arc::new(model));
    }

    /// The same up to operation `n`, after which the daemon died.
    pub fn cut(&self, n: usize) -> Line {
        let mut line = Line { models: self.models[..n].to_vec(), digests: self.digests[..=n].to_vec() };
        let mut last = Model::clone(&self.models[n]);
        last.crash();
        line.models.push(Arc::new(last));
        line
    }

    /// The latest operation of `from..=to` after which the tree was like this.
    pub fn find(&self, digest: u64, from: usize, to: usize) -> Option<usize> {
        let to = to.min(self.digests.len() - 1);
        (from..=to).rev().find(|n| self.digests[*n] == digest)
    }

    /// The first such operation.
    pub fn find_first(&self, digest: u64, from: usize, to: usize) -> Option<usize> {
        let to = to.min(self.digests.len() - 1);
        (from..=to).find(|n| self.digests[*n] == digest)
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.models.len() - 1
    }

    /// The newest state.
    pub fn last(&self) -> &Arc<Model> {
        self.models.last().expect("a line begins with a state")
    }
}

/// A tree in one number, to tell two apart.
pub fn digest(tree: &Tree) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (path, entry) in tree {
        let stat = &entry.stat;
        path.hash(&mut hasher);
        (stat.mode, stat.uid, stat.gid, stat.nlink, stat.size, stat.rdev, stat.times).hash(&mut hasher);
        (&entry.contents, &entry.xattrs).hash(&mut hasher);
        entry.first_path.hash(&mut hasher);
    }
    hasher.finish()
}

/// The notes of one log. Whoever is told that something is durable writes here at that very moment.
pub struct Book {
    log: Arc<CallLog>,
    notes: Mutex<Vec<Note>>,
}

impl Book {
    /// A book that begins with one note.
    pub fn new(log: &Arc<CallLog>, first: Note) -> Arc<Book> {
        Arc::new(Book { log: log.clone(), notes: Mutex::new(vec![first]) })
    }

    /// Changes what holds from now on.
    pub fn note(&self, change: impl FnOnce(&mut Note)) {
        let mut notes = self.notes.lock();
        let last = *notes.last().expect("it began with one");
        let mut next = last;
        change(&mut next);
        if next != last {
            self.log.mark(notes.len() as u64);
            notes.push(next);
        }
    }

    /// What holds now.
    pub fn last(&self) -> Note {
        *self.notes.lock().last().expect("it began with one")
    }

    /// What holds after each number of calls, from 0.
    pub fn by_moment(&self, calls: &[Call]) -> Vec<Note> {
        let notes = self.notes.lock();
        let mut holds = vec![notes[0]];
        for call in calls {
            holds.push(match call {
                Call::Mark(note) => notes[usize::try_from(*note).expect("few notes")],
                _ => *holds.last().expect("it began with one"),
            });
        }
        holds
    }
}
