//! What lies in store and state directory is for its owner alone, and nothing that others put there leads anywhere else.

use super::scratch::{Scratch, skylog, words};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, Instant};

const OPEN_TO_ALL: u32 = 0o777;

/// A store that was mounted once.
fn used() -> Scratch {
    let mut scratch = Scratch::mounted();
    fs::write(scratch.mnt.join("file"), [7; 5000]).expect("written");
    scratch.umount();
    scratch
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
        symlink(&elsewhere, &there).expect("linked");
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

fn listing(path: &std::path::Path) -> Vec<String> {
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

/// The folder that a link leads to is whole, so that all goes well until something is shipped, or refused at once.
#[test]
fn nothing_is_written_through_a_link_in_a_store() {
    for name in ["gen", "seg", "win"] {
        let mut scratch = used();
        let (there, elsewhere) = (scratch.root.join("store").join(name), scratch.root.join("elsewhere"));
        fs::rename(&there, &elsewhere).expect("moved");
        symlink(&elsewhere, &there).expect("linked");
        let before = listing(&elsewhere);
        assert!(before.len() > 1, "there is nothing in {name}: {before:?}");
        let mount = ["mount", "--journal-size", "32MiB", "--ship-interval", "1", scratch.store(), words(&scratch.mnt)];
        let said = skylog(&mount);
        if said.is_success() {
            scratch.adopt();
            fs::write(scratch.mnt.join("more"), vec![8; 3 << 20]).expect("it is mounted");
            let begin = Instant::now();
            while scratch.status()["last_error"].is_null() {
                assert!(begin.elapsed() < Duration::from_secs(120), "{name}: {}", scratch.status());
                std::thread::sleep(Duration::from_millis(50));
            }
            skylog(&["umount", "--now", words(&scratch.mnt)]).succeeds();
            scratch.gone();
        } else {
            let sentence = said.fails();
            assert!(sentence.contains(name), "{sentence}");
        }
        assert_eq!(listing(&elsewhere), before, "{name} is followed");
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let out = Command::new("find").arg(folder).args(["-type", "f"]).output().expect("find runs");
    String::from_utf8_lossy(&out.stdout).lines().map(Into::into).collect()
}
