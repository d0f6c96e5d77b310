# SPDX-License-Identifier: Apache-2.0
"""Throughput, latency and frame loss rate by RFC 2544, section 26; started by ../rfc2544.sh, which see."""

import argparse
import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import search
from device import DEVICES, FCS, PORTS, Failure, line_rate, own_autogroup

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(os.path.dirname(HERE), "results", "rfc2544.json")
SIZES = "64,128,256,512,1024,1280,1518"  # section 9.1
SHARES = (0.5, 0.9, 1.0)  # of the throughput, for the latency
CONFIRM_STEPS = 10
# Seconds of a trial in which the worker was kept from its CPU by another process: with more of them a trial that lost frames does not
# count, so many times at most.
WAITED, DISTURBED = 0.0001, 5


def log(text):
    print(text, file=sys.stderr, flush=True)


class Measurement:
    """One device at one frame size."""

    def __init__(self, options, device, size):
        self.options, self.device, self.size = options, device, size
        self.trials, self.confirmed = [], []

    def trial(self, rate, seconds=None, every=0):
        """A trial; what another process on the worker's CPU took from it is tried again."""
        for disturbed in range(DISTURBED + 1):
            result = self.device.trial(rate, seconds or self.options.seconds, every)
            d = result.details
            d["disturbed_before"] = disturbed
            another = result.lost > 0 and d["worker_waited_s"] > WAITED and disturbed < DISTURBED
            log(
                f"  {rate / 1e6:9.4f} Mpps: {result.lost} of {result.offered} lost ({100 * result.loss:.4f} %), "
                f"longest gap between polls {d['longest_poll_gap_us']} us, worker kept waiting {d['worker_waited_s'] * 1e3:.1f} ms"
                + (": again" if another else "")
            )
            if not another:
                break
        self.refuse(result, seconds or self.options.seconds)
        return result

    def refuse(self, result, seconds):
        """Ends the run where somebody else has the worker's CPU: what was lost then says nothing about the device."""
        share = 100 * (1 - result.details["worker_waited_s"] / seconds)
        if result.lost and share < self.options.min_share:
            raise Failure(f"the worker had {share:.0f} % of CPU {self.options.cpu} in the last of {DISTURBED + 1} trials: run it where nothing else does")

    def run(self):
        options = self.options
        log(f"{self.device.name}, {self.size} bytes")
        capacity = self.device.capacity(min(options.seconds, 1.0))
        ceiling = PORTS * line_rate(options.line, self.size) if options.line else 1.25 * capacity
        report = {"size": self.size, "unpaced": capacity, "ceiling": ceiling, "throughput": {}}
        best = None
        for tolerance in options.tolerance:
            found = self.throughput(ceiling, tolerance)
            report["throughput"][f"{100 * tolerance:g}"] = found and dataclasses.asdict(found)
            best = best or found
        if "latency" in options.tests and best:
            report["latency"] = self.latency(best.rate)
        if "loss" in options.tests:
            curve = search.frame_loss(self.trial, ceiling)
            report["loss"] = [{"share": t.rate / ceiling, "loss": t.loss, **dataclasses.asdict(t)} for t in curve]
        report["trials"] = [dataclasses.asdict(t) for t in self.trials]
        report["confirming_trials"] = [dataclasses.asdict(t) for t in self.confirmed]
        return report

    def throughput(self, ceiling, tolerance):
        """Section 26.1, and, with --confirm, a trial of full length (section 24)."""
        options, step = self.options, ceiling * self.options.resolution
        found, made = search.throughput(self.trial, ceiling, step, tolerance, options.attempts, self.trials)
        self.trials += made
        if found and options.confirm:
            found, made = search.confirm(
                lambda rate: self.trial(rate, options.confirm), found.rate, step, tolerance, CONFIRM_STEPS
            )
            self.confirmed += made
        return found

    def latency(self, rate):
        """Section 26.2, at shares of the throughput."""
        return [
            {"share": share, **self.trial(share * rate, self.options.latency_seconds, self.options.every).details}
            for share in SHARES
        ]


def table(report, name):
    """The results of one device, a line for each frame size."""
    options = report["options"]
    print(
        f"{name}, {options['flows']} UDP flows, both directions together, rings of {options['ring']}\n"
        f"throughput (section 26.1): trials of {options['seconds']:g} s, up to {options['attempts']} at a rate, "
        f"resolution {100 * options['resolution']:g} % of the ceiling, "
        + (f"confirmed for {options['confirm']:g} s" if options["confirm"] else "not confirmed by longer ones")
    )
    wanted = [f"{100 * t:g}" for t in options["tolerance"]]
    print(f"{'bytes':>6}{'unpaced Mpps':>14}" + "".join(f"{f'loss <= {w} %':>16}{'Mbit/s':>10}" for w in wanted))
    for row in report["devices"][name]:
        line = f"{row['size']:>6}{row['unpaced'] / 1e6:>14.3f}"
        for w in wanted:
            found = row["throughput"][w]
            line += f"{found['rate'] / 1e6:>16.3f}{found['rate'] * row['size'] * 8 / 1e6:>10.0f}" if found else f"{'none':>16}{'-':>10}"
        print(line)
    if "latency" in options["tests"]:
        print("latency (section 26.2), us: min/median/99 %/max at shares of the first of these throughputs that there is")
        print(f"{'bytes':>6}" + "".join(f"{f'{100 * s:g} %':>34}" for s in SHARES))
        for row in report["devices"][name]:
            if "latency" not in row:
                print(f"{row['size']:>6}{'none':>34}")
                continue
            figures = ["{min:.2f}/{median:.2f}/{p99:.2f}/{max:.2f}".format(**p["latency_us"]) for p in row["latency"]]
            print(f"{row['size']:>6}" + "".join(f"{f:>34}" for f in figures))
    if "loss" in options["tests"]:
        print(f"frame loss rate (section 26.3): percent lost at percent of {'the line' if options['line'] else 'the ceiling, 1.25 x unpaced'}")
        for row in report["devices"][name]:
            points = "  ".join(f"{100 * p['share']:.0f}: {100 * p['loss']:.4f}" for p in row["loss"])
            print(f"{row['size']:>6}  {points}")
    sys.stdout.flush()


