#!/usr/bin/env bash
# Throughput, latency and frame loss rate of one worker by RFC 2544, section 26, without a NIC. See benches/README.md.
#
#   benches/rfc2544.sh [--devices haechi,testpmd] [--sizes 64,...] [--seconds S] [--tolerance PERCENT,...] [--json FILE]
#
# Runs as root. Builds the release binary and the generator, reserves the huge pages that it needs, and leaves nothing behind
# but benches/results/. --help lists the options.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")

fail() {
    echo "rfc2544: $*" >&2
    exit 1
}

devices=haechi haechi='' pass=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        echo "  --haechi FILE         measure this binary instead of building target/release/haechi"
        exec python3 "$here/rfc2544/rfc2544.py" --help
        ;;
    --keep) pass+=("$1") && shift && continue ;;
    esac
    [ $# -ge 2 ] || fail "$1: a value is wanted (--help)"
    case $1 in
    --haechi) haechi=$2 ;;
    --devices) devices=$2 pass+=("$1" "$2") ;;
    *) pass+=("$1" "$2") ;; # rfc2544.py knows them
    esac
    shift 2
done

[ "$(id -u)" = 0 ] || fail "run it as root: it reserves huge pages and raises its priority"
[ "$(nproc --all)" -ge 2 ] || fail "two CPUs are needed: one for the worker, one for everything else"
for tool in python3 cc pkg-config; do
    command -v $tool >/dev/null || fail "$tool is missing"
done
pkg-config --exists libdpdk || fail "libdpdk-dev is missing"
[[ ",$devices," != *,testpmd,* ]] || command -v dpdk-testpmd >/dev/null || fail "dpdk-testpmd is missing: install dpdk"
if [[ -z $haechi && ",$devices," = *,haechi,* ]]; then
    (cd "$root" && cargo build --release --locked)
    haechi=${CARGO_TARGET_DIR:-$root/target}/release/haechi
fi

# shellcheck source=benches/run_dirs.sh
source "$here/run_dirs.sh"
sweep_run_dirs rfc2544
work=$(mktemp -d /tmp/haechi-rfc2544.XXXXXX)
pages=/sys/kernel/mm/hugepages/hugepages-2048kB
added=0
driver=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    trap '' INT TERM HUP
    if [ -n "$driver" ] && kill -TERM "$driver" 2>/dev/null; then wait "$driver" || true; fi
    # Subtracted, not set back: others may have reserved some of their own in the meantime.
    [ "$added" = 0 ] || echo $(($(cat "$pages"/nr_hugepages) - added)) >"$pages"/nr_hugepages
    rm -rf "$work"
    remove_run_dirs "rfc2544-$$"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# shellcheck disable=SC2046 # pkg-config prints words
cc -O3 -march=native -Wall -Wextra -shared -fPIC $(pkg-config --cflags libdpdk) \
    "$here/flowgen/flowgen.c" -o "$work/flowgen.so" $(pkg-config --libs libdpdk)

# Huge pages: haechi's table and pools (1 GiB by default), or testpmd's pool. Those that are free may be somebody's who is about to
# start, so these are added.
wanted=640
before=$(cat "$pages"/nr_hugepages)
echo $((before + wanted)) >"$pages"/nr_hugepages || true
added=$(($(cat "$pages"/nr_hugepages) - before))
free=$(cat "$pages"/free_hugepages)
[ "$free" -ge "$wanted" ] || fail "$wanted huge pages of 2 MiB are needed and $free are free: close other programs"

mkdir -p "$here/results"
# In the background, because only then does a signal reach this shell's trap while it waits.
python3 "$here/rfc2544/rfc2544.py" --flowgen "$work/flowgen.so" --file-prefix "rfc2544-$$" --haechi "$haechi" "${pass[@]}" &
driver=$!
status=0
wait "$driver" || status=$?
driver=
exit $status
