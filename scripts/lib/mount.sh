# A scratch store and mount for scripts that measure and verify. To be sourced after `cd` to the project and setup.sh.
# Sets $skylog, $scratch, $store, $mnt; unmounts and removes all when the script ends.

# What is measured is what the sources say now, unless the caller names a program.
if [ -z "${SKYLOG:-}" ]; then
    need_build_tools
    cargo build --release --locked
fi
need_fuse
skylog=${SKYLOG:-$PWD/target/release/skylog}
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/skylog.XXXXXX")
store=$scratch/store
mnt=$scratch/mnt
mkdir "$mnt"

end_scratch() {
    local code=$?
    if mountpoint -q "$mnt" 2> /dev/null || grep -q " $mnt fuse" /proc/mounts; then "$skylog" umount --now "$mnt" || umount -l "$mnt" || true; fi
    if [ $code = 0 ]; then rm -rf "$scratch"; else echo "kept for a look: $scratch" >&2; fi
}
trap end_scratch EXIT

# The value of a field of `skylog status --json`, wherever it is nested.
status_field() {
    "$skylog" status --json "$mnt" | python3 -c '
import json, sys
def find(value, name):
    if isinstance(value, dict):
        if name in value: return value[name]
        for v in value.values():
            r = find(v, name)
            if r is not None: return r
print(find(json.load(sys.stdin), sys.argv[1]))' "$1"
}
