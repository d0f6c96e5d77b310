# SPDX-License-Identifier: Apache-2.0
"""haechi on veths beside nftables in the kernel; started by veth.sh, which see."""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from compare import HERE, Failure, log, machine
from compare.tables import as_markdown, as_text, publish_between
from idle import Node, ping

SMALL = 18  # bytes of UDP payload: a frame of 60 bytes, 64 with FCS
BEGIN, END = "<!-- benches/veth.sh --publish: begin -->", "<!-- benches/veth.sh --publish: end -->"


class Path:
    """A way from namespace A to namespace B."""

    def __init__(self, name, target):
        self.name, self.target = name, target

    def enter(self):
        """Before its turn."""

    def leave(self):
        """After its turn."""

    def forwarded(self):
        """Packets that it has let through so far; None where nothing counts them."""


class Kernel(Path):
    """Routed, `ct state` rules of nftables; `steered`: what the router receives is worked on on haechi's CPU (RPS)."""

    def __init__(self, name, options, steered):
        super().__init__(name, "10.98.3.2")
        self.namespace, self.cpus = f"{options.prefix}K", f"{1 << options.cpu:x}" if steered else "0"

    def enter(self):
        for side in "ab":
            line = f"echo {self.cpus} > /sys/class/net/{side}/queues/rx-0/rps_cpus"
            subprocess.run(["ip", "netns", "exec", self.namespace, "sh", "-c", line], check=True)

    def forwarded(self):
        text = subprocess.run(
            ["ip", "netns", "exec", self.namespace, "nft", "-j", "list", "counters"], check=True, capture_output=True, text=True
        ).stdout
        return sum(entry["counter"]["packets"] for entry in json.loads(text)["nftables"] if "counter" in entry)


class Haechi(Path):
    """A node on net_af_xdp, stopped while it is not its turn."""

    def __init__(self, node):
        super().__init__("haechi", "10.98.1.2")
        self.node = node

    def enter(self):
        os.kill(self.node.child.pid, signal.SIGCONT)

    def leave(self):
        os.kill(self.node.child.pid, signal.SIGSTOP)

    def forwarded(self):
        return sum(w["forwarded"] for w in self.node.api("/v1/workers")["workers"])


