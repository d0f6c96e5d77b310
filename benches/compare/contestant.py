# SPDX-License-Identifier: Apache-2.0
"""A forwarder as a child process that takes turns; testpmd and haechi."""

import os
import re
import signal
import subprocess
import time

from . import rules
from .common import Api, Failure, own_autogroup
from .generator import PORTS, Page

LONGEST = 1514  # of an IMIX


class Contestant:
    """One forwarder: a child process in a session and an autogroup of its own, with a page to its generator."""

    name = "?"
    knows_sessions = True

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
        size = LONGEST if self.case.length == "imix" else self.case.length
        return [f"net_null{i},size={size},copy=0" for i in range(PORTS)]

    def environment(self):
        return {
            **os.environ,
            "LD_PRELOAD": self.case.flowgen,
            "FLOWGEN_CTL": os.path.join(self.work, "flowgen.ctl"),
            "FLOWGEN_MODE": "count" if self.case.source == "pcap" else "generate",
            "FLOWGEN_PROTOCOL": self.case.source if self.case.source in ("tcp", "connect", "new") else "udp",
            "FLOWGEN_FLOWS": str(self.case.flows),
            "FLOWGEN_LENGTH": str(self.case.length),
            "FLOWGEN_SEED": str(self.case.seed),
        }

    def launch(self):
        with open(self.output, "wb") as output:
            self.child = subprocess.Popen(
                self.command(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                cwd=self.work,
                start_new_session=True,
                preexec_fn=self.before_exec,  # noqa: PLW1509 (no threads here)
            )

    def before_exec(self):
        own_autogroup()

    def start(self):
        self.launch()
        self.wait(self.polls, "polls both ports", 120)

    def polls(self):
        return self.page.ready() and all(self.page.port(i)["calls"] for i in range(PORTS))

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

    def schedstat(self, field=0):
        with open(f"/proc/{self.child.pid}/task/{self.page.tid()}/schedstat") as file:
            return int(file.read().split()[field])

    def waited(self):
        """Nanoseconds that the worker wanted to run, and others did on its CPU."""
        return self.schedstat(1)

    def sample(self):
        """(monotonic ns, packets, ns on CPU, flows opened), read within 50 microseconds where this process is let to."""
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
        return self.between(start, end)

    def between(self, start, end):
        """What happened between two samples."""
        ns, packets, on_cpu, opened = (b - a for a, b in zip(start, end))
        if packets == 0:
            raise Failure(f"{self.name} forwards nothing:\n{self.tail()}")
        return {
            "packets": packets,
            "seconds": ns / 1e9,
            "mpps": packets * 1e3 / ns,
            "opened": opened,
            "opened_per_second": opened * 1e9 / ns,
            "cpu_share": on_cpu / ns,
            "cycles_per_packet": on_cpu * self.page.tsc_hz() / 1e9 / packets,
        }

    def memory(self):
        """Bytes of memory that the process has, huge pages included."""
        with open(f"/proc/{self.child.pid}/smaps_rollup") as file:
            sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", file.read(), re.MULTILINE))
        return 1024 * sum(int(sizes[key]) for key in ("Rss", "Private_Hugetlb", "Shared_Hugetlb"))

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
    knows_sessions = False

    def command(self):
        mbufs = 65536 + 2 * self.case.flows if self.case.source == "pcap" else 65536
        control = self.case.control_cpus()[0]
        eal = ["-l", f"{control},{self.case.cpu}", "--main-lcore", str(control), "--in-memory", "--no-pci"]
        eal += ["--file-prefix", f"{self.case.file_prefix}-testpmd"]
        eal += [f"--vdev={device}" for device in self.devices()]
        app = ["--forward-mode=mac", "--auto-start", "--no-flush-rx", "--nb-cores=1", "--rxq=1", "--txq=1", "--burst=32"]
        app += [f"--total-num-mbufs={mbufs}"]
        return ["dpdk-testpmd", *eal, "--", *app]

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
    before = None

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
        if self.case.max_sessions:
            settings += ["[conntrack]", f"max_sessions = {self.case.max_sessions}"]
        if self.case.timeouts:
            settings += ["[conntrack.timeouts]", *(f'{key} = "{value}"' for key, value in self.case.timeouts.items())]
        return "\n".join(settings + rules.haechi(self.case.rules)) + "\n"

    def socket(self):
        return os.path.join(self.work, "haechi.sock")

    def api(self, what):
        return Api(self.socket()).get(what)

    def command(self):
        path = os.path.join(self.work, "haechi.toml")
        with open(path, "w") as file:
            file.write(self.config())
        return [self.binary(), "run", "-c", path]

    def binary(self):
        return self.case.haechi

    def sessions(self):
        """Sessions in the table, as the node's status tells."""
        return self.api("/v1/status")["sessions"]

    def flush(self):
        Api(self.socket()).ask("DELETE", "/v1/sessions?all=true", 60)

    def warm_up(self):
        self.page.run(True)
        if self.case.source == "connect":
            # Longer than the first ones last: from here on as many end as are opened.
            seconds = time.monotonic() + 3
            self.wait(lambda: time.monotonic() > seconds, "opens and closes connections", 20)
        elif self.case.source != "new":
            # Originals first, then replies: after one pass of the replies every session is established. With TCP that pass
            # may be the SYN+ACKs; the next one begins after the clients' ACKs.
            passes = 2 if self.case.source == "tcp" else 1
            self.wait(lambda: self.page.port(1)["passes"] >= passes or self.replied(), "has seen every flow's reply", 180)
        self.rest()
        if not self.case.opens:
            self.expect_sessions("after the warm-up")
        self.before = self.counters()

    def replied(self):
        """net_pcap counts no passes: twice all packets of both files are one pass of replies in any case."""
        return self.case.source == "pcap" and self.page.port(1)["packets"] > 2 * self.case.flows

    def expect_sessions(self, when):
        found = self.sessions()
        if found != self.case.flows:
            raise Failure(f"haechi holds {found} sessions {when}, not {self.case.flows}:\n{self.tail()}")
        first = self.api("/v1/sessions?limit=1000")["sessions"]
        state = "established" if self.case.source == "tcp" else "udp_replied"
        other = [s for s in first if s["state"] != state or s["rule"] != rules.NAME or 0 in s["packets"]]
        if other or not first:
            raise Failure(f"haechi holds a session {when} that is not established: {other[:1]}")

    def counters(self):
        return {
            "ports": self.api("/v1/ports")["ports"],
            "workers": self.api("/v1/workers")["workers"],
            "counters": self.api("/v1/counters"),
            "generated": self.page.packets(),
            "opened": self.page.opened(),
        }

    def finish(self):
        self.rest()
        if not self.case.opens:
            self.expect_sessions("at the end")
        before, after = self.before, self.counters()
        self.kill()
        if self.child.returncode != 0:
            raise Failure(f"haechi ended with status {self.child.returncode}:\n{self.tail()}")
        return self.judge(before, after)

    def judge(self, before, after):
        """Every packet that was generated since the warm-up was received, and sent, and none was dropped."""
        report = {"generated": after["generated"] - before["generated"]}
        for name, key in (
            ("received", "rx_packets"),
            ("sent", "tx_packets"),
            ("rx_missed", "rx_missed"),
            ("tx_dropped", "tx_dropped"),
        ):
            report[name] = sum(p[key] for p in after["ports"]) - sum(p[key] for p in before["ports"])
        report["forwarded"] = sum(w["forwarded"] for w in after["workers"]) - sum(w["forwarded"] for w in before["workers"])
        # The generator knows its replies from its originals: not even the warm-up may drop one. With net_pcap it may.
        dropped = before["counters"]["drops"] if self.case.source == "pcap" else {}
        drops = {name: count - dropped.get(name, 0) for name, count in after["counters"]["drops"].items()}
        drops = {name: count for name, count in drops.items() if count}
        if any(report[k] != report["generated"] for k in ("received", "forwarded", "sent")) or drops:
            raise Failure(f"haechi did not forward every packet: {report}, dropped: {drops}")
        if report["rx_missed"] or report["tx_dropped"]:
            raise Failure(f"haechi lost packets at its ports: {report}")
        made = after["counters"]["sessions_created"]
        if self.case.opens and made != after["opened"]:
            raise Failure(f"haechi made {made} sessions of {after['opened']} flows")
        return {**report, "drops": drops, "sessions": self.case.flows, "sessions_created": made, "config": self.config()}


class Before(Haechi):
    """Another build of haechi, to see what a change does."""

    name = "before"

    def binary(self):
        return self.case.before
