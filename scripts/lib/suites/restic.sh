# A restic repository on the mount: two snapshots, forgetting one, full verification, restore.
prepare() {
    need restic restic
    need cpio cpio
}

run() {
    export RESTIC_PASSWORD=secret RESTIC_CACHE_DIR=$scratch/restic RESTIC_REPOSITORY=$mnt/repository
    mkdir -p "$scratch/files" && real_files 3000 "$scratch/files"
    restic -q init
    restic -q backup "$scratch/files"
    rm -rf "$(find "$scratch/files" -mindepth 1 -maxdepth 2 -type d | tail -n1)"
    restic -q backup "$scratch/files"
    restic -q forget --keep-last 1 --prune
    restic -q check --read-data
    echo "restic: $(find "$scratch/files" -type f | wc -l) files"
}

again() {
    restic -q check --read-data
    restic -q restore latest --target "$scratch/extracted"
    diff -r "$scratch/files" "$scratch/extracted$scratch/files"
    rm -rf "$scratch/extracted" "$scratch/files"
}
