//! What a directory tree must do, in the plainest terms: a map of nodes, file contents as `Vec<u8>`, names in `BTreeMap`s.
//! It shares no code with the filesystem core, keeps everything in memory, and answers at once.
//!
//! Paths are absolute, made of components joined by `/`; the root is `/`. Symbolic links are never followed, since that
//! is the kernel's work. Permissions are not checked, since that is the kernel's work too. The n-th applied operation, from 1,
//! happens at [`time_of`]`(n)`, whether it succeeds or not.
#![expect(dead_code, reason = "each test program that includes the model uses another part of it")]

pub mod driver;
pub mod generate;
pub mod op;
mod rename;
pub mod rows;
pub mod xattr;

use op::{At, Call, Op, Outcome, Stat, Who};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use xattr::Xattrs;

/// Nanoseconds since 1970 at which the `step`-th operation happens.
pub fn time_of(step: u64) -> i64 {
    1_800_000_000_000_000_000 + i64::try_from(step).expect("short histories") * 1_000_000_007
}

/// The longest name.
const NAME_BYTES_MAX: usize = 255;
const S_IFMT: u32 = libc::S_IFMT;

/// A node's number in the model; no relation to inode numbers.
pub type Id = u64;

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A regular file's contents, shared until written.
    File(Arc<Vec<u8>>),
    /// A directory's names, and its parent.
    Dir(BTreeMap<String, Id>, Id),
    /// A symbolic link's target.
    Symlink(Vec<u8>),
    /// A fifo, socket or device; the number of a device.
    Special(u32),
}

/// A file of any kind.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it holds.
    pub body: Body,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names; for a directory 2 and one more for each subdirectory.
    pub nlink: u32,
    /// Nanoseconds: last access set, last change of contents, last change of anything.
    pub times: [i64; 3],
    /// Extended attributes, lists among them.
    pub xattrs: Xattrs,
}

/// One path of a comparable tree.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Everything `stat` says.
    pub stat: Stat,
    /// A file's contents, a link's target; empty for others.
    pub contents: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path, in order, that names the same node; hard links have it in common.
    pub first_path: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum = crc32c::crc32c(&self.contents);
        let (len, first) = (self.contents.len(), &self.first_path);
        write!(f, "{:?} contents {len} bytes crc {sum:08x}, first {first}, {:?}", self.stat, self.xattrs)
    }
}

/// Every path with what is there.
pub type Tree = BTreeMap<String, Entry>;

/// The whole filesystem.
#[derive(Clone)]
pub struct Model {
    nodes: BTreeMap<Id, Node>,
    next: Id,
    slots: BTreeMap<u8, Id>,
    step: u64,
}

const ROOT: Id = 1;

type Result<T> = std::result::Result<T, i32>;

impl Model {
    /// A filesystem with an empty root of mode 0755, owned by root, all of whose times are `born` nanoseconds.
    pub fn new(born: i64) -> Model {
        let root = Node {
            body: Body::Dir(BTreeMap::new(), ROOT),
            mode: libc::S_IFDIR | 0o755,
            uid: 0,
            gid: 0,
            nlink: 2,
            times: [born; 3],
            xattrs: Xattrs::default(),
        };
        Model { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, slots: BTreeMap::new(), step: 0 }
    }

    /// How many operations were applied.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The next operation is the `step`-th, and what it makes is numbered from `id` on: in histories that branch, so that times
    /// and numbers tell the branches apart.
    pub fn go_on(&mut self, step: u64, id: Id) {
        assert!(step > self.step && id >= self.next, "steps and numbers grow");
        self.step = step - 1;
        self.next = id;
    }

    /// The next operation is the `step`-th: those between were begun after it, and done before.
    pub fn wait_until(&mut self, step: u64) {
        assert!(step > self.step, "steps grow");
        self.step = step - 1;
    }

