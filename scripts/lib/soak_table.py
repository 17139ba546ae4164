"""Adds up the lines of counts of a soak, prints them as a table, and says whether it was one."""

import argparse
import os
import sys
import time

COLUMNS = ["histories", "states", "distinct", "failures", "kills", "faults"]
HEADINGS = ["histories", "states tried", "distinct states", "failures", "kills", "faults injected"]
# What each part has to have counted, by the names under which `scripts/soak` runs its commands: a zero of it proves nothing.
CRASHED = {"histories", "states", "distinct", "kills"}
KILLED = {"histories", "states", "kills"}
NEEDS = {
    "operations": {"operations": CRASHED},
    "pairs": {"pairs": CRASHED},
    "triples": {"triples": CRASHED},
    "histories": {"histories": CRASHED | {"faults"}},
    "writers": {"writers": KILLED | {"faults"}},
    "fence": {"fence": {"histories", "states"}},
    "calls": {"calls-failing": KILLED | {"faults"}, "calls-paths": {"histories", "faults"}, "calls-scenes": KILLED},
    "damage": {"damage": {"histories", "faults"}},
    "ext4": {"ext4": {"histories", "kills"}},
    "cuts": {"cuts": KILLED},
    "kills": {"kills": KILLED},
    "store-kills": {"store-kills": KILLED, "lost-machines": KILLED, "lost-windows": KILLED},
    "races": {"races": {"histories", "states"}},
    "faults": {"faults": {"histories", "faults"}},
    "followers": {"followers": KILLED},
}
BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"


def read(path):
    """The counts of each line: who ran, what it is called in the table, and its numbers."""
    found = []
    with open(path) as lines:
        for line in lines:
            name, line = line.split(" part=", 1)
            label, rest = line.split(" histories=", 1)
            counts = dict(pair.split("=") for pair in f"histories={rest}".split())
            found.append((name, label, {column: int(counts[column]) for column in COLUMNS}))
    return found


def added_up(found, failed):
    """The sums of each row of the table, in the order in which they came. A run that failed and counted no failure is one."""
    parts = {}
    for _, label, counts in found:
        sums = parts.setdefault(label, dict.fromkeys(COLUMNS, 0))
        for column in COLUMNS:
            sums[column] += counts[column]
    for name in failed:
        mine = [(label, counts) for who, label, counts in found if who == name]
        if not any(counts["failures"] for _, counts in mine):
            label = mine[-1][0] if mine else name
            parts.setdefault(label, dict.fromkeys(COLUMNS, 0))["failures"] += 1
    return parts


def proved_nothing(found, chosen):
    """What chosen parts did not count although they must have."""
    for part in chosen:
        for name, needed in NEEDS[part].items():
            mine = [counts for who, _, counts in found if who == name]
            if not mine:
                yield f"{name} has not said what it did"
                continue
            zero = [column for column in COLUMNS if column in needed and not sum(counts[column] for counts in mine)]
            if zero:
                yield f"{name} counted no {', no '.join(zero)}: it proved nothing"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int)
    parser.add_argument("--seed")
    parser.add_argument("--failed")
    parser.add_argument("--chosen", help="parts with their weights, as scripts/soak has them")
    parser.add_argument("--partial", action="store_true")
    parser.add_argument("--write")
    parser.add_argument("lines")
    options = parser.parse_args()
    found = read(options.lines)
    with open(options.failed) as lines:
        failed = sorted(set(lines.read().split()))
    parts = added_up(found, failed)
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
    problems += proved_nothing(found, [part.split(":")[0] for part in options.chosen.split()])
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
