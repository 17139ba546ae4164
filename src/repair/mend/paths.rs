//! Where the files are that are told of. Only their names, and those of the directories above them, are kept.

use super::links::{Links, Plan, Stays};
use crate::format::ids::InodeNo;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A directory, and the name in it once it was met.
struct Home {
    dir: InodeNo,
    name: Option<Bytes>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Paths(BTreeMap<InodeNo, Home>);

impl Paths {
    /// Of these inodes. The names are still to come.
    pub fn new(links: &Links, plan: &Plan, inodes: impl Iterator<Item = InodeNo>) -> Paths {
        let mut paths = Paths::default();
        for ino in inodes {
            let mut at = ino;
            while !paths.0.contains_key(&at) {
                let Some(dir) = home(links, plan, at) else { break };
                paths.0.insert(at, Home { dir, name: None });
                at = dir;
            }
        }
        paths
    }

    /// A name that stays.
    pub fn name(&mut self, dir: InodeNo, ino: InodeNo, name: &Bytes) {
        if let Some(home) = self.0.get_mut(&ino).filter(|home| home.dir == dir && home.name.is_none()) {
            home.name = Some(name.clone());
        }
    }

    /// Where an inode is, from the root.
    pub fn path(&self, ino: InodeNo) -> Option<String> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != InodeNo::ROOT {
            let home = self.0.get(&at)?;
            names.push(home.name.as_ref()?);
            at = home.dir;
        }
        let shown = names.iter().rev().map(|name| shown(name)).collect::<Vec<String>>().join("/");
        Some(format!("/{shown}"))
    }
}

/// The directory that has a name for an inode.
fn home(links: &Links, plan: &Plan, ino: InodeNo) -> Option<InodeNo> {
    let own = links.living(ino).filter(|own| own.names > 0 && ino != InodeNo::ROOT)?;
    if let Some(found) = plan.found.as_ref().filter(|found| found.members.binary_search(&ino).is_ok()) {
        return Some(found.ino);
    }
    if own.kind == libc::DT_DIR {
        return Some(own.parent);
    }
    let stays = |dir| plan.names.get(&(dir, ino)).is_none_or(|fate| fate.stays != Stays::None);
    let is_dir = |dir| links.living(dir).is_some_and(|own| own.kind == libc::DT_DIR);
    links.names_of(ino).iter().map(|named| named.dir).find(|dir| is_dir(*dir) && stays(*dir))
}

/// A name as it is told: on one line, whatever it has in it.
fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for c in String::from_utf8_lossy(name).chars() {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}
