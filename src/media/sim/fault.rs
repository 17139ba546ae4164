//! Calls that are made to fail: the nth of a kind, on names of a kind, once or for ever.

/// Which call is to fail: `Nth::new(3).of(DiskOp::Sync).on("journal/").forever()`.
#[derive(Clone, Debug)]
pub struct Nth<K> {
    /// How many matching calls still go well before it.
    before: u64,
    kind: Option<K>,
    prefix: String,
    forever: bool,
}

impl<K> Nth<K> {
    /// The nth call from now, counted from 1; of any kind, on any name, once.
    pub fn new(nth: u64) -> Nth<K> {
        Nth { before: nth.checked_sub(1).expect("counted from 1"), kind: None, prefix: String::new(), forever: false }
    }

    /// Only calls of this kind count.
    pub fn of(self, kind: K) -> Nth<K> {
        Nth { kind: Some(kind), ..self }
    }

    /// Only calls on names that start like this count.
    pub fn on(self, prefix: &str) -> Nth<K> {
        Nth { prefix: prefix.to_owned(), ..self }
    }

    /// All matching calls after it fail too.
    pub fn forever(self) -> Nth<K> {
        Nth { forever: true, ..self }
    }
}

/// The failures that were asked for.
pub(crate) struct Faults<K, F> {
    rules: Vec<(Nth<K>, F)>,
    struck: u64,
}

impl<K, F> Default for Faults<K, F> {
    fn default() -> Faults<K, F> {
        Faults { rules: Vec::new(), struck: 0 }
    }
}

impl<K: Copy + PartialEq, F: Copy> Faults<K, F> {
    pub(crate) fn add(&mut self, which: Nth<K>, fault: F) {
        self.rules.push((which, fault));
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// How many calls failed so far.
    pub(crate) fn struck(&self) -> u64 {
        self.struck
    }

    /// To be asked once for each call: how it is to fail, if it is.
    pub(crate) fn strike(&mut self, kind: K, name: &str) -> Option<F> {
        let mut found = None;
        self.rules.retain_mut(|(which, fault)| {
            if which.kind.is_some_and(|wanted| wanted != kind) || !name.starts_with(&which.prefix) {
                return true;
            }
            if which.before > 0 {
                which.before -= 1;
                return true;
            }
            found = Some(*fault);
            which.forever
        });
        self.struck += u64::from(found.is_some());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_call_of_a_kind_fails_once_or_for_ever() {
        let mut faults = Faults::default();
        faults.add(Nth::new(2).of('s').on("journal/"), 1);
        faults.add(Nth::new(4).of('w').forever(), 2);
        let calls = [('s', "a"), ('s', "journal/1"), ('w', "journal/1"), ('s', "journal/2"), ('s', "journal/2")];
        assert_eq!(calls.map(|(kind, name)| faults.strike(kind, name)), [None, None, None, Some(1), None]);
        assert_eq!([0; 5].map(|_| faults.strike('w', "x")), [None, None, Some(2), Some(2), Some(2)]);
        assert_eq!(faults.struck(), 4);
        faults.clear();
        assert_eq!(faults.strike('w', "x"), None);
    }
}
