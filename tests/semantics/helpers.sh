# What the blocks of docs/semantics.md may use. Read by bash before each block, which runs in a fresh directory of a mount
# and holds when it ends with 0. $SKYLOG is the program, $SCRATCH a folder outside the mount.
set -euo pipefail
umask 022
export LC_ALL=C

# An ordinary user: 1001, of the groups 1001 and 2000.
as_user() {
    setpriv --reuid 1001 --regid 1001 --groups 2000 -- "$@"
}

# fails SENTENCE COMMAND…: the command fails and says so.
fails() {
    local sentence=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "this succeeded: $*" >&2
        return 1
    fi
    case $said in
    *"$sentence"*) ;;
    *)
        echo "expected \"$sentence\", not: $said" >&2
        return 1
        ;;
    esac
}

# is WANTED FOUND: both are the same text.
is() {
    [ "$1" = "$2" ] || {
        echo "expected \"$1\", not: \"$2\"" >&2
        return 1
    }
}

# renameat2 FROM TO FLAGS, the flags as names.
renameat2() {
    python3 - "$@" <<'PY'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
names = {"NOREPLACE": 1, "EXCHANGE": 2, "WHITEOUT": 4}
source, target = (os.fsencode(path) for path in sys.argv[1:3])
flags = sum(names[name] for name in sys.argv[3].split("|"))
if libc.renameat2(-100, source, -100, target, flags) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
PY
}

# own_mount [MKFS-OPTION…] [-- MOUNT-OPTION…]: a filesystem of the block's own, into which it goes.
own_mount() {
    local make=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        make+=("$1")
        shift
    done
    [ $# -eq 0 ] || shift
    OWN=$SCRATCH/mnt
    mkdir "$OWN"
    "$SKYLOG" mkfs --segment-size 1MiB "${make[@]}" "$SCRATCH/store" >"$SCRATCH/said"
    trap leave_mount EXIT
    mount_own "$@"
}

# Mounts the block's own filesystem, with these options.
mount_own() {
    "$SKYLOG" mount -o allow_other "$@" "$SCRATCH/store" "$OWN" >"$SCRATCH/said"
    cd "$OWN"
}

# follow [MOUNT-OPTION…]: a mount at $THERE that follows the block's own, from a state that holds all that was written so far.
follow() {
    THERE=$SCRATCH/there
    mkdir "$THERE"
    remount --ship-interval 1
    trap 'umount -lq "$THERE" || true; leave_mount' EXIT
    "$SKYLOG" mount --read-only --state "$SCRATCH/there.state" -o allow_other "$@" "$SCRATCH/store" "$THERE" >"$SCRATCH/said"
}

# seen is WANTED FILE: waits until the file's lines are this. seen COMMAND…: waits until it succeeds.
seen() {
    if [ "$1" = is ]; then
        until [ "$2" = "$(tr '\n' ' ' <"$3" 2>"$SCRATCH/unseen" | sed 's/ $//')" ]; do sleep 0.1; done
    else
        until "$@"; do sleep 0.1; done
    fi
}

daemon_pid() {
    "$SKYLOG" status --json "$OWN" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'
}

# Unmounts and mounts again, with these options.
remount() {
    cd /
    "$SKYLOG" umount "$OWN" >"$SCRATCH/said"
    mount_own "$@"
}

# Kills the daemon without warning, clears the dead mount, and mounts again with these options.
crash_and_remount() {
    local pid
    pid=$(daemon_pid)
    cd /
    kill -9 "$pid"
    umount -l "$OWN"
    while [ -d "/proc/$pid" ]; do :; done
    mount_own "$@"
}

leave_mount() {
    local pid
    pid=$(daemon_pid 2>"$SCRATCH/said") || pid=
    cd /
    umount -lq "$OWN" || true
    [ -z "$pid" ] || kill -9 "$pid"
}
