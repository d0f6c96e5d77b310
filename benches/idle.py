# SPDX-License-Identifier: Apache-2.0
"""What an idle node costs and how fast it wakes; started by idle.sh, which see."""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from compare import Api, Failure, log, own_autogroup

POLLED = "net_null0,no-rx=1,size=60"  # a device that a worker polls and that never has a packet


class Node:
    """A haechi node with two ports in transparent mode, everything at its default."""

    def __init__(self, binary, work, cpu, lan, wan):
        os.makedirs(work)
        self.socket = os.path.join(work, "haechi.sock")
        self.output = os.path.join(work, "output")
        config = os.path.join(work, "haechi.toml")
        with open(config, "w") as file:
            file.write(
                f'version = 1\n[node]\nname = "idle"\nmode = "transparent"\nworkers = "{cpu}"\n'
                f'control_socket = "{self.socket}"\nmemory_mib = 256\npacket_buffers = 16384\n'
                f'[[port]]\nname = "lan"\ndevice = "vdev:{lan}"\nzone = "trust"\npeer = "wan"\n'
                f'[[port]]\nname = "wan"\ndevice = "vdev:{wan}"\nzone = "untrust"\npeer = "lan"\n'
                '[conntrack]\nmax_sessions = 10000\n[[rule]]\nname = "out"\nfrom = "trust"\nto = "untrust"\naction = "allow"\n'
            )
        with open(self.output, "wb") as output:
            self.child = subprocess.Popen(
                [binary, "run", "-c", config],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=own_autogroup,
            )

    def wait_ready(self):
        end = time.monotonic() + 60
        while "ready" not in self.said().split():
            if self.child.poll() is not None or time.monotonic() > end:
                raise Failure(f"haechi is not ready:\n{self.said()}")
            time.sleep(0.05)

    def said(self):
        with open(self.output, errors="replace") as file:
            return file.read()

    def api(self, what):
        return Api(self.socket).get(what)

    def cpu_ns(self):
        """CPU time of all threads so far, by thread name."""
        times = {}
        for tid in os.listdir(f"/proc/{self.child.pid}/task"):
            base = f"/proc/{self.child.pid}/task/{tid}"
            try:
                with open(f"{base}/comm") as name, open(f"{base}/schedstat") as stat:
                    key = name.read().strip()
                    times[key] = times.get(key, 0) + int(stat.read().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that ended
        return times

    def cpu_share(self, seconds):
        before, start = self.cpu_ns(), time.monotonic_ns()
        time.sleep(seconds)
        after, ns = self.cpu_ns(), time.monotonic_ns() - start
        return {name: (after[name] - before.get(name, 0)) / ns for name in after}

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


def percentile(values, percent):
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def show_share(name, shares):
    total = sum(shares.values())
    threads = ", ".join(f"{n} {s * 100:.2f} %" for n, s in sorted(shares.items(), key=lambda t: -t[1])[:3])
    print(f"{name:<44}{total * 100:>8.2f} % of a CPU   ({threads})", flush=True)
    return {"what": name, "share": total, "threads": shares}


def show_times(name, values):
    print(
        f"{name:<44}{statistics.median(values):>8.0f} us median {percentile(values, 99):>7.0f} us p99"
        f" {max(values):>7.0f} us max   ({len(values)} packets)",
        flush=True,
    )
    return {"what": name, "microseconds": values}


def ping(namespace, target, count, interval):
    """Round-trip times in microseconds; all must come back."""
    line = ["ip", "netns", "exec", namespace, "ping", "-n", "-c", str(count), "-i", str(interval), "-W", "2", target]
    text = subprocess.run(line, capture_output=True, text=True).stdout
    times = [float(t) * 1000 for t in re.findall(r"time=([0-9.]+) ms", text)]
    if len(times) != count:
        raise Failure(f"{count} pings sent, {len(times)} answered:\n{text[-500:]}")
    return times[1:]  # the first one waits for ARP


def burst(options, node, work, rings):
    """testpmd sends as many packets as the receive ring holds, as fast as it can, to a node that sleeps."""
    tool = subprocess.Popen(
        ["stdbuf", "-oL", "dpdk-testpmd", "--lcores", f"(0,1)@{options.control}", "--main-lcore", "0", "--no-pci"]
        + ["--no-huge", "-m", "256", "--file-prefix", options.file_prefix]
        + ["--vdev", f"net_memif0,role=client,id=0,rsize=10,socket-abstract=no,socket={work}/memif.sock"]
        + ["--", "-i", "--nb-cores=1", "--total-num-mbufs=8192", "--burst=32", "--no-flush-rx", "--port-topology=loop"],
        stdin=subprocess.PIPE,
        stdout=open(os.path.join(work, "testpmd"), "wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )

    def say(text):
        tool.stdin.write(text + "\n")
        tool.stdin.flush()

    def lan():
        return next(p for p in node.api("/v1/ports")["ports"] if p["name"] == "lan")

    try:
        end = time.monotonic() + 30
        while not lan()["link_up"]:
            if tool.poll() is not None or time.monotonic() > end:
                raise Failure("testpmd and haechi are not joined by memif")
            time.sleep(0.1)
        say("set fwd rxonly")
        lost = []
        for _ in range(rings):
            time.sleep(0.3)
            before = lan()["rx_packets"]
            say("start tx_first 32")
            end = time.monotonic() + 5
            while lan()["rx_packets"] - before < 1024 and time.monotonic() < end:
                time.sleep(0.01)
            lost.append(1024 - (lan()["rx_packets"] - before))
            say("stop")
        say("quit")
        tool.wait(20)
    finally:
        if tool.poll() is None:
            tool.kill()
            tool.wait()
    with open(os.path.join(work, "testpmd"), errors="replace") as file:
        unsent = [int(n) for n in re.findall(r"TX-dropped:\s*(\d+)", file.read())]
    counters = node.api("/v1/counters")
    dropped = {name: n for name, n in counters["drops"].items() if n}
    print(
        f"{'bursts of 1024 into a sleeping node':<44}{rings:>8} bursts, {sum(lost)} packets lost, "
        f"{sum(unsent)} not taken by the ring, drops: {dropped or 'none'}",
        flush=True,
    )
    return {"what": "burst", "bursts": rings, "lost": lost, "not_taken": sum(unsent), "drops": dropped}


def run(options, work):
    results = []
    others = [c for c in range(os.cpu_count()) if c != options.cpu]
    options.control = others[0]
    os.sched_setaffinity(0, others)

    node = Node(options.haechi, f"{work}/null", options.cpu, POLLED, POLLED.replace("null0", "null1"))
    try:
        node.wait_ready()
        time.sleep(1)
        results.append(show_share("idle, ports that never have a packet", node.cpu_share(options.seconds)))
    finally:
        node.stop()

    veths = [f"net_af_xdp{i},iface={options.prefix}{side},busy_budget=0" for i, side in enumerate("ab")]
    node = Node(options.haechi, f"{work}/xdp", options.cpu, *veths)
    a, target = f"{options.prefix}A", "10.99.0.2"
    try:
        node.wait_ready()
        ping(a, target, 3, 0.2)
        time.sleep(1)
        results.append(show_share("idle, net_af_xdp on veths", node.cpu_share(options.seconds)))
        results.append(show_times("round trip after 0.2 s of silence, af_xdp", ping(a, target, options.pings, 0.2)))
        results.append(show_times("round trip 2 ms after the last, af_xdp", ping(a, target, options.pings, 0.002)))
    finally:
        node.stop()

    if shutil.which("dpdk-testpmd"):
        memif = f"net_memif0,role=server,id=0,rsize=10,socket-abstract=no,socket={work}/memif.sock"
        node = Node(options.haechi, f"{work}/memif", options.cpu, memif, "net_null0,no-rx=1")
        try:
            node.wait_ready()
            time.sleep(1)
            results.append(show_share("idle, net_memif without a peer", node.cpu_share(options.seconds)))
            results.append(burst(options, node, work, options.bursts))
        finally:
            node.stop()
    return results


def interrupted(signum, _frame):
    raise SystemExit(128 + signum)


def main():
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupted)
    parser = argparse.ArgumentParser(prog="benches/idle.sh", description="what an idle node costs, how fast it wakes")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--pings", type=int, default=100)
    parser.add_argument("--bursts", type=int, default=20)
    parser.add_argument("--cpu", type=int, default=os.cpu_count() - 1)
    parser.add_argument("--json")
    parser.add_argument("--haechi", required=True)
    parser.add_argument("--prefix", required=True, help="of the namespaces and interfaces")
    parser.add_argument("--file-prefix", required=True, help="of DPDK's runtime directories; the caller removes them")
    options = parser.parse_args()
    work = tempfile.mkdtemp(prefix="haechi-idle.")
    try:
        results = run(options, work)
        if options.json:
            with open(options.json, "w") as file:
                json.dump(results, file, indent=1)
    except Failure as failure:
        log(f"idle: {failure}")
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
