//! An overlay over entries that come from elsewhere than a tree that can be read: what is left of one.

use super::changes::Changes;
use super::overlay::Overlay;
use bytes::Bytes;

/// Lays an overlay over entries that come one by one, in the order of their keys.
pub struct Laid<'a> {
    changes: Changes<'a>,
}

impl<'a> Laid<'a> {
    /// Over no entries so far.
    pub fn new(overlay: &'a Overlay) -> Laid<'a> {
        Laid { changes: Changes::new(vec![overlay], &[]) }
    }

    /// The next entry below; its key is above all before. `each` gets what the map holds up to it.
    pub fn entry(&mut self, key: Bytes, value: Bytes, each: &mut dyn FnMut(Bytes, Bytes)) {
        while let Some(next) = self.changes.peek_key().filter(|next| **next <= key) {
            let same = *next == key;
            self.change(each);
            if same {
                return;
            }
        }
        if self.changes.deleted_until(&key).is_none() {
            each(key, value);
        }
    }

    /// There are no more entries below.
    pub fn finish(mut self, each: &mut dyn FnMut(Bytes, Bytes)) {
        while self.changes.peek_key().is_some() {
            self.change(each);
        }
    }

    fn change(&mut self, each: &mut dyn FnMut(Bytes, Bytes)) {
        let Some(change) = self.changes.next() else { return };
        if let Some(value) = change.value {
            each(change.key.clone(), value.clone());
        }
    }
}
