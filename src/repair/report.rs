//! What a repair found, and did: for the command, and as text to be kept.

use super::{Damaged, Touched};
use crate::check;
use crate::format::ids::{Lsn, Uuid};
use crate::format::names;
use crate::format::publication::Position;
use crate::journal::FOLDER;
use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

/// So many files are kept for the command to show; the text has all of them.
const SHOWN_MAX: usize = 1000;

/// What a repair found, and did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the check said before. Empty where a repair that was interrupted only had to come to its end.
    pub before: check::Report,
    /// What is damaged, each thing once.
    pub damaged: BTreeSet<Damaged>,
    /// Files that are not what they were, or may not be: the first of them,
    pub touched: Vec<Touched>,
    /// and how many there are.
    pub touched_count: u64,
    /// Batches that are nowhere any more: after the first, up to and with the second.
    pub lost: Vec<(Lsn, Lsn)>,
    /// Why the state directory was not read from.
    pub outlived: Option<String>,
    /// Nothing can be mounted from that state directory, so it moves aside all the same. If not, it stays as it is.
    pub is_unusable: bool,
    /// What a writer that held it may have had and is not in it, if it was taken from one.
    pub taken: Option<String>,
    /// The base that it made; nothing if nothing was changed.
    pub base: Option<Position>,
    /// It was made by an earlier repair that was interrupted.
    pub resumed: bool,
    /// An earlier repair of this state directory was interrupted, so all is done whatever the check says.
    pub begun: bool,
    /// The report, a store object. Copies of damaged store objects lie beside it.
    pub kept: Option<String>,
    /// The folder in the state directory that holds what was there, if anything moved.
    pub aside: Option<String>,
    /// What the check says after it.
    pub after: Option<check::Report>,
    /// Why there could be none: something could not be read then.
    pub unchecked: Option<String>,
    /// The text to be kept.
    pub(super) text: String,
}

impl Report {
    /// Whether there was nothing to repair.
    pub fn was_clean(&self) -> bool {
        self.before.is_clean() && !self.resumed && !self.begun && !self.is_unusable
    }

    /// Whether changes may be missing of which nothing is left but that they were somewhere: in publications, or in the journal.
    pub fn may_miss_changes(&self) -> bool {
        let held = |damaged: &Damaged| match damaged.local {
            true => damaged.place.starts_with(FOLDER),
            false => damaged.place.starts_with("gen/"),
        };
        !self.lost.is_empty() || self.damaged.iter().any(held)
    }

    /// Notes a file. The text grows with each.
    pub(super) fn touch(&mut self, touched: Touched) {
        let path = touched.path.as_deref().unwrap_or("no name leads to it");
        let Ok(()) = write!(self.text, "{path} (inode {})", touched.ino) else { return };
        touched.what.iter().for_each(|what| self.text.push_str(&format!("\n  {what}")));
        self.text.push('\n');
        self.touched_count += 1;
        if self.touched.len() < SHOWN_MAX {
            self.touched.push(touched);
        }
    }

    /// All that is to be kept, as text.
    pub(super) fn to_text(&self, filesystem: Uuid, repair: Uuid, when: impl Display) -> String {
        let mut text = format!("repair {repair} of filesystem {filesystem}, {when}\n");
        if let Some(reason) = &self.outlived {
            let then = if self.is_unusable { "; it moves aside" } else { "" };
            text.push_str(&format!("\nThe state directory was not read: {reason}{then}\n"));
        }
        if self.begun {
            text.push_str("\nAn earlier try of this repair was interrupted.\n");
        }
        text.push_str("\nDamaged:\n");
        for Damaged { place, local, what } in &self.damaged {
            let copy = match local {
                true => "in the state directory; it moves aside".to_owned(),
                false => format!("if there was something to copy, it is {}", names::damaged(repair, place)),
            };
            text.push_str(&format!("{place}: {what} ({copy})\n"));
        }
        text.push_str("\nWhat the check said:\n");
        self.before.problems.iter().for_each(|problem| text.push_str(&format!("{problem}\n")));
        if self.before.unlisted > 0 {
            text.push_str(&format!("and {} more\n", self.before.unlisted));
        }
        if !self.lost.is_empty() {
            text.push_str("\nChanges that are nowhere any more:\n");
            self.lost.iter().for_each(|(from, to)| text.push_str(&format!("after {from}, up to {to}\n")));
        }
        if self.may_miss_changes() {
            text.push_str(
                "\nWhat damaged publications or the journal held may be missing, wherever it is in no other place.\n",
            );
        }
        text.push_str(&format!("\nFiles that are not what they were, or may not be: {}\n", self.touched_count));
        text + &self.text
    }
}
