"""Makes what is generated in the documentation: tables, pictures, and the reference of the command line.

``make pages`` writes them; ``tests/house/test_docs.py`` checks that what stands there is what this file would write.
Speeds come from ``benchmarks/speed.json``, which ``python benchmarks/speed.py --record`` keeps.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parent.parent
DATA_FLOW = "docs/pictures/data_flow.svg"
ACCURACY = (
    ": EFLOPS",
    "placement",
    "strong scaling",
    "weak-scaling",
    "expert parameters",
    "GEMM",
    "update state",
    "256 flows",
    "after SWIPE",
    "14.5t fits",
)
"""What the names of the claims contain that stand in the README; all of them are in the report."""


def accuracy(claims: list[dict[str, Any]]) -> str:
    """The README's table of claims."""
    from athanor.reports.tables.runs import claim_cells

    lines = ["| claim | target | simulated | error | kind |", "|---|---:|---:|---:|---|"]
    shown = [claim for claim in claims if any(text in claim["name"] for text in ACCURACY)]
    rows = [f"| {' | '.join([claim['name'], *claim_cells(claim), claim['kind']])} |" for claim in shown]
    return "\n".join([*lines, *rows])


def free_direction(rows: list[tuple[str, ...]]) -> str:
    """The table of how far the predictions move, of the page on accuracy."""
    from athanor.reports.studies.reproductions.bagualu.parts import FREE_COLUMNS, PREDICTED_COLUMNS

    columns = [*FREE_COLUMNS, *PREDICTED_COLUMNS]
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def speed(record: dict[str, Any]) -> str:
    """The README's table of speeds."""
    lines = ["| work | CPU s | target | peak MiB | target |", "|---|---:|---:|---:|---:|"]
    for row in record["rows"]:
        limits = [str(row[key]) if row[key] else "" for key in ("target_seconds", "target_mib")]
        lines.append(
            f"| {row['work']} | {row['cpu_seconds']:.2f} | {limits[0]} | {row['peak_mib']:.0f} | {limits[1]} |"
        )
    nodes = [f"{count:,}" for count in record["growth"][0]["nodes"]]
    lines += [
        "",
        f"| CPU s at nodes | {' | '.join(nodes)} | worst doubling | target |",
        "|---|" + "---:|" * (len(nodes) + 2),
    ]
    for row in record["growth"]:
        seconds = " | ".join(f"{each:.2f}" for each in row["cpu_seconds"])
        lines.append(f"| {row['plan']} | {seconds} | {row['worst']:.2f}x | {row['target']}x |")
    return "\n".join([*lines, "", f"{record['machine']}, {record['date']}, load {record['load']:.1f}."])


def network(record: dict[str, Any]) -> str:
    """The README's table of the network beside SimGrid."""
    spec = importlib.util.spec_from_file_location("network", ROOT / "benchmarks" / "network.py")
    assert spec and spec.loader
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    lines = [f"| {' | '.join(bench.COLUMNS)} |", "|---|" + "---:|" * (len(bench.COLUMNS) - 1)]
    lines += [f"| {' | '.join(bench.cells(row))} |" for row in record["rows"]]
    start = record["start"]
    return "\n".join(
        [
            *lines,
            "",
            f"Whole processes: {start['cpu']:.2f} CPU s and {start['mib']:.0f} MiB of each row are start-up.",
        ]
    )


def referee(record: dict[str, Any]) -> str:
    """The table of the engine's errors against the referee."""
    columns = ("plans", "depth", "number", "exact", "bias", "mean error", "95 % within", "worst")
    rows = [
        (
            row["kind"],
            row["depth"],
            str(row["plans"]),
            f"{row['exact']:.0%}",
            *(
                f"{row[key]:+.1%}" if key in ("bias", "worst") else f"{row[key]:.1%}"
                for key in ("bias", "mean", "most_of", "worst")
            ),
        )
        for row in record["rows"]
    ]
    return "\n".join(lines_of(columns, rows, 2))


def lines_of(columns: Any, rows: Any, text_columns: int = 1) -> list[str]:
    """A table in Markdown."""
    ruler = "---|" * text_columns + "---:|" * (len(columns) - text_columns)
    return [f"| {' | '.join(columns)} |", f"|{ruler}", *(f"| {' | '.join(row)} |" for row in rows)]


