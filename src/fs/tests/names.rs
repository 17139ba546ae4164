//! Names, links, listings.

use super::*;

#[test]
fn impossible_names_get_the_errno_linux_gives() {
    let fixture = Fixture::new();
    let file = fixture.file("f");
    let long = [b'n'; 256];
    let cx = root();
    for (name, expected) in [(&b""[..], libc::ENOENT), (&long[..], libc::ENAMETOOLONG), (b"a/b", libc::EINVAL)] {
        let found = [
            errno(fixture.fs.lookup(&cx, ROOT, name)),
            errno(fixture.fs.mknod(&cx, ROOT, name, 0o644, 0)),
            errno(fixture.fs.create(&cx, ROOT, name, 0o644)),
            errno(fixture.fs.mkdir(&cx, ROOT, name, 0o755)),
            errno(fixture.fs.symlink(&cx, ROOT, name, b"t")),
            errno(fixture.fs.link(&cx, file, ROOT, name)),
            errno(fixture.fs.unlink(&cx, ROOT, name)),
            errno(fixture.fs.rmdir(&cx, ROOT, name)),
            errno(fixture.fs.rename(&cx, ROOT, name, ROOT, b"g", 0)),
            errno(fixture.fs.rename(&cx, ROOT, b"f", ROOT, name, 0)),
        ];
        assert_eq!(found, [expected; 10], "{name:?}");
    }
    assert_eq!(errno(fixture.fs.mknod(&cx, ROOT, &long[..255], 0o644, 0)), 0);
    assert_eq!(fixture.names(ROOT).len(), 2);
}

#[test]
fn dot_and_dot_dot_exist_and_cannot_be_changed() {
    let fixture = Fixture::new();
    let dir = fixture.dir(ROOT, "d");
    let file = fixture.file("f");
    let cx = root();
    assert_eq!(fixture.find(dir, ".").map(|attr| attr.ino), Some(dir));
    assert_eq!(fixture.find(dir, "..").map(|attr| attr.ino), Some(ROOT));
    for (name, unlink, rmdir) in [(b".".as_slice(), libc::EISDIR, libc::EINVAL), (b"..", libc::EISDIR, libc::ENOTEMPTY)]
    {
        assert_eq!(errno(fixture.fs.mkdir(&cx, dir, name, 0o755)), libc::EEXIST);
        assert_eq!(errno(fixture.fs.link(&cx, file, dir, name)), libc::EEXIST);
        assert_eq!(errno(fixture.fs.unlink(&cx, dir, name)), unlink);
        assert_eq!(errno(fixture.fs.rmdir(&cx, dir, name)), rmdir);
        assert_eq!(errno(fixture.fs.rename(&cx, dir, name, ROOT, b"x", 0)), libc::EBUSY);
        assert_eq!(errno(fixture.fs.rename(&cx, ROOT, b"f", dir, name, 0)), libc::EBUSY);
    }
}

#[test]
fn names_are_only_in_directories() {
    let fixture = Fixture::new();
    let file = fixture.file("f");
    let cx = root();
    let found = [
        errno(fixture.fs.lookup(&cx, file, b"x")),
        errno(fixture.fs.mkdir(&cx, file, b"x", 0o755)),
        errno(fixture.fs.link(&cx, file, file, b"x")),
        errno(fixture.fs.unlink(&cx, file, b"x")),
        errno(fixture.fs.rename(&cx, ROOT, b"f", file, b"x", 0)),
        errno(fixture.fs.readdir(&cx, file, 0, 9)),
        errno(fixture.fs.opendir(&cx, file)),
        errno(fixture.fs.rmdir(&cx, ROOT, b"f")),
    ];
    assert_eq!(found, [libc::ENOTDIR; 8]);
}

#[test]
fn symbolic_links_hold_any_target_of_1_to_4095_bytes() {
    let fixture = Fixture::new();
    let cx = root();
    assert_eq!(errno(fixture.fs.symlink(&cx, ROOT, b"l", b"")), libc::ENOENT);
    assert_eq!(errno(fixture.fs.symlink(&cx, ROOT, b"l", &[b't'; 4096])), libc::ENAMETOOLONG);
    let (attr, _) = fixture.fs.symlink(&cx, ROOT, b"l", &[b't'; 4095]).expect("made");
    assert_eq!((attr.size, attr.mode), (4095, libc::S_IFLNK | 0o777));
    assert_eq!(fixture.fs.readlink(&cx, attr.ino).expect("read"), [b't'; 4095].as_slice());
    assert_eq!(errno(fixture.fs.readlink(&cx, ROOT)), libc::EINVAL);
}

