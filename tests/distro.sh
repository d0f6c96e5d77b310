#!/usr/bin/env bash
# Opt-in: deploy/quickstart.sh and deploy/test.sh as on a freshly installed machine, in minimal debootstrap chroots.
# As root, with network for packages and crates.
#
#   tests/distro.sh [--quickstart] [bookworm] [trixie]      (both, and both scripts, if nothing is said)
#
# Debian 13 (trixie, DPDK 24.11) is built with its own cargo, which is the `rust-version` of Cargo.toml; the cargo of
# Debian 12 (bookworm, DPDK 22.11) is too old, so this machine's toolchain is lent to it. Each chroot has namespaces of
# its own for mounts and processes: when this script ends, however it ends, nothing is mounted or runs any more.
set -euo pipefail
cd "$(dirname "$0")/.."

if ((EUID != 0)); then
    echo "tests/distro.sh makes chroots: run it as root" >&2
    exit 1
fi

scripts=(deploy/quickstart.sh deploy/test.sh)
suites=()
for argument; do
    case $argument in
    --quickstart) scripts=(deploy/quickstart.sh) ;;
    bookworm | trixie) suites+=("$argument") ;;
    *) sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
    esac
done
((${#suites[@]})) || suites=(bookworm trixie)
for tool in debootstrap unshare git; do
    command -v "$tool" >/dev/null || { echo "missing: $tool (apt-get install debootstrap util-linux git)" >&2 && exit 1; }
done

WORK=$(mktemp -d "${TMPDIR:-/tmp}/haechi-distro.XXXXXX")
# All mounts are in the child's namespace and gone with it, so this removes files of ours alone.
trap 'rm -rf --one-file-system "$WORK"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Runs inside new mount and process namespaces, before the chroot.
enter() {
    local root=$1 toolchain=$2
    # `ip netns exec` wants / to be a mount point of its own.
    mount --bind "$root" "$root"
    mount --make-rprivate "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mkdir -p "$root/run/lock"
    local path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    if [[ -n $toolchain ]]; then
        mkdir -p "$root/opt/rust"
        mount --bind -o ro "$toolchain" "$root/opt/rust"
        path=/opt/rust/bin:$path
    fi
    shift 2
    local script
    for script; do
        echo "+++ $script"
        chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM=dumb PATH="$path" \
            bash -c 'cd /haechi && exec "$0"' "$script"
    done
}

failed=()
for suite in "${suites[@]}"; do
    root=$WORK/$suite
    echo "=== $suite"
    debootstrap --variant=minbase "$suite" "$root" >"$WORK/$suite.log" || { tail "$WORK/$suite.log" && exit 1; }
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    # Behind a proxy that has certificates of its own, the chroot needs them as well (ca-certificates takes them in).
    if [[ -d /usr/local/share/ca-certificates ]]; then
        mkdir -p "$root/usr/local/share"
        cp -r /usr/local/share/ca-certificates "$root/usr/local/share/"
    fi
    mkdir "$root/haechi"
    git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- |
        tar --extract --directory="$root/haechi"
    # They take longer to build than everything else; where this machine has them, they are lent.
    for tool in cargo-deny cargo-fuzz; do
        if command -v "$tool" >/dev/null; then install -D "$(command -v "$tool")" "$root/usr/local/bin/$tool"; fi
    done
    toolchain=
    [[ $suite != bookworm ]] || toolchain=$(rustc --print sysroot)
    if unshare --mount --pid --fork --kill-child bash -euo pipefail -c \
        "$(declare -f enter)"'; enter "$@"' enter "$root" "$toolchain" "${scripts[@]}"; then
        echo "=== $suite: passed"
    else
        echo "=== $suite: FAILED"
        failed+=("$suite")
    fi
    rm -rf --one-file-system "$root"
done
((${#failed[@]} == 0))