def validation(record: dict[str, Any]) -> str:
    """The README's table of the validation study."""
    from athanor.reports.pages.runtime_validation import JUDGED, judged_rows

    made = f"{record['machine']}, {record['date']}, load {record['load']:.1f} before it began."
    ratio = f"Across supernodes over inside, all nodes sending: {record['cross_over_inside']:.4f} (3/16 = 0.1875)."
    return "\n".join([*lines_of(JUDGED, judged_rows(record)), "", ratio, made])


def validation_cells(record: dict[str, Any]) -> str:
    """All cells of the study, and the order of the plans on each tree."""
    from athanor.reports.pages.runtime_validation import CELLS, cell_rows

    ranks = ", ".join(f"{name} {each:.3f}" for name, each in record["rank_correlation_by_tree"].items())
    return "\n".join(
        [*lines_of(CELLS, cell_rows(record), 5), "", f"Rank correlation of the plans on each tree: {ranks}."]
    )


def runtime(records: list[dict[str, Any]]) -> str:
    """The table of what the executor costs."""
    rows = [
        (
            record["where"],
            row["collective"],
            f"{row['bytes'] >> 10} KiB",
            f"{1e6 * row['bare_seconds']:,.0f}",
            f"{1e6 * row['executor_seconds']:,.0f}",
            f"{row['ratio']:.3f}",
        )
        for record in records
        for row in record["rows"]
    ]
    columns = ("where", "collective", "message", "bare mpi4py us", "executor us", "ratio")
    return "\n".join(lines_of(columns, rows, 2))


STAGES, MICRO_BATCHES = 4, 8
"""Of the pipelines that are shown."""


def played(name: str) -> tuple[Any, list[int]]:
    """A pipeline's clocks where F takes 1 and the whole backward pass 2, and from which place on each stage's step begins."""
    from athanor.sim.engine.pipeline_timing import play, play_endless
    from athanor.workloads.pipelines import PIPELINES

    pipeline, chunks = PIPELINES[name], 1 + PIPELINES[name].chunked
    work = {"F": 1.0 / chunks, "B": (1.0 if pipeline.splits_backward else 2.0) / chunks, "W": 1.0 / chunks}
    asked = (lambda stage, slot: work[slot.kind]), (lambda *ends: 0.0)
    if pipeline.asynchronous:
        return play_endless(pipeline, STAGES, MICRO_BATCHES, *asked)
    return play(pipeline.orders(STAGES, MICRO_BATCHES, chunks), *asked, folded=pipeline.folded), [0] * STAGES


def pipelines() -> str:
    """The table of what pipelines take and keep."""
    from athanor.workloads.pipelines import PIPELINES, most_in_flight

    rows = []
    for name, pipeline in PIPELINES.items():
        timing, first = played(name)
        parts = [timing.parts(stage, first[stage]) for stage in range(STAGES)]
        held = [sum(most_in_flight(order).values()) for order in timing.orders]
        versions = [pipeline.weight_versions(stage, STAGES) for stage in range(STAGES)]
        step = max(each.seconds for each in parts)
        idle = [step - each.busy for each in parts]
        rows.append(
            (f"`{name}`", f"{step:g}", *(" ".join(f"{each:g}" for each in row) for row in (idle, held, versions)))
        )
    columns = ("`--pipeline`", "step", "idle by stage", "chunks held by stage", "versions of weights by stage")
    return "\n".join(lines_of(columns, rows))


def exclusions() -> str:
    """The table of what excludes what."""
    from athanor.workloads.plan.compatibility import RULES

    def code(text: str) -> str:
        values = r"2d|\d|\+\+|none|whole|fused|message|bruck|optimizer|experts|activations"
        return re.sub(rf"--[a-z-]+(?: (?:{values}))?|\b(?:cp|pp|ep|tp|dp|fsdp)\b", r"`\g<0>`", text)

    rows = [(code(rule.first), code(rule.second), code(rule.why)) for rule in RULES]
    return "\n".join(lines_of(("option", "excludes", "because"), rows, 3))


