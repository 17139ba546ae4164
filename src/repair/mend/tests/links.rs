//! Inodes, names, and what ties them together.

use super::*;

#[test]
fn a_file_without_attributes_is_made_anew_from_its_contents() {
    let mut world = World::new();
    world.remove(&key::inode(FILE));
    world.remove(&key::inode(TINY));
    let after = world.mended();
    let (file, tiny) = (after.inode(FILE), after.inode(TINY));
    assert_eq!((file.mode, file.uid, file.nlink, file.size), (libc::S_IFREG | 0o600, 0, 1, u64::from(3 * PART)));
    assert_eq!((file.mtime.secs, file.xattrs), (99, Xattrs::OTHERS));
    assert_eq!((tiny.size, tiny.nlink, tiny.blocks), (5, 2, 1));
    assert_eq!(after.map[&key::inline(TINY)], "bytes");
    after.assert_told(FILE, "inode", Some("/dir/file"));
    after.assert_told(TINY, "inode", Some("/tiny"));
    after.assert_touched(&[FILE, TINY]);
    let mut world = World::new();
    world.put(key::inode(FILE), Bytes::from_static(b"no attributes"));
    world.mended().assert_told(FILE, "inode", Some("/dir/file"));
}

#[test]
fn a_directory_without_attributes_is_made_anew_from_its_names() {
    let mut world = World::new();
    world.remove(&key::inode(DIR));
    let after = world.mended();
    let dir = after.inode(DIR);
    assert_eq!((dir.mode, dir.nlink, dir.parent, dir.next_cookie), (libc::S_IFDIR | 0o700, 3, ROOT, 6));
    assert_eq!(after.find(DIR, "file"), Some(FILE));
    after.assert_touched(&[DIR]);
    // Without anything in it, too.
    let mut world = World::new();
    world.remove(&key::inode(SUB));
    world.remove_entry(SUB, "tiny too", 3);
    let after = world.mended();
    assert_eq!((after.inode(SUB).nlink, after.find(DIR, "sub")), (2, Some(SUB)));
    after.assert_told(SUB, "inode", Some("/dir/sub"));
}

#[test]
fn what_nothing_is_known_of_is_removed_and_not_made_empty() {
    let mut world = World::new();
    world.remove(&key::inode(LINK));
    world.lose(key::all_of(FILE));
    let after = world.mended();
    assert_eq!((after.find(DIR, "file"), after.find(DIR, "link")), (None, None));
    assert!(after.is_gone(FILE) && after.is_gone(LINK));
    after.assert_told(FILE, "gone", None);
    after.assert_told(LINK, "gone", None);
    after.assert_told(DIR, "dangling", Some("/dir"));
    assert!(after.told[&DIR].what.iter().any(|what| what.contains("\"file\" for inode 3")), "{:?}", after.told[&DIR]);
    let mut world = World::new();
    world.change(LINK, |inode| inode.target = Bytes::new());
    assert!(world.mended().is_gone(LINK), "a link that leads nowhere");
    // What is left of it goes, too.
    let mut world = World::new();
    world.put(key::xattr(InodeNo(9), b"user.x"), Bytes::from_static(b"v"));
    assert!(world.mended().is_gone(InodeNo(9)));
}

#[test]
fn a_lost_root_is_made_anew() {
    let mut world = World::new();
    world.remove(&key::inode(ROOT));
    let after = world.mended();
    assert_eq!((after.inode(ROOT).nlink, after.find(ROOT, "dir")), (3, Some(DIR)));
    after.assert_told(ROOT, "root", Some("/"));
    world.lose(key::all_of(ROOT));
    let after = world.mended();
    let found = after.found();
    assert_eq!((after.find(found, "#2"), after.find(found, "#5")), (Some(DIR), None), "tiny has another name");
    after.assert_told(DIR, "nameless", Some("/lost+found/#2"));
    after.assert_told(found, "found", Some("/lost+found"));
}

#[test]
fn all_is_found_again_without_any_names() {
    let mut world = World::new();
    for dir in [ROOT, DIR, SUB] {
        world.lose((key::names_of(dir).0, key::extents_of(dir).0));
    }
    world.change(ROOT, |inode| inode.next_cookie = 1 << 62);
    let after = world.mended();
    let found = after.found();
    let inode = after.inode(found);
    assert_eq!((inode.mode, inode.uid, inode.nlink), (libc::S_IFDIR | 0o700, 0, 4));
    for (name, ino) in [("#2", DIR), ("#3", FILE), ("#4", LINK), ("#5", TINY), ("#7", SUB)] {
        assert_eq!(after.find(found, name), Some(ino));
        after.assert_told(ino, "nameless", Some(&format!("/lost+found/{name}")));
    }
    assert_eq!((after.inode(TINY).nlink, after.inode(ORPHAN).nlink), (1, 0), "orphans stay orphans");
    assert_eq!((after.inode(DIR).parent, after.inode(ROOT).nlink), (found, 3));
    assert_eq!(after.extents(FILE), [(0, PART, 1), (10_000, PART, 2), (20_000, PART, 3)]);
}

