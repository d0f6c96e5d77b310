#!/usr/bin/env bash
# See haechi work, in one command, as root: builds it, joins two network namespaces through it, and shows what the
# firewall lets pass and what it does not. No spare NIC and no huge pages needed; leaves nothing behind.
#
#   deploy/quickstart.sh                  build, show, clean up
#   deploy/quickstart.sh --keep           the same, but leave it running and say what to try next
#   deploy/quickstart.sh --stop           stop what --keep left running
#   deploy/quickstart.sh --binary FILE    use this haechi instead of building one
set -euo pipefail
FROM=$PWD
cd "$(dirname "$0")/.."
# shellcheck source=deploy/packages.sh
source deploy/packages.sh

# Names everything that this script makes; another value lets several run at once.
NAME=${HAECHI_QUICKSTART:-haechi}
CLIENT=$NAME-client SERVER=$NAME-server FIREWALL=$NAME-firewall
CLIENT_IP=10.77.0.1 SERVER_IP=10.77.0.2 SERVER_IP6=fd77::2 CLIENT_IP6=fd77::1
STATE=/run/$NAME-quickstart
SOCKET=$STATE/haechi.sock
LOG=
KEEP=no STOP=no BINARY=
OURS=no CHILD= HAECHI_PID=
passed=0 failed=0

usage() {
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"
}

wrong_usage() {
    echo "deploy/quickstart.sh: $*" >&2
    exit 2
}

