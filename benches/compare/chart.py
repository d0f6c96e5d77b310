# SPDX-License-Identifier: Apache-2.0
"""The tables as one SVG: horizontal bars, a group for each case. Readable on light and dark pages."""

from html import escape

from .tables import median, names_of

COLOURS = {"testpmd": "#9aa5b1", "haechi": "#d9480f", "before": "#f0a37e", "ovs": "#1c7ed6", "ovs-noemc": "#74c0fc"}
COLOURS |= {
    "measured": "#d9480f",
    "model: ports proven": "#2f9e44",
    "model: ports in software, at least": "#1c7ed6",
}  # scaling.py
OTHER = "#868e96"
LEFT, WIDTH, BAR, GAP, RIGHT = 250, 560, 14, 10, 90


class Drawing:
    """Panels of bars below one another."""

    def __init__(self):
        self.shapes, self.y = [], 16

    def text(self, x, y, what, anchor="start", size=12, weight="normal"):
        style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
        self.shapes.append(f'<text x="{x:.1f}" y="{y:.1f}" {style} fill="#212529">{escape(what)}</text>')

    def legend(self, names):
        x = LEFT
        for name in names:
            self.shapes.append(f'<rect x="{x}" y="{self.y}" width="12" height="12" fill="{COLOURS.get(name, OTHER)}"/>')
            self.text(x + 17, self.y + 11, name)
            x += 40 + 8 * len(name)
        self.y += 26

    def panel(self, title, groups):
        """Groups of (label, [(name, value)])."""
        self.text(8, self.y + 14, title, size=14, weight="bold")
        self.y += 26
        most = max(value for _, bars in groups for _, value in bars)
        for label, bars in groups:
            self.text(LEFT - 10, self.y + len(bars) * BAR / 2 + 4, label, "end")
            for name, value in bars:
                width = WIDTH * value / most
                fill = COLOURS.get(name, OTHER)
                self.shapes.append(f'<rect x="{LEFT}" y="{self.y}" width="{width:.1f}" height="{BAR - 2}" fill="{fill}"/>')
                self.text(LEFT + width + 5, self.y + BAR - 4, f"{value:.2f}", size=11)
                self.y += BAR
            self.y += GAP
        self.y += GAP

    def svg(self):
        width = LEFT + WIDTH + RIGHT
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{self.y}" viewBox="0 0 {width} {self.y}"'
        back = f'<rect width="{width}" height="{self.y}" fill="#ffffff"/>'
        return "\n".join([f'{head} font-family="sans-serif">', back, *self.shapes, "</svg>"]) + "\n"


def groups_of(results, key, scale):
    return [(r["label"], [(n, median(r, n, key) * scale) for n in names_of(r)]) for r in results]


def render(report):
    """SVG of a report; None where it has nothing to draw."""
    panels = []
    if report["cases"]:
        panels.append(("Million packets a second, established sessions, one worker", groups_of(report["cases"], "mpps", 1)))
    if report["fills"]:
        panels.append(("Million new sessions a second, an empty table", groups_of(report["fills"], "opened_per_second", 1e-6)))
    for label in dict.fromkeys(r["label"] for r in report["sustained"]):
        bars = [(r["name"], r["opened_per_second"] / 1e6) for r in report["sustained"] if r["label"] == label]
        panels.append((f"Offered: {label} (million/s taken)", [("", bars)]))
    if report["memory"]:
        panels.append(("Bytes a session", [("", [(r["name"], r["bytes_per_session"]) for r in report["memory"]])]))
    if not panels:
        return None
    drawing = Drawing()
    drawing.legend(dict.fromkeys(name for _, groups in panels for _, bars in groups for name, _ in bars))
    for title, groups in panels:
        drawing.panel(title, groups)
    return drawing.svg()
