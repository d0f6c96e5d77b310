# SPDX-License-Identifier: Apache-2.0
"""Side-by-side throughput of packet forwarders on one worker core; started by compare.sh, which see.

Both contestants are started with the same two devices and the same generator (benches/flowgen), are stopped by SIGSTOP,
and then take turns of a second or so on the same CPU. What is counted is what the generator delivered, which for a
forwarder that polls net_null is what it processed; that it all left again is checked at rest, from each contestant's
own counters, after the last turn.
"""

import argparse
import http.client
import json
import mmap
import os
import platform
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
MAGIC = 0x31304E4547574C46
PORTS = 2
ROOM = 4_000_000  # sessions, where connections come and go: those of a second or two
MBUF_BYTES = 2560  # header, headroom, data room of a standard frame, mempool overhead


class Failure(Exception):
    """What ends the run with one clear line."""


def log(text):
    print(text, file=sys.stderr, flush=True)


def own_autogroup():
    """For a child that is about to run: all CPUs, and before everybody else on them."""
    # A session of its own is an autogroup of its own, and under autogroups only the group's nice value counts.
    os.sched_setaffinity(0, range(os.cpu_count()))
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        with open("/proc/self/autogroup", "w") as file:
            file.write("-20")
    except OSError:
        pass  # a kernel without autogroups


class Page:
    """The page of struct flowgen_ctl (flowgen.h), shared with one contestant."""

    def __init__(self, path):
        with open(path, "w+b") as file:
            file.truncate(64 * (1 + PORTS))
            self.map = mmap.mmap(file.fileno(), 64 * (1 + PORTS))

    def ready(self):
        return struct.unpack_from("<Q", self.map, 0)[0] == MAGIC

    def tsc_hz(self):
        return struct.unpack_from("<Q", self.map, 8)[0]

    def run(self, on):
        struct.pack_into("<I", self.map, 16, 1 if on else 0)

    def port(self, index):
        names = ("packets", "calls", "paused", "passes", "taken_back", "tid", "port_id", "opened")
        return dict(zip(names, struct.unpack_from("<QQQQQIIQ", self.map, 64 * (1 + index))))

    def packets(self):
        return sum(self.port(i)["packets"] for i in range(PORTS))

    def opened(self):
        return self.port(0)["opened"]

    def taken_back(self):
        return sum(self.port(i)["taken_back"] for i in range(PORTS))

    def tid(self):
        return self.port(0)["tid"]


class Api:
    """A haechi node's control API: HTTP and JSON over its Unix socket."""

    def __init__(self, path):
        self.path = path

    def get(self, what):
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(10)
        try:
            connection.sock.connect(self.path)
            connection.request("GET", what)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise Failure(f"haechi's API answers {what} with {response.status}: {body[:200]!r}")
        return json.loads(body)


