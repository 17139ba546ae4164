# Renames with flags, special files, links, names, times, sticky directories. Prints what happened; run in an empty directory,
# as root.
import ctypes, errno, os, socket, stat, sys

libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


def rename(old, new, flags):
    failed = libc.renameat2(-100, old.encode(), -100, new.encode(), flags)
    print("rename", old, new, flags, errno.errorcode[ctypes.get_errno()] if failed else "done")
    for folder, folders, files in os.walk("."):
        folders.sort()
        s = os.lstat(folder)
        print(" ", folder, oct(s.st_mode), s.st_nlink)
        for path in sorted(os.path.join(folder, name) for name in files):
            s = os.lstat(path)
            print(" ", path, oct(s.st_mode), s.st_nlink, s.st_rdev, s.st_uid)
            if stat.S_ISREG(s.st_mode):
                print("   ", open(path).read())


def attempt(call, *arguments, **named):
    try:
        result = call(*arguments, **named)
    except OSError as e:
        result = errno.errorcode[e.errno]
    print(getattr(call, "__name__", "call"), result, flush=True)


def write(path, text=""):
    with open(path, "w") as f:
        f.write(text)


for path in "a", "b", "a/x", "b/y", "b/y/z":
    os.mkdir(path)
for path in "a/f", "b/g", "top":
    write(path, path)
for old, new in [("a/f", "b/g"), ("a/x", "b/y"), ("a/f", "b/x"), ("a", "a/y"), ("a/y", "a"), ("a", "a/y/z"), ("a/y/z", "a"),
                 ("a", "b"), ("top", "none"), ("none", "top"), ("top", "top"), ("a", "top"), ("a", "top")]:
    rename(old, new, EXCHANGE)
for flags in EXCHANGE | NOREPLACE, EXCHANGE | WHITEOUT, 8:
    rename("top", "b", flags)
rename("top", "moved", WHITEOUT)
for path in "t2", "t4":
    write(path, path)
for old, new, flags in [("t2", "t3", WHITEOUT | NOREPLACE), ("t4", "t3", WHITEOUT | NOREPLACE), ("t4", "t3", WHITEOUT),
                        ("b", "bb", WHITEOUT)]:
    rename(old, new, flags)
for path in "e1", "e2", "c":
    os.mkdir(path)
write("c/f", "c/f"), write("h", "h")
rename("c/f", "h", WHITEOUT)
rename("e1", "e2", WHITEOUT)
os.link("h", "h2")
rename("h", "h2", WHITEOUT)
rename("h", "h2", EXCHANGE)
os.makedirs("p/q"), os.mkdir("r")
inside = os.open("p/q", os.O_RDONLY)
rename("p/q", "r", EXCHANGE)
print(os.path.samestat(os.stat("..", dir_fd=inside), os.stat(".")))

os.mkfifo("fifo", 0o600)
for name, kind, number in [("chr", stat.S_IFCHR, (1, 3)), ("blk", stat.S_IFBLK, (4095, 1048575)), ("sock", stat.S_IFSOCK, (0, 0))]:
    os.mknod(name, 0o600 | kind, os.makedev(*number))
for name in "fifo", "chr", "blk", "sock":
    s = os.lstat(name)
    print(name, oct(s.st_mode), s.st_rdev, s.st_size, s.st_blocks)
    attempt(os.truncate, name, 0)
listener, caller = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
listener.bind("unix"), listener.listen(1), caller.connect("unix")
print(oct(os.lstat("unix").st_mode))

for length in 0, 1, 255, 4094, 4095, 4096:
    attempt(os.symlink, "x" * length, "link%d" % length)
    if os.path.lexists("link%d" % length):
        print(len(os.readlink("link%d" % length)), os.lstat("link%d" % length).st_size, oct(os.lstat("link%d" % length).st_mode))

for byte in set(range(1, 256)) - {ord("/")}:
    name = bytes([byte]) * 255
    if byte != ord("."):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
        assert name in os.listdir(b".")
        os.unlink(name)
attempt(os.mkdir, "n" * 256)

write("times")
for ns in 0, 1, -1, -1500000000, -2 ** 31 * 10 ** 9, 2 ** 31 * 10 ** 9 + 7, 2 ** 32 * 10 ** 9 + 1, 4 * 10 ** 18:
    os.utime("times", ns=(ns, ns + 1))
    s = os.stat("times")
    print(ns, s.st_atime_ns - ns, s.st_mtime_ns - ns if ns > -2 ** 31 * 10 ** 9 else "")
os.symlink("times", "timeslink")
os.utime("timeslink", ns=(-3, -4), follow_symlinks=False)
print(os.lstat("timeslink").st_atime_ns, os.lstat("timeslink").st_mtime_ns)

os.mkdir("counted")
for i in range(5):
    os.mkdir("counted/%d" % i)
os.rmdir("counted/0"), os.rename("counted/1", "elsewhere")
print(os.stat("counted").st_nlink)
attempt(os.link, "counted", "again")


def as_user(uid, call, *arguments):
    child = os.fork()
    if not child:
        os.setgroups([]), os.setgid(uid), os.setuid(uid)
        attempt(call, *arguments)
        os._exit(0)
    os.waitpid(child, 0)


os.mkdir("sticky"), os.chmod("sticky", 0o1777)
write("sticky/f"), os.chmod("sticky/f", 0o666)
sys.stdout.flush()
as_user(65534, os.unlink, "sticky/f")
as_user(65534, os.rename, "sticky/f", "sticky/g")
as_user(65534, write, "sticky/mine")
as_user(1001, os.unlink, "sticky/mine")
as_user(1001, os.chmod, "sticky/mine", 0)
as_user(65534, os.rename, "sticky/mine", "sticky/f")
as_user(65534, os.unlink, "sticky/mine")