#[test]
fn names_of_what_was_found_never_clash() {
    let mut world = World::new();
    let (found, other) = (InodeNo(8), InodeNo(9));
    world.inode(found, Inode { parent: ROOT, nlink: 2, next_cookie: 5, ..root_inode(Time::default(), 0o700, 0, 0) });
    world.entry(ROOT, "lost+found", found, libc::DT_DIR, 9);
    world.change(ROOT, |inode| (inode.nlink, inode.next_cookie) = (4, 10));
    world.inode(other, Inode { mode: libc::S_IFREG, nlink: 1, ..Inode::default() });
    world.entry(found, "#3", other, libc::DT_REG, 4);
    world.remove_entry(DIR, "file", 3);
    let after = world.mended();
    assert_eq!((after.found(), after.find(found, "#3"), after.find(found, "#3-2")), (found, Some(other), Some(FILE)));
    after.assert_told(FILE, "nameless", Some("/lost+found/#3-2"));
    assert_eq!(after.inode(found).next_cookie, 6);
}

#[test]
fn a_file_in_the_way_of_lost_and_found_stays_where_it_is() {
    let mut world = World::new();
    world.entry(ROOT, "lost+found", TINY, libc::DT_REG, 9);
    world.change(ROOT, |inode| inode.next_cookie = 10);
    world.change(TINY, |inode| inode.nlink = 3);
    world.remove_entry(DIR, "file", 3);
    let after = world.mended();
    assert_eq!(after.found(), TINY);
    let made = after.find(ROOT, "lost+found-2").expect("another one");
    assert_eq!((after.find(made, "#3"), made), (Some(FILE), InodeNo(21)), "a number that was never given");
}

#[test]
fn names_and_cookies_mend_one_another() {
    let mut world = World::new();
    world.remove(&key::cookie(DIR, 3));
    world.remove(&key::name(DIR, b"link"));
    let after = world.mended();
    assert_eq!(after.map, World::new().map, "and telldir finds them where they were");
    after.assert_told(DIR, "entries", Some("/dir"));
    after.assert_touched(&[DIR]);
    // Values that make no sense are no different.
    world.put(key::cookie(DIR, 3), Bytes::from_static(b"?"));
    world.put(key::name(DIR, b"link"), Bytes::from_static(b"?"));
    assert_eq!(world.mended().map, World::new().map);
    // Two names with one cookie: who is listed keeps it.
    let mut world = World::new();
    world.name(DIR, "file", FILE, libc::DT_REG, 4);
    world.remove(&key::cookie(DIR, 3));
    let after = world.mended();
    assert_eq!((after.find(DIR, "link"), after.find(DIR, "file")), (Some(LINK), Some(FILE)));
    let listed = |cookie| CookieValue::decode(&after.map[&key::cookie(DIR, cookie)]).expect("a cookie").ino;
    assert_eq!((listed(4), listed(6), after.inode(DIR).next_cookie), (LINK, FILE, 7));
    // Where they mean different inodes, one that is there.
    let mut world = World::new();
    world.name(DIR, "file", InodeNo(99), libc::DT_REG, 3);
    assert_eq!(world.mended().map, World::new().map);
}

#[test]
fn impossible_names_go_and_what_they_lead_to_is_found() {
    for name in [".", "..", "a/b", "nul\0"] {
        let mut world = World::new();
        world.remove_entry(DIR, "file", 3);
        world.entry(DIR, name, FILE, libc::DT_REG, 3);
        let after = world.mended();
        assert_eq!((after.find(DIR, name), after.find(after.found(), "#3")), (None, Some(FILE)), "{name}");
        after.assert_told(DIR, "impossible", Some("/dir"));
    }
}

#[test]
fn a_directory_keeps_one_of_its_names() {
    let mut world = World::new();
    world.entry(ROOT, "again", SUB, libc::DT_DIR, 7);
    world.entry(DIR, "once more", SUB, libc::DT_DIR, 8);
    world.change(ROOT, |inode| inode.next_cookie = 8);
    world.change(DIR, |inode| inode.next_cookie = 9);
    let after = world.mended();
    assert_eq!((after.find(ROOT, "again"), after.inode(SUB).parent), (None, DIR));
    let kept = ["once more", "sub"].map(|name| after.find(DIR, name));
    assert_eq!(kept.iter().flatten().collect::<Vec<_>>(), [&SUB]);
    after.assert_told(SUB, "second", after.told[&SUB].path.clone().as_deref());
    // The root has none.
    let mut world = World::new();
    world.entry(DIR, "up", ROOT, libc::DT_DIR, 8);
    let after = world.mended();
    assert_eq!((after.find(DIR, "up"), after.inode(ROOT).parent), (None, ROOT));
}

