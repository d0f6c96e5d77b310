# SPDX-License-Identifier: Apache-2.0
"""haechi with several workers, on devices with a receive queue for each of them (flowgen/queues.c)."""

import os
import struct
import time

from .common import Failure
from .contestant import Haechi
from .generator import PORTS, Page

QUEUES = 16  # of a device at most
FIELDS = ("packets", "calls", "paused", "passes", "taken_back", "tid", "port_id", "sent", "astray")
NONE, BOTH, ORIGINALS = range(3)
WINDOW_NS = 50_000  # in which a sample of one worker is to be read
# What the devices are (tests/rssdev/device.h). One that refuses the table took the key before: so the generator knows the owners.
DEVICES = {"proven": "reta=512", "software": "reta=512,refuse=table"}


class QueuesPage(Page):
    """The page of struct queues_ctl."""

    def __init__(self, path, queues):
        super().__init__(path, 1 + PORTS * QUEUES)  # one line more in front
        self.queues = queues

    def lane(self, queue, port):
        return dict(zip(FIELDS, struct.unpack_from("<QQQQQIIQQ", self.map, 64 * (2 + PORTS * queue + port))))

    def lanes(self, ports=range(PORTS)):
        return [self.lane(queue, port) for queue in range(self.queues) for port in ports]

    def total(self, field):
        return sum(lane[field] for lane in self.lanes())

    def packets(self):
        return self.total("packets")

    def set_run(self, run):
        struct.pack_into("<I", self.map, 16, run)

    def set_share(self, percent):
        """Of the flows, so many come by another worker's queue, from the next run on."""
        struct.pack_into("<Q", self.map, 24, round(10 * percent))


class Crew(Haechi):
    """A node with a worker on each of some CPUs. `rss`: what its ports shall be."""

    def __init__(self, case, work, cpus, rss):
        self.name = f"{rss}-{'-'.join(map(str, cpus))}"
        super().__init__(case, work)
        self.cpus, self.rss = cpus, rss
        self.delivered_before = self.sent_before = 0
        self.page = QueuesPage(os.path.join(self.work, "flowgen.ctl"), len(cpus))

    def environment(self):
        # One worker has nobody to share with: whatever the device can do, it has one queue.
        return {**super().environment(), "HAECHI_RSSDEV": DEVICES.get(self.rss, DEVICES["proven"])}

    def polls(self):
        return self.page.ready() and all(lane["calls"] for lane in self.page.lanes())

    def rest(self):
        """No more packets, and those that were delivered have been sent or dropped."""
        self.page.set_run(NONE)
        before = self.paused_and_sent()
        self.wait(lambda: self.has_settled(before), "comes to rest", 20)

    def has_settled(self, before):
        """Has every queue been polled in vain for a while, in which nothing was sent? `before` is when that began."""
        now = self.paused_and_sent()
        if any(sent != sent_then for (_, sent), (_, sent_then) in zip(now, before)):
            before[:] = now
        return all(paused > then + 64 for (paused, _), (then, _) in zip(now, before))

    def paused_and_sent(self):
        return [(lane["paused"], lane["sent"]) for lane in self.page.lanes()]

    def warm_up(self):
        """Every flow's original, by its owner's queue, then replies, until the ports are what they are to be."""
        self.page.set_share(0)
        self.page.set_run(ORIGINALS)
        self.wait(lambda: all(lane["passes"] for lane in self.page.lanes([0])), "has seen every flow's original", 180)
        self.rest()
        self.page.set_run(BOTH)
        self.wait(lambda: all(lane["passes"] for lane in self.page.lanes()), "has seen every flow's reply", 180)
        self.wait(lambda: set(self.states()) == {self.rss}, f"has ports that are {self.rss}", 20)
        self.rest()
        self.expect_sessions("after the warm-up")
        self.before = self.counters()

    def states(self):
        return [port["rss"] for port in self.api("/v1/ports")["ports"]]

    def counters(self):
        return {**super().counters(), "astray": self.page.total("astray")}

    def on_cpu(self):
        """Nanoseconds that each worker ran."""
        times = []
        for queue in range(self.page.queues):
            with open(f"/proc/{self.child.pid}/task/{self.page.lane(queue, 0)['tid']}/schedstat") as file:
                times.append(int(file.read().split()[0]))
        return times

    def sample(self):
        """As of one worker, but of the packets that were sent, and all workers' time; behind that each one's."""
        for _ in range(50):
            before = time.monotonic_ns()
            sent, on_cpu = self.page.total("sent"), self.on_cpu()
            if time.monotonic_ns() - before < WINDOW_NS * len(self.cpus):
                break
        return before, sent, sum(on_cpu), 0, *on_cpu

    def between(self, start, end):
        shares = [(b - a) / (end[0] - start[0]) for a, b in zip(start[4:], end[4:])]
        return {**super().between(start[:4], end[:4]), "cpu_share": min(shares), "cpu_shares": shares}

    def begin(self, percent):
        """Runs, with so much to be handed over."""
        self.resume()
        self.delivered_before, self.sent_before = self.page.packets(), self.page.total("sent")
        self.page.set_share(percent)
        self.page.set_run(BOTH)

    def end(self):
        """Has others run; returns the share of the packets since it began that was lost between workers."""
        self.rest()
        self.stop()
        delivered = self.page.packets() - self.delivered_before
        return 1 - (self.page.total("sent") - self.sent_before) / delivered

    def judge(self, before, after):
        """Every packet that was generated went where it belongs: what came by another worker's queue was handed over, nothing
        else was, and all of it was sent but for what found a full queue between workers."""

        def grown(where, *keys):
            return sum(entry[key] for entry in after[where] for key in keys) - sum(
                entry[key] for entry in before[where] for key in keys
            )

        report = {key: after[key] - before[key] for key in ("generated", "astray")}
        report |= {key: grown("workers", key) for key in ("forwarded", "handed_over", "taken_over")}
        report |= {"received": grown("ports", "rx_packets"), "sent": grown("ports", "tx_packets")}
        drops = {name: count for name, count in after["counters"]["drops"].items() if count}
        lost = drops.get("queue_full", 0)
        if set(drops) - {"queue_full"} or grown("ports", "rx_missed", "tx_dropped"):
            raise Failure(f"{self.name}: haechi lost packets: {report}, dropped: {drops}")
        if report["received"] != report["generated"] or any(
            report[k] != report["generated"] - lost for k in ("forwarded", "sent")
        ):
            raise Failure(f"{self.name}: haechi's account is not even: {report}, dropped: {drops}")
        if any(report[k] != report["astray"] - lost for k in ("handed_over", "taken_over")):
            raise Failure(
                f"{self.name}: haechi did not hand over what came by another worker's queue: {report}, dropped: {drops}"
            )
        if self.states_of(after) != {self.rss}:
            raise Failure(f"{self.name}: haechi's ports are not {self.rss}: {self.states_of(after)}")
        return {**report, "drops": drops, "sessions": self.case.flows, "rss": self.rss, "config": self.config()}

    @staticmethod
    def states_of(counters):
        return {port["rss"] for port in counters["ports"]}
