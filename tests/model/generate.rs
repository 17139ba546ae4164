//! Random histories that depend on the seed alone. A model runs along, so that most paths exist and most calls succeed.

use super::Model;
use super::op::{At, Call, Op, Outcome, ROOT, Who};
use super::xattr::Acl;
use skylog::base::random::SeededRandom;
use std::collections::BTreeMap;

/// Names are few, so that histories meet themselves.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Lengths and offsets around which the layout of a file changes.
const EDGES: [u64; 9] = [0, 1, 512, 2047, 2048, 2049, 65535, 65536, 131_072];

/// How large files and writes get, bytes.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Writes and reads start below this.
    pub offset_max: u64,
    /// No write is longer.
    pub write_max: u64,
    /// No file is cut or grown to more.
    pub size_max: u64,
    /// No extended attribute is longer.
    pub value_max: u64,
}

impl Sizes {
    /// Every edge of a file's layout.
    pub const FULL: Sizes = Sizes { offset_max: 200_000, write_max: 150_000, size_max: 200_000, value_max: 64 << 10 };
    /// Small files, for worlds that are copied thousands of times.
    pub const SMALL: Sizes = Sizes { offset_max: 14_000, write_max: 8000, size_max: 20_000, value_max: 1500 };
}

/// Makes operations one at a time.
pub struct Generator<'r> {
    random: &'r SeededRandom,
    model: Model,
    depth_max: usize,
    sizes: Sizes,
}

/// A history of `len` operations.
pub fn generate(random: &SeededRandom, len: usize) -> Vec<Op> {
    let mut generator = Generator::new(random);
    (0..len).map(|_| generator.op()).collect()
}

/// `len` operations that write, cut, punch and read one file, and copy between it and another; the first ones make them.
pub fn generate_contents(random: &SeededRandom, len: usize) -> Vec<Op> {
    let generator = Generator::new(random);
    let path = |name: &str| At::Path(format!("/{name}"));
    let make = ["f", "g"].map(|name| Call::Create { path: format!("/{name}"), mode: 0o644 });
    let contents = std::iter::repeat_with(|| match random.below(8) {
        0..=5 => generator.contents(path("f")),
        6 => generator.contents(path("g")),
        _ if generator.one_in(3) => generator.copy(path("g"), path("f")),
        _ => generator.copy(path("f"), path(if generator.one_in(3) { "f" } else { "g" })),
    });
    make.into_iter().chain(contents).map(|call| Op { who: ROOT, call }).take(len).collect()
}

