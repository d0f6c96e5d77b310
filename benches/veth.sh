#!/usr/bin/env bash
# haechi on veths (net_af_xdp) beside the kernel's own forwarding with nftables and conntrack, and beside a veth with nothing in
# between: iperf3 between two namespaces, in alternating turns. See benches/README.md.
#
#   benches/veth.sh [--rounds N] [--seconds S] [--pings N] [--cpu N] [--haechi FILE] [--json FILE] [--publish]
#
# Runs as root; makes three namespaces and five veth pairs of its own and removes them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
haechi='' pass=()
while [ $# -gt 0 ]; do
    case $1 in
    --publish) pass+=("$1") && shift && continue ;;
    --haechi) haechi=$2 ;;
    --rounds | --seconds | --pings | --cpu | --json) pass+=("$1" "$2") ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift 2
done
[ "$(id -u)" = 0 ] || { echo "veth: run it as root" >&2 && exit 1; }
[ "$(nproc --all)" -ge 2 ] || { echo "veth: two CPUs are needed" >&2 && exit 1; }

need() { # need PACKAGE COMMAND
    command -v "$2" >/dev/null && return
    echo "veth: installing $1" >&2
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" >&2; then
        echo "veth: please install $1" >&2
        exit 1
    fi
}
need python3 python3
need iproute2 ip
need ethtool ethtool
need nftables nft
need iperf3 iperf3
need iputils-ping ping
if [ -z "$haechi" ]; then
    (cd "$root" && cargo build --release --locked)
    haechi=${CARGO_TARGET_DIR:-$root/target}/release/haechi
fi

# shellcheck source=benches/run_dirs.sh
source "$here/run_dirs.sh"
sweep_run_dirs veth
prefix=hxv$$
driver=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    trap '' INT TERM HUP
    if [ -n "$driver" ] && kill -TERM "$driver" 2>/dev/null; then wait "$driver" || true; fi
    local what
    for what in A B K; do ip netns del "$prefix$what" 2>/dev/null || true; done
    # A veth dies with its peer, at the latest now.
    for what in a b; do ip link del dev "$prefix$what" 2>/dev/null || true; done
    remove_run_dirs "veth-$$"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Frames leave with their checksums and in one piece of the wire's size, whatever is in between.
plain() { # plain NAMESPACE INTERFACE ADDRESS
    ip netns exec "$1" ethtool -K "$2" tx off rx off tso off gso off gro off >/dev/null
    [ -z "$3" ] || ip -n "$1" addr add "$3" dev "$2"
    ip -n "$1" link set dev "$2" up
}

for what in A B K; do
    ip netns add "$prefix$what"
    ip netns exec "$prefix$what" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 || true
    ip -n "$prefix$what" link set lo up
done
# One network straight through.
ip link add name direct netns "${prefix}A" type veth peer name direct netns "${prefix}B"
# One through haechi, whose ends are in the host's namespace.
for side in a b; do
    ip link add name "$prefix$side" type veth peer name haechi netns "$prefix${side^^}"
    sysctl -qw "net.ipv6.conf.$prefix$side.disable_ipv6=1" || true
    ip link set dev "$prefix$side" up
done
# Two with a router in between.
for side in a b; do
    ip link add name "$side" netns "${prefix}K" type veth peer name kernel netns "$prefix${side^^}"
done
plain "${prefix}A" direct 10.98.0.1/24
plain "${prefix}B" direct 10.98.0.2/24
plain "${prefix}A" haechi 10.98.1.1/24
plain "${prefix}B" haechi 10.98.1.2/24
plain "${prefix}A" kernel 10.98.2.1/24
plain "${prefix}B" kernel 10.98.3.2/24
plain "${prefix}K" a 10.98.2.254/24
plain "${prefix}K" b 10.98.3.254/24
ip -n "${prefix}A" route add 10.98.3.0/24 via 10.98.2.254
ip -n "${prefix}B" route add 10.98.2.0/24 via 10.98.3.254
ip netns exec "${prefix}K" sysctl -qw net.ipv4.ip_forward=1
ip netns exec "${prefix}K" nft -f - <<'TEXT'
table inet firewall {
    counter established { }
    counter opened { }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related counter name established accept
        iifname "a" oifname "b" ct state new counter name opened accept
    }
}
TEXT

mkdir -p "$here/results"
# In the background, because only then does a signal reach this shell's trap while it waits.
python3 -B "$here/veth.py" --haechi "$haechi" --prefix "$prefix" "${pass[@]}" &
driver=$!
status=0
wait "$driver" || status=$?
driver=
exit $status
