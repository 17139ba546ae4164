# The tests of pjdfstest that remount read-only, alone on a fresh mount with nothing else open on it.
options=allow_other

prepare() {
    need_cargo_tool pjdfstest 0.2.2
    need_user tests
    need_mount_helper
    pjdfstest_config "$scratch/pjdfstest.toml"
}

run() {
    pjdfstest -c "$scratch/pjdfstest.toml" -p "$mnt" erofs > "$scratch/result" 2>&1 || { cat "$scratch/result"; die "pjdfstest erofs failed"; }
    tail -n1 "$scratch/result"
    [ "$(pjdfstest_with ok | wc -l)" = 13 ] || die "pjdfstest erofs: not 13 tests passed"
}
