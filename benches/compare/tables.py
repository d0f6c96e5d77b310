# SPDX-License-Identifier: Apache-2.0
"""What is printed while it runs, and the tables at the end: as text and as Markdown."""

import json
import os
import statistics

from .common import ROOT, Failure, log

DOCUMENT = os.path.join(ROOT, "docs", "performance.md")
BEGIN, END = "<!-- benches/compare.sh --publish: begin -->", "<!-- benches/compare.sh --publish: end -->"


def median(result, name, key):
    return statistics.median(r[name][key] for r in result["rounds"])


def names_of(result):
    """Who took part, in the order in which they were named."""
    return sorted(result["rounds"][0], key=list(result["totals"]).index)


def ratio(result, name, base, key="mpps"):
    """The median of the ratios within each round: the machine's speed drifts."""
    return statistics.median(r[name][key] / r[base][key] for r in result["rounds"])


def better_ovs(result, key="mpps"):
    """Open vSwitch's better setting, or None."""
    found = [name for name in names_of(result) if name.startswith("ovs")]
    return max(found, key=lambda name: median(result, name, key)) if found else None


def print_rounds(result, key="mpps", unit="Mpps", scale=1.0):
    """A case: every round, then the medians."""
    names = names_of(result)
    base = names[0]
    print(f"{result['label']:<42}" + "".join(f"{n + ' ' + unit:>16}{'cycles':>9}{'CPU':>7}" for n in names))
    for i, turns in enumerate(result["rounds"]):
        line = f"  round {i + 1:<34}"
        for n in names:
            t = turns[n]
            line += f"{t[key] * scale:>16.3f}{t['cycles_per_packet']:>9.1f}{t['cpu_share'] * 100:>6.1f}%"
        print(line)
    line = "  median" + " " * 34
    for n in names:
        line += f"{median(result, n, key) * scale:>16.3f}{median(result, n, 'cycles_per_packet'):>9.1f}{'':>7}"
    ratios = ", ".join(f"{n}/{base} {ratio(result, n, base, key):.3f}" for n in names[1:])
    refused = len(result["refused_rounds"])
    print(line + f"   {ratios}" + (f"   ({refused} disturbed rounds repeated)" if refused else ""), flush=True)
    if result.get("source") == "connect":
        rates = ", ".join(f"{n} {median(result, n, 'opened_per_second') / 1e6:.3f}" for n in names)
        print(f"  million connections a second (six segments each): {rates}", flush=True)


def print_held(result):
    print(
        f"{result['name']:<10} {result['label']}: {result['opened_per_second'] / 1e6:.3f} million/s for {result['seconds']:.0f} s,"
        f" at most {result['live']} live, {result['refused']} refused, {result['evicted']} evicted, {result['left']} left"
        f" ({'held' if result['held'] else 'not held'})",
        flush=True,
    )


def print_memory(result):
    gain = result["many_bytes"] - result["few_bytes"]
    print(
        f"{result['name']:<10} {result['sessions']} sessions: {gain / 1e9:.3f} GB, {result['bytes_per_session']:.0f} bytes each",
        flush=True,
    )


def cell(result, name, key, scale):
    if name not in result["rounds"][0]:
        return "-"
    cycles, share = median(result, name, "cycles_per_packet"), median(result, name, "cpu_share")
    return f"{median(result, name, key) * scale:.2f} / {cycles:.0f} / {share * 100:.0f} %"


def quotient(result, name, base, key):
    present = result["rounds"][0]
    return f"{ratio(result, name, base, key):.3g}" if base in present and name in present and base != name else "-"


def rounds_table(title, results, key, scale):
    """A row for each case; the last columns are haechi's ratios."""
    names = list(dict.fromkeys(n for r in results for n in names_of(r)))
    against = [n for n in names if n not in ("haechi",) and not n.startswith("ovs")]
    has_ovs = any(n.startswith("ovs") for n in names)
    header = ["", *names, *(f"haechi/{n}" for n in against), *(["haechi/OVS"] if has_ovs else [])]
    rows = []
    for result in results:
        row = [result["label"], *(cell(result, n, key, scale) for n in names)]
        row += [quotient(result, "haechi", n, key) for n in against]
        if has_ovs:
            row.append(quotient(result, "haechi", better_ovs(result, key), key))
        rows.append(row)
    return title, header, rows


