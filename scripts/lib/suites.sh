# What several suites share. Sourced by scripts/suites.

# Real files to work on: the first of the crates' sources that the build downloaded.
real_files() { # COUNT TARGET
    (cd "${CARGO_HOME:-$HOME/.cargo}/registry/src" && find . -type f | sort | sed -n "1,$1p" | cpio -pdm --quiet "$2")
}

# pjdfstest changes to a second user besides nobody.
need_user() { getent passwd "$1" > /dev/null || { groupadd -f "$1" && useradd -M -g "$1" "$1"; }; }

# `mount -o remount` asks a helper at this place. It is there for the run only; a link that was there before comes back at the end.
mount_helper=/sbin/mount.fuse.skylog
need_mount_helper() {
    [ -z "${helper_before+set}" ] || return 0
    [ -e "$mount_helper" ] && [ ! -L "$mount_helper" ] && die "$mount_helper is there and no link; move it away for the test"
    helper_before=$(readlink "$mount_helper" || true)
    trap end_suites EXIT
    ln -sfn "$(realpath "$skylog")" "$mount_helper"
}

end_suites() {
    local code=$?
    rm -f "$mount_helper"
    [ -z "$helper_before" ] || ln -s "$helper_before" "$mount_helper"
    (exit "$code")
    end_scratch
}

pjdfstest_config() { # FILE
    cat > "$1" << 'END'
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = true
expected_failures = []
[dummy_auth]
entries = [["nobody", "nogroup"], ["tests", "tests"]]
END
}

# The tests with this verdict in $scratch/result.
pjdfstest_with() { sed 's/\x1b\[[0-9;]*m//g' "$scratch/result" | awk -v verdict="$1" 'NF == 2 && $1 ~ /::/ && $2 == verdict { print $1 }'; }

# A tree with everything a filesystem can hold.
rich_tree() { # TARGET
    rm -rf "$1"
    mkdir -p "$1/files" "$1/odd"
    real_files 2000 "$1/files"
    python3 - "$1/odd" << 'END'
import os, socket, sys
os.chdir(os.fsencode(sys.argv[1]))
def put(name, data=b"x"):
    with open(name, "wb") as file:
        file.write(data)
put(b"\xff" * 255)
put(b"new\nline \\ \"quotes\" \xc3\xa4", b"")
put(b"links")
for n in range(40):
    os.link(b"links", b"link %d" % n)
with open(b"sparse", "wb") as file:
    file.truncate(1 << 28)
    for at in (5000, 1 << 20, (1 << 27) + 123):
        file.seek(at)
        file.write(os.urandom(70000))
os.symlink(b"nowhere/" + b"t" * 4000, b"long link")
os.mkfifo(b"fifo", 0o600)
os.mknod(b"char", 0o20644, os.makedev(1, 3))
os.mknod(b"block", 0o60640, os.makedev(250, 70000))
socket.socket(socket.AF_UNIX).bind(b"socket")
put(b"set-id"); os.chown(b"set-id", 1000, 1001); os.chmod(b"set-id", 0o6751)
os.mkdir(b"sticky"); os.chmod(b"sticky", 0o1777)
os.mkdir(b"group"); os.chown(b"group", 0, 1001); os.chmod(b"group", 0o2775)
for n, time in enumerate((-1, 0, 1, 2**31 - 1, 2**31, 2**32 + 5, 2**33)):
    put(b"time %d" % n)
    os.utime(b"time %d" % n, ns=(time * 10**9 + 1, time * 10**9 + 987654321))
put(b"attributes")
for n in range(20):
    os.setxattr(b"attributes", "user.name %d" % n, os.urandom(100))
os.setxattr(b"attributes", "trusted.secret", b"\0\1\2")
put(b"large attribute")
os.setxattr(b"large attribute", "user.large", os.urandom(3000))
END
    setfacl -m u:1000:rwx,g:1001:r-x,m::rw- "$1/odd/attributes"
    setfacl -d -m u:1000:rwx,g:1001:r-x "$1/odd/group"
    mkdir "$1/odd/group/inherits"
    echo inherits > "$1/odd/group/inherits/file"
    # rsync takes two times of one second for the same, so none may be of the second in which it copies.
    find "$1" -path "$1/files/*" -type f -o -name 'time *' -o -exec touch -h -d '2024-02-03 04:05:06.123456789' {} +
}

# same_tree LIST FOLDER: every name, attribute and byte below the folder is as listed.
same_tree() {
    python3 scripts/lib/manifest.py "$2" > "$scratch/same"
    cmp -s "$1" "$scratch/same" || die "$2 differs: $(diff "$1" "$scratch/same" | head -n 6)"
}