#[test]
fn circles_are_taken_apart() {
    let mut world = World::new();
    world.remove_entry(ROOT, "dir", 3);
    world.entry(SUB, "up", DIR, libc::DT_DIR, 4);
    world.change(DIR, |inode| inode.parent = SUB);
    let after = world.mended();
    let found = after.found();
    assert_eq!((after.find(SUB, "up"), after.find(found, "#2"), after.find(DIR, "sub")), (None, Some(DIR), Some(SUB)));
    after.assert_told(DIR, "circle", Some("/lost+found/#2"));
    let mut world = World::new();
    world.remove_entry(DIR, "sub", 5);
    world.entry(SUB, "self", SUB, libc::DT_DIR, 4);
    assert_eq!(world.mended().find(world.mended().found(), "#7"), Some(SUB));
}

#[test]
fn types_links_and_parents_are_made_right() {
    let right = World::new().map;
    let assert_mended = |change: &dyn Fn(&mut World), ino: InodeNo, id: &str| {
        let mut world = World::new();
        change(&mut world);
        let after = world.mended();
        assert_eq!(after.map, right, "{id} of {ino}");
        let path = after.told[&ino].path.clone();
        after.assert_told(ino, id, path.as_deref());
    };
    assert_mended(&|world| world.change(FILE, |inode| inode.nlink = 9), FILE, "links");
    assert_mended(&|world| world.change(DIR, |inode| inode.nlink = 2), DIR, "links");
    assert_mended(&|world| world.change(SUB, |inode| inode.parent = ROOT), SUB, "parent");
    assert_mended(&|world| world.change(ROOT, |inode| inode.parent = DIR), ROOT, "parent");
    assert_mended(&|world| world.change(FILE, |inode| inode.parent = DIR), FILE, "parent");
    assert_mended(&|world| world.change(FILE, |inode| inode.mode = 0o644), FILE, "type");
    assert_mended(&|world| world.change(DIR, |inode| inode.mode = 0o755), DIR, "type");
    // What it has tells more than its type does.
    assert_mended(&|world| world.change(DIR, |inode| inode.mode = libc::S_IFREG | 0o755), DIR, "type");
    assert_mended(&|world| world.change(FILE, |inode| inode.mode = libc::S_IFIFO | 0o644), FILE, "type");
    assert_mended(&|world| world.entry(DIR, "file", FILE, libc::DT_LNK, 3), FILE, "type");
    assert_mended(&|world| world.change(DIR, |inode| inode.next_cookie = 4), DIR, "cookie");
    assert_mended(&|world| world.change(DIR, |inode| inode.next_cookie = 1 << 62), DIR, "cookie");
    assert_mended(&|world| world.change(LINK, |inode| inode.size = 7), LINK, "target");
    assert_mended(&|world| world.change(FILE, |inode| inode.blocks = 1), FILE, "blocks");
    assert_mended(&|world| world.change(FILE, |inode| inode.xattrs = Xattrs::CAPABILITY), FILE, "marks");
}

#[test]
fn marks_of_orphans_are_made_right() {
    let right = World::new().map;
    let mut world = World::new();
    world.remove(&key::orphan(ORPHAN));
    world.put(key::orphan(FILE), Bytes::new());
    world.put(key::orphan(InodeNo(77)), Bytes::new());
    let after = world.mended();
    assert_eq!(after.map, right);
    after.assert_told(ORPHAN, "orphans", None);
    after.assert_told(FILE, "orphans", Some("/dir/file"));
    after.assert_touched(&[FILE, ORPHAN, InodeNo(77)]);
    // One that has links and no name was not removed.
    let mut world = World::new();
    world.change(ORPHAN, |inode| inode.nlink = 1);
    let after = world.mended();
    assert_eq!((after.find(after.found(), "#6"), after.map.get(&key::orphan(ORPHAN))), (Some(ORPHAN), None));
    // One without attributes stays one.
    let mut world = World::new();
    world.remove(&key::inode(ORPHAN));
    world.put(key::inline(ORPHAN), Bytes::from_static(b"x"));
    assert_eq!(world.mended().inode(ORPHAN).nlink, 0);
}

#[test]
fn access_control_lists_and_modes_agree() {
    const ACCESS: &[u8] = b"system.posix_acl_access";
    const DEFAULT: &[u8] = b"system.posix_acl_default";
    let list = |world: &mut World, ino, name: &[u8], value: &'static [u8]| {
        world.put(key::xattr(ino, name), Bytes::from_static(value));
        world.change(ino, |inode| inode.xattrs = inode.xattrs.with(Xattrs::of(name)));
    };
    let mut world = World::new();
    list(&mut world, FILE, ACCESS, b"no list");
    list(&mut world, DIR, DEFAULT, b"no list");
    let after = world.mended();
    assert_eq!(after.map, World::new().map);
    after.assert_told(FILE, "acl", Some("/dir/file"));
    let mut world = World::new();
    list(
        &mut world,
        FILE,
        ACCESS,
        b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\x01\0\xff\xff\xff\xff",
    );
    assert_eq!(world.mended().inode(FILE).mode, libc::S_IFREG | 0o751);
}
