//! What lies in store and state directory is for its owner alone, and nothing that others put there leads anywhere else.

use super::scratch::{Scratch, skylog, words};
use nix::sys::signal::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const OPEN_TO_ALL: u32 = 0o777;
const NOBODY: u32 = 65534;

/// A store that was mounted once.
fn used() -> Scratch {
    let mut scratch = Scratch::mounted();
    fs::write(scratch.mnt.join("file"), [7; 5000]).expect("written");
    scratch.umount();
    scratch
}

/// A link that somebody else has put there.
fn plant(target: &Path, link: &Path) {
    symlink(target, link).expect("linked");
    lchown(link, Some(NOBODY), Some(NOBODY)).expect("given away");
}

fn refused(scratch: &Scratch) -> String {
    skylog(&["mount", scratch.store(), words(&scratch.mnt)]).fails()
}

#[test]
fn promise_o_all_that_is_made_is_for_its_owner_alone_whatever_the_umask() {
    let scratch = Scratch::new();
    let said = scratch.script(
        r#"
        umask 0
        $SKYLOG mkfs --segment-size 1MiB store
        $SKYLOG mount --journal-size 32MiB --cache-dir $ROOT/cache --cache-size 64MiB -o metrics=unix:$ROOT/metrics.sock store mnt
        echo secret > mnt/file
        sync mnt/file
        $SKYLOG status mnt > /dev/null
        find store cache metrics.sock -printf '%m %p\n'
        pid=$($SKYLOG status mnt | sed -n 's/^pid: //p')
        find /run/skylog -printf '%m %p\n'
        $SKYLOG umount mnt
        $SKYLOG salvage store/state out > /dev/null || true
        find out -maxdepth 2 -printf '%m %p\n'
        "#,
    );
    let mut seen = 0;
    for line in said.lines().filter(|line| !line.contains("out/files/")) {
        let (mode, path) = line.split_once(' ').expect("a mode and a path");
        let Ok(mode) = u32::from_str_radix(mode, 8) else { continue };
        assert_eq!(mode & 0o077, 0, "{path} has mode {mode:o}");
        seen += 1;
    }
    assert!(seen > 15, "{said}");
}

#[test]
fn a_state_directory_that_is_open_to_others_is_closed_to_them() {
    let mut scratch = used();
    let state = scratch.root.join("store/state");
    fs::set_permissions(&state, Permissions::from_mode(OPEN_TO_ALL)).expect("opened");
    scratch.mount();
    assert_eq!(fs::metadata(&state).expect("there").permissions().mode() & 0o777, 0o700);
    scratch.umount();
}

#[test]
fn a_check_leaves_the_mode_of_a_state_directory_alone() {
    let scratch = used();
    let state = scratch.root.join("store/state");
    fs::set_permissions(&state, Permissions::from_mode(OPEN_TO_ALL)).expect("opened");
    skylog(&["check", scratch.store()]).succeeds();
    assert_eq!(fs::metadata(&state).expect("there").permissions().mode() & 0o777, OPEN_TO_ALL);
}

#[test]
fn links_and_fifos_in_the_state_directory_lead_nowhere() {
    for name in ["MANIFEST", "journal", "nodes", "ckpt", "lock"] {
        let scratch = used();
        let (there, elsewhere) = (scratch.root.join("store/state").join(name), scratch.root.join("elsewhere"));
        fs::rename(&there, &elsewhere).expect("moved");
        plant(&elsewhere, &there);
        let before = listing(&elsewhere);
        let said = refused(&scratch);
        assert!(said.contains(words(&scratch.root.join("store/state"))) || said.contains(name), "{name}: {said}");
        assert_eq!(listing(&elsewhere), before, "{name} is followed");
        if elsewhere.is_file() {
            fs::remove_file(&there).expect("removed");
            nix::unistd::mkfifo(&there, nix::sys::stat::Mode::S_IRWXU).expect("made");
            refused(&scratch);
        }
    }
}

fn listing(path: &Path) -> Vec<String> {
    let out = Command::new("find").arg(path).args(["-printf", "%p %s %T@\n"]).output().expect("find runs");
    String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn fifos_in_a_store_keep_nobody_waiting() {
    for name in ["gen", "seg"] {
        let scratch = used();
        fs::remove_dir_all(scratch.root.join("store/state")).expect("removed");
        for file in walk(&scratch.root.join("store").join(name)) {
            fs::remove_file(&file).expect("removed");
            nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).expect("made");
        }
        let said = skylog(&["check", scratch.store()]).fails();
        assert!(!said.is_empty(), "a fifo in {name}");
    }
}

/// The folder that a link leads to is whole, so that nothing but the link is wrong.
#[test]
fn nothing_is_written_through_anybody_elses_link_in_a_store() {
    for name in ["gen", "seg", "win"] {
        let scratch = used();
        let (there, elsewhere) = (scratch.root.join("store").join(name), scratch.root.join("elsewhere"));
        fs::rename(&there, &elsewhere).expect("moved");
        plant(&elsewhere, &there);
        let before = listing(&elsewhere);
        assert!(before.len() > 1, "there is nothing in {name}: {before:?}");
        let said = refused(&scratch);
        assert!(said.contains("put the folder itself there"), "{name}: {said}");
        assert_eq!(listing(&elsewhere), before, "{name} is followed");
    }
}

/// As where the larger disk is.
#[test]
fn folders_that_their_owner_has_moved_elsewhere_and_linked_are_used() {
    let mut scratch = used();
    let moved = ["gen", "seg", "win", "lease", "state/cache", "state/skylog.log"];
    for (n, name) in moved.into_iter().enumerate() {
        let (there, elsewhere) = (scratch.root.join("store").join(name), scratch.root.join(format!("moved-{n}")));
        match there.exists() {
            true => fs::rename(&there, &elsewhere).expect("moved"),
            false => fs::create_dir(&elsewhere).expect("made"),
        }
        symlink(&elsewhere, &there).expect("linked");
    }
    let before = listing(&scratch.root.join("moved-1"));
    let log = fs::metadata(scratch.root.join("moved-5")).expect("there").len();
    scratch.mount();
    fs::write(scratch.mnt.join("more"), [8; 5000]).expect("written");
    scratch.signal(Signal::SIGTERM);
    scratch.gone();
    assert_ne!(listing(&scratch.root.join("moved-1")), before, "nothing was shipped");
    assert!(fs::metadata(scratch.root.join("moved-5")).expect("there").len() > log, "nothing was logged");
    skylog(&["check", "--data", scratch.store()]).succeeds();
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let out = Command::new("find").arg(folder).args(["-type", "f"]).output().expect("find runs");
    String::from_utf8_lossy(&out.stdout).lines().map(Into::into).collect()
}
