"""What is shown and written of a collective: one result, all algorithms of an operation, or a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from ...hardware.machine import Machine
from ...hardware.units import binary, si
from ...workloads.collectives import ALGORITHMS
from ..content.inputs import machine_section
from ..content.sections import Picture, Section
from ..plots import collectives as plots
from ..plots.collectives import whose_bytes
from ..tables.runs import table
from .html_page import write_report
from .output_folder import Folder, all_or_nothing

if TYPE_CHECKING:
    from ...sim.studies.collective import Result
    from ...sim.studies.collective_sweep import AlgorithmComparison, CollectiveSweep

ALGORITHM_COLUMNS = ("algorithm", "time", "algorithm bw", "bus bw", "of bound", "bottleneck", "depth", "messages")
LINK_COLUMNS = ("kind", "links", "capacity", "bytes", "mean use", "most used")
RULE_COLUMNS = ("ranks", "from", "to", "best algorithm", "next best takes")
POINT_COLUMNS = (
    "operation",
    "algorithm",
    "ranks",
    "nodes",
    "bytes",
    "seconds",
    "algorithm_bandwidth",
    "bus_bandwidth",
    "bound_seconds",
    "fraction_of_bound",
    "bottleneck",
    "depth",
    "messages",
)


def lead(result: Result) -> str:
    """One line on what was asked."""
    size = "" if result.operation == "barrier" else f", {binary(result.nbytes)} {whose_bytes(result.operation)}"
    return (
        f"{result.operation} on {result.machine}: {result.ranks:,} ranks on {result.nodes:,} nodes"
        f" ({result.placement}){size}; {result.routing} routing, network model {result.network_model}"
    )


def fastest(results: Sequence[Result]) -> str:
    """The fastest algorithm, how long it takes, and how near that is to what no algorithm could beat."""
    best = min(results, key=lambda each: each.seconds)
    return f"{best.algorithm} takes {si(best.seconds, 's')}, {best.fraction_of_bound:.1%} of the speed that the bound allows."


def often(study: CollectiveSweep) -> str:
    """Which algorithm is the fastest where."""
    rules = [rule for rule in study.rules if rule.ranks == max(study.counts)]
    told = [f"{rule.algorithm} from {binary(rule.least)} to {binary(rule.most)}" for rule in rules]
    return f"On {max(study.counts):,} ranks the fastest are {', '.join(told)}."


def show_result(console: Console, result: Result) -> None:
    """Time, bandwidths, the bound and the use of links."""
    console.print(f"[bold]{result.algorithm}[/] {escape(lead(result))}, depth {result.depth}")
    console.print(table("", ["quantity", "value"], _totals(result)))
    console.print(table("Links", LINK_COLUMNS, _links(result)))


def show_comparison(console: Console, found: AlgorithmComparison) -> None:
    """All algorithms, fastest first, and those that cannot run."""
    title = f"{lead(found.results[0])}; no algorithm is below {si(found.results[0].bound_seconds, 's')}"
    console.print(table(title, ALGORITHM_COLUMNS, map(_algorithm, found.results)))
    for reason in found.left_out.values():
        console.print(f"[yellow]left out:[/] {escape(reason)}")


def show_sweep(console: Console, study: CollectiveSweep) -> None:
    """The decision table, and what could not run."""
    title = (
        f"{study.operation} on {study.machine.name}: best algorithm by ranks and bytes {whose_bytes(study.operation)}"
    )
    made = table(title, RULE_COLUMNS, _rules(study), text_columns=0)
    made.columns[3].justify = "left"
    console.print(made)
    for reason in _left_out(study):
        console.print(f"[yellow]left out:[/] {escape(reason)}")


@all_or_nothing
def write_results(folder: Folder, results: Sequence[Result], plain: Any, machine: Machine, command: str) -> None:
    """Write ``collective.json``, ``algorithms.csv``, ``links.csv``, a plot and ``report.html`` of one result or several."""
    import pandas as pd

    folder.json("collective.json", plain)
    points = [{column: each.plain()[column] for column in POINT_COLUMNS} for each in results]
    folder.frame("algorithms.csv", pd.DataFrame(points, columns=POINT_COLUMNS))
    links = [{"algorithm": each.algorithm, **row} for each in results for row in each.links]
    folder.frame("links.csv", pd.DataFrame(links))
    title = f"{results[0].operation} on {results[0].machine}"
    bound = results[0].bound_seconds
    drawn = folder.figure(
        "algorithms", plots.algorithm_times({each.algorithm: each.seconds for each in results}, bound, title)
    )
    picture = Picture(drawn, "Simulated time, and what injection, ejection and the cuts of the fabric allow at best.")
    sections = [
        Section(
            "Time",
            f"Lower bound {si(bound, 's')}.",
            ALGORITHM_COLUMNS,
            [_algorithm(each) for each in results],
            figures=[picture],
        ),
        *(Section(f"Links: {each.algorithm}", "", LINK_COLUMNS, _links(each)) for each in results),
        machine_section(machine),
    ]
    write_report(folder, title, f"{fastest(results)} {lead(results[0])}, simulated.", sections, [command], [])


@all_or_nothing
def write_sweep(folder: Folder, study: CollectiveSweep, command: str) -> None:
    """Write ``sweep.json``, ``points.csv``, curves for each number of ranks, the map of the best, and ``report.html``."""
    import pandas as pd

    folder.json("sweep.json", study.plain())
    rows = [{column: point[column] for column in POINT_COLUMNS} for point in study.points]
    folder.frame("points.csv", pd.DataFrame(rows, columns=POINT_COLUMNS))
    what, name = whose_bytes(study.operation), f"{study.operation} on {study.machine.name}"
    best = {
        (ranks, size): here[0]["algorithm"]
        for ranks in study.counts
        for size in study.sizes
        if (here := study.at(ranks, size))
    }
    chart = folder.figure(
        "best", plots.best_by_size(best, list(ALGORITHMS[study.operation]), f"Best algorithm: {name}", what)
    )
    curves = [
        Picture(
            folder.figure(
                f"ranks_{ranks}",
                plots.times_by_size(curves_of(study, ranks), f"{name}, {ranks:,} ranks", what, colours(study)),
            ),
            f"{ranks:,} ranks.",
        )
        for ranks in sorted({ranks for ranks, _ in best})
    ]
    picture = Picture(chart, "The fastest algorithm; where several are equal, the one that is listed first.")
    rules = Section("Decision table", "", RULE_COLUMNS, list(_rules(study)), 0, [picture])
    options = Section(
        "Options", "", ("option", "value"), [(key, str(value)) for key, value in study.options.items()], 2
    )
    sections = [rules, Section("Time against size", figures=curves), options, machine_section(study.machine)]
    write_report(
        folder, name, f"{often(study)} {len(study.points):,} points, simulated.", sections, [command], _left_out(study)
    )


def curves_of(study: CollectiveSweep, ranks: int) -> dict[str, list[tuple[float, float]]]:
    """(bytes, seconds) of each algorithm on so many ranks."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in study.points:
        if point["ranks"] == ranks:
            curves.setdefault(point["algorithm"], []).append((point["bytes"], point["seconds"]))
    return curves


