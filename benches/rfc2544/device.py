# SPDX-License-Identifier: Apache-2.0
"""A device under test: a forwarder between two ports of net_null, with the generator's wire (benches/flowgen/wire.h) before them."""

import mmap
import os
import re
import signal
import struct
import subprocess
import sys
import time

from search import Trial, percentile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from compare import Api, Failure, own_autogroup  # noqa: E402

PORTS = 2
FCS = 4
CTL_BYTES = 64 * (1 + PORTS)
CTL_MAGIC = 0x31304E4547574C46
WIRE_MAGIC = 0x31304552495757
STEPS, OCTAVES = 32, 40
PORT_BYTES = 128 + 8 * OCTAVES * STEPS


def shared(path, size):
    with open(path, "w+b") as file:
        file.truncate(size)
        return mmap.mmap(file.fileno(), size)


class Page:
    """struct flowgen_ctl (flowgen.h) and struct flowgen_wire (wire.h), shared with the generator."""

    def __init__(self, directory):
        self.ctl = shared(os.path.join(directory, "flowgen.ctl"), CTL_BYTES)
        self.wire = shared(os.path.join(directory, "flowgen.wire"), 64 + PORTS * PORT_BYTES)
        self.number = 0

    def ready(self):
        return struct.unpack_from("<Q", self.ctl, 0)[0] == CTL_MAGIC and struct.unpack_from("<Q", self.wire, 0)[0] == WIRE_MAGIC

    def tsc_hz(self):
        return struct.unpack_from("<Q", self.wire, 8)[0]

    def run(self, on):
        struct.pack_into("<I", self.ctl, 16, 1 if on else 0)

    def source(self, port):
        names = ("packets", "calls", "paused", "passes", "taken_back", "tid")
        return dict(zip(names, struct.unpack_from("<QQQQQI", self.ctl, 64 * (1 + port))))

    def start(self, frames, rate, every):
        """A new trial: so many frames at each port at `rate` a second, one in `every` tagged. Rate 0: as many as are polled."""
        self.number += 1
        struct.pack_into("<QdQ", self.wire, 24, frames, rate, every)
        struct.pack_into("<Q", self.wire, 16, self.number)

    def port(self, port):
        names = ("trial", "arrived", "taken", "lost", "longest_gap", "tagged", "missing", "_0")
        names += ("sent", "sent_trial", "measured", "least", "most")
        return dict(zip(names, struct.unpack_from(f"<{len(names)}Q", self.wire, 64 + port * PORT_BYTES)))

    def histogram(self, port):
        return struct.unpack_from(f"<{OCTAVES * STEPS}Q", self.wire, 64 + port * PORT_BYTES + 128)


def bucket_bound(bucket):
    """The largest number of ticks that wire_bucket() of wire.h puts there."""
    if bucket < STEPS:
        return bucket
    octave, step = divmod(bucket, STEPS)
    return ((STEPS + step + 1) << (octave - 1)) - 1


