//! Does the model's operations on the filesystem core, as the kernel would: names are looked up one by one, and what was looked
//! up is given back some time later.

use super::op::{At, Call, Op, Outcome, ROOT, Stat, Who, pattern};
use super::{Entry, Tree, xattr};
use skylog::base::clock::Time;
use skylog::format::ids::InodeNo;
use skylog::fs::{Attr, Cx, Fs, Place, Seek, SetAttr, SetTime, Stop};
use std::collections::BTreeMap;

/// How a call reaches the filesystem: calls `op` until it no longer asks to wait.
pub trait Mount {
    /// The result of `op`, or its errno.
    fn run<T>(&mut self, who: Who, now: Time, op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Result<T, i32>;
}

/// A kernel that uses a mount.
#[derive(Default)]
pub struct Driver {
    /// Look-ups not given back yet.
    known: BTreeMap<InodeNo, u64>,
    /// Open files.
    slots: BTreeMap<u8, InodeNo>,
}

type Result<T, E = i32> = std::result::Result<T, E>;

/// The request in hand.
struct Request<'a, M> {
    driver: &'a mut Driver,
    mount: &'a mut M,
    who: Who,
    now: Time,
}

impl Driver {
    /// Does one operation at a time given in nanoseconds.
    pub fn apply<M: Mount>(&mut self, mount: &mut M, now: i64, op: &Op) -> Result<Outcome> {
        Request { driver: self, mount, who: op.who, now: Time::from_nanos(now) }.call(&op.call)
    }

    /// Everything there is, for comparing with the model's tree.
    pub fn tree<M: Mount>(&mut self, mount: &mut M) -> Result<Tree> {
        Request { driver: self, mount, who: ROOT, now: Time::default() }.tree()
    }

    /// What there is, as far as it can be read: of a directory that cannot be listed, nothing below it.
    pub fn readable<M: Mount>(&mut self, mount: &mut M) -> BTreeMap<String, Result<Entry>> {
        Request { driver: self, mount, who: ROOT, now: Time::default() }.readable()
    }

    /// The inode number at a path.
    pub fn number<M: Mount>(&mut self, mount: &mut M, path: &str) -> Result<InodeNo> {
        Request { driver: self, mount, who: ROOT, now: Time::default() }.find(path)
    }

    /// The inode number at every path.
    pub fn numbers<M: Mount>(&mut self, mount: &mut M) -> Result<BTreeMap<String, InodeNo>> {
        let paths = Request { driver: self, mount, who: ROOT, now: Time::default() }.paths()?;
        Ok(paths.into_iter().collect())
    }

    /// Takes over what another kernel thread looked up meanwhile. It opened nothing.
    pub fn absorb(&mut self, other: Driver) {
        assert!(other.slots.is_empty(), "only look-ups");
        for (ino, lookups) in other.known {
            *self.known.entry(ino).or_default() += lookups;
        }
    }

    /// The kernel gives everything back that it looked up.
    pub fn forget<M: Mount>(&mut self, mount: &mut M) -> Result<()> {
        Request { driver: self, mount, who: ROOT, now: Time::default() }.forget()
    }

    /// Closes what is open.
    pub fn close_all<M: Mount>(&mut self, mount: &mut M) -> Result<()> {
        let mut request = Request { driver: self, mount, who: ROOT, now: Time::default() };
        for slot in request.driver.slots.keys().copied().collect::<Vec<_>>() {
            request.close(slot)?;
        }
        Ok(())
    }
}

