//! mount(8) and umount(8) with our helpers, in a mount namespace of its own where they lie in /sbin: nothing on this machine
//! changes, and no other test sees them.

use super::scratch::{Scratch, skylog, words};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Hides the machine's /sbin and its table of mounts behind our own.
const PROLOGUE: &str = "
    mount --bind \"$ROOT/sbin\" \"$(readlink -f /sbin)\"
    mkdir -p /run/mount
    mount -t tmpfs none /run/mount
";

/// Runs a script as root with our helpers in /sbin; it succeeds. What it printed.
fn succeeds(scratch: &Scratch, script: &str) -> String {
    let sbin = scratch.root.join("sbin");
    fs::create_dir(&sbin).unwrap();
    for name in ["mount.skylog", "mount.fuse.skylog", "umount.skylog", "umount.fuse.skylog"] {
        symlink(env!("CARGO_BIN_EXE_skylog"), sbin.join(name)).unwrap();
    }
    scratch.script(&format!("{PROLOGUE}{script}"))
}

/// Runs the program as mount(8) and umount(8) do; the exit code and what it said on standard error.
fn helper(name: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_skylog")).arg0(name).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn made() -> Scratch {
    let scratch = Scratch::new();
    scratch.make();
    scratch
}

#[test]
fn mount_t_mounts_and_umount_returns_when_everything_is_in_the_store() {
    let mut scratch = made();
    let said = succeeds(
        &scratch,
        r#"
        mount -t skylog "$STORE" "$MNT" -o journal_size=32MiB,noexec,x-mine=1,nofail
        findmnt -n -o SOURCE,FSTYPE,OPTIONS "$MNT"
        head -c 5000000 /dev/urandom > file
        cp file "$MNT/file"
        pid=$("$SKYLOG" status "$MNT" | sed -n 's/^pid: //p')
        if ended $pid; then exit 1; fi
        umount "$MNT"
        ended $pid
        test ! -e "$MNT/file"
        test ! -s /run/mount/utab
        "#,
    );
    let line: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(line[..2], [scratch.store(), "fuse.skylog"]);
    assert!(line[2].contains("noexec") && line[2].contains("allow_other"), "{said}");
    fs::remove_dir_all(scratch.root.join("store/state")).unwrap();
    scratch.mount();
    assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), fs::read(scratch.root.join("file")).unwrap());
}

#[test]
fn umount_drains_a_mount_that_skylog_made_and_tells_who_keeps_it_busy() {
    let scratch = made();
    let said = succeeds(
        &scratch,
        r#"
        "$SKYLOG" mount --journal-size 32MiB "$STORE" "$MNT"
        head -c 3000000 /dev/urandom > "$MNT/file"
        exec 7< "$MNT/file"
        if umount "$MNT" 2> said; then exit 1; fi
        cat said
        exec 7<&-
        pid=$("$SKYLOG" status "$MNT" | sed -n 's/^pid: //p')
        umount "$MNT"
        ended $pid
        "#,
    );
    assert!(said.contains("in use by bash"), "{said}");
    skylog(&["check", "--data", scratch.store()]).succeeds();
}

#[test]
fn a_remount_makes_read_only_and_back() {
    let scratch = made();
    let said = succeeds(
        &scratch,
        r#"
        mount -t fuse.skylog "file://$STORE" "$MNT" -o journal_size=32MiB,nosuid
        echo before > "$MNT/file"
        mount -o remount,ro "$MNT"
        if touch "$MNT/new" 2> said; then exit 1; fi
        if rm "$MNT/file" 2>> said; then exit 1; fi
        cat said "$MNT/file"
        findmnt -n -o OPTIONS "$MNT"
        mount -o remount,rw,sync=always "$MNT"
        echo after > "$MNT/new"
        cat "$MNT/new"
        findmnt -n -o OPTIONS "$MNT"
        "$SKYLOG" status "$MNT" | grep policy
        exec 7> "$MNT/open"
        if mount -o remount,ro "$MNT"; then exit 1; fi
        exec 7>&-
        if mount -o remount,grace=5 "$MNT"; then exit 1; fi
        umount "$MNT"
        "#,
    );
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
    let options: Vec<&str> = said.lines().filter(|line| line.contains("nosuid")).collect();
    assert!(options[0].starts_with("ro,nosuid") && options[1].starts_with("rw,nosuid"), "{said}");
    assert!(said.contains("before\n") && said.contains("after\n") && said.contains("policy: always"), "{said}");
}

#[test]
fn a_line_of_fstab_mounts_once_whatever_blanks_are_in_it() {
    let scratch = made();
    fs::rename(scratch.store(), scratch.root.join("a store")).unwrap();
    fs::create_dir(scratch.root.join("a dir")).unwrap();
    let at = |name: &str| words(&scratch.root.join(name)).replace(' ', "\\040");
    let line = format!("{} {} skylog defaults,noexec,journal_size=32MiB,_netdev 0 0\n", at("a store"), at("a dir"));
    fs::write(scratch.root.join("fstab"), line).unwrap();
    let said = succeeds(
        &scratch,
        r#"
        mount -T "$ROOT/fstab" -a
        mount -T "$ROOT/fstab" -a
        findmnt -n -r -o TARGET,FSTYPE -t fuse.skylog | grep "$ROOT"
        echo there > "$ROOT/a dir/file"
        mount -T "$ROOT/fstab" -o remount,ro "$ROOT/a dir"
        umount "$ROOT/a dir"
        mount -T "$ROOT/fstab" "$ROOT/a dir"
        cat "$ROOT/a dir/file"
        umount "$ROOT/a dir"
        "#,
    );
    assert_eq!(said.matches("fuse.skylog").count(), 1, "mounted once: {said}");
    assert!(said.ends_with("there\n"), "{said}");
}

