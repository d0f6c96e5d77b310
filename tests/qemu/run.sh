#!/usr/bin/env bash
# Opt-in: haechi on emulated NICs, as on bare metal. Boots a guest in QEMU (software emulation, no KVM) with two NICs behind an
# emulated IOMMU, bound to vfio-pci; haechi in it with two workers, clients and servers on both sides of it. As root, on Debian,
# with network for packages; takes minutes and, while it runs, up to 3 GB of disk and 2 GB of memory.
#
#   tests/qemu/run.sh [--binary FILE] [--logs DIR] [igb] [virtio]      (both NICs, and a release build, if nothing is said)
#
# --logs DIR puts haechi's log, the guest's console, and what `haechi show` said last there, a directory for each NIC.
# HAECHI_QEMU_DIR=DIR keeps what was downloaded and the guest's image there for the next run; else nothing is left. See README.md.
set -euo pipefail
FROM=$PWD
cd "$(dirname "$0")/../.."
HERE=$PWD/tests/qemu
# Names everything that this script makes on the host.
NET=hxqemu-$$
# shellcheck source=deploy/packages.sh
source deploy/packages.sh
# shellcheck source=tests/qemu/image.sh
source tests/qemu/image.sh
# shellcheck source=tests/qemu/lab.sh
source tests/qemu/lab.sh
# shellcheck source=tests/qemu/checks.sh
source tests/qemu/checks.sh

# What this machine needs; QEMU and the guest's kernel are only unpacked.
PACKAGES=("${PACKAGES_DEMO[@]}" debootstrap kmod e2fsprogs)

usage() {
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$HERE/run.sh" >&2
    exit 2
}

BINARY='' LOGS='' devices=()
while (($#)); do
    case $1 in
    igb | virtio) devices+=("$1") ;;
    --binary)
        (($# >= 2)) || usage
        BINARY=$(cd "$FROM" && realpath -e "$2") && shift
        ;;
    --logs)
        (($# >= 2)) || usage
        LOGS=$(cd "$FROM" && mkdir -p "$2" && realpath "$2") && shift
        ;;
    *) usage ;;
    esac
    shift
done
((${#devices[@]})) || devices=(igb virtio)

die() {
    echo "tests/qemu/run.sh: $*" >&2
    exit 1
}

((EUID == 0)) || die "makes namespaces and a guest's image: run it as root"
grep -qx 'ID=debian' /etc/os-release || die "the guest gets this machine's release of Debian, and this is none"

BUILD=${HAECHI_QEMU_DIR:-}
RUN=$(mktemp -d "${TMPDIR:-/tmp}/haechi-qemu.XXXXXX")
[[ -n $BUILD ]] || BUILD=$RUN/build
mkdir -p "$BUILD"
BUILD=$(realpath "$BUILD")
CHILD=

# shellcheck disable=SC2317 # called by the trap
cleanup() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [[ -n $CHILD ]]; then
        kill -- "-$CHILD" 2>/dev/null || true
        wait "$CHILD" 2>/dev/null || true
    fi
    end_guest
    remove_lab
    ((status == 0)) || [[ ! -s $RUN/build.log ]] || tail -n 40 "$RUN/build.log" >&2
    rm -rf --one-file-system "$RUN"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

everything() {
    local device status failed=()
    install_packages "${PACKAGES[@]}"
    exec {lock}>"$BUILD/lock"
    flock --nonblock "$lock" || die "another run has $BUILD"
    if [[ -z $BINARY ]]; then
        install_packages "${PACKAGES_BUILD[@]}"
        ensure_rust
        cargo build --locked --release
        BINARY=$(realpath "${CARGO_TARGET_DIR:-target}/release/haechi")
    fi
    echo "=== QEMU, kernel and root file system for the guest"
    {
        prepare_qemu
        prepare_guest
        pack_run
    } >"$RUN/build.log" 2>&1
    mv "$RUN/build.log" "$RUN/built"
    "${QEMU[@]}" --version | head -n 1
    for device in "${devices[@]}"; do
        echo "=== $device"
        # A subshell, so that a failed check ends this device only; not as the condition of an `if`, where `set -e` means nothing.
        set +e
        (set -e && run_device "$device")
        status=$?
        set -e
        if ((status == 0)); then
            echo "=== $device: passed"
        else
            echo "=== $device: FAILED"
            show_what_happened
            failed+=("$device")
        fi
        end_guest
        remove_lab
        keep_logs "$device"
    done
    ((${#failed[@]} == 0))
}

# In a process group of its own and in the background, so that a signal to this script is acted on at once, and ends all of it.
status=0
set -m
(set +m && everything) </dev/null &
CHILD=$!
set +m
wait "$CHILD" || status=$?
CHILD=
exit "$status"
