# SPDX-License-Identifier: Apache-2.0
"""What a pair of nodes costs and how fast it is; started by ha.sh, which see."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time

import compare
import ha_redirect
from compare import Case, Failure, Haechi
from compare.common import supervise
from compare.established import alternate, good_rounds
from compare.newflows import fill_once
from compare.options import words

NOTHING = "net_null{},no-rx=1,size=60"  # a device that never has a packet
PATIENCE = 60  # seconds until all sessions are at the other node
PORT = 7700
SHARED = 70  # percent of its CPU that a worker must have while tables are filled
OWN = {"leader": (1, 200), "standby": (2, 100)}  # node_id, priority


def ha_keys(name, key):
    node_id, priority = OWN[name]
    local, peer = PORT + node_id, PORT + 3 - node_id
    link = f'{{ local = "127.0.0.1:{local}", peer = "127.0.0.1:{peer}" }}'
    return f'[ha]\nnode_id = {node_id}\npriority = {priority}\nkey_file = "{key}"\nlink = {link}\n'


def cpu_ns(process):
    """What all threads of a process have run for, in ns."""
    total = 0
    for task in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


class Standby(Haechi):
    """The other node: on the control threads' CPU, with ports that bring nothing."""

    name = "standby"

    def __init__(self, case, work, key):
        super().__init__(case, work)
        self.key = key

    def devices(self):
        return [NOTHING.format(i) for i in range(2)]

    def environment(self):
        return dict(os.environ)

    def config(self):
        own = f'workers = "{self.case.cpu}"'
        return super().config().replace(own, f'workers = "{self.case.control_cpus()[0]}"') + ha_keys(self.name, self.key)

    def answers(self):
        return os.path.exists(self.socket()) and self.state() == "ready"

    def state(self):
        try:
            return self.api("/v1/status")["state"]
        except OSError:
            return None  # not there yet, or what a process left that was killed

    def start(self):
        self.launch()
        self.wait(self.answers, "is ready", PATIENCE)


class Alone(Haechi):
    """A node of its own."""

    name = "alone"

    def turn(self, settle, seconds):
        self.resume()
        time.sleep(settle)
        start, busy = self.sample(), self.busy()
        time.sleep(seconds)
        end, busy = self.sample(), self.busy() - busy
        self.stop()
        # Of all threads, and of both nodes of a pair.
        return {**self.between(start, end), "cpus": busy / (end[0] - start[0])}

    def busy(self):
        return cpu_ns(self.child.pid)


class Leader(Alone):
    """A node whose standby has all of its sessions. Between its turns it has no packets: to stop it would be a failure to its peer."""

    name = "leader"

    def __init__(self, case, work):
        super().__init__(case, work)
        self.key = os.path.join(self.work, "ha.key")
        self.standby = Standby(case, self.work, self.key)
        subprocess.run([case.haechi, "ha", "keygen", self.key], check=True, stdout=subprocess.DEVNULL)

    def config(self):
        return super().config() + ha_keys(self.name, self.key)

    def ha(self):
        return self.api("/v1/ha")

    def start(self):
        super().start()
        self.wait(lambda: self.ha()["role"] == "leader", "leads", PATIENCE)
        self.standby.start()
        self.wait(self.is_healthy, "is healthy", PATIENCE)

    def is_healthy(self):
        ha = self.ha()
        return ha["health"] == "healthy" and ha["role"] == "leader" and ha["sync"]["state"] == "in_sync"

    def stop(self):
        self.rest()

    def resume(self):
        self.page.run(True)

    def synced(self, sessions):
        """Until digests have proved that the standby has all sessions."""
        end = time.monotonic() + PATIENCE
        while not (self.standby.sessions() == sessions and self.is_healthy()):
            if time.monotonic() > end:
                has, ha = self.standby.sessions(), self.ha()
                raise Failure(f"the standby has {has} sessions of {sessions} after {PATIENCE} s; {ha['reasons']}, {ha['sync']}")
            time.sleep(0.01)

    def warm_up(self):
        super().warm_up()
        self.synced(self.case.flows)

    def busy(self):
        return super().busy() + cpu_ns(self.standby.child.pid)

    def kill(self):
        self.standby.kill()
        super().kill()


class Filled(Leader):
    """A leader whose table is filled again and again."""

    def resume(self):
        pass


