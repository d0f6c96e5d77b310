# SPDX-License-Identifier: Apache-2.0
"""haechi beside other forwarders on one worker core; started by compare.sh, which see.

All contestants of a table are started with the same two devices and the same generator (benches/flowgen), are stopped by
SIGSTOP, and then take turns of a second or so on the same CPU. What is counted is what the generator delivered, which for
a forwarder that polls net_null is what it processed; that it all left again is checked at rest, from each contestant's own
counters, after the last turn.

    common.py       what every script needs: failures, the frame around a measurement, the control API, the machine
    generator.py    the page that flowgen shares, capture files
    rules.py        the same rules for haechi and for Open vSwitch
    contestant.py   a forwarder as a child process; testpmd and haechi
    ovs.py          Open vSwitch with DPDK and conntrack
    established.py  packets of established sessions, in alternating turns
    newflows.py     new sessions: filling an empty table, and a rate for a minute
    memory.py       bytes a session
    tables.py       what is printed and published
    chart.py        the same as SVG
    goals.py        what haechi is meant to reach
    options.py      what options are made of

and of scaling.sh, haechi with several workers:

    scaling.py      turns of one worker and of several, tables, chart
    crew.py         a node with several workers, the page of flowgen/queues.c
    model.py        what they cost, and what more of them would do
"""

from .common import HERE, Api, Failure, log, machine, own_autogroup
from .contestant import Haechi
from .established import Case

__all__ = ["HERE", "Api", "Case", "Failure", "Haechi", "log", "machine", "own_autogroup"]
