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


MEMORY_MIB = 256


def hugepages():
    """Whether there are enough huge pages; a node at rest is as well served by ordinary memory."""
    with open("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") as file:
        return str(int(file.read()) * 2 >= MEMORY_MIB).lower()


class Node:
    """A haechi node with two ports in transparent mode, everything at its default."""

    def __init__(self, binary, work, cpu, lan, wan):
        os.makedirs(work)
        self.work = work
        self.socket = os.path.join(work, "haechi.sock")
        self.output = os.path.join(work, "output")
        config = os.path.join(work, "haechi.toml")
        with open(config, "w") as file:
            file.write(
                f'version = 1\n[node]\nname = "idle"\nmode = "transparent"\nworkers = "{cpu}"\n'
                f'control_socket = "{self.socket}"\nmemory_mib = {MEMORY_MIB}\npacket_buffers = 16384\n'
                f"hugepages = {hugepages()}\n"
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
                preexec_fn=own_autogroup,  # noqa: PLW1509 (no threads here)
            )

    def __enter__(self):
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

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
    text = subprocess.run(line, check=False, capture_output=True, text=True).stdout
    times = [float(t) * 1000 for t in re.findall(r"time=([0-9.]+) ms", text)]
    if len(times) != count:
        raise Failure(f"{count} pings sent, {len(times)} answered:\n{text[-500:]}")
    return times[1:]  # the first one waits for ARP


