# Written with three engines, every block verified, and verified again after the second mount.
prepare() { need fio fio; }

# Whatever fio leaves beside its files is left in the scratch folder.
fio_jobs() {
    (cd "$scratch" && exec fio --output="$scratch/fio.log" --directory="$mnt" --size=64m --bs=4k --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randrepeat=1 --rw=randwrite "$@" \
        --name=psync --ioengine=psync \
        --name=aio --ioengine=libaio --direct=1 --iodepth=16 \
        --name=map --ioengine=mmap) || { cat "$scratch/fio.log"; die "fio found damage"; }
}

run() {
    fio_jobs --do_verify=1 --end_fsync=1
    echo "fio: psync, libaio direct and mmap verified"
}

again() { fio_jobs --verify_only; }
