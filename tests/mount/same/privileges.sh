# Set-id bits and capabilities, and what takes them away. Prints what happened; run in an empty directory, as root.
set +e
nobody="setpriv --reuid 65534 --regid 65534 --clear-groups"
member="setpriv --reuid 65534 --regid 65534 --groups 1001"
show() { stat -c '%a %u:%g' "$@"; }
fresh() { rm -f x; cp /usr/bin/id x; chown 1001:1001 x; chmod "$1" x; show x > before; }

for mode in 4777 2777 6777 2767 6767; do
    for who in root nobody member; do
        case $who in root) as=;; nobody) as=$nobody;; member) as=$member;; esac
        fresh $mode; $as sh -c 'printf x | dd of=x conv=notrunc bs=1 2> /dev/null'; echo "$mode $who write $(show x)"
        fresh $mode; $as sh -c 'echo >> x'; echo "$mode $who append $(show x)"
        fresh $mode; $as sh -c ': > x'; echo "$mode $who empty $(show x)"
        fresh $mode; $as truncate -s 10 x; echo "$mode $who truncate $(show x)"
        fresh $mode; $as fallocate -l 100000 x; echo "$mode $who fallocate $(show x)"
        fresh $mode; $as fallocate -p -l 4096 x; echo "$mode $who punch $(show x)"
        fresh $mode; $as python3 -c '
import os
f = os.open("x", os.O_RDWR)
os.fstat(f)
for i in range(2):
    os.pwrite(f, b"x", 0)
    print(oct(os.fstat(f).st_mode))'
        fresh $mode; $as python3 -c '
import os
f, g = os.open("/usr/bin/id", os.O_RDONLY), os.open("before", os.O_RDONLY)
f = os.open("x", os.O_RDWR)
os.copy_file_range(f, f, 1, 0, 8192)'; echo "$mode $who copy $(show x)"
    done
done

echo "whom a program runs as right after it was written to, and without"
fresh 6777
$nobody python3 -c '
import os
f = os.open("x", os.O_RDWR)
os.pwrite(f, os.pread(f, 1, 0), 0)
os.close(f)
os.execv("./x", ["x", "-u"])'
fresh 6777
$nobody ./x -u

echo "a store through a mapping"
fresh 6777
$nobody python3 -c '
import os, mmap
f = os.open("x", os.O_RDWR)
m = mmap.mmap(f, 0)
m[0] = 0x7f
m.flush()'
show x

echo "chown and chgrp"
for mode in 6777 6767 4755 2745; do
    fresh $mode; chown 5 x; show x
    fresh $mode; chgrp 5 x; show x
    fresh $mode; python3 -c 'import os; os.chown("x", -1, -1)'; show x
done
mkdir dir; chmod 6777 dir; chown 5:5 dir; show dir
own() { fresh 600; chown "$1" x; chmod "$2" x; shift 2; "$@" x; show x; }
own 65534:65534 6755 $member chgrp 1001
own 65534:65534 6745 $member chgrp 1001
own 65534:1001 2745 $nobody chgrp 65534
own 65534:1001 755 $nobody chmod 2755
own 65534:1001 755 $member chmod 2755

echo "set-group-id directories"
mkdir sg; chown 0:1001 sg; chmod 2777 sg
umask 0
$nobody sh -c 'cd sg; touch a; mkdir b; mkfifo p; ln -s x l; chmod 2755 a'
for who in nobody member; do
    [ $who = nobody ] && as=$nobody || as=$member
    $as python3 -c '
import os, sys
os.umask(0)
for mode in 0o2775, 0o2745:
    os.close(os.open("sg/%s-%o" % (sys.argv[1], mode), os.O_CREAT | os.O_WRONLY, mode))' $who
done
for i in sg/*; do echo "$i $(show $i)"; done

echo "capabilities of a program"
for who in root nobody; do
    [ $who = root ] && as= || as=$nobody
    able() { fresh 777; setcap cap_net_raw+ep x; }
    able; $as sh -c 'printf x | dd of=x conv=notrunc bs=1 2> /dev/null'; echo "$who write [$(getcap x)]"
    able; $as truncate -s 10 x; echo "$who truncate [$(getcap x)]"
    able; $as fallocate -p -l 4096 x; echo "$who punch [$(getcap x)]"
done
able; chown 5 x; echo "chown [$(getcap x)]"
able; chown 1001:1001 x; echo "the same owner [$(getcap x)]"
able; chmod 755 x; echo "chmod [$(getcap x)]"
