# A borg repository on the mount: two archives, deletion, compaction, full verification, extraction.
prepare() {
    need borg borgbackup
    need cpio cpio
}

export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_RELOCATED_REPO_ACCESS_IS_OK=yes

run() {
    export BORG_BASE_DIR=$scratch/borg
    mkdir -p "$scratch/files" && real_files 3000 "$scratch/files"
    borg init -e none "$mnt/repository"
    borg create "$mnt/repository::one" "$scratch/files"
    rm -rf "$(find "$scratch/files" -mindepth 1 -maxdepth 2 -type d | tail -n1)"
    borg create "$mnt/repository::two" "$scratch/files"
    borg delete "$mnt/repository::one"
    borg compact "$mnt/repository"
    borg check --verify-data "$mnt/repository"
    echo "borg: $(find "$scratch/files" -type f | wc -l) files"
}

again() {
    borg check --verify-data "$mnt/repository"
    mkdir "$scratch/extracted"
    (cd "$scratch/extracted" && borg extract "$mnt/repository::two")
    diff -r "$scratch/files" "$scratch/extracted/${scratch#/}/files"
    rm -rf "$scratch/extracted" "$scratch/files"
}
