# The mount as the lower layer of an overlay: what a container image is. (The kernel takes no FUSE filesystem as upper layer.)
prepare() { need cpio cpio; }

run() {
    mkdir "$mnt/lower" "$scratch"/{upper,work,merged}
    real_files 2000 "$mnt/lower"
    mkdir "$mnt/lower/dir" && echo lower > "$mnt/lower/dir/file" && chmod 751 "$mnt/lower/dir/file"
    mount -t tmpfs tmpfs "$scratch/upper"
    mkdir "$scratch"/upper/{upper,work}
    mount -t overlay overlay -o "lowerdir=$mnt/lower,upperdir=$scratch/upper/upper,workdir=$scratch/upper/work" "$scratch/merged"
    local failed=
    diff -r "$mnt/lower" "$scratch/merged" || failed="the overlay shows other files"
    echo upper >> "$scratch/merged/dir/file"
    mv "$scratch/merged/dir/file" "$scratch/merged/moved"
    rm -rf "$scratch/merged/dir"
    [ "$(xargs < "$scratch/merged/moved")" = "lower upper" ] || failed="copy-up lost data"
    [ "$(stat -c %a "$scratch/merged/moved")" = 751 ] || failed="copy-up lost the mode"
    [ ! -e "$scratch/merged/dir" ] || failed="a removed directory shows"
    umount "$scratch/merged" "$scratch/upper"
    [ -z "$failed" ] || die "overlay: $failed"
    [ "$(cat "$mnt/lower/dir/file")" = lower ] || die "overlay: the lower layer changed"
    echo "overlay: $(find "$mnt/lower" -type f | wc -l) files"
}
