//! What a test's own thread logs.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static HEARD: RefCell<Option<Vec<(Level, String)>>> = const { RefCell::new(None) };
}

struct Ear;

impl Log for Ear {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        HEARD.with_borrow_mut(|heard| {
            if let Some(heard) = heard {
                heard.push((record.level(), record.args().to_string()));
            }
        });
    }

    fn flush(&self) {}
}

/// Listens to this thread from now on.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Ear).expect("nobody else listens in tests");
        log::set_max_level(LevelFilter::Info);
    });
    HEARD.set(Some(Vec::new()));
}

/// What was logged on this thread since it was last asked for.
pub fn heard() -> Vec<(Level, String)> {
    HEARD.with_borrow_mut(|heard| heard.as_mut().map(std::mem::take).expect("listening"))
}
