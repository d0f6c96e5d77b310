# SPDX-License-Identifier: Apache-2.0
"""haechi beside other forwarders, one worker; started by compare.sh."""

import argparse
import os
import shutil
import sys

from . import chart, goals, tables
from .common import HERE, machine, supervise
from .established import CONTESTANTS, ROOM, SOURCES, Case, run_case
from .memory import run_memory
from .newflows import LIVE, run_fill, run_sustained, sessions_known
from .options import numbers, words

PARTS = ("established", "fill", "sustained", "memory")
# (source, length, rules, flows): what is measured of established sessions where nothing else is asked for.
DEFAULT_CASES = (
    *(("null", 60, 1, flows) for flows in (1, 1000, 100_000, 1_000_000)),
    *(("tcp", 60, 1, flows) for flows in (1, 1000, 100_000, 1_000_000)),
    *(("null", "imix", 1, flows) for flows in (1000, 1_000_000)),
    *(("tcp", "imix", 1, flows) for flows in (1000, 1_000_000)),
    *(("null", 60, 1000, flows) for flows in (1000, 1_000_000)),
    ("tcp", 60, 1000, 1000),
    ("pcap", 60, 1, 1000),
)
POOL_MIB = 800  # of huge pages, Open vSwitch's default pool
BASE_MIB = 2048  # haechi with its defaults, and testpmd


def cases_of(options):
    """The cross product of what was asked for, else the default cases."""
    if not asked(options):
        return DEFAULT_CASES
    return [
        (source, length, rules, flows)
        for source in options.source or ["null"]
        for length in options.lengths or [60]
        for rules in options.rules or [1]
        for flows in options.flows or [1, 1000, 100_000, 1_000_000]
    ]


def asked(options):
    return any((options.flows, options.source, options.lengths, options.rules))


def huge_mib(options):
    """What the largest of the parts needs of huge pages, in MiB."""
    # Another build of haechi takes about as much as Open vSwitch.
    pools = POOL_MIB * sum(name not in ("testpmd", "haechi") for name in options.contestants)
    sets = len(options.rules or [1, 1000])
    needs = {
        "established": BASE_MIB + pools,
        "fill": sets * (BASE_MIB // 2 + pools + table_mib(2 * options.fill)),
        "sustained": BASE_MIB + POOL_MIB + table_mib(LIVE),
        "memory": BASE_MIB + POOL_MIB + table_mib(options.memory_sessions),
    }
    cases = cases_of(options)
    # net_pcap keeps every packet of a file in mbufs.
    copied = max((flows for source, _, _, flows in cases if source == "pcap"), default=0)
    most = max(ROOM if source == "connect" else flows for source, _, _, flows in cases)
    builds = len({"haechi", "before"} & set(options.contestants))
    needs["established"] += 10 * copied // 1000 + builds * table_mib(most)
    return max(needs[part] for part in options.parts)


def table_mib(sessions):
    """Of a session table, beyond that of the default size."""
    return max(sessions - 1_000_000, 0) * 270 // 2**20


def established(options, work, report):
    for source, length, rules, flows in cases_of(options):
        directory = os.path.join(work, f"{source}-{length}-{rules}-{flows}")
        os.makedirs(directory)
        case = Case(options, flows, source, directory, rules=rules, length=length)
        report["cases"].append(run_case(options, case))
        tables.print_rounds(report["cases"][-1])
        if not options.keep:
            shutil.rmtree(directory)


def fill(options, work, report):
    report["fills"] = run_fill(options, os.path.join(work, "fill"))
    for result in report["fills"]:
        tables.print_rounds(result, "opened_per_second", "M/s", 1e-6)


def sustained(options, work, report):
    for protocol in options.sustained_protocols:
        for name in sessions_known(options):
            directory = os.path.join(work, f"sustained-{protocol}-{name}")
            os.makedirs(directory)
            report["sustained"].append(run_sustained(options, directory, name, protocol))
            tables.print_held(report["sustained"][-1])


def memory(options, work, report):
    for name in sessions_known(options):
        if name == "ovs-noemc":
            continue  # the cache of flows has no part in it
        directory = os.path.join(work, f"memory-{name}")
        os.makedirs(directory)
        report["memory"].append(run_memory(options, directory, name))
        tables.print_memory(report["memory"][-1])


def write_results(options, report, publish):
    found = [*tables.final(report), *goals.table(report)]
    place = (tables.BEGIN, tables.END, "performance.svg") if publish else None
    tables.write_results(options, report, found, chart.render(report), place)


def main():
    options = parse_options()
    if options.needs:
        print(huge_mib(options))
        return 0
    report = {"machine": machine(), "options": vars(options), "cases": [], "fills": [], "sustained": [], "memory": []}

    def measure(work):
        for part in options.parts:
            {"established": established, "fill": fill, "sustained": sustained, "memory": memory}[part](options, work, report)

    others = [c for c in range(os.cpu_count()) if c != options.cpu]
    return supervise("compare", options, others, measure, lambda publish: write_results(options, report, publish))


def lengths(text):
    return [part if part == "imix" else int(part) for part in text.split(",")]


def parse_options():
    parser = argparse.ArgumentParser(prog="benches/compare.sh", description="haechi beside other forwarders, one worker")
    parser.add_argument("--parts", type=words(PARTS), default=None)
    parser.add_argument("--flows", type=numbers)
    parser.add_argument("--source", type=words(SOURCES))
    parser.add_argument("--length", dest="lengths", type=lengths)
    parser.add_argument("--rules", type=numbers)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--settle", type=float, default=0.2)
    parser.add_argument("--contestants", type=words(CONTESTANTS), default=["testpmd", "haechi", "ovs", "ovs-noemc"])
    parser.add_argument("--fill", type=int, default=1_000_000)
    parser.add_argument("--sustain", type=float, default=60)
    parser.add_argument("--sustained-protocols", type=words(("udp", "tcp")), default=["udp", "tcp"])
    parser.add_argument("--udp-rate", type=int, default=3_000_000)
    parser.add_argument("--tcp-rate", type=int, default=500_000)
    parser.add_argument("--memory-sessions", type=int, default=10_000_000)
    parser.add_argument("--memory-ovs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cpu", type=int, default=os.cpu_count() - 1)
    parser.add_argument("--min-share", type=float, default=95)
    parser.add_argument("--json", default=os.path.join(HERE, "results", "compare.json"))
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--flowgen", default="")
    parser.add_argument("--haechi", default="")
    parser.add_argument("--before", default="")
    parser.add_argument("--file-prefix", default="", help="of DPDK's runtime directories; the caller removes them")
    parser.add_argument("--work", help="the directory for configurations and outputs; the caller removes it")
    parser.add_argument("--needs", action="store_true", help="only say how many MiB of huge pages are needed")
    options = parser.parse_args()
    if options.parts is None:
        options.parts = ["established"] if asked(options) else list(PARTS)
    if "before" in options.contestants and not options.before:
        parser.error("--before FILE is wanted")
    if options.publish and (asked(options) or options.parts != list(PARTS)):
        parser.error("--publish wants all parts and cases")
    return options


if __name__ == "__main__":
    sys.exit(main())
