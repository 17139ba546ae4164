//! Random sequences that depend on the seed alone. A guess of what exists runs along, so that most calls have something to
//! work on; whether a call succeeds is not known here.

use super::step::{At, Call, SLOTS, Step, When, Who};
use super::tree::BASES;
use skylog::base::random::{Random, SeededRandom};

/// Names are few, so that sequences meet themselves.
const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "x*255", "y*256", "\u{1}\u{ff}", "-n .*3"];
const MODES: [u32; 14] =
    [0o644, 0o600, 0o666, 0o755, 0o777, 0o700, 0, 0o444, 0o4755, 0o2755, 0o6777, 0o1777, 0o2777, 0o2644];
const XATTRS: [&str; 10] = [
    "user.a",
    "user.b",
    "trusted.a",
    "security.a",
    "security.capability",
    "security.capability",
    "user.n*250",
    "user.n*255",
    "nothing",
    "system.a",
];
const EDGES: [u64; 14] = [0, 1, 511, 2047, 2048, 2049, 4095, 4096, 4097, 8192, 65535, 65536, 65537, 131_072];
/// Seconds: both ends of 32 bits, of what ext4 holds in 34, and before 1970.
const SECONDS: [i64; 8] = [0, 1, -1, -2_147_483_647, 2_147_483_647, 2_147_483_648, 4_294_967_296, 15_032_385_534];

/// A sequence of `len` steps.
pub fn generate(seed: u64, len: usize) -> Vec<Step> {
    let random = SeededRandom::new(seed);
    let taste = random.u64();
    let (paths, dirs) = (vec![".".to_string()], vec![".".to_string()]);
    let mut generator = Generator { random, taste, paths, dirs, open: Vec::new(), xattrs: Vec::new() };
    (0..len).map(|n| generator.step(n)).collect()
}

struct Generator {
    random: SeededRandom,
    /// Which kinds of call this sequence prefers.
    taste: u64,
    /// Paths that may exist.
    paths: Vec<String>,
    /// Directories that may exist.
    dirs: Vec<String>,
    /// Slots that may be open.
    open: Vec<usize>,
    /// Extended attributes that may exist.
    xattrs: Vec<(At, String)>,
}

