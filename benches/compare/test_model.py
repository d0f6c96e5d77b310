# SPDX-License-Identifier: Apache-2.0
"""The model of several workers, on workers whose costs are known: python3 -m unittest discover -t benches -s benches/compare"""

import unittest

from . import model

HZ = 2.6e9
NAMES = {
    ("", 0): "1",
    ("apart", 0): "2 apart",
    ("proven", 0): "proven",
    ("sw", 0): "0",
    ("sw", 10): "10",
    ("sw", 50): "50",
    ("sw", 100): "100",
}
ONE, PLACE, HAND = 80.0, {"proven": 6.0, "sw": 20.0}, 130.0


def turn(workers, cycles):
    return {"cycles_per_packet": cycles, "mpps": workers * HZ / cycles / 1e6}


def one_round(speed=1.0, hand=HAND):
    """What two workers with these costs do on a machine that is so much slower."""
    turns = {"1": turn(1, speed * ONE), "2 apart": turn(2, speed * ONE)}
    for (ports, percent), name in NAMES.items():
        if ports in PLACE:
            turns[name] = turn(2, speed * (ONE + PLACE[ports] + hand * percent / 100))
    return turns


class Model(unittest.TestCase):
    def test_costs_are_found_again(self):
        found = model.costs([one_round()] * 3, NAMES)
        self.assertAlmostEqual(found["one"], ONE)
        for ports, cycles in PLACE.items():
            self.assertAlmostEqual(found["place"][ports], cycles)
        self.assertEqual(list(found["hand"]), [10, 50, 100])
        for cycles in found["hand"].values():
            self.assertAlmostEqual(cycles, HAND)

    def test_a_round_on_a_slower_machine_changes_nothing(self):
        found = model.costs([one_round(), one_round(1.5), one_round()], NAMES)
        self.assertAlmostEqual(found["hand"][100], HAND)
        self.assertAlmostEqual(found["place"]["sw"], PLACE["sw"])

    def test_what_was_measured_is_predicted(self):
        turns = one_round()
        found = model.costs([turns], NAMES)
        self.assertAlmostEqual(model.predict(found, 1, "proven"), turns["1"]["mpps"])
        self.assertAlmostEqual(model.predict(found, 1, "sw", HAND), turns["1"]["mpps"])
        self.assertAlmostEqual(model.predict(found, 2, "proven"), turns["proven"]["mpps"])
        # Of two workers, half of what a device deals out belongs to the other one.
        self.assertAlmostEqual(model.predict(found, 2, "sw", HAND), turns["50"]["mpps"])

    def test_more_workers(self):
        found = model.costs([one_round()], NAMES)
        self.assertAlmostEqual(model.predict(found, 16, "proven"), 16 * HZ / 86.0 / 1e6)
        self.assertAlmostEqual(model.predict(found, 4, "sw", HAND), 4 * HZ / (100.0 + 0.75 * HAND) / 1e6)

    def test_dearest_and_cheapest(self):
        found = model.costs([one_round()], NAMES)
        found["hand"] = {10: 300.0, 50: 150.0, 100: 120.0}
        self.assertEqual(model.dearest_and_cheapest(found), (300.0, 120.0))
        # Noise does not make a packet cheaper for being handed over, and nothing is said where nothing was.
        found["hand"] = {10: -5.0}
        self.assertEqual(model.dearest_and_cheapest(found), (0.0, 0.0))
        found["hand"] = {}
        self.assertEqual(model.dearest_and_cheapest(found), (0.0, 0.0))

    def test_shares_without_rss(self):
        self.assertEqual([model.spread(n) for n in (1, 2, 4)], [0, 50, 75])


if __name__ == "__main__":
    unittest.main()