    /// Every path with the number of the node there.
    pub fn ids(&self) -> BTreeMap<String, Id> {
        let mut paths = Vec::new();
        self.walk("", ROOT, &mut paths);
        paths.into_iter().collect()
    }

    /// The slots that hold an open file.
    pub fn open_slots(&self) -> Vec<u8> {
        self.slots.keys().copied().collect()
    }

    /// The end of the daemon: every open file is closed.
    pub fn crash(&mut self) {
        let slots = std::mem::take(&mut self.slots);
        for id in slots.into_values() {
            self.drop_if_unused(id);
        }
    }

    /// Does one operation; or says which errno it fails with, having changed nothing but the clock.
    pub fn apply(&mut self, op: &Op) -> Result<Outcome> {
        self.step += 1;
        let who = op.who;
        match &op.call {
            Call::Create { path, mode } => self.make(path, libc::S_IFREG | mode, Body::File(Arc::default()), op),
            Call::Mkdir { path, mode } => self.make(path, libc::S_IFDIR | mode, Body::Dir(BTreeMap::new(), ROOT), op),
            Call::Mknod { path, mode, rdev } => self.make(path, *mode, Body::Special(*rdev), op),
            Call::Symlink { path, target } => {
                if target.is_empty() || target.len() > 4095 {
                    return Err(if target.is_empty() { libc::ENOENT } else { libc::ENAMETOOLONG });
                }
                self.make(path, libc::S_IFLNK | 0o777, Body::Symlink(target.clone()), op)
            }
            Call::Link { from, to } => self.link(from, to),
            Call::Unlink { path } => self.unlink(path),
            Call::Rmdir { path } => self.rmdir(path),
            Call::Rename { from, to, flags } => self.rename(from, to, *flags, who),
            Call::Write { at, offset, len, fill } => self.write(at, *offset, *len, *fill, who),
            Call::Read { at, offset, len } => self.read(at, *offset, *len),
            Call::Truncate { at, size } => self.truncate(at, *size, who),
            Call::Allocate { at, mode, offset, len } => self.allocate(at, *mode, *offset..offset + len, who),
            Call::Copy { from, offset, to, to_offset, len } => {
                let (from, to) = (self.at(from)?, self.at(to)?);
                self.copy((from, *offset), (to, *to_offset), *len, who)
            }
            Call::ReadData { at } => self.read(at, 0, u32::MAX),
            Call::Chmod { path, mode } => self.attributes(path, |node| node.mode = node.mode & S_IFMT | mode & 0o7777),
            Call::Chown { path, uid, gid } => self.attributes(path, |node| {
                node.owner_changes(who);
                node.uid = uid.unwrap_or(node.uid);
                node.gid = gid.unwrap_or(node.gid);
            }),
            Call::Utimens { path, atime, mtime } => self.attributes(path, |node| {
                node.times[0] = *atime;
                node.times[1] = *mtime;
            }),
            Call::SetXattr { path, name, value, flags } => self.set_xattr(path, name, value, *flags),
            Call::RemoveXattr { path, name } => self.remove_xattr(path, name),
            Call::ListXattrs { path } => self.list_xattrs(path, who),
            Call::SetAcl { path, default, acl } => self.set_acl(path, *default, acl.as_ref(), who),
            Call::Open { path, truncate, slot } => self.open(path, *truncate, *slot, who),
            Call::Close { slot } => {
                let id = self.slots.remove(slot).ok_or(libc::EBADF)?;
                self.drop_if_unused(id);
                Ok(Outcome::Done)
            }
            Call::Stat { at } => Ok(Outcome::Stat(self.stat(self.at(at)?))),
            Call::Readlink { path } => match &self.nodes[&self.find(path)?].body {
                Body::Symlink(target) => Ok(Outcome::Data(target.clone())),
                _ => Err(libc::EINVAL),
            },
            Call::Readdir { path, .. } => {
                let id = self.find(path)?;
                let kind = |id: &Id| self.nodes[id].mode & S_IFMT;
                Ok(Outcome::Names(self.dir(id)?.iter().map(|(name, id)| (name.clone(), kind(id))).collect()))
            }
            Call::Forget => Ok(Outcome::Done),
        }
    }