def planner(record: dict[str, Any]) -> str:
    """The table of searches."""
    from athanor.reports.tables.runs import percent

    rows = [
        (
            f"{row['model']} on {row['ranks']:,} ranks of {row['machine']}",
            f"{row['enumerated']:,}",
            f"{row['ranked']:,}",
            f"{row['search_seconds']:.1f}",
            f"{row['plans_per_second']:,.0f}",
            f"{row['closed_form_error']['mean_absolute']:.2%}",
            percent(row["closed_form_error"]["worst"]),
        )
        for row in record["searches"]
    ]
    columns = ("search", "plans", "that fit", "CPU s", "judged a second", "error of the formula, mean", "worst")
    made = f"{record['machine']}, {record['date']}, load {record['load']:.1f}: a busy machine judges fewer a second."
    return "\n".join([*lines_of(columns, rows), "", made])


def of_accuracy(table: str, record: dict[str, Any]) -> str:
    """A table of how far predictions are from published measurements."""
    from athanor.reports.tables import accuracy_markdown as markdown

    return "\n".join(getattr(markdown, table)(record, lines_of))


def recorded(name: str) -> Any:
    """What a benchmark has kept."""
    return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())


def printed(*lines: str) -> str:
    """Lines that a command printed, as a block of Markdown."""
    return "\n".join(["```", *(line.rstrip() for line in lines), "```"])


def first_walk() -> str:
    """The README's first command, down to where its table of time ends."""
    lines = command("simulate --machine selene --model gpt3-175b --mesh pp=8,dp=16,tp=8")
    return printed(*lines[: next(at for at, line in enumerate(lines) if line.startswith("Memory"))])


def skewed() -> str:
    """The README's two commands about SWIPE: the step and the load of each."""
    words = "simulate --machine sunway-oceanlight --model moda-1.93t --router zipf:1.0 --balancer"
    both = [(name, command(f"{words} {name}")) for name in ("none", "swipe")]
    return printed(
        *(line for name, lines in both for line in (f"--balancer {name}", f"  {lines[1]}", f"  {_load(lines)}"))
    )


def _load(lines: list[str]) -> str:
    """The line that tells tokens carried."""
    return next(line for line in lines if line.startswith("load"))


def command(words: str) -> list[str]:
    """The lines that ``athanor`` prints for these words."""
    from athanor.cli import cli
    from click.testing import CliRunner

    done = CliRunner(env={"COLUMNS": "100"}).invoke(cli, shlex.split(words), catch_exceptions=False)
    return [line for line in done.output.splitlines() if line.strip()]


def filled(path: Path) -> str:
    """A page with the tables of what benchmarks have kept, as it should be."""
    text = path.read_text()
    for marker, made in {
        "first": first_walk,
        "skew": skewed,
        "speed": lambda: speed(recorded("speed")),
        "network": lambda: network(recorded("network")),
        "validation": lambda: validation(recorded("validation")),
        "cells": lambda: validation_cells(recorded("validation")),
        "runtime": lambda: runtime(recorded("runtime")),
        "sources": lambda: of_accuracy("by_source", recorded("accuracy")),
        "fits": lambda: of_accuracy("by_fit", recorded("accuracy")),
        "unseen": lambda: of_accuracy("unseen", recorded("accuracy")),
        "far": lambda: of_accuracy("far", recorded("accuracy")),
        "measurements": lambda: of_accuracy("in_short", recorded("accuracy")),
        "planner": lambda: planner(recorded("planner")),
        "referee": lambda: referee(recorded("referee")),
        "pipelines": pipelines,
        "exclusions": exclusions,
    }.items():
        if f"<!-- {marker} -->" in text:
            text = fill(text, marker, made())
    return text


PAGES = (
    "README.md",
    "docs/accuracy.md",
    "docs/howto/run-for-real.md",
    "docs/howto/emulated-cluster.md",
    "docs/howto/find-a-plan.md",
    "docs/strategies/README.md",
    "docs/strategies/pipeline.md",
)
"""Pages with such tables."""


PLAN_OPTIONS = "workloads/plan/plan_options.py"
CAMPAIGN_OPTIONS = "sim/campaign/campaign_options.py"


def plan_options() -> str:
    """The options of a plan as types."""
    from athanor.workloads.plan.signatures import plan_options_source

    return plan_options_source()


def campaign_options() -> str:
    """The options of a campaign as types."""
    from athanor.sim.campaign.campaign_plan import campaign_options_source

    return campaign_options_source()


