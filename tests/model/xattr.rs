//! Extended attributes, access control lists and set-id bits of the model.
//!
//! A node keeps of an access list only what its mode cannot say, so the two agree by construction: the owner's entry is the
//! owner's bits, that of others the bits of others, the mask the group's bits.

use super::op::{Outcome, Who};
use super::{Id, Model, Node, Result};
use serde::{Deserialize, Serialize};
use skylog::fs::Caller;
use std::collections::BTreeMap;

/// The names of the two lists as attributes.
pub const ACCESS: &str = "system.posix_acl_access";
pub const DEFAULT: &str = "system.posix_acl_default";
const CAPABILITY: &str = "security.capability";

/// An access control list. With users or groups it has a mask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// Of the owner, the owning group and others.
    pub classes: [u32; 3],
    pub mask: Option<u32>,
    pub users: BTreeMap<u32, u32>,
    pub groups: BTreeMap<u32, u32>,
}

impl Acl {
    /// The permission bits it asks for.
    fn mode(&self) -> u32 {
        let [owner, group, other] = self.classes;
        owner << 6 | self.mask.unwrap_or(group) << 3 | other
    }

    /// What remains when the mode has these permission bits.
    fn beside(&self) -> Option<Beside> {
        self.mask.map(|_| Beside { group: self.classes[1], users: self.users.clone(), groups: self.groups.clone() })
    }

    /// Version 2, then tag, permissions and id of each entry.
    pub fn encode(&self) -> Vec<u8> {
        const NOBODY: u32 = u32::MAX;
        let [owner, group, other] = self.classes;
        let named = |tag: u32, ids: &BTreeMap<u32, u32>| ids.iter().map(|(id, perm)| (tag, *perm, *id)).collect();
        let (users, groups): (Vec<_>, Vec<_>) = (named(2, &self.users), named(8, &self.groups));
        let mask = self.mask.map(|perm| (0x10, perm, NOBODY));
        let mut out = vec![2, 0, 0, 0];
        let entries = [(1, owner, NOBODY)].into_iter().chain(users).chain([(4, group, NOBODY)]).chain(groups);
        for (tag, perm, id) in entries.chain(mask).chain([(0x20, other, NOBODY)]) {
            out.extend_from_slice(&(tag | perm << 16).to_le_bytes());
            out.extend_from_slice(&id.to_le_bytes());
        }
        out
    }
}

/// What an access list says and a mode cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    group: u32,
    users: BTreeMap<u32, u32>,
    groups: BTreeMap<u32, u32>,
}

/// Attributes of a node.
#[derive(Clone, Debug, Default)]
pub struct Xattrs {
    plain: BTreeMap<String, Vec<u8>>,
    access: Option<Beside>,
    default: Option<Acl>,
}

impl Who {
    /// The superuser may everything; others are in no group but their own.
    pub fn caller(self) -> Caller {
        if self.uid == 0 { Caller::PRIVILEGED } else { Caller::default() }
    }

    fn may_set_group_id(self, gid: u32) -> bool {
        self.uid == 0 || self.gid == gid
    }
}

impl Node {
    /// All attributes with their values, as the superuser sees them.
    pub fn attributes(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = self.xattrs.plain.clone();
        all.extend(self.access_list().map(|acl| (ACCESS.to_string(), acl.encode())));
        all.extend(self.xattrs.default.as_ref().map(|acl| (DEFAULT.to_string(), acl.encode())));
        all
    }

    fn access_list(&self) -> Option<Acl> {
        let Beside { group, users, groups } = self.xattrs.access.clone()?;
        let [owner, mask, other] = [6, 3, 0].map(|shift| self.mode >> shift & 7);
        Some(Acl { classes: [owner, group, other], mask: Some(mask), users, groups })
    }

    /// What a file loses whoever changes its contents, and what those lose who are not the superuser.
    pub fn contents_changed(&mut self, who: Who) {
        self.xattrs.plain.remove(CAPABILITY);
        if who.uid != 0 {
            self.drop_set_id(who);
        }
    }

