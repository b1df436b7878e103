"""Plots: one function each, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from ..hardware.units import si
from ..sim.exposure import CATEGORIES, PHASES
from ..sim.scaling import Study

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


def strong_scaling(study: Study, published: float | None = None) -> Figure:
    """Speed-up over the smallest run, with the ideal line; ``published`` is a measured speed-up on the largest node count."""
    figure, axes = _figure()
    nodes = [point.nodes for point in study.points]
    axes.plot(nodes, [count / nodes[0] for count in nodes], "--", color=INK, lw=1, label="ideal")
    axes.plot(nodes, [point.speedup for point in study.points], "o-", color=COLOURS["compute"], label="simulated")
    for point in study.points[1:]:
        _note(axes, f"{point.efficiency:.0%}", point.nodes, point.speedup, below=True)
    if published:
        axes.plot(nodes[-1], published, "*", ms=14, color=PUBLISHED, label=f"published ({published:g}x)", zorder=5)
    axes.set_ylabel(f"speed-up over {nodes[0]:,} nodes")
    return _scaling(figure, axes, study, "Strong scaling (same experts, same batch)", logarithmic=True)


def weak_scaling(study: Study, published: float | None = None) -> Figure:
    """FLOP/s, with the line of the smallest run's rate a node; ``published`` is measured on the largest node count."""
    figure, axes = _figure()
    nodes = [point.nodes for point in study.points]
    rates = [point.summary["flops_per_second"] for point in study.points]
    unit, prefix = (1e18, "E") if rates[-1] > 1e17 else (1e15, "P") if rates[-1] > 1e14 else (1e12, "T")
    # Gate FLOPs grow with the experts, so the ideal is the last point's work at the smallest run's efficiency.
    ideal = [rate / point.efficiency / unit for rate, point in zip(rates, study.points, strict=True)]
    axes.plot(nodes, ideal, "--", color=INK, lw=1, label="ideal")
    axes.plot(nodes, [rate / unit for rate in rates], "o-", color=COLOURS["compute"], label="simulated")
    for point, rate in list(zip(study.points, rates, strict=True))[1:]:
        _note(axes, f"{point.efficiency:.1%}", point.nodes, rate / unit, below=True)
    if published:
        axes.plot(
            nodes[-1],
            published / unit,
            "*",
            ms=14,
            color=PUBLISHED,
            label=f"published ({si(published, 'FLOP/s')})",
            zorder=5,
        )
    axes.set_ylabel(f"{prefix}FLOP/s")
    return _scaling(figure, axes, study, "Weak scaling (experts and batch grow with the nodes)", logarithmic=False)


def breakdown(summaries: Mapping[str, Mapping[str, Any]], title: str = "Where a step's time goes") -> Figure:
    """Exposed seconds of one step for each run, stacked by phase (hatching) and category (colour), as shares of the step."""
    figure, axes = _figure(width=8.5)
    names = list(summaries)
    bottoms = [0.0] * len(names)
    shown: set[str] = set()
    for phase in PHASES:
        for category in CATEGORIES:
            shares = [
                summary["breakdown_by_phase"][phase][category] / summary["step_seconds"]
                for summary in summaries.values()
            ]
            if max(shares) < 0.0005:
                continue
            label = None if category in shown else category.replace("_", "-")
            shown.add(category)
            axes.bar(
                names,
                shares,
                bottom=bottoms,
                color=COLOURS[category],
                hatch=HATCHES[phase],
                edgecolor="white",
                lw=0.4,
                label=label,
                width=0.62,
            )
            bottoms = [bottom + share for bottom, share in zip(bottoms, shares, strict=True)]
    for phase in PHASES:
        axes.bar([names[0]], [0], color="white", edgecolor=INK, hatch=HATCHES[phase] * 2, lw=0.4, label=f"({phase})")
    for place, summary in enumerate(summaries.values()):
        axes.text(place, 1.015, si(summary["step_seconds"], "s", 3), ha="center", va="bottom", fontsize=9, color=INK)
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("share of the step (mean over ranks)")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.set_title(title, loc="left", pad=14)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    if len(names) > 5:
        axes.tick_params(axis="x", rotation=30)
    return figure


def expert_load(loads: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Load of the ranks of an expert-parallel group in falling order, before (solid) and after (dashed) balancing."""
    figure, axes = _figure()
    colours = [COLOURS["compute"], PUBLISHED, COLOURS["gradient_sync"], COLOURS["all_to_all"]]
    for colour, (name, load) in zip(colours, loads.items(), strict=False):
        for kind, style in (("wanted", "-"), ("carried", "--")):
            values = load[kind]
            places = [100 * (place + 0.5) / len(values) for place in range(len(values))]
            axes.plot(
                places,
                values,
                style,
                color=colour,
                lw=1.6,
                label=f"{name}, {'wanted' if kind == 'wanted' else 'carried'}",
            )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("ranks of one expert-parallel group, most loaded first (%)")
    axes.set_ylabel("tokens over the mean")
    axes.set_title("Expert load before and after balancing (first layer)", loc="left")
    axes.legend(frameon=False)
    return figure


def placements(summaries: Mapping[str, Mapping[str, Any]], published: float | None = None) -> Figure:
    """Step time of each placement, by category; ``published`` is the measured ratio of the second to the first."""
    figure, axes = _figure(width=7.5)
    names = list(summaries)
    bottoms = [0.0] * len(names)
    for category in CATEGORIES:
        seconds = [summary["breakdown"][category] for summary in summaries.values()]
        if max(seconds) > 0:
            axes.bar(
                names, seconds, bottom=bottoms, color=COLOURS[category], label=category.replace("_", "-"), width=0.55
            )
            bottoms = [bottom + part for bottom, part in zip(bottoms, seconds, strict=True)]
    for place, total in enumerate(bottoms):
        axes.text(
            place,
            total,
            f" {si(total, 's', 3)}\n {total / bottoms[0]:.2f}x",
            ha="center",
            va="bottom",
            fontsize=9,
            color=INK,
        )
    if published:
        axes.plot(
            [1],
            [published * bottoms[0]],
            "*",
            ms=14,
            color=PUBLISHED,
            label=f"published ({published:g}x)",
            ls="none",
            zorder=5,
        )
    axes.set_ylim(0, max(bottoms) * 1.2)
    axes.set_ylabel("seconds a step")
    axes.set_title("Placement of the same mesh", loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def memory(tables: Mapping[str, Mapping[str, float]]) -> Figure:
    """Memory of the fullest rank for each plan, against its capacity."""
    figure, axes = _figure(width=8.5)
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
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    if len(names) > 4:
        axes.tick_params(axis="x", rotation=20)
    return figure


def _figure(width: float = 6.6, height: float = 4.3) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _note(axes: Axes, text: str, x: float, y: float, below: bool) -> None:
    axes.annotate(
        text, (x, y), textcoords="offset points", xytext=(0, -14 if below else 8), ha="center", fontsize=8, color=INK
    )


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
