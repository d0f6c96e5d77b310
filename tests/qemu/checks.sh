# shellcheck shell=bash
# What is asked of haechi on a device. Sourced by run.sh.

# What `haechi show` says, through an expression of Python in which `x` is it; a line for each item.
shown() {
    local what=$1 expression=$2
    guest "/haechi/haechi show $what --json" >"$RUN/$what.json" || die "haechi show $what: $(<"$RUN/$what.json")"
    python3 -c 'import json, sys
x = json.load(open(sys.argv[1]))
value = eval(sys.argv[2])
print(*value if isinstance(value, list) else [value], sep="\n")' "$RUN/$what.json" "$expression"
}

# A check's name and a command: shows whether it holds, and ends this device's run if not.
check() {
    local what=$1
    shift
    if "$@"; then echo "[pass] $what"; else echo "[FAIL] $what" && exit 1; fi
}

# Is it in a file, as often as that? Shows the lines.
said() {
    local file=$1 pattern=$2 times=$3 lines
    lines=$(grep -aE "$pattern" "$RUN/$file" | tr -d '\r') || return 1
    sed 's/^/    /' <<<"$lines"
    (($(wc -l <<<"$lines") >= times))
}

logged() { said haechi.log "$1" "${2:-1}"; }
on_console() { said console.log "$@"; }

equals() {
    [[ $1 == "$2" ]] || { echo "    $1 instead of $2" && return 1; }
}

# Gets the file through the firewall and compares it.
fetch() {
    in_client curl -sS --max-time 120 -o "$RUN/fetched" "http://$1/file" && cmp "$RUN/fetched" "$RUN/www/file"
}

# So many fetches, eight at a time, each over a connection of its own: the server speaks HTTP/1.0.
fetch_many() {
    local times=$1 address=$2 words=() i
    for ((i = 0; i < times; i++)); do words+=(-o /dev/null "http://$address/file"); done
    in_client curl --no-progress-meter --max-time 300 --parallel --parallel-max 8 -w '%{http_code} %{size_download}\n' \
        "${words[@]}" 2>"$RUN/curl.log" | sort | uniq -c >"$RUN/fetches"
    sed 's/^ */    /' "$RUN/fetches"
    grep -qx " *$times 200 1000000" "$RUN/fetches"
}

rss_is() { equals "$(shown ports '[p["rss"] for p in x["ports"]]' | paste -sd' ')" "$1 $1"; }

run_device() {
    local device=$1 driver begin=$SECONDS
    [[ $device == igb ]] && driver=net_e1000_igb || driver=net_virtio
    cp --sparse=always "$GUEST/root.ext4" "$RUN/root.ext4"
    : >"$RUN/haechi.log"
    make_lab "$device"
    start_guest "$device" || die "no greeting"
    echo "    the guest answers after $((SECONDS - begin)) s"
    check_start "$device" $driver
    check_traffic
    if [[ $device == igb ]]; then check_proof; else check_software; fi
    check_stop
}

check_start() {
    local device=$1 driver=$2
    wait_for $BOOT "haechi is in service" service_decided
    check "haechi is in service, and systemd knows" equals "$(guest systemctl is-active haechi)" active
    check "the guest has an IOMMU with interrupt remapping" on_console "DMAR-IR: Enabled IRQ remapping" 1
    check "both NICs are bound to vfio-pci, in IOMMU groups" on_console "0000:00:0[8a].0: vfio-pci, IOMMU group" 2
    check "the log shows the probe" logged "Probe PCI driver: $driver.*0000:00:0[8a].0" 2
    check "the driver is $driver, on both ports" \
        equals "$(shown ports '[p["driver"] for p in x["ports"]]' | paste -sd' ')" "$driver $driver"
    wait_for 60 "both links are up" links_up
    check "both links are up" logged "link up" 2
    check "two workers, a queue of each port for each" \
        equals "$(shown workers 'len(x["workers"])') $(shown ports '[p["rx_queues"] for p in x["ports"]]' | paste -sd' ')" "2 2 2"
    if [[ $device == igb ]]; then
        check "the table was set and read back" logged "RSS: key of .* bytes, table of 128 entries read back" 2
        check "no port is believed yet" rss_is unproven
    else
        check "the device gives no hash: software" logged "software places this port's packets: .*hash" 2
        check "software places packets" rss_is software
    fi
}

links_up() { [[ $(shown ports 'all(p["link_up"] for p in x["ports"])') == True ]]; }

service_decided() {
    guest_runs || die "QEMU ended"
    local state
    state=$(guest systemctl is-active haechi) || [[ $state == failed ]] || return 1
}

check_traffic() {
    check "ping through it" in_client ping -c 3 -W 5 -q "$SERVER_IP"
    check "curl through it, IPv4" fetch "$SERVER_IP"
    check "curl through it, IPv6" fetch "[$SERVER_IP6]"
    check "a port that no rule allows is refused" refused
    check "iperf3 through it, 8 connections" iperf "$SERVER_IP"
    check "iperf3 the other way" iperf "$SERVER_IP" --reverse
    check "iperf3 over IPv6" iperf "$SERVER_IP6"
    # Little enough that an emulated NIC keeps up.
    check "iperf3 with UDP" iperf "$SERVER_IP" --udp --bitrate 2M
    check "iperf3 with UDP over IPv6" iperf "$SERVER_IP6" --udp --bitrate 2M
}

