//! Mounts that follow one that writes, on the same machine, with a store that is a directory.

use super::busy::{Reader, Writer};
use super::scratch::{Scratch, skylog, words};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A mount that follows; unmounted when dropped.
struct Follower {
    mnt: PathBuf,
    state: PathBuf,
}

impl Follower {
    fn new(scratch: &Scratch, name: &str) -> Follower {
        let (mnt, state) = (scratch.root.join(name), scratch.root.join(format!("{name}.state")));
        fs::create_dir(&mnt).expect("a mount point");
        let follower = Follower { mnt, state };
        skylog(&["mount", "--read-only", "--state", words(&follower.state), scratch.store(), words(&follower.mnt)])
            .succeeds();
        follower
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&skylog(&["status", "--json", words(&self.mnt)]).succeeds()).expect("status prints JSON")
    }

    fn umount(&self) {
        skylog(&["umount", words(&self.mnt)]).succeeds();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        Command::new("umount").arg("-lq").arg(&self.mnt).output().ok();
    }
}

fn mounted() -> Scratch {
    let mut scratch = Scratch::new();
    scratch.make();
    scratch.mount_with(&["--ship-interval", "1", "--grace", "0"]);
    scratch
}

#[test]
fn followers_beside_a_busy_writer_see_what_was_there_at_one_moment() {
    let mut scratch = mounted();
    let mut writer = Writer::new(&scratch.mnt.join("busy")).expect("laid out");
    skylog(&["umount", words(&scratch.mnt)]).succeeds();
    scratch.gone();
    scratch.mount_with(&["--ship-interval", "1", "--grace", "0"]);
    let followers = ["one", "two"].map(|name| Follower::new(&scratch, name));
    let readers = followers.each_ref().map(|follower| Reader::new(&follower.mnt.join("busy")).expect("it is there"));
    std::thread::scope(|scope| {
        let reading = readers.map(|mut reader| {
            scope.spawn(move || {
                while reader.seen.states < 5 {
                    reader.step().expect("each was there at one moment");
                }
            })
        });
        while !reading.iter().all(|reader| reader.is_finished()) {
            writer.step().expect("it is mounted");
        }
        reading.into_iter().for_each(|reader| reader.join().expect("no panic"));
    });
    followers.iter().for_each(Follower::umount);
    scratch.umount();
}

#[test]
fn a_follower_needs_no_writer_and_says_what_it_is() {
    let mut scratch = mounted();
    fs::write(scratch.mnt.join("file"), "contents").expect("it is mounted");
    scratch.umount();
    let follower = Follower::new(&scratch, "follower");
    assert_eq!(fs::read_to_string(follower.mnt.join("file")).expect("it is there"), "contents");
    let status = follower.status();
    assert_eq!((&status["role"], &status["state"]), (&"follower".into(), &"following".into()), "{status}");
    assert!(status["number"].is_u64() && status["lag_s"].is_u64() && status.get("policy").is_none(), "{status}");
    let until = status["lease_until"].as_str().expect("it is said until when it holds");
    assert!(until > status["published"].as_str().expect("a time") && until.ends_with('Z'), "{status}");
    let refused = fs::write(follower.mnt.join("file"), "more").expect_err("it only reads");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    let mnt = words(&follower.mnt);
    for command in [&["sync", mnt][..], &["set", mnt, "sync=always"], &["set", mnt, "limit-size=1GiB"]] {
        let said = skylog(command).fails();
        assert!(said.contains("follows a mount that writes"), "{said}");
    }
    let said = skylog(&["mount", "-o", "remount,rw", scratch.store(), mnt]).fails();
    assert!(said.contains("cannot become one"), "{said}");
    scratch.mount();
    assert_eq!(scratch.status()["role"], "writer");
    let of_store: serde_json::Value =
        serde_json::from_str(&skylog(&["status", "--json", scratch.store()]).succeeds()).expect("status prints JSON");
    assert_eq!(of_store["role"], "writer", "the one that writes is told of first");
    scratch.umount();
    follower.umount();
}

