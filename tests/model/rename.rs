//! Rename in the model, with exchange and whiteout.

use super::op::{Call, Op, Outcome, Who};
use super::{Body, Id, Model, NAME_BYTES_MAX, ROOT, Result};

impl Model {
    /// `flags` as of `renameat2`.
    pub(super) fn rename(&mut self, from: &str, to: &str, flags: u32, who: Who) -> Result<Outcome> {
        let asked = |flag| flags & flag != 0;
        let exchange = asked(libc::RENAME_EXCHANGE);
        let (from_dir, from_name) = self.find_parent(from)?;
        let (to_dir, to_name) = self.find_parent(to)?;
        if exchange && asked(libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT) {
            return Err(libc::EINVAL);
        }
        if from_name.len().max(to_name.len()) > NAME_BYTES_MAX {
            return Err(libc::ENAMETOOLONG);
        }
        let id = self.step_into(from_dir, from_name)?;
        let there = match self.step_into(to_dir, to_name) {
            Ok(there) => Some(there),
            Err(libc::ENOENT) => None,
            Err(e) => return Err(e),
        };
        if there.is_some() && asked(libc::RENAME_NOREPLACE) {
            return Err(libc::EEXIST);
        }
        let backwards = exchange && there.is_some_and(|there| self.is_dir(there) && self.is_below(from_dir, there));
        if there.is_none() && exchange {
            return Err(libc::ENOENT);
        }
        if there == Some(id) {
            return Ok(Outcome::Done);
        }
        if self.is_dir(id) && self.is_below(to_dir, id) || backwards {
            return Err(libc::EINVAL);
        }
        if let Some(there) = there.filter(|_| exchange) {
            self.names(from_dir).insert(from_name.to_string(), there);
            self.names(to_dir).insert(to_name.to_string(), id);
            self.moved(id, from_dir, to_dir);
            self.moved(there, to_dir, from_dir);
            return Ok(Outcome::Done);
        }
        if let Some(there) = there {
            self.may_replace(id, there)?;
            self.names(to_dir).remove(to_name);
            if self.is_dir(there) {
                self.node(to_dir).nlink -= 1;
                self.nodes.remove(&there);
            } else {
                self.drop_link(there);
            }
        }
        self.names(from_dir).remove(from_name);
        self.names(to_dir).insert(to_name.to_string(), id);
        self.moved(id, from_dir, to_dir);
        if asked(libc::RENAME_WHITEOUT) {
            let op = Op { who, call: Call::Forget };
            self.make(from, libc::S_IFCHR, Body::Special(0), &op)?;
        }
        Ok(Outcome::Done)
    }

    /// Notes that a node has moved from one directory to another.
    fn moved(&mut self, id: Id, from: Id, to: Id) {
        if self.is_dir(id) {
            self.node(from).nlink -= 1;
            self.node(to).nlink += 1;
        }
        let now = self.now();
        let node = self.node(id);
        node.times[2] = now;
        if let Body::Dir(_, parent) = &mut node.body {
            *parent = to;
        }
    }

    /// Whether `id` is `dir` or lies somewhere under it.
    fn is_below(&self, mut id: Id, dir: Id) -> bool {
        while id != dir && id != ROOT {
            id = match self.nodes[&id].body {
                Body::Dir(_, parent) => parent,
                _ => return false,
            };
        }
        id == dir
    }

    fn may_replace(&self, id: Id, there: Id) -> Result<()> {
        match (self.is_dir(id), self.dir(there)) {
            (true, Err(_)) => Err(libc::ENOTDIR),
            (false, Ok(_)) => Err(libc::EISDIR),
            (true, Ok(names)) if !names.is_empty() => Err(libc::ENOTEMPTY),
            _ => Ok(()),
        }
    }
}
