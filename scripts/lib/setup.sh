# What the scripts need on a bare Debian machine. To be sourced. Installs only what is missing.

rust_at_least=1.85

say() { printf '\n== %s (at %d s)\n' "$*" $SECONDS; }
die() { printf 'skylog: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo > /dev/null; then sudo "$@"; else
        die "\`$*\` needs root; run it as root once, then this script again"
    fi
}

apt_updated=
apt_install() {
    command -v apt-get > /dev/null || die "please install: $* (this script knows only Debian's apt-get)"
    say "installing $*"
    if [ -z "$apt_updated" ]; then as_root apt-get update -qq; apt_updated=1; fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# need COMMAND PACKAGE: the package is installed if the command is not there.
need() { command -v "$1" > /dev/null || apt_install "$2"; }

# True if the first version is at least the second.
version_at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

cargo_works() {
    command -v cargo > /dev/null && version_at_least "$(cargo --version 2> /dev/null | cut -d' ' -f2)" "$rust_at_least"
}

# Rust: what is there, if new enough; else Debian's rustup with the stable toolchain (Debian 13 and later; the compiler of
# Debian 12 is too old); else rustup from its own site.
need_rust() {
    [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    cargo_works && return
    if command -v apt-get > /dev/null; then
        if [ -z "$apt_updated" ]; then as_root apt-get update -qq; apt_updated=1; fi
        if apt-cache show rustup > /dev/null 2>&1; then apt_install rustup ca-certificates; fi
    fi
    if ! command -v rustup > /dev/null; then
        command -v curl > /dev/null && [ -e /etc/ssl/certs/ca-certificates.crt ] || apt_install curl ca-certificates
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --no-modify-path
        . "$HOME/.cargo/env"
    fi
    rustup default stable
    cargo_works || die "Rust $rust_at_least or later is needed; \`rustup update stable\` brings it"
}

# need_rust_tool SUBCOMMAND COMPONENT PACKAGE: a part of Rust that the smallest installation lacks.
need_rust_tool() {
    cargo "$1" --version > /dev/null 2>&1 && return
    if command -v rustup > /dev/null; then rustup component add "$2"; else apt_install "$3"; fi
    cargo "$1" --version > /dev/null 2>&1 || die "\`cargo $1\` is needed; install $2 for this compiler, then run this script again"
}

# need_cargo_tool CRATE VERSION [ARGUMENT...]: a program that cargo builds, in exactly this version, kept in the project's `.tools`
# and on PATH for the rest of the script. Arguments go to `cargo install`, as `--git URL` with an empty VERSION.
need_cargo_tool() {
    local tools=$PWD/.tools crate=$1 version=$2
    case ":$PATH:" in *":$tools/bin:"*) ;; *) PATH=$tools/bin:$PATH ;; esac
    grep -qs "^\"$crate ${version:+$version }" "$tools/.crates.toml" && return
    say "building $crate $version"
    cargo install --quiet --locked --root "$tools" "$crate" ${version:+--version "$version"} "${@:3}"
}

# need_root WHY
need_root() { [ "$(id -u)" = 0 ] || die "$1 needs root; run it again as root"; }

need_build_tools() {
    need cc gcc
    [ -e /usr/include/stdio.h ] || apt_install libc6-dev
    need git git
    need_rust
}

# The kernel's side of FUSE. Root mounts by itself; everyone else through the fuse3 package.
need_fuse() {
    [ -e /dev/fuse ] || as_root modprobe fuse 2> /dev/null || true
    [ -e /dev/fuse ] || die "this machine has no /dev/fuse; skylog needs a kernel with FUSE (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
    if [ "$(id -u)" != 0 ]; then need fusermount3 fuse3; fi
}