class Device:
    """A child process in a session and an autogroup of its own, polled by one worker."""

    name = "?"

    def __init__(self, options, length, work):
        self.options, self.length, self.flows = options, length, options.flows
        self.work = os.path.join(work, f"{self.name}-{length}")
        os.makedirs(self.work)
        self.page = Page(self.work)
        self.output = os.path.join(self.work, "output")
        self.child = None
        self.lost_inside = 0

    def devices(self):
        return [f"net_null{i},size={self.length},copy=0" for i in range(PORTS)]

    def start(self):
        environment = dict(os.environ)
        environment.update(
            LD_PRELOAD=self.options.flowgen,
            FLOWGEN_CTL=os.path.join(self.work, "flowgen.ctl"),
            FLOWGEN_WIRE=os.path.join(self.work, "flowgen.wire"),
            FLOWGEN_RING=str(self.options.ring),
            FLOWGEN_FLOWS=str(self.flows),
            FLOWGEN_LENGTH=str(self.length),
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
        self.wait(lambda: self.page.ready() and all(self.page.source(i)["calls"] for i in range(PORTS)), "polls both ports", 120)
        self.warm_up()

    def wait(self, condition, what, seconds):
        end = time.monotonic() + seconds
        while not condition():
            if self.child.poll() is not None:
                raise Failure(f"{self.name} ended with status {self.child.returncode}:\n{self.tail()}")
            if time.monotonic() > end:
                raise Failure(f"{self.name}: waited {seconds} s in vain until it {what}:\n{self.tail()}")
            time.sleep(0.005)

    def tail(self):
        with open(self.output, errors="replace") as file:
            return "".join(file.readlines()[-15:])

    def warm_up(self):
        """Every flow's originals, then its replies."""
        self.page.run(True)
        self.wait(lambda: self.page.source(1)["passes"] >= 1, "has seen every flow's reply", 180)
        self.rest()

    def rest(self):
        """No more frames, and those that were delivered have gone through."""
        self.page.run(False)
        before = [self.page.source(i)["paused"] for i in range(PORTS)]
        self.wait(lambda: all(self.page.source(i)["paused"] > before[i] + 64 for i in range(PORTS)), "comes to rest", 20)
        self.wait(lambda: self.inside() == self.lost_inside, "has sent what it took", 20)

    def inside(self):
        """Frames that went in and did not come out, since the start."""
        return self.delivered() - self.sent()

    def schedstat(self):
        """Nanoseconds that the worker ran, and that it could have run and did not: another process had its CPU."""
        with open(f"/proc/{self.child.pid}/task/{self.page.source(0)['tid']}/schedstat") as file:
            on_cpu, waited = file.read().split()[:2]
        return int(on_cpu), int(waited)

    def capacity(self, seconds):
        """Frames a second that it takes where there is always another one, in the time that its worker has the CPU; no trial of the
        RFC's."""
        self.rest()
        self.page.start(0, 0.0, 0)
        self.page.run(True)
        self.wait(lambda: all(self.page.port(i)["trial"] == self.page.number for i in range(PORTS)), "polls", 20)
        packets, on_cpu = self.delivered(), self.schedstat()[0]
        time.sleep(seconds)
        packets, on_cpu = self.delivered() - packets, self.schedstat()[0] - on_cpu
        self.rest()
        if packets == 0 or on_cpu == 0:
            raise Failure(f"{self.name} forwards nothing:\n{self.tail()}")
        return packets * 1e9 / on_cpu

    def delivered(self):
        return sum(self.page.source(i)["packets"] for i in range(PORTS))

    def sent(self):
        return sum(self.page.port(i)["sent"] for i in range(PORTS))

    def trial(self, rate, seconds, every=0):
        """RFC 2544, section 23: frames at `rate` a second, both ports together, for `seconds`; then up to two for those under way."""
        page, frames = self.page, max(1, round(rate / PORTS * seconds))
        self.rest()
        sent_before = self.sent()
        page.start(frames, rate / PORTS, every)
        on_cpu, waited = self.schedstat()
        page.run(True)
        self.wait(lambda: self.over(frames), "has been offered all frames of a trial", seconds + 30)
        now_on_cpu, now_waited = self.schedstat()
        taken = sum(page.port(i)["taken"] for i in range(PORTS))
        end = time.monotonic() + 2
        while self.sent() - sent_before < taken and time.monotonic() < end:
            time.sleep(0.005)
        ports = [page.port(i) for i in range(PORTS)]
        offered, came_out = PORTS * frames, self.sent() - sent_before
        self.lost_inside += taken - came_out
        tick = 1e6 / page.tsc_hz()
        details = {
            "sent": came_out,
            "lost_ring_full": sum(p["lost"] for p in ports),
            "lost_inside": taken - came_out,
            "longest_poll_gap_us": round(max(p["longest_gap"] for p in ports) * tick, 1),
            "worker_cpu_s": round((now_on_cpu - on_cpu) / 1e9, 4),
            "worker_waited_s": round((now_waited - waited) / 1e9, 4),
        }
        if every:
            details["latency_us"] = self.latency(tick)
        return Trial(rate, offered, offered - came_out, details)

    def over(self, frames):
        ports = [self.page.port(i) for i in range(PORTS)]
        return all(p["trial"] == self.page.number and p["taken"] + p["lost"] == frames for p in ports)

    def latency(self, tick):
        """Section 26.2: from a frame's arrival on the wire until it is handed to the driver, both directions."""
        ports = [self.page.port(i) for i in range(PORTS)]
        if any(p["sent_trial"] != self.page.number for p in ports) or not all(p["measured"] for p in ports):
            raise Failure(f"{self.name}: no tagged frame came out:\n{self.tail()}")
        counts = [sum(both) for both in zip(*(self.page.histogram(i) for i in range(PORTS)))]
        histogram = [(bucket_bound(b), n) for b, n in enumerate(counts) if n]
        most = max(p["most"] for p in ports)
        ticks = {
            "min": min(p["least"] for p in ports),
            "median": min(percentile(histogram, 0.5), most),
            "p99": min(percentile(histogram, 0.99), most),
            "max": most,
        }
        figures = {name: round(value * tick, 3) for name, value in ticks.items()}
        return {"samples": sum(p["measured"] for p in ports), **figures}

    def kill(self):
        if self.child is None or self.child.poll() is not None:
            return
        try:
            self.child.send_signal(signal.SIGTERM)
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Testpmd(Device):
    """dpdk-testpmd --forward-mode=mac: both MAC addresses rewritten, nothing else."""

    name = "testpmd"

    def command(self):
        control = next(c for c in range(os.cpu_count()) if c != self.options.cpu)
        eal = ["-l", f"{control},{self.options.cpu}", "--main-lcore", str(control), "--in-memory", "--no-pci"]
        eal += ["--file-prefix", f"{self.options.file_prefix}-testpmd"]
        eal += [f"--vdev={device}" for device in self.devices()]
        app = ["--forward-mode=mac", "--auto-start", "--no-flush-rx", "--nb-cores=1", "--rxq=1", "--txq=1", "--burst=32"]
        return ["dpdk-testpmd", *eal, "--", *app, "--total-num-mbufs=65536"]

    def finish(self):
        """Ends it; what it counts as sent has to be what the wire saw."""
        self.rest()
        sent = self.sent()
        self.child.stdin.write(b"\n")  # "Press enter to exit"
        self.child.stdin.close()
        self.child.wait(60)
        with open(self.output, errors="replace") as file:
            text = file.read()
        totals = text[text.rfind("Accumulated forward statistics for all ports") :]
        counted = re.search(r"TX-packets:\s*(\d+)", totals)
        if counted is None or int(counted[1]) != sent:
            raise Failure(f"testpmd: {sent} frames came out, and it counts {counted and counted[1]}")


class Haechi(Device):
    """`haechi run` as a user runs it: every setting that changes its speed is at its default."""

    name = "haechi"

    def command(self):
        lan, wan = self.devices()
        settings = ["version = 1", "[node]", 'name = "rfc2544"', 'mode = "transparent"', f'workers = "{self.options.cpu}"']
        settings.append(f'control_socket = "{self.work}/haechi.sock"')
        for name, device, zone, peer in (("lan", lan, "trust", "wan"), ("wan", wan, "untrust", "lan")):
            settings += ["[[port]]", f'name = "{name}"', f'device = "vdev:{device}"', f'zone = "{zone}"', f'peer = "{peer}"']
        if self.flows > 1_000_000:
            settings += ["[conntrack]", f"max_sessions = {self.flows}"]
        settings += ["[[rule]]", 'name = "lan-out"', 'from = "trust"', 'to = "untrust"', 'action = "allow"']
        path = os.path.join(self.work, "haechi.toml")
        with open(path, "w") as file:
            file.write("\n".join(settings) + "\n")
        return [self.options.haechi, "run", "-c", path]

    def get(self, what):
        return Api(f"{self.work}/haechi.sock").get(what)

    def warm_up(self):
        super().warm_up()
        self.expect_sessions("after the warm-up")

    def expect_sessions(self, when):
        sessions = self.get("/v1/status")["sessions"]
        if sessions != self.flows:
            raise Failure(f"haechi holds {sessions} sessions {when}, not {self.flows}:\n{self.tail()}")

    def finish(self):
        """Ends it; it holds its sessions still, and has a reason for every frame that it kept."""
        self.rest()
        self.expect_sessions("at the end")
        drops = {name: n for name, n in self.get("/v1/counters")["drops"].items() if n}
        if sum(drops.values()) != self.lost_inside:
            raise Failure(f"haechi counts drops {drops}, and {self.lost_inside} frames did not come out")
        self.kill()
        if self.child.returncode != 0:
            raise Failure(f"haechi ended with status {self.child.returncode}:\n{self.tail()}")


DEVICES = {"haechi": Haechi, "testpmd": Testpmd}


def line_rate(gbits, size):
    """Frames a second of a size (with FCS) that fill a link; 20 bytes more are preamble, start delimiter and gap."""
    return gbits * 1e9 / ((size + 20) * 8)
