//! The simulated disk loses what a real one may lose, and never what was synced.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet as Set;

fn disk() -> SimDisk {
    SimDisk::new(&CallLog::new())
}

/// A file with a durable name and durable bytes.
fn file(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.create(name).expect("new");
    file.write_at(bytes, 0).expect("written");
    file.sync().expect("synced");
    disk.sync_dir(name::folder_of(name)).expect("synced");
    file
}

fn platter(disk: &SimDisk) -> Platter {
    let mut platter = Platter::new(disk.start());
    for call in disk.log().calls() {
        let Call::Disk(_, call) = call else { continue };
        platter.apply(&call);
    }
    platter
}

/// All states of a disk after a power cut now, each as name=bytes.
fn crashes(disk: &SimDisk) -> Set<Vec<(String, Vec<u8>)>> {
    let state = |image: &Image| image.files().iter().map(|(n, c)| (n.to_string(), c.to_vec())).collect();
    platter(disk).crashes(&Limits::default(), 0).map(|crashed| state(&crashed.image)).collect()
}

/// The states of one file.
fn states_of(disk: &SimDisk, name: &str) -> Set<Option<Vec<u8>>> {
    let find = |files: Vec<(String, Vec<u8>)>| files.into_iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes);
    crashes(disk).into_iter().map(find).collect()
}

#[test]
fn reads_find_what_was_written_synced_or_not() {
    let disk = disk();
    let file = disk.create("a").expect("new");
    file.write_at(b"tail", 5000).expect("written");
    let mut found = [1; 6];
    file.read_at(&mut found, 4998).expect("there");
    assert_eq!(&found, b"\0\0tail");
    assert_eq!(file.read_at(&mut found, 4999).expect_err("too short").kind(), ErrorKind::UnexpectedEof);
    assert_eq!(disk.image().file("a").expect("there").len(), 5004);
    assert_eq!(disk.image_durable().names().count(), 0);
}

