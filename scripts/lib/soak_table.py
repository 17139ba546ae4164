"""Adds up the lines of counts of a soak, prints them as a table, and says whether it was one."""

import argparse
import os
import sys
import time

COLUMNS = ["histories", "states", "distinct", "failures", "kills", "faults"]
HEADINGS = ["histories", "states tried", "distinct states", "failures", "kills", "faults injected"]
BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"


def read(path):
    """The sums of each part, in the order in which they came."""
    parts = {}
    with open(path) as lines:
        for line in lines:
            part, rest = line.removeprefix("soak: part=").split(" histories=", 1)
            counts = dict(pair.split("=") for pair in f"histories={rest}".split())
            sums = parts.setdefault(part, dict.fromkeys(COLUMNS, 0))
            for column in COLUMNS:
                sums[column] += int(counts[column])
    return parts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int)
    parser.add_argument("--seed")
    parser.add_argument("--failed")
    parser.add_argument("--partial", action="store_true")
    parser.add_argument("--write")
    parser.add_argument("lines")
    options = parser.parse_args()
    parts = read(options.lines)
    with open(options.failed) as lines:
        failed = sorted(set(lines.read().split()))
    total = {column: sum(part[column] for part in parts.values()) for column in COLUMNS}
    rows = [[name] + [f"{part[column]:,}" for column in COLUMNS] for name, part in [*parts.items(), ("all", total)]]
    table = [["part", *HEADINGS], *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    cells = lambda row: [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
    lines = ["| " + " | ".join(cells(row)) + " |" for row in table]
    lines.insert(1, "|" + "|".join([":" + "-" * (widths[0] + 1)] + ["-" * (width + 1) + ":" for width in widths[1:]]) + "|")
    print("\n".join(lines))
    problems = [f"{name} failed" for name in failed]
    if total["failures"]:
        problems.append(f"{total['failures']} failures")
    if not options.partial:
        problems += [f"no {what}: the run proved nothing" for what in ("states", "distinct", "kills", "faults") if not total[what]]
    if options.write and not options.partial:
        with open(options.write) as file:
            text = file.read()
        before, rest = text.split(BEGIN)
        _, after = rest.split(END)
        day = time.strftime("%Y-%m-%d", time.gmtime())
        said = f"`scripts/soak --minutes {options.minutes} --seed {options.seed}` on {os.cpu_count()} cores, {day}:"
        outcome = "No failure." if not problems else "Failed: " + "; ".join(problems) + "."
        with open(options.write, "w") as file:
            file.write("\n".join([before + BEGIN, said, "", *lines, "", outcome, END + after]))
    for problem in problems:
        print(f"skylog: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


main()
