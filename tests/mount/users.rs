//! Mounts of ordinary users, through fusermount3. `/dev/fuse` is open to all, as distributions have it, in a mount namespace of
//! its own.

use super::scratch::Scratch;
use std::fs;
use std::os::unix::fs::chown;

const NOBODY: u32 = 65534;

/// `$U COMMAND` runs as nobody, whose home is in the scratch folder; `$LOST` likewise, without any home.
const PROLOGUE: &str = r#"
    mknod -m 666 fuse c 10 229
    mount --bind fuse /dev/fuse
    touch fuse.conf
    mount --bind fuse.conf /etc/fuse.conf
    NOBODY="setpriv --reuid 65534 --regid 65534 --clear-groups env -u XDG_RUNTIME_DIR -u XDG_STATE_HOME"
    U="$NOBODY HOME=$ROOT/home"
    LOST="$NOBODY HOME=/nonexistent"
    $U ./skylog mkfs --segment-size 1MiB store
    start() { $U ./skylog mount --journal-size 32MiB "$@" store mnt; }
    pid() { $U ./skylog status mnt | sed -n 's/^pid: //p'; }
"#;

fn run(script: &str) -> (Scratch, String) {
    let scratch = Scratch::new();
    fs::copy(env!("CARGO_BIN_EXE_skylog"), scratch.root.join("skylog")).unwrap();
    fs::create_dir(scratch.root.join("home")).unwrap();
    for path in [scratch.root.clone(), scratch.mnt.clone(), scratch.root.join("home")] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let said = scratch.script(&format!("{PROLOGUE}{script}"));
    (scratch, said)
}

