//! What the program says while a trial runs, kept by thread: an errno alone names no object.

use std::cell::RefCell;

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Ear;

impl log::Log for Ear {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            HEARD.with_borrow_mut(|heard| heard.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// From now on everything is heard.
pub fn listen() {
    log::set_logger(&Ear).expect("nobody else listens");
    log::set_max_level(log::LevelFilter::Info);
}

/// What this thread said since it was asked last.
pub fn take() -> Vec<String> {
    HEARD.take()
}
