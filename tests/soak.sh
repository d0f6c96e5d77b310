#!/usr/bin/env bash
# Real programs through the firewall over lines that lose, delay and reorder, while blind packets are sent into their
# connections: each of those must be dropped, and nothing else. As root.
#
#   tests/soak.sh [MINUTES]          (20; deploy/test.sh runs the same test for one)
#
# HAECHI_SEED repeats a run's weather. Whatever ends this script, nothing of it is left.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ ${1:-20} =~ ^[0-9]+(\.[0-9]+)?$ && $# -le 1 ]] || { sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2 && exit 2; }
((EUID == 0)) || { echo "tests/soak.sh makes network namespaces: run it as root" >&2 && exit 1; }

child=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    trap - EXIT
    if [[ -n $child ]]; then
        kill -- "-$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
        # What cargo started may end a little later.
        for _ in {1..100}; do
            kill -0 -- "-$child" 2>/dev/null || break
            sleep 0.1
        done
    fi
    # Namespaces and files of labs whose test process is gone.
    local left pid
    for left in /run/netns/hxlab-* /tmp/hxlab-*; do
        pid=${left##*/hxlab-} pid=${pid%%-*}
        [[ -e $left && ! -e /proc/$pid ]] || continue
        case $left in
        /run/netns/*) ip netns del "${left##*/}" ;;
        *) rm -rf "$left" ;;
        esac
    done
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# In a process group of its own and in the background, so that a signal to this script is acted on at once.
set -m
HAECHI_SOAK_MINUTES=${1:-20} cargo test --locked --test e2e_soak -- --nocapture &
child=$!
set +m
status=0
wait "$child" || status=$?
child=
exit $status
