#!/usr/bin/env bash
# haechi beside dpdk-testpmd and Open vSwitch with DPDK: packets of established sessions, new sessions, memory a session. See
# benches/README.md.
#
#   benches/compare.sh [--parts LIST] [--flows N,...] [--source LIST] [--length LIST] [--rules N,...] [--contestants LIST] ...
#
# Runs as root. Builds the release binary and the generator, installs what it compares with, reserves the huge pages that it
# needs, and leaves nothing behind but benches/results/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")

usage() {
    cat <<'TEXT'
usage: benches/compare.sh [options]
  --parts LIST          established, fill, sustained, memory (default all)
  --contestants LIST    testpmd, haechi, ovs, ovs-noemc (Open vSwitch without its exact match cache), before; the first is what
                        the ratios are to (default testpmd,haechi,ovs,ovs-noemc)

  Established sessions. Any of these four measures exactly that, every combination, and no other part unless --parts says so:
  --flows N[,N...]      sessions (default 1,1000,100000,1000000)
  --source LIST         null: UDP, RX callback on net_null; tcp: the same with TCP connections; connect: TCP connections
                        that are opened and closed without end, so many --flows at a time; pcap: UDP, net_pcap with
                        infinite_rx (default null)
  --length LIST         frame length without FCS, or imix: 64, 570 and 1518 bytes with FCS, 7:4:1 (default 60: a 64-byte frame)
  --rules N[,N...]      of which the last one matches (default 1)

  --rounds N            good rounds a table; a round is one turn of each contestant (default 7)
  --seconds S           measured part of a turn (default 1), after --settle S to warm the caches (default 0.2)
  --min-share PERCENT   a round in which a worker had less of its CPU is repeated (default 95)
  --fill N              new sessions into an empty table (default 1000000), with 1 and with 1,000 rules
  --sustain S           how long a rate is offered (default 60); --udp-rate N and --tcp-rate N flows a second (default
                        3000000 and 500000); --sustained-protocols udp,tcp
  --memory-sessions N   in haechi's table (default 10000000); --memory-ovs N in Open vSwitch's (default 1000000)
  --cpu N               the worker's CPU (default the last one); nothing else should run there
  --seed N              which addresses, and in which orders (default 1)
  --haechi FILE         measure this binary instead of building target/release/haechi
  --before FILE         another build of haechi: the contestant "before", to see what a change does
  --json FILE           where the figures go (default benches/results/compare.json; tables and chart beside it: .md, .svg)
  --publish             put tables and chart of a whole run into docs/performance.md
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
    if ! { command -v apt-get >/dev/null && install_quietly "$1" >&2; }; then
        fail "please install $1 (missing: ${*:3})"
    fi
}

# Without starting the package's services: the contestants run in directories of their own.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [ -e "$policy" ]; then policy=; else printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"; fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" || status=$?
    [ -z "$policy" ] || rm -f "$policy"
    return $status
}

contestants=testpmd,haechi,ovs,ovs-noemc haechi='' keep='' pass=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --keep | --publish)
        [ "$1" = --publish ] || keep=yes
        pass+=("$1") && shift && continue
        ;;
    --parts | --flows | --rounds | --seconds | --settle | --source | --contestants | --length | --rules | --cpu | --min-share) ;;
    --fill | --sustain | --udp-rate | --tcp-rate | --sustained-protocols | --memory-sessions | --memory-ovs) ;;
    --seed | --haechi | --before | --json) ;;
    *) usage >&2 && exit 2 ;;
    esac
    [ $# -ge 2 ] || { usage >&2 && exit 2; }
    case $1 in
    --contestants) contestants=$2 ;;
    --haechi) haechi=$2 ;;
    esac
    [ "$1" = --haechi ] || pass+=("$1" "$2")
    shift 2
done

[ "$(id -u)" = 0 ] || fail "run it as root: it reserves huge pages and raises its priority"
[ "$(nproc --all)" -ge 2 ] || fail "two CPUs are needed: one for the worker, one for everything else"
need python3 command -v python3
# The options are judged before anything is built.
mib=$(PYTHONPATH=$here python3 -B -m compare --needs "${pass[@]}") || exit 2
need gcc command -v cc
need pkg-config command -v pkg-config
need dpdk command -v dpdk-testpmd
need libdpdk-dev pkg-config --exists libdpdk
if [[ ,$contestants, = *,ovs* ]]; then
    need openvswitch-switch-dpdk test -x /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk
fi

# shellcheck source=benches/run_dirs.sh
source "$here/run_dirs.sh"
# shellcheck source=benches/huge_pages.sh
source "$here/huge_pages.sh"
sweep_run_dirs compare
work=$(mktemp -d /tmp/haechi-compare.XXXXXX)
driver=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    trap '' INT TERM HUP
    if [ -n "$driver" ] && kill -TERM "$driver" 2>/dev/null; then wait "$driver" || true; fi
    remove_huge_pages
    if [ -n "$keep" ]; then echo "compare: kept: $work" >&2; else rm -rf "$work"; fi
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
add_huge_pages "$mib" || fail "close other programs, or measure less"

mkdir -p "$here/results"
# In the background, because only then does a signal reach this shell's trap while it waits.
PYTHONPATH=$here python3 -B -m compare --flowgen "$work/flowgen.so" --file-prefix "compare-$$" --work "$work" --haechi "$haechi" "${pass[@]}" &
driver=$!
status=0
wait "$driver" || status=$?
driver=
exit $status
