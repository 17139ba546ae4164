//! Directories whose names and cookies do not agree: each is mended by the other. The entries of one such directory are in memory at
//! a time.

use super::census::{COOKIE_MAX, Census, FOUND, decode};
use super::fixes::Is;
use super::{Edits, Source};
use crate::check::{COOKIE_FIRST, is_possible};
use crate::format::ids::InodeNo;
use crate::format::inode::{CookieValue, Inode, NameValue};
use crate::format::key::{self, Key};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// All entries of a directory, as they are found. `None` is one that makes no sense.
#[derive(Default)]
struct Entries {
    next_cookie: u64,
    names: BTreeMap<Bytes, Option<NameValue>>,
    cookies: BTreeMap<u64, Option<CookieValue>>,
}

/// Goes over all entries once more, if there are such directories.
pub(super) fn mend_entries<E>(census: &mut Census<'_>, source: &mut Source<'_, E>, edits: &mut Edits) -> Result<(), E> {
    if census.mismatched.is_empty() {
        return Ok(());
    }
    let mismatched = std::mem::take(&mut census.mismatched);
    let mut current: Option<(InodeNo, Entries)> = None;
    source(&mut |key, value| {
        let (ino, part) = match decode(&key) {
            Some(Key::Inode(ino)) => (ino, Part::Inode),
            Some(Key::Name(ino, name)) => (ino, Part::Name(name)),
            Some(Key::Cookie(ino, cookie)) => (ino, Part::Cookie(cookie)),
            _ => return,
        };
        if !mismatched.contains(&ino) {
            return;
        }
        if let Some((dir, entries)) = current.take_if(|(dir, _)| *dir != ino) {
            entries.finish(dir, census, edits);
        }
        let (_, entries) = current.get_or_insert_with(|| (ino, Entries::default()));
        match part {
            Part::Inode => entries.next_cookie = Inode::decode(&value).map_or(0, |inode| inode.next_cookie),
            Part::Name(name) => drop(entries.names.insert(name, NameValue::decode(&value).ok())),
            Part::Cookie(cookie) => drop(entries.cookies.insert(cookie, CookieValue::decode(&value).ok())),
        }
    })?;
    if let Some((dir, entries)) = current {
        entries.finish(dir, census, edits);
    }
    Ok(())
}

enum Part {
    Inode,
    Name(Bytes),
    Cookie(u64),
}

impl Entries {
    /// Decides on all entries of the directory.
    fn finish(self, dir: InodeNo, census: &mut Census<'_>, edits: &mut Edits) {
        let agreed = self.agree(dir, census);
        census.links.is_wrong(dir);
        if dir == InodeNo::ROOT {
            let begin_so =
                |(name, value): (&Bytes, &NameValue)| name.starts_with(FOUND).then(|| (name.clone(), value.ino));
            census.found = agreed.iter().filter_map(begin_so).collect();
        }
        let cookies: BTreeSet<u64> = agreed.values().map(|value| value.cookie).collect();
        for name in self.names.keys().filter(|name| !agreed.contains_key(*name)) {
            edits.insert(key::name(dir, name), None);
        }
        for cookie in self.cookies.keys().filter(|cookie| !cookies.contains(cookie)) {
            edits.insert(key::cookie(dir, *cookie), None);
        }
        for (name, value) in agreed {
            if self.names.get(&name) != Some(&Some(value)) {
                edits.insert(key::name(dir, &name), Some(value.encode()));
            }
            let listed = CookieValue { ino: value.ino, kind: value.kind, name: name.clone() };
            if self.cookies.get(&value.cookie).and_then(Option::as_ref) != Some(&listed) {
                edits.insert(key::cookie(dir, value.cookie), Some(listed.encode()));
            }
            census.links.name(dir, &value);
        }
    }

    /// What stays: each name with a cookie of its own.
    fn agree(&self, dir: InodeNo, census: &mut Census<'_>) -> BTreeMap<Bytes, NameValue> {
        let mut names: BTreeMap<Bytes, NameValue> = BTreeMap::new();
        let mut given: BTreeSet<u64> = BTreeSet::new();
        let possible = |name: &Bytes| is_possible(name);
        // A name and a cookie that say the same, in all or in part, stay where they are.
        for (cookie, listed) in &self.cookies {
            let Some(listed) = listed.as_ref().filter(|listed| possible(&listed.name)) else { continue };
            let value = NameValue { ino: listed.ino, kind: listed.kind, cookie: *cookie };
            let own = self.names.get(&listed.name).copied().flatten();
            let taken = own.is_some_and(|own| own.cookie != *cookie && self.lists(own.cookie, &listed.name));
            if !is_good(*cookie) || taken || names.contains_key(&listed.name) {
                continue;
            }
            // Where they mean different inodes, that which is there counts; the name, if both are.
            let chosen = match own {
                Some(own) if own.ino != listed.ino && census.links.own(own.ino).is_none() => value,
                Some(own) => NameValue { cookie: *cookie, ..own },
                None => value,
            };
            given.insert(*cookie);
            names.insert(listed.name.clone(), chosen);
        }
        // All other names get a cookie: their own, or a new one.
        let highest = self.cookies.keys().chain(self.names.values().flatten().map(|value| &value.cookie));
        let highest = highest.copied().filter(|cookie| is_good(*cookie)).max().unwrap_or(0);
        let mut next = self.next_cookie.max(highest + 1).max(COOKIE_FIRST);
        if next >= COOKIE_MAX / 2 {
            // Somewhere below there is room.
            next = COOKIE_FIRST;
        }
        for (name, value) in &self.names {
            match value {
                _ if !possible(name) => {
                    census.done.note(dir, Is::Impossible, || format!("{:?}", name.escape_ascii().to_string()))
                }
                Some(value) if !names.contains_key(name) => {
                    let own = is_good(value.cookie) && !given.contains(&value.cookie);
                    while !own && given.contains(&next) {
                        next += 1;
                    }
                    let cookie = if own { value.cookie } else { next };
                    given.insert(cookie);
                    names.insert(name.clone(), NameValue { cookie, ..*value });
                }
                _ => {}
            }
        }
        census.done.note(dir, Is::Entries, || self.differences(&names));
        names
    }

    /// Whether a cookie lists this very name.
    fn lists(&self, cookie: u64, name: &Bytes) -> bool {
        is_good(cookie) && self.cookies.get(&cookie).and_then(Option::as_ref).is_some_and(|listed| listed.name == *name)
    }

    fn differences(&self, agreed: &BTreeMap<Bytes, NameValue>) -> String {
        let back = agreed.keys().filter(|name| self.names.get(*name).is_none_or(Option::is_none)).count();
        let gone = self.names.keys().filter(|name| !agreed.contains_key(*name)).count();
        format!("{} names, {back} put back, {gone} removed", agreed.len())
    }
}

/// Whether a name can have this cookie.
fn is_good(cookie: u64) -> bool {
    (COOKIE_FIRST..COOKIE_MAX).contains(&cookie)
}