def both(case, work, kinds, prepare):
    """An alone node and a pair, started and prepared."""
    running = []
    try:
        for kind in kinds:
            contestant = kind(case, work)
            running.append(contestant)
            contestant.start()
            prepare(contestant)
            contestant.stop()
    except BaseException:
        kill(running)
        raise
    return running


def kill(running):
    for contestant in running:
        contestant.kill()


def cost_of(rounds, what):
    return 1 - statistics.median(r["leader"][what] / r["alone"][what] for r in rounds)


def established(options, work):
    """Packets of established sessions."""
    case = Case(options, options.flows, "tcp", work)

    def prepare(contestant):
        contestant.warm_up()
        contestant.page.run(True)

    running = both(case, work, (Alone, Leader), prepare)

    def one_round(number):
        turns = {c.name: c.turn(options.settle, options.seconds) for c in alternate(running, number)}
        said = ", ".join(f"{n} {t['mpps']:.2f} Mpps, {t['cpus']:.2f} CPUs" for n, t in turns.items())
        print(f"  round {number + 1}: {said}", flush=True)
        return turns

    try:
        rounds, refused = good_rounds(options, case, one_round)
        for contestant in running:
            contestant.resume()
        totals = {c.name: c.finish() for c in running}
    finally:
        kill(running)
    cost = cost_of(rounds, "mpps")
    print(f"established traffic: synchronising costs {cost * 100:.1f} % of Mpps (median of {len(rounds)} rounds; the goal is under 5 %)")
    return {"rounds": rounds, "refused_rounds": refused, "totals": totals, "cost": cost}


def new_sessions(options, work):
    """New sessions, as many as can be had, and how fast the standby gets them."""
    case = Case(options, 1, "new", work, length=60, max_sessions=2 * options.fill)

    def prepare(contestant):
        contestant.rest()
        contestant.before = contestant.counters()

    running = both(case, work, (Alone, Filled), prepare)

    def one_round(number):
        turns = {}
        for contestant in alternate(running, number):
            begin = time.monotonic()
            turns[contestant.name] = fill_once(contestant, options.fill)
            if isinstance(contestant, Leader):
                contestant.synced(options.fill)
                # From the request to empty the table until the proof that all new sessions are there: two updates for each.
                turns[contestant.name]["synced_per_second"] = options.fill / (time.monotonic() - begin)
        said = ", ".join(f"{n} {t['opened_per_second'] / 1e6:.2f} million/s" for n, t in turns.items())
        synced = turns["leader"]["synced_per_second"]
        print(f"  round {number + 1}: {said}; at the standby {synced / 1e3:.0f} thousand/s", flush=True)
        return turns

    try:
        # With two CPUs the standby's control threads are on the leader's: what they take there is not the leader's cost.
        shared = argparse.Namespace(**{**vars(options), "min_share": min(options.min_share, SHARED)})
        rounds, refused = good_rounds(shared, case, one_round)
    finally:
        kill(running)
    for turn in (turn for turns in rounds for turn in turns.values()):
        turn["opened_per_cpu_second"] = turn["opened_per_second"] / turn["cpu_share"]
    cost, of_cpu = cost_of(rounds, "opened_per_second"), cost_of(rounds, "opened_per_cpu_second")
    rate = statistics.median(r["leader"]["synced_per_second"] for r in rounds)
    print(
        f"new sessions: synchronising costs {cost * 100:.1f} % of them, {of_cpu * 100:.1f} % of those that a second of the worker's "
        f"CPU makes (median of {len(rounds)} rounds; the goal is under 20 %)"
    )
    print(f"sessions at the standby: {rate / 1e3:.0f} thousand a second (median)")
    return {"rounds": rounds, "refused_rounds": refused, "cost": cost, "cost_of_cpu": of_cpu, "synced_per_second": rate}


def told(sync):
    """News of sessions that were sent: as they were then, and ends of them."""
    return sync["sessions_sent"] + sync["gone_sent"]


