#!/usr/bin/env python3
"""Prints one line for every name below a folder: type, mode, owner, links, size, device, time, extended attributes with the
access control lists among them, and a hash of the contents.

Two trees are the same, byte for byte and attribute for attribute, when the outputs are.
"""

import errno
import hashlib
import os
import stat
import sys


def content(path, info):
    if stat.S_ISLNK(info.st_mode):
        return "-> " + os.fsencode(os.readlink(path)).hex()
    if not stat.S_ISREG(info.st_mode):
        return "-"
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def extended(path):
    """All extended attributes, one after the other; a filesystem without them has none."""
    try:
        names = sorted(os.listxattr(path, follow_symlinks=False))
        return ",".join(f"{name}={os.getxattr(path, name, follow_symlinks=False).hex()}" for name in names)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ""
        raise


def line(root, path):
    info = os.lstat(path)
    # A directory's size and the times of reading are the filesystem's own business.
    size = "-" if stat.S_ISDIR(info.st_mode) else info.st_size
    name = os.fsencode(os.path.relpath(path, root)).decode("latin-1").encode("unicode_escape").decode()
    attributes = f"{info.st_mode:o} {info.st_uid}:{info.st_gid} {info.st_nlink} {size} {info.st_rdev} {info.st_mtime_ns}"
    return f"{name} {attributes} [{extended(path)}] {content(path, info)}"


def walk(root):
    for folder, folders, files in os.walk(root):
        folders.sort()
        yield line(root, folder)
        for name in sorted(files):
            yield line(root, os.path.join(folder, name))
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                yield line(root, os.path.join(folder, name))


if __name__ == "__main__":
    for text in walk(sys.argv[1]):
        print(text)
