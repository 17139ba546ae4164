//! A process of the model: product code that talks to a store whose every call is a point where others may go first.
//!
//! A process is a function that does the same whenever it is given the same answers. To let it do one call more, it is run from
//! its beginning with the answers it had, and left at the first call that has none. So a state of the model is data, can be
//! copied, and two ways that lead to the same state are one.

use bytes::Bytes;
use parking_lot::Mutex;
use skylog::format::ids::Lsn;
use skylog::format::publication::{Body, Position};
use skylog::media::sim::{hash_of, mix};
use skylog::store::{Created, Store, StoreError};
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;

/// What a process asks of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Get(String),
    Size(String),
    Create(String, Bytes),
    Put(String, Bytes),
    Delete(String),
    List,
    /// Nothing: here it may die, after something was done that is not a call.
    Point,
}

impl Ask {
    /// Whether it changes the store.
    pub fn writes(&self) -> bool {
        matches!(self, Ask::Create(..) | Ask::Put(..) | Ask::Delete(_))
    }

    pub fn hash(&self) -> u128 {
        let of = |name: &str, kind| mix(hash_of(name.as_bytes()), kind);
        match self {
            Ask::Get(name) => of(name, 1),
            Ask::Size(name) => of(name, 2),
            Ask::Create(name, bytes) => of(name, 3) ^ hash_of(bytes),
            Ask::Put(name, bytes) => of(name, 4) ^ hash_of(bytes),
            Ask::Delete(name) => of(name, 5),
            Ask::List => 6,
            Ask::Point => 7,
        }
    }
}

/// What it hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Object(Bytes),
    NotFound,
    Created,
    Exists,
    Done,
    Names(Vec<String>),
    /// No answer: it may have been done, or be done at any time.
    Failed,
    /// The process dies, whatever became of the call.
    Died,
}

impl Answer {
    pub fn hash(&self) -> u128 {
        match self {
            Answer::Object(bytes) => hash_of(bytes),
            Answer::Names(names) => names.iter().fold(1, |sum, name| mix(sum ^ hash_of(name.as_bytes()), 1)),
            Answer::NotFound => 2,
            Answer::Created => 3,
            Answer::Exists => 4,
            Answer::Done => 5,
            Answer::Failed => 6,
            Answer::Died => 7,
        }
    }
}

/// What a process says that it knows.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// This publication is in the store.
    Told { at: Position, end: Lsn, body: Body },
    /// The newest state, and the first free number behind it.
    Walked { free: Position, end: Lsn, checkpoint: u64 },
    /// The closing object is its own, and so is the epoch; it knows all windows up to `end`, and all logs up to `reach`.
    Won { at: Position, epoch: u32, end: Lsn, reach: Lsn },
    /// Another writer has taken over, or another copy of the state directory has gone on.
    Fenced,
    /// Something that must not be.
    Wrong(String),
}

/// Thrown to leave a process at a call that has no answer yet,
struct Left;
/// and at one at which it dies.
struct Dead;

/// A store that gives the answers of a script.
pub struct Script {
    state: Mutex<State>,
}

struct State {
    answers: Arc<Vec<Answer>>,
    next: usize,
    ask: Option<Ask>,
    facts: Vec<Fact>,
}

/// How far a process has come.
pub struct Run {
    /// What it asks next; nothing when it has ended.
    pub ask: Option<Ask>,
    /// All that it has said.
    pub facts: Vec<Fact>,
}

/// Runs a process with these answers.
pub fn run(process: &dyn Fn(&Arc<Script>), answers: Arc<Vec<Answer>>) -> Run {
    let state = State { answers, next: 0, ask: None, facts: Vec::new() };
    let script = Arc::new(Script { state: Mutex::new(state) });
    let ended = catch_unwind(AssertUnwindSafe(|| process(&script)));
    let mut state = script.state.lock();
    if let Err(thrown) = ended {
        if !thrown.is::<Left>() {
            let words = thrown.downcast_ref::<String>().cloned();
            let words = words.or_else(|| thrown.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            state.ask = None;
            state.facts.push(Fact::Wrong(format!("a panic: {words:?}")));
        }
    }
    Run { ask: state.ask.take(), facts: std::mem::take(&mut state.facts) }
}

/// Runs one life of a process; `None` if it dies in the middle.
pub fn life<T>(live: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(live)) {
        Ok(value) => Some(value),
        Err(thrown) if thrown.is::<Dead>() => None,
        Err(thrown) => resume_unwind(thrown),
    }
}

impl Script {
    pub fn say(&self, fact: Fact) {
        self.state.lock().facts.push(fact);
    }

    /// The process may die here.
    pub fn point(&self) {
        self.answer(Ask::Point);
    }

    fn answer(&self, ask: Ask) -> Answer {
        let mut state = self.state.lock();
        let Some(answer) = state.answers.get(state.next).cloned() else {
            state.ask = Some(ask);
            drop(state);
            resume_unwind(Box::new(Left));
        };
        state.next += 1;
        drop(state);
        if answer == Answer::Died {
            resume_unwind(Box::new(Dead));
        }
        answer
    }
}

fn refused(action: &'static str, name: &str, answer: Answer) -> StoreError {
    match answer {
        Answer::NotFound => StoreError::NotFound { name: name.into() },
        Answer::Failed => StoreError::Failed { action, name: name.into(), reason: "no answer".into() },
        other => unreachable!("{other:?} is no answer to {action}"),
    }
}

impl Store for Script {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        match self.answer(Ask::Get(name.into())) {
            Answer::Object(bytes) => Ok(bytes),
            other => Err(refused("get", name, other)),
        }
    }

    fn get_some(&self, _name: &str, _range: Range<u64>) -> Result<Bytes, StoreError> {
        unreachable!("objects of generations are read whole")
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        match self.answer(Ask::Size(name.into())) {
            Answer::Done => Ok(1),
            other => Err(refused("get", name, other)),
        }
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        match self.answer(Ask::Put(name.into(), bytes)) {
            Answer::Done => Ok(()),
            other => Err(refused("put", name, other)),
        }
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        match self.answer(Ask::Create(name.into(), bytes)) {
            Answer::Created => Ok(Created::New),
            Answer::Exists => Ok(Created::Exists),
            other => Err(refused("create", name, other)),
        }
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.answer(Ask::Delete(name.into())) {
            Answer::Done => Ok(()),
            other => Err(refused("delete", name, other)),
        }
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        match self.answer(Ask::List) {
            Answer::Names(names) => {
                let _ = names.iter().try_for_each(|name| each(name));
                Ok(())
            }
            other => Err(refused("list", prefix, other)),
        }
    }

    fn publish_local(&self, _file: &Path, _name: &str) -> Result<bool, StoreError> {
        Ok(false)
    }
}
