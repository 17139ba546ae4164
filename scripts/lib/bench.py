"""The lines of scripts/bench: mounts, runs each line on each filesystem in turns, keeps raw results, cleans up."""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_mounts import Ceiling, Ext4, Peer, Skylog, installed_peers
from bench_table import print_tables
from bench_trees import make_sources

GROUPS = {
    "data": ["seq-write", "seq-read-cold", "seq-read-warm", "rand-read-cold", "rand-read-warm", "rand-write",
             "fsync-1", "fsync-4", "fsync-16"],
    "names": ["create-1", "create-4", "stat-new", "readdir", "open-read", "overwrite", "rename", "unlink"],
    "tree": ["untar", "grep-cold", "cp", "rm", "git-clone"],
    "sqlite": ["sqlite-rollback", "sqlite-wal", "sqlite-rows"],
}
# What a line finds there: the line that makes it. It runs too, even when it was not asked for.
BUILDS_ON = {line: "seq-write" for line in GROUPS["data"] if "read" in line}
BUILDS_ON |= {line: "create-1" for line in GROUPS["names"][2:]}
BUILDS_ON |= {"grep-cold": "untar", "cp": "untar", "rm": "cp"}
COLD = {"seq-read-cold", "rand-read-cold", "grep-cold"}
# What the kernel's write-back cache is about; the other lines would only repeat.
WRITEBACK = ["rand-write", "sqlite-rows", "create-1", "overwrite", "unlink"]
QUICK = ["mib=64", "ms=200", "files=2000", "job-mib=4", "rand-mib=16"]


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", add_help=False)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--lines", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--peers", default="")
    parser.add_argument("--raw", default="target/bench/raw.tsv")
    parser.add_argument("--skylog", required=True)
    parser.add_argument("--workload", required=True)
    parser.add_argument("--memfs")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def wanted_lines(asked):
    """The lines to run, in order: those asked for, and those they build on."""
    every = [line for group in GROUPS.values() for line in group]
    if asked == "help":
        print("\n".join(f"{name}: {', '.join(lines)}" for name, lines in GROUPS.items()))
        sys.exit()
    asked = [line for word in asked.split(",") if word for line in GROUPS.get(word, [word])]
    for line in asked:
        if line not in every:
            sys.exit(f"skylog: no line is called {line}; `scripts/bench --lines help` lists them")
    needed = set(asked or every)
    for line in reversed(every):
        if line in needed and line in BUILDS_ON:
            needed.add(BUILDS_ON[line])
    return [line for line in every if line in needed]


def ext4_folder(scratch):
    """A folder on ext4: the scratch folder, or a filesystem in an image file inside it."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", scratch], capture_output=True, text=True, check=True).stdout
    if kind.strip() == "ext2/ext3":
        return scratch, None
    image, disk = scratch / "image", scratch / "disk"
    disk.mkdir()
    with open(image, "wb") as file:
        file.truncate(24 << 30)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    return disk, disk


class Bench:
    def __init__(self, options, home):
        self.options = options
        self.home = home
        self.sources = make_sources(home, small=options.quick)
        self.raw = open(options.raw, "w")
        self.results = []
        self.mounts = self.choose()

    def choose(self):
        options, home = self.options, self.home
        mounts = [Ext4(home)]
        if options.memfs:
            mounts.append(Ceiling(home, options.memfs))
        mounts.append(Skylog(home, options.skylog))
        if options.memfs:
            mounts.append(Ceiling(home, options.memfs, writeback=True))
        mounts.append(Skylog(home, options.skylog, writeback=True))
        mounts += [Peer(home, name) for name in installed_peers(options.peers)]
        only = [word for word in options.only.split(",") if word]
        return [mount for mount in mounts if not only or mount.name in only]

    def start(self):
        """Mounts everything; what cannot be mounted as asked is left out with a word."""
        live = []
        for mount in self.mounts:
            if mount.start():
                live.append(mount)
            else:
                print(f"no {mount.name}: {mount.why}", file=sys.stderr)
        self.mounts = live
        print("running on: " + ", ".join(mount.name for mount in live), file=sys.stderr)

    def stop(self):
        for mount in self.mounts:
            try:
                mount.stop()
            except (OSError, subprocess.SubprocessError) as error:
                print(f"{mount.name} did not end: {error}", file=sys.stderr)

    def run(self):
        lines = wanted_lines(self.options.lines)
        for round_ in range(1, self.options.rounds + 1):
            for group, members in GROUPS.items():
                for line in [line for line in members if line in lines]:
                    for mount in self.mounts:
                        if not mount.writeback or line in WRITEBACK:
                            self.measure(round_, group, line, mount)
                for mount in self.mounts:
                    mount.clear(group)

    def measure(self, round_, group, line, mount):
        folder = mount.dir / group
        folder.mkdir(exist_ok=True)
        if line in COLD:
            mount.go_cold()
        if line == "stat-new":
            mount.forget_names(lambda: self.workload(line, folder))
        before = mount.costs()
        found = self.workload(line, folder) if group in ("data", "names") else self.timed(line, folder)
        mount.settle()
        for name, value in mount.costs().items():
            if name in before:
                found[name] = value - before[name]
        found |= mount.memory()
        for name, value in found.items():
            self.results.append((round_, mount.name, line, name, float(value)))
            print(round_, mount.name, line, name, value, sep="\t", file=self.raw, flush=True)
        print(f"{round_} {line} {mount.name}: {found['seconds']:.3f} s for {found['ops']:.0f}", file=sys.stderr)

    def workload(self, line, folder):
        sizes = QUICK if self.options.quick else []
        command = [self.options.workload, line, folder, *sizes]
        said = subprocess.run(command, capture_output=True, text=True)
        if said.returncode:
            sys.exit(f"skylog: {line} in {folder} failed: {said.stderr}")
        return {name: float(value) for name, value in (row.split() for row in said.stdout.splitlines())}

    def timed(self, line, folder):
        """A line of ordinary programs: how long the whole of it takes."""
        script, ops = self.sources.script(line)
        for old in self.sources.leftovers(line):
            shutil.rmtree(folder / old, ignore_errors=True)
        begin = time.monotonic()
        subprocess.run(["bash", "-euc", script], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return {"ops": ops, "seconds": time.monotonic() - begin}


def main():
    options = arguments()
    wanted_lines(options.lines)
    os.makedirs(os.path.dirname(options.raw) or ".", exist_ok=True)
    # An interrupted run cleans up as a finished one does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    scratch = Path(tempfile.mkdtemp(prefix="skylog-bench.", dir=os.environ.get("TMPDIR", "/var/tmp")))
    disk = bench = None
    try:
        home, disk = ext4_folder(scratch)
        bench = Bench(options, home)
        bench.start()
        bench.run()
        print_tables(bench.results, [mount.name for mount in bench.mounts])
        print(f"every single result: {options.raw}; command: scripts/bench {shlex.join(sys.argv[1:])}", file=sys.stderr)
    finally:
        if bench:
            bench.stop()
        if disk:
            subprocess.run(["umount", "-l", disk])
        shutil.rmtree(scratch, ignore_errors=True)


main()
