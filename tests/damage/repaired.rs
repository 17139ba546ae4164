//! What a repair makes of damage: a filesystem that the check finds whole, in which every file is whole of which nothing was hit,
//! and no other one has a wrong byte.

use crate::hits::{self, Hits, Places};
use crate::scene::{Object, Scene};
use crate::sweep::Damage;
use crate::views::{self, Machine, Node, Tree};
use skylog::format::ids::InodeNo;
use skylog::fs::Error;
use skylog::repair::Report;
use std::collections::{BTreeMap, BTreeSet};

/// Names that a repair makes.
const LOST_AND_FOUND: &str = "/lost+found";

/// What came of repairs.
#[derive(Clone, Copy, Default)]
pub struct Repairs {
    /// How often one was run,
    pub runs: u64,
    /// and found something to repair.
    pub made: u64,
    /// Files and directories that are exactly what they were.
    pub whole: u64,
    /// Those that are not.
    pub touched: u64,
    /// Pieces of files that give EIO.
    pub ranges: u64,
}

impl std::ops::AddAssign for Repairs {
    fn add_assign(&mut self, other: Repairs) {
        self.runs += other.runs;
        self.made += other.made;
        self.whole += other.whole;
        self.touched += other.touched;
        self.ranges += other.ranges;
    }
}

/// Repairs a machine, and looks at all that must be so afterwards.
pub fn judge(
    (scene, places): (&Scene, &Places),
    machine: &Machine,
    object: &Object,
    damage: Damage,
    with_state: bool,
) -> Result<Repairs, String> {
    let hits = places.hit(scene, object, damage, with_state);
    let who = if with_state { "a repair" } else { "a repair of the store alone" };
    let done = views::repair(machine, with_state).map_err(|e| format!("{who} fails: {e}"))?;
    let mut repairs = Repairs { runs: 1, made: u64::from(!done.was_clean()), ..Repairs::default() };
    for state in [true, false].into_iter().filter(|state| with_state || !state) {
        let report = views::checked(machine, state);
        if !report.is_clean() {
            let lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
            return Err(format!("after {who}, check (state {state}) says {lines:?}, skips {:?}", report.skipped));
        }
    }
    let expected = if with_state { &scene.local } else { &scene.stored };
    let see = |tree: &Tree, pieces: &views::Pieces| {
        compare(expected, tree, pieces, &hits, &mut repairs)?;
        all_told(expected, tree, &done)
    };
    let seen = views::pieces(machine, with_state, see).map_err(|e| format!("after {who}, no mount: {e}"))?;
    seen.map_err(|wrong| format!("after {who}, {wrong}; hit were {hits:?}; it told of {:?}", done.touched))?;
    Ok(repairs)
}

fn compare(
    expected: &Tree,
    found: &Tree,
    pieces: &views::Pieces,
    hits: &Hits,
    repairs: &mut Repairs,
) -> Result<(), String> {
    let numbers = hits::numbers(expected);
    for (path, node) in expected.iter().filter(|(path, _)| *path != "/") {
        if !is_hit(path, &numbers, hits) && found.get(path) != Some(node) {
            let is = found.get(path).map_or("gone".to_owned(), |found| brief(found.as_ref()));
            return Err(format!("{path} was not hit, and is {is} instead of {}", brief(node.as_ref())));
        }
    }
    let by_number: BTreeMap<InodeNo, &Node> = expected.values().flatten().map(|node| (node.attr.ino, node)).collect();
    for (path, node) in found.iter().filter(|(path, _)| *path != "/" && *path != LOST_AND_FOUND) {
        if expected.get(path) == Some(node) {
            repairs.whole += 1;
            continue;
        }
        repairs.touched += 1;
        let attr = match (node, pieces.get(path)) {
            (Ok(node), _) => &node.attr,
            (Err(_), Some(pieces)) => &pieces.attr,
            (Err(e), None) => return Err(format!("{path} cannot be looked at: {e}")),
        };
        let Some(was) = by_number.get(&attr.ino) else {
            return Err(format!("{path} never was: {}", brief(node.as_ref())));
        };
        if attr.mode & libc::S_IFMT != was.attr.mode & libc::S_IFMT {
            return Err(format!("{path} has become something else: {attr:?}"));
        }
        if let Ok(node) = node {
            if !was.contents.starts_with(&node.contents) {
                return Err(format!("{path} has wrong bytes"));
            }
            continue;
        }
        for (at, piece) in pieces.get(path).into_iter().flat_map(|pieces| &pieces.pieces) {
            match piece {
                Ok(bytes) if was.contents.get(*at..).is_some_and(|rest| rest.starts_with(bytes)) => {}
                Ok(_) => return Err(format!("{path} has wrong bytes at {at}")),
                Err(Error::Io) => repairs.ranges += 1,
                Err(e) => return Err(format!("{path} fails at {at}: {e}")),
            }
        }
    }
    Ok(())
}

/// Whatever is not what it was is named in the report, or changes are said to be missing: nothing is lost in silence. What cannot be
/// found any more is named itself, or a directory is on the way to it.
fn all_told(expected: &Tree, found: &Tree, done: &Report) -> Result<(), String> {
    if done.may_miss_changes() {
        return Ok(());
    }
    let numbers = hits::numbers(expected);
    let told: BTreeSet<InodeNo> = done.touched.iter().map(|touched| touched.ino).collect();
    let is_more = found.contains_key(LOST_AND_FOUND) && !expected.contains_key(LOST_AND_FOUND);
    for (path, node) in expected.iter().filter(|(path, _)| found.get(*path) != expected.get(*path)) {
        // The report says what was put into that directory.
        if path == "/" && is_more && found.get(path) == Some(&with_one_more(node)) {
            continue;
        }
        let is_told = match found.get(path) {
            Some(_) => told.contains(&numbers[path.as_str()]),
            None => on_the_way(path, &numbers).any(|ino| told.contains(&ino)),
        };
        if !is_told {
            let is = found.get(path).map_or("gone".to_owned(), |found| brief(found.as_ref()));
            return Err(format!("{path} is {is} instead of {}, and the report says nothing", brief(node.as_ref())));
        }
    }
    Ok(())
}

/// The same directory with one more directory in it.
fn with_one_more(node: &Result<Node, String>) -> Result<Node, String> {
    node.clone().map(|mut node| {
        node.attr.nlink += 1;
        node
    })
}

/// Without its contents.
fn brief(node: Result<&Node, &String>) -> String {
    node.map_or_else(String::clone, |node| format!("{:?} of {} bytes", node.attr, node.contents.len()))
}

/// Whether a path may be gone, or be another one's: itself or a name that leads to it was hit.
fn is_hit(path: &str, numbers: &BTreeMap<&str, InodeNo>, hits: &Hits) -> bool {
    hits.contents.contains(&numbers[path]) || on_the_way(path, numbers).any(|ino| hits.names.contains(&ino))
}

/// What a path leads through below the root, and to.
fn on_the_way(path: &str, numbers: &BTreeMap<&str, InodeNo>) -> impl Iterator<Item = InodeNo> {
    let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
    ends.map(|end| numbers[&path[..end]])
}
