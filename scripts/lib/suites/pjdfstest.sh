# POSIX calls and their errors, strictly: nothing is expected to fail. Some tests remount while the suite itself keeps the
# filesystem busy, and fail so on every filesystem; which ones depends on how the suite was built, so the kernel's tmpfs says it
# in the same run. `erofs` runs these alone.
options=allow_other
skipped=link::link_count_max

prepare() {
    need_cargo_tool pjdfstest 0.2.2
    need_user tests
    need_mount_helper
    pjdfstest_config "$scratch/pjdfstest.toml"
}

# Runs the suite in a folder; the result is in $scratch/result.
pjdfstest_in() {
    mkdir -p "$scratch/second"
    mount -t tmpfs tmpfs "$scratch/second"
    pjdfstest -c "$scratch/pjdfstest.toml" -p "$1" -s "$scratch/second" > "$scratch/result" 2>&1 || true
    umount "$scratch/second"
}

# Which tests find a filesystem busy that the kernel keeps in memory.
busy_everywhere() {
    mkdir "$scratch/tmpfs"
    mount -t tmpfs tmpfs "$scratch/tmpfs"
    pjdfstest_in "$scratch/tmpfs"
    umount "$scratch/tmpfs"
    pjdfstest_with FAILED | grep erofs | sort | xargs
}

run() {
    local busy failed others passed all
    busy=$(busy_everywhere)
    pjdfstest_in "$mnt"
    grep Summary "$scratch/result"
    failed=$(pjdfstest_with FAILED | sort | xargs)
    others=$(pjdfstest_with skipped | grep -vx "$skipped" || true)
    passed=$(pjdfstest_with ok | wc -l)
    all=$((passed + $(wc -w <<< "$busy") + 1))
    [ "$failed" = "$busy" ] || { grep -A5 FAILED "$scratch/result"; die "pjdfstest: these failed: $failed; only these may: $busy"; }
    [ -z "$others" ] || die "pjdfstest: these were skipped: $others"
    [ "$all" = 398 ] || die "pjdfstest: $passed tests passed, one was skipped, of 398"
    echo "pjdfstest: all passed but those that are busy on tmpfs too: $busy"
}