def busy_ns():
    """What all CPUs did so far, but for idling, in ns."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, irq, softirq, steal, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + softirq + steal) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def iperf(options, path, *arguments):
    """One run from A to B; the report of its end, and how many CPUs were busy."""
    line = ["ip", "netns", "exec", f"{options.prefix}A", "taskset", "-c", options.control, "iperf3", "-c", path.target, "-J"]
    busy, start = busy_ns(), time.monotonic_ns()
    done = subprocess.run(
        [*line, "-t", str(options.seconds), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60 + 2 * options.seconds,
    )
    cpus = (busy_ns() - busy) / (time.monotonic_ns() - start)
    report = json.loads(done.stdout or "{}")
    if done.returncode != 0 or "error" in report:
        raise Failure(f"iperf3 through {path.name}: {report.get('error') or done.stderr}")
    return report["end"], cpus


def turn(options, path):
    path.enter()
    try:
        ping(f"{options.prefix}A", path.target, 3, 0.01)  # ARP, and a worker that wakes
        before = path.forwarded()
        tcp, tcp_cpus = iperf(options, path)
        udp, udp_cpus = iperf(options, path, "-u", "-b", "0", "-l", str(SMALL))
        times = ping(f"{options.prefix}A", path.target, options.pings, 0.002)
        received = udp["sum"]["packets"] - udp["sum"]["lost_packets"]
        forwarded = None if before is None else path.forwarded() - before
        if forwarded is not None and forwarded < received + 2 * len(times):
            raise Failure(f"{received} UDP packets arrived, but {path.name} counts {forwarded} in all")
        return {
            "tcp_gbit_per_second": tcp["sum_received"]["bits_per_second"] / 1e9,
            "tcp_cpus": tcp_cpus,
            "udp_kpps": received / udp["sum"]["seconds"] / 1e3,
            "udp_lost": udp["sum"]["lost_percent"],
            "udp_cpus": udp_cpus,
            "round_trip_us": statistics.median(times),
            "forwarded": forwarded,
        }
    finally:
        path.leave()


def measure(options, work):
    server = subprocess.Popen(
        ["ip", "netns", "exec", f"{options.prefix}B", "taskset", "-c", options.control, "iperf3", "-s"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    devices = [f"net_af_xdp{i},iface={options.prefix}{side},busy_budget=0" for i, side in enumerate("ab")]
    try:
        with Node(options.haechi, f"{work}/haechi", options.cpu, *devices) as node:
            haechi = Haechi(node)
            paths = [
                Path("direct", "10.98.0.2"),
                haechi,
                Kernel("nftables", options, False),
                Kernel("nftables, RPS", options, True),
            ]
            haechi.leave()
            try:
                rounds = []
                for number in range(options.rounds):
                    rounds.append({p.name: turn(options, p) for p in (paths if number % 2 == 0 else paths[::-1])})
                    show_round(number, rounds[-1])
            finally:
                haechi.enter()
            counters = node.api("/v1/counters")
            drops = {name: n for name, n in counters["drops"].items() if n}
            held_back = (
                counters["rx_packets"] + counters["originated"] - counters["tx_packets"] - sum(drops.values()) - counters["held"]
            )
            if held_back != 0 or set(drops) - {"tx_full"}:
                raise Failure(f"haechi's account does not add up, or it dropped what it should not have: {counters}")
        return {"rounds": rounds, "haechi_drops": drops}
    finally:
        server.terminate()
        server.wait()


def show_round(number, turns):
    said = ", ".join(f"{n} {t['tcp_gbit_per_second']:.2f} Gbit/s, {t['udp_kpps']:.0f} kpps" for n, t in turns.items())
    print(f"  round {number + 1}: {said}", flush=True)


def table(result):
    rounds = result["rounds"]
    rows = []
    for name in ("direct", "haechi", "nftables", "nftables, RPS"):

        def middle(key, name=name):
            return statistics.median(r[name][key] for r in rounds)

        rows.append(
            [
                *(name, f"{middle('tcp_gbit_per_second'):.2f}", f"{middle('tcp_cpus'):.2f}", f"{middle('udp_kpps'):.0f}"),
                *(f"{middle('udp_lost'):.1f} %", f"{middle('udp_cpus'):.2f}", f"{middle('round_trip_us'):.0f}"),
            ]
        )
    header = ["", "TCP Gbit/s", "CPUs", "UDP 64 B kpps", "lost", "CPUs", "round trip us"]
    return "Between two namespaces, one flow, offloads off (medians)", header, rows


def main():
    parser = argparse.ArgumentParser(prog="benches/veth.sh", description="haechi on veths beside nftables")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each iperf3 run")
    parser.add_argument("--pings", type=int, default=200)
    parser.add_argument("--cpu", type=int, default=os.cpu_count() - 1)
    parser.add_argument("--json", default=os.path.join(HERE, "results", "veth.json"))
    parser.add_argument("--publish", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--haechi", required=True)
    parser.add_argument("--prefix", required=True)
    options = parser.parse_args()
    others = [c for c in range(os.cpu_count()) if c != options.cpu]
    options.control = ",".join(map(str, others))
    work = tempfile.mkdtemp(prefix="haechi-veth.")

    def interrupted(signum, _frame):
        raise SystemExit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupted)
    # No better priority than the kernel's own threads, which forward where nothing else does.
    os.sched_setaffinity(0, others)
    try:
        result = measure(options, work)
    except Failure as failure:
        log(f"veth: {failure}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(work, ignore_errors=True)
    about = machine()
    print(as_text([table(result)]))
    with open(options.json, "w") as file:
        json.dump({"machine": about, "options": vars(options), **result}, file, indent=1)
        file.write("\n")
    log(f"written: {options.json}")
    if options.publish:
        publish_between(as_markdown([table(result)], about), BEGIN, END)
    return 0


if __name__ == "__main__":
    sys.exit(main())
