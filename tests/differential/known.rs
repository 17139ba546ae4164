//! Differences that are known and meant. Their list is the table "Known differences" of `docs/semantics.md`; here stands only
//! what each of its conditions means to the test.

use super::step::{Call, Step};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where two filesystems did not say the same.
#[derive(Clone, Debug)]
pub struct Difference<'a> {
    /// The step, or none for what was found at the end.
    pub step: Option<(usize, &'a Step)>,
    /// The whole sequence.
    pub steps: &'a [Step],
    /// The file, at the end.
    pub path: &'a str,
    /// What differs.
    pub fact: &'static str,
    /// What the mount said.
    pub mount: String,
    /// What ext4 said.
    pub ext4: String,
}

/// Which calls are refused, and with which error number.
type Refused = (fn(&Call) -> bool, i32);

/// What a row of the table means.
struct Condition {
    name: &'static str,
    /// The mount refuses such calls with this error number, and ext4 is not asked.
    refused: Option<Refused>,
    /// Such differences are meant.
    covers: fn(&Difference) -> bool,
}

const CONDITIONS: &[Condition] = &[
    Condition { name: "directory-size", refused: None, covers: |d| d.fact == "directory size" },
    Condition { name: "blocks", refused: None, covers: |d| d.fact == "blocks" },
    Condition { name: "zeros-as-holes", refused: None, covers: shows_zeros_as_holes },
    Condition { name: "chown-nothing", refused: None, covers: follows_from_chown_of_nothing },
    Condition { name: "failed-whiteout", refused: None, covers: leaves_a_failed_whiteout },
    Condition { name: "capability-takes-set-id", refused: None, covers: loses_set_id_with_capability },
    Condition { name: "fifo-times", refused: None, covers: keeps_fifo_times },
    Condition { name: "o-tmpfile", refused: Some((is_tmpfile, libc::EOPNOTSUPP)), covers: |_| false },
    Condition { name: "shift-range", refused: Some((shifts_range, libc::EOPNOTSUPP)), covers: |_| false },
];

/// Blocks that are not zeros are compared by their contents, and must be data on each side (`tree.rs`).
fn shows_zeros_as_holes(difference: &Difference) -> bool {
    let whence = |whence| matches!(whence, libc::SEEK_DATA | libc::SEEK_HOLE);
    let seeks = |step: &Step| matches!(step.call, Call::Seek { whence: how, .. } if whence(how));
    let asked = difference.fact == "data map" || difference.step.is_some_and(|(_, step)| seeks(step));
    let makes_zeros =
        |step: &Step| matches!(step.call, Call::Fallocate { .. } | Call::CopyRange { .. } | Call::Truncate { .. });
    asked && difference.steps.iter().any(makes_zeros)
}

/// Random sequences do not make this call, so that what follows from it covers nothing else.
fn follows_from_chown_of_nothing(difference: &Difference) -> bool {
    let is_nothing = |step: &Step| matches!(step.call, Call::Chown { uid: u32::MAX, gid: u32::MAX, .. });
    match difference.step {
        Some((_, step)) => is_nothing(step) && difference.mount == "Ok(0)" && difference.ext4 == "Err(1)",
        None => difference.fact == "mode" && difference.steps.iter().any(is_nothing),
    }
}

fn leaves_a_failed_whiteout(difference: &Difference) -> bool {
    let whiteout = |step: &Step| matches!(step.call, Call::Rename { flags, .. } if flags & libc::RENAME_WHITEOUT != 0);
    match difference.step {
        Some((_, step)) => difference.fact == "changed" && difference.mount.is_empty() && whiteout(step),
        // A time that was set before.
        None => difference.fact == "mtime" && difference.ext4 == "now" && difference.steps.iter().any(whiteout),
    }
}

fn sets_capability(step: &Step) -> bool {
    matches!(&step.call, Call::SetXattr { name, .. } if name == "security.capability")
}

fn loses_set_id_with_capability(difference: &Difference) -> bool {
    let mode = |text: &str| u32::from_str_radix(text, 8).unwrap_or(0);
    let (mount, ext4) = (mode(&difference.mount), mode(&difference.ext4));
    let lost = mount & !ext4 == 0 && (ext4 & !mount) & !0o6000 == 0;
    difference.fact == "mode" && lost && difference.steps.iter().any(sets_capability)
}

fn keeps_fifo_times(difference: &Difference) -> bool {
    let fifo = |step: &Step| matches!(step.call, Call::Mknod { mode, .. } if mode & libc::S_IFMT == libc::S_IFIFO);
    let writes = |step: &Step| matches!(step.call, Call::Write { .. });
    let at = match difference.step {
        Some((_, step)) => difference.fact == "changed" && difference.mount.is_empty() && writes(step),
        None => matches!(difference.fact, "mtime" | "ctime"),
    };
    at && difference.steps.iter().any(fifo) && difference.steps.iter().any(writes)
}

fn is_tmpfile(call: &Call) -> bool {
    matches!(call, Call::Open { flags, .. } if flags & libc::O_TMPFILE == libc::O_TMPFILE)
}

fn shifts_range(call: &Call) -> bool {
    let shifts = libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE;
    matches!(call, Call::Fallocate { mode, .. } if mode & shifts != 0)
}

/// A row of the table, and how often it was needed.
struct Row {
    condition: &'static Condition,
    used: AtomicU64,
}

/// The table.
pub struct Known {
    rows: Vec<Row>,
}

impl Known {
    /// Reads the table: rows of the section whose first cell is a condition in backquotes.
    pub fn read() -> Known {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/semantics.md");
        let text = std::fs::read_to_string(path).expect("docs/semantics.md is there");
        let section = text.split("\n## ").find(|section| section.starts_with("Known differences"));
        let lines = section.expect("docs/semantics.md lists known differences").lines();
        let names = lines.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let row = |name: &str| {
            let condition = CONDITIONS.iter().find(|condition| condition.name == name);
            let condition = condition.unwrap_or_else(|| panic!("no condition is called {name:?}"));
            Row { condition, used: AtomicU64::new(0) }
        };
        Known { rows: names.map(row).collect() }
    }

    /// A table without rows, which covers nothing.
    pub fn nothing() -> Known {
        Known { rows: Vec::new() }
    }

    /// Conditions that the table does not list.
    pub fn missing(&self) -> Vec<&'static str> {
        let listed = |name| self.rows.iter().any(|row| row.condition.name == name);
        CONDITIONS.iter().map(|condition| condition.name).filter(|name| !listed(*name)).collect()
    }

    /// Every row, and how often it was needed.
    pub fn used(&self) -> Vec<(&'static str, u64)> {
        self.rows.iter().map(|row| (row.condition.name, row.used.load(Ordering::Relaxed))).collect()
    }

    /// The error number with which the mount refuses this step, if a row says that it does.
    pub fn refusal(&self, step: &Step) -> Option<i32> {
        let refusal = |row: &Row| row.condition.refused.filter(|(is, _)| is(&step.call)).map(|(_, number)| number);
        self.rows.iter().find_map(refusal)
    }

    /// Notes that a step was refused as its row says.
    pub fn note_refusal(&self, step: &Step) {
        let is = |row: &&Row| row.condition.refused.is_some_and(|(is, _)| is(&step.call));
        if let Some(row) = self.rows.iter().find(is) {
            row.used.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a row says so; it is then counted.
    pub fn covers(&self, difference: &Difference) -> bool {
        let row = self.rows.iter().find(|row| (row.condition.covers)(difference));
        if let Some(row) = row {
            row.used.fetch_add(1, Ordering::Relaxed);
        }
        row.is_some()
    }
}
