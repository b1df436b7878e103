"""The picture of how data goes through Athanor (``docs/pictures/data_flow.svg``): boxes in columns, and arrows between them.

It is SVG, so that a page shows it without a script and without a network, on light and on dark; ``make pages`` does.
"""

from __future__ import annotations

from html import escape

COLUMNS = (
    ("machine.toml", "model.toml", "options, run file"),
    ("Machine", "Model", "Plan"),
    ("Setting",),
    ("Schedule",),
    ("simulate()", "execute() over MPI"),
    ("Run",),
    ("tables, plots, pages",),
)
"""Boxes from left to right; those of a column stand below each other, around its middle."""

ARROWS = {
    "machine.toml": "Machine",
    "model.toml": "Model",
    "options, run file": "Plan",
    "Machine": "Setting",
    "Model": "Setting",
    "Plan": "Setting",
    "Setting": "Schedule",
    "simulate()": "Run",
    "execute() over MPI": "Run",
    "Run": "tables, plots, pages",
}
"""Where each box leads to; the schedule leads to both that take one."""

FORKS = {"Schedule": ("simulate()", "execute() over MPI")}
LABELS = {("Setting", "Schedule"): "lower()"}

HEIGHT, GAP, ROW, LETTER, MARGIN = 34, 56, 58, 7.4, 8
"""Pixels: of a box, between columns, between rows, of a letter, around all."""

STYLE = """
  rect { fill: #f4f6fb; stroke: #41527a; } path { stroke: #41527a; fill: none; } text { fill: #1b2334; font: 13px sans-serif; }
  @media (prefers-color-scheme: dark) {
    rect { fill: #232b3d; stroke: #9db2e6; } path { stroke: #9db2e6; } text { fill: #e8ecf7; }
  }
"""


def places() -> tuple[dict[str, tuple[float, float, float]], float, float]:
    """(left, middle, width) of each box in pixels, and width and height of all."""
    rows = max(map(len, COLUMNS))
    left, found = float(MARGIN), {}
    for column in COLUMNS:
        width = max(map(len, column)) * LETTER + 18
        for at, name in enumerate(column):
            middle = MARGIN + HEIGHT / 2 + (at + (rows - len(column)) / 2) * ROW
            found[name] = (left, middle, width)
        left += width + GAP
    return found, left - GAP + MARGIN, 2 * MARGIN + HEIGHT + (rows - 1) * ROW


def svg() -> str:
    """The picture."""
    boxes, width, height = places()
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        "<title>How data goes through Athanor</title>",
        f"<style>{STYLE}</style>",
        '<marker id="tip" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto"><path d="M1,1 L8,4 L1,7"/></marker>',
    ]
    arrows = [*ARROWS.items(), *((start, end) for start, ends in FORKS.items() for end in ends)]
    for start, end in arrows:
        begin, y, wide = boxes[start]
        to, other, _ = boxes[end]
        begin, half = begin + wide, (to - begin - wide) / 2
        curve = f"{begin + half:.0f},{y:.0f} {to - half:.0f},{other:.0f} {to - 1:.0f},{other:.0f}"
        lines.append(f'<path marker-end="url(#tip)" d="M{begin:.0f},{y:.0f} C{curve}"/>')
        if label := LABELS.get((start, end)):
            lines.append(f'<text x="{begin + half:.0f}" y="{y - 9:.0f}" text-anchor="middle">{escape(label)}</text>')
    for name, (left, y, wide) in boxes.items():
        lines.append(f'<rect x="{left:.0f}" y="{y - HEIGHT / 2:.0f}" width="{wide:.0f}" height="{HEIGHT}" rx="5"/>')
        lines.append(f'<text x="{left + wide / 2:.0f}" y="{y + 5:.0f}" text-anchor="middle">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>", ""])
