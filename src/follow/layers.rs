//! What was published over a base: each publication a layer that never changes, neighbours put together so that there are few.
//!
//! States that are read on keep the layers they were made of. What two states hold of the same changes they share: the large
//! old layers whole, and of layers that were put together the bytes of keys and values.

use crate::map::Overlay;
use std::sync::Arc;

/// A layer is at least so many times as large as the next newer one.
const GROWTH: u64 = 4;

/// Layers, newest first.
pub(super) struct Layers {
    all: Vec<Arc<Overlay>>,
    most: usize,
}

impl Layers {
    /// None, and never more than `most`.
    pub fn new(most: usize) -> Layers {
        Layers { all: Vec::new(), most }
    }

    /// Lays changes over the others.
    pub fn push(&mut self, layer: Overlay) {
        if layer.is_empty() {
            return;
        }
        self.all.insert(0, Arc::new(layer));
        while let [newest, next, ..] = &self.all[..]
            && newest.bytes() * GROWTH > next.bytes()
        {
            self.join(0);
        }
        while self.all.len() > self.most {
            let cost = |at: &usize| self.all[*at].bytes() + self.all[*at + 1].bytes();
            let cheapest = (0..self.all.len() - 1).min_by_key(cost).expect("there are several");
            self.join(cheapest);
        }
    }

    fn join(&mut self, at: usize) {
        let older = self.all.remove(at + 1);
        self.all[at] = Arc::new(older.under(&self.all[at]));
    }

    /// All of them.
    pub fn all(&self) -> &[Arc<Overlay>] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;
    use crate::format::batch::Edit;
    use crate::format::ids::Lsn;
    use crate::map::{NodeCache, Pins, View};
    use bytes::Bytes;

    fn key(n: u64) -> Bytes {
        format!("{n:04}").into_bytes().into()
    }

    fn some_edit(random: &SeededRandom, n: u64) -> Edit {
        let at = random.below(200);
        match random.below(10) {
            0 => Edit::DeleteRange { from: key(at), to: key(at + 1 + random.below(30)) },
            1..3 => Edit::Delete { key: key(at) },
            _ => Edit::Put { key: key(at), value: n.to_le_bytes().to_vec().into() },
        }
    }

    #[test]
    fn layers_put_together_say_what_one_overlay_says_and_stay_few() {
        let (random, cache, pins) = (SeededRandom::new(3), NodeCache::new(0), Pins::default());
        let (mut layers, mut all) = (Layers::new(4), Overlay::new());
        for n in 0..3000 {
            let lsn = Lsn { epoch: 1, pos: n + 1 };
            let mut layer = Overlay::new();
            for _ in 0..=n % 3 {
                let edit = some_edit(&random, n);
                layer.apply(lsn, &edit);
                all.apply(lsn, &edit);
            }
            layers.push(layer);
            assert!(layers.all().len() <= 4);
            if n % 10 == 0 {
                let one = View { overlay: &all, layers: &[], root: None };
                let many = View { overlay: &Overlay::new(), layers: layers.all(), root: None };
                let scan = |view: &View<'_>| view.scan(&cache, &pins, b"", b"~", 10_000).expect("no tree");
                assert_eq!(scan(&many), scan(&one), "after {n}");
            }
        }
        let bytes: u64 = layers.all().iter().map(|layer| layer.bytes()).sum();
        assert!(bytes <= 2 * all.bytes(), "{bytes} bytes of layers for {} of changes", all.bytes());
    }
}
