#!/usr/bin/env bash
# What a pair of nodes costs and how fast it is: synchronising beside a node that is alone, updates a second, a standby that comes
# with nothing. (Detection and takeover: `HAECHI_FAILOVERS=20 cargo test --test e2e_pair a_stream -- --nocapture`.) See benches/README.md.
#
#   benches/ha.sh [--parts established,new,updates,resync,redirect] [--rounds N] [--seconds S] [--flows N] [--fill N]
#                 [--sessions N] [--resyncs N] [--cpu N] [--haechi FILE] [--json FILE]
#
# Runs as root, on two CPUs or more; reserves the huge pages that it needs and gives them back.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
haechi='' mib=5120 pass=()
while [ $# -gt 0 ]; do
    case $1 in
    --haechi) haechi=$2 ;;
    --parts | --resyncs | --rounds | --connections | --trials | --redirect-rate | --min-share | --seconds | --flows | --fill | --sessions | --cpu | --json) pass+=("$1" "$2") ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift 2
done
[ "$(id -u)" = 0 ] || { echo "ha: run it as root" >&2 && exit 1; }
[ "$(nproc --all)" -ge 2 ] || { echo "ha: two CPUs are needed" >&2 && exit 1; }
for tool in python3 cc pkg-config; do
    command -v $tool >/dev/null || { echo "ha: $tool is missing" >&2 && exit 1; }
done
if [ -z "$haechi" ]; then
    (cd "$root" && cargo build --release --locked)
    haechi=${CARGO_TARGET_DIR:-$root/target}/release/haechi
fi

# shellcheck source=benches/run_dirs.sh
source "$here/run_dirs.sh"
# shellcheck source=benches/huge_pages.sh
source "$here/huge_pages.sh"
sweep_run_dirs ha
work=$(mktemp -d /tmp/haechi-ha.XXXXXX)
driver=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    trap '' INT TERM HUP
    if [ -n "$driver" ] && kill -TERM "$driver" 2>/dev/null; then wait "$driver" || true; fi
    remove_huge_pages
    rm -rf "$work"
    remove_run_dirs "ha-$$"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# shellcheck disable=SC2046 # pkg-config prints words
cc -O3 -march=native -Wall -Wextra -shared -fPIC $(pkg-config --cflags libdpdk) \
    "$here/flowgen/flowgen.c" -o "$work/flowgen.so" $(pkg-config --libs libdpdk)
add_huge_pages $mib

mkdir -p "$here/results"
# In the background, because only then does a signal reach this shell's trap while it waits.
python3 -B "$here/ha.py" --flowgen "$work/flowgen.so" --file-prefix "ha-$$" --work "$work" --haechi "$haechi" "${pass[@]}" &
driver=$!
status=0
wait "$driver" || status=$?
driver=
exit $status
