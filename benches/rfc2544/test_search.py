# SPDX-License-Identifier: Apache-2.0
"""The searches against devices whose throughput is known: python3 -m unittest discover benches/rfc2544"""

import random
import unittest

import search
from search import Trial


class Device:
    """Loses what is above its capacity (frames a second), and where `stalls` says so some more; trials of a second."""

    def __init__(self, capacity, stalls=lambda n: 0):
        self.capacity, self.stalls, self.rates = capacity, stalls, []

    def trial(self, rate):
        self.rates.append(rate)
        offered = max(1, int(rate))
        lost = max(0, offered - int(self.capacity)) + self.stalls(len(self.rates))
        return Trial(rate, offered, min(offered, lost))


class Throughput(unittest.TestCase):
    def test_capacity_is_found_to_the_resolution(self):
        for capacity in (1, 999, 10_000, 123_456, 749_999, 999_999):
            device = Device(capacity)
            best, made = search.throughput(device.trial, 1e6, 100)
            if capacity < 100:
                self.assertTrue(best is None or best.rate < capacity + 1)
                continue
            self.assertEqual(best.lost, 0)
            self.assertLess(best.rate, capacity + 1)  # frames are whole
            self.assertGreaterEqual(best.rate, capacity - 100)
            # The ceiling, and one trial for each halving of it down to the resolution.
            self.assertEqual(len(made), 1 + 14)
            self.assertEqual([t.rate for t in made], device.rates)

    def test_a_device_without_a_limit_needs_one_trial(self):
        device = Device(5e6)
        best, made = search.throughput(device.trial, 1e6, 100)
        self.assertEqual((best.rate, len(made)), (1e6, 1))

    def test_a_device_that_forwards_nothing_has_no_throughput(self):
        device = Device(0)
        best, made = search.throughput(device.trial, 1e6, 10_000, attempts=3)
        self.assertIsNone(best)
        self.assertEqual(len(made), 1 + 7)  # and none of them is repeated: everything was lost

    def test_tolerance_raises_the_throughput_by_what_may_be_lost(self):
        best, _ = search.throughput(Device(500_000).trial, 1e6, 100, tolerance=0.02)
        self.assertLessEqual(best.loss, 0.02)
        self.assertAlmostEqual(best.rate, 500_000 / 0.98, delta=101)

    def test_stalls_are_outlasted_by_attempts(self):
        # The first two of three trials lose a few frames, whatever the rate.
        best, _ = search.throughput(Device(400_000, lambda n: 7 if n % 3 else 0).trial, 1e6, 1000, attempts=3)
        self.assertAlmostEqual(best.rate, 400_000, delta=1000)
        alone, made = search.throughput(Device(400_000, lambda n: 7).trial, 1e6, 1000, attempts=3)
        self.assertIsNone(alone)
        self.assertGreater(len(made), 20)  # 10 halvings; those of small loss three times each

    def test_noise_never_lifts_it_above_the_capacity(self):
        for seed in range(200):
            noise = random.Random(seed)
            device = Device(300_000, lambda n: noise.choice((0, 0, 1, 40, 3000)))
            best, _ = search.throughput(device.trial, 1e6, 5000, attempts=3)
            if best is not None:
                self.assertLess(best.rate, 300_001, seed)
                self.assertEqual(best.lost, 0, seed)

    def test_known_trials_are_not_repeated(self):
        device = Device(500_000)
        exact, made = search.throughput(device.trial, 1e6, 1000)
        loose, more = search.throughput(device.trial, 1e6, 1000, tolerance=0.1, known=made)
        self.assertAlmostEqual(loose.rate, 500_000 / 0.9, delta=1001)
        self.assertGreater(loose.rate, exact.rate)
        self.assertEqual(len(device.rates), len(set(device.rates)))
        self.assertLess(len(more), len(made))
        again, none = search.throughput(device.trial, 1e6, 1000, known=made + more)
        self.assertEqual((again, none), (exact, []))

    def test_parameters_without_sense_are_refused(self):
        for ceiling, resolution in ((0, 1), (1, 0), (-1, 1)):
            with self.assertRaises(ValueError):
                search.throughput(Device(1).trial, ceiling, resolution)


class Confirm(unittest.TestCase):
    def test_goes_down_until_a_long_trial_passes(self):
        found, made = search.confirm(Device(970).trial, 1000, 10, 0, 5)
        self.assertEqual(([t.rate for t in made], found.rate), ([1000, 990, 980, 970], 970))

    def test_gives_up_after_its_steps(self):
        found, made = search.confirm(Device(100).trial, 1000, 10, 0, 5)
        self.assertEqual((found, len(made)), (None, 5))


class FrameLoss(unittest.TestCase):
    def test_ends_after_two_trials_without_loss(self):
        curve = search.frame_loss(Device(750_000).trial, 1e6)
        self.assertEqual([round(t.rate) for t in curve], [1_000_000, 900_000, 800_000, 700_000, 600_000])
        self.assertEqual([t.lost for t in curve], [250_000, 150_000, 50_000, 0, 0])

    def test_one_trial_without_loss_is_not_enough(self):
        device = Device(1e7, lambda n: 0 if n in (1, 3, 5, 6) else 1)
        self.assertEqual(len(search.frame_loss(device.trial, 1e6)), 6)

    def test_ends_at_a_tenth(self):
        self.assertEqual(len(search.frame_loss(Device(0).trial, 1e6)), 10)


class Percentile(unittest.TestCase):
    def test_of_a_histogram(self):
        histogram = [(1, 50), (2, 0), (3, 49), (4, 1)]
        shares = (0.01, 0.5, 0.51, 0.99, 1)
        self.assertEqual([search.percentile(histogram, s) for s in shares], [1, 1, 3, 3, 4])
        with self.assertRaises(ValueError):
            search.percentile([(1, 0)], 0.5)


if __name__ == "__main__":
    unittest.main()
