# The file operations of a file server's clients.
prepare() { need dbench dbench; }

run() {
    dbench -t "$([ -z "$long" ] && echo 10 || echo 120)" -D "$mnt" 4 2>&1 | tail -n 3
}
