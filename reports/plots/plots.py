"""Plots: one function each, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from ...hardware.units import binary, si
from ...sim.studies.scaling import Study
from ...workloads.schedule.operation import CATEGORIES, PHASES

COLOURS = {
    "compute": "#33658a",
    "all_to_all": "#f6ae2d",
    "gradient_sync": "#4f9d69",
    "optimizer": "#8e6c8a",
    "balancing": "#d1495b",
    "imbalance": "#b8b8b8",
    "other": "#86623b",
    "tensor_parallel": "#66c3c9",
    "pipeline_bubble": "#e0e0e0",
    "pipeline_transfer": "#a1c181",
    "offload": "#5c4d7d",
}
MEMORY_COLOURS = {
    "parameters": "#33658a",
    "gradients": "#4f9d69",
    "optimizer": "#8e6c8a",
    "activations": "#f6ae2d",
    "other": "#86623b",
}
HATCHES = {"forward": "", "backward": "//", "update": ".."}
INK, PUBLISHED = "#333333", "#d1495b"
SERIES = ("#33658a", "#d1495b", "#4f9d69", "#f6ae2d", "#8e6c8a")
MARKERS = "os^vD"

LEAST_SHARE = 0.002
"""Shares of a step below this are not drawn."""


def strong_scaling(study: Study, published: float | None = None, note: str = "") -> Figure:
    """Speed-up over the smallest run, with the ideal line.

    ``published`` is a measured speed-up on the largest node count; ``note`` says whether the simulation was fitted to it.
    """
    figure, axes = blank()
    nodes = [point.nodes for point in study.points]
    axes.plot(nodes, [count / nodes[0] for count in nodes], "--", color=INK, lw=1, label="ideal")
    axes.plot(nodes, [point.speedup for point in study.points], "o-", color=COLOURS["compute"], label="simulated")
    for point in study.points[1:]:
        _note(axes, f"{point.efficiency:.0%}", point.nodes, point.speedup)
    if published:
        axes.plot(
            nodes[-1], published, "*", ms=14, color=PUBLISHED, label=f"published ({published:g}x{note})", zorder=5
        )
    axes.set_ylabel(f"speed-up over {nodes[0]:,} nodes")
    return _scaling(figure, axes, study, "Strong scaling (same experts, same batch)", logarithmic=True)


def weak_scaling(study: Study, published: float | None = None, note: str = "") -> Figure:
    """FLOP/s, with the line of the smallest run's rate a node.

    ``published`` is measured on the largest node count; ``note`` says whether the simulation was fitted to it.
    """
    figure, axes = blank()
    nodes = [point.nodes for point in study.points]
    rates = [point.summary["flops_per_second"] for point in study.points]
    unit, prefix = (1e18, "E") if rates[-1] > 1e17 else (1e15, "P") if rates[-1] > 1e14 else (1e12, "T")
    # Gate FLOPs grow with the experts, so the ideal is the last point's work at the smallest run's efficiency.
    ideal = [rate / point.efficiency / unit for rate, point in zip(rates, study.points, strict=True)]
    axes.plot(nodes, ideal, "--", color=INK, lw=1, label="ideal")
    axes.plot(nodes, [rate / unit for rate in rates], "o-", color=COLOURS["compute"], label="simulated")
    for point, rate in list(zip(study.points, rates, strict=True))[1:]:
        _note(axes, f"{point.efficiency:.1%}", point.nodes, rate / unit)
    if published:
        axes.plot(
            nodes[-1],
            published / unit,
            "*",
            ms=14,
            color=PUBLISHED,
            label=f"published ({si(published, 'FLOP/s')}{note})",
            zorder=5,
        )
    axes.set_ylabel(f"{prefix}FLOP/s")
    return _scaling(figure, axes, study, "Weak scaling (experts and batch grow with the nodes)", logarithmic=False)


def breakdown(summaries: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Exposed seconds of one step for each run, stacked by phase (hatching) and category (colour), as shares of the step."""
    figure, axes = blank(width=8.5)
    names = list(summaries)
    bottoms = [0.0] * len(names)
    shown: dict[str, None] = {}
    for phase in PHASES:
        for category in CATEGORIES:
            shares = [run["breakdown_by_phase"][phase][category] / run["step_seconds"] for run in summaries.values()]
            if max(shares) < LEAST_SHARE:
                continue
            shown[category] = None
            style: dict[str, Any] = {
                "color": COLOURS[category],
                "hatch": HATCHES[phase],
                "edgecolor": "white",
                "lw": 0.4,
                "width": 0.62,
            }
            axes.bar(names, shares, bottom=bottoms, **style)
            bottoms = [bottom + share for bottom, share in zip(bottoms, shares, strict=True)]
    for place, run in enumerate(summaries.values()):
        axes.text(place, 1.015, si(run["step_seconds"], "s", 3), ha="center", va="bottom", fontsize=9, color=INK)
    axes.set_xlim(-max(0.5, 1.6 - len(names) / 2), len(names) - 1 + max(0.5, 1.6 - len(names) / 2))
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("share of the step (mean over ranks)")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.set_title("Where a step's time goes", loc="left", pad=14)
    phases = [
        Patch(facecolor="white", edgecolor=INK, hatch=HATCHES[phase] * 2, lw=0.4, label=phase) for phase in PHASES
    ]
    legend_beside(axes, [*swatches(shown), *phases])
    if len(names) > 5:
        axes.tick_params(axis="x", rotation=30)
    return figure