# haechi's RST, at once, and not a time limit.
refused() {
    local status=0
    in_client curl -sS --max-time 60 "http://$SERVER_IP:81/" 2>"$RUN/refused" || status=$?
    sed 's/^/    /' "$RUN/refused"
    ((status == 7))
}

# Eight flows for some seconds, in which something has to arrive.
iperf() {
    in_client iperf3 --client "$@" --parallel 8 --time 5 --json >"$RUN/iperf3.json" || true
    python3 -c 'import json, sys
end = json.load(open(sys.argv[1]))["end"]
end = end.get("sum_received") or end["sum"]
lost = ", %.1f %% lost" % end["lost_percent"] if "lost_percent" in end else ""
print("    %.1f Mbit/s%s" % (end["bits_per_second"] / 1e6, lost))
sys.exit(end["bytes"] == 0)' "$RUN/iperf3.json"
}

# Everything that keeps the books, for whoever reads the output.
show_state() {
    shown ports '["    {name}: {driver} rss={rss} rx_queues={rx_queues} rx={rx_packets} tx={tx_packets} missed={rx_missed}".format(**p) for p in x["ports"]]'
    shown workers '["    worker {worker}: cpu={cpu} packets={packets} forwarded={forwarded} dropped={dropped} handed_over={handed_over} sessions={sessions}".format(**w) for w in x["workers"]]'
}

both_workers_forward() {
    show_state
    equals "$(shown workers 'all(w["forwarded"] > 0 for w in x["workers"])')" True
}

handed_over() { shown workers 'sum(w["handed_over"] for w in x["workers"])'; }

# Both ports' devices prove themselves by the packets of real connections, and are believed from then on.
check_proof() {
    local deadline=$((SECONDS + 300)) before
    until rss_is proven >/dev/null; do
        ((SECONDS < deadline)) && fetch_many 16 "$SERVER_IP" || break
    done
    check "RSS is proven on both ports" rss_is proven
    check "the log says so" logged "RSS is proven" 2
    check "both workers forward" both_workers_forward
    before=$(handed_over)
    check "64 connections, IPv4" fetch_many 64 "$SERVER_IP"
    check "64 connections, IPv6" fetch_many 64 "[$SERVER_IP6]"
    check "none of their packets came to the wrong worker" equals "$(handed_over)" "$before"
    check "still proven" rss_is proven
    check "no hash and no queue was wrong" unlogged MISMATCH
}

# virtio gives no hash: software places packets, and hands over those that came to the other worker.
check_software() {
    check "64 connections, IPv4" fetch_many 64 "$SERVER_IP"
    check "64 connections, IPv6" fetch_many 64 "[$SERVER_IP6]"
    check "both workers forward" both_workers_forward
    check "packets were handed over" [ "$(handed_over)" -gt 0 ]
    check "still software" rss_is software
}

unlogged() { ! logged "$1"; }

check_stop() {
    check "what was dropped was dropped by a rule or for want of room" only_these_drops policy queue_full tx_full
    check "SIGTERM ends it in order" stopped
    check "every packet is accounted for, every buffer is back" books_are_even
    check "the IOMMU refused nothing" no_faults
    # It may be off before it has answered.
    echo "systemctl poweroff" >&"$TO_GUEST"
    wait_for 120 "the guest is off" eval '! guest_runs'
}

only_these_drops() {
    local drops reason
    drops=$(shown counters '["{} {}".format(*d) for d in x["drops"].items() if d[1] > 0]')
    sed '/./s/^/    /' <<<"$drops"
    for reason; do drops=$(sed "/^$reason /d" <<<"$drops"); done
    [[ -z $drops ]]
}

stopped() {
    guest systemctl stop haechi
    equals "$(guest systemctl show -p Result --value haechi) $(guest systemctl show -p ExecMainStatus --value haechi)" "success 0"
}

# Its last line: what came in and what was made has gone out or was dropped.
books_are_even() {
    wait_for 30 "the totals are in the log" grep -q '^stopped: ' "$RUN/haechi.log"
    logged '^stopped: ' || return 1
    local number='([0-9]+)'
    [[ $(grep '^stopped: ' "$RUN/haechi.log") =~ in\ $number,\ made\ $number,\ out\ $number,\ dropped\ $number.*mbufs\ in\ use\ 0 ]] &&
        ((BASH_REMATCH[1] + BASH_REMATCH[2] == BASH_REMATCH[3] + BASH_REMATCH[4]))
}

no_faults() { ! on_console "DMAR:.*(fault|error)" 1; }

show_what_happened() {
    local file
    for file in qemu.log console.log haechi.log; do
        [[ -s $RUN/$file ]] || continue
        echo "--- $file"
        tail -n 60 "$RUN/$file" | tr -d '\r'
    done
}

keep_logs() {
    local file
    for file in haechi.log console.log qemu.log ports.json workers.json counters.json; do
        [[ ! -s $RUN/$file || -z $LOGS ]] || install -D -m 644 "$RUN/$file" "$LOGS/$1/$file"
        rm -f "${RUN:?}/$file"
    done
}
