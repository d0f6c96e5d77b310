#!/usr/bin/env bash
# Throughput of one haechi worker beside dpdk-testpmd's, in alternating short rounds. See benches/README.md.
#
#   benches/compare.sh [--flows N[,N...]] [--rounds N] [--seconds S] [--source null|tcp|connect|pcap] [--json FILE]
#
# Runs as root. Builds the release binary and the generator, reserves the huge pages that it needs, and leaves nothing
# behind but benches/results/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")

usage() {
    cat <<'TEXT'
usage: benches/compare.sh [options]
  --flows N[,N...]      established sessions; one table each (default 1,1000,100000,1000000)
  --rounds N            good rounds a table; a round is one turn of each contestant (default 7)
  --seconds S           measured part of a turn (default 1.5), after --settle S to warm the caches (default 0.2)
  --source LIST         null: UDP, RX callback on net_null; tcp: the same with TCP connections; connect: TCP connections
                        that are opened and closed without end, so many --flows at a time; pcap: UDP, net_pcap with
                        infinite_rx (default null)
  --contestants LIST    testpmd, haechi, before; the first is what the ratio is to (default testpmd,haechi)
  --length N            frame length without FCS (default 60: a 64-byte frame)
  --cpu N               the worker's CPU (default the last one); nothing else should run there
  --min-share PERCENT   a round in which a worker had less of its CPU is repeated (default 95)
  --seed N              which addresses, and in which orders (default 1)
  --haechi FILE         measure this binary instead of building target/release/haechi
  --before FILE         another build of haechi: the contestant "before", to see what a change does
  --json FILE           where the figures go (default benches/results/compare.json)
  --keep                keep the contestants' configurations and outputs
TEXT
}

fail() {
    echo "compare: $*" >&2
    exit 1
}

# What is not there is installed where apt can, or named.
need() { # need PACKAGE TEST...
    "${@:2}" >/dev/null && return
    echo "compare: installing $1" >&2
    if ! { command -v apt-get >/dev/null && apt-get install -y --no-install-recommends "$1" >&2; }; then
        fail "please install $1 (missing: ${*:3})"
    fi
}

flows=1,1000,100000,1000000 source=null contestants=testpmd,haechi haechi='' pass=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --keep) pass+=("$1") && shift && continue ;;
    --flows | --rounds | --seconds | --settle | --source | --contestants | --length | --cpu | --min-share | --seed | --haechi | --before | --json) ;;
    *) usage >&2 && exit 2 ;;
    esac
    [ $# -ge 2 ] || { usage >&2 && exit 2; }
    case $1 in
    --flows) flows=$2 ;;
    --source) source=$2 ;;
    --contestants) contestants=$2 ;;
    --haechi) haechi=$2 ;;
    esac
    [ "$1" = --haechi ] || pass+=("$1" "$2")
    shift 2
done

[ "$(id -u)" = 0 ] || fail "run it as root: it reserves huge pages and raises its priority"
[ "$(nproc --all)" -ge 2 ] || fail "two CPUs are needed: one for the worker, one for everything else"
need python3 command -v python3
need gcc command -v cc
need pkg-config command -v pkg-config
need dpdk command -v dpdk-testpmd
need libdpdk-dev pkg-config --exists libdpdk

# shellcheck source=benches/run_dirs.sh
source "$here/run_dirs.sh"
sweep_run_dirs compare
work=$(mktemp -d /tmp/haechi-compare.XXXXXX)
pages=/sys/kernel/mm/hugepages/hugepages-2048kB
pages_before=$(cat "$pages"/nr_hugepages)
driver=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    trap '' INT TERM HUP
    if [ -n "$driver" ] && kill -TERM "$driver" 2>/dev/null; then wait "$driver" || true; fi
    [ "$(cat "$pages"/nr_hugepages)" = "$pages_before" ] || echo "$pages_before" >"$pages"/nr_hugepages
    rm -rf "$work"
    remove_run_dirs "compare-$$"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# -march=native: a real device's frames cost the CPU nothing, so the generator is as cheap as this CPU lets it be.
# shellcheck disable=SC2046 # pkg-config prints words
cc -O3 -march=native -Wall -Wextra -shared -fPIC $(pkg-config --cflags libdpdk) \
    "$here/flowgen/flowgen.c" -o "$work/flowgen.so" $(pkg-config --libs libdpdk)

if [ -z "$haechi" ] && [[ ",$contestants," = *,haechi,* ]]; then
    command -v cargo >/dev/null || fail "cargo is missing: see the README, or name a binary with --haechi"
    (cd "$root" && cargo build --release --locked)
    haechi=${CARGO_TARGET_DIR:-$root/target}/release/haechi
fi

# Huge pages: haechi's table and pool and testpmd's pool; net_pcap holds every packet of a file in mbufs.
most=$(tr ',' '\n' <<<"$flows" | sort -n | tail -1)
mib=2048
[[ ",$source," != *,pcap,* ]] || mib=$((mib + 10 * most / 1000))
wanted=$((mib / 2))
free=$(cat "$pages"/free_hugepages)
if [ "$free" -lt "$wanted" ]; then
    echo $((pages_before + wanted - free)) >"$pages"/nr_hugepages
    free=$(cat "$pages"/free_hugepages)
    [ "$free" -ge "$wanted" ] || fail "$wanted huge pages of 2 MiB are needed and $free are free: close other programs, or measure fewer --flows"
fi

mkdir -p "$here/results"
# In the background, because only then does a signal reach this shell's trap while it waits.
python3 "$here/compare.py" --flowgen "$work/flowgen.so" --file-prefix "compare-$$" --haechi "$haechi" "${pass[@]}" &
driver=$!
status=0
wait "$driver" || status=$?
driver=
exit $status