def final(report):
    """All tables of a report: (title, header, rows)."""
    tables = []
    if report["cases"]:
        title = "Established sessions, one worker: Mpps / cycles a packet / share of the CPU (medians)"
        tables.append(rounds_table(title, report["cases"], "mpps", 1))
    if report["fills"]:
        title = "Filling an empty table: million new sessions a second / cycles each / share of the CPU (medians)"
        tables.append(rounds_table(title, report["fills"], "opened_per_second", 1e-6))
    if report["sustained"]:
        header = [
            "offered",
            "",
            "million/s",
            "seconds",
            "live at most",
            "refused",
            "evicted",
            "left",
            "expiry lag",
            "CPU, waited for it",
            "held",
        ]
        rows = [
            [
                *(r["label"], r["name"], f"{r['opened_per_second'] / 1e6:.3f}", f"{r['seconds']:.0f}", r["live"], r["refused"]),
                *(r["evicted"], r["left"], "-" if r["expiry_lag_ms"] is None else f"{r['expiry_lag_ms']:.0f} ms"),
                *(f"{r['cpu_share'] * 100:.0f} %, {r['waited_share'] * 100:.0f} %", "yes" if r["held"] else "no"),
            ]
            for r in report["sustained"]
        ]
        tables.append(("New sessions at a rate, those of a second before expiring", header, rows))
    if report["memory"]:
        rows = [
            [r["name"], r["sessions"], f"{(r['many_bytes'] - r['few_bytes']) / 1e9:.3f} GB", f"{r['bytes_per_session']:.0f}"]
            for r in report["memory"]
        ]
        tables.append(("Memory of sessions, huge pages included", ["", "sessions", "memory", "bytes each"], rows))
    return tables


def as_text(tables):
    lines = []
    for title, header, rows in tables:
        columns = list(zip(*([header] + [[str(c) for c in row] for row in rows])))
        widths = [max(map(len, column)) for column in columns]
        lines += ["", title]
        for row in [header, *rows]:
            first, *others = (str(c) for c in row)
            lines.append("  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:]))]).rstrip())
    return "\n".join(lines) + "\n"


def as_markdown(tables, machine):
    ovs = f",\nOpen vSwitch {machine['ovs']}" if "ovs" in machine else ""
    lines = [f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}, DPDK {machine['dpdk']}{ovs};"]
    lines += [f"commit {machine['commit']}, {machine['time'][:10]}."]
    for title, header, rows in tables:
        lines += ["", f"**{title}**", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def publish_between(markdown, begin, end, path=DOCUMENT):
    """Puts tables between two marks of docs/performance.md."""
    with open(path) as file:
        text = file.read()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise Failure(f"{path} has no place for the tables: {begin} and {end}")
    head, rest = text.split(begin)
    with open(path, "w") as file:
        file.write(f"{head}{begin}\n{markdown}{end}{rest.split(end)[1]}")


def write_results(options, report, tables, picture, publish=None):
    """JSON, Markdown and chart (None: there is none), and what is printed last. `publish`: the marks in docs/performance.md,
    and the name of the chart beside it."""
    print(as_text(tables), flush=True)
    stem = os.path.splitext(options.json)[0]
    markdown = as_markdown(tables, report["machine"])
    texts = {options.json: json.dumps(report, indent=1) + "\n", f"{stem}.md": markdown, f"{stem}.svg": picture}
    if publish:
        begin, end, chart = publish
        publish_between(f"![chart]({chart})\n\n{markdown}", begin, end)
        texts[os.path.join(os.path.dirname(DOCUMENT), chart)] = picture
    for path, text in texts.items():
        if text is not None:
            with open(path, "w") as file:
                file.write(text)
            log(f"written: {path}")
