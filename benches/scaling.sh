#!/usr/bin/env bash
# One worker beside several, packets that come by another worker's queue, and what handing them over costs. See benches/README.md.
#
#   benches/scaling.sh [--workers N,...] [--shares PERCENT,...] [--flows N] [--rounds N] [--seconds S] [--quick] ...
#
# Runs as root. Builds the release binary and the generator, reserves the huge pages that it needs, and leaves nothing behind
# but benches/results/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")

usage() {
    cat <<'TEXT'
usage: benches/scaling.sh [options]
  --workers N[,N...]    crews to measure beside one worker (default 2 to as many as there are CPUs)
  --shares P[,P...]     percent of the flows that come by another worker's queue (default 0,10,100); what a device without RSS
                        hands to the wrong of n workers, (n-1)/n, is always measured
  --flows N             UDP flows in all, of which each worker has an even share (default 1000, at most 800000)

  --rounds N            good rounds; a round is one turn of each crew at each share (default 7)
  --seconds S           measured part of a turn (default 1), after --settle S to warm the caches (default 0.2)
  --min-share PERCENT   a round in which a worker had less of its CPU is repeated (default 95)
  --quick               one round of short turns, whatever CPU time they get: to see that it works
  --seed N              which addresses, and in which orders (default 1)
  --haechi FILE         measure this binary instead of building target/release/haechi
  --json FILE           where the figures go (default benches/results/scaling.json; tables and chart beside it: .md, .svg)
  --publish             put tables and chart into docs/performance.md
  --keep                keep the nodes' configurations and outputs
TEXT
}

fail() {
    echo "scaling: $*" >&2
    exit 1
}

haechi='' keep='' pass=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --quick | --keep | --publish)
        [ "$1" != --keep ] || keep=yes
        pass+=("$1") && shift && continue
        ;;
    --workers | --shares | --flows | --rounds | --seconds | --settle | --min-share | --seed | --haechi | --json) ;;
    *) usage >&2 && exit 2 ;;
    esac
    [ $# -ge 2 ] || { usage >&2 && exit 2; }
    if [ "$1" = --haechi ]; then haechi=$2; else pass+=("$1" "$2"); fi
    shift 2
done

[ "$(id -u)" = 0 ] || fail "run it as root: it reserves huge pages and raises its priority"
[ "$(nproc --all)" -ge 2 ] || fail "two CPUs are needed, one for each of two workers"
for tool in python3 cc pkg-config; do
    command -v $tool >/dev/null || fail "$tool is missing"
done
pkg-config --exists libdpdk || fail "libdpdk-dev is missing"
# The options are judged before anything is built.
mib=$(PYTHONPATH=$here python3 -B -m compare.scaling --needs "${pass[@]}") || exit 2
if [ -z "$haechi" ]; then
    command -v cargo >/dev/null || fail "cargo is missing: see the README, or name a binary with --haechi"
    (cd "$root" && cargo build --release --locked)
    haechi=${CARGO_TARGET_DIR:-$root/target}/release/haechi
fi
[ -x "$haechi" ] || fail "$haechi is no program"
haechi=$(realpath "$haechi")

# shellcheck source=benches/run_dirs.sh
source "$here/run_dirs.sh"
# shellcheck source=benches/huge_pages.sh
source "$here/huge_pages.sh"
sweep_run_dirs scaling
work=$(mktemp -d /tmp/haechi-scaling.XXXXXX)
driver=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    trap '' INT TERM HUP
    if [ -n "$driver" ] && kill -TERM "$driver" 2>/dev/null; then wait "$driver" || true; fi
    remove_huge_pages
    if [ -n "$keep" ]; then echo "scaling: kept: $work" >&2; else rm -rf "$work"; fi
    remove_run_dirs "scaling-$$"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# -march=native: a real device's frames cost the CPU nothing, so the generator is as cheap as this CPU lets it be.
# shellcheck disable=SC2046 # pkg-config prints words
cc -O3 -march=native -Wall -Wextra -shared -fPIC $(pkg-config --cflags libdpdk) \
    "$here/flowgen/queues.c" -o "$work/flowgen.so" $(pkg-config --libs libdpdk)
add_huge_pages "$mib" || fail "close other programs, or measure less"

mkdir -p "$here/results"
# In the background, because only then does a signal reach this shell's trap while it waits.
PYTHONPATH=$here python3 -B -m compare.scaling --flowgen "$work/flowgen.so" --file-prefix "scaling-$$" --work "$work" --haechi "$haechi" "${pass[@]}" &
driver=$!
status=0
wait "$driver" || status=$?
driver=
exit $status