#[test]
fn what_a_follower_cannot_be_asked_is_refused_in_one_sentence() {
    let scratch = Scratch::new();
    let mnt = words(&scratch.mnt);
    let said = |arguments: &[&str], code| skylog(&[&["mount"], arguments, &[mnt]].concat()).fails_with(code);
    assert!(said(&["--read-only", "--create", scratch.store()], 2).contains("--create"));
    assert!(said(&["-o", "ro", "memory://"], 2).contains("nobody to be followed"));
    assert!(said(&["--read-only", scratch.store()], 1).contains("no store"));
    scratch.make();
    assert!(said(&["-o", "ro,grace=5", scratch.store()], 2).contains("grace is for a mount that writes"));
    assert!(said(&["-o", "ro,takeover", scratch.store()], 2).contains("takeover is for a mount that writes"));
    assert!(said(&["--read-only", "--takeover", scratch.store()], 2).contains("--takeover"));
    assert!(said(&["--read-only", "--durability", "store", scratch.store()], 2).contains("--durability"));
    let state = format!("{}/state", scratch.store());
    skylog(&["mount", scratch.store(), mnt]).succeeds();
    skylog(&["umount", mnt]).succeeds();
    assert!(said(&["--read-only", "--state", &state, scratch.store()], 1).contains("take another"));
}

#[test]
fn an_open_file_is_of_one_moment_and_goes_on_at_its_end() {
    let mut scratch = mounted();
    let follower = Follower::new(&scratch, "follower");
    let (there, here) = (scratch.mnt.join("file"), follower.mnt.join("file"));
    fs::write(&there, "first").expect("it is mounted");
    let wait_for = |text: &str| while fs::read_to_string(&here).ok().as_deref() != Some(text) {};
    wait_for("first");
    let (opened, mut read) = (fs::File::open(&here).expect("it is there"), [0; 16]);
    let mut at = |offset| {
        let n = std::os::unix::fs::FileExt::read_at(&opened, &mut read, offset).expect("it can be read");
        String::from_utf8_lossy(&read[..n]).into_owned()
    };
    assert_eq!(at(0), "first");
    fs::write(&there, "second and longer").expect("it is mounted");
    wait_for("second and longer");
    assert_eq!((at(0), at(5)), ("first".to_owned(), String::new()), "and this is its end");
    assert_eq!(at(7), "and longer", "so it goes on");
    fs::remove_file(&there).expect("it is mounted");
    while here.exists() {}
    assert_eq!(at(0), "second and longe", "it is open");
    assert_eq!(opened.metadata().expect("it is open").len(), 17);
    assert_eq!((at(17), at(17)), (String::new(), String::new()), "and nothing follows");
    drop(opened);
    follower.umount();
    scratch.umount();
}

#[test]
fn a_mapped_file_that_was_removed_is_mapped_on() {
    let mut scratch = mounted();
    let follower = Follower::new(&scratch, "follower");
    let (there, here) = (scratch.mnt.join("file"), follower.mnt.join("file"));
    let file = fs::File::create(&there).expect("it is mounted");
    for (byte, at) in [(b"x", 60 << 20), (b"y", 90 << 20)] {
        std::os::unix::fs::FileExt::write_all_at(&file, byte, at).expect("it is mounted");
    }
    drop(file);
    while fs::metadata(&here).map_or(0, |found| found.len()) <= 90 << 20 {}
    let script = "import mmap, os, sys
there, here = sys.argv[1:]
m = mmap.mmap(os.open(here, os.O_RDONLY), 0, prot=mmap.PROT_READ)
assert m[60 << 20] == ord('x')
os.unlink(there)
while os.path.exists(here): pass
assert m[90 << 20] == ord('y')
assert m[60 << 20] == ord('x')";
    let ran = Command::new("python3").args(["-c", script]).args([&there, &here]).output().expect("python3 starts");
    assert!(ran.status.success(), "{}: {}", ran.status, String::from_utf8_lossy(&ran.stderr));
    follower.umount();
    scratch.umount();
}
