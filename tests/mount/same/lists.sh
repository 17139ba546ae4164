# Access control lists and extended attributes. Prints what happened; run in an empty directory, as root.
set +e
try() { echo "--- $*"; "$@" 2>&1; echo "exit $?"; }
show() { stat -c '%a %F' "$@"; }
alone() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
umask 022

echo hi > f
chown 1001:1001 f
chmod 664 f
try setfacl -m u:65534:rw f; getfacl -cn f; show f; ls -l f | cut -c1-11
try setfacl -m m::r f; show f
chmod 670 f; getfacl -cn f
try setfacl -b f; show f; ls -l f | cut -c1-11
try setfacl -m u::rwx,g::r,o::- f; show f; getfattr -m- f

mkdir d
try setfacl -d -m u:65534:rwx,g::rx,o::- d; getfacl -cn d; show d
(umask 077; touch d/f; mkdir d/s; mkfifo d/p; mknod d/c c 1 3; ln -s x d/l)
for i in f s p c; do show d/$i; getfacl -cn d/$i; done
getfattr -m- -h d/l

three=0x0200000001000700ffffffff04000500ffffffff20000500ffffffff
try setfacl -d -m u:1:r f
try setfattr -n system.posix_acl_access -v 0s f
try setfattr -n system.posix_acl_default -v 0x02000000 f
try setfattr -n system.posix_acl_default -v $three f
try setfattr -h -n system.posix_acl_access -v $three d/l
try setfattr -n system.posix_acl_access -v ${three%20000500ffffffff} f
try setfattr -x system.posix_acl_access f
try setfattr -x system.posix_acl_default f
try setfattr -x system.posix_acl_default d; show d; getfattr -m- d

echo "set-group-id and who sets a list"
for who in "--regid 65534 --clear-groups" "--regid 65534 --groups 1001" "--regid 1001 --clear-groups"; do
    touch g; chown 65534:1001 g; chmod 2755 g
    try setpriv --reuid 65534 $who setfacl -m u:1:r g; show g; rm g
done
touch g; chown 65534:1001 g; chmod 2755 g; try setfacl -m u:1:r g; show g

echo "what a list allows"
echo x > h; chmod 600 h
setfacl -m u:65534:r h; try alone cat h
setfacl -x u:65534 h; try alone cat h; show h
setfacl -m u:65534:r h; chmod 600 h; try alone cat h; getfacl -cn h

echo "namespaces"
for name in user. bogus.a system.x; do try setfattr -n $name -v 1 h; try getfattr -n $name h; done
try setfattr -x bogus.a h; try setfattr -x user.none h
for name in user.a trusted.t security.s; do try setfattr -n $name -v 2 h; done
getfattr -d -m- h; chmod 644 h; alone getfattr -m- h
for node in d/p d/l; do for name in user.x trusted.x; do try setfattr -h -n $name -v 1 $node; done; getfattr -h -m- $node; done

python3 - <<'P'
import os

def attempt(call, *arguments):
    try:
        result = call(*arguments)
    except OSError as e:
        result = e.errno
    print(call.__name__, result if not isinstance(result, list) else sorted(result))

open("v", "w")
for name, value, flags in [("c", 1, os.XATTR_CREATE), ("c", 1, os.XATTR_CREATE), ("r", 1, os.XATTR_REPLACE),
                           ("c", 0, os.XATTR_REPLACE), ("n" * 250, 1, 0), ("n" * 251, 1, 0), ("big", 65537, 0)]:
    attempt(os.setxattr, "v", "user." + name, b"x" * value, flags)
attempt(os.getxattr, "v", "user.c")
attempt(os.listxattr, "v")
for call, arguments in [(os.setxattr, ("user.z", b"1")), (os.setxattr, ("user.z", b"1")), (os.removexattr, ("user.z",))]:
    os.utime("v", (5, 5))
    before = os.stat("v")
    call("v", *arguments)
    after = os.stat("v")
    print(call.__name__, after.st_ctime_ns > before.st_ctime_ns, after.st_mtime)
P