impl<'r> Generator<'r> {
    /// Starts with an empty tree.
    pub fn new(random: &'r SeededRandom) -> Generator<'r> {
        Generator::over(random, Model::new(0), Sizes::FULL)
    }

    /// Goes on from what `model` holds.
    pub fn over(random: &'r SeededRandom, model: Model, sizes: Sizes) -> Generator<'r> {
        Generator { random, model, depth_max: 3, sizes }
    }

    /// The next operation.
    pub fn op(&mut self) -> Op {
        let who = if self.one_in(2) { ROOT } else { Who { uid: 1000, gid: 100 } };
        let op = Op { who, call: self.call() };
        let _: Result<Outcome, i32> = self.model.apply(&op);
        op
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&self, from: &[T]) -> Option<T> {
        let i = self.below(from.len().max(1) as u64);
        from.get(usize::try_from(i).expect("small")).cloned()
    }

    /// The path of something that exists and has one of these types.
    fn existing(&self, types: &[u32]) -> String {
        let tree = self.model.tree();
        let of_type = |mode: u32| types.is_empty() || types.contains(&(mode & libc::S_IFMT));
        let paths: Vec<&String> = tree.iter().filter(|(_, e)| of_type(e.stat.mode)).map(|(path, _)| path).collect();
        match self.pick(&paths) {
            Some(path) if !self.one_in(12) => path.clone(),
            _ => self.fresh(),
        }
    }

    /// A path in some directory, mostly of something that does not exist.
    fn fresh(&self) -> String {
        let dirs: Vec<String> =
            self.model.tree().into_iter().filter(|(_, e)| is_dir(e.stat.mode)).map(|e| e.0).collect();
        let shallow: Vec<String> = dirs.into_iter().filter(|d| d.matches('/').count() < self.depth_max).collect();
        let dir = self.pick(&shallow).unwrap_or_default();
        let name = if self.one_in(200) { "n".repeat(256) } else { self.pick(&NAMES).unwrap_or("a").to_string() };
        format!("{}/{name}", dir.trim_end_matches('/'))
    }

    fn file(&self) -> String {
        if self.one_in(30) { self.existing(&[]) } else { self.existing(&[libc::S_IFREG]) }
    }

    fn at(&self) -> At {
        let slots = self.model.open_slots();
        match self.pick(&slots) {
            Some(slot) if self.one_in(3) => At::Slot(slot),
            _ => At::Path(self.file()),
        }
    }

    /// A number near one of the edges, or anywhere.
    fn edge(&self, bound: u64) -> u64 {
        let near = self.pick(&EDGES).unwrap_or(0);
        let n = match self.below(4) {
            0 => self.below(bound),
            1 => near + self.below(600),
            2 => near.saturating_sub(self.below(600)),
            _ => near,
        };
        n % bound
    }

    fn mode(&self) -> u32 {
        let bits = self.pick(&[0o644, 0o600, 0o755, 0o777, 0o4755, 0o2755, 0o6775, 0o2644, 0o1777, 0o2770]);
        bits.unwrap_or(0o644)
    }

    fn call(&self) -> Call {
        match self.below(110) {
            0..=13 => Call::Create { path: self.fresh(), mode: self.mode() },
            14..=21 => Call::Mkdir { path: self.fresh(), mode: self.mode() },
            22..=23 => Call::Symlink { path: self.fresh(), target: vec![b't'; 1 + self.below(40) as usize] },
            24 => Call::Mknod { path: self.fresh(), mode: libc::S_IFIFO | 0o600, rdev: 0 },
            25..=28 => Call::Link { from: self.existing(&[libc::S_IFREG, libc::S_IFLNK]), to: self.fresh() },
            29..=34 => Call::Unlink { path: self.file() },
            35..=37 => Call::Rmdir { path: self.existing(&[libc::S_IFDIR]) },
            38..=45 => self.rename(),
            46..=60 => self.write(self.at()),
            61..=63 => self.copy(self.at(), self.at()),
            64..=67 => self.allocate(self.at()),
            68..=72 => Call::Truncate { at: self.at(), size: self.edge(self.sizes.size_max) },
            73..=75 => Call::Chmod { path: self.existing(&[]), mode: self.mode() },
            76..=77 => self.chown(),
            78..=79 => self.utimens(),
            80..=84 => Call::Open { path: self.file(), truncate: self.below(3) == 0, slot: self.slot() },
            85..=88 => Call::Close { slot: self.slot() },
            89..=91 => Call::Readdir { path: self.existing(&[libc::S_IFDIR]), chunk: 1 + self.below(4) as usize },
            92..=94 => self.read(self.at()),
            95 => Call::ReadData { at: self.at() },
            96 => Call::Stat { at: At::Path(self.existing(&[])) },
            97 => Call::Readlink { path: self.existing(&[libc::S_IFLNK]) },
            98..=99 => Call::Forget,
            100..=102 => self.set_xattr(),
            103 => Call::RemoveXattr { path: self.existing(&[]), name: self.xattr_name() },
            104 => Call::ListXattrs { path: self.existing(&[]) },
            _ => self.set_acl(),
        }
    }

    fn slot(&self) -> u8 {
        self.below(3) as u8
    }

    fn rename(&self) -> Call {
        let to = if self.one_in(2) { self.existing(&[]) } else { self.fresh() };
        let flag = |n: u64, flag: u32| if self.one_in(n) { flag } else { 0 };
        let flags = flag(5, libc::RENAME_NOREPLACE) | flag(10, libc::RENAME_WHITEOUT) | flag(4, libc::RENAME_EXCHANGE);
        // Of an exchange most impossible combinations are left out.
        let exchange = flags & libc::RENAME_EXCHANGE != 0 && !self.one_in(4);
        let flags = if exchange { libc::RENAME_EXCHANGE } else { flags };
        Call::Rename { from: self.existing(&[]), to, flags }
    }

    fn xattr_name(&self) -> String {
        let names = ["user.a", "user.b", "trusted.t", "security.capability", "security.s"];
        self.pick(&names).unwrap_or("user.a").to_string()
    }

    fn set_xattr(&self) -> Call {
        let name = if self.one_in(30) { "bogus.x".to_string() } else { self.xattr_name() };
        let len = if self.one_in(10) { self.below(self.sizes.value_max + 1) } else { self.below(100) };
        let value = vec![self.below(3) as u8; usize::try_from(len).expect("small")];
        let flags = self.pick(&[0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE]).unwrap_or(0);
        Call::SetXattr { path: self.existing(&[]), name, value, flags }
    }

    fn set_acl(&self) -> Call {
        let default = self.one_in(2);
        let path = if default { self.existing(&[libc::S_IFDIR]) } else { self.existing(&[]) };
        Call::SetAcl { path, default, acl: (!self.one_in(5)).then(|| self.acl()) }
    }

    fn acl(&self) -> Acl {
        let perm = || u32::try_from(self.below(8)).expect("three bits");
        let some = || (0..self.below(3)).map(|_| (1000 + self.below(3) as u32, perm())).collect();
        let (users, groups): (BTreeMap<_, _>, BTreeMap<_, _>) = (some(), some());
        let mask = (!users.is_empty() || !groups.is_empty() || self.one_in(3)).then(perm);
        Acl { classes: [perm(), perm(), perm()], mask, users, groups }
    }

    fn contents(&self, at: At) -> Call {
        match self.below(14) {
            0..=6 => self.write(at),
            7 => Call::Truncate { at, size: self.edge(self.sizes.size_max) },
            8 => Call::Truncate { at, size: self.edge(3000) },
            9..=11 => self.allocate(at),
            12 => Call::ReadData { at },
            _ => self.read(at),
        }
    }

    fn read(&self, at: At) -> Call {
        let Sizes { offset_max, write_max, .. } = self.sizes;
        Call::Read { at, offset: self.edge(offset_max), len: self.below(write_max) as u32 }
    }

    fn write(&self, at: At) -> Call {
        let len = if self.one_in(3) { 1 + self.below(300) } else { self.edge(self.sizes.write_max) };
        let len = u32::try_from(len).expect("small");
        Call::Write { at, offset: self.edge(self.sizes.offset_max), len, fill: self.below(251) as u8 }
    }

    fn allocate(&self, at: At) -> Call {
        const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        let mode = self.pick(&[0, KEEP, PUNCH | KEEP, PUNCH | KEEP, PUNCH | KEEP, ZERO, ZERO, ZERO | KEEP]);
        let mode = if self.one_in(40) { PUNCH } else { mode.unwrap_or(0) };
        let len = if self.one_in(2) { self.below(5000) } else { self.edge(self.sizes.write_max) };
        Call::Allocate { at, mode, offset: self.edge(self.sizes.offset_max), len }
    }

    fn copy(&self, from: At, to: At) -> Call {
        let len = if self.one_in(2) { self.below(5000) } else { self.edge(self.sizes.write_max) };
        let (offset, to_offset) = (self.edge(self.sizes.offset_max), self.edge(self.sizes.offset_max));
        Call::Copy { from, offset, to, to_offset, len }
    }

    fn chown(&self) -> Call {
        let id = |n: u64| if self.one_in(3) { None } else { Some(u32::try_from(n).expect("small")) };
        Call::Chown { path: self.existing(&[]), uid: id(1000 + self.below(3)), gid: id(100 + self.below(3)) }
    }

    fn utimens(&self) -> Call {
        let time = || i64::try_from(self.below(4_000_000_000_000_000_000)).expect("fits");
        Call::Utimens { path: self.existing(&[]), atime: time(), mtime: -time() }
    }
}

fn is_dir(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFDIR
}
