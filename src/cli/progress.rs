//! A progress bar on standard error, when that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress of one long step, in bytes.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar that appears with the first call of [`Progress::at`].
    pub fn new(what: &'static str) -> Progress {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
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

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
