# POSIX calls and their errors, strictly: nothing is expected to fail. Four tests remount while the suite itself keeps the
# filesystem busy, and fail so on every filesystem: `erofs` runs these alone.
busy="chown::erofs_named chown::lchown::erofs_named rename::erofs_named symlink::erofs_new_file"
skipped=link_count_max

options=allow_other

prepare() {
    need_cargo_tool pjdfstest 0.2.2
    need_user tests
    need_mount_helper
    pjdfstest_config "$scratch/pjdfstest.toml"
}

run() {
    mkdir "$scratch/second"
    mount -t tmpfs tmpfs "$scratch/second"
    local code=0
    pjdfstest -c "$scratch/pjdfstest.toml" -p "$mnt" -s "$scratch/second" > "$scratch/result" 2>&1 || code=$?
    umount "$scratch/second"
    tail -n1 "$scratch/result"
    # Lines that are a test and its verdict.
    local failed others passed
    failed=$(pjdfstest_with FAILED | sort | xargs)
    others=$(pjdfstest_with skipped | grep -v "$skipped" || true)
    passed=$(pjdfstest_with ok | wc -l)
    [ "$failed" = "$busy" ] || { grep -A5 FAILED "$scratch/result"; die "pjdfstest: these failed: $failed; only these may: $busy"; }
    [ -z "$others" ] || die "pjdfstest: these were skipped: $others"
    [ "$passed" = 393 ] || die "pjdfstest: $passed tests passed, not 393"
}