#[test]
fn special_files_keep_their_type_and_devices_their_number() {
    let fixture = Fixture::new();
    let make = |name: &str, mode, rdev| fixture.fs.mknod(&root(), ROOT, name.as_bytes(), mode, rdev);
    for (name, kind, rdev) in [("p", libc::S_IFIFO, 0), ("s", libc::S_IFSOCK, 0), ("c", libc::S_IFCHR, 259)] {
        let (attr, _) = make(name, kind | 0o640, 259).expect("made");
        assert_eq!((attr.mode, attr.rdev), (kind | 0o640, rdev));
    }
    assert_eq!(make("r", 0o640, 0).expect("made").0.mode, libc::S_IFREG | 0o640);
    assert_eq!(errno(make("d", libc::S_IFDIR | 0o755, 0)), libc::EPERM);
    assert_eq!(errno(make("x", libc::S_IFLNK | 0o755, 0)), libc::EINVAL);
}

#[test]
fn a_set_group_id_directory_passes_its_group_on() {
    let fixture = Fixture::new();
    let dir = fixture.dir(ROOT, "d");
    let set = SetAttr { mode: Some(0o2775), gid: Some(55), ..SetAttr::default() };
    fixture.fs.setattr(&root(), dir, set).expect("changed");
    let (file, _) = fixture.fs.create(&user(), dir, b"f", 0o644).expect("made");
    assert_eq!((file.uid, file.gid, file.mode & 0o7777), (1000, 55, 0o644));
    let (sub, _) = fixture.fs.mkdir(&user(), dir, b"sub", 0o755).expect("made");
    assert_eq!((sub.gid, sub.mode & 0o7777), (55, 0o2755));
}

#[test]
fn link_counts_follow_the_names() {
    let fixture = Fixture::new();
    let (ino, dir) = (fixture.file("f"), fixture.dir(ROOT, "d"));
    let link = |ino, name: &str| fixture.fs.link(&root(), ino, dir, name.as_bytes());
    assert_eq!(link(ino, "g").expect("linked").0.nlink, 2);
    assert_eq!(errno(link(ino, "g")), libc::EEXIST);
    assert_eq!(errno(link(dir, "h")), libc::EPERM);
    let of_root = fixture.rows().into_iter().find(|(key, _)| *key == key::inode(ROOT)).expect("the root").1;
    let mut inode = crate::format::inode::Inode::decode(&of_root).expect("attributes");
    inode.mode = libc::S_IFREG;
    inode.nlink = LINKS_MAX - 1;
    fixture.put(key::inode(ino), inode.encode());
    assert_eq!(link(ino, "i").expect("linked").0.nlink, LINKS_MAX);
    assert_eq!(errno(link(ino, "j")), libc::EMLINK);
    assert_eq!(fixture.attr(ROOT).nlink, 3);
    fixture.dir(dir, "sub");
    assert_eq!(fixture.attr(dir).nlink, 3);
    fixture.fs.rmdir(&root(), dir, b"sub").expect("removed");
    assert_eq!(fixture.attr(dir).nlink, 2);
}

#[test]
fn a_listing_in_pieces_meets_every_lasting_name_once_whatever_changes_meanwhile() {
    let fixture = Fixture::new();
    let name = |i: u32| format!("n{i:03}");
    for i in 0..100 {
        fixture.file(&name(i));
    }
    let (mut seen, mut after, mut made) = (Vec::new(), 0, 100);
    loop {
        let page = fixture.fs.readdir(&root(), ROOT, after, 7).expect("listed");
        let Some(last) = page.last() else { break };
        after = last.cookie;
        seen.extend(page.iter().map(|entry| text(&entry.name)));
        if made < 120 {
            fixture.fs.unlink(&root(), ROOT, name(made - 100).as_bytes()).expect("removed");
            fixture.file(&name(made));
            made += 1;
        }
    }
    let lasting: Vec<String> = (20..100).map(name).collect();
    let met: Vec<&String> = seen.iter().filter(|n| lasting.contains(n)).collect();
    assert_eq!(met, lasting.iter().collect::<Vec<_>>());
    assert_eq!(seen[..2], [".", ".."]);
}

#[test]
fn a_listing_with_attributes_counts_look_ups_of_all_but_the_dots() {
    let fixture = Fixture::new();
    let (file, dir) = (fixture.file("f"), fixture.dir(ROOT, "d"));
    let listed = fixture.fs.readdir_plus(&root(), ROOT, 0, 10).expect("listed");
    let found: Vec<_> = listed.iter().map(|(entry, attr)| (text(&entry.name), entry.cookie, attr.ino)).collect();
    let expected = [(".", 1, ROOT), ("..", 2, ROOT), ("f", 3, file), ("d", 4, dir)];
    assert_eq!(found, expected.map(|(name, cookie, ino)| (name.to_string(), cookie, ino)));
    assert_eq!(fixture.fs.inodes_in_use(), 2);
    assert_eq!(fixture.fs.readdir(&root(), ROOT, 1, 1).expect("listed")[0].name, b"..".as_slice());
    assert_eq!(fixture.fs.readdir(&root(), ROOT, 4, 10).expect("listed"), []);
    assert_eq!(fixture.fs.readdir(&root(), ROOT, u64::MAX, 10).expect("listed"), []);
}