impl Generator {
    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).expect("small")
    }

    fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn step(&mut self, n: usize) -> Step {
        let who = match self.below(8) {
            0 | 1 => Who::Alice,
            2 => Who::Bob,
            _ => Who::Root,
        };
        let call = match n {
            0..4 => self.making(),
            _ if self.one_in(3) => self.kind((self.taste >> (8 * self.below(3)) & 0xff) as usize),
            _ => {
                let kind = self.below(256);
                self.kind(kind)
            }
        };
        Step { who, call }
    }

    fn kind(&mut self, kind: usize) -> Call {
        match kind % 16 {
            0 | 1 => self.making(),
            2 => self.opening(),
            3..=5 => self.contents(),
            6 => self.extents(),
            7 | 8 => self.names(),
            9 | 10 => self.attributes(),
            11 | 12 => self.xattrs(),
            13 | 14 => self.looking(),
            _ => self.rest(),
        }
    }

    fn name(&self) -> String {
        self.pick(if self.one_in(8) { &NAMES[..] } else { &NAMES[..6] }).to_string()
    }

    /// A path that perhaps does not exist yet.
    fn new_path(&mut self) -> String {
        let dir = self.pick(&self.dirs);
        let path = if dir == "." { self.name() } else { format!("{dir}/{}", self.name()) };
        if !self.paths.contains(&path) {
            self.paths.push(path.clone());
        }
        self.odd(path)
    }

    /// A path that probably exists.
    fn path(&mut self) -> String {
        if self.one_in(6) {
            return self.new_path();
        }
        let path = self.pick(&self.paths);
        self.odd(path)
    }

    /// Now and then a detour.
    fn odd(&self, path: String) -> String {
        match self.below(60) {
            0 => format!("{path}/"),
            1 => format!("./{path}"),
            2 => format!("{}/../{path}", self.pick(&self.dirs)),
            3 => format!("{path}/."),
            4 => format!("{path}/.."),
            5 => format!("/{path}"),
            6 => format!("{path}/a"),
            7 => String::new(),
            _ => path,
        }
    }

    fn slot(&self) -> usize {
        if self.open.is_empty() || self.one_in(10) { self.below(SLOTS) } else { self.pick(&self.open) }
    }

    fn at(&mut self) -> At {
        match self.below(5) {
            0 | 1 => At::Slot(self.slot()),
            2 => At::Link(self.path()),
            _ => At::Path(self.path()),
        }
    }

    fn offset(&self) -> u64 {
        match self.below(24) {
            0 => self.pick(&BASES) + self.random.below(9000),
            1..=6 => self.pick(&EDGES),
            7..=8 => self.random.below(200_000),
            _ => self.random.below(12_000),
        }
    }

    fn len(&self) -> usize {
        match self.below(16) {
            0 => self.below(150_000),
            1 | 2 => usize::try_from(self.pick(&EDGES)).expect("small"),
            3 => 0,
            _ => self.below(9000),
        }
    }

    fn seed(&self) -> u8 {
        self.below(12) as u8
    }

    fn making(&mut self) -> Call {
        let (path, mode) = (self.new_path(), self.pick(&MODES));
        match self.below(12) {
            0..=3 => {
                if !self.dirs.contains(&path) && path.len() < 40 {
                    self.dirs.push(path.clone());
                }
                Call::Mkdir { path, mode: if self.one_in(3) { mode } else { 0o777 } }
            }
            4 => {
                let kind = self.pick(&[libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFCHR, libc::S_IFBLK, libc::S_IFREG, 0]);
                Call::Mknod { path, mode: kind | mode, device: self.pick(&[(0, 0), (1, 3), (259, 65_537), (7, 300)]) }
            }
            5 | 6 => Call::Symlink { target: self.target(), path },
            _ => {
                let mut opening = self.opening();
                if let Call::Open { slot, path: at, flags, mode: bits } = &mut opening {
                    self.open.push(*slot);
                    (*at, *bits) = (path, if mode & 0o600 == 0o600 { mode } else { 0o666 });
                    *flags =
                        *flags & !(libc::O_DIRECTORY | libc::O_PATH | libc::O_ACCMODE) | libc::O_CREAT | libc::O_RDWR;
                }
                opening
            }
        }
    }

    fn target(&mut self) -> String {
        match self.below(8) {
            0 => "nowhere".into(),
            1 => "t*4095".into(),
            2 => "t*4096".into(),
            3 => "..".into(),
            _ => self.path(),
        }
    }

    fn opening(&mut self) -> Call {
        let slot = self.below(SLOTS);
        let mut flags = self.pick(&[libc::O_RDWR, libc::O_RDWR, libc::O_RDONLY, libc::O_WRONLY]);
        let some = [
            (4, libc::O_CREAT),
            (12, libc::O_EXCL),
            (8, libc::O_TRUNC),
            (6, libc::O_APPEND),
            (16, libc::O_DIRECTORY),
            (12, libc::O_NOFOLLOW),
            (30, libc::O_PATH),
        ];
        for (chance, flag) in some {
            if self.one_in(chance) {
                flags |= flag;
            }
        }
        // Opening a fifo must not wait, and a device must not be used.
        Call::Open { slot, path: self.path(), flags: flags | libc::O_NONBLOCK, mode: self.pick(&MODES) }
    }

    fn contents(&mut self) -> Call {
        let (slot, len, seed) = (self.slot(), self.len(), self.seed());
        match self.below(12) {
            0..=2 => Call::Write { slot, len, seed },
            3..=6 => Call::Pwrite { slot, at: self.offset(), len, seed },
            7 => Call::Read { slot, len },
            8 => Call::Pread { slot, at: self.offset(), len },
            9 => {
                let whence =
                    self.pick(&[libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END, libc::SEEK_DATA, libc::SEEK_HOLE]);
                let at = self.offset() as i64;
                Call::Seek { slot, at: if self.one_in(4) { -at } else { at }, whence }
            }
            10 => Call::MapWrite { slot, at: self.random.below(16_000), len: self.below(9000), seed },
            _ => Call::MapPrivate { slot, at: self.random.below(16_000), len: self.below(9000) },
        }
    }

    fn extents(&mut self) -> Call {
        match self.below(8) {
            0..=2 => Call::Truncate { at: self.at(), len: self.offset() },
            3 | 4 => {
                let (keep, punch, zero) =
                    (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_ZERO_RANGE);
                let mode = self.pick(&[0, keep, punch | keep, zero, zero | keep, punch, keep | 0x40]);
                // Large preallocations would fill the disk.
                let len = self.random.below(40_000);
                Call::Fallocate { slot: self.slot(), mode, at: self.offset(), len }
            }
            5 | 6 => {
                let (from, to) = (self.slot(), self.slot());
                Call::CopyRange { from, to, from_at: self.offset(), to_at: self.offset(), len: self.len() }
            }
            _ => Call::Sync { slot: self.slot(), data: self.one_in(2) },
        }
    }

    fn names(&mut self) -> Call {
        match self.below(12) {
            0..=4 => {
                let (from, to) = (self.path(), if self.one_in(2) { self.path() } else { self.new_path() });
                let flags = match self.below(8) {
                    0 => libc::RENAME_EXCHANGE,
                    1 => libc::RENAME_NOREPLACE,
                    2 => libc::RENAME_WHITEOUT,
                    3 => self.pick(&[
                        libc::RENAME_EXCHANGE | libc::RENAME_NOREPLACE,
                        libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT,
                        libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT,
                        8,
                    ]),
                    _ => 0,
                };
                Call::Rename { from, to, flags }
            }
            5..=7 => Call::Link { from: self.at(), to: self.new_path() },
            8 | 9 => Call::Unlink { path: self.path() },
            10 => Call::Rmdir { path: self.path() },
            _ => Call::Umask { mask: self.pick(&[0, 0o022, 0o077, 0o777]) },
        }
    }

    fn attributes(&mut self) -> Call {
        let at = self.at();
        match self.below(3) {
            0 => Call::Chmod { at, mode: self.pick(&MODES) },
            1 => {
                let ids = [0, 1001, 1002, 2000, 70_000, u32::MAX];
                let uid = self.pick(&ids);
                // One of them changes: see `known.rs`.
                let gid = self.pick(if uid == u32::MAX { &ids[..5] } else { &ids });
                Call::Chown { at, uid, gid }
            }
            _ => Call::Utimens { at, atime: self.when(), mtime: self.when() },
        }
    }

    fn when(&self) -> When {
        match self.below(6) {
            0 => When::Now,
            1 => When::Omit,
            2 => When::At(self.pick(&SECONDS), self.pick(&[1_000_000_000, 2_000_000_000])),
            _ => When::At(self.pick(&SECONDS), self.pick(&[0, 1, 123_456_789, 999_999_999])),
        }
    }

    fn xattrs(&mut self) -> Call {
        let (mut at, mut name) = (self.at(), self.pick(&XATTRS).to_string());
        let kind = self.below(10);
        if kind > 6 && !self.xattrs.is_empty() && !self.one_in(4) {
            (at, name) = self.pick(&self.xattrs);
        }
        match kind {
            0..=3 => {
                self.xattrs.push((at.clone(), name.clone()));
                let flags = self.pick(&[0, 0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE]);
                Call::SetXattr { at, name, len: self.pick(&[0, 1, 20, 300, 1500]), seed: self.seed(), flags }
            }
            4..=6 => Call::SetAcl { at, default: self.one_in(2), entries: self.acl() },
            7 => {
                let name = if self.one_in(6) { "system.posix_acl_access".to_string() } else { name };
                Call::GetXattr { at, name, len: self.pick(&[0, 1, 300, 4000]) }
            }
            8 => Call::ListXattr { at, len: self.pick(&[0, 5, 4000]) },
            _ => {
                let acl = ["system.posix_acl_access", "system.posix_acl_default"];
                let name = if self.one_in(3) { self.pick(&acl).to_string() } else { name };
                Call::RemoveXattr { at, name }
            }
        }
    }

    /// Mostly valid ACLs: owner, a user, the group, a group, the mask, others, in this order.
    fn acl(&self) -> Vec<(u16, u16, u32)> {
        let none = u32::MAX;
        let perm = || self.below(8) as u16;
        let mut entries = vec![(1, perm(), none)];
        if self.one_in(2) {
            entries.push((2, perm(), self.pick(&[1001, 1002])));
        }
        entries.push((4, perm(), none));
        if self.one_in(3) {
            entries.push((8, perm(), self.pick(&[1001, 2000])));
        }
        if entries.len() > 2 || self.one_in(3) {
            entries.push((16, perm(), none));
        }
        entries.push((32, perm(), none));
        if self.one_in(12) {
            let lost = self.below(entries.len());
            entries.remove(lost);
        }
        entries
    }

    fn looking(&mut self) -> Call {
        match self.below(10) {
            0..=2 => Call::Stat { at: self.at() },
            3 => Call::Statfs { at: self.at() },
            4 => Call::List { path: self.pick(&self.dirs) },
            5 => {
                let path = self.pick(&self.dirs);
                Call::ListWhile { path, entries: self.below(5), make: self.name(), remove: self.name() }
            }
            6 => Call::Readlink { path: self.path() },
            _ => {
                let flags = self.pick(&[0, libc::AT_EACCESS, libc::AT_SYMLINK_NOFOLLOW]);
                Call::Access { path: self.path(), mode: self.below(8) as i32, flags }
            }
        }
    }

    fn rest(&mut self) -> Call {
        let slot = self.slot();
        match self.below(4) {
            0 => Call::Close { slot },
            1 => {
                let how = self.pick(&[libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_UN]);
                Call::Flock { slot, how: how | libc::LOCK_NB }
            }
            2 => {
                let kind = self.pick(&[libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK]);
                Call::Lock { slot, kind, at: self.below(100) as i64, len: self.below(100) as i64 }
            }
            _ => self.looking(),
        }
    }
}