class Contestant:
    """One forwarder: a child process in a session and an autogroup of its own, with a page to its generator."""

    name = "?"

    def __init__(self, case, work):
        self.case = case
        self.work = os.path.join(work, self.name)
        os.makedirs(self.work)
        self.page = Page(os.path.join(self.work, "flowgen.ctl"))
        self.output = os.path.join(self.work, "output")
        self.child = None

    def devices(self):
        if self.case.source == "pcap":
            return [f"net_pcap{i},rx_pcap={path},infinite_rx=1" for i, path in enumerate(self.case.pcaps)]
        return [f"net_null{i},size={self.case.length},copy=0" for i in range(PORTS)]

    def start(self):
        environment = dict(os.environ)
        environment.update(
            LD_PRELOAD=self.case.flowgen,
            FLOWGEN_CTL=os.path.join(self.work, "flowgen.ctl"),
            FLOWGEN_MODE="count" if self.case.source == "pcap" else "generate",
            FLOWGEN_PROTOCOL=self.case.source if self.case.source in ("tcp", "connect") else "udp",
            FLOWGEN_FLOWS=str(self.case.flows),
            FLOWGEN_LENGTH=str(self.case.length),
            FLOWGEN_SEED=str(self.case.seed),
        )

        with open(self.output, "wb") as output:
            self.child = subprocess.Popen(
                self.command(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.work,
                start_new_session=True,
                preexec_fn=own_autogroup,
            )
        self.wait(lambda: self.page.ready() and all(self.page.port(i)["calls"] for i in range(PORTS)), "polls both ports", 120)

    def wait(self, condition, what, seconds):
        end = time.monotonic() + seconds
        while not condition():
            if self.child.poll() is not None:
                raise Failure(f"{self.name} ended with status {self.child.returncode}:\n{self.tail()}")
            if time.monotonic() > end:
                raise Failure(f"{self.name}: waited {seconds} s in vain until it {what}:\n{self.tail()}")
            time.sleep(0.01)

    def tail(self):
        with open(self.output, errors="replace") as file:
            return "".join(file.readlines()[-15:])

    def stop(self):
        os.kill(self.child.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.child.pid, signal.SIGCONT)

    def rest(self):
        """No more packets, and those that were delivered have gone through."""
        self.page.run(False)
        before = [self.page.port(i)["paused"] for i in range(PORTS)]
        # A second empty poll of a port comes after the work on the last full one.
        self.wait(lambda: all(self.page.port(i)["paused"] > before[i] + 64 for i in range(PORTS)), "comes to rest", 20)
        time.sleep(0.2)

    def schedstat(self):
        with open(f"/proc/{self.child.pid}/task/{self.page.tid()}/schedstat") as file:
            return int(file.read().split()[0])

    def sample(self):
        """(monotonic ns, packets, ns on CPU, connections opened), read within 50 microseconds where this process is let to."""
        for _ in range(50):
            before = time.monotonic_ns()
            packets = self.page.packets()
            opened = self.page.opened()
            on_cpu = self.schedstat()
            after = time.monotonic_ns()
            if after - before < 50_000:
                break
        return before, packets, on_cpu, opened

    def turn(self, settle, seconds):
        self.resume()
        time.sleep(settle)
        start = self.sample()
        time.sleep(seconds)
        end = self.sample()
        self.stop()
        ns, packets, on_cpu, opened = (b - a for a, b in zip(start, end))
        if packets == 0:
            raise Failure(f"{self.name} forwards nothing:\n{self.tail()}")
        return {
            "packets": packets,
            "seconds": ns / 1e9,
            "mpps": packets * 1e3 / ns,
            "connections_per_second": opened * 1e9 / ns,
            "cpu_share": on_cpu / ns,
            "cycles_per_packet": on_cpu * self.page.tsc_hz() / 1e9 / packets,
        }

    def kill(self):
        if self.child is None or self.child.poll() is not None:
            return
        try:
            self.resume()
            self.child.terminate()
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Testpmd(Contestant):
    """dpdk-testpmd --forward-mode=mac: both MAC addresses rewritten, nothing else; the ceiling of this machine."""

    name = "testpmd"

    def command(self):
        mbufs = 65536 + 2 * self.case.flows if self.case.source == "pcap" else 65536
        control = next(c for c in range(os.cpu_count()) if c != self.case.cpu)
        eal = ["-l", f"{control},{self.case.cpu}", "--main-lcore", str(control), "--in-memory", "--no-pci"]
        eal += ["--file-prefix", self.prefix()]
        eal += [f"--vdev={device}" for device in self.devices()]
        app = ["--forward-mode=mac", "--auto-start", "--no-flush-rx", "--nb-cores=1", "--rxq=1", "--txq=1", "--burst=32"]
        app += [f"--total-num-mbufs={mbufs}"]
        return ["dpdk-testpmd", *eal, "--", *app]

    def prefix(self):
        return f"{self.case.file_prefix}-testpmd"

    def warm_up(self):
        self.page.run(True)
        self.wait(lambda: self.page.packets() > 4 * self.case.flows, "goes through its flows twice", 120)
        self.rest()

    def finish(self):
        """Ends it and returns its totals, from what it prints at the end."""
        self.rest()
        generated = self.page.packets()
        self.child.stdin.write(b"\n")  # "Press enter to exit"
        self.child.stdin.close()
        self.child.wait(60)
        with open(self.output, errors="replace") as file:
            text = file.read()
        totals = text[text.rfind("Accumulated forward statistics for all ports") :]
        value = {key: int(v) for key, v in re.findall(r"([RT]X-\w+):\s*(\d+)", totals)}
        received = value.get("RX-packets", 0) - self.page.taken_back()
        if received != generated or value.get("TX-packets") != generated:
            raise Failure(f"testpmd: {generated} packets generated, but it counts {value}")
        return {"generated": generated, "received": received, "sent": value["TX-packets"], "counters": value}


class Haechi(Contestant):
    """`haechi run` as a user runs it: every setting that changes its speed is at its default."""

    name = "haechi"
    rule = "lan-out"

    def config(self):
        lan, wan = self.devices()
        settings = [
            "version = 1",
            "[node]",
            'name = "bench"',
            'mode = "transparent"',
            f'workers = "{self.case.cpu}"',
            f'control_socket = "{self.socket()}"',
        ]
        if self.case.source == "pcap":
            # net_pcap keeps every packet of its file in the port's own pool.
            settings.append(f"packet_buffers = {65535 + self.case.flows}")
        for name, device, zone, peer in (("lan", lan, "trust", "wan"), ("wan", wan, "untrust", "lan")):
            settings += ["[[port]]", f'name = "{name}"', f'device = "vdev:{device}"', f'zone = "{zone}"', f'peer = "{peer}"']
        if self.case.source == "connect":
            # Short enough that those that are over make room for the next ones.
            settings += ["[conntrack]", f"max_sessions = {ROOM}", "[conntrack.timeouts]", 'tcp_time_wait = "1s"']
        elif self.case.flows > 1_000_000:
            settings += ["[conntrack]", f"max_sessions = {self.case.flows}"]
        settings += ["[[rule]]", f'name = "{self.rule}"', 'from = "trust"', 'to = "untrust"', 'action = "allow"']
        return "\n".join(settings) + "\n"

    def socket(self):
        return os.path.join(self.work, "haechi.sock")

    def command(self):
        path = os.path.join(self.work, "haechi.toml")
        with open(path, "w") as file:
            file.write(self.config())
        return [self.binary(), "run", "-c", path]

    def binary(self):
        return self.case.haechi

    def sessions(self):
        """Sessions in the table, as the node's status tells."""
        return Api(self.socket()).get("/v1/status")["sessions"]

    def warm_up(self):
        self.page.run(True)
        if self.case.source == "connect":
            # Longer than the first ones last: from here on as many end as are opened.
            seconds = time.monotonic() + 3
            self.wait(lambda: time.monotonic() > seconds, "opens and closes connections", 20)
            self.rest()
            self.before = self.counters()
            return
        # Originals first, then replies: after one pass of the replies every session is established. With TCP that pass may
        # be the SYN+ACKs; the next one begins after the clients' ACKs.
        passes = 2 if self.case.source == "tcp" else 1
        self.wait(lambda: self.page.port(1)["passes"] >= passes or self.replied(), "has seen every flow's reply", 180)
        self.rest()
        self.expect_sessions("after the warm-up")
        self.before = self.counters()

    def replied(self):
        """net_pcap counts no passes: twice all packets of both files are one pass of replies in any case."""
        return self.case.source == "pcap" and self.page.port(1)["packets"] > 2 * self.case.flows

    def expect_sessions(self, when):
        found = self.sessions()
        if found != self.case.flows:
            raise Failure(f"haechi holds {found} sessions {when}, not {self.case.flows}:\n{self.tail()}")
        first = Api(self.socket()).get("/v1/sessions?limit=1000")["sessions"]
        state = "established" if self.case.source == "tcp" else "udp_replied"
        other = [s for s in first if s["state"] != state or s["rule"] != self.rule or 0 in s["packets"]]
        if other or not first:
            raise Failure(f"haechi holds a session {when} that is not established: {other[:1]}")

    def counters(self):
        api = Api(self.socket())
        return {
            "ports": api.get("/v1/ports")["ports"],
            "workers": api.get("/v1/workers")["workers"],
            "drops": api.get("/v1/counters"),
            "generated": self.page.packets(),
            "opened": self.page.opened(),
            "taken_back": self.page.taken_back(),
        }

    def finish(self):
        self.rest()
        if self.case.source != "connect":
            self.expect_sessions("at the end")
        before, after = self.before, self.counters()
        self.kill()
        if self.child.returncode != 0:
            raise Failure(f"haechi ended with status {self.child.returncode}:\n{self.tail()}")
        return self.judge(before, after)

    def judge(self, before, after):
        """Every packet that was generated since the warm-up was received, and sent, and none was dropped."""

        def since(get):
            return get(after) - get(before)

        generated = since(lambda c: c["generated"])
        sums = {key: since(lambda c, k=key: sum(p[k] for p in c["ports"])) for key in ("rx_packets", "tx_packets")}
        lost = {key: since(lambda c, k=key: sum(p[k] for p in c["ports"])) for key in ("rx_missed", "tx_dropped")}
        drops = {name: since(lambda c, n=name: drop_count(c["drops"], n)) for name in drop_names(after["drops"])}
        if self.case.source != "pcap":
            # The generator knows its replies from its originals: not even the warm-up may drop one.
            drops = {name: drop_count(after["drops"], name) for name in drops}
        forwarded = since(lambda c: sum(w["forwarded"] for w in c["workers"]))
        report = {"generated": generated, "received": sums["rx_packets"], "forwarded": forwarded, "sent": sums["tx_packets"]}
        if any(value != generated for value in report.values()) or any(lost.values()) or any(drops.values()):
            wrong = {k: v for k, v in {**lost, **drops}.items() if v}
            raise Failure(f"haechi did not forward every packet: {report}, lost or dropped: {wrong}")
        if self.case.source == "connect" and after["drops"]["sessions_created"] != after["opened"]:
            raise Failure(f"haechi made {after['drops']['sessions_created']} sessions of {after['opened']} connections")
        return {**report, "lost": lost, "drops": drops, "sessions": self.case.flows, "config": self.config()}


class Before(Haechi):
    """Another build of haechi, to see what a change does."""

    name = "before"

    def binary(self):
        return self.case.before


def drop_names(counters):
    return sorted(counters["drops"])


def drop_count(counters, name):
    return counters["drops"][name]


CONTESTANTS = {"testpmd": Testpmd, "before": Before, "haechi": Haechi}


def flow_tuple(flow, seed):
    """Client, server and client's port of a flow: the same as in flowgen.c."""
    client = 0x0A000000 | ((flow * 0x9E3779B1 + seed) & 0xFFFFFF)
    server = 0xC6120000 | ((flow * 0x85EBCA77 & 0xFFFFFFFF) >> 22)
    return client, server, 0x8000 | ((flow * 0xC2B2AE3D & 0xFFFFFFFF) >> 17)


def write_pcap(path, case, reply):
    """One frame of each flow in one direction, in an order of its own for each direction."""

    def folded(total):
        total = (total & 0xFFFF) + (total >> 16)
        return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF

    length, payload = case.length, bytes(i & 0xFF for i in range(42, case.length))
    macs = bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]) if reply else bytes([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1])
    words = struct.unpack(f">{(len(payload) + 1) // 2}H", payload + b"\0" * (len(payload) & 1))
    ip_constant = 0x4500 + length - 14 + 0x4000 + (64 << 8) + 17
    udp_constant = 443 + 2 * (length - 34) + 17 + sum(words)
    head = struct.Struct(">12sHHHHHHHIIHHHH")
    record = struct.pack("<IIII", 0, 0, length, length)
    order = list(range(case.flows))
    random.Random(case.seed + reply).shuffle(order)
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for flow in order:
            client, server, port = flow_tuple(flow, case.seed)
            addresses = (client >> 16) + (client & 0xFFFF) + (server >> 16) + (server & 0xFFFF)
            source, destination, ports = (server, client, (443, port)) if reply else (client, server, (port, 443))
            file.write(record)
            file.write(
                head.pack(
                    macs, 0x0800, 0x4500, length - 14, 0, 0x4000, (64 << 8) | 17, folded(ip_constant + addresses),
                    source, destination, *ports, length - 34, folded(udp_constant + addresses + port) or 0xFFFF,
                )
            )
            file.write(payload)


