//! What the proxy does to requests: the faults, and how often each.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// Something that goes wrong between a client and the store. What cannot happen to a request (a flipped byte of no body)
/// does not, and is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The connection is reset at once. For every request: nobody listens, connecting is refused.
    Refuse,
    /// The request waits up to three seconds.
    Delay,
    /// No answer and no end of the connection until the client has had enough.
    Stall,
    /// The connection is reset after half of the request's body.
    CutRequest,
    /// The connection is reset after half of the answer's body.
    CutAnswer,
    /// 500, without a look at the request.
    Internal,
    /// 503, the answer of a store that has too much to do.
    Unavailable,
    /// 429, every other time with the seconds to wait.
    TooMany,
    /// Half of the body of an object, and the connection ends; the length announced is right.
    Short,
    /// Half of the body of an object, and the length announced is that of the half.
    Lie,
    /// One bit of the body of an object is another.
    Flip,
    /// The store does what was asked; the client sees the connection reset.
    Lost,
    /// The client sees the connection reset; the store does what was asked seconds later. Only what changes the store.
    Late,
}

/// Every fault, and its word.
const FAULTS: [(Fault, &str); 13] = [
    (Fault::Refuse, "refuse"),
    (Fault::Delay, "delay"),
    (Fault::Stall, "stall"),
    (Fault::CutRequest, "cut-request"),
    (Fault::CutAnswer, "cut-answer"),
    (Fault::Internal, "500"),
    (Fault::Unavailable, "503"),
    (Fault::TooMany, "429"),
    (Fault::Short, "short"),
    (Fault::Lie, "lie"),
    (Fault::Flip, "flip"),
    (Fault::Lost, "lost"),
    (Fault::Late, "late"),
];

impl Fault {
    pub fn word(self) -> &'static str {
        FAULTS.iter().find(|(fault, _)| *fault == self).map_or("", |(_, word)| word)
    }
}

/// All that is to happen; the default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The share of requests, in thousandths, that meets each fault.
    pub faults: BTreeMap<Fault, u32>,
    /// Every request waits this long.
    pub latency: Duration,
    /// The store is not told of `If-None-Match`: one that does not know conditional writes.
    pub ignore_conditions: bool,
}

impl Plan {
    /// Nobody listens.
    pub fn is_away(&self) -> bool {
        self.faults.get(&Fault::Refuse).is_some_and(|share| *share >= 1000)
    }

    /// What happens to the request with this random number.
    pub fn draw(&self, number: u64) -> Option<Fault> {
        let mut left = u32::try_from(number % 1000).unwrap_or(0);
        for (fault, share) in &self.faults {
            if left < *share {
                return Some(*fault);
            }
            left -= share;
        }
        None
    }

    /// Takes a word: `latency-ms=50`, `ignore-conditions=1`, or a fault and its thousandths, `503=100`.
    fn take(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is not NAME=NUMBER"))?;
        let value: u32 = value.parse().map_err(|_| format!("{word:?} does not end with a number"))?;
        match (name, FAULTS.iter().find(|(_, known)| *known == name)) {
            ("latency-ms", _) => self.latency = Duration::from_millis(value.into()),
            ("ignore-conditions", _) => self.ignore_conditions = value != 0,
            (_, Some((fault, _))) => drop(self.faults.insert(*fault, value)),
            (_, None) => return Err(format!("there is no fault {name:?}")),
        }
        Ok(())
    }
}

/// Words with blanks between; none of them is a plan in which nothing happens.
impl FromStr for Plan {
    type Err = String;

    fn from_str(words: &str) -> Result<Plan, String> {
        let mut plan = Plan::default();
        words.split_whitespace().try_for_each(|word| plan.take(word))?;
        Ok(plan)
    }
}
