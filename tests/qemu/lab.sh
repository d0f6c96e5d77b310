# shellcheck shell=bash
# Where the guest stands: a namespace with two bridges and QEMU on their TAPs, and a client and a server in namespaces of their
# own behind the bridges. Sourced by run.sh.

CLIENT=$NET-client SERVER=$NET-server
CLIENT_IP=10.99.0.1 SERVER_IP=10.99.0.2 CLIENT_IP6=fd99::1 SERVER_IP6=fd99::2
# Receive queues of a multi-queue TAP.
QUEUES=4
# Seconds until the guest's agent has to have answered, and haechi has to be in service: a busy machine emulates slowly.
BOOT=600

in_client() { ip netns exec "$CLIENT" "$@"; }
in_server() { ip netns exec "$SERVER" "$@"; }

# A port of the lab: bridge, TAP for QEMU, a cable to the host that stands there.
make_side() {
    local side=$1 host=$2 multi_queue=$3 ip=$4 ip6=$5
    ip -n "$NET" link add "br-$side" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    # shellcheck disable=SC2086 # one word or none
    ip -n "$NET" tuntap add dev "tap-$side" mode tap vnet_hdr $multi_queue
    ip link add "$side" netns "$NET" type veth peer name eth0 netns "$host"
    local link
    for link in "tap-$side" "$side"; do ip -n "$NET" link set "$link" master "br-$side" up; done
    ip -n "$NET" link set "br-$side" up
    # Frames of their real size and with their checksums: haechi looks at both.
    ip netns exec "$host" ethtool -K eth0 tx off tso off gso off gro off >/dev/null 2>&1
    ip -n "$host" link set lo up
    ip -n "$host" link set eth0 up
    ip -n "$host" address add "$ip/24" dev eth0
    ip -n "$host" address add "$ip6/64" dev eth0 nodad
}

make_lab() {
    local multi_queue='' ns
    [[ $1 != virtio ]] || multi_queue=multi_queue
    for ns in "$NET" "$CLIENT" "$SERVER"; do ip netns add "$ns"; done
    # The bridges are wires: nothing of this host speaks on them.
    ip netns exec "$NET" sh -c 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6'
    make_side lan "$CLIENT" "$multi_queue" "$CLIENT_IP" "$CLIENT_IP6"
    make_side wan "$SERVER" "$multi_queue" "$SERVER_IP" "$SERVER_IP6"
    mkdir -p "$RUN/www"
    head -c 1000000 /dev/urandom >"$RUN/www/file"
    (cd "$RUN/www" && exec ip netns exec "$SERVER" python3 -m http.server --bind :: 80) >"$RUN/www.log" 2>&1 &
    ip netns exec "$SERVER" iperf3 --server >"$RUN/iperf3.log" 2>&1 &
    wait_for 30 "the servers listen" eval '[[ $(ip netns exec "$SERVER" ss -Hltn | grep -cE ":(80|5201) ") -ge 2 ]]'
}

remove_lab() {
    local ns pid
    for ns in "$CLIENT" "$SERVER" "$NET"; do
        [[ -e /run/netns/$ns ]] || continue
        for pid in $(ip netns pids "$ns"); do end_process "$pid"; done
        ip netns del "$ns"
    done
}

# Asks a process to end, and insists.
end_process() {
    kill -TERM "$1" 2>/dev/null || return 0
    for _ in {1..100}; do
        kill -0 "$1" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null || return 0
        sleep 0.05
    done
    kill -KILL "$1" 2>/dev/null || true
}

# Waits for a condition: seconds, what it is, a command.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < deadline)) || die "waited in vain until $what"
        sleep 0.2
    done
}

# The words of QEMU for a NIC.
nic() {
    local device=$1 side=$2 slot=$3 mac=$4
    case $device in
    igb)
        echo "-netdev tap,id=$side,ifname=tap-$side,script=no,downscript=no"
        echo "-device igb,netdev=$side,mac=$mac,bus=pcie.0,addr=$slot,romfile="
        ;;
    virtio)
        echo "-netdev tap,id=$side,ifname=tap-$side,script=no,downscript=no,queues=$QUEUES,vhost=off"
        # iommu_platform: the device's addresses are the IOMMU's.
        echo "-device virtio-net-pci,netdev=$side,mac=$mac,bus=pcie.0,addr=$slot,romfile=,mq=on,rss=on,hash=on" \
            | sed "s/\$/,vectors=$((2 * QUEUES + 2)),iommu_platform=on,disable-legacy=on/"
        ;;
    esac
}

# The slots are those of haechi.toml, far enough from each other for the virtual functions that an igb keeps room for.
start_guest() {
    local device=$1 words
    mkfifo "$RUN"/control.{in,out}
    # To open a pipe's end waits for the other end, unless one has both.
    exec {TO_GUEST}<>"$RUN/control.in" {FROM_GUEST}<>"$RUN/control.out"
    mapfile -t words < <({ nic "$device" lan 0x08 02:68:78:00:00:01 && nic "$device" wan 0x0a 02:68:78:00:00:02; } | tr ' ' '\n')
    # Interrupt remapping and the CPU's features that haechi is built for; CPU 0 is for all but the workers.
    ip netns exec "$NET" "${QEMU[@]}" -nodefaults -no-user-config -no-reboot -display none -monitor none \
        -machine q35 -accel tcg,thread=multi -cpu max -smp 3 -m 1536 -device intel-iommu,intremap=on \
        -kernel "$GUEST/vmlinuz" -initrd "$RUN/initrd" \
        -append "console=ttyS0 intel_iommu=on hugepages=256 net.ifnames=0 mitigations=off systemd.show_status=error" \
        -drive "if=none,id=root,format=raw,file=$RUN/root.ext4" -device virtio-blk-pci,drive=root,serial=root \
        -drive "if=none,id=haechi,format=raw,readonly=on,file=$RUN/haechi.ext4" -device virtio-blk-pci,drive=haechi,serial=haechi \
        -serial "file:$RUN/console.log" -device virtio-serial-pci \
        -chardev "pipe,id=control,path=$RUN/control" -device virtserialport,chardev=control,name=control \
        -chardev "file,id=log,path=$RUN/haechi.log" -device virtserialport,chardev=log,name=haechi \
        "${words[@]}" {TO_GUEST}>&- {FROM_GUEST}>&- >"$RUN/qemu.log" 2>&1 &
    QEMU_PID=$!
    echo "$QEMU_PID" >"$RUN/qemu.pid"
    guest_answer $BOOT
}

guest_runs() { kill -0 "$QEMU_PID" 2>/dev/null; }

# The next line of the guest's agent, within so many seconds: prints the output, returns the status.
guest_answer() {
    local deadline=$((SECONDS + $1)) status output
    while ! read -r -t 1 -u "$FROM_GUEST" status output; do
        guest_runs || die "QEMU ended: $(tail -n 3 "$RUN/qemu.log")"
        ((SECONDS < deadline)) || die "the guest does not answer"
    done
    base64 -d <<<"$output"
    return "$status"
}

# Runs a command in the guest.
guest() {
    echo "$*" >&"$TO_GUEST"
    guest_answer 120
}

# Ends QEMU, also one that another shell of this script started.
end_guest() {
    local pid
    if [[ -s $RUN/qemu.pid ]]; then
        pid=$(<"$RUN/qemu.pid")
        # The number may be another process's by now.
        if [[ -e /run/netns/$NET ]] && ip netns pids "$NET" | grep -qx "$pid"; then end_process "$pid"; fi
    fi
    rm -f "$RUN"/qemu.pid "$RUN"/control.{in,out}
}