def updates(options, work):
    """Connections that are opened and closed at a rate that is held: how many updates a second come to the standby."""
    case = Case(options, 1000, "connect", work, length=60, timeouts={"tcp_time_wait": "1s", "tcp_closed": "1s"}, max_sessions=4_000_000)
    leader = Leader(case, work)
    try:
        leader.start()
        leader.rest()
        rounds = []
        for number in range(options.rounds):
            leader.page.rate(options.connections)
            leader.resume()
            time.sleep(1)
            begin, before, busy = leader.sample(), leader.ha()["sync"], leader.busy()
            time.sleep(options.seconds)
            after, end, busy = leader.ha()["sync"], leader.sample(), leader.busy() - busy
            seconds = (end[0] - begin[0]) / 1e9
            row = {
                **leader.between(begin, end),
                "updates_per_second": (told(after) - told(before)) / seconds,
                "cpus": busy / 1e9 / seconds,
                "waiting": after["waiting"],
            }
            rounds.append(row)
            leader.rest()
            print(
                f"  round {number + 1}: {row['opened_per_second'] / 1e3:.0f} thousand connections/s, "
                f"{row['updates_per_second'] / 1e3:.0f} thousand updates/s, {row['cpus']:.2f} CPUs",
                flush=True,
            )
    finally:
        leader.kill()
    rate = statistics.median(r["updates_per_second"] for r in rounds)
    print(f"updates over the link: {rate / 1e3:.0f} thousand a second (median; the goal is 300)")
    return {"rounds": rounds, "updates_per_second": rate}


def resync(options, work):
    """The standby dies and comes back with nothing, under full traffic."""
    case = Case(options, options.sessions, "tcp", work)
    leader = Leader(case, work)
    try:
        leader.start()
        leader.warm_up()
        leader.page.run(True)
        calm = leader.turn(options.settle, options.seconds)
        leader.resume()
        rounds = []
        for number in range(options.resyncs):
            os.kill(leader.standby.child.pid, signal.SIGKILL)
            leader.standby.child.wait()
            leader.wait(lambda: not leader.ha()["peer"]["alive"], "misses its peer", 10)
            leader.standby.launch()
            leader.wait(lambda: leader.ha()["peer"]["alive"], "hears its peer", PATIENCE)
            begin = leader.sample()
            leader.standby.wait(leader.standby.answers, "is ready", PATIENCE)
            during = leader.between(begin, leader.sample())
            rounds.append(during)
            print(
                f"  resync {number + 1}: {options.sessions} sessions in {during['seconds']:.1f} s, "
                f"at {during['mpps']:.2f} Mpps of {calm['mpps']:.2f}",
                flush=True,
            )
        # Every packet that was generated was sent; else this fails.
        totals = leader.finish()
    finally:
        leader.kill()
    seconds = statistics.median(r["seconds"] for r in rounds)
    print(f"resync of {options.sessions} sessions: {seconds:.1f} s, no packet lost (median of {len(rounds)}; the goal is under 20 s)")
    return {"calm": calm, "rounds": rounds, "totals": totals, "seconds": seconds}


PARTS = {"established": established, "new": new_sessions, "updates": updates, "resync": resync, "redirect": ha_redirect.redirect}


def main():
    parser = argparse.ArgumentParser(prog="benches/ha.sh", description="what a pair costs, and how fast it is")
    parser.add_argument("--parts", type=words(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=20, help="of established, new and updates")
    parser.add_argument("--resyncs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--settle", type=float, default=0.3)
    parser.add_argument("--min-share", type=float, default=95)
    parser.add_argument("--flows", type=int, default=100_000, help="of established")
    parser.add_argument("--fill", type=int, default=1_000_000, help="of new")
    parser.add_argument("--connections", type=int, default=100_000, help="of updates: connections a second that are offered")
    parser.add_argument("--trials", type=int, default=5, help="of redirect, at each rate")
    parser.add_argument("--redirect-rate", type=int, default=200_000, help="of redirect: the budget that is exhausted")
    parser.add_argument("--sessions", type=int, default=1_000_000, help="of resync")
    parser.add_argument("--cpu", type=int, default=os.cpu_count() - 1)
    parser.add_argument("--json", default=os.path.join(compare.HERE, "results", "ha.json"))
    for name in ("flowgen", "haechi", "file-prefix", "work"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    options.length, options.seed, options.before, options.publish, options.keep = 60, 1, "", False, False
    results = {}

    def measure(work):
        for part in options.parts:
            directory = os.path.join(work, part)
            os.makedirs(directory)
            results[part] = PARTS[part](options, directory)

    def write(_publish):
        with open(options.json, "w") as file:
            json.dump({"machine": compare.machine(), "options": vars(options), "results": results}, file, indent=1)
            file.write("\n")
        compare.log(f"written: {options.json}")

    return supervise("ha", options, [c for c in range(os.cpu_count()) if c != options.cpu], measure, write)


if __name__ == "__main__":
    sys.exit(main())
