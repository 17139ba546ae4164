# A tree with everything a filesystem can hold, there and back with rsync.
prepare() {
    need rsync rsync
    need setfacl acl
    need setfattr attr
    need cpio cpio
}

run() {
    rich_tree "$scratch/rich"
    python3 scripts/lib/manifest.py "$scratch/rich" > "$scratch/rich.list"
    rsync -aHAX "$scratch/rich/" "$mnt/there/"
    rsync -aHAX "$mnt/there/" "$scratch/back/"
    same_tree "$scratch/rich.list" "$mnt/there"
    same_tree "$scratch/rich.list" "$scratch/back"
    [ -z "$(rsync -aHAXn --itemize-changes --checksum "$scratch/rich/" "$mnt/there/")" ] || die "rsync sees differences"
    echo "rsync: $(wc -l < "$scratch/rich.list") names"
    rm -rf "$scratch/back"
}
