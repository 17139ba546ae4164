//! A progress bar on standard error, when that is a terminal.

use super::output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";
const STEPS: &str = "{msg} {wide_bar} {percent}%";

/// Progress of something long.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Progress in bytes; the bar appears with the first of them.
    pub fn bytes(what: &'static str) -> Progress {
        Progress::new(what, BYTES)
    }

    /// Progress through several steps of different kinds.
    pub fn steps(what: &'static str) -> Progress {
        Progress::new(what, STEPS)
    }

    fn new(what: &'static str, template: &str) -> Progress {
        let style = ProgressStyle::with_template(template);
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        bar.set_style(style.expect("the template is well formed"));
        bar.set_message(what);
        Progress { bar }
    }

    /// `done` of `total` bytes are through.
    pub fn at(&self, done: u64, total: u64) {
        if self.bar.is_hidden() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// The step `what` is at `done` of `total`; a total of 0 is unknown.
    pub fn step(&self, what: &'static str, done: u64, total: u64) {
        self.bar.set_message(what);
        self.at(done, total.max(done));
    }

    /// A line on standard error, above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| output::note(format_args!("{line}")));
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
