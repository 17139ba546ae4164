//! The rules of the house that no compiler holds: an import only points down, FUSE, the object store's runtime, `unsafe`
//! and the clocks stay in their folders, files stay short and say what they hold.
//!
//! Runs over the text of `src/`. A finding names file, line and rule.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Every folder or file of `src/` and its layer, from the bottom up.
const LAYERS: [(&str, u32); 21] = [
    ("base", 0),
    ("format", 1),
    ("media", 2),
    ("store", 2),
    ("journal", 3),
    ("cache", 3),
    ("locate", 4),
    ("map", 4),
    ("fs", 5),
    ("checkpoint", 6),
    ("ship", 6),
    ("recovery", 6),
    ("check", 6),
    ("follow", 6),
    ("salvage", 6),
    ("repair", 6),
    ("volume", 7),
    ("rig", 7),
    ("fuse", 8),
    ("cli", 9),
    ("main", 9),
];

/// Imports between two folders of one layer that are meant to be.
const SIBLINGS: [(&str, &str); 20] = [
    ("store", "media"),
    ("map", "locate"),
    // The shipper does the jobs of the owner of the space tree.
    ("ship", "checkpoint"),
    ("recovery", "ship"),
    ("recovery", "checkpoint"),
    // A check reads as recovery does.
    ("check", "recovery"),
    ("check", "checkpoint"),
    ("check", "ship"),
    // A follower opens as recovery does, and goes on from there.
    ("follow", "recovery"),
    ("follow", "checkpoint"),
    ("follow", "ship"),
    // What is salvaged is read as a check reads: nothing is left behind.
    ("salvage", "check"),
    ("salvage", "recovery"),
    ("salvage", "checkpoint"),
    // A repair reads as a check and recovery do, and writes as the checkpointer and the shipper do.
    ("repair", "check"),
    ("repair", "recovery"),
    ("repair", "checkpoint"),
    ("repair", "ship"),
    ("rig", "volume"),
    ("main", "cli"),
];

/// A word that may stand only below one of these folders or files.
const HOMES: [(&str, &[&str]); 7] = [
    ("fuser::", &["fuse/"]),
    ("object_store::", &["store/"]),
    ("reqwest::", &["store/"]),
    ("tokio::", &["store/"]),
    ("unsafe ", &["media/"]),
    ("SystemTime::now", &["base/clock.rs"]),
    ("Instant::now", &["base/clock.rs", "cli/"]),
];

/// Words that stand for work not done.
const FORBIDDEN: [&str; 5] = ["TODO", "FIXME", "todo!(", "unimplemented!(", "allow(dead_code)"];

/// No file is longer.
const LINES_MAX: usize = 600;

struct Source {
    /// Path below `src/`, with `/`.
    name: String,
    text: String,
}

impl Source {
    /// The folder below `src/`, or the file's stem when it lies in `src/` itself.
    fn part(&self) -> &str {
        self.name.split('/').next().map(|p| p.trim_end_matches(".rs")).unwrap_or_default()
    }

    /// Lines that are code: number from 1 and text, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(n, line)| (n + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Code as statements, each with the number of its first line, so that a `use` over several lines is one.
    fn statements(&self) -> Vec<(usize, String)> {
        let mut statements: Vec<(usize, String)> = Vec::new();
        let mut open = false;
        for (n, line) in self.code() {
            match statements.last_mut().filter(|_| open) {
                Some((_, statement)) => statement.push_str(line),
                None => statements.push((n, line.to_string())),
            }
            let begins = line.trim_start().trim_start_matches("pub ").starts_with("use ");
            open = (open || begins) && !line.contains(';');
        }
        statements
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("src can be listed") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
                let text = std::fs::read_to_string(&path).expect("a source file is text");
                found.push(Source { name, text });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(found.len() > 10, "the sources were found");
    found
}

fn layer(part: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == part).map(|(_, layer)| *layer)
}

/// The parts of the crate that a line names: `crate::a`, `crate::{a, b::c}`, and the same with `skylog::`.
fn imports(line: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for prefix in ["crate::", "skylog::"] {
        for (at, _) in line.match_indices(prefix) {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &line[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => parts.extend(top_level(group).into_iter().map(first_word)),
                None => parts.push(first_word(rest)),
            }
        }
    }
    parts
}

/// Splits the inside of a use group at its outermost commas.
fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                return parts;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts
}

fn first_word(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn report(findings: &[String]) {
    let mut text = String::new();
    for finding in findings {
        writeln!(text, "{finding}").expect("a string takes all");
    }
    assert!(findings.is_empty(), "{} findings:\n{text}", findings.len());
}

#[test]
fn an_import_only_points_down() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| s.name != "lib.rs") {
        let from = source.part();
        let Some(rank) = layer(from) else {
            findings.push(format!("src/{}: no layer; add `{from}` to the table in tests/tidy.rs", source.name));
            continue;
        };
        for (n, line) in source.statements() {
            for to in imports(&line) {
                let Some(below) = layer(&to) else { continue };
                let sibling = SIBLINGS.contains(&(from, to.as_str()));
                if to != from && below >= rank && !sibling {
                    findings.push(format!("src/{}:{n}: {from} ({rank}) must not import {to} ({below})", source.name));
                }
            }
        }
    }
    report(&findings);
}

#[test]
fn foreign_crates_unsafe_and_clocks_stay_in_their_folders() {
    let mut findings = Vec::new();
    for source in sources() {
        for (n, line) in source.code() {
            for (word, homes) in HOMES {
                if line.contains(word) && !homes.iter().any(|home| source.name.starts_with(home)) {
                    findings.push(format!("src/{}:{n}: `{word}` belongs in {homes:?}", source.name));
                }
            }
        }
    }
    report(&findings);
}

#[test]
fn every_file_is_short_and_says_what_it_holds() {
    let mut findings = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!("src/{}: {lines} lines, at most {LINES_MAX}", source.name));
        }
        if !source.text.starts_with("//!") {
            findings.push(format!("src/{}: no `//!` at the top", source.name));
        }
    }
    report(&findings);
}

#[test]
fn nothing_is_left_for_later() {
    let mut findings = Vec::new();
    for source in sources() {
        for (n, line) in source.text.lines().enumerate() {
            for word in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
                findings.push(format!("src/{}:{}: `{word}`", source.name, n + 1));
            }
        }
    }
    report(&findings);
}

#[test]
fn the_import_reader_sees_groups_and_paths() {
    assert_eq!(imports("use crate::base::Clock;"), ["base"]);
    assert_eq!(imports("use crate::{format::ids::{Lsn, Uuid}, map};"), ["format", "map"]);
    assert_eq!(imports("    let x: crate::fs::Error = skylog::volume::f();"), ["fs", "volume"]);
    assert!(imports("use my_crate::fs; $crate::fs").is_empty());
}
