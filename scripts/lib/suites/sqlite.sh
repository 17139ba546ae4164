# 100,000 rows in a thousand transactions, with the settings that survive a power failure, in both kinds of log.
prepare() { need sqlite3 sqlite3; }

sqlite_rows() {
    python3 - "$1" "$2" << 'END'
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute(f"PRAGMA journal_mode={sys.argv[2]}")
for pragma in ("synchronous=EXTRA", "fullfsync=ON", "checkpoint_fullfsync=ON", "cell_size_check=ON"):
    base.execute(f"PRAGMA {pragma}")
base.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, body BLOB)")
for batch in range(1000):
    base.execute("BEGIN IMMEDIATE")
    rows = ((n, f"name {n * 7919 % 100003}", n.to_bytes(4, "little") * 25) for n in range(batch * 100, batch * 100 + 100))
    base.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    base.execute("COMMIT")
base.close()
END
}

sqlite_whole() {
    local file
    for file in delete wal; do
        [ "$(sqlite3 "file:$mnt/$file.db?immutable=1" 'PRAGMA integrity_check; SELECT count(*) FROM t' | xargs)" = "ok 100000" ] || die "sqlite: $file.db is damaged"
    done
}

run() {
    sqlite_rows "$mnt/delete.db" DELETE
    sqlite_rows "$mnt/wal.db" WAL
    sqlite_whole
    echo "sqlite: 100000 rows in each of two databases"
}

again() { sqlite_whole; }
