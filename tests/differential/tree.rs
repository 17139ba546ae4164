//! What can be seen of a file and of a tree, as facts that can be compared: a name and a text each.

use super::calls::{self, Answer, Listing, Of};
use std::collections::BTreeMap;

/// Named facts, in a fixed order.
pub type Facts = Vec<(&'static str, String)>;
/// Facts of every file, by path.
pub type Tree = BTreeMap<String, Facts>;

pub const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Times within so many seconds of now are not compared, but for "it changed".
const NOW_SECONDS: i64 = 86_400;
const BLOCK: u64 = 4096;
/// Where files have contents, and how much around it is read. Offsets that sequences use lie inside.
pub const BASES: [u64; 4] = [0, 1 << 32, 1 << 40, (1 << 44) - (1 << 20)];
const BEFORE: u64 = 256 << 10;
const BEHIND: u64 = 768 << 10;

pub fn fact(name: &'static str, value: impl ToString) -> (&'static str, String) {
    (name, value.to_string())
}

/// Bytes as text: all of few, the checksum of many.
pub fn short(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=24 => format!("{} {}", bytes.len(), bytes.escape_ascii()),
        len => format!("{len} {}… #{:08x}", bytes[..8].escape_ascii(), crc32c::crc32c(bytes)),
    }
}

pub fn sorted_names(list: &[u8]) -> String {
    let mut names: Vec<_> = list.split(|byte| *byte == 0).map(|name| name.escape_ascii().to_string()).collect();
    names.sort();
    names.join(" ")
}

pub fn entries_text(entries: &[(Vec<u8>, u8)]) -> String {
    let one = |(name, kind): &(Vec<u8>, u8)| format!("{}:{kind}", name.escape_ascii());
    entries.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// A POSIX ACL as the kernel's xattr holds it.
pub fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let one = |(tag, perm, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes()[..], &id.to_le_bytes()[..]].concat()
    };
    [2u32.to_le_bytes().to_vec()].into_iter().chain(entries.iter().map(one)).flatten().collect()
}

/// File capabilities of the second revision, as the kernel takes them.
pub fn capability(permitted: u8) -> Vec<u8> {
    let words = [0x0200_0000, u32::from(permitted), 0, 0, 0];
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// A time that was set, exactly; one that came from the clock, as "now".
fn time(seconds: i64, nanos: i64) -> String {
    let (now, _) = calls::coarse_clock();
    if (now - seconds).abs() < NOW_SECONDS { "now".to_string() } else { format!("{seconds}.{nanos:09}") }
}

fn is(stat: &libc::stat, kind: u32) -> bool {
    stat.st_mode & libc::S_IFMT == kind
}

/// What `stat` says, without what is the filesystem's own affair: device, inode number, preferred block.
pub fn stat_facts(stat: &libc::stat) -> Facts {
    let size = if is(stat, libc::S_IFDIR) { "directory size" } else { "size" };
    vec![
        fact("mode", format!("{:o}", stat.st_mode)),
        fact("owner", format!("{}:{}", stat.st_uid, stat.st_gid)),
        fact("links", stat.st_nlink),
        fact(size, stat.st_size),
        fact("blocks", stat.st_blocks),
        fact("device", stat.st_rdev),
        fact("atime", time(stat.st_atime, stat.st_atime_nsec)),
        fact("mtime", time(stat.st_mtime, stat.st_mtime_nsec)),
        fact("ctime", time(stat.st_ctime, stat.st_ctime_nsec)),
    ]
}

/// What every filesystem's `statfs` must say, and no numbers of its own.
pub fn statfs_facts(statfs: &libc::statfs) -> Facts {
    let free = statfs.f_bavail <= statfs.f_bfree && statfs.f_bfree <= statfs.f_blocks && statfs.f_blocks > 0;
    vec![
        fact("name length", statfs.f_namelen),
        fact("blocks add up", free),
        fact("files add up", statfs.f_ffree <= statfs.f_files && statfs.f_files > 0),
        fact("block", statfs.f_bsize > 0 && statfs.f_frsize > 0),
    ]
}

/// The working directory and all below it, and the open files: which file of the tree each is, or what it holds.
pub fn snapshot(open: &[(usize, i32)]) -> Tree {
    let mut walk = Walk { tree: Tree::new(), paths: BTreeMap::new() };
    walk.visit(b".");
    for (slot, fd) in open {
        let facts = walk.open_file(*fd);
        walk.tree.insert(format!("slot {slot}"), facts);
    }
    walk.tree
}

struct Walk {
    tree: Tree,
    /// The first path of each inode.
    paths: BTreeMap<u64, String>,
}

impl Walk {
    fn visit(&mut self, path: &[u8]) {
        let stat = calls::stat(&Of::Link(path)).expect("what is listed is there");
        let name = path.escape_ascii().to_string();
        let mut facts = stat_facts(&stat);
        let first = self.paths.entry(stat.st_ino).or_insert_with(|| name.clone()).clone();
        facts.push(fact("same file as", &first));
        facts.extend(own_facts(&stat));
        if first == name {
            facts.extend(xattr_facts(path));
            match stat.st_mode & libc::S_IFMT {
                libc::S_IFREG => facts.extend(content_facts(path)),
                libc::S_IFLNK => facts.push(fact("target", calls::readlink(path).expect("a link").escape_ascii())),
                _ => {}
            }
        }
        if is(&stat, libc::S_IFDIR) {
            for (entry, kind) in list(path) {
                assert_eq!(
                    u32::from(kind) << 12,
                    kind_of(path, &entry),
                    "the type of {} in a listing",
                    entry.escape_ascii()
                );
                self.visit(&[path, b"/", &entry].concat());
            }
        }
        self.tree.insert(name, facts);
    }

    fn open_file(&self, fd: i32) -> Facts {
        let stat = calls::stat(&Of::Fd(fd)).expect("it is open");
        let mut facts = stat_facts(&stat);
        match self.paths.get(&stat.st_ino) {
            Some(path) => facts.push(fact("same file as", path)),
            None if is(&stat, libc::S_IFREG) => facts.extend(open_contents(fd, stat.st_size as u64)),
            None => {}
        }
        facts
    }
}

fn kind_of(dir: &[u8], entry: &[u8]) -> u32 {
    let stat = calls::stat(&Of::Link(&[dir, b"/", entry].concat())).expect("what is listed is there");
    stat.st_mode & libc::S_IFMT
}

fn list(path: &[u8]) -> Vec<(Vec<u8>, u8)> {
    let fd = calls::open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0).expect("root may list");
    let mut listing = Listing::of(fd).expect("a directory");
    let mut entries: Vec<_> = std::iter::from_fn(|| listing.next()).collect();
    entries.sort();
    entries
}