def command_line() -> str:
    """The reference of the command line, as ``--help`` prints it."""
    from athanor.cli import cli

    head = ["# The command line", "", "Made by `make pages` from the commands' own help.", ""]
    return "\n".join([*head, *helps(cli, "athanor")])


def helps(group: click.Group, path: str) -> list[str]:
    """The help of every command of a group, and of the groups in it."""
    from athanor.cli.command_line import CONTEXT

    lines: list[str] = []
    names = CONTEXT["help_option_names"]
    inside = click.Context(group)
    for name in sorted(group.list_commands(inside)):
        command = group.get_command(inside, name)
        assert command
        context = click.Context(
            command, info_name=f"{path} {name}", max_content_width=100, terminal_width=100, help_option_names=names
        )
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        lines += [f"## {path} {name}", "", "```", text, "```", ""]
        if isinstance(command, click.Group):
            lines += helps(command, f"{path} {name}")
    return lines


def fill(text: str, marker: str, body: str) -> str:
    """Text with other content between two markers."""
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n{body}\n\n{found[2]}", text, flags=re.DOTALL)


def pictures(found: Any) -> dict[str, Any]:
    """README's pictures by name."""
    from athanor.reports.plots import runs, scaling
    from athanor.reports.published import published
    from athanor.reports.studies.reproductions.bagualu.parts import FITTED

    results = published("bagualu")
    return {
        "weak_scaling": scaling.weak_scaling(found.weak, 1e18 * results["eflops"]["moda-1.93t"], FITTED),
        "strong_scaling": scaling.strong_scaling(found.strong, results["scaling"]["strong_speedup"], FITTED),
        "breakdown": runs.breakdown({name: run.summary() for name, run in found.models.items()}, "model"),
        **collectives(),
        "pipelines": pipeline_picture(),
        "strategies": strategies_picture(),
        **plan_pictures(),
        **campaign_pictures(),
    }


def campaign_pictures() -> dict[str, Any]:
    """A training on 96,000 nodes that break: where its time goes, what it does when, and what it draws."""
    import athanor
    from athanor.reports.plots import campaigns as plots

    found = athanor.campaign("sunway-oceanlight", "moda-1.93t", tokens=1e12)
    summary, title = found.summary(), "MoDa-1.93T on 96,000 nodes"
    return {
        "campaign_waterfall": plots.waterfall(summary["ledger"], f"{title}: from work to wall clock"),
        "campaign_gantt": plots.gantt(found.days(20).spans, f"{title}: the first hours"),
        "campaign_swings": plots.swings(found.swings, f"{title}: some steps and a checkpoint"),
    }


def plan_pictures() -> dict[str, Any]:
    """The front of a search, and what would make its best plan faster."""
    import athanor
    from athanor.reports.plots import plans as plan_plots

    found = athanor.plan("selene", "gpt3-175b", gpus=1024, global_batch=1536).plain()
    return {"plan_front": plan_plots.front(found), "plan_sensitivity": plan_plots.sensitivity(found)}


def strategies_picture() -> Any:
    """Where a step of one model goes under different plans, each on the same accelerators."""
    import athanor
    from athanor.reports.plots.runs import breakdown

    zero, full = {"zero": "1"}, {"recompute": "full"}
    plans: dict[str, dict[str, Any]] = {
        "zero 2": {"mesh": {"dp": 64}, "zero": "2"},
        "zero 3": {"mesh": {"dp": 64}, "zero": "3"},
        "fsdp": {"mesh": {"dp": 8, "fsdp": 8}, "zero": "3"},
        "zero ++": {"mesh": {"dp": 8, "fsdp": 8}, "zero": "++"},
        "offload": {"mesh": {"dp": 64}, "zero": "2", "offload": "optimizer"},
        "cp": {"mesh": {"dp": 8, "cp": 8}, "zero": "3", "micro_batch": 8},
        "tp": {"mesh": {"dp": 8, "tp": 8}, **zero, "micro_batch": 4},
        "tp, sp": {"mesh": {"dp": 8, "tp": 8}, **zero, "sequence_parallel": True, "micro_batch": 4},
        "tp 2d": {"mesh": {"dp": 16, "tp": 4}, **zero, "tensor": "2d", "micro_batch": 4},
        "pp": {"mesh": {"dp": 8, "pp": 8}, **zero},
        "tp, pp": {"mesh": {"dp": 4, "pp": 4, "tp": 4}, **zero},
    }
    given = {"global_batch": 128, "micro_batch": 1, "overlap": "gradients", "precision": "bf16", **full}
    found = {name: athanor.simulate("selene", "megatron-18.4b", **{**given, **plan}) for name, plan in plans.items()}
    return breakdown({name: run.summary() for name, run in found.items()}, "plan")


