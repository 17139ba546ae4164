# The same tree through tar, archive and extraction on the mount.
prepare() {
    need setfacl acl
    need setfattr attr
    need cpio cpio
}

run() {
    rich_tree "$scratch/rich"
    # tar archives no sockets.
    rm "$scratch/rich/odd/socket"
    python3 scripts/lib/manifest.py "$scratch/rich" > "$scratch/rich.list"
    tar --xattrs --xattrs-include='*' --acls --sparse -C "$scratch/rich" -cf "$mnt/rich.tar" .
    mkdir "$mnt/there" "$scratch/back"
    tar --xattrs --xattrs-include='*' --acls -C "$mnt/there" --warning=no-timestamp -xpf "$mnt/rich.tar"
    same_tree "$scratch/rich.list" "$mnt/there"
    tar --xattrs --xattrs-include='*' --acls --sparse -C "$mnt/there" -cf "$scratch/there.tar" .
    tar --xattrs --xattrs-include='*' --acls -C "$scratch/back" --warning=no-timestamp -xpf "$scratch/there.tar"
    same_tree "$scratch/rich.list" "$scratch/back"
    echo "tar: $(wc -l < "$scratch/rich.list") names"
    rm -rf "$scratch/back" "$scratch/there.tar"
}
