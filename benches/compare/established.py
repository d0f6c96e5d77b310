# SPDX-License-Identifier: Apache-2.0
"""Packets of established sessions: all contestants of a case, in alternating turns."""

import os

from .common import Failure
from .contestant import Before, Haechi, Testpmd
from .generator import write_pcap
from .ovs import Ovs, OvsNoEmc

CONTESTANTS = {c.name: c for c in (Testpmd, Before, Haechi, Ovs, OvsNoEmc)}
SOURCES = ("null", "tcp", "connect", "pcap")
DEFAULT_SESSIONS = 1_000_000  # haechi's max_sessions
ROOM = 4_000_000  # sessions, where connections come and go: those of a second or two
OVS_BUFFERS = 262_144  # mbufs in Open vSwitch's pool, which nothing makes larger


class Case:
    """One row of a table: so many flows from one source, under so many rules."""

    def __init__(self, options, flows, source, work, rules=1, length=None, timeouts=None, max_sessions=0):
        self.flows, self.source, self.work, self.rules = flows, source, work, rules
        self.length = options.length if length is None else length
        self.seed, self.cpu = options.seed, options.cpu
        self.flowgen, self.haechi, self.before = options.flowgen, options.haechi, options.before
        self.file_prefix = options.file_prefix
        self.opens = source in ("connect", "new")
        self.timeouts, self.max_sessions = timeouts or {}, max_sessions
        if source == "connect" and not self.timeouts:
            # Short enough that those that are over make room for the next ones.
            self.timeouts, self.max_sessions = {"tcp_time_wait": "1s"}, ROOM
        elif flows > DEFAULT_SESSIONS and not max_sessions:
            self.max_sessions = flows
        self.pcaps = []
        if source == "pcap":
            self.pcaps = [os.path.join(work, name) for name in ("originals.pcap", "replies.pcap")]
            for path, reply in zip(self.pcaps, (False, True)):
                write_pcap(path, self, reply)

    def control_cpus(self):
        return [c for c in range(os.cpu_count()) if c != self.cpu]

    def label(self):
        protocol = {"null": "UDP", "tcp": "TCP", "connect": "TCP connect", "pcap": "UDP pcap", "new": "UDP new"}[self.source]
        size = "IMIX" if self.length == "imix" else f"{self.length + 4} B"
        return f"{protocol} {size}, {short(self.flows)} session{'s' * (self.flows != 1)}, {short(self.rules)} rule{'s' * (self.rules != 1)}"


def short(number):
    """1000 -> 1k."""
    for unit, letter in ((1_000_000, "M"), (1000, "k")):
        if number >= unit and number % unit == 0:
            return f"{number // unit}{letter}"
    return str(number)


def can_run(name, case):
    """Open vSwitch cannot be given a pool that holds two large files."""
    return not (name.startswith("ovs") and case.source == "pcap" and 2 * case.flows > OVS_BUFFERS * 3 // 4)


def run_case(options, case):
    running = []
    try:
        for name in options.contestants:
            if not can_run(name, case):
                continue
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


def alternate(running, round_number):
    """ABBA: whatever drifts steadily hits all alike."""
    return running if round_number % 2 == 0 else running[::-1]


def good_rounds(options, case, one_round):
    """So many rounds in which every worker had its CPU; those that had not are kept apart."""
    rounds, refused = [], []
    while len(rounds) < options.rounds:
        turns = one_round(len(rounds))
        if min(t["cpu_share"] for t in turns.values()) * 100 >= options.min_share:
            rounds.append(turns)
            continue
        refused.append(turns)
        if len(refused) > 4 * options.rounds:
            shares = ", ".join(f"{min(t['cpu_share'] for t in r.values()):.2f}" for r in refused[-8:])
            raise Failure(f"a worker does not get {options.min_share} % of CPU {case.cpu} (it got {shares})")
    return rounds, refused


def take_turns(options, case, running):
    def one_round(number):
        return {c.name: c.turn(options.settle, options.seconds) for c in alternate(running, number)}

    rounds, refused = good_rounds(options, case, one_round)
    totals = {}
    for contestant in running:
        contestant.resume()
        totals[contestant.name] = contestant.finish()
    return {
        "label": case.label(),
        "flows": case.flows,
        "source": case.source,
        "length": case.length,
        "rules": case.rules,
        "rounds": rounds,
        "refused_rounds": refused,
        "totals": totals,
    }
