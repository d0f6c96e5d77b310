# SPDX-License-Identifier: Apache-2.0
"""What haechi is meant to reach, beside what was measured."""

from .tables import better_ovs, ratio

TEN_MILLION = 10_000_000
MINUTE = 59  # seconds: what is offered for 60 may be through a little sooner


def case(report, flows, rules=1):
    """The case of 64-byte UDP frames with so many sessions and rules, if haechi was measured in it."""
    for result in report["cases"]:
        if (result["source"], result["length"], result["flows"], result["rules"]) == ("null", 60, flows, rules):
            return result if "haechi" in result["rounds"][0] else None
    return None


def of_testpmd(report, flows, rules=1):
    found = case(report, flows, rules)
    return ratio(found, "haechi", "testpmd") if found and "testpmd" in found["rounds"][0] else None


def of_ovs(report, flows):
    found = case(report, flows)
    base = better_ovs(found) if found else None
    return ratio(found, "haechi", base) if base else None


def rules_cost(report, flows):
    """haechi with 1,000 rules to haechi with one, each as a share of testpmd in its own rounds."""
    one, many = of_testpmd(report, flows), of_testpmd(report, flows, 1000)
    return many / one if one and many else None


def filling(report):
    """New sessions a second with 1,000 rules to those with one, the ratio within the rounds."""
    by_rules = {result["rules"]: result["rounds"] for result in report["fills"]}
    if not {1, 1000} <= set(by_rules) or "haechi" not in by_rules[1][0]:
        return None
    key = "opened_per_second"
    pairs = sorted(m["haechi"][key] / o["haechi"][key] for o, m in zip(by_rules[1], by_rules[1000]))
    return pairs[len(pairs) // 2]


def held(report, what):
    """Million flows a second that were taken, and whether they were held for a minute."""
    for result in report["sustained"]:
        if result["name"] == "haechi" and what in result["label"]:
            return result["opened_per_second"] / 1e6, result["held"] and result["seconds"] >= MINUTE
    return None, False


def gigabytes(report):
    """What ten million sessions take, if there were as many."""
    found = [r for r in report["memory"] if r["name"] == "haechi" and r["sessions"] == TEN_MILLION]
    return (found[0]["many_bytes"] - found[0]["few_bytes"]) / 1e9 if found else None


def row(what, wanted, measured, holds):
    return None if measured is None else [what, wanted, f"{measured:.3g}", "yes" if holds else "no"]


def least(what, wanted, measured):
    return row(what, f"at least {wanted}", measured, measured is not None and measured >= wanted)


def table(report):
    """One table, of those goals of which there are figures; none where there are none."""
    udp, udp_held = held(report, "UDP")
    tcp, tcp_held = held(report, "TCP")
    memory = gigabytes(report)
    rows = [
        least("testpmd's packets, 1k sessions", 0.70, of_testpmd(report, 1000)),
        least("testpmd's packets, 1M sessions", 0.60, of_testpmd(report, 1_000_000)),
        least("Open vSwitch's packets, 1k sessions", 7, of_ovs(report, 1000)),
        least("Open vSwitch's packets, 1M sessions", 10, of_ovs(report, 1_000_000)),
        least("packets with 1,000 rules to 1, 1k sessions", 0.97, rules_cost(report, 1000)),
        least("packets with 1,000 rules to 1, 1M sessions", 0.97, rules_cost(report, 1_000_000)),
        least("new sessions with 1,000 rules to 1", 0.7, filling(report)),
        row("million UDP sessions a second, expiring", "3, for a minute", udp, udp_held and udp >= 2.97),
        row("million TCP connections a second, opened and closed", "0.5, for a minute", tcp, tcp_held and tcp >= 0.495),
        row("GB for ten million sessions", "at most 2.6", memory, memory is not None and memory <= 2.6),
    ]
    rows = [r for r in rows if r is not None]
    return [("What haechi is meant to reach", ["haechi", "wanted", "measured", "reached"], rows)] if rows else []
