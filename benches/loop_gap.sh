#!/usr/bin/env bash
# How long the control plane keeps a worker from its packets: `max_loop_gap_us` with a million sessions under full load while
# all of them are listed, half of them are killed, and clients ask and never read. See benches/README.md.
#
#   benches/loop_gap.sh [--sessions N] [--cpu N] [--limit US] [--attempts N] [--haechi FILE] [--json FILE]
#
# Runs as root; reserves the huge pages that it needs and gives them back. The exit status is 0 only if every gap was under
# the limit (1000).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
haechi='' pass=()
while [ $# -gt 0 ]; do
    case $1 in
    --haechi) haechi=$2 ;;
    --sessions | --cpu | --limit | --attempts | --json) pass+=("$1" "$2") ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift 2
done
[ "$(id -u)" = 0 ] || { echo "loop_gap: run it as root" >&2 && exit 1; }
for tool in python3 cc pkg-config; do
    command -v $tool >/dev/null || { echo "loop_gap: $tool is missing" >&2 && exit 1; }
done
if [ -z "$haechi" ]; then
    (cd "$root" && cargo build --release --locked)
    haechi=${CARGO_TARGET_DIR:-$root/target}/release/haechi
fi

# shellcheck source=benches/run_dirs.sh
source "$here/run_dirs.sh"
# shellcheck source=benches/huge_pages.sh
source "$here/huge_pages.sh"
sweep_run_dirs loop_gap
work=$(mktemp -d /tmp/haechi-loop-gap.XXXXXX)
driver=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    trap '' INT TERM HUP
    if [ -n "$driver" ] && kill -TERM "$driver" 2>/dev/null; then wait "$driver" || true; fi
    remove_huge_pages
    rm -rf "$work"
    remove_run_dirs "loop_gap-$$"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# shellcheck disable=SC2046 # pkg-config prints words
cc -O3 -march=native -Wall -Wextra -shared -fPIC $(pkg-config --cflags libdpdk) \
    "$here/flowgen/flowgen.c" -o "$work/flowgen.so" $(pkg-config --libs libdpdk)
add_huge_pages 2048

mkdir -p "$here/results"
# In the background, because only then does a signal reach this shell's trap while it waits.
python3 "$here/loop_gap.py" --flowgen "$work/flowgen.so" --file-prefix "loop_gap-$$" --haechi "$haechi" "${pass[@]}" &
driver=$!
status=0
wait "$driver" || status=$?
driver=
exit $status
