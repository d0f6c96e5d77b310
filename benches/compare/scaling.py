# SPDX-License-Identifier: Apache-2.0
"""One worker beside several, and what a hand-over between them costs; started by scaling.sh, which see."""

import argparse
import os
import statistics
import sys
import time

from . import chart, model, tables
from .common import HERE, machine, supervise
from .crew import QUEUES, Crew
from .established import Case, alternate, good_rounds, short
from .options import several, within

LENGTH = 60
MOST_FLOWS = 800_000  # of max_sessions 1,000,000: a worker may refuse the last ones early (leases)
NODE_MIB, WORKER_MIB = 700, 50  # of huge pages, with the defaults
PLACE = ("<!-- benches/scaling.sh --publish: begin -->", "<!-- benches/scaling.sh --publish: end -->", "scaling.svg")
ONE = "1"  # the turn of one worker
GOAL = 1.8  # times one worker's packets, two of them


class Turns:
    """What takes turns: a node at a share that is handed over; or several nodes, of one worker each, at the same time."""

    def __init__(self, nodes, ports, percent):
        self.nodes, self.ports, self.percent = nodes, ports, percent
        self.workers = sum(len(node.cpus) for node in nodes)
        self.name = "1" if self.workers == 1 else f"{self.workers} {ports} {percent:.3g}%"

    def turn(self, settle, seconds):
        for node in self.nodes:
            node.begin(self.percent)
        time.sleep(settle)
        starts = [node.sample() for node in self.nodes]
        time.sleep(seconds)
        parts = [node.between(start, node.sample()) for node, start in zip(self.nodes, starts)]
        packets = sum(part["packets"] for part in parts)
        return {
            "mpps": sum(part["mpps"] for part in parts),
            "cycles_per_packet": sum(part["cycles_per_packet"] * part["packets"] for part in parts) / packets,
            "cpu_share": min(part["cpu_share"] for part in parts),
            "lost_share": max([node.end() for node in self.nodes]),
            "parts": parts,
        }


def run_crew(options, work, workers):
    """In alternating turns: one worker; so many of a node each; so many of one node, with ports that are believed, and with
    ports that software places for."""
    flows = options.flows // workers * workers
    cpus = list(range(os.cpu_count()))[-workers:]
    running = []

    def start(cpus, rss):
        case = Case(options, flows, "null", work, length=LENGTH)
        case.cpu = ",".join(map(str, cpus))
        node = Crew(case, os.path.join(work, str(workers)), cpus, rss)
        running.append(node)
        node.start()
        node.warm_up()
        node.stop()
        return node

    try:
        apart = [start([cpu], "software") for cpu in cpus]
        proven, software = start(cpus, "proven"), start(cpus, "software")
        turns = [Turns(apart[-1:], "", 0), Turns(apart, "apart", 0), Turns([proven], "proven", 0)]
        turns += [Turns([software], "sw", percent) for percent in sorted({*options.shares, model.spread(workers)})]
        return take_turns(options, software.case, running, turns)
    finally:
        for node in running:
            node.kill()


def take_turns(options, case, running, turns):
    def one_round(number):
        return {t.name: t.turn(options.settle, options.seconds) for t in alternate(turns, number)}

    rounds, refused = good_rounds(options, case, one_round)
    totals = {}
    for node in running:
        node.resume()
        totals[node.name] = node.finish()
    return {
        "label": f"{turns[-1].workers} workers, {short(case.flows)} sessions",
        "workers": turns[-1].workers,
        "flows": case.flows,
        "turns": [{"name": t.name, "workers": t.workers, "ports": t.ports, "percent": t.percent} for t in turns],
        "rounds": rounds,
        "refused_rounds": refused,
        "totals": {t.name: [totals[node.name] for node in t.nodes] for t in turns},
    }


PORTS = {"": "-", "apart": "a node each", "proven": "proven", "sw": "software"}