def clock_gap(cpu, seconds=2.0):
    """The longest time, in us, that the machine takes this CPU from a process which does nothing but look at the clock."""
    code = (
        "import os, time\n"
        f"os.sched_setaffinity(0, {{{cpu}}})\n"
        "clock, longest = time.perf_counter_ns, 0\n"
        "start = last = clock()\n"
        f"while last - start < {int(seconds * 1e9)}:\n"
        "    now = clock()\n"
        "    longest, last = max(longest, now - last), now\n"
        "print(longest / 1e3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=own_autogroup, start_new_session=True)
    if done.returncode != 0:
        raise Failure(f"the clock's reader failed: {done.stderr}")
    return float(done.stdout)


def measure(options, work):
    report = {"machine": machine(), "options": vars(options), "devices": {}}
    for name in options.devices:
        report["devices"][name] = []
        for size in options.sizes:
            device = DEVICES[name](options, size - FCS, work)
            try:
                device.start()
                report["devices"][name].append(Measurement(options, device, size).run())
                device.finish()
            finally:
                device.kill()
        table(report, name)
    return report


def machine():
    def command(*line):
        return subprocess.run(line, capture_output=True, text=True, cwd=HERE).stdout.strip()

    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {
        "cpu": models[0] if models else "?",
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "dpdk": command("pkg-config", "--modversion", "libdpdk"),
        "commit": command("git", "describe", "--always", "--dirty"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def parse_options():
    def words(known):
        def parse(text):
            unknown = set(text.split(",")) - set(known)
            if unknown:
                raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}")
            return text.split(",")

        return parse

    def number(kind, low, high):
        def parse(text):
            value = kind(text)
            if not low <= value <= high:
                raise argparse.ArgumentTypeError(f"{text}: from {low} to {high}")
            return value

        return parse

    def several(one):
        return lambda text: [one(part) for part in text.split(",")]

    percent = number(float, 0, 100)
    parser = argparse.ArgumentParser(prog="benches/rfc2544.sh", formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--devices", type=words(DEVICES), default=["haechi"], help="haechi, testpmd (default haechi)")
    add("--sizes", type=several(number(int, 64, 1518)), default=SIZES, help=f"frame sizes with FCS (default {SIZES})")
    add("--flows", type=number(int, 1, 1 << 24), default=1000, help="UDP flows (default 1000)")
    add("--seconds", type=number(float, 0.05, 3600), default=2.0, help="of a trial of the search (default 2; section 24 has 60)")
    add("--confirm", type=number(float, 0, 3600), default=0.0, help="seconds of a last trial at what was found (default 0, none; 60 for section 24)")
    add("--tolerance", type=several(percent), default="0,0.5", help="percent that may be lost: a throughput for each (default 0,0.5)")
    add("--resolution", type=number(float, 0.01, 50), default=1.0, help="percent of the ceiling (default 1)")
    add("--attempts", type=number(int, 1, 100), default=3, help="trials at a rate of which one has to pass (default 3; the RFC's is 1)")
    add("--line", type=number(float, 0, 1000), default=0.0, help="Gbit/s of each port's line, the ceiling (default 0: 1.25 times what is taken unpaced)")
    add("--ring", type=number(int, 1, 65536), default=1024, help="descriptors of a receive ring (default 1024)")
    add("--latency-seconds", type=number(float, 0.05, 3600), default=2.0, help="of a latency trial (default 2; section 26.2 has 120)")
    add("--every", type=number(int, 1, 1 << 20), default=16, help="a latency sample of one frame in so many (default 16)")
    add("--tests", type=words(("throughput", "latency", "loss")), default=["throughput", "latency", "loss"], help="what is wanted; throughput always is")
    add("--min-share", type=number(float, 0, 100), default=95.0, help="percent of its CPU below which a worker's losses end the run (default 95)")
    add("--cpu", type=number(int, 0, os.cpu_count() - 1), default=os.cpu_count() - 1, help="the worker's (default the last one)")
    add("--json", default=RESULTS, help="where all trials go (default benches/results/rfc2544.json)")
    add("--keep", action="store_true", help="keep configurations and outputs")
    add("--flowgen", default="", help=argparse.SUPPRESS)
    add("--haechi", default="", help=argparse.SUPPRESS)
    add("--file-prefix", default="rfc2544", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Shares of 1 from here on, the strictest first: the throughput that the latency is measured at.
    options.tolerance = sorted(t / 100 for t in options.tolerance)
    options.resolution /= 100
    return options


def main():
    options = parse_options()

    def interrupted(signum, _frame):
        raise SystemExit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupted)
    work = tempfile.mkdtemp(prefix="haechi-rfc2544.")
    os.sched_setaffinity(0, [c for c in range(os.cpu_count()) if c != options.cpu])
    try:
        gap = clock_gap(options.cpu)
        print(
            f"a process that only looks at the clock was kept from CPU {options.cpu} for up to {gap:.0f} us in 2 s; "
            f"two rings of {options.ring} cover that up to {PORTS * options.ring / gap:.2f} Mpps",
            flush=True,
        )
        report = measure(options, work)
        report["clock_gap_us"] = gap
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
        log(f"written: {options.json}")
    except Failure as failure:
        log(f"rfc2544: {failure}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if options.keep:
            log(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
