//! Every way in which processes can follow one another, and everything that can become of their calls, up to a bound.
//!
//! A call is applied and answered. Or, as long as there are faults left, one of these: no answer comes, and it is applied at any
//! later moment or never, also after its process has ended; it is answered and applied once more at any later moment; it is
//! applied before the try that is answered. A list may be as old as the start. A process may die at any call. None goes on at any
//! moment: what is right then is looked at in every state.
//!
//! States that are the same are looked at once; the ways through them are counted all the same.

use crate::fence::oracle::{Chain, Violation};
use crate::fence::script::{Answer, Ask, Fact, Script, run};
use bytes::Bytes;
use skylog::media::sim::{hash_of, mix};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A process of the model.
pub type Process = Box<dyn Fn(&Arc<Script>)>;

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Calls that something else becomes of than to be applied and answered.
    pub faults: u8,
    /// Deaths of those that may die.
    pub deaths: u8,
    /// How often one is left that could go on; `None` for any number.
    pub switches: Option<u8>,
}

/// What a search has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub states: u64,
    pub steps: u64,
    /// Different ways from the start to an end.
    pub ways: f64,
    /// Publications that a process was told of,
    pub told: u64,
    /// takeovers that were won,
    pub won: u64,
    /// writers that learned that they have lost,
    pub fenced: u64,
    /// and walks that were finished.
    pub walked: u64,
}

#[derive(Clone)]
struct Proc {
    answers: Arc<Vec<Answer>>,
    hash: u128,
    ask: Option<Arc<Ask>>,
    facts: usize,
    /// Publications in the chain when its walk began.
    walks_from: usize,
}

#[derive(Clone)]
struct State {
    image: Arc<Image>,
    /// A hash of it.
    sum: u128,
    chain: Chain,
    procs: Vec<Proc>,
    /// On their way.
    drift: Vec<Arc<Ask>>,
    bound: Bound,
    last: usize,
}

/// A search from one start.
pub struct Search {
    processes: Vec<Process>,
    mortal: Vec<bool>,
    listed: Vec<String>,
    /// What was seen, and how many ways lead from there to an end.
    known: HashMap<u128, f64>,
    /// Stores in which a reader that nobody disturbs has found all.
    read: HashSet<u128>,
    path: Vec<Happened>,
    pub seen: Seen,
}

/// What is in a store.
pub type Image = BTreeMap<String, Bytes>;

impl Search {
    /// `mortal` processes may die and come back.
    pub fn new(processes: Vec<(Process, bool)>) -> Search {
        let (processes, mortal) = processes.into_iter().unzip();
        let (known, read, path, seen) = (HashMap::new(), HashSet::new(), Vec::new(), Seen::default());
        Search { processes, mortal, listed: Vec::new(), known, read, path, seen }
    }

    /// Goes every way from `image`; the first that must not be ends it.
    pub fn run(&mut self, image: &Image, bound: Bound) -> Result<Seen, String> {
        self.listed = image.keys().cloned().collect();
        let idle = Proc { answers: Arc::default(), hash: 0, ask: None, facts: 0, walks_from: 0 };
        let procs = vec![idle; self.processes.len()];
        let mut state = State::new(image, procs, bound);
        let mut begin = || {
            (0..self.processes.len()).try_for_each(|p| self.proceed(&mut state, p))?;
            self.explore(&state)
        };
        match begin() {
            Ok(ways) => self.seen.ways = ways,
            Err(Violation(what)) => {
                let path: Vec<String> = self.path.iter().map(Happened::words).collect();
                return Err(format!("{what}\n  {}", path.join("\n  ")));
            }
        }
        self.seen.states = self.known.len() as u64;
        Ok(self.seen)
    }

    /// Runs a process to its next call and weighs what it says.
    fn proceed(&mut self, state: &mut State, p: usize) -> Result<(), Violation> {
        let done = run(&*self.processes[p], state.procs[p].answers.clone());
        let known = std::mem::replace(&mut state.procs[p].facts, done.facts.len());
        state.procs[p].ask = done.ask.map(Arc::new);
        for fact in &done.facts[known..] {
            match fact {
                Fact::Told { .. } => self.seen.told += 1,
                Fact::Won { .. } => self.seen.won += 1,
                Fact::Fenced => self.seen.fenced += 1,
                Fact::Walked { .. } => self.seen.walked += 1,
                Fact::Wrong(_) => {}
            }
            state.chain.weigh(fact, state.procs[p].walks_from).inspect_err(|_| {
                self.path.push(Happened::Said(format!("process {p} says {fact:?}")));
            })?;
        }
        Ok(())
    }