#[test]
fn names_follow_the_rules_of_the_local_disk() {
    let disk = disk();
    assert_eq!(disk.create("a/b").err().expect("no folder").kind(), ErrorKind::NotFound);
    assert_eq!(disk.list("a").expect_err("no folder").kind(), ErrorKind::NotFound);
    disk.make_dir("a/c").expect("made");
    disk.make_dir("a").expect("there already");
    let first = disk.create("a/b").expect("new");
    assert_eq!(disk.create("a/b").err().expect("taken").kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.rename("a/b", "../b").expect_err("outside").kind(), ErrorKind::InvalidInput);
    assert_eq!(disk.rename("a/b", "d/b").expect_err("no folder").kind(), ErrorKind::NotFound);
    assert_eq!(disk.remove("a/x").expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(disk.create("../x").err().expect("outside").kind(), ErrorKind::InvalidInput);
    disk.create("a/z").expect("new");
    disk.rename("a/b", "a/z").expect("renamed");
    first.write_at(b"1", 0).expect("the handle stays good");
    assert_eq!(disk.open("a/z").expect("there").len().expect("known"), 1);
    assert_eq!(disk.list("a").expect("listed"), ["z"]);
    assert_eq!(disk.list("").expect("listed"), Vec::<String>::new());
    disk.rename("a/z", "a/c/y").expect("moved");
    assert_eq!(disk.list("a").expect("listed"), Vec::<String>::new());
    assert_eq!(disk.list("a/c").expect("listed"), ["y"]);
}

#[test]
fn unsynced_writes_are_applied_in_any_subset() {
    let disk = disk();
    let file = file(&disk, "a", b"000");
    for at in 0..3 {
        file.write_at(b"1", at).expect("written");
    }
    let all: Set<_> = ["000", "001", "010", "011", "100", "101", "110", "111"].map(|s| Some(s.into())).into();
    assert_eq!(states_of(&disk, "a"), all);
    file.sync().expect("synced");
    assert_eq!(states_of(&disk, "a"), [Some(b"111".to_vec())].into());
}

#[test]
fn a_write_is_torn_at_every_sector() {
    let disk = disk();
    let file = file(&disk, "a", &[0; 4096]);
    file.write_at(&[1; 4096], 0).expect("written");
    let states = states_of(&disk, "a");
    for cut in (0..=4096).step_by(512) {
        let torn: Vec<u8> = (0..4096).map(|at| u8::from(at < cut)).collect();
        assert!(states.contains(&Some(torn)), "torn at {cut}");
    }
}

#[test]
fn a_grown_file_shows_nothing_zeros_or_old_bytes() {
    let disk = disk();
    file(&disk, "gone", &[9; 4096]);
    disk.remove("gone").expect("removed");
    let file = file(&disk, "a", b"x");
    file.write_at(b"yz", 1).expect("written");
    let states = states_of(&disk, "a");
    let expected: [&[u8]; 4] = [b"x", b"xyz", b"x\0\0", b"x\x09\x09"];
    assert_eq!(states, expected.map(|bytes| Some(bytes.to_vec())).into());
}

#[test]
fn a_name_is_durable_only_after_its_folder_is_synced() {
    let disk = disk();
    let file = disk.create("a").expect("new");
    file.write_at(b"x", 0).expect("written");
    file.sync().expect("synced");
    assert_eq!(states_of(&disk, "a"), [None, Some(b"x".to_vec())].into());
    disk.sync_dir("").expect("synced");
    assert_eq!(states_of(&disk, "a"), [Some(b"x".to_vec())].into());
    disk.remove("a").expect("removed");
    assert_eq!(states_of(&disk, "a"), [None, Some(b"x".to_vec())].into());
}

#[test]
fn a_name_may_be_durable_before_the_data() {
    let disk = disk();
    let file = disk.create("a").expect("new");
    disk.sync_dir("").expect("synced");
    file.write_at(b"x", 0).expect("written");
    assert!(states_of(&disk, "a").contains(&Some(Vec::new())));
}

#[test]
fn a_rename_is_kept_or_lost_whole_and_on_its_own() {
    let disk = disk();
    file(&disk, "a", b"old");
    let next = disk.create("b").expect("new");
    next.write_at(b"new", 0).expect("written");
    next.sync().expect("synced");
    disk.rename("b", "a").expect("renamed");
    let state = |files: &[(&str, &str)]| files.iter().map(|(n, b)| (n.to_string(), b.as_bytes().to_vec())).collect();
    let all: Set<Vec<_>> =
        [state(&[("a", "old")]), state(&[("a", "old"), ("b", "new")]), state(&[("a", "new")])].into();
    assert_eq!(crashes(&disk), all);
    disk.sync_dir("").expect("synced");
    assert_eq!(crashes(&disk), [state(&[("a", "new")])].into());
}

#[test]
fn a_lost_folder_takes_its_files_with_it() {
    let disk = disk();
    disk.make_dir("d/e").expect("made");
    file(&disk, "d/e/a", b"x");
    assert_eq!(states_of(&disk, "d/e/a"), [None, Some(b"x".to_vec())].into());
    disk.sync_dir("d").expect("synced");
    assert_eq!(states_of(&disk, "d/e/a"), [None, Some(b"x".to_vec())].into());
    disk.sync_dir("").expect("synced");
    assert_eq!(states_of(&disk, "d/e/a"), [Some(b"x".to_vec())].into());
}

#[test]
fn a_failed_sync_loses_what_a_later_one_does_not_bring_back() {
    let disk = disk();
    let file = file(&disk, "a", b"00");
    file.write_at(b"1", 0).expect("written");
    disk.fail(Nth::new(1).of(DiskOp::Sync), DiskFault::Failed);
    assert_eq!(file.sync().expect_err("asked for").raw_os_error(), Some(libc::EIO));
    file.write_at(b"1", 1).expect("written");
    file.sync().expect("synced");
    assert_eq!(disk.image().file("a").expect("there").to_vec(), b"11");
    assert_eq!(disk.image_durable().file("a").expect("there").to_vec(), b"01");
    assert_eq!(disk.failed(), 1);
}

#[test]
fn calls_fail_as_asked() {
    let disk = disk();
    let file = file(&disk, "a", b"0000");
    disk.fail(Nth::new(1).of(DiskOp::Write), DiskFault::Failed);
    disk.fail(Nth::new(2).of(DiskOp::Write), DiskFault::Short);
    disk.fail(Nth::new(3).of(DiskOp::Write), DiskFault::NoSpace);
    disk.fail(Nth::new(4).of(DiskOp::Write), DiskFault::Done);
    let mut kinds = Vec::new();
    for byte in *b"abcd" {
        kinds.push(file.write_at(&[byte; 4], 0).expect_err("asked for").kind());
        let found = disk.image().file("a").expect("there").to_vec();
        let expected: &[u8] = match byte {
            b'a' => b"0000",
            b'b' | b'c' => b"bb00",
            _ => b"dddd",
        };
        assert_eq!(found, expected);
    }
    assert_eq!(kinds[2], ErrorKind::StorageFull);
    disk.fail(Nth::new(1).forever(), DiskFault::Failed);
    assert!(disk.list("").is_err() && file.sync().is_err() && disk.open("a").is_err() && disk.space().is_err());
    disk.heal();
    disk.open("a").expect("healed");
}

#[test]
fn a_full_disk_takes_no_more_and_heals() {
    let disk = disk();
    disk.set_capacity(10);
    let a = file(&disk, "a", b"12345678");
    assert_eq!(a.write_at(b"9ab", 8).expect_err("full").kind(), ErrorKind::StorageFull);
    a.write_at(b"xx", 6).expect("no growth");
    assert_eq!(disk.space().expect("known"), Space { total: 10, free: 2, available: 2 });
    let b = disk.create("b").expect("new");
    disk.rename("b", "a").expect("renamed");
    b.write_at(b"123456789a", 0).expect("there is room again");
    a.write_at(&[0; 100], 0).expect("a file without a name takes no room here");
    disk.remove("a").expect("removed");
    assert_eq!(disk.space().expect("known").free, 10);
}

#[test]
fn a_deaf_disk_says_yes_and_syncs_nothing() {
    let disk = disk();
    disk.make_dir("journal").expect("made");
    disk.sync_dir("").expect("synced");
    disk.ignore_sync("journal/");
    file(&disk, "journal/a", b"x");
    file(&disk, "b", b"y");
    assert_eq!(disk.image_durable().file("journal/a").expect("named").len(), 0);
    assert_eq!(disk.image_durable().file("b").expect("named").len(), 1);
    disk.ignore_sync_dir("");
    file(&disk, "c", b"z");
    assert!(disk.image_durable().file("c").is_none());
}

#[test]
fn a_disk_goes_on_from_an_image() {
    let first = disk();
    first.make_dir("d").expect("made");
    file(&first, "d/a", b"x");
    let log = CallLog::new();
    let second = SimDisk::from_image(&first.image(), &log);
    assert_eq!(second.image().hash(), first.image().hash());
    file(&second, "d/b", b"y").write_at(b"z", 0).expect("written");
    assert_eq!(second.list("d").expect("listed"), ["a", "b"]);
    assert_eq!(second.image_durable().file("d/b").expect("there").to_vec(), b"y");
    assert_eq!(second.image_durable().file("d/a").expect("there").to_vec(), b"x");
    assert_eq!(first.list("d").expect("listed"), ["a"]);
}

#[test]
fn a_crash_counts_the_bytes_and_names_it_lost() {
    let disk = disk();
    let file = file(&disk, "a", b"0000");
    file.write_at(b"111", 0).expect("written");
    disk.remove("a").expect("removed");
    let platter = platter(&disk);
    let lost = |plan: Plan| {
        let found = platter.crashes(&Limits::default(), 0).find(|crashed| crashed.plan == plan).expect("taken");
        (found.bytes_lost, found.names_lost)
    };
    assert_eq!(lost(Plan::Nothing), (3, 1));
    assert_eq!(lost(Plan::Everything), (0, 0));
    assert_eq!(lost(Plan::Subset(1)), (0, 1));
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64, u8, usize),
    Sync(usize),
    SyncDir,
    Replace(usize, usize),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 0..9000_u64, any::<u8>(), 1..6000_usize).prop_map(|(f, o, b, n)| Step::Write(f, o, b, n)),
        2 => (0..3_usize).prop_map(Step::Sync),
        1 => Just(Step::SyncDir),
        1 => (0..3_usize, 0..3_usize).prop_map(|(a, b)| Step::Replace(a, b)),
        1 => (0..3_usize).prop_map(Step::Remove),
    ]
}