#[test]
fn umount_by_force_leaves_the_rest_in_the_journal_and_lazily_takes_the_mount_away_at_once() {
    let scratch = made();
    let said = succeeds(
        &scratch,
        r#"
        mount -t skylog "$STORE" "$MNT" -o journal_size=32MiB
        echo one > "$MNT/one"
        umount -f "$MNT"
        mount -t skylog "$STORE" "$MNT" -o journal_size=32MiB
        exec 7< "$MNT/one"
        pid=$("$SKYLOG" status "$MNT" | sed -n 's/^pid: //p')
        umount -l "$MNT"
        test ! -e "$MNT/one"
        cat <&7
        exec 7<&-
        until ended $pid; do :; done
        "#,
    );
    assert!(said.contains("stay in the journal") && said.ends_with("one\n"), "{said}");
    skylog(&["check", "--data", scratch.store()]).succeeds();
}

#[test]
fn umount_r_makes_a_busy_mount_read_only() {
    let scratch = made();
    let said = succeeds(
        &scratch,
        r#"
        mount -t skylog "$STORE" "$MNT" -o journal_size=32MiB
        echo one > "$MNT/one"
        exec 7< "$MNT/one"
        umount -r "$MNT"
        findmnt -n -o OPTIONS "$MNT"
        exec 7<&-
        umount "$MNT"
        "#,
    );
    assert!(said.starts_with("ro,"), "{said}");
}

#[test]
fn what_a_helper_cannot_do_is_one_sentence_and_mounts_exit_code() {
    let scratch = made();
    let mnt = words(&scratch.mnt);
    let said = |arguments: &[&str], code| {
        let (found, said) = helper("mount.skylog", arguments);
        assert_eq!(found, Some(code), "{said}");
        assert!(said.starts_with("skylog: ") && said.trim_end().lines().count() == 1, "{said}");
        said
    };
    assert!(said(&["store", mnt], 1).contains("absolute path"));
    assert!(said(&[scratch.store(), mnt, "-o", "rw,fly"], 1).contains("\"fly\""));
    assert!(said(&[scratch.store()], 1).contains("mount.skylog --help"));
    assert!(said(&["/nowhere/at/all", mnt, "-s", "-o", "rw,fly"], 32).contains("no store"));
    assert!(said(&[scratch.store(), mnt, "-o", "remount,ro"], 32).contains("no skylog is mounted"));
    let (code, said) = helper("umount.fuse.skylog", &[mnt]);
    assert_eq!(code, Some(32), "{said}");
    assert!(said.contains("not a skylog mount"), "{said}");
}

#[test]
fn a_line_of_fstab_with_ro_follows() {
    let mut scratch = made();
    scratch.mount();
    fs::write(scratch.mnt.join("file"), "contents").unwrap();
    scratch.umount();
    let said = succeeds(
        &scratch,
        r#"
        echo "$STORE $MNT skylog ro,noauto,nofail,_netdev,state=$ROOT/follower 0 0" > fstab
        mount -T fstab "$MNT"
        "$SKYLOG" status "$MNT" | sed -n 's/^role: //p'
        findmnt -n -o OPTIONS "$MNT"
        cat "$MNT/file"
        if touch "$MNT/new" 2> /dev/null; then exit 1; fi
        umount "$MNT"
        "#,
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines[0], lines[2]), ("follower", "contents"), "{said}");
    assert!(lines[1].starts_with("ro,"), "{said}");
}

#[test]
fn a_fake_mount_only_looks() {
    let scratch = made();
    let (code, said) = helper("mount.skylog", &[scratch.store(), words(&scratch.mnt), "-f", "-o", "rw"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(!Path::new(scratch.store()).join("state").exists());
    assert_eq!(helper("mount.skylog", &["/nowhere/at/all", words(&scratch.mnt), "-f"]).0, Some(32));
}

#[test]
fn an_unmount_names_who_holds_a_copy_of_the_mount_and_waits_unless_it_shall_be_quick() {
    let scratch = made();
    // `read` ends when the script does: then nobody holds the fifo open for writing any more.
    let holder = r#"
        mkfifo alive
        hold() {
            "$SKYLOG" mount "$STORE" "$MNT"
            daemon=$("$SKYLOG" status "$MNT" | sed -n 's/^pid: //p')
            mkfifo held.$1
            unshare --mount --propagation private bash -c 'echo > held.'$1'; read < alive' &
            holder=$!
            read < held.$1
        }
        exec 9<> alive
    "#;
    let script = r#"
        hold 1
        if "$SKYLOG" umount --now "$MNT" 2> said; then exit 1; fi
        cat said
        grep -q "process $daemon) cannot end yet: bash (process $holder) in another mount namespace holds a copy" said
        eval "$(grep -o 'nsenter [^`]*' said)"
        while ! ended $daemon; do :; done
        kill $holder

        hold 2
        mkfifo waits
        "$SKYLOG" umount "$MNT" 2> waits &
        umount=$!
        read -r said < waits
        case $said in *"unmounted here"*"process $holder"*"waiting for that"*) ;; *) exit 1 ;; esac
        if ended $umount; then exit 1; fi
        kill $holder
        wait $umount
        ended $daemon
    "#;
    scratch.script(&format!("{holder}{script}"));
}