    fn explore(&mut self, state: &State) -> Result<f64, Violation> {
        let key = state.key();
        if let Some(ways) = self.known.get(&key) {
            return Ok(*ways);
        }
        self.read_undisturbed(state)?;
        let mut ways = 0.0;
        for p in 0..state.procs.len() {
            let Some(ask) = state.procs[p].ask.clone() else { continue };
            let Some(bound) = state.after_switch(p) else { continue };
            let from = State { bound, last: p, ..state.clone() };
            for choice in choices(&ask, bound, self.mortal[p]) {
                ways += self.step(&from, p, &ask, choice)?;
            }
        }
        for i in 0..state.drift.len() {
            let mut next = state.clone();
            let ask = next.drift.remove(i);
            self.path.push(Happened::Landed(ask.clone()));
            self.seen.steps += 1;
            next.apply(&ask)?;
            ways += self.explore(&next)?;
            self.path.pop();
        }
        let ways = if ways == 0.0 { 1.0 } else { ways };
        self.known.insert(key, ways);
        Ok(ways)
    }

    fn step(&mut self, from: &State, p: usize, ask: &Arc<Ask>, choice: Choice) -> Result<f64, Violation> {
        let mut next = from.clone();
        self.path.push(Happened::Call(p, ask.clone(), choice));
        self.seen.steps += 1;
        next.bound.faults -= u8::from(choice.is_fault());
        let answer = match choice {
            Choice::Answered => Some(next.apply(ask)?),
            Choice::NoAnswer => {
                next.send_off(ask);
                Some(Answer::Failed)
            }
            Choice::AnsweredAndAgain => {
                next.send_off(ask);
                Some(next.apply(ask)?)
            }
            Choice::AppliedBefore => {
                next.apply(ask)?;
                None
            }
            Choice::OldList => Some(Answer::Names(self.listed.clone())),
            Choice::Dies => {
                next.bound.deaths -= 1;
                Some(Answer::Died)
            }
            Choice::DiesAfterSending => {
                next.bound.deaths -= 1;
                next.send_off(ask);
                Some(Answer::Died)
            }
        };
        if let Some(answer) = answer {
            // A walk begins with a list.
            if **ask == Ask::List {
                next.procs[p].walks_from = next.chain.len();
            }
            next.answer(p, answer);
            self.proceed(&mut next, p)?;
        }
        let ways = self.explore(&next)?;
        self.path.pop();
        Ok(ways)
    }

    /// A reader that comes now, and that nobody disturbs, finds all that was ever published.
    fn read_undisturbed(&mut self, state: &State) -> Result<(), Violation> {
        let key = state.image_hash();
        if !self.read.insert(key) {
            return Ok(());
        }
        let walk: Process = Box::new(|script| crate::fence::process::reader(script, 1));
        let facts = run_alone(&walk, &mut state.clone())?;
        let mut chain = state.chain.clone();
        facts.iter().try_for_each(|fact| chain.weigh(fact, state.chain.len())).inspect_err(|_| {
            self.path.push(Happened::Said(format!("a reader that comes now says {facts:?}")));
        })
    }
}

/// Runs a process alone, without a fault, to its end.
fn run_alone(process: &Process, state: &mut State) -> Result<Vec<Fact>, Violation> {
    let mut answers = Vec::new();
    loop {
        let done = run(&**process, Arc::new(answers.clone()));
        let Some(ask) = done.ask else { return Ok(done.facts) };
        answers.push(state.apply(&ask)?);
    }
}

/// The same, to prepare a start: what is in the store then.
pub fn prepare(process: &Process, image: &Image) -> Image {
    let mut state = State::new(image, Vec::new(), Bound { faults: 0, deaths: 0, switches: None });
    let facts = run_alone(process, &mut state).unwrap_or_else(|Violation(what)| panic!("{what}"));
    for fact in facts {
        state.chain.weigh(&fact, 0).unwrap_or_else(|Violation(what)| panic!("{what}"));
    }
    Arc::unwrap_or_clone(state.image)
}

/// One step of a way, for people.
enum Happened {
    Call(usize, Arc<Ask>, Choice),
    Landed(Arc<Ask>),
    Said(String),
}

