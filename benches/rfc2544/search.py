# SPDX-License-Identifier: Apache-2.0
"""The searches of RFC 2544, section 26, without a device: `trial(rate)` offers a load and returns what happened (a Trial)."""

import dataclasses

# More than this a stall of the machine does not take from a trial: such a rate is not tried again.
HOPELESS = 0.05


@dataclasses.dataclass
class Trial:
    """One trial (section 23): a known number of frames at a constant rate."""

    rate: float  # frames a second, all ports together
    offered: int  # frames
    lost: int  # of them, those that did not come out
    details: dict = dataclasses.field(default_factory=dict)

    @property
    def loss(self):
        """Frame loss rate (section 26.3) as a share of 1."""
        return self.lost / self.offered


def best_of(trials, tolerance):
    """The trial with the highest rate that lost no more than `tolerance`, a share of 1; None where every trial lost more."""
    return max((t for t in trials if t.loss <= tolerance), key=lambda t: t.rate, default=None)


def throughput(trial, ceiling, resolution, tolerance=0.0, attempts=1, known=()):
    """Section 26.1: the highest rate at which no frame is lost, or no more than `tolerance` of them, to `resolution` (frames a second), by
    bisection between 0 and `ceiling`.

    A rate passes if one of `attempts` trials does; 1 is the RFC's. `known` are earlier trials at the same device, each rate with all the
    attempts that it got: what they say is not asked again, whatever tolerance they were made for.

    Returns (the trial at the rate that was found or None, the new trials in their order).
    """
    if resolution <= 0 or ceiling <= 0:
        raise ValueError("resolution and ceiling must be positive")
    known, made = list(known), []

    def passes(rate):
        for _ in range(attempts):
            result = trial(rate)
            made.append(result)
            if result.loss <= tolerance:
                return True
            if result.loss > max(HOPELESS, 2 * tolerance):
                return False
        return False

    def bounds():
        best = best_of(known + made, tolerance)
        low = best.rate if best else 0.0
        return low, min((t.rate for t in known + made if t.rate > low), default=None)

    low, high = bounds()
    if high is None and low < ceiling:
        passes(ceiling)
        low, high = bounds()
    while high is not None and high - low > resolution:
        passes((low + high) / 2)
        low, high = bounds()
    return best_of(known + made, tolerance), made


def confirm(trial, found, resolution, tolerance, steps):
    """Section 24: the rate that counts is one of a trial of full length, which `trial` makes. From `found` down, `resolution` at a time, at
    most `steps` trials; (the first that passes or None, all of them)."""
    made, rate = [], found
    while len(made) < steps and rate > 0:
        made.append(trial(rate))
        if made[-1].loss <= tolerance:
            return made[-1], made
        rate -= resolution
    return None, made


def frame_loss(trial, ceiling):
    """Section 26.3: from `ceiling` down in steps of a tenth of it, until two trials in a row have lost nothing."""
    curve = []
    for tenth in range(10, 0, -1):
        curve.append(trial(ceiling * tenth / 10))
        if len(curve) >= 2 and curve[-1].lost == 0 and curve[-2].lost == 0:
            break
    return curve


def percentile(histogram, share):
    """The value below or at which `share` of all samples lie, from [(upper bound, samples)] in ascending order."""
    total = sum(n for _, n in histogram)
    if total == 0:
        raise ValueError("no samples")
    seen = 0
    for bound, n in histogram:
        seen += n
        if n and seen >= share * total:
            return bound
    return histogram[-1][0]
