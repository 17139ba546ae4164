#!/usr/bin/env python3
"""The measurements of scripts/s3, which starts the server, builds the programs and clears up."""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time

MIB = 1 << 20
MEMORY_MAX = 512 * MIB


class Proxy:
    """The fault proxy as a program: a command a line, an answer a line. It ends with its standard input."""

    def __init__(self, program, upstream):
        self.process = subprocess.Popen([program, "--upstream", upstream], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()

    def command(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def latency(self, ms):
        assert self.command(f"set latency-ms={ms}") == "ok"

    def counts(self):
        return json.loads(self.command("counts"))


class Counted:
    """The requests made in a `with` block."""

    def __init__(self, proxy):
        self.proxy = proxy

    def __enter__(self):
        self.before, self.begin = self.proxy.counts(), time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self.begin
        after = self.proxy.counts()
        old = self.before["requests"]
        self.requests = {k: n - old.get(k, 0) for k, n in after["requests"].items() if n > old.get(k, 0)}

    def of(self, *methods):
        return sum(n for key, n in self.requests.items() if key.split()[0] in methods)


class Volume:
    """One filesystem on S3, mounted in a folder of the scratch folder."""

    def __init__(self, skylog, proxy, scratch, name):
        self.skylog, self.proxy = skylog, proxy
        self.dir = os.path.join(scratch, "mnt")
        self.state, self.cache = os.path.join(scratch, f"{name}.state"), os.path.join(scratch, f"{name}.cache")
        self.url = f"s3://skylog/{name}"
        self.environment = dict(os.environ, AWS_ENDPOINT_URL=f"http://{proxy.address}")
        self.run("mkfs", self.url)

    def run(self, *words):
        done = subprocess.run([self.skylog, *words], capture_output=True, text=True, env=self.environment)
        if done.returncode != 0:
            sys.exit(f"`skylog {' '.join(words)}` ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def mount(self, *options):
        self.run("mount", "--state", self.state, "--cache-dir", self.cache, *options, self.url, self.dir)
        self.pid = json.loads(self.run("status", "--json", self.dir))["pid"]

    def umount(self):
        self.run("umount", self.dir)

    def wipe(self):
        """What is local is gone; what is left is what the store has."""
        for folder in (self.state, self.cache):
            shutil.rmtree(folder, ignore_errors=True)

    def check(self):
        self.run("check", "--data", "--state", self.state, self.url)


class Watch(threading.Thread):
    """Looks every 100 ms at the blocks of the cache folder and at the daemon's anonymous memory, and keeps the most."""

    def __init__(self, volume):
        super().__init__(daemon=True)
        self.volume, self.over = volume, threading.Event()
        self.cache_max = self.memory_max = self.looks = 0

    def run(self):
        while not self.over.wait(0.1):
            self.cache_max = max(self.cache_max, used(self.volume.cache))
            self.memory_max = max(self.memory_max, anonymous(self.volume.pid))
            self.looks += 1

    def end(self):
        self.over.set()
        self.join()


def used(folder):
    """Bytes of the blocks that the files of a folder have on disk."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    total += used(entry.path) if entry.is_dir(follow_symlinks=False) else entry.stat(follow_symlinks=False).st_blocks * 512
                except FileNotFoundError:
                    pass
    except FileNotFoundError:
        pass
    return total


def anonymous(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass
    return 0


def digest(data):
    return hashlib.blake2b(data, digest_size=16).digest()


class Table:
    """Figures with their bounds."""

    def __init__(self):
        self.broken = []

    def row(self, name, value, unit, bound=None, timed=False):
        verdict = ""
        if bound is not None:
            kept = value <= bound
            verdict = f"ok (<= {bound:g})" if kept else f"MISSED (<= {bound:g})"
            if not kept and not timed:
                self.broken.append(name)
        print(f"{name:<58} {value:>10.2f} {unit:<8} {verdict}", flush=True)


def real_files():
    """Real files of this machine, without end: the sources that the build downloaded, again and again."""
    source = os.path.join(os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo")), "registry/src")
    found = sorted(os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names)
    found = [path for path in found if os.path.isfile(path) and not os.path.islink(path)]
    if not found:
        sys.exit(f"no files below {source}; build the project first")
    copy = 0
    while True:
        for path in found:
            yield os.path.join(str(copy), os.path.relpath(path, source)), path
        copy += 1


def verify(root, sums, order, what):
    """Reads files and compares their checksums."""
    for name in order:
        with open(os.path.join(root, name), "rb") as file:
            if digest(file.read()) != sums[name]:
                sys.exit(f"skylog: WRONG BYTES in {name}, {what}")


def measure_volume(given, proxy, table):
    volume = Volume(given.skylog, proxy, given.scratch, "volume")
    limit = given.volume * MIB // 8
    cache = f"--cache-size={limit // MIB}MiB"
    volume.mount(cache, "--journal-size", "512MiB")
    watch = Watch(volume)
    watch.start()
    sums, total = {}, 0
    for name, path in real_files():
        if total >= given.volume * MIB:
            break
        with open(path, "rb") as file:
            data = file.read()
        target = os.path.join(volume.dir, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(data)
        sums[name], total = digest(data), total + len(data)
    names = list(sums)
    print(f"{len(names)} real files, {total / MIB:.0f} MiB", flush=True)
    volume.umount()
    volume.wipe()
    volume.mount(cache)
    begin = time.monotonic()
    verify(volume.dir, sums, names, "read in order from the store alone")
    table.row("reading all of it back in order", total / MIB / (time.monotonic() - begin), "MiB/s")
    some = random.Random(1).sample(names, len(names) // 10)
    verify(volume.dir, sums, some, "read in any order")
    watch.end()
    volume.umount()
    volume.check()
    volume.wipe()
    if watch.looks < 20 or watch.cache_max == 0:
        sys.exit("the cache was never seen with anything in it; the run proves nothing")
    table.row(f"most in the cache folder, in {watch.looks} looks", watch.cache_max / MIB, "MiB", limit / MIB)
    table.row("most anonymous memory of the daemon", watch.memory_max / MIB, "MiB", MEMORY_MAX / MIB)


def small_tree(count, total):
    """Names, in order, and sizes: many small files, and few of 4 MiB, a hundred a folder."""
    rng = random.Random(2)
    large = max(1, count // 3000)
    mean = max(1, (total - large * 4 * MIB) // count)
    for n in range(count):
        size = 4 * MIB if n % (count // large) == 7 else int(mean * rng.choice((0.05, 0.3, 0.5, 1, 1.2, 2.95)))
        yield f"folder {n // 100:04}/file {n:06}", size


def write_small(volume, given):
    sums, sizes, rng = {}, {}, random.Random(3)
    for name, size in small_tree(given.files, given.files * 400 * MIB // 30000):
        data = rng.randbytes(size)
        target = os.path.join(volume.dir, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(data)
        sums[name], sizes[name] = digest(data), size
    return sums, sizes


def read_block(path, at):
    """4 KiB, past the kernel's cache and its read-ahead."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        return len(os.pread(fd, 4096, at))
    finally:
        os.close(fd)


def cold_reads(volume, proxy, table, sizes):
    """The first read of 4 KiB after a mount from the store alone, and one more beside it: the worst of several."""
    first, second, kinds = [], [], []
    rng = random.Random(4)
    large = [name for name, size in sizes.items() if size == 4 * MIB]
    for _ in range(5):
        volume.wipe()
        volume.mount()
        path = os.path.join(volume.dir, rng.choice(large))
        for counts, block in ((first, rng.randrange(0, 256)), (second, rng.randrange(768, 1024))):
            with Counted(proxy) as counted:
                read_block(path, block * 4096)
            counts.append(counted.of("GET"))
            kinds.append(counted.requests)
        volume.umount()
    print("cold reads of 4 KiB, GETs:", first, "then beside:", second, kinds, flush=True)
    table.row("GETs of the first cold read of 4 KiB, at most", max(first), "", 5)
    table.row("GETs of one beside it, at most", max(second), "", 1)


def measure_small(given, proxy, table):
    volume = Volume(given.skylog, proxy, given.scratch, "small")
    volume.mount()
    with Counted(proxy) as written:
        sums, sizes = write_small(volume, given)
        volume.umount()
    total = sum(sizes.values()) / MIB
    print(f"{len(sizes)} files, {total:.0f} MiB; requests: {written.requests}", flush=True)
    table.row("PUT and POST for each 2 MiB written", written.of("PUT", "POST") / (total / 2), "", 1)
    volume.wipe()
    proxy.latency(50)
    with Counted(proxy) as mounted:
        volume.mount()
    print(f"mount: {mounted.requests}", flush=True)
    table.row("mount on an empty machine, 50 ms to the store", mounted.seconds, "s")
    with Counted(proxy) as listed:
        names = subprocess.run(["ls", volume.dir], capture_output=True, text=True, check=True).stdout.split("\n")
    table.row("ls of the root", listed.seconds, "s", 1, timed=True)
    if len(names) != len({name.split("/")[0] for name in sizes}) + 1:
        sys.exit(f"skylog: ls shows {len(names)} names")
    with Counted(proxy) as read:
        verify(volume.dir, sums, sums, "read in order from the store alone")
    print(f"reading: {read.requests}", flush=True)
    table.row("reading all of it back in order", total / read.seconds, "MiB/s")
    table.row("GET for each MiB read in order", read.of("GET") / total, "", 1)
    volume.umount()
    cold_reads(volume, proxy, table, sizes)
    proxy.latency(0)
    volume.check()
    volume.wipe()


def main():
    arguments = argparse.ArgumentParser()
    for name in ("--skylog", "--proxy", "--upstream", "--scratch"):
        arguments.add_argument(name, required=True)
    for name in ("--volume", "--files"):
        arguments.add_argument(name, type=int, required=True)
    arguments.add_argument("what", nargs="+", choices=("volume", "small"))
    given = arguments.parse_args()
    proxy, table = Proxy(given.proxy, given.upstream), Table()
    for what in given.what:
        {"volume": measure_volume, "small": measure_small}[what](given, proxy, table)
    if table.broken:
        sys.exit("skylog: over a bound: " + "; ".join(table.broken))


if __name__ == "__main__":
    main()
