"""Tables of scripts/bench: medians over the rounds, and ratios to ext4 and to the ceiling."""

import statistics

MIB = 1 << 20


def rate(found):
    return found["ops"] / found["seconds"]


# Line, words, unit, value, and whether more is better.
ROWS = [
    ("seq-write", "sequential write, 1 MiB blocks, fsync at the end", "MB/s", lambda f: f["bytes"] / f["seconds"] / 1e6, True),
    ("seq-read-cold", "sequential read, cold", "MB/s", lambda f: f["bytes"] / f["seconds"] / 1e6, True),
    ("seq-read-warm", "sequential read, warm", "MB/s", lambda f: f["bytes"] / f["seconds"] / 1e6, True),
    ("fsync-1", "random 4 KiB write + fsync, 1 job", "/s", rate, True),
    ("fsync-1", "the same, p50", "µs", lambda f: f["p50_us"], False),
    ("fsync-4", "the same, 4 jobs", "/s", rate, True),
    ("fsync-4", "the same, 4 jobs, p99", "µs", lambda f: f["p99_us"], False),
    ("fsync-16", "the same, 16 jobs", "/s", rate, True),
    ("rand-read-cold", "random 4 KiB read, cold", "/s", rate, True),
    ("rand-read-warm", "random 4 KiB read, warm", "/s", rate, True),
    ("rand-write", "random 4 KiB write, buffered", "/s", rate, True),
    ("create-1", "create 4 KiB files, 1 thread", "/s", rate, True),
    ("create-4", "create 4 KiB files, 4 threads", "/s", rate, True),
    ("stat-new", "stat of files not yet looked up", "/s", rate, True),
    ("readdir", "readdir + lstat", "/s", rate, True),
    ("open-read", "open + read + close 4 KiB", "/s", rate, True),
    ("overwrite", "overwrite 4 KiB with truncate", "/s", rate, True),
    ("rename", "rename", "/s", rate, True),
    ("unlink", "unlink", "/s", rate, True),
    ("untar", "untar", "s", lambda f: f["seconds"], False),
    ("grep-cold", "grep -r, cold", "s", lambda f: f["seconds"], False),
    ("cp", "cp -r", "s", lambda f: f["seconds"], False),
    ("rm", "rm -rf", "s", lambda f: f["seconds"], False),
    ("git-clone", "git clone", "s", lambda f: f["seconds"], False),
    ("sqlite-rollback", "sqlite, 500 transactions, rollback journal", "/s", rate, True),
    ("sqlite-wal", "sqlite, 500 transactions, WAL, synchronous=full", "/s", rate, True),
    ("sqlite-rows", "sqlite, 300,000 rows in one transaction + index", "s", lambda f: f["seconds"], False),
]


class Results:
    """Medians of what was measured."""

    def __init__(self, results):
        self.runs = {}
        for round_, mount, line, name, value in results:
            self.runs.setdefault((mount, line), {}).setdefault(round_, {})[name] = value

    def median(self, mount, line, value):
        """None where it was not measured."""
        found = [value(run) for run in self.runs.get((mount, line), {}).values()]
        return statistics.median(found) if found else None


def number(value):
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def ratio(value, other):
    return f"{value / other:.2f}" if value is not None and other else "–"


def print_row(cells):
    print("| " + " | ".join(cells) + " |")


def print_tables(results, mounts):
    results = Results(results)
    speed(results, mounts)
    for name in [name for name in mounts if name.startswith("skylog")]:
        print(f"\n{name}: what an operation costs (medians)\n")
        costs(results, name)


def speed(results, mounts):
    ours = [name for name in mounts if name.startswith("skylog")]
    others = [name for name in mounts if name not in ours]
    pairs = [(our, other) for our in ours for other in others if comparable(our, other)]
    print_row(["line", "unit", *others, *ours, *(f"{our} / {other}" for our, other in pairs)])
    print_row(["---", "---", *(["---:"] * (len(mounts) + len(pairs)))])
    for line, words, unit, value, more_is_better in ROWS:
        found = {mount: results.median(mount, line, value) for mount in mounts}
        if all(value is None for value in found.values()):
            continue
        if not more_is_better:
            words += " (less is better)"
        ratios = [ratio(found[our], found[other]) for our, other in pairs]
        print_row([words, unit, *(number(found[name]) for name in others + ours), *ratios])


def comparable(our, other):
    """The write-back cache of the kernel is compared with the same of the ceiling."""
    return not other.startswith("ceiling") or our.endswith("-wb") == other.endswith("-wb")


def costs(results, mount):
    print_row(["line", "requests per operation", "daemon CPU per operation, µs", "disk bytes per byte written",
               "resident, MiB", "anonymous, MiB"])
    print_row(["---", *(["---:"] * 5)])
    for line in dict.fromkeys(row[0] for row in ROWS):
        if results.median(mount, line, rate) is None:
            continue
        each = lambda name, unit=1: results.median(mount, line, lambda f: f.get(name, 0) * unit / f["ops"])
        whole = lambda name: results.median(mount, line, lambda f: f.get(name, 0) / MIB)
        written = results.median(mount, line, lambda f: f.get("bytes_written", 0))
        disk = results.median(mount, line, lambda f: f["disk_bytes"] / f["bytes_written"]) if written else None
        print_row([line, number(each("requests")), number(each("cpu_s", 1e6)), number(disk),
                   number(whole("resident_bytes")), number(whole("anonymous_bytes"))])
