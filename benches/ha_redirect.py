# SPDX-License-Identifier: Apache-2.0
"""Packets that cross between active-active nodes: how many, how late, at what cost. A part of ha.py.

Node `near` has all sessions: its generator opens them. Node `far` gets packets of the same flows by a wire of a given speed
(flowgen/wire.h): each is offered to `near`, judged there, and leaves where it came in."""

import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "rfc2544"))
from compare import Api, Case, Failure, Haechi
from compare.established import alternate, good_rounds
from device import Device

PORT = 7710
LENGTH = 60
FLOWS = 1000
LATENCY_RATE = 20_000  # packets a second: nothing waits for anything
RATES = (50_000, 100_000, 200_000, 300_000, 400_000, 600_000, 800_000)
PATIENCE = 60


def ha_keys(node_id, key, rate):
    local, peer = PORT + node_id, PORT + 3 - node_id
    return (
        f'[ha]\nmode = "active-active"\nnode_id = {node_id}\nkey_file = "{key}"\nredirect_rate = "{rate}/s"\n'
        f'link = {{ local = "127.0.0.1:{local}", peer = "127.0.0.1:{peer}" }}\n'
    )


def thread_ns(process, name):
    """What the threads of this name have run for, in ns."""
    total = 0
    for task in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{task}/comm") as file:
            if file.read().strip() != name:
                continue
        with open(f"/proc/{process}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


class Near(Haechi):
    """The node that has the sessions: one worker on the last CPU."""

    name = "near"

    def __init__(self, case, work, key, rate):
        super().__init__(case, work)
        self.keys = ha_keys(1, key, rate)

    def config(self):
        return super().config() + self.keys

    def ha(self):
        return self.api("/v1/ha")

    def stop(self):
        self.rest()

    def resume(self):
        self.page.run(True)


class Far(Device):
    """The node that the packets come to: one worker beside the control threads. Without `keys` it is alone."""

    name = "far"

    def __init__(self, options, case, work, keys=""):
        super().__init__(options, LENGTH, work)
        self.case, self.keys = case, keys
        self.socket = os.path.join(self.work, "haechi.sock")

    def command(self):
        plain = Haechi(self.case, os.path.join(self.work, "plain"))
        cpu = self.case.control_cpus()[0]
        text = plain.config().replace(f'workers = "{self.case.cpu}"', f'workers = "{cpu}"').replace(plain.socket(), self.socket)
        path = os.path.join(self.work, "haechi.toml")
        with open(path, "w") as file:
            file.write(text + self.keys)
        # Its control threads would go to the other node's CPU, where its own worker is not.
        return ["taskset", "-c", str(cpu), self.options.haechi, "run", "-c", path]

    def warm_up(self):
        if not self.keys:
            super().warm_up()
        self.page.run(False)

    def api(self, what):
        return Api(self.socket).get(what)

    def redirect(self):
        return self.api("/v1/ha")["redirect"]


class Both:
    """Both nodes, with all sessions at `near` and known to `far`."""

    def __init__(self, options, work, rate):
        os.makedirs(work)
        key = os.path.join(work, "ha.key")
        subprocess.run([options.haechi, "ha", "keygen", key], check=True, stdout=subprocess.DEVNULL)
        case = Case(options, FLOWS, "null", work, length=LENGTH)
        self.near = Near(case, work, key, rate)
        self.far = Far(options, case, work, ha_keys(2, key, rate))

    def __enter__(self):
        try:
            self.near.start()
            self.near.wait(lambda: self.near.ha()["role"] == "leader", "leads", PATIENCE)
            self.far.start()
            both_forward = ["active", "active"]
            self.wait(lambda: [self.near.ha()["role"], self.far.api("/v1/ha")["role"]] == both_forward, "both forward")
            self.near.warm_up()
            self.wait(lambda: self.far.api("/v1/status")["sessions"] == FLOWS, "the far node knows all sessions")
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait(self, condition, what):
        self.far.wait(condition, what, PATIENCE)

    def __exit__(self, *_):
        self.far.kill()
        self.near.kill()

    def busy(self):
        """Of both HA threads."""
        return [thread_ns(node.child.pid, "ha") for node in (self.near, self.far)]


def local(options, work):
    """Latency of the same packets through a node of its own, on the same CPU."""
    os.makedirs(work)
    case = Case(options, FLOWS, "null", work, length=LENGTH)
    alone = Far(options, case, work)
    try:
        alone.start()
        return alone.trial(LATENCY_RATE, options.seconds, 10).details["latency_us"]
    finally:
        alone.kill()


def crossing(options, both):
    """Rates from low to high, while at least half of the packets still come back."""
    rows = []
    for rate in (LATENCY_RATE, *RATES):
        turns = []
        for _ in range(options.trials):
            before, busy = both.far.redirect(), both.busy()
            trial = both.far.trial(rate, options.seconds, 10)
            after = both.far.redirect()
            busy = [b - a for a, b in zip(busy, both.busy())]
            crossed = after["returned"] - before["returned"]
            hz = both.far.page.tsc_hz()
            turns.append(
                {
                    "offered_per_second": rate,
                    "returned_per_second": crossed / options.seconds,
                    "share": trial.details["sent"] / trial.offered,
                    "latency_us": trial.details["latency_us"],
                    "ha_cycles_per_packet": [ns * hz / 1e9 / max(1, crossed) for ns in busy],
                }
            )
        middle = sorted(turns, key=lambda t: t["returned_per_second"])[len(turns) // 2]
        rows.append({**middle, "turns": turns})
        latency, (near, far) = middle["latency_us"], middle["ha_cycles_per_packet"]
        print(
            f"  {rate / 1e3:.0f} thousand/s: {middle['returned_per_second'] / 1e3:.0f} thousand/s come back "
            f"({middle['share'] * 100:.1f} %), latency {latency['median']:.0f} us (99 %: {latency['p99']:.0f}), "
            f"HA threads {near:.0f} and {far:.0f} cycles a packet",
            flush=True,
        )
        if middle["share"] < 0.5:
            break
    return rows


def beside(options, both):
    """What `near`'s own traffic loses while `far` offers more than its budget."""
    near, far = both.near, both.far
    near.page.run(True)
    flood = 4 * options.redirect_rate

    def one_round(number):
        turns = {}
        for name in alternate(["calm", "flood"], number):
            if name == "flood":
                limited = far.redirect()["limited"]
                frames = round(flood / 2 * (options.settle + options.seconds + 1))
                far.rest()
                far.page.start(frames, flood / 2, 0)
                far.page.run(True)
            turns[name] = near.turn(options.settle, options.seconds)
            if name == "flood":
                far.page.run(False)
                if far.redirect()["limited"] == limited:
                    raise Failure("the budget was not exhausted")
                # What is under way is not to be missed by the next trial.
                time.sleep(0.2)
                far.lost_inside = far.inside()
        return turns

    rounds, refused = good_rounds(options, near.case, one_round)
    cost = 1 - statistics.median(r["flood"]["mpps"] / r["calm"]["mpps"] for r in rounds)
    print(f"local traffic while the budget is exhausted: {cost * 100:.1f} % less (median of {len(rounds)}; the goal is under 5 %)")
    return {"rounds": rounds, "refused_rounds": refused, "cost": cost}


def redirect(options, work):
    """Packets a second, added latency, cycles; and what local traffic loses."""
    options.ring, options.flows, flows = 4096, FLOWS, options.flows
    results = {"local_latency_us": local(options, os.path.join(work, "local"))}
    print(f"  through one node: {results['local_latency_us']}", flush=True)
    with Both(options, os.path.join(work, "crossing"), 2_000_000) as both:
        results["crossing"] = crossing(options, both)
    best = max(row["returned_per_second"] for row in results["crossing"])
    added = results["crossing"][0]["latency_us"]["median"] - results["local_latency_us"]["median"]
    print(f"redirected packets: {best / 1e3:.0f} thousand a second (the goal is 200), {added:.0f} us more than through one node")
    with Both(options, os.path.join(work, "beside"), options.redirect_rate) as both:
        results["beside"] = beside(options, both)
    options.flows = flows
    return results
