# Many small files created, read, appended to and deleted, as a mail server does.
prepare() { need postmark postmark; }

run() {
    mkdir "$mnt/mail"
    postmark > "$scratch/postmark" << END
set location $mnt/mail
set number 5000
set subdirectories 20
set transactions $([ -z "$long" ] && echo 10000 || echo 200000)
set size 500 40000
set seed 7
run
quit
END
    grep -E 'created|deleted|transactions' "$scratch/postmark" | head -n 4
    # The pool is deleted at the end; what stays must be an empty tree.
    [ -z "$(find "$mnt/mail" -type f)" ] || die "postmark left files"
}
