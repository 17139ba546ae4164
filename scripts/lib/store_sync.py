#!/usr/bin/env python3
"""The measurements of scripts/store-sync, which starts the server, builds the programs and clears up."""

import argparse
import json
import subprocess
import sys

from s3 import Counted, Proxy, Volume


def status(volume):
    return json.loads(volume.run("status", "--json", volume.dir))


def measure(volume, load, threads, seconds):
    """The rate, and what it cost."""
    before = status(volume)["counters"]
    with Counted(volume.proxy) as requests:
        done = subprocess.run([load, volume.dir, str(threads), str(seconds)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"an fsync failed: {done.stdout}{done.stderr}")
    words = done.stdout.split()
    figures = {name: float(value) for name, value in zip(words[::2], words[1::2])}
    after = status(volume)
    grown = {name: n - before[name] for name, n in after["counters"].items() if isinstance(n, int)}
    print(done.stdout.strip())
    per_second = {method: round(requests.of(method) / requests.seconds, 2) for method in ("PUT", "GET", "DELETE")}
    print(f"  requests a second: {per_second}")
    print(f"  requests: {dict(sorted(requests.requests.items()))}")
    print(f"  log increments: {grown['log_increments']}, their bytes: {grown['log_bytes']}, windows shipped: "
          f"{grown['windows_shipped']}, checkpoints: {grown['checkpoints']}, last round trip: {after['log_round_trip_us'] / 1000} ms")
    if grown["log_increments"]:
        print(f"  fsyncs for each log increment: {figures['fsyncs'] / grown['log_increments']:.1f}")
    return figures["rate"]


def main():
    parser = argparse.ArgumentParser()
    for name in ("skylog", "proxy", "load", "upstream", "scratch"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--latency", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("threads", type=int, nargs="+")
    given = parser.parse_args()
    proxy = Proxy(given.proxy, given.upstream)
    volume = Volume(given.skylog, proxy, given.scratch, "store-sync")
    volume.mount("--durability", "store")
    # A generation has a base before anything is measured.
    measure(volume, given.load, 1, 1)
    proxy.latency(given.latency)
    print(f"-- {given.latency} ms to the store")
    rates = [measure(volume, given.load, threads, given.seconds) for threads in given.threads]
    for threads, rate in zip(given.threads[1:], rates[1:]):
        print(f"{threads} threads have {rate / rates[0]:.1f} times the rate of {given.threads[0]}")
    proxy.latency(0)
    volume.umount()


main()