    /// What a new owner or group takes; called before there is one.
    pub fn owner_changes(&mut self, who: Who) {
        if self.mode & libc::S_IFMT != libc::S_IFDIR {
            self.xattrs.plain.remove(CAPABILITY);
            self.drop_set_id(who);
        }
    }

    /// Set-user-id goes; set-group-id goes where it means "run as this group", and from those not in the group.
    fn drop_set_id(&mut self, who: Who) {
        self.mode &= !libc::S_ISUID;
        if self.mode & libc::S_IXGRP != 0 || !who.may_set_group_id(self.gid) {
            self.mode &= !libc::S_ISGID;
        }
    }

    /// What a new node gets from the directory it is in.
    pub fn inherit(&mut self, directory: &Node) {
        let kind = self.mode & libc::S_IFMT;
        let Some(default) = directory.xattrs.default.clone().filter(|_| kind != libc::S_IFLNK) else { return };
        self.mode &= default.mode() | !0o777;
        self.xattrs.access = default.beside();
        self.xattrs.default = (kind == libc::S_IFDIR).then_some(default);
    }
}

impl Model {
    pub(super) fn set_xattr(&mut self, path: &str, name: &str, value: &[u8], flags: i32) -> Result<Outcome> {
        let id = self.find(path)?;
        if !["user.", "trusted.", "security."].iter().any(|namespace| name.starts_with(namespace)) {
            return Err(libc::EOPNOTSUPP);
        }
        let old = self.node(id).xattrs.plain.get(name).cloned();
        match old {
            Some(_) if flags & libc::XATTR_CREATE != 0 => Err(libc::EEXIST),
            None if flags & libc::XATTR_REPLACE != 0 => Err(libc::ENODATA),
            Some(old) if old == value => Ok(Outcome::Done),
            _ => {
                self.touch(id).xattrs.plain.insert(name.to_string(), value.to_vec());
                Ok(Outcome::Done)
            }
        }
    }

    pub(super) fn remove_xattr(&mut self, path: &str, name: &str) -> Result<Outcome> {
        let id = self.find(path)?;
        self.node(id).xattrs.plain.get(name).ok_or(libc::ENODATA)?;
        self.touch(id).xattrs.plain.remove(name);
        Ok(Outcome::Done)
    }

    pub(super) fn list_xattrs(&self, path: &str, who: Who) -> Result<Outcome> {
        let all = self.nodes[&self.find(path)?].attributes();
        let names = all.into_keys().filter(|name| who.uid == 0 || !name.starts_with("trusted."));
        Ok(Outcome::Data(names.flat_map(|name| [name.as_bytes(), &[0]].concat()).collect()))
    }

    /// Sets or removes one of the two lists.
    pub(super) fn set_acl(&mut self, path: &str, default: bool, acl: Option<&Acl>, who: Who) -> Result<Outcome> {
        let id = self.find(path)?;
        let node = self.node(id);
        match node.mode & libc::S_IFMT {
            libc::S_IFLNK if acl.is_some() => return Err(libc::EOPNOTSUPP),
            libc::S_IFDIR => {}
            _ if default && acl.is_some() => return Err(libc::EACCES),
            _ => {}
        }
        let mut changed = node.clone();
        match acl {
            _ if default => changed.xattrs.default = acl.cloned(),
            Some(acl) => {
                changed.mode = changed.mode & !0o777 | acl.mode();
                if !who.may_set_group_id(changed.gid) {
                    changed.mode &= !libc::S_ISGID;
                }
                changed.xattrs.access = acl.beside();
            }
            None => changed.xattrs.access = None,
        }
        if (changed.mode, changed.attributes()) != (node.mode, node.attributes()) {
            *node = changed;
            self.touch(id);
        }
        Ok(Outcome::Done)
    }

    /// Notes a change of attributes.
    fn touch(&mut self, id: Id) -> &mut Node {
        let now = self.now();
        let node = self.node(id);
        node.times[2] = now;
        node
    }
}
