#!/usr/bin/env bash
# Proves the generator with somebody else's eyes: testpmd writes what flowgen made to capture files, and check.py and
# tcpdump judge every frame: lengths, both checksums, that each pass has every flow once, and that replies mirror originals.
# benches/flowgen/check.sh, as root; needs dpdk, libdpdk-dev, gcc, pkg-config, python3 and tcpdump.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/haechi-flowgen.XXXXXX)
# shellcheck source=benches/run_dirs.sh
source "$here/../run_dirs.sh"
sweep_run_dirs flowgen
prefix=flowgen-$$
trap 'rm -rf "$work" && remove_run_dirs "$prefix"' EXIT
trap 'exit 130' INT TERM HUP

# shellcheck disable=SC2046 # pkg-config prints words
cc -O3 -march=native -Wall -Wextra -shared -fPIC $(pkg-config --cflags libdpdk) \
    "$here/flowgen.c" -o "$work/flowgen.so" $(pkg-config --libs libdpdk)

packets() { # packets PORT: what the generator has delivered there, from struct flowgen_ctl
    od -An -t u8 -j $((64 * ($1 + 1))) -N 8 "$work/ctl"
}
enter_when_done() { # enter_when_done FLOWS PROTOCOL: which ends testpmd
    for _ in {1..600}; do
        sleep 0.1
        [ "$(packets 0)" -gt $((2 * $1 + 16384)) ] || continue
        if [ "$2" = new ] || [ "$(packets 1)" -gt $((2 * $1 + 16384)) ]; then break; fi
    done
    echo
}

for case in "1 60" "2 60" "1000 60" "777 1514" "5000 61" "300000 60" "1 imix" "5000 imix" "1 60 tcp" "1000 60 tcp" "777 600 tcp" \
    "1 1514 tcp" "100000 61 tcp" "1 imix tcp" "5000 imix tcp" "1 60 connect" "5000 60 connect" "1 60 new"; do
    read -r flows length protocol <<<"$case"
    # run = 1 from the start: the fifth word of struct flowgen_ctl.
    { head -c 16 /dev/zero && printf '\1\0\0\0' && head -c 172 /dev/zero; } >"$work/ctl"
    enter_when_done "$flows" "$protocol" | LD_PRELOAD=$work/flowgen.so FLOWGEN_CTL=$work/ctl FLOWGEN_FLOWS=$flows \
        FLOWGEN_LENGTH=$length FLOWGEN_PROTOCOL=${protocol:-udp} \
        timeout 90 dpdk-testpmd -l 0,1 --main-lcore 0 --no-huge -m 512 --no-pci --file-prefix "$prefix" \
        --vdev "net_null0,size=${length/imix/1514},copy=0" --vdev "net_pcap0,tx_pcap=$work/originals.pcap" \
        --vdev "net_null1,size=${length/imix/1514},copy=0" --vdev "net_pcap1,tx_pcap=$work/replies.pcap" \
        -- --forward-mode=io --auto-start --nb-cores=1 --no-flush-rx --total-num-mbufs=16384 >"$work/output" 2>&1 ||
        { cat "$work/output" && exit 1; }
    # shellcheck disable=SC2086 # no protocol is no word
    python3 "$here/check.py" $protocol "$flows" "$length" "$work/originals.pcap" "$work/replies.pcap"
    for file in originals replies; do
        [ "$protocol $file" != "new replies" ] || continue
        # tcpdump as a second judge; it says so of a wrong checksum of either header.
        judged=$(tcpdump -nvv -c 20000 -r "$work/$file.pcap" 2>/dev/null)
        [ "$(grep -cE 'udp sum ok|\(correct\)' <<<"$judged")" -ge 4096 ]
        if grep -qE 'bad (udp )?cksum|incorrect' <<<"$judged"; then exit 1; fi
    done
done
echo "flowgen: every frame is right"
