# Where scripts/install puts things, and scripts/uninstall finds them. To be sourced. Reads --prefix DIR and DESTDIR; sets $prefix
# (no slash at its end), $root (DESTDIR before it) and $manifest.

prefix=/usr/local
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) prefix=${2:?--prefix needs a directory}; shift 2 ;;
        --prefix=*) prefix=${1#--prefix=}; shift ;;
        *) die "unknown argument $1; use: $(basename "$0") [--prefix DIR]" ;;
    esac
done
case $prefix in
    /*) ;;
    *) prefix=$called_from/$prefix ;;
esac
prefix=${prefix%/}
case $prefix in *[[:space:]]*) die "--prefix must not hold blanks" ;; esac
root=${DESTDIR:-}
root=${root%/}
# Programs and documents of a system whose prefix is / lie in /usr.
share=${prefix:-/usr}/share
manifest=$root${prefix:-/usr}/lib/skylog/manifest