class Case:
    """One row of the table: a number of flows from one source."""

    def __init__(self, options, flows, source, work):
        self.flows, self.source, self.work = flows, source, work
        self.length, self.seed, self.cpu = options.length, options.seed, options.cpu
        self.flowgen, self.haechi, self.before = options.flowgen, options.haechi, options.before
        self.file_prefix = options.file_prefix
        self.pcaps = []
        if source == "pcap":
            self.pcaps = [os.path.join(work, name) for name in ("originals.pcap", "replies.pcap")]
            for path, reply in zip(self.pcaps, (False, True)):
                write_pcap(path, self, reply)


def run_case(options, case):
    running = []
    try:
        for name in options.contestants:
            contestant = CONTESTANTS[name](case, case.work)
            running.append(contestant)
            contestant.start()
            contestant.warm_up()
            contestant.page.run(True)
            contestant.stop()
        return take_turns(options, case, running)
    finally:
        for contestant in running:
            contestant.kill()


def take_turns(options, case, running):
    rounds, refused = [], []
    while len(rounds) < options.rounds:
        # ABBA: whatever drifts steadily hits both alike.
        order = running if len(rounds) % 2 == 0 else running[::-1]
        turns = {c.name: c.turn(options.settle, options.seconds) for c in order}
        if min(t["cpu_share"] for t in turns.values()) * 100 < options.min_share:
            refused.append(turns)
            if len(refused) > 4 * options.rounds:
                shares = ", ".join(f"{min(t['cpu_share'] for t in r.values()):.2f}" for r in refused[-8:])
                raise Failure(f"the worker does not get {options.min_share} % of CPU {case.cpu} (it got {shares})")
            continue
        rounds.append(turns)
    totals = {}
    for contestant in running:
        contestant.resume()
        totals[contestant.name] = contestant.finish()
    return {"flows": case.flows, "source": case.source, "rounds": rounds, "refused_rounds": refused, "totals": totals}