def colours(study: CollectiveSweep) -> dict[str, tuple[int, str]]:
    """The colour and line of each algorithm, the same in all plots."""
    return {name: (place, "-") for place, name in enumerate(ALGORITHMS[study.operation])}


def _totals(result: Result) -> list[tuple[str, str]]:
    return [
        ("simulated time", si(result.seconds, "s", 6)),
        ("lower bound", si(result.bound_seconds, "s", 6)),
        ("of the bound's speed", f"{result.fraction_of_bound:.2%}"),
        ("algorithm bandwidth", si(result.algorithm_bandwidth, "B/s")),
        ("bus bandwidth", si(result.bus_bandwidth, "B/s")),
        ("bottleneck", result.bottleneck),
        ("messages", f"{result.messages:,.0f}"),
    ]


def _algorithm(result: Result) -> tuple[str, ...]:
    bandwidths = (si(result.algorithm_bandwidth, "B/s"), si(result.bus_bandwidth, "B/s"))
    rest = (f"{result.fraction_of_bound:.1%}", result.bottleneck, result.depth, f"{result.messages:,.0f}")
    return (result.algorithm, si(result.seconds, "s"), *bandwidths, *rest)


def _links(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            row["kind"],
            f"{row['links']:,}",
            si(row["capacity_bytes_per_second"], "B/s"),
            si(row["bytes"], "B"),
            f"{row['mean_utilisation']:.1%}",
            f"{row['max_utilisation']:.1%}",
        )
        for row in result.links
    ]


def _rules(study: CollectiveSweep) -> Iterable[tuple[str, ...]]:
    for rule in study.rules:
        yield (
            f"{rule.ranks:,}",
            binary(rule.least),
            binary(rule.most),
            rule.algorithm,
            f"{rule.gain:.2f}x" if rule.gain else "",
        )


def _left_out(study: CollectiveSweep) -> list[str]:
    """Why algorithms were left out, those that share ranks' reasons together."""
    by_algorithm: dict[str, list[int]] = {}
    first: dict[str, str] = {}
    for ranks, algorithm, reason in study.left_out:
        by_algorithm.setdefault(algorithm, []).append(ranks)
        first.setdefault(algorithm, reason)
    return [
        f"{algorithm} on {', '.join(f'{each:,}' for each in ranks)} ranks: {first[algorithm]}"
        for algorithm, ranks in by_algorithm.items()
    ]