def costs_of(result):
    names = {(t["ports"], t["percent"]): t["name"] for t in result["turns"]}
    return model.costs(result["rounds"], names)


def about(turn):
    """For the first columns of a table."""
    return [turn["workers"], PORTS[turn["ports"]], "-" if turn["ports"] in ("", "apart") else f"{turn['percent']:.3g} %"]


def measured_table(report, results):
    header = ["workers", "ports", "handed over", "Mpps", "cycles", "least CPU", "lost", "to one worker"]
    rows = []
    for result in results:
        for t in result["turns"]:
            turns = [r[t["name"]] for r in result["rounds"]]
            ratio = tables.ratio(result, t["name"], ONE)
            rows.append(
                [
                    *about(t),
                    f"{tables.median(result, t['name'], 'mpps'):.2f}",
                    f"{tables.median(result, t['name'], 'cycles_per_packet'):.0f}",
                    f"{100 * min(turn['cpu_share'] for turn in turns):.1f} %",
                    f"{100 * statistics.median(turn['lost_share'] for turn in turns):.3f} %",
                    "-" if t["name"] == ONE else f"{ratio:.3f}",
                ]
            )
    counted = ", ".join(f"{len(r['rounds'])} of {len(r['rounds']) + len(r['refused_rounds'])}" for r in results)
    share = report["options"]["min_share"]
    title = (
        f"64-byte UDP frames of {results[0]['label'].split(', ')[1]}; medians of {counted} rounds, "
        f"those in which every worker had {share:g} % of its CPU"
    )
    return title, header, rows


def costs_table(results):
    rows = []
    for result in results:
        found = costs_of(result)
        rows.append([f"{result['workers']} workers: finding the owner, port proven", f"{found['place']['proven']:.1f}"])
        rows.append([f"{result['workers']} workers: finding the owner, port in software", f"{found['place']['sw']:.1f}"])
        for percent, cycles in found["hand"].items():
            rows.append([f"{result['workers']} workers: a hand-over, {percent:.3g} % handed over", f"{cycles:.1f}"])
    return "What it costs: cycles of all workers together, medians of the differences within rounds", ["", "cycles"], rows


def model_table(results):
    """From the first crew: what is measured of others is no part of it."""
    found = costs_of(results[0])
    dear, cheap = model.dearest_and_cheapest(found)
    counts = sorted({*model.WORKERS, *(r["workers"] for r in results)})
    rows = []
    for count in counts:
        by_software = [model.predict(found, count, "sw", hand) for hand in (dear, cheap)]
        rows.append(
            [
                count,
                f"{model.predict(found, count, 'proven'):.1f}",
                measured(results, count, "proven", 0),
                f"{by_software[0]:.1f}" if dear == cheap or count == 1 else f"{by_software[0]:.1f} to {by_software[1]:.1f}",
                measured(results, count, "sw", model.spread(count)),
            ]
        )
    title = "Model, Mpps: ports proven, nothing handed over; ports in software that deal packets out evenly, (n-1)/n handed over"
    return title, ["workers", "proven", "measured", "software", "measured"], rows


def measured(results, workers, ports, percent):
    for result in results:
        for t in result["turns"]:
            if (t["workers"], t["percent"]) == (workers, percent) and t["ports"] in (ports, ""):
                return f"{tables.median(result, t['name'], 'mpps'):.1f}"
    return "-"


def goal_table(results):
    for result in results:
        if result["workers"] == 2:
            ratio = tables.ratio(result, "2 proven 0%", ONE)
            row = ["two workers to one, ports proven", f"at least {GOAL}", f"{ratio:.3f}", "yes" if ratio >= GOAL else "no"]
            return [("What haechi is meant to reach", ["", "wanted", "measured", "reached"], [row])]
    return []