class Peer:
    """testpmd at the other end of a node's first port, sending nothing until it is told to."""

    def __init__(self, options, node, device):
        self.node = node
        self.output = os.path.join(node.work, "testpmd")
        with open(self.output, "wb") as output:
            self.tool = self.spawn(options, device, output)

    @staticmethod
    def spawn(options, device, output):
        return subprocess.Popen(
            ["stdbuf", "-oL", "dpdk-testpmd", "--lcores", f"(0,1)@{options.control}", "--main-lcore", "0", "--no-pci"]
            + ["--no-huge", "-m", "256", "--file-prefix", options.file_prefix, "--vdev", device]
            + ["--", "-i", "--nb-cores=1", "--total-num-mbufs=8192", "--burst=32", "--no-flush-rx", "--port-topology=loop"]
            + ["--rxd=1024", "--txd=1024"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )

    def __enter__(self):
        try:
            self.wait("is joined to haechi", 30, lambda: self.lan()["link_up"])
            self.wait("takes commands", 30, lambda: "testpmd>" in self.said())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.tool.poll() is None:
            self.tool.kill()
            self.tool.wait()

    def wait(self, what, seconds, condition):
        end = time.monotonic() + seconds
        while not condition():
            if self.tool.poll() is not None or time.monotonic() > end:
                raise Failure(f"not so: testpmd {what}\n{self.said()[-2000:]}\n{self.node.said()}")
            time.sleep(0.05)

    def said(self):
        with open(self.output, errors="replace") as file:
            return file.read()

    def say(self, text):
        self.tool.stdin.write(text + "\n")
        self.tool.stdin.flush()

    def lan(self):
        return next(p for p in self.node.api("/v1/ports")["ports"] if p["name"] == "lan")

    def bursts(self, name, count):
        """Sends as many packets as the receive ring holds, as fast as it can, to a node that sleeps; again and again."""
        self.say("set fwd rxonly")
        lost = []
        for _ in range(count):
            time.sleep(0.3)
            before = self.lan()["rx_packets"]
            # A question wakes the worker: it shall sleep again.
            time.sleep(0.1)
            self.say("start tx_first 32")
            end = time.monotonic() + 5
            while self.lan()["rx_packets"] - before < 1024 and time.monotonic() < end:
                time.sleep(0.01)
            lost.append(1024 - (self.lan()["rx_packets"] - before))
            self.say("stop")
        self.say("quit")
        self.tool.wait(20)
        unsent = [int(n) for n in re.findall(r"TX-dropped:\s*(\d+)", self.said())]
        drops = {name: n for name, n in self.node.api("/v1/counters")["drops"].items() if n}
        print(
            f"{name:<44}{count:>8} bursts, {sum(lost)} packets lost, "
            f"{sum(unsent)} not taken by the ring, drops: {drops or 'none'}",
            flush=True,
        )
        return {"what": name, "bursts": count, "lost": lost, "not_taken": sum(unsent), "drops": drops}


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def silence(interface):
    """The kernel sends nothing of its own."""
    subprocess.run(["sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1"], check=False)


def pings(options, name):
    """Round-trip times between the namespaces, through the node that is there."""
    a, target = f"{options.prefix}A", "10.99.0.2"
    return [
        show_times(f"round trip after 0.2 s of silence, {name}", ping(a, target, options.pings, 0.2)),
        show_times(f"round trip 2 ms after the last, {name}", ping(a, target, options.pings, 0.002)),
    ]


def idle_share(options, node, name):
    time.sleep(1)
    return show_share(f"idle, {name}", node.cpu_share(options.seconds))


def on_polled_ports(options, work):
    with Node(options.haechi, f"{work}/null", options.cpu, POLLED, POLLED.replace("null0", "null1")) as node:
        return [idle_share(options, node, "ports that never have a packet")]


def on_kernel_sockets(options, work):
    veths = [f"net_af_xdp{i},iface={options.prefix}{side},busy_budget=0" for i, side in enumerate("ab")]
    with Node(options.haechi, f"{work}/xdp", options.cpu, *veths) as node:
        ping(f"{options.prefix}A", "10.99.0.2", 3, 0.2)
        return [idle_share(options, node, "net_af_xdp on veths"), *pings(options, "af_xdp")]


def on_taps(options, work):
    """A tap is joined to each namespace's veth by a bridge."""
    taps = [f"net_tap{i},iface={options.prefix}t{side}" for i, side in enumerate("ab")]
    with Node(options.haechi, f"{work}/tap", options.cpu, *taps) as node:
        bridges = [f"{options.prefix}r{side}" for side in "ab"]
        try:
            for side, bridge in zip("ab", bridges):
                ip("link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
                for member in (f"{options.prefix}t{side}", f"{options.prefix}{side}"):
                    silence(member)
                    ip("link", "set", member, "master", bridge, "up")
                silence(bridge)
                ip("link", "set", bridge, "up")
            ping(f"{options.prefix}A", "10.99.0.2", 3, 0.2)
            return [idle_share(options, node, "net_tap, interrupts"), *pings(options, "tap")]
        finally:
            for bridge in bridges:
                subprocess.run(["ip", "link", "del", bridge], stderr=subprocess.DEVNULL, check=False)


def on_memif(options, work, log2):
    socket = f"socket-abstract=no,socket={work}/memif{log2}.sock"
    ring = f"net_memif, a ring of {1 << log2}"
    memif = f"net_memif0,role=server,id=0,rsize={log2},{socket}"
    with Node(options.haechi, f"{work}/memif{log2}", options.cpu, memif, "net_null0,no-rx=1") as node:
        results = [idle_share(options, node, f"{ring}, without a peer")]
        with Peer(options, node, f"net_memif0,role=client,id=0,rsize={log2},{socket}") as peer:
            results.append(idle_share(options, node, f"{ring}, with a peer"))
            results.append(peer.bursts(f"bursts of 1024, {ring}", options.bursts))
        return results


def on_vhost(options, work):
    socket, tap = f"{work}/vhost.sock", f"{options.prefix}tb"
    with Node(options.haechi, f"{work}/vhost", options.cpu, f"net_vhost0,iface={socket}", f"net_tap1,iface={tap}") as node:
        silence(tap)
        ip("link", "set", tap, "up")
        with Peer(options, node, f"net_virtio_user0,path={socket},queue_size=1024") as peer:
            results = [idle_share(options, node, "net_vhost with a guest, interrupts")]
            results.append(peer.bursts("bursts of 1024, net_vhost", options.bursts))
        return results


def run(options, work):
    others = [c for c in range(os.cpu_count()) if c != options.cpu]
    options.control = others[0]
    os.sched_setaffinity(0, others)
    results = [*on_polled_ports(options, work), *on_kernel_sockets(options, work), *on_taps(options, work)]
    if shutil.which("dpdk-testpmd"):
        results += [*on_memif(options, work, 10), *on_memif(options, work, 14), *on_vhost(options, work)]
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
