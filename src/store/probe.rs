//! The start-up probe: does this store keep create-if-absent? The fence of all writers rests on it (promise X4).

use super::{Created, Store, StoreError};
use crate::base::random::Random;
use bytes::Bytes;

/// The names of probes start with it. They lie in no folder of their own, for a refused mount leaves nothing behind.
const PROBE: &str = "probe-";

/// Whether this is the name of a probe, which may have stayed if the store did not answer: it says nothing, and is nobody's.
pub fn is_probe(name: &str) -> bool {
    name.strip_prefix(PROBE).is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Creates an object twice under a name of its own and says in one sentence what is wrong if the second try was not
/// refused. The object is removed either way.
pub fn probe_create(store: &dyn Store, random: &dyn Random) -> Result<(), String> {
    let name = format!("{PROBE}{:032x}", random.u128());
    let verdict = create_twice(store, &name);
    let removed = store.delete(&name);
    verdict.and_then(|()| removed.map_err(|e| in_words(&e)))
}

fn create_twice(store: &dyn Store, name: &str) -> Result<(), String> {
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    let created = store.create(name, first.clone()).map_err(|e| in_words(&e))?;
    // A create that was tried again after its answer was lost finds its own object, and nobody else has that name.
    if created == Created::Exists && store.get(name).ok().as_ref() != Some(&first) {
        return Err("the store says that an object exists which was never made; it cannot keep writers apart".into());
    }
    let again = store.create(name, second).map_err(|e| in_words(&e))?;
    let kept = store.get(name).map_err(|e| in_words(&e))?;
    if again != Created::Exists || kept != first {
        return Err("the store does not refuse to create an object twice; it cannot keep writers apart".into());
    }
    Ok(())
}

fn in_words(error: &StoreError) -> String {
    format!("the probe of create-if-absent failed: {error}")
}
