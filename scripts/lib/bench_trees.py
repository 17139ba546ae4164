"""What the lines with ordinary programs work on: a tree of text files as an archive and as a git repository, and SQL."""

import os
import random
import subprocess

WORDS = "batch chunk journal segment overlay layer tree window seal ship publish reclaim evict sync extent".split()
FOLDERS = 420
FILES = 7760


class Sources:
    def __init__(self, home, files):
        self.archive = home / "tree.tar"
        self.repository = home / "repository"
        self.sql = home / "sql"
        self.entries = files + files * FOLDERS // FILES

    def script(self, line):
        """The shell script of a line, and how many operations it stands for."""
        sql = f'sqlite3 {line}.db < "{self.sql}/{line}"'
        scripts = {
            "untar": (f'mkdir tree; tar -xf "{self.archive}" -C tree', self.entries),
            "grep-cold": ("grep -r 'no such phrase anywhere' tree || true", self.entries),
            "cp": ("cp -r tree copy", self.entries),
            "rm": ("rm -rf copy", self.entries),
            "git-clone": (f'git clone -q --no-hardlinks "{self.repository}" clone', self.entries),
            "sqlite-rollback": (sql, 500),
            "sqlite-wal": (sql, 500),
            "sqlite-rows": (sql, 300_000),
        }
        return scripts[line]

    def leftovers(self, line):
        """What an earlier round may have left where the line writes."""
        return {"untar": ["tree"], "cp": ["copy"], "git-clone": ["clone"]}.get(line, [])


def make_sources(home, small):
    sources = Sources(home, FILES // 10 if small else FILES)
    make_tree(home / "tree", FILES // 10 if small else FILES)
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["tar", "-cf", sources.archive, "-C", home / "tree", "."], check=True)
    os.rename(home / "tree", sources.repository)
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run(git + words, cwd=sources.repository, check=True)
    sources.sql.mkdir()
    for line, text in statements().items():
        (sources.sql / line).write_text(text)
    return sources


def make_tree(root, files):
    dice = random.Random(56)
    folders = [root / f"part {n % 20}" / f"folder {n}" for n in range(max(1, files * FOLDERS // FILES))]
    for folder in folders:
        folder.mkdir(parents=True)
    for n in range(files):
        # Most files are small and a few are large, together 56 MB.
        size = min(int(dice.lognormvariate(8.1, 1.25)) + 1, 400_000)
        text = " ".join(dice.choices(WORDS, k=64)) + "\n"
        body = f"file {n}\n" + text * (size // len(text) + 1)
        (folders[n % len(folders)] / f"file-{n}.txt").write_text(body[:size])


def statements():
    rows = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 300000)"
    one_by_one = "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);\n" + "".join(
        f"INSERT INTO t VALUES({n}, hex(randomblob(100)));\n" for n in range(500))
    drop = "DROP TABLE IF EXISTS t;\n"
    return {
        "sqlite-rollback": "PRAGMA journal_mode=delete; PRAGMA synchronous=full;\n" + drop + one_by_one,
        "sqlite-wal": "PRAGMA journal_mode=wal; PRAGMA synchronous=full;\n" + drop + one_by_one,
        "sqlite-rows": drop + "BEGIN; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c INTEGER);\n"
        f"INSERT INTO t {rows} SELECT n, hex(randomblob(20)), random() FROM c;\nCREATE INDEX i ON t(c); COMMIT;\n",
    }