def median(result, name, key):
    return statistics.median(r[name][key] for r in result["rounds"])


def ratios(result, name, base):
    return [r[name]["mpps"] / r[base]["mpps"] for r in result["rounds"]]


def print_case(result, names):
    base = names[0]
    label = f"{result['source']}, {result['flows']} flow{'s' if result['flows'] != 1 else ''}"
    head = f"{label:<24}" + "".join(f"{n + ' Mpps':>15}{'cycles':>9}{'CPU':>7}" for n in names)
    head += "".join(f"{n + '/' + base:>18}" for n in names[1:])
    print(head)
    for i, turns in enumerate(result["rounds"]):
        line = f"  round {i + 1:<16}"
        for n in names:
            t = turns[n]
            line += f"{t['mpps']:>15.2f}{t['cycles_per_packet']:>9.1f}{t['cpu_share'] * 100:>6.1f}%"
        print(line + "".join(f"{turns[n]['mpps'] / turns[base]['mpps']:>18.3f}" for n in names[1:]))
    line = "  median" + " " * 16
    for n in names:
        line += f"{median(result, n, 'mpps'):>15.2f}{median(result, n, 'cycles_per_packet'):>9.1f}{'':>7}"
    line += "".join(f"{statistics.median(ratios(result, n, base)):>18.3f}" for n in names[1:])
    if result["source"] == "connect":
        print_rates(result, names)
    refused = len(result["refused_rounds"])
    print(line + (f"   ({refused} disturbed rounds repeated)" if refused else ""), flush=True)