/// Its keys are in no core file either: the kernel writes none of such a process.
#[test]
fn nobody_but_root_looks_into_a_daemon() {
    let (_, said) = run(r#"
        export AWS_SECRET_ACCESS_KEY=sesame
        start
        pid=$(pid)
        stat -c 'owner %u' /proc/$pid/mem
        $U cat /proc/$pid/environ > seen 2> /dev/null || echo closed
        tr '\0' '\n' < /proc/$pid/environ | grep -c sesame
        $U ./skylog umount mnt
    "#);
    assert!(said.contains("owner 0\n") && said.contains("closed\n") && said.contains("\n1\n"), "{said}");
}

#[test]
fn an_ordinary_user_mounts_and_unmounts() {
    let (scratch, said) = run(r#"
        # A comma in the name of a store is no option.
        mv store "a,noatime"
        $U ./skylog mount --journal-size 32MiB "a,noatime" mnt
        findmnt -n -o OPTIONS mnt | grep -v noatime
        $U ./skylog umount mnt
        mv "a,noatime" store
        start -o noexec
        findmnt -n -o SOURCE,FSTYPE,OPTIONS "$MNT"
        ls -d home/.local/state/skylog/*.sock
        $U sh -c 'echo one > mnt/file'
        if $U mknod mnt/device c 1 3; then exit 1; fi
        pid=$(pid)
        $U ./skylog umount mnt
        ended $pid
        start
        pid=$(pid)
        $U cat mnt/file
        $U sh -c 'echo two >> mnt/file'
        $U fusermount3 -u mnt
        until ended $pid; do read -t 0.01 < /dev/zero || true; done
        start
        pid=$(pid)
        $U cat mnt/file
        $U umount mnt
        until ended $pid; do read -t 0.01 < /dev/zero || true; done
        $U ./skylog check store
        "#);
    let line: Vec<&str> = said.lines().find(|line| line.contains(" fuse.skylog")).unwrap().split_whitespace().collect();
    assert_eq!(line[0], format!("file://{}", scratch.store()));
    for word in ["nosuid", "nodev", "noexec", "user_id=65534", "default_permissions"] {
        assert!(line[2].split(',').any(|found| found == word), "{word} is missing in {line:?}");
    }
    assert!(!line[2].contains("allow_other"), "{line:?}");
    assert_eq!(said.matches("one\n").count(), 2, "{said}");
    assert!(said.contains("two\n"), "{said}");
}

#[test]
fn allow_other_is_roots_to_allow() {
    let (_scratch, said) = run(r#"
        if start -o allow_other 2> said; then exit 1; fi
        cat said
        echo user_allow_other > fuse.conf
        start -o allow_other
        ls -d mnt/.
        $U ./skylog umount mnt
        "#);
    let sentence = said.lines().find(|line| line.starts_with("skylog: ")).unwrap();
    assert!(sentence.contains("user_allow_other") && sentence.contains("/etc/fuse.conf"), "{sentence}");
    assert!(said.contains("mnt/.\n"), "root may look in: {said}");
}

#[test]
fn without_fusermount3_its_package_is_named() {
    let (_scratch, said) = run(r#"
        if FUSERMOUNT_PATH=/nowhere/fusermount3 start 2> said; then exit 1; fi
        cat said
        chmod 600 fuse
        if start 2> said; then exit 1; fi
        cat said
        "#);
    assert!(said.contains("needs fusermount3; `apt-get install fuse3`"), "{said}");
    assert!(said.contains("closed to ordinary users"), "{said}");
}

#[test]
fn root_unmounts_what_a_user_without_a_home_has_mounted() {
    let (_scratch, said) = run(r#"
        $LOST ./skylog mount --journal-size 32MiB store mnt
        $LOST sh -c 'echo one > mnt/file'
        pid=$("$SKYLOG" status mnt | sed -n 's/^pid: //p')
        "$SKYLOG" umount mnt
        ended $pid
        ls mnt
        "#);
    assert!(!said.contains("file\n"), "it is unmounted: {said}");
}

#[test]
fn a_line_of_fstab_lets_a_user_mount_and_umount_drains() {
    let (_scratch, said) = run(r#"
        mkdir sbin
        for name in mount.skylog mount.fuse.skylog umount.skylog umount.fuse.skylog; do ln -s "$ROOT/skylog" sbin/$name; done
        echo "$STORE $MNT skylog user,noauto,journal_size=32MiB 0 0" > fstab
        mount --bind sbin "$(readlink -f /sbin)"
        mount --bind fstab /etc/fstab
        $U mount mnt
        findmnt -n -o SOURCE,OPTIONS mnt
        $U sh -c 'echo one > mnt/file'
        pid=$(pid)
        $U umount mnt
        ended $pid
        "#);
    assert!(said.contains("user_id=65534") && said.contains("noexec"), "{said}");
}

#[test]
fn what_only_another_user_may_do_says_so() {
    run(r#"
        ./skylog mount --journal-size 32MiB store mnt
        for command in status umount sync; do
            if $U ./skylog $command mnt 2> said; then exit 1; fi
            grep -q "is the mount of user 0; only that user and root" said
        done
        ./skylog umount mnt
    "#);
}

/// Where `/proc` hides what others run, it hides a daemon from its own user too.
#[test]
fn a_daemon_that_proc_hides_is_not_taken_for_dead() {
    let (_scratch, said) = run(r#"
        mount -t proc -o hidepid=2 proc /proc
        start
        $U sh -c 'echo one > mnt/file'
        pid=$(pid)
        if $U test -e /proc/$pid/stat; then echo shown; fi
        mkdir other
        chown nobody other
        $U ./skylog mount --journal-size 32MiB --state second store other 2> refused && exit 1
        cat refused
        $U ./skylog umount mnt
        ended $pid
        # One that only reads has nothing but its lease.
        $U ./skylog mount --read-only store mnt
        $U cat mnt/file
        $U ./skylog destroy store < /dev/null 2> refused && exit 1
        cat refused
        $U ./skylog umount mnt
        "#);
    assert!(!said.contains("shown"), "the daemon is not hidden, and nothing is tested: {said}");
    assert!(said.contains("one\n") && said.matches("in use by process").count() == 2, "{said}");
}

#[test]
fn a_state_directory_that_is_not_ours_to_close_is_used_with_a_warning() {
    let (_scratch, said) = run(r#"
        mkdir shared
        chown 0:65534 shared
        chmod 2770 shared
        start --state shared 2>&1
        $U sh -c 'echo one > mnt/file'
        $U cat mnt/file
        $U ./skylog umount mnt
        stat -c 'mode %a' shared
        "#);
    assert!(said.contains("one\n") && said.contains("mode 2770\n"), "{said}");
    assert!(said.contains("shared is open to others (mode 2770), and is not ours to close"), "{said}");
}
