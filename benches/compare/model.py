# SPDX-License-Identifier: Apache-2.0
"""What several workers cost, from turns of one and of several in the same rounds; and what more of them would do.

A packet takes one worker so many cycles. With several, its owner has to be found (`place`), and what came by the queue of another
worker is handed over (`hand`, of both sides together). Workers share nothing else, so n of them forward

    n x rate of one x (cycles of one) / (cycles of one + place + hand x share handed over)

A port whose hardware places packets hands over nothing; one that software places for, and that deals packets out evenly without
knowing of flows, hands over (n - 1) / n.
"""

import statistics

WORKERS = (1, 2, 4, 8, 16)


def spread(workers):
    """The share, in percent, that a device hands to others which deals packets out without knowing of flows."""
    return 100 * (workers - 1) / workers


def difference(rounds, name, base, key="cycles_per_packet"):
    """The median of the differences within each round: the machine's speed drifts."""
    return statistics.median(r[name][key] - r[base][key] for r in rounds)


def costs(rounds, names):
    """Cycles of one worker's packet, and what comes to it. `names`: of the turns, by what the ports are ("": of one worker
    alone, "proven", "sw": software) and the percentage that is handed over."""
    one, at_rest = names["", 0], names["sw", 0]
    hand = {
        percent: difference(rounds, name, at_rest) * 100 / percent
        for (ports, percent), name in names.items()
        if ports == "sw" and percent
    }
    return {
        "one": statistics.median(r[one]["cycles_per_packet"] for r in rounds),
        "mpps": statistics.median(r[one]["mpps"] for r in rounds),
        "place": {ports: difference(rounds, names[ports, 0], one) for ports in ("proven", "sw")},
        "hand": hand,
    }


def predict(found, workers, ports, hand=0.0):
    """Million packets a second of so many workers. `hand`: cycles of a hand-over."""
    if workers == 1:
        return found["mpps"]
    share = spread(workers) / 100 if ports == "sw" else 0
    cycles = found["one"] + found["place"][ports] + hand * share
    return workers * found["mpps"] * found["one"] / cycles


def dearest_and_cheapest(found):
    """A hand-over costs by how many packets go to the same worker at a time: what was measured at most and at least. Not
    less than nothing, whatever noise says."""
    measured = [max(0.0, cycles) for cycles in found["hand"].values()] or [0.0]
    return max(measured), min(measured)