def picture(results):
    found = costs_of(results[0])
    dear, _ = model.dearest_and_cheapest(found)
    drawing = chart.Drawing()
    names = ("measured", "model: ports proven", "model: ports in software, at least")
    drawing.legend(names)
    for result in results:
        bars = [
            (" / ".join(map(str, about(t))), [("measured", tables.median(result, t["name"], "mpps"))]) for t in result["turns"]
        ]
        drawing.panel("Million packets a second: workers / ports / handed over", bars)
    counts = sorted({*model.WORKERS, *(r["workers"] for r in results)})
    groups = [
        (
            f"{n} worker{'s' * (n != 1)}",
            [(names[1], model.predict(found, n, "proven")), (names[2], model.predict(found, n, "sw", dear))],
        )
        for n in counts
    ]
    drawing.panel("Million packets a second, model", groups)
    return drawing.svg()


def write_results(options, report, publish):
    results = report["crews"]
    if not results:
        return
    found = [measured_table(report, results), costs_table(results), model_table(results), *goal_table(results)]
    if options.quick:
        print("--quick: this shows that it works, and measures nothing", flush=True)
    tables.write_results(options, report, found, picture(results), PLACE if publish else None)


def main():
    options = parse_options()
    if options.needs:
        most = max(options.workers)
        print((most + 2) * NODE_MIB + 3 * most * WORKER_MIB)
        return 0
    here = machine()
    del here["ovs"]
    report = {"machine": here, "options": vars(options), "crews": []}

    def measure(work):
        for workers in options.workers:
            report["crews"].append(run_crew(options, work, workers))
            tables.print_rounds(report["crews"][-1])

    # Where every CPU has a worker, this is one more of those that share them.
    left = os.cpu_count() - max(options.workers)
    return supervise(
        "scaling", options, range(left or os.cpu_count()), measure, lambda publish: write_results(options, report, publish)
    )


def parse_options():
    cpus = os.cpu_count()
    parser = argparse.ArgumentParser(prog="benches/scaling.sh", description=__doc__.split(";")[0])
    add = parser.add_argument
    most = min(cpus, QUEUES)
    add("--workers", type=several(within(int, 2, most)), default=list(range(2, most + 1)))
    add("--shares", type=several(within(float, 0, 100)), default=[0.0, 10.0, 100.0])
    add("--flows", type=within(int, 1, MOST_FLOWS), default=1000)
    add("--rounds", type=within(int, 1, 1000), default=7)
    add("--seconds", type=within(float, 0.01, 600), default=1.0)
    add("--settle", type=within(float, 0, 60), default=0.2)
    add("--min-share", type=within(float, 0, 100), default=95.0)
    add("--quick", action="store_true")
    add("--seed", type=within(int, 0, 2**63), default=1)
    add("--json", default=os.path.join(HERE, "results", "scaling.json"))
    add("--publish", action="store_true")
    add("--keep", action="store_true")
    add("--flowgen", default="")
    add("--haechi", default="")
    add("--file-prefix", default="")
    add("--work", help="the directory for configurations and outputs; the caller removes it")
    add("--needs", action="store_true", help="only say how many MiB of huge pages are needed")
    options = parser.parse_args()
    options.before, options.cpu = "", cpus - 1
    if options.quick:
        options.rounds, options.seconds, options.min_share = 1, min(options.seconds, 0.2), 0.0
    if options.publish and (
        options.quick or any(getattr(options, key) != parser.get_default(key) for key in ("workers", "shares"))
    ):
        parser.error("--publish wants all workers and shares, and no --quick")
    directory = os.path.dirname(os.path.abspath(options.json))
    if options.json != parser.get_default("json") and not os.path.isdir(directory):
        parser.error(f"--json: there is no directory {directory}")
    if 0 not in options.shares:
        parser.error("--shares without 0: there is nothing that the cost of a hand-over could be taken from")
    # So that a tenth of each worker's is at least one.
    if options.flows < 10 * max(options.workers):
        parser.error(f"--flows {options.flows}: at least 10 for each of {max(options.workers)} workers are wanted")
    return options


if __name__ == "__main__":
    sys.exit(main())
