# SPDX-License-Identifier: Apache-2.0
"""Memory a session: what a process has with a full table, less what it has with as good as none."""

import os

from .common import Failure
from .established import CONTESTANTS, Case
from .newflows import start, wait_until

FEW = 1000


def filled(options, work, name, count):
    """A contestant with a table for `count` sessions, before and after as many were made."""
    os.makedirs(work)
    case = Case(options, 1, "new", work, length=60, timeouts={"udp_new": "600s"}, max_sessions=count)
    contestant = CONTESTANTS[name](case, work)
    try:
        start(contestant)
        before = contestant.memory()
        contestant.page.limit(count)
        contestant.page.run(True)
        if not wait_until(contestant, lambda: contestant.page.opened() >= count, 300):
            raise Failure(f"{name}: {count} new flows in 300 s are not to be had")
        contestant.rest()
        found = contestant.sessions()
        if found != count:
            raise Failure(f"{name} holds {found} sessions of {count} new flows")
        after = contestant.memory()
        contestant.finish()
        return before, after
    finally:
        contestant.kill()


def run_memory(options, work, name):
    """haechi's table is there from the start: two nodes are compared. Open vSwitch takes memory as connections come."""
    if name.startswith("ovs"):
        count = options.memory_ovs
        few, many = filled(options, os.path.join(work, "many"), name, count)
    else:
        count = options.memory_sessions
        _, few = filled(options, os.path.join(work, "few"), name, FEW)
        _, many = filled(options, os.path.join(work, "many"), name, count)
    return {"name": name, "sessions": count, "few_bytes": few, "many_bytes": many, "bytes_per_session": (many - few) / count}