/// What only the same filesystem must say again.
fn own_facts(stat: &libc::stat) -> Facts {
    let one = |seconds: i64, nanos: i64| format!("{seconds}.{nanos:09}");
    vec![
        fact("inode", stat.st_ino),
        fact("exact mtime", one(stat.st_mtime, stat.st_mtime_nsec)),
        fact("exact ctime", one(stat.st_ctime, stat.st_ctime_nsec)),
        fact("exact atime", one(stat.st_atime, stat.st_atime_nsec)),
    ]
}

fn xattr_facts(path: &[u8]) -> Facts {
    let of = Of::Link(path);
    let names = match calls::list_xattr(&of, 65536) {
        Ok((_, names)) => names,
        Err(number) => return vec![fact("xattrs", format!("error {number}"))],
    };
    let mut names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort();
    let value = |name: &[u8]| match calls::get_xattr(&of, name, 65536) {
        Ok((_, value)) => short(&value),
        Err(number) => format!("error {number}"),
    };
    let all = names.iter().map(|name| format!("{}={}", name.escape_ascii(), value(name)));
    vec![fact("xattrs", all.collect::<Vec<_>>().join(" "))]
}

fn content_facts(path: &[u8]) -> Facts {
    let fd = calls::open(path, libc::O_RDONLY | libc::O_NOFOLLOW, 0).expect("root may read");
    let size = calls::stat(&Of::Fd(fd)).expect("it is open").st_size;
    // The map first: ext4 takes blocks that were only allocated for data once they have been read.
    let map = data_map(fd).unwrap_or_else(|number| panic!("{}: SEEK_DATA: error {number}", path.escape_ascii()));
    let blocks = file_contents(fd, u64::try_from(size).expect("sizes are positive"));
    calls::close(fd).expect("it was open");
    for (block, _) in &blocks {
        let mapped = map.iter().any(|(from, to)| (from..to).contains(&block));
        assert!(mapped, "{}: block {block} is not all zeros, and in a hole: {map:?}", path.escape_ascii());
    }
    vec![fact("contents", blocks_text(&blocks)), fact("data map", format!("{map:?}"))]
}

