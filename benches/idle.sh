#!/usr/bin/env bash
# What an idle haechi node costs (CPU share, all threads), how long the first packet after silence waits, and whether a
# burst of a whole receive ring into a sleeping node loses a packet. See benches/README.md.
#
#   benches/idle.sh [--seconds S] [--pings N] [--bursts N] [--cpu N] [--haechi FILE] [--json FILE]
#
# Runs as root; makes two namespaces, two veth pairs and two bridges of its own and removes them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
haechi='' pass=()
while [ $# -gt 0 ]; do
    case $1 in
    --haechi) haechi=$2 ;;
    --seconds | --pings | --bursts | --cpu | --json) pass+=("$1" "$2") ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift 2
done
[ "$(id -u)" = 0 ] || { echo "idle: run it as root" >&2 && exit 1; }
for tool in python3 ip ethtool ping; do
    command -v $tool >/dev/null || { echo "idle: $tool is missing" >&2 && exit 1; }
done
if [ -z "$haechi" ]; then
    (cd "$root" && cargo build --release --locked)
    haechi=${CARGO_TARGET_DIR:-$root/target}/release/haechi
fi

# shellcheck source=benches/run_dirs.sh
source "$here/run_dirs.sh"
sweep_run_dirs idle
prefix=hxi$$
driver=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    trap '' INT TERM HUP
    if [ -n "$driver" ] && kill -TERM "$driver" 2>/dev/null; then wait "$driver" || true; fi
    ip netns del "${prefix}A" 2>/dev/null || true
    ip netns del "${prefix}B" 2>/dev/null || true
    # A veth dies with its peer, at the latest now.
    for link in a b ra rb; do ip link del "$prefix$link" 2>/dev/null || true; done
    remove_run_dirs "idle-$$"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

address=1
for side in a b; do
    namespace=$prefix${side^^}
    ip netns add "$namespace"
    ip link add "$prefix$side" type veth peer name e0 netns "$namespace"
    sysctl -qw "net.ipv6.conf.$prefix$side.disable_ipv6=1" || true
    ip link set "$prefix$side" up
    ip -n "$namespace" addr add "10.99.0.$address/24" dev e0
    ip -n "$namespace" link set e0 up
    ip -n "$namespace" link set lo up
    ip netns exec "$namespace" ethtool -K e0 tx off rx off >/dev/null
    address=$((address + 1))
done

# In the background, because only then does a signal reach this shell's trap while it waits.
python3 "$here/idle.py" --haechi "$haechi" --prefix "$prefix" --file-prefix "idle-$$" "${pass[@]}" &
driver=$!
status=0
wait "$driver" || status=$?
driver=
exit $status
