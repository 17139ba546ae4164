//! Names and cookies of one directory, entry by entry: for a directory where they are known not to agree.

use super::files::{Scan, text};
use crate::format::ids::InodeNo;
use crate::format::inode::{CookieValue, NameValue};
use crate::format::key::{self, Key};
use crate::map::MapError;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What is wrong between the names and the cookies of a directory. Holds all its names in memory.
pub(super) fn entries_that_differ(scan: &Scan<'_>, dir: InodeNo) -> Result<Vec<String>, MapError> {
    let mut entries = Entries::default();
    scan(key::all_of(dir), &mut |key, value| {
        // What cannot be decoded was reported already.
        match Key::decode(key) {
            Ok(Key::Name(_, name)) => drop(NameValue::decode(value).map(|value| entries.name(name, value))),
            Ok(Key::Cookie(_, cookie)) => drop(CookieValue::decode(value).map(|value| entries.cookie(cookie, &value))),
            _ => {}
        }
    })?;
    Ok(entries.finish())
}

#[derive(Default)]
struct Entries {
    /// Names whose cookie did not come yet, by cookie.
    names: BTreeMap<u64, (Bytes, NameValue)>,
    problems: Vec<String>,
}

impl Entries {
    fn name(&mut self, name: Bytes, value: NameValue) {
        if let Some((other, _)) = self.names.insert(value.cookie, (name.clone(), value)) {
            self.problems.push(format!("names {} and {} share cookie {}", text(&other), text(&name), value.cookie));
        }
    }

    fn cookie(&mut self, cookie: u64, listed: &CookieValue) {
        let what = match self.names.remove(&cookie) {
            None => format!("cookie {cookie} lists {}, which has no such name", text(&listed.name)),
            Some((name, _)) if name != listed.name => {
                format!("cookie {cookie} lists {}, the name is {}", text(&listed.name), text(&name))
            }
            Some((name, value)) if (value.ino, value.kind) != (listed.ino, listed.kind) => format!(
                "name {} is inode {} of type {}, its cookie says inode {} of type {}",
                text(&name),
                value.ino,
                value.kind,
                listed.ino,
                listed.kind
            ),
            Some(_) => return,
        };
        self.problems.push(what);
    }

    fn finish(mut self) -> Vec<String> {
        for (cookie, (name, _)) in &self.names {
            self.problems.push(format!("name {} has no cookie {cookie}", text(name)));
        }
        self.problems
    }
}