def expert_load(loads: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Load of the ranks of an expert-parallel group in falling order: wanted (solid) and carried after balancing (dashed).

    What is wanted is drawn once where it is the same for all.
    """
    figure, axes = blank()
    wanted = {name: list(load["wanted"]) for name, load in loads.items()}
    same = all(values == next(iter(wanted.values())) for values in wanted.values())
    for colour, (name, load) in zip(SERIES, loads.items(), strict=False):
        if not same or name == next(iter(loads)):
            _falling(axes, load["wanted"], "-", INK if same else colour, "wanted" if same else f"{name}: wanted")
        _falling(axes, load["carried"], "--", colour, f"{name}: carried")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("ranks of one expert-parallel group, most loaded first (%)")
    axes.set_ylabel("tokens over the mean")
    axes.set_title("Expert load before and after balancing (first layer)", loc="left")
    axes.legend(frameon=False)
    return figure


def placements(
    summaries: Mapping[str, Mapping[str, Any]],
    published: float | None = None,
    note: str = "",
    title: str = "Placement of the same mesh",
) -> Figure:
    """Step time of each placement, by category; ``published`` is the measured ratio of the second to the first."""
    figure, axes = blank(width=7.5)
    names = list(summaries)
    bottoms = [0.0] * len(names)
    shown = []
    for category in CATEGORIES:
        seconds = [summary["breakdown"][category] for summary in summaries.values()]
        if max(seconds) > LEAST_SHARE * max(summary["step_seconds"] for summary in summaries.values()):
            shown.append(category)
            axes.bar(names, seconds, bottom=bottoms, color=COLOURS[category], width=0.5)
            bottoms = [bottom + part for bottom, part in zip(bottoms, seconds, strict=True)]
    for place, total in enumerate(bottoms):
        label = (", " if len(names) < 5 else "\n").join((si(total, "s", 3), f"{total / bottoms[0]:.2f}x"))
        axes.annotate(
            label, (place, total), textcoords="offset points", xytext=(0, 4), ha="center", fontsize=9, color=INK
        )
    handles = swatches(shown)
    if published:
        label = f"published ({published:g}x{note})"
        handles += axes.plot([1.32], [published * bottoms[0]], "*", ms=13, color=PUBLISHED, label=label, ls="none")
    axes.set_ylim(0, max(bottoms) * 1.15)
    axes.set_ylabel("seconds a step")
    axes.set_title(title, loc="left")
    legend_beside(axes, handles)
    return figure


def memory(tables: Mapping[str, Mapping[str, float]]) -> Figure:
    """Memory of the fullest rank for each plan, against its capacity."""
    figure, axes = blank(width=8.5)
    names = list(tables)
    bottoms = [0.0] * len(names)
    for part, colour in MEMORY_COLOURS.items():
        sizes = [entry[part] / 1e9 for entry in tables.values()]
        axes.bar(names, sizes, bottom=bottoms, color=colour, label=part, width=0.6)
        bottoms = [bottom + size for bottom, size in zip(bottoms, sizes, strict=True)]
    capacities = [entry["capacity"] / 1e9 for entry in tables.values()]
    for place, capacity in enumerate(capacities):
        axes.plot(
            [place - 0.42, place + 0.42],
            [capacity, capacity],
            color=PUBLISHED,
            lw=1.6,
            label="capacity" if not place else None,
        )
        axes.text(place, bottoms[place], f"{bottoms[place]:.0f}", ha="center", va="bottom", fontsize=9, color=INK)
    axes.set_ylabel("GB of the fullest rank")
    axes.set_ylim(0, 1.15 * max(*bottoms, *capacities))
    axes.set_title("Memory", loc="left")
    legend_beside(axes)
    if len(names) > 4:
        axes.tick_params(axis="x", rotation=20)
    return figure


def times_by_size(
    times: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    what: str,
    styles: Mapping[str, tuple[int, str]] | None = None,
) -> Figure:
    """Seconds of collectives against bytes, ``(bytes, seconds)`` of each curve, both logarithmic.

    ``what`` says whose bytes they are; ``styles`` gives a curve the number of its colour and its line (``-``, ``--``).
    """
    figure, axes = blank(width=8.0)
    for place, (name, curve) in enumerate(times.items()):
        number, line = (styles or {}).get(name, (place, "-"))
        seconds = [each for _, each in curve]
        colour, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
        axes.plot([size for size, _ in curve], seconds, line, marker=marker, ms=5, lw=1.6, color=colour, label=name)
    axes.set_xscale("log", base=4)
    axes.set_yscale("log")
    sizes = sorted({size for curve in times.values() for size, _ in curve})
    axes.set_xticks(sizes, [binary(size) for size in sizes], fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 50 * low else (1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value, "s", 3)))
    axes.set_xlabel(f"bytes {what}")
    axes.set_ylabel("simulated time")
    axes.set_title(title, loc="left", fontsize=11)
    legend_beside(axes)
    return figure


def best_by_size(best: Mapping[tuple[int, float], str], algorithms: Sequence[str], title: str, what: str) -> Figure:
    """The best algorithm by ``(ranks, bytes)`` as a coloured grid; ``algorithms`` keep their colours from plot to plot."""
    sizes, counts = (sorted({place[axis] for place in best}) for axis in (1, 0))
    figure, axes = blank(width=8.0, height=1.6 + 0.4 * len(counts))
    for (ranks, nbytes), name in best.items():
        corner = (sizes.index(nbytes), counts.index(int(ranks)))
        axes.add_patch(
            Rectangle(corner, 1, 1, facecolor=SERIES[algorithms.index(name) % len(SERIES)], edgecolor="white")
        )
    axes.set(xlim=(0, len(sizes)), ylim=(0, len(counts)))
    axes.grid(visible=False)
    axes.set_xticks([place + 0.5 for place in range(len(sizes))], [binary(size) for size in sizes], fontsize=8)
    axes.set_yticks([place + 0.5 for place in range(len(counts))], [f"{count:,.0f}" for count in counts])
    axes.set_xlabel(f"bytes {what}")
    axes.set_ylabel("ranks")
    axes.set_title(title, loc="left", fontsize=11)
    shown = [(number, name) for number, name in enumerate(algorithms) if name in best.values()]
    legend_beside(axes, [Patch(facecolor=SERIES[number % len(SERIES)], label=name) for number, name in shown])
    return figure


def algorithm_times(seconds: Mapping[str, float], bound: float, title: str) -> Figure:
    """Seconds of each algorithm as bars, with the bound that no algorithm can pass."""
    figure, axes = blank(width=8.0, height=1.6 + 0.4 * len(seconds))
    names = list(seconds)[::-1]
    axes.barh(names, [seconds[name] for name in names], color=COLOURS["compute"], height=0.6)
    for place, name in enumerate(names):
        axes.annotate(
            si(seconds[name], "s"),
            (seconds[name], place),
            textcoords="offset points",
            xytext=(4, 0),
            va="center",
            fontsize=9,
        )
    axes.axvline(bound, color=PUBLISHED, ls="--", lw=1.4, label="lower bound")
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1.15 * max(*seconds.values(), bound, 1e-12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value, "s", 3)))
    axes.set_xlabel("simulated time")
    axes.set_title(title, loc="left", fontsize=11)
    legend_beside(axes)
    return figure


def blank(width: float = 6.6, height: float = 4.3) -> tuple[Figure, Axes]:
    """A figure with one plot, its frame and grid as all plots have them; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def legend_beside(axes: Axes, handles: Sequence[Any] | None = None) -> None:
    """A legend to the right of the plot, of these handles or of all labelled artists."""
    chosen = handles if handles is not None else axes.get_legend_handles_labels()[0]
    axes.legend(handles=chosen, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def swatches(categories: Iterable[str]) -> list[Any]:
    """Legend entries of categories."""
    return [Patch(facecolor=COLOURS[category], label=category.replace("_", "-")) for category in categories]


def _falling(axes: Axes, values: Sequence[float], style: str, colour: str, label: str) -> None:
    """A curve over the ranks' percentiles."""
    places = [100 * (place + 0.5) / len(values) for place in range(len(values))]
    axes.plot(places, values, style, color=colour, lw=1.6, label=label)


def _note(axes: Axes, text: str, x: float, y: float) -> None:
    axes.annotate(text, (x, y), textcoords="offset points", xytext=(0, -14), ha="center", fontsize=8, color=INK)


def _scaling(figure: Figure, axes: Axes, study: Study, title: str, logarithmic: bool) -> Figure:
    """Axes and title that scaling plots share."""
    nodes = [point.nodes for point in study.points]
    axes.set_xlabel("nodes")
    if logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(nodes)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title(f"{title}\n{study.model.name} on {study.machine.name}", loc="left", fontsize=11)
    axes.legend(frameon=False)
    return figure