    /// Everything there is, for comparing.
    pub fn tree(&self) -> Tree {
        let mut paths = Vec::new();
        self.walk("", ROOT, &mut paths);
        let mut first: BTreeMap<Id, String> = BTreeMap::new();
        paths.sort();
        for (path, id) in &paths {
            first.entry(*id).or_insert_with(|| path.clone());
        }
        let entry = |id: Id| Entry {
            stat: self.stat(id),
            contents: match &self.nodes[&id].body {
                Body::File(bytes) => bytes.to_vec(),
                Body::Symlink(target) => target.clone(),
                _ => Vec::new(),
            },
            xattrs: self.nodes[&id].attributes(),
            first_path: first[&id].clone(),
        };
        paths.into_iter().map(|(path, id)| (path, entry(id))).collect()
    }

    fn walk(&self, path: &str, id: Id, paths: &mut Vec<(String, Id)>) {
        paths.push((if path.is_empty() { "/".to_string() } else { path.to_string() }, id));
        if let Body::Dir(names, _) = &self.nodes[&id].body {
            for (name, child) in names {
                self.walk(&format!("{path}/{name}"), *child, paths);
            }
        }
    }

    fn now(&self) -> i64 {
        time_of(self.step)
    }

    fn node(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).expect("an id in use has a node")
    }

    fn dir(&self, id: Id) -> Result<&BTreeMap<String, Id>> {
        match &self.nodes[&id].body {
            Body::Dir(names, _) => Ok(names),
            _ => Err(libc::ENOTDIR),
        }
    }

    fn is_dir(&self, id: Id) -> bool {
        self.dir(id).is_ok()
    }

    /// One step of a path.
    fn step_into(&self, dir: Id, name: &str) -> Result<Id> {
        if name.len() > NAME_BYTES_MAX {
            return Err(libc::ENAMETOOLONG);
        }
        let names = self.dir(dir)?;
        names.get(name).copied().ok_or(libc::ENOENT)
    }

    fn find(&self, path: &str) -> Result<Id> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(ROOT, |dir, name| self.step_into(dir, name))
    }

    /// The directory a path's last name is in, and that name. The root has neither.
    fn find_parent<'p>(&self, path: &'p str) -> Result<(Id, &'p str)> {
        let (parent, name) = path.rsplit_once('/').expect("paths are absolute");
        if name.is_empty() {
            return Err(libc::EBUSY);
        }
        Ok((self.find(parent)?, name))
    }

    fn at(&self, at: &At) -> Result<Id> {
        match at {
            At::Path(path) => self.find(path),
            At::Slot(slot) => self.slots.get(slot).copied().ok_or(libc::EBADF),
        }
    }

    /// The contents of a regular file.
    fn file(&mut self, id: Id) -> Result<&mut Vec<u8>> {
        match &mut self.node(id).body {
            Body::File(bytes) => Ok(Arc::make_mut(bytes)),
            Body::Dir(..) => Err(libc::EISDIR),
            _ => Err(libc::EINVAL),
        }
    }

    fn stat(&self, id: Id) -> Stat {
        let node = &self.nodes[&id];
        let size = match &node.body {
            Body::File(bytes) => bytes.len(),
            Body::Symlink(target) => target.len(),
            _ => 0,
        };
        let rdev = if let Body::Special(rdev) = node.body { rdev } else { 0 };
        Stat {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            nlink: node.nlink,
            size: size as u64,
            rdev,
            times: node.times,
        }
    }

    fn attributes(&mut self, path: &str, change: impl FnOnce(&mut Node)) -> Result<Outcome> {
        let (id, now) = (self.find(path)?, self.now());
        let node = self.node(id);
        node.times[2] = now;
        change(node);
        Ok(Outcome::Stat(self.stat(id)))
    }

    fn names(&mut self, dir: Id) -> &mut BTreeMap<String, Id> {
        let now = self.now();
        let node = self.node(dir);
        node.times[1] = now;
        node.times[2] = now;
        match &mut node.body {
            Body::Dir(names, _) => names,
            _ => unreachable!("checked to be a directory"),
        }
    }

    /// Checks that `path` can be given to something new.
    fn vacant<'p>(&self, path: &'p str) -> Result<(Id, &'p str)> {
        let (parent, name) = self.find_parent(path).map_err(|e| if e == libc::EBUSY { libc::EEXIST } else { e })?;
        match self.step_into(parent, name) {
            Ok(_) => Err(libc::EEXIST),
            Err(libc::ENOENT) => Ok((parent, name)),
            Err(e) => Err(e),
        }
    }

    fn make(&mut self, path: &str, mode: u32, body: Body, op: &Op) -> Result<Outcome> {
        let (parent, name) = self.vacant(path)?;
        let above = &self.nodes[&parent];
        let is_dir = matches!(body, Body::Dir(..));
        let set_gid = above.mode & libc::S_ISGID != 0;
        let gid = if set_gid { above.gid } else { op.who.gid };
        let mode = if set_gid && is_dir { mode | libc::S_ISGID } else { mode };
        let body = if is_dir { Body::Dir(BTreeMap::new(), parent) } else { body };
        let times = [self.now(); 3];
        let (uid, nlink) = (op.who.uid, if is_dir { 2 } else { 1 });
        let mut node = Node { body, mode, uid, gid, nlink, times, xattrs: Xattrs::default() };
        node.inherit(above);
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        self.names(parent).insert(name.to_string(), id);
        if is_dir {
            self.node(parent).nlink += 1;
        }
        Ok(Outcome::Stat(self.stat(id)))
    }

    fn link(&mut self, from: &str, to: &str) -> Result<Outcome> {
        let id = self.find(from)?;
        let (parent, name) = self.vacant(to)?;
        if self.is_dir(id) {
            return Err(libc::EPERM);
        }
        self.names(parent).insert(name.to_string(), id);
        let now = self.now();
        let node = self.node(id);
        node.nlink += 1;
        node.times[2] = now;
        Ok(Outcome::Stat(self.stat(id)))
    }

    fn unlink(&mut self, path: &str) -> Result<Outcome> {
        let (parent, name) = self.find_parent(path).map_err(|e| if e == libc::EBUSY { libc::EISDIR } else { e })?;
        let id = self.step_into(parent, name)?;
        if self.is_dir(id) {
            return Err(libc::EISDIR);
        }
        self.names(parent).remove(name);
        self.drop_link(id);
        Ok(Outcome::Done)
    }

    fn rmdir(&mut self, path: &str) -> Result<Outcome> {
        let (parent, name) = self.find_parent(path)?;
        let id = self.step_into(parent, name)?;
        if !self.dir(id)?.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        self.names(parent).remove(name);
        self.node(parent).nlink -= 1;
        self.nodes.remove(&id);
        Ok(Outcome::Done)
    }

    fn drop_link(&mut self, id: Id) {
        let now = self.now();
        let node = self.node(id);
        node.nlink -= 1;
        node.times[2] = now;
        self.drop_if_unused(id);
    }

    fn drop_if_unused(&mut self, id: Id) {
        let unnamed = self.nodes.get(&id).is_some_and(|node| node.nlink == 0);
        if unnamed && !self.slots.values().any(|open| *open == id) {
            self.nodes.remove(&id);
        }
    }

    fn open(&mut self, path: &str, truncate: bool, slot: u8, who: Who) -> Result<Outcome> {
        let id = self.find(path)?;
        match self.nodes[&id].body {
            Body::File(_) => {}
            Body::Dir(..) => return Err(libc::EISDIR),
            Body::Symlink(_) => return Err(libc::ELOOP),
            Body::Special(_) => return Err(libc::EINVAL),
        }
        if self.slots.contains_key(&slot) {
            return Err(libc::EMFILE);
        }
        if truncate {
            self.file(id)?.clear();
            self.contents_changed(id, who);
        }
        self.slots.insert(slot, id);
        Ok(Outcome::Done)
    }

    fn read(&mut self, at: &At, offset: u64, len: u32) -> Result<Outcome> {
        let id = self.at(at)?;
        let bytes = self.file(id)?;
        let from = usize::try_from(offset).expect("64-bit").min(bytes.len());
        let to = (from + len as usize).min(bytes.len());
        Ok(Outcome::Data(bytes[from..to].to_vec()))
    }

    fn write(&mut self, at: &At, offset: u64, len: u32, fill: u8, who: Who) -> Result<Outcome> {
        let id = self.at(at)?;
        let bytes = self.file(id)?;
        if len == 0 {
            return Ok(Outcome::Written(0));
        }
        let data = op::pattern(fill, len);
        let from = usize::try_from(offset).expect("64-bit");
        if bytes.len() < from + data.len() {
            bytes.resize(from + data.len(), 0);
        }
        bytes[from..from + data.len()].copy_from_slice(&data);
        self.contents_changed(id, who);
        Ok(Outcome::Written(len))
    }

    fn truncate(&mut self, at: &At, size: u64, who: Who) -> Result<Outcome> {
        let id = self.at(at)?;
        self.file(id)?.resize(usize::try_from(size).expect("64-bit"), 0);
        self.contents_changed(id, who);
        Ok(Outcome::Stat(self.stat(id)))
    }

    fn allocate(&mut self, at: &At, mode: i32, range: Range<u64>, who: Who) -> Result<Outcome> {
        let id = self.at(at)?;
        let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        if range.is_empty() {
            return Err(libc::EINVAL);
        }
        match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 | libc::FALLOC_FL_ZERO_RANGE => {}
            libc::FALLOC_FL_PUNCH_HOLE if keep => {}
            _ => return Err(libc::EOPNOTSUPP),
        }
        let fifo = self.nodes[&id].mode & S_IFMT == libc::S_IFIFO;
        let bytes = self.file(id).map_err(|errno| match errno {
            libc::EINVAL if fifo => libc::ESPIPE,
            libc::EINVAL => libc::ENODEV,
            other => other,
        })?;
        let [from, to] = [range.start, range.end].map(|at| usize::try_from(at).expect("64-bit"));
        if !keep && bytes.len() < to {
            bytes.resize(to, 0);
        }
        let inside = from.min(bytes.len())..to.min(bytes.len());
        if mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
            bytes[inside].fill(0);
        }
        self.contents_changed(id, who);
        Ok(Outcome::Stat(self.stat(id)))
    }

    fn copy(&mut self, (from, offset): (Id, u64), (to, to_offset): (Id, u64), len: u64, who: Who) -> Result<Outcome> {
        let source = self.file(from)?.clone();
        self.file(to)?;
        let [start, at, len] = [offset, to_offset, len].map(|n| usize::try_from(n).expect("64-bit"));
        let data = &source[start.min(source.len())..(start + len).min(source.len())];
        if from == to && start < at + data.len() && at < start + data.len() {
            return Err(libc::EINVAL);
        }
        if !data.is_empty() {
            let bytes = self.file(to)?;
            bytes.resize(bytes.len().max(at + data.len()), 0);
            bytes[at..at + data.len()].copy_from_slice(data);
            self.contents_changed(to, who);
        }
        Ok(Outcome::Written(u32::try_from(data.len()).expect("small")))
    }

    fn contents_changed(&mut self, id: Id, who: Who) {
        let now = self.now();
        let node = self.node(id);
        node.times[1] = now;
        node.times[2] = now;
        node.contents_changed(who);
    }
}
