# A scratch store and mount for scripts that measure and verify. To be sourced after `cd` to the project and setup.sh.
# Sets $skylog, $scratch, $store, $mnt; unmounts and removes all when the script ends. `use_store` puts the store on S3.
. scripts/lib/s3.sh

# What is measured is what the sources say now, unless the caller names a program.
if [ -z "${SKYLOG:-}" ]; then
    need_build_tools
    cargo build --release --locked
fi
need_fuse
skylog=${SKYLOG:-$PWD/target/release/skylog}
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/skylog.XXXXXX")
mnt=$scratch/mnt
mkdir "$mnt"
# The store, where its objects lie as files, its state directory, and the option that says so, if one has to.
store=$scratch/store
objects=$store
state=$store/state
with_state=()

end_scratch() {
    local code=$?
    if mountpoint -q "$mnt" 2> /dev/null || grep -q " $mnt fuse" /proc/mounts; then "$skylog" umount --now "$mnt" || umount -l "$mnt" || true; fi
    stop_s3
    if [ $code = 0 ]; then rm -rf "$scratch"; else echo "kept for a look: $scratch" >&2; fi
}
trap end_scratch EXIT

# use_store folder|moto|s3s: where stores are from now on. On S3 they are prefixes of one bucket.
store_kind=folder
stores=0
use_store() {
    store_kind=$1
    case $store_kind in
        folder) return ;;
        moto | s3s) start_s3 "$store_kind" "$scratch/s3" ;;
        *) die "--store $store_kind: there are folder, moto and s3s" ;;
    esac
    state=$scratch/state
    with_state=(--state "$state")
    store=
    fresh_store
}

# The store that was there is gone with its state; $store names another, where nothing is yet.
fresh_store() {
    if [ "$store_kind" = folder ]; then
        rm -rf "$store"
        return
    fi
    if [ -e "$state" ]; then
        "$skylog" destroy --yes "${with_state[@]}" "$store"
        rm -rf "$state"
    fi
    stores=$((stores + 1))
    store=s3://skylog/scratch-$stores
    objects=$scratch/s3/objects/skylog/scratch-$stores
}

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