def pipeline_picture() -> Any:
    """What stages do when, in each schedule."""
    from athanor.reports.plots.pipelines import pipeline_orders
    from athanor.workloads.pipelines import PIPELINES

    titles = {name: f"{name}: {pipeline.about}" for name, pipeline in PIPELINES.items() if name != "2bw"}
    return pipeline_orders({title: played(name)[0] for name, title in titles.items()}, until=36.0)


def collectives() -> dict[str, Any]:
    """Pictures of the page on collectives: all-to-alls against size, and what pruning costs them."""
    from athanor.hardware.machine import load_machine
    from athanor.hardware.units import si
    from athanor.reports.plots import collectives as plots
    from athanor.reports.plots.collectives import whose_bytes
    from athanor.sim.studies.collective import Collective
    from athanor.sim.studies.collective_sweep import swept_sizes
    from athanor.workloads.collectives import ALGORITHMS

    pruned = load_machine("sunway-oceanlight")
    full = pruned.changed({"fabric.taper": "1/1"})
    names, sizes = list(ALGORITHMS["all-to-all"]), swept_sizes(1 << 20)
    curves: dict[str, list[tuple[float, float]]] = {}
    for taper, machine in (("3/16", pruned), ("1/1", full)):
        asked = Collective(machine, "all-to-all", 1024)
        for name in names:
            curves[f"{name}, {taper}"] = [(size, asked.run(name, size).seconds) for size in sizes]
    what, where = whose_bytes("all-to-all"), f"all-to-all of 1,024 ranks on {pruned.name}"
    shown = {name: curves[f"{name}, 3/16"] for name in names}
    tapered = {name: curve for name, curve in curves.items() if name.split(",")[0] in ("linear", "bruck", "two-level")}
    styles = {name: (names.index(name.split(",")[0]), "-" if "3/16" in name else "--") for name in tapered}
    trunk, nodes = si(pruned.injection * pruned.supernode * 3 / 16, "B/s", 3), f"{pruned.supernode} nodes"
    return {
        "collective_algorithms": plots.times_by_size(shown, where, what),
        "collective_taper": plots.times_by_size(
            tapered, f"{where}\ntrunks of 3/16 ({trunk} for {nodes}) and of 1/1", what, styles
        ),
    }


def diagram() -> Any:
    """The module that draws the diagram of the architecture."""
    spec = importlib.util.spec_from_file_location("diagram", ROOT / "docs" / "diagram.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Write everything anew, or only what needs no simulation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", action="store_true", help="only tables and references: no reproduction, no pictures")
    texts = parser.parse_args().texts
    if not texts:
        simulated()
    for name in PAGES:
        (ROOT / name).write_text(filled(ROOT / name))
    (ROOT / "docs" / "cli.md").write_text(command_line())
    (ROOT / PLAN_OPTIONS).write_text(plan_options())
    (ROOT / CAMPAIGN_OPTIONS).write_text(campaign_options())
    (ROOT / DATA_FLOW).write_text(diagram().svg())


def simulated() -> None:
    """Write what is made of simulations: tables of the reproduction, and pictures."""
    from athanor.hardware.cores import cores
    from athanor.reports.plots.draw import as_png
    from athanor.reports.studies.reproductions import reproduce
    from athanor.reports.studies.reproductions.bagualu.parts import free_rows

    found: Any = reproduce("bagualu", lambda text: print(text, file=sys.stderr), jobs=cores())
    readme, page = ROOT / "README.md", ROOT / "docs" / "accuracy.md"
    readme.write_text(fill(readme.read_text(), "accuracy", accuracy([claim.plain() for claim in found.claims])))
    page.write_text(fill(page.read_text(), "free", free_direction(free_rows(found))))
    (ROOT / "docs" / "pictures").mkdir(exist_ok=True)
    for name, figure in pictures(found).items():
        (ROOT / "docs" / "pictures" / f"{name}.png").write_bytes(as_png(figure))


if __name__ == "__main__":
    main()
