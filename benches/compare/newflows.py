# SPDX-License-Identifier: Apache-2.0
"""New sessions: filling an empty table in alternating turns, and a rate that is held for a minute while old ones expire."""

import os
import time

from .common import Failure
from .established import CONTESTANTS, ROOM, Case, alternate, good_rounds, short

CONNECTIONS = 1000  # that are opened, and then closed, together
ATTEMPTS = 2
LIVE = 6_000_000  # sessions that there is room for while UDP sessions expire
GONE = 30  # seconds until none may be left: Open vSwitch 3.1 looks for expired connections every 20


def sessions_known(options):
    return [name for name in options.contestants if CONTESTANTS[name].knows_sessions]


def start(contestant):
    contestant.start()
    contestant.rest()
    contestant.before = contestant.counters()


def wait_until(contestant, condition, seconds):
    """Whether it became true; looked at often enough for windows of a fraction of a second."""
    end = time.monotonic() + seconds
    while not condition():
        if contestant.child.poll() is not None:
            raise Failure(f"{contestant.name} ended with status {contestant.child.returncode}:\n{contestant.tail()}")
        if time.monotonic() > end:
            return False
        time.sleep(0.0005)
    return True


def empty(contestant):
    contestant.flush()
    contestant.wait(lambda: contestant.sessions() == 0, "has an empty table", 60)


def fill_once(contestant, count):
    """So many new flows into an empty table, as fast as they are taken."""
    contestant.resume()
    empty(contestant)
    page = contestant.page
    target = page.opened() + count
    page.limit(target)
    begin = contestant.sample()
    page.run(True)
    if not wait_until(contestant, lambda: page.opened() >= target, 120):
        raise Failure(f"{contestant.name}: {count} new flows in 120 s are not to be had")
    end = contestant.sample()
    contestant.rest()
    found = contestant.sessions()
    if found != count:
        raise Failure(f"{contestant.name} holds {found} sessions of {count} new flows")
    contestant.stop()
    return contestant.between(begin, end)


def run_fill(options, work):
    """Rounds of [`fill_once`], of every contestant with every number of rules; testpmd, which knows no sessions, has no part."""
    count, running = options.fill, {}
    numbers = options.rules or [1, 1000]
    try:
        for rules in numbers:
            directory = os.path.join(work, str(rules))
            case = Case(options, 1, "new", directory, rules=rules, length=60, max_sessions=2 * count)
            for name in sessions_known(options):
                contestant = running[rules, name] = CONTESTANTS[name](case, directory)
                start(contestant)
                contestant.stop()

        def one_round(number):
            return {key: fill_once(running[key], count) for key in alternate(list(running), number)}

        rounds, refused = good_rounds(options, case, one_round)
        totals = {}
        for key, contestant in running.items():
            contestant.resume()
            totals[key] = contestant.finish()
    finally:
        for contestant in running.values():
            contestant.kill()
    return [
        {
            "label": f"{short(count)} new UDP sessions, {short(rules)} rule{'s' * (rules != 1)}",
            "rules": rules,
            "count": count,
            "rounds": [only(r, rules) for r in rounds],
            "refused_rounds": [only(r, rules) for r in refused],
            "totals": only(totals, rules),
        }
        for rules in numbers
    ]


def only(by_key, rules):
    """Of a dictionary by rules and name, those of these rules, by name."""
    return {name: value for (number, name), value in by_key.items() if number == rules}


def run_sustained(options, work, name, protocol):
    """One contestant, a rate, and what became of every session; again, where others had too much of its CPU to hold it."""
    for attempt in range(ATTEMPTS):
        directory = os.path.join(work, str(attempt))
        os.makedirs(directory)
        result = sustained_once(options, directory, name, protocol)
        late = result["seconds"] > 1.02 * options.sustain  # this process was kept from looking
        if result["held"] or (not late and result["waited_share"] * 100 <= 100 - options.min_share):
            break
    return result


def sustained_once(options, work, name, protocol):
    rate = options.udp_rate if protocol == "udp" else options.tcp_rate
    if protocol == "udp":
        case = Case(options, 1, "new", work, length=60, timeouts={"udp_new": "1s"}, max_sessions=LIVE)
    else:
        timeouts = {"tcp_time_wait": "1s", "tcp_closed": "1s"}
        case = Case(options, CONNECTIONS, "connect", work, length=60, timeouts=timeouts, max_sessions=ROOM)
    contestant = CONTESTANTS[name](case, work)
    try:
        start(contestant)
        return {"label": label_of(protocol, rate), "name": name, "rate": rate, **hold(contestant, rate, options.sustain)}
    finally:
        contestant.kill()


def label_of(protocol, rate):
    what = "UDP sessions" if protocol == "udp" else "TCP connections, opened and closed"
    return f"{rate / 1e6:g} million {what} a second"


def hold(contestant, rate, seconds):
    """Offers `rate` flows a second and looks every second; afterwards all of them have to go by themselves."""
    page, batch = contestant.page, contestant.case.flows
    total = int(rate * seconds) // batch * batch
    page.limit(total)
    page.rate(rate)
    begin, waited, end_at, looks = contestant.sample(), contestant.waited(), time.monotonic() + seconds, []
    page.run(True)
    while page.opened() < total and time.monotonic() < end_at:
        looks.append(look(contestant))
        wait_until(contestant, lambda: page.opened() >= total, min(1, max(0, end_at - time.monotonic())))
    end, waited = contestant.sample(), contestant.waited() - waited
    behind = page.behind()
    if contestant.case.source == "connect":
        # What is open now is closed in order: SYNs up to the end of a batch, and all that follows on them.
        last = -(-page.opened() // batch) * batch
        page.limit(last)
        page.rate(0)
        if not wait_until(contestant, lambda: page.packets() >= 6 * last, 30):
            raise Failure(f"{contestant.name} did not take all segments of {last} connections")
    contestant.rest()
    gone = wait_until(contestant, lambda: contestant.sessions() == 0, GONE)
    window = contestant.between(begin, end)
    window.update(
        behind=behind,
        waited_share=waited / 1e9 / window["seconds"],
        left=0 if gone else contestant.sessions(),
        live=max(n for n, _ in looks),
    )
    lags = [lag for _, lag in looks if lag is not None]
    window["expiry_lag_ms"] = max(lags) if lags else None
    window.update(account(contestant))
    lost = window["refused"] or window["evicted"] or window["dropped"]
    window["held"] = window["opened_per_second"] >= 0.99 * rate and not lost and gone
    return window


def look(contestant):
    """Sessions now, and how far behind their expiry is where that is told."""
    if not hasattr(contestant, "api"):
        return contestant.sessions(), None
    return contestant.sessions(), max(w["expiry_lag_ms"] for w in contestant.api("/v1/workers")["workers"])


def account(contestant):
    """Of the flows that were opened: refused (their packets went nowhere), evicted."""
    before, after = contestant.before, contestant.counters()
    if hasattr(contestant, "api"):
        counters = after["counters"]
        drops = {name: count for name, count in counters["drops"].items() if count}
        return {
            "created": counters["sessions_created"],
            "ended": counters["sessions_ended"],
            "evicted": counters["sessions_evicted"],
            "refused": after["opened"] - counters["sessions_created"],
            "dropped": sum(drops.values()),
            "drops": drops,
        }
    lost = (after["generated"] - before["generated"]) - (after["sent"] - before["sent"])
    return {"created": None, "ended": None, "evicted": 0, "refused": lost, "dropped": lost, "drops": {}}
