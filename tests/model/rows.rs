//! The invariants of the filesystem core's rows, checked by a full scan.

use skylog::format::ids::InodeNo;
use skylog::format::inode::{CookieValue, Extent, Inode, NameValue, Xattrs};
use skylog::format::key::Key;
use skylog::format::usage::{Usage, UsageLimit};
use skylog::fs::INLINE_BYTES_MAX;
use std::collections::BTreeMap;

/// What a full scan finds of one inode.
#[derive(Default)]
struct Scanned {
    inode: Option<Inode>,
    inline: Option<u64>,
    blocks: u64,
    /// Where the last extent ends.
    end: u64,
    names: BTreeMap<bytes::Bytes, NameValue>,
    cookies: BTreeMap<u64, CookieValue>,
    links: u32,
    subdirectories: u32,
    orphan: bool,
    xattrs: Xattrs,
}

/// Checks the invariants that `fs` promises against every row of the map.
pub fn check_rows(rows: Vec<(Key, bytes::Bytes)>) {
    let mut all: BTreeMap<InodeNo, Scanned> = BTreeMap::new();
    let mut recorded = None;
    for (key, value) in rows {
        match key {
            Key::Inode(ino) => all.entry(ino).or_default().inode = Some(Inode::decode(&value).expect("an inode")),
            Key::Inline(ino) => {
                let scanned = all.entry(ino).or_default();
                scanned.inline = Some(value.len() as u64);
                scanned.blocks += value.len().div_ceil(512) as u64;
            }
            Key::Name(ino, name) => {
                let entry = NameValue::decode(&value).expect("a name");
                let child = all.entry(entry.ino).or_default();
                child.links += 1;
                if entry.kind == libc::DT_DIR {
                    all.entry(ino).or_default().subdirectories += 1;
                }
                all.entry(ino).or_default().names.insert(name, entry);
            }
            Key::Cookie(ino, cookie) => {
                let entry = CookieValue::decode(&value).expect("an entry");
                all.entry(ino).or_default().cookies.insert(cookie, entry);
            }
            Key::Extent(ino, offset) => {
                let extent = Extent::decode(&value).expect("an extent");
                let scanned = all.entry(ino).or_default();
                assert!(scanned.end <= offset, "extents of inode {ino} overlap at {offset}");
                scanned.end = offset + u64::from(extent.len);
                scanned.blocks += u64::from(extent.len.div_ceil(512));
            }
            Key::Orphan(ino) => all.entry(ino).or_default().orphan = true,
            Key::Xattr(ino, name) => {
                let scanned = all.entry(ino).or_default();
                scanned.xattrs = scanned.xattrs.with(Xattrs::of(&name));
            }
            Key::Usage => recorded = Some(Usage::decode(&value).expect("a usage")),
            Key::Limit => drop(UsageLimit::decode(&value).expect("a limit")),
        }
    }
    let counted = Usage { inodes: all.len() as u64, blocks: all.values().map(|scanned| scanned.blocks).sum() };
    assert_eq!(recorded, Some(counted), "the usage and a full scan");
    for (ino, scanned) in all {
        check_inode(ino, &scanned);
    }
}

fn check_inode(ino: InodeNo, scanned: &Scanned) {
    let inode = scanned.inode.as_ref().unwrap_or_else(|| panic!("keys of inode {ino} are left without it"));
    assert_eq!(inode.blocks, scanned.blocks, "blocks of inode {ino}");
    assert!(scanned.end <= inode.size, "an extent of inode {ino} reaches past its end");
    assert_eq!(scanned.orphan, inode.nlink == 0, "inode {ino} is an orphan exactly without links");
    assert_eq!(inode.xattrs, scanned.xattrs, "marks of extended attributes of inode {ino}");
    if let Some(len) = scanned.inline {
        assert_eq!(scanned.end, 0, "inode {ino} has an inline value and extents");
        assert!(0 < len && len <= inode.size && inode.size <= INLINE_BYTES_MAX, "the inline value of inode {ino}");
    }
    let directory = inode.mode & libc::S_IFMT == libc::S_IFDIR;
    let links = if directory { 2 + scanned.subdirectories } else { scanned.links };
    if inode.nlink > 0 {
        assert_eq!(inode.nlink, links, "links of inode {ino}");
    }
    assert_eq!(scanned.names.len(), scanned.cookies.len(), "names and cookies of directory {ino}");
    for (name, entry) in &scanned.names {
        let listed = &scanned.cookies[&entry.cookie];
        assert_eq!(
            (&listed.name, listed.ino, listed.kind),
            (name, entry.ino, entry.kind),
            "an entry of directory {ino}"
        );
        assert!(entry.cookie < inode.next_cookie, "the next cookie of directory {ino}");
    }
}
