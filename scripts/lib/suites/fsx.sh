# Random reads, writes, truncations, holes, mappings and copies of one file against a copy in memory; every kind of operation on.
prepare() { need_cargo_tool fsx 0.3.2; }

run() {
    local operations=20000 seed pids=()
    [ -z "$long" ] || operations=100000
    # Sizes from 1: the suite itself stops at a posix_fallocate of no bytes, which is EINVAL everywhere.
    cat > "$scratch/fsx.toml" << 'END'
[opsize]
min = 1
[weights]
close_open = 1.0
invalidate = 1.0
mapread = 1.0
mapwrite = 1.0
read = 1.0
write = 1.0
truncate = 1.0
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 1.0
punch_hole = 1.0
sendfile = 1.0
posix_fadvise = 1.0
copy_file_range = 1.0
END
    for seed in 1 2 3 4 5; do
        fsx -q -f "$scratch/fsx.toml" -N $operations -S $seed -P "$scratch" "$mnt/fsx.$seed" > "$scratch/fsx.$seed.log" 2>&1 &
        pids+=($!)
    done
    for seed in 1 2 3 4 5; do
        wait "${pids[$((seed - 1))]}" || { tail -n 30 "$scratch/fsx.$seed.log"; die "fsx failed with seed $seed"; }
    done
    echo "fsx: seeds 1 to 5, $operations operations each${options:+, with -o $options}"
}