/// An open file may not be open for reading.
fn open_contents(fd: i32, size: u64) -> Facts {
    match calls::read(fd, 1, Some(0)) {
        Ok(_) => vec![fact("contents", blocks_text(&file_contents(fd, size)))],
        Err(number) => vec![fact("contents", format!("error {number}"))],
    }
}

/// Every block that is not all zeros, and its checksum.
fn file_contents(fd: i32, size: u64) -> Vec<(u64, u32)> {
    let mut blocks = Vec::new();
    for base in BASES {
        let (from, to) = (base.saturating_sub(BEFORE), (base + BEHIND).min(size));
        if from >= to {
            continue;
        }
        let bytes = read_all(fd, from, usize::try_from(to - from).expect("a window"));
        for (n, block) in bytes.chunks(BLOCK as usize).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                blocks.push((from / BLOCK + n as u64, crc32c::crc32c(block)));
            }
        }
    }
    blocks
}

fn blocks_text(blocks: &[(u64, u32)]) -> String {
    blocks.iter().map(|(block, sum)| format!("{block}:{sum:08x}")).collect::<Vec<_>>().join(" ")
}

fn read_all(fd: i32, from: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let more = calls::read(fd, len - bytes.len(), Some(from + bytes.len() as u64)).expect("it can be read");
        assert!(!more.is_empty(), "the file is as long as it says");
        bytes.extend(more);
    }
    bytes
}

/// Where the file has data: first block, and the one behind the last.
fn data_map(fd: i32) -> Answer<Vec<(u64, u64)>> {
    let (mut map, mut at) = (Vec::new(), 0);
    loop {
        let data = match calls::seek(fd, at, libc::SEEK_DATA) {
            Err(libc::ENXIO) => return Ok(map),
            found => found?,
        };
        let hole = calls::seek(fd, data, libc::SEEK_HOLE)?;
        assert!(data >= at && hole > data, "SEEK_DATA and SEEK_HOLE go forward: {at} {data} {hole}");
        map.push((data as u64 / BLOCK, (hole as u64).div_ceil(BLOCK)));
        at = hole;
    }
}

/// Modification and change time of every file in sight, by the first path of it or the slot it is open in.
pub type Times = BTreeMap<u64, (String, [(i64, i64); 2])>;

/// Takes the times of the tree and of open files.
pub fn times(open: &[(usize, i32)]) -> Times {
    let mut times = Times::new();
    let mut waiting = vec![b".".to_vec()];
    while let Some(path) = waiting.pop() {
        let stat = calls::stat(&Of::Link(&path)).expect("it is there");
        note(&mut times, path.escape_ascii().to_string(), &stat);
        if is(&stat, libc::S_IFDIR) {
            waiting.extend(list(&path).into_iter().rev().map(|(entry, _)| [&path[..], b"/", &entry].concat()));
        }
    }
    for (slot, fd) in open {
        note(&mut times, format!("slot {slot}"), &calls::stat(&Of::Fd(*fd)).expect("it is open"));
    }
    times
}

fn note(times: &mut Times, name: String, stat: &libc::stat) {
    let both = [(stat.st_mtime, stat.st_mtime_nsec), (stat.st_ctime, stat.st_ctime_nsec)];
    times.entry(stat.st_ino).or_insert((name, both));
}

/// Which times of files that were there before are others now.
pub fn changed(before: &Times, after: &Times) -> Facts {
    let mut names = Vec::new();
    for (ino, (name, [mtime, ctime])) in after {
        if let Some((_, [old_mtime, old_ctime])) = before.get(ino) {
            let mark = |changed: bool, what: &'static str| if changed { what } else { "" };
            let both = [mark(mtime != old_mtime, " mtime"), mark(ctime != old_ctime, " ctime")].concat();
            if !both.is_empty() {
                names.push(format!("{name}:{both}"));
            }
        }
    }
    names.sort();
    vec![fact("changed", names.join(", "))]
}

/// Waits until the clock has passed every time taken, so that a change made now shows. The clock ticks by itself.
pub fn wait_for_clock(times: &Times) {
    let (now, _) = calls::coarse_clock();
    let all = times.values().flat_map(|(_, both)| both).filter(|(seconds, _)| (now - seconds).abs() < NOW_SECONDS);
    let Some(newest) = all.max() else { return };
    while calls::coarse_clock() <= *newest {
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
}
