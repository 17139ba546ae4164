//! Doing things side by side that are waited for together.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What `each` makes of every item, in the order of the items, at most `at_once` at a time. With 1 all happens in order on the
/// caller's thread.
pub fn side_by_side<T: Sync, R: Send>(at_once: usize, items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = at_once.min(items.len());
    if threads <= 1 {
        return items.iter().map(each).collect();
    }
    let next = AtomicUsize::new(0);
    let made = Mutex::new(items.iter().map(|_| None).collect::<Vec<_>>());
    let work = || {
        while let Some((at, item)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, items.get(n)?))) {
            let one = each(item);
            made.lock()[at] = Some(one);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Fewer are slower, no more.
            if thread::Builder::new().name("beside".to_owned()).spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    made.into_inner().into_iter().map(|one| one.expect("every item was done")).collect()
}