impl Happened {
    fn words(&self) -> String {
        match self {
            Happened::Call(p, ask, choice) => format!("process {p}: {}: {choice:?}", words(ask)),
            Happened::Landed(ask) => format!("what was on its way is applied: {}", words(ask)),
            Happened::Said(what) => what.clone(),
        }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Answered,
    NoAnswer,
    AnsweredAndAgain,
    AppliedBefore,
    OldList,
    Dies,
    DiesAfterSending,
}

impl Choice {
    fn is_fault(self) -> bool {
        !matches!(self, Choice::Answered | Choice::Dies)
    }
}

fn choices(ask: &Ask, bound: Bound, mortal: bool) -> Vec<Choice> {
    let mut choices = vec![Choice::Answered];
    let dies = mortal && bound.deaths > 0;
    if dies {
        choices.push(Choice::Dies);
    }
    if bound.faults == 0 {
        return choices;
    }
    match ask {
        Ask::Point => {}
        Ask::List => choices.push(Choice::OldList),
        Ask::Get(_) | Ask::Size(_) => choices.push(Choice::NoAnswer),
        Ask::Create(..) | Ask::Put(..) | Ask::Delete(_) => {
            choices.extend([Choice::NoAnswer, Choice::AnsweredAndAgain, Choice::AppliedBefore]);
            if dies {
                choices.push(Choice::DiesAfterSending);
            }
        }
    }
    choices
}

impl State {
    fn new(image: &Image, procs: Vec<Proc>, bound: Bound) -> State {
        let sum = image.iter().fold(0, |sum: u128, (name, bytes)| sum.wrapping_add(share(name, bytes)));
        let (image, chain) = (Arc::new(image.clone()), Chain::of(image));
        State { image, sum, chain, procs, drift: Vec::new(), bound, last: 0 }
    }

    /// The bound when `p` goes on: it is a switch if the last one could have.
    fn after_switch(&self, p: usize) -> Option<Bound> {
        let Some(left) = self.bound.switches.filter(|_| p != self.last && self.procs[self.last].ask.is_some()) else {
            return Some(self.bound);
        };
        Some(Bound { switches: Some(left.checked_sub(1)?), ..self.bound })
    }

    fn send_off(&mut self, ask: &Arc<Ask>) {
        if ask.writes() {
            self.drift.push(ask.clone());
            self.drift.sort_by_key(|ask| ask.hash());
        }
    }

    fn answer(&mut self, p: usize, answer: Answer) {
        let proc = &mut self.procs[p];
        proc.hash = mix(proc.hash ^ answer.hash(), 1);
        Arc::make_mut(&mut proc.answers).push(answer);
    }

    fn apply(&mut self, ask: &Ask) -> Result<Answer, Violation> {
        Ok(match ask {
            Ask::Point => Answer::Done,
            Ask::Get(name) => self.image.get(name).map_or(Answer::NotFound, |bytes| Answer::Object(bytes.clone())),
            Ask::Size(name) => self.image.get(name).map_or(Answer::NotFound, |_| Answer::Done),
            Ask::List => Answer::Names(self.image.keys().cloned().collect()),
            Ask::Create(name, _) if self.image.contains_key(name) => Answer::Exists,
            Ask::Create(name, bytes) => {
                self.write(name, bytes)?;
                Answer::Created
            }
            Ask::Put(name, bytes) => {
                self.write(name, bytes)?;
                Answer::Done
            }
            Ask::Delete(name) => {
                self.chain.deletes(name)?;
                if let Some(old) = Arc::make_mut(&mut self.image).remove(name) {
                    self.sum = self.sum.wrapping_sub(share(name, &old));
                }
                Answer::Done
            }
        })
    }

    fn write(&mut self, name: &str, bytes: &Bytes) -> Result<(), Violation> {
        self.chain.writes(name, bytes)?;
        if let Some(old) = Arc::make_mut(&mut self.image).insert(name.to_owned(), bytes.clone()) {
            self.sum = self.sum.wrapping_sub(share(name, &old));
        }
        self.sum = self.sum.wrapping_add(share(name, bytes));
        Ok(())
    }

    fn image_hash(&self) -> u128 {
        mix(self.sum ^ self.chain.hash(), 5)
    }

    fn key(&self) -> u128 {
        let Bound { faults, deaths, switches } = self.bound;
        let mut key = mix(self.image_hash(), u64::from(faults) << 16 | u64::from(deaths) << 8);
        for proc in &self.procs {
            key = mix(key ^ proc.hash, proc.answers.len() as u64 + 1);
            key = mix(key, proc.walks_from as u64);
        }
        for ask in &self.drift {
            key = mix(key ^ ask.hash(), 3);
        }
        match switches {
            Some(left) => mix(key, u64::from(left) << 8 | self.last as u64),
            None => key,
        }
    }
}

/// What an object adds to the hash of a store.
fn share(name: &str, bytes: &Bytes) -> u128 {
    mix(hash_of(name.as_bytes()) ^ hash_of(bytes), 2)
}

fn words(ask: &Ask) -> String {
    match ask {
        Ask::Create(name, bytes) => format!("create {name} ({:08x})", crc(bytes)),
        Ask::Put(name, bytes) => format!("put {name} ({:08x})", crc(bytes)),
        other => format!("{other:?}"),
    }
}

fn crc(bytes: &Bytes) -> u64 {
    hash_of(bytes) as u64 & 0xffff_ffff
}