def print_rates(result, names):
    """Connections opened and closed in a second, the median over the rounds."""
    rates = ", ".join(f"{n} {median(result, n, 'connections_per_second') / 1e6:.3f}" for n in names)
    print(f"  million connections a second (six segments each): {rates}")


def main():
    options = parse_options()
    work = tempfile.mkdtemp(prefix="haechi-compare.")
    report = {"machine": machine(), "options": vars(options), "cases": []}

    def interrupted(signum, _frame):
        raise SystemExit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupted)
    others = [c for c in range(os.cpu_count()) if c != options.cpu]
    os.sched_setaffinity(0, others)
    try:
        for source in options.source:
            for flows in options.flows:
                directory = os.path.join(work, f"{source}-{flows}")
                os.makedirs(directory)
                result = run_case(options, Case(options, flows, source, directory))
                report["cases"].append(result)
                print_case(result, options.contestants)
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
        log(f"written: {options.json}")
    except Failure as failure:
        log(f"compare: {failure}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    return 0


def machine():
    def first(pattern, path):
        with open(path) as file:
            found = re.search(pattern, file.read(), re.M)
        return found.group(1) if found else "?"

    def command(*line):
        return subprocess.run(line, capture_output=True, text=True, cwd=ROOT).stdout.strip()

    return {
        "cpu": first(r"^model name\s*: (.*)$", "/proc/cpuinfo"),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "dpdk": command("pkg-config", "--modversion", "libdpdk"),
        "commit": command("git", "describe", "--always", "--dirty"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def parse_options():
    def numbers(text):
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(prog="benches/compare.sh", description="haechi beside other forwarders, one worker")
    parser.add_argument("--flows", type=numbers, default=[1, 1000, 100000, 1000000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--settle", type=float, default=0.2)
    parser.add_argument("--source", type=lambda t: t.split(","), default=["null"])
    parser.add_argument("--contestants", type=lambda t: t.split(","), default=["testpmd", "haechi"])
    parser.add_argument("--length", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cpu", type=int, default=os.cpu_count() - 1)
    parser.add_argument("--min-share", type=float, default=95)
    parser.add_argument("--json", default=os.path.join(HERE, "results", "compare.json"))
    parser.add_argument("--flowgen", required=True)
    parser.add_argument("--haechi", default="")
    parser.add_argument("--before", default="")
    parser.add_argument("--file-prefix", required=True, help="of DPDK's runtime directories; the caller removes them")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    unknown = set(options.contestants) - set(CONTESTANTS) | set(options.source) - {"null", "tcp", "connect", "pcap"}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    if "before" in options.contestants and not options.before:
        parser.error("--before FILE is wanted")
    return options


if __name__ == "__main__":
    sys.exit(main())