impl<M: Mount> Request<'_, M> {
    fn run<T>(&mut self, op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Result<T> {
        self.mount.run(self.who, self.now, op)
    }

    /// The kernel now knows this inode.
    fn knows(&mut self, attr: Attr) -> Attr {
        *self.driver.known.entry(attr.ino).or_default() += 1;
        attr
    }

    fn step_into(&mut self, dir: InodeNo, name: &str) -> Result<Attr> {
        let found = self.run(|fs, cx| fs.lookup(cx, dir, name.as_bytes()))?.ok_or(libc::ENOENT)?;
        Ok(self.knows(found))
    }

    fn find(&mut self, path: &str) -> Result<InodeNo> {
        let mut ino = InodeNo::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            ino = self.step_into(ino, name)?.ino;
        }
        Ok(ino)
    }

    /// The directory a path's last name is in, and that name; `root` is the errno when the path is the root's.
    fn find_parent<'p>(&mut self, path: &'p str, root: i32) -> Result<(InodeNo, &'p [u8])> {
        let (parent, name) = path.rsplit_once('/').expect("paths are absolute");
        if name.is_empty() {
            return Err(root);
        }
        Ok((self.find(parent)?, name.as_bytes()))
    }

    fn at(&mut self, at: &At) -> Result<InodeNo> {
        match at {
            At::Path(path) => self.find(path),
            At::Slot(slot) => self.driver.slots.get(slot).copied().ok_or(libc::EBADF),
        }
    }

    fn call(&mut self, call: &Call) -> Result<Outcome> {
        match call {
            Call::Create { path, mode } => {
                let (dir, name) = self.find_parent(path, libc::EEXIST)?;
                let (attr, _) = self.run(|fs, cx| fs.create(cx, dir, name, *mode))?;
                self.knows(attr);
                self.run(|fs, cx| fs.release(cx, attr.ino))?;
                Ok(Outcome::Stat(stat(&attr)))
            }
            Call::Mkdir { path, mode } => self.make(path, |fs, cx, dir, name| Ok(fs.mkdir(cx, dir, name, *mode)?.0)),
            Call::Mknod { path, mode, rdev } => {
                self.make(path, |fs, cx, dir, name| Ok(fs.mknod(cx, dir, name, *mode, *rdev)?.0))
            }
            Call::Symlink { path, target } => {
                self.make(path, |fs, cx, dir, name| Ok(fs.symlink(cx, dir, name, target)?.0))
            }
            Call::Link { from, to } => {
                let ino = self.find(from)?;
                self.make(to, |fs, cx, dir, name| Ok(fs.link(cx, ino, dir, name)?.0))
            }
            Call::Unlink { path } => {
                let (dir, name) = self.find_parent(path, libc::EISDIR)?;
                self.run(|fs, cx| fs.unlink(cx, dir, name)).map(|_| Outcome::Done)
            }
            Call::Rmdir { path } => {
                let (dir, name) = self.find_parent(path, libc::EBUSY)?;
                self.run(|fs, cx| fs.rmdir(cx, dir, name)).map(|_| Outcome::Done)
            }
            Call::Rename { from, to, flags } => {
                let (dir, name) = self.find_parent(from, libc::EBUSY)?;
                let (to_dir, to_name) = self.find_parent(to, libc::EBUSY)?;
                self.run(|fs, cx| fs.rename(cx, dir, name, to_dir, to_name, *flags)).map(|_| Outcome::Done)
            }
            Call::Write { at, offset, len, fill } => self.write(at, *offset, *len, *fill),
            Call::Read { at, offset, len } => {
                let ino = self.at(at)?;
                self.run(|fs, cx| fs.read(cx, ino, *offset, *len)).map(Outcome::Data)
            }
            Call::Truncate { at, size } => {
                let ino = self.at(at)?;
                self.set(ino, SetAttr { size: Some(*size), ..SetAttr::default() })
            }
            Call::Allocate { at, mode, offset, len } => {
                let ino = self.at(at)?;
                self.run(|fs, cx| fs.fallocate(cx, ino, *offset, *len, *mode))?;
                self.run(|fs, cx| fs.getattr(cx, ino)).map(|attr| Outcome::Stat(stat(&attr)))
            }
            Call::Copy { from, offset, to, to_offset, len } => {
                let from = Place { ino: self.at(from)?, offset: *offset };
                let to = Place { ino: self.at(to)?, offset: *to_offset };
                self.run(|fs, cx| fs.copy_file_range(cx, from, to, *len)).map(|(copied, _)| Outcome::Written(copied))
            }
            Call::ReadData { at } => {
                let ino = self.at(at)?;
                self.read_data(ino).map(Outcome::Data)
            }
            Call::Chmod { path, mode } => {
                let ino = self.find(path)?;
                self.set(ino, SetAttr { mode: Some(*mode), ..SetAttr::default() })
            }
            Call::Chown { path, uid, gid } => {
                let ino = self.find(path)?;
                let now = Some(self.now);
                self.set(ino, SetAttr { uid: *uid, gid: *gid, ctime: now, ..SetAttr::default() })
            }
            Call::Utimens { path, atime, mtime } => {
                let ino = self.find(path)?;
                let at = |nanos: i64| Some(SetTime::At(Time::from_nanos(nanos)));
                self.set(ino, SetAttr { atime: at(*atime), mtime: at(*mtime), ..SetAttr::default() })
            }
            Call::SetXattr { path, name, value, flags } => {
                let ino = self.find(path)?;
                self.run(|fs, cx| fs.set_xattr(cx, ino, name.as_bytes(), value, *flags)).map(|_| Outcome::Done)
            }
            Call::RemoveXattr { path, name } => {
                let ino = self.find(path)?;
                self.run(|fs, cx| fs.remove_xattr(cx, ino, name.as_bytes())).map(|_| Outcome::Done)
            }
            Call::ListXattrs { path } => {
                let ino = self.find(path)?;
                self.run(|fs, cx| fs.list_xattrs(cx, ino)).map(Outcome::Data)
            }
            Call::SetAcl { path, default, acl } => {
                let (ino, name) = (self.find(path)?, if *default { xattr::DEFAULT } else { xattr::ACCESS });
                let set = |fs: &Fs, cx: &Cx| match acl {
                    Some(acl) => fs.set_xattr(cx, ino, name.as_bytes(), &acl.encode(), 0),
                    None => fs.remove_xattr(cx, ino, name.as_bytes()),
                };
                self.run(set).map(|_| Outcome::Done)
            }
            Call::Open { path, truncate, slot } => self.open(path, *truncate, *slot),
            Call::Close { slot } => self.close(*slot),
            Call::Stat { at } => {
                let ino = self.at(at)?;
                self.run(|fs, cx| fs.getattr(cx, ino)).map(|attr| Outcome::Stat(stat(&attr)))
            }
            Call::Readlink { path } => {
                let ino = self.find(path)?;
                self.run(|fs, cx| fs.readlink(cx, ino)).map(|target| Outcome::Data(target.to_vec()))
            }
            Call::Readdir { path, chunk } => {
                let ino = self.find(path)?;
                let names = self.list(ino, *chunk)?;
                Ok(Outcome::Names(names.into_iter().map(|(name, _, mode)| (name, mode)).collect()))
            }
            Call::Forget => self.forget().map(|()| Outcome::Done),
        }
    }

    fn make(&mut self, path: &str, op: impl Fn(&Fs, &Cx, InodeNo, &[u8]) -> Result<Attr, Stop>) -> Result<Outcome> {
        let (dir, name) = self.find_parent(path, libc::EEXIST)?;
        let attr = self.run(|fs, cx| op(fs, cx, dir, name))?;
        Ok(Outcome::Stat(stat(&self.knows(attr))))
    }

    fn set(&mut self, ino: InodeNo, set: SetAttr) -> Result<Outcome> {
        self.run(|fs, cx| fs.setattr(cx, ino, set)).map(|(attr, _)| Outcome::Stat(stat(&attr)))
    }

    fn write(&mut self, at: &At, offset: u64, len: u32, fill: u8) -> Result<Outcome> {
        let ino = self.at(at)?;
        let data = pattern(fill, len);
        let (written, _) = self.run(|fs, cx| fs.write(cx, ino, offset, &data))?;
        Ok(Outcome::Written(written))
    }

    /// What a file holds where it says that it has data, and zeros elsewhere.
    fn read_data(&mut self, ino: InodeNo) -> Result<Vec<u8>> {
        let attr = self.run(|fs, cx| fs.getattr(cx, ino))?;
        self.run(|fs, cx| fs.read(cx, ino, 0, 0))?;
        let mut out = vec![0; usize::try_from(attr.size).expect("the model's files are small")];
        let (mut at, mut shown) = (0, 0);
        loop {
            let data = match self.run(|fs, cx| fs.seek(cx, ino, at, Seek::Data)) {
                Ok(data) => data,
                Err(libc::ENXIO) => break,
                Err(errno) => return Err(errno),
            };
            let hole = self.run(|fs, cx| fs.seek(cx, ino, data, Seek::Hole))?;
            assert!(data < hole && (data == 0 || at < data), "data from {data} to {hole}, looked for from {at} on");
            assert!(data % 4096 == 0 && (hole % 4096 == 0 || hole == attr.size), "data from {data} to {hole}");
            let len = u32::try_from(hole - data).expect("small");
            let bytes = self.run(|fs, cx| fs.read(cx, ino, data, len))?;
            let from = usize::try_from(data).expect("small");
            out[from..from + bytes.len()].copy_from_slice(&bytes);
            (at, shown) = (hole, shown + u64::from(len));
        }
        assert!(shown <= attr.blocks * 2 * 4096, "{shown} bytes are shown as data in {} blocks", attr.blocks);
        Ok(out)
    }

    fn open(&mut self, path: &str, truncate: bool, slot: u8) -> Result<Outcome> {
        let ino = self.find(path)?;
        if truncate && !self.driver.slots.contains_key(&slot) {
            // As the kernel asks for it: it may be refused between the two.
            self.run(|fs, cx| fs.open(cx, ino))?;
            let set = SetAttr { size: Some(0), ..SetAttr::default() };
            if let Err(errno) = self.run(|fs, cx| fs.setattr(cx, ino, set)) {
                self.run(|fs, cx| fs.release(cx, ino))?;
                return Err(errno);
            }
        } else {
            self.run(|fs, cx| fs.open(cx, ino))?;
        }
        if self.driver.slots.contains_key(&slot) {
            self.run(|fs, cx| fs.release(cx, ino))?;
            return Err(libc::EMFILE);
        }
        self.driver.slots.insert(slot, ino);
        Ok(Outcome::Done)
    }

    fn close(&mut self, slot: u8) -> Result<Outcome> {
        let ino = self.driver.slots.remove(&slot).ok_or(libc::EBADF)?;
        self.run(|fs, cx| fs.release(cx, ino))?;
        Ok(Outcome::Done)
    }

    fn forget(&mut self) -> Result<()> {
        for (ino, lookups) in std::mem::take(&mut self.driver.known) {
            self.run(|fs, cx| fs.forget(cx, ino, lookups))?;
        }
        Ok(())
    }

    /// Names, inode numbers and type bits of a directory, without `.` and `..`; checks both of these.
    fn list(&mut self, dir: InodeNo, chunk: usize) -> Result<Vec<(String, InodeNo, u32)>> {
        let mut out = Vec::new();
        let mut after = 0;
        loop {
            let page = self.run(|fs, cx| fs.readdir(cx, dir, after, chunk))?;
            let Some(last) = page.last() else { break };
            after = last.cookie;
            for entry in page {
                let name = String::from_utf8(entry.name.to_vec()).expect("the model's names are text");
                out.push((name, entry.ino, u32::from(entry.kind) << 12));
            }
        }
        let dots: Vec<_> = out.drain(..2.min(out.len())).map(|(name, ..)| name).collect();
        assert_eq!(dots, [".", ".."], "the first names of a directory");
        Ok(out)
    }

    fn paths(&mut self) -> Result<Vec<(String, InodeNo)>> {
        let mut paths = vec![("/".to_string(), InodeNo::ROOT)];
        let mut at = 0;
        while let Some((path, ino)) = paths.get(at).cloned() {
            at += 1;
            let attr = self.run(|fs, cx| fs.getattr(cx, ino))?;
            if attr.mode & libc::S_IFMT == libc::S_IFDIR {
                let base = path.trim_end_matches('/');
                let names = self.list(ino, 7)?;
                paths.extend(names.into_iter().map(|(name, ino, _)| (format!("{base}/{name}"), ino)));
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn tree(&mut self) -> Result<Tree> {
        let paths = self.paths()?;
        let mut first = BTreeMap::new();
        for (path, ino) in &paths {
            first.entry(*ino).or_insert_with(|| path.clone());
        }
        paths.into_iter().map(|(path, ino)| Ok((path, self.entry(ino, first[&ino].clone())?))).collect()
    }

    fn readable(&mut self) -> BTreeMap<String, Result<Entry>> {
        let mut found = BTreeMap::new();
        let mut todo = vec![("/".to_string(), InodeNo::ROOT)];
        while let Some((path, ino)) = todo.pop() {
            let mut entry = self.entry(ino, path.clone());
            if entry.as_ref().is_ok_and(|entry| entry.stat.mode & libc::S_IFMT == libc::S_IFDIR) {
                let base = path.trim_end_matches('/');
                match self.list(ino, 7) {
                    Ok(names) => todo.extend(names.into_iter().map(|(name, ino, _)| (format!("{base}/{name}"), ino))),
                    Err(e) => entry = Err(e),
                }
            }
            found.insert(path, entry);
        }
        found
    }

    fn entry(&mut self, ino: InodeNo, first_path: String) -> Result<Entry> {
        let attr = self.run(|fs, cx| fs.getattr(cx, ino))?;
        let contents = match attr.mode & libc::S_IFMT {
            libc::S_IFREG => {
                let len = u32::try_from(attr.size).expect("the model's files are small");
                self.run(|fs, cx| fs.read(cx, ino, 0, len))?
            }
            libc::S_IFLNK => self.run(|fs, cx| fs.readlink(cx, ino))?.to_vec(),
            _ => Vec::new(),
        };
        Ok(Entry { stat: stat(&attr), contents, xattrs: self.xattrs(ino)?, first_path })
    }

    fn xattrs(&mut self, ino: InodeNo) -> Result<BTreeMap<String, Vec<u8>>> {
        let list = self.run(|fs, cx| fs.list_xattrs(cx, ino))?;
        let names = list.split(|b| *b == 0).filter(|name| !name.is_empty());
        let value = |name: &[u8]| {
            let value = self.run(|fs, cx| fs.get_xattr(cx, ino, name))?;
            Ok((String::from_utf8(name.to_vec()).expect("the model's names are text"), value.to_vec()))
        };
        names.map(value).collect()
    }
}

fn stat(attr: &Attr) -> Stat {
    Stat {
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        size: attr.size,
        rdev: attr.rdev,
        times: [attr.atime.as_nanos(), attr.mtime.as_nanos(), attr.ctime.as_nanos()],
    }
}
