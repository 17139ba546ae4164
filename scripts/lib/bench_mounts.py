"""The filesystems that scripts/bench compares. Each has a folder to work in and says what its daemon costs."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PEERS = Path(__file__).parent / "peers"


def run(*words, **more):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, **more)


def drop_caches(what):
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text(str(what))


def is_mounted(folder):
    return run("mountpoint", "-q", folder).returncode == 0


class Mount:
    """What all have in common. `why` says why it cannot be mounted."""

    writeback = False
    why = "it cannot be mounted"

    def __init__(self, home, name):
        self.name = name
        self.base = home / name
        self.base.mkdir()
        self.dir = self.base / "mnt"
        self.dir.mkdir()
        self.pid = None

    def start(self):
        return True

    def stop(self):
        if is_mounted(self.dir):
            run("umount", "-l", self.dir)

    def go_cold(self):
        """Nothing of any file is in memory."""
        drop_caches(3)

    def forget_names(self, _look_up):
        """The kernel asks for every name again."""
        drop_caches(2)

    def clear(self, group):
        shutil.rmtree(self.dir / group, ignore_errors=True)
        self.settle()

    def settle(self):
        """What a line left to be done is done, so that it does not disturb the next one."""
        os.sync()
        end = time.monotonic() + 5
        while self.pid and time.monotonic() < end:
            before = self.cpu()
            time.sleep(0.1)
            if self.cpu() - before <= 1 / TICK:
                return

    def cpu(self):
        """Seconds of processor time of the daemon."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def disk_bytes(self):
        """Bytes that the daemon has had written."""
        for row in Path(f"/proc/{self.pid}/io").read_text().splitlines():
            if row.startswith("write_bytes:"):
                return int(row.split()[1])
        return 0

    def costs(self):
        return {"cpu_s": self.cpu(), "disk_bytes": self.disk_bytes()} if self.pid else {}

    def memory(self):
        if not self.pid:
            return {}
        rows = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]
        kib = {row.split()[0].rstrip(":"): int(row.split()[1]) for row in rows}
        return {"resident_bytes": kib["Rss"] << 10, "anonymous_bytes": kib["Anonymous"] << 10}


class Ext4(Mount):
    def __init__(self, home):
        super().__init__(home, "ext4")

    def forget_names(self, look_up):
        # It needs no request to find a name again, so there is nothing to forget.
        look_up()


class Ceiling(Mount):
    def __init__(self, home, program, writeback=False):
        super().__init__(home, "ceiling-wb" if writeback else "ceiling")
        self.program, self.writeback, self.process = program, writeback, None

    def start(self):
        words = [self.program, self.dir, "threads=1", f"wb={int(self.writeback)}"]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        for _ in range(500):
            if is_mounted(self.dir):
                return True
            time.sleep(0.01)
        return False

    def stop(self):
        super().stop()
        if self.process:
            self.process.wait(timeout=60)


class Skylog(Mount):
    def __init__(self, home, program, writeback=False):
        super().__init__(home, "skylog-wb" if writeback else "skylog")
        self.program, self.writeback = program, writeback
        self.store = self.base / "store"

    def skylog(self, *words):
        done = run(self.program, *words)
        if done.returncode:
            self.why = done.stderr.strip()
        return done

    def mount(self):
        options = ["-o", "writeback"] if self.writeback else []
        if self.skylog("mount", *options, self.store, self.dir).returncode:
            return False
        self.pid = self.status()["pid"]
        return True

    def start(self):
        return self.skylog("mkfs", self.store).returncode == 0 and self.mount()

    def stop(self):
        if self.pid:
            run(self.program, "umount", "--now", self.dir, timeout=60)
        super().stop()

    def go_cold(self):
        if self.skylog("umount", self.dir).returncode or not self.mount():
            raise SystemExit(self.why)
        super().go_cold()

    def status(self):
        # Asked by the store's name: looking at the mount point would be a request.
        return json.loads(self.skylog("status", "--json", self.store).stdout)

    def costs(self):
        requests = self.status().get("requests", {})
        costs = {"requests": requests["total"], "bytes_written": requests["bytes_written"]} if requests else {}
        return super().costs() | costs


class Peer(Mount):
    """Another filesystem: two functions of scripts/lib/peers."""

    def call(self, action):
        backing = self.base / "backing"
        backing.mkdir(exist_ok=True)
        script = f'. "{PEERS}"; {action}_{self.name} "$1" "$2"'
        done = run("bash", "-euc", script, "peers", backing, self.dir)
        self.why = done.stderr.strip() or self.why
        return done.returncode == 0

    def __init__(self, home, name):
        super().__init__(home, name)

    def start(self):
        return self.call("mount") and is_mounted(self.dir)

    def stop(self):
        self.call("umount")
        super().stop()

    def go_cold(self):
        self.call("umount")
        if not self.start():
            raise SystemExit(f"{self.name} does not mount again: {self.why}")
        super().go_cold()


def installed_peers(asked):
    """Names of the peers asked for that are installed."""
    if not asked:
        return []
    found = run("bash", "-euc", f'. "{PEERS}"; installed_peers').stdout.split()
    wanted = found if asked == "all" else asked.split(",")
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SystemExit(f"skylog: no such peer is installed: {', '.join(missing)}; known and installed: {found}")
    return wanted