while (($#)); do
    case $1 in
    --keep) KEEP=yes ;;
    --stop) STOP=yes ;;
    --binary)
        (($# >= 2)) || wrong_usage "--binary needs the file of a haechi program behind it"
        [[ $2 == /* ]] && BINARY=$2 || BINARY=$FROM/$2
        [[ -f $BINARY && -x $BINARY ]] || wrong_usage "--binary $2: there is no such program"
        BINARY=$(realpath "$BINARY")
        shift
        ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

if ((EUID != 0)); then
    echo "deploy/quickstart.sh makes network namespaces and installs packages: run it as root (sudo deploy/quickstart.sh)" >&2
    exit 1
fi

if [[ -t 1 ]]; then
    GREEN=$'\e[32m' RED=$'\e[31m' BOLD=$'\e[1m' PLAIN=$'\e[0m'
else
    GREEN='' RED='' BOLD='' PLAIN=''
fi
# How wide a line may be.
WIDTH=0
if [[ -t 1 ]]; then
    exec {screen}>&1
    read -r _ WIDTH < <(stty size <&"$screen" 2>/dev/null) || true
    exec {screen}>&-
fi
((WIDTH > 0)) || WIDTH=80

pass() { passed=$((passed + 1)) && echo "${GREEN}[pass]${PLAIN} $*"; }
fail() { failed=$((failed + 1)) && echo "${RED}[FAIL]${PLAIN} $*"; }
die() {
    fail "$@"
    exit 1
}

# --- starting and stopping

# Runs something noisy with its output in the log, in a process group of its own so that an interrupt ends all of it.
quietly() {
    local status=0
    set -m
    "$@" >>"$LOG" 2>&1 </dev/null &
    CHILD=$!
    set +m
    wait "$CHILD" || status=$?
    CHILD=
    return $status
}

# Asks a process to end, and insists after five seconds. It need not be a child of this shell.
end_process() {
    kill -TERM "$1" 2>/dev/null || return 0
    for _ in {1..100}; do
        alive "$1" || return 0
        sleep 0.05
    done
    kill -KILL "$1" 2>/dev/null || true
}

# Does this process live (a child that ended and was not waited for does not)?
alive() {
    local state
    state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) && [[ -n $state && $state != Z ]]
}

# Ends haechi first, then everything else that runs in the namespaces of ours, then removes them and all files.
tear_down() {
    local ns pid
    if [[ -s $STATE/pid && -e $STATE/made-$FIREWALL ]]; then
        pid=$(<"$STATE/pid")
        # The number may be another process's by now: it is ours only in our namespace.
        if ip netns pids "$FIREWALL" 2>/dev/null | grep -qx "$pid"; then end_process "$pid"; fi
    fi
    for ns in "$CLIENT" "$SERVER" "$FIREWALL"; do
        [[ -e $STATE/made-$ns && -e /run/netns/$ns ]] || continue
        for pid in $(ip netns pids "$ns"); do end_process "$pid"; done
        ip netns del "$ns" || true
    done
    rm -rf "$STATE"
}

cleanup() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [[ -n $CHILD ]]; then
        kill -- "-$CHILD" 2>/dev/null || true
        wait "$CHILD" 2>/dev/null || true
    fi
    if [[ $OURS == yes && ! ($KEEP == yes && $status == 0) ]]; then
        [[ ! -s $STATE/haechi.log ]] || { echo "--- haechi said:" && cat "$STATE/haechi.log"; } >>"$LOG"
        tear_down
    fi
    if [[ -n $LOG ]]; then
        if ((status == 0)) || [[ ! -s $LOG ]]; then
            rm -f "$LOG"
        else
            # What an interrupted user wants to know is on the screen already.
            ((status >= 128)) && rm -f "$LOG" || echo "       everything that was said: $LOG"
        fi
    fi
    exit "$status"
}

if [[ $STOP == yes ]]; then
    if [[ ! -e $STATE ]]; then
        echo "nothing to stop"
        exit 0
    fi
    tear_down
    echo "stopped, and everything removed"
    exit 0
fi

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
LOG=$(mktemp "/tmp/$NAME-quickstart.XXXXXX.log")

# --- the pieces

# Takes the names, or says who has them: only what this script made may it remove.
take_names() {
    local ns taken=()
    if [[ -e $STATE ]]; then
        die "a quickstart is running already, or was killed: deploy/quickstart.sh --stop"
    fi
    for ns in "$CLIENT" "$SERVER" "$FIREWALL"; do
        [[ ! -e /run/netns/$ns ]] || taken+=("$ns")
    done
    if ((${#taken[@]})); then
        die "there are network namespaces of these names, not made here: ${taken[*]}." \
            "Remove them, or choose other names: HAECHI_QUICKSTART=demo deploy/quickstart.sh"
    fi
    mkdir "$STATE" || die "cannot make $STATE"
    OURS=yes
}

prepare() {
    quietly install_packages "${PACKAGES_BUILD[@]}" "${PACKAGES_DEMO[@]}" ||
        die "packages: $(tail -n 1 "$LOG")"
    pass "packages are installed"
    if [[ -n $BINARY ]]; then
        pass "using $BINARY"
        return
    fi
    ensure_rust >>"$LOG" 2>&1 || die "$(tail -n 1 "$LOG")"
    pass "Rust $RUST_FOUND"
    echo "       building haechi (a few minutes the first time) ..."
    local start=$SECONDS
    quietly cargo build --locked --release || die "cargo build --release"
    BINARY=$(realpath "${CARGO_TARGET_DIR:-target}/release/haechi")
    pass "haechi is built ($((SECONDS - start)) s)"
}

# Makes a namespace. The record comes first: a kill between the two must not leave one that nobody knows of.
add_netns() {
    : >"$STATE/made-$1"
    ip netns add "$1" || {
        rm "$STATE/made-$1"
        die "ip netns add $1"
    }
}

in_client() { ip netns exec "$CLIENT" "$@"; }

# One end of a veth for a host, the other for haechi. The host's end does its checksums and segments in software:
# there is no NIC behind it that would.
join() {
    local ns=$1 near=$2 address=$3 address6=$4
    add_netns "$ns"
    ip -n "$ns" link set lo up
    ip -n "$FIREWALL" link add name "$near" type veth peer name eth0 netns "$ns"
    ip netns exec "$ns" ethtool -K eth0 tx off tso off gso off gro off >>"$LOG" 2>&1
    ip -n "$FIREWALL" link set dev "$near" addrgenmode none up
    ip -n "$ns" addr add "$address/24" dev eth0
    ip -n "$ns" link set eth0 up
    ip -n "$ns" addr add "$address6/64" dev eth0 nodad
}

build_network() {
    add_netns "$FIREWALL"
    ip netns exec "$FIREWALL" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    join "$CLIENT" inside "$CLIENT_IP" "$CLIENT_IP6"
    join "$SERVER" outside "$SERVER_IP" "$SERVER_IP6"
    pass "two namespaces: $CLIENT ($CLIENT_IP) and $SERVER ($SERVER_IP)"
}

# The configuration, for one of the two kinds of device that can hold a veth.
write_config() {
    local driver=$1 option=$2
    cat >"$STATE/haechi.toml" <<TOML
# The client's side is trusted: it may reach these services of the other side. What nobody asked for is dropped.
version = 1

[node]
name = "quickstart"
mode = "transparent"            # a bump in the wire: no addresses of its own
workers = "0"                   # the CPU of the one worker
idle = "adaptive"
hugepages = false
memory_mib = 512
packet_buffers = 16383
control_socket = "$SOCKET"

[[port]]
name = "inside"
zone = "trust"
peer = "outside"
device = "vdev:net_${driver}0,iface=inside,$option"

[[port]]
name = "outside"
zone = "untrust"
peer = "inside"
device = "vdev:net_${driver}1,iface=outside,$option"

[service_sets]
web = ["tcp/80"]

[[rule]]
name = "ping"
from = "trust"
to = "untrust"
service = ["icmp/echo-request", "icmpv6/128"]
action = "allow"

[[rule]]
name = "web"
from = "trust"
to = "untrust"
service = ["@web"]
action = "allow"

[[rule]]
name = "iperf3"
from = "trust"
to = "untrust"
service = ["tcp/5201", "udp/5201"]
action = "allow"

[[rule]]
name = "no-telnet"
from = "trust"
to = "untrust"
service = ["tcp/23"]
action = "reject"               # answered: the client knows at once

[[rule]]
name = "no-smtp"
from = "trust"
to = "untrust"
service = ["tcp/25"]
action = "drop"                 # not answered: the client waits in vain

[conntrack]
max_sessions = 65536
TOML
}

# Starts haechi on these devices and waits until it is ready.
try_haechi() {
    write_config "$1" "$2"
    "$BINARY" check "$STATE/haechi.toml" >>"$LOG" 2>&1 || die "haechi check $STATE/haechi.toml"
    : >"$STATE/haechi.log"
    # A session of its own: an interrupt at the terminal must reach this script alone, which stops haechi in order.
    setsid ip netns exec "$FIREWALL" "$BINARY" run -c "$STATE/haechi.toml" >"$STATE/haechi.log" 2>&1 </dev/null &
    HAECHI_PID=$!
    echo "$HAECHI_PID" >"$STATE/pid"
    for _ in {1..300}; do
        grep -qx ready "$STATE/haechi.log" && return 0
        alive "$HAECHI_PID" || break
        sleep 0.1
    done
    { echo "--- haechi on net_$1 did not become ready:" && cat "$STATE/haechi.log"; } >>"$LOG"
    end_process "$HAECHI_PID"
    wait "$HAECHI_PID" 2>/dev/null || true
    return 1
}

start_haechi() {
    if try_haechi af_xdp busy_budget=0; then
        pass "haechi is ready between them (net_af_xdp)"
    elif try_haechi af_packet qdisc_bypass=1; then
        pass "haechi is ready between them (net_af_packet: this kernel has no AF_XDP)"
    else
        die "haechi run: $(tail -n 1 "$STATE/haechi.log")"
    fi
}

# Waits until a TCP port of a namespace listens.
await_listener() {
    for _ in {1..100}; do
        ip netns exec "$1" ss -Hltn "sport = :$2" 2>/dev/null | grep -q . && return 0
        sleep 0.1
    done
    die "nothing listens on port $2 in $1"
}

# Starts a server that this shell then forgets: tear_down finds it in its namespace.
serve() {
    setsid ip netns exec "$@" >>"$LOG" 2>&1 </dev/null &
    disown "$!"
}

start_servers() {
    local port
    mkdir -p "$STATE/www"
    echo "Hello through haechi." >"$STATE/www/index.html"
    # On the blocked ports too: so it is the firewall that refuses, not an empty port.
    for port in 80 23 25; do
        serve "$SERVER" python3 -m http.server --bind :: --directory "$STATE/www" "$port"
    done
    serve "$SERVER" iperf3 --server
    # The client has one too, for the other side to knock at.
    serve "$CLIENT" python3 -m http.server --bind :: --directory "$STATE/www" 80
    for port in 80 23 25 5201; do
        await_listener "$SERVER" "$port"
    done
    await_listener "$CLIENT" 80
    pass "a web server and an iperf3 server listen in $SERVER"
}

# --- what the firewall does

show_allowed() {
    local answer rate
    in_client ping -q -n -c 3 -i 0.2 -W 2 "$SERVER_IP" >>"$LOG" 2>&1 &&
        pass "ping $SERVER_IP is answered" || fail "ping $SERVER_IP is not answered"
    in_client ping -q -n -c 3 -i 0.2 -W 2 "$SERVER_IP6" >>"$LOG" 2>&1 &&
        pass "ping $SERVER_IP6 is answered" || fail "ping $SERVER_IP6 is not answered"
    for answer in "http://$SERVER_IP/" "http://[$SERVER_IP6]/"; do
        [[ $(fetch "$CLIENT" "$answer" 5) == "Hello through haechi." ]] &&
            pass "curl $answer: Hello through haechi." || fail "curl $answer gets no page"
    done
    for answer in "" --reverse; do
        rate=$(in_client iperf3 --client "$SERVER_IP" --time 2 --format m $answer 2>>"$LOG" | tee -a "$LOG" |
            awk '/receiver/ { for (i = 2; i <= NF; i++) if ($i ~ /bits\/sec/) print $(i - 1), $i }') || true
        [[ $rate == [1-9]* ]] && pass "iperf3 ${answer:+$answer }through the firewall: $rate" || fail "iperf3 $answer"
    done
}

# curl without surprises from a user's environment.
fetch() {
    ip netns exec "$1" curl --silent --show-error --fail --noproxy '*' --max-time "$3" "$2" 2>>"$LOG"
}

show_refused() {
    local start status took
    start=$(date +%s%N) status=0
    fetch "$CLIENT" "http://$SERVER_IP:23/" 5 >>"$LOG" || status=$?
    took=$((($(date +%s%N) - start) / 1000000))
    ((status == 7 && took < 900)) && pass "port 23 is rejected: refused after $took ms" ||
        fail "port 23: curl ended with $status after $took ms"
    status=0
    fetch "$CLIENT" "http://$SERVER_IP:25/" 1.5 >>"$LOG" || status=$?
    ((status == 28)) && pass "port 25 is dropped: no answer" || fail "port 25: curl ended with $status"
    status=0
    fetch "$SERVER" "http://$CLIENT_IP/" 1.5 >>"$LOG" || status=$?
    ((status == 28)) && pass "an unsolicited connection from outside is dropped" ||
        fail "an unsolicited connection from outside: curl ended with $status"
}

show_tables() {
    local table
    for table in sessions "counters" rules ports; do
        # Seven characters are the indent.
        if COLUMNS=$((WIDTH - 7)) "$BINARY" show "$table" --socket "$SOCKET" >"$STATE/table" 2>>"$LOG" && [[ -s $STATE/table ]]; then
            pass "haechi show $table"
            sed 's/^/       /' "$STATE/table"
        else
            fail "haechi show $table"
        fi
    done
    local drops
    drops=$(curl --silent --unix-socket "$SOCKET" http://localhost/v1/counters | tee -a "$LOG" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["drops"]["policy"])' 2>>"$LOG") || drops=0
    ((drops > 0)) && pass "curl --unix-socket: $drops packets dropped by policy" || fail "no drop by policy is counted"
}

show_shutdown() {
    local status=0
    end_process "$HAECHI_PID"
    wait "$HAECHI_PID" || status=$?
    if ((status == 0)); then
        pass "haechi stopped cleanly:"
        sed -n '/^ready$/,$ { /^ready$/d; s/^/       /; p }' "$STATE/haechi.log"
    else
        fail "haechi ended with $status"
    fi
}

say_what_next() {
    cat <<TEXT

${BOLD}haechi runs (process $HAECHI_PID).${PLAIN} Try:
  ip netns exec $CLIENT curl http://$SERVER_IP/
  ip netns exec $CLIENT ping $SERVER_IP
  $BINARY show status --socket $SOCKET
  $BINARY show sessions --socket $SOCKET
  $BINARY explain -c $STATE/haechi.toml --from trust --packet "tcp $CLIENT_IP:1234 > $SERVER_IP:25 syn"
  edit $STATE/haechi.toml, then: $BINARY apply $STATE/haechi.toml --socket $SOCKET
  curl --unix-socket $SOCKET http://localhost/v1/status
Stop it and remove everything:
  deploy/quickstart.sh --stop
TEXT
}

# --- all of it

echo "${BOLD}haechi quickstart${PLAIN}"
take_names
prepare
build_network
start_haechi
start_servers
show_allowed
show_refused
show_tables
if [[ $KEEP == yes ]] && ((failed == 0)); then
    say_what_next
else
    show_shutdown
fi
echo
echo "$passed passed, $failed failed"
((failed == 0))