fn run(disk: &SimDisk, step: &Step) {
    let name = |n: usize| format!("f{n}");
    let open = |n: usize| disk.open(&name(n)).or_else(|_| disk.create(&name(n))).expect("opens");
    match *step {
        Step::Write(f, offset, byte, count) => open(f).write_at(&vec![byte; count], offset).expect("written"),
        Step::Sync(f) => open(f).sync().expect("synced"),
        Step::SyncDir => disk.sync_dir("").expect("synced"),
        Step::Replace(a, b) => drop(disk.rename(&name(a), &name(b))),
        Step::Remove(f) => drop(disk.remove(&name(f))),
    }
}

/// Names and bytes.
type Files = Vec<(String, Vec<u8>)>;

/// What a caller of a disk can tell after a step: each name with its bytes, or which error there was.
fn outcome(disk: &dyn Media, step: &Step) -> Result<Files> {
    let name = |n: usize| format!("d/f{n}");
    match *step {
        Step::Write(f, offset, byte, count) => disk.open(&name(f))?.write_at(&vec![byte; count], offset)?,
        Step::Sync(f) => disk.create(&name(f))?.sync()?,
        Step::SyncDir => disk.sync_dir("d")?,
        Step::Replace(a, b) => disk.rename(&name(a), &name(b))?,
        Step::Remove(f) => disk.remove(&name(f))?,
    }
    let read = |name: String| {
        let file = disk.open(&format!("d/{name}"))?;
        let mut bytes = vec![0; usize::try_from(file.len()?).expect("small")];
        file.read_at(&mut bytes, 0)?;
        let beyond = file.read_at(&mut [0], bytes.len() as u64).expect_err("nothing there");
        assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof);
        Ok((name, bytes))
    };
    disk.list("d")?.into_iter().map(read).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_simulated_disk_answers_as_the_local_one_does(steps in proptest::collection::vec(step(), 1..25)) {
        let root = tempfile::tempdir().expect("a folder for the test");
        let local = crate::media::LocalDisk::new(root.path());
        let simulated = disk();
        for disk in [&local as &dyn Media, &simulated] {
            disk.make_dir("d").expect("made");
        }
        for step in &steps {
            let [real, ours] = [&local as &dyn Media, &simulated].map(|d| outcome(d, step).map_err(|e| e.kind()));
            prop_assert_eq!(real, ours, "{:?}", step);
        }
    }

    #[test]
    fn a_crash_never_loses_what_was_synced(steps in proptest::collection::vec(step(), 1..25)) {
        let disk = disk();
        steps.iter().for_each(|step| run(&disk, step));
        for name in ["f0", "f1", "f2"] {
            if let Ok(file) = disk.open(name) {
                file.sync().expect("synced");
            }
        }
        disk.sync_dir("").expect("synced");
        prop_assert_eq!(disk.image_durable().hash(), disk.image().hash());
        let limits = Limits::default();
        let platter = platter(&disk);
        prop_assert_eq!(platter.crashes(&limits, 0).count(), 1);
    }

    #[test]
    fn keeping_all_is_what_readers_saw_and_keeping_none_is_what_is_durable(
        steps in proptest::collection::vec(step(), 1..25)
    ) {
        let disk = disk();
        steps.iter().for_each(|step| run(&disk, step));
        let platter = platter(&disk);
        let images: Vec<Crashed> = platter.crashes(&Limits { plans_max: 40, ..Limits::default() }, 0).collect();
        let has = |hash| images.iter().any(|crashed| crashed.image.hash() == hash);
        prop_assert!(has(disk.image().hash()));
        prop_assert!(has(disk.image_durable().hash()));
        let fresh = Set::from_iter(images.iter().map(|crashed| crashed.image.hash()));
        prop_assert_eq!(fresh.len(), images.len());
    }

    #[test]
    fn bytes_synced_before_later_writes_are_in_every_crash(
        before in proptest::collection::vec(any::<u8>(), 1..3000), after in proptest::collection::vec(step(), 1..8)
    ) {
        let disk = disk();
        file(&disk, "kept", &before);
        after.iter().for_each(|step| run(&disk, step));
        for crashed in platter(&disk).crashes(&Limits { plans_max: 60, ..Limits::default() }, 1) {
            prop_assert_eq!(crashed.image.file("kept").expect("there").to_vec(), before.clone());
        }
    }
}
