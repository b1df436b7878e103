"""Runs made by hand, for comparisons whose numbers can be told beforehand."""

import itertools
import json
import sys

from athanor import Run, compare_runs
from athanor.cli import main
from athanor.workloads.results.totals import Totals
from athanor.workloads.results.trace import TraceRow
from athanor.workloads.schedule.operation import CATEGORIES

OPERATIONS = [  # name, kind, phase, category, stream, collective, axes, seconds, bytes
    ("l0.attention.qkv", "gemm", "forward", "compute", "compute", "", "", 1.0, 0.0),
    ("l0.moe.dispatch", "exchange", "forward", "all_to_all", "communication", "all-to-all", "ep", 0.5, 100.0),
    ("l1.attention.qkv", "gemm", "forward", "compute", "compute", "", "", 3.0, 0.0),
    ("l1.moe.dispatch", "exchange", "forward", "all_to_all", "communication", "all-to-all", "ep", 1.5, 300.0),
    ("l1.moe.norm.grad", "sweep", "backward", "compute", "compute", "", "", 2.0, 0.0),
    ("gradients.dense.all-reduce", "exchange", "update", "gradient_sync", "communication", "all-reduce", "ep+dp", 4.0, 8.0),
]  # fmt: skip
PLACES = {  # (label, role, layer) of what is of a layer
    "l0.attention.qkv": ("attention.qkv", "product", 0),
    "l0.moe.dispatch": ("moe.dispatch", "dispatch", 0),
    "l1.attention.qkv": ("attention.qkv", "product", 1),
    "l1.moe.dispatch": ("moe.dispatch", "dispatch", 1),
    "l1.moe.norm.grad": ("moe.norm.grad", "norm", 1),
}
RANKS = {f"rank {2 * ep + dp}": {"ep": ep, "dp": dp} for ep, dp in itertools.product(range(2), range(2))}


def made(
    seconds=lambda name, phase, step, rank: 1.0, classes=None, steps=1, measured=False, fitted=(), machine="bench"
):
    """A run of 4 ranks whose operations take their usual seconds times what ``seconds`` says, one after another."""
    classes = classes or {"all": {"coordinate": {"ep": 0, "dp": 0}, "ranks": 4}}
    rows, each_step, phases, breakdown = [], [], {}, {}
    for step in range(steps):
        for rank in classes:
            clock = 0.0
            for name, kind, phase, category, stream, collective, axes, usual, nbytes in OPERATIONS:
                taken = usual * seconds(name, phase, step, rank)
                what = (name, kind, phase, category, stream, collective, axes, "machine" if axes else "")
                label, role, layer = PLACES.get(name, (name, "gradient sum", None))
                times = (rank, clock, clock + taken, nbytes, 7.0, "")
                rows.append(
                    TraceRow(
                        step,
                        *what,
                        *times,
                        "pairwise-xor" if role == "dispatch" else "",
                        label,
                        role,
                        None,
                        layer,
                        phase,
                        None,
                        None,
                    )
                )
                clock += taken
                for sums, key in ((phases, phase), (breakdown, category)):
                    sums.setdefault(key, [0.0] * steps)[step] += taken / len(classes)
        each_step.append(clock)
    totals = {
        "machine": machine, "model": "toy", "parameters": {"total": 10}, "mesh": {"ep": 2, "dp": 2}, "placement": "moda",
        "ranks": 4, "nodes": 4, "supernodes": 1, "tokens_per_rank": 64, "micro_batches": 1,
        "step_seconds": sum(each_step) / steps, "each_step_seconds": each_step,
        "phases": {key: sum(values) / steps for key, values in phases.items()}, "each_step_phases": phases,
        "breakdown": {key: sum(breakdown.get(key, [0.0])) / steps for key in CATEGORIES}, "each_step_breakdown": breakdown,
        "load_balance": {"max_over_mean": 1.5, "moved_fraction": 0.25, "dropped_fraction": 0.0}, "fits": True, "seed": 0, "events": 0,
        "tokens_per_second": 1.0, "flops_per_second": 1.0, "flops_per_step": 1.0, "peak_fraction": 0.5, "breakdown_by_phase": {},
        "memory_per_rank_bytes": {}, "network": {"depth": "fluid", "routing": "static"}, "wall_seconds": 0.1, "peak_rss_bytes": 1,
        "fitted_constants": list(fitted), "warnings": [],
        "links": [{"kind": "nic.out", "links": 4, "capacity_bytes_per_second": 18.0, "busiest": 0, "bytes_per_step": 9.0, "mean_utilisation": 0.5, "max_utilisation": 0.75}],
    }  # fmt: skip
    if measured:
        totals["measured"] = {"library": "MPICH 5.0", "hosts": ["n0", "n1"]}
    plan = {"all_to_all": "pairwise-xor", "top_k": 2, "router": "uniform", "seed": 0}
    return Run(Totals(**totals), plan, classes, rows, {})


def of_ranks(names=RANKS):
    return {name: {"coordinate": RANKS[name], "ranks": 1} for name in names}


def times(factor):
    return lambda *_: factor


def one(*runs):
    (pair,) = compare_runs(*runs).pairs
    return pair


def pairs_of(*steps, fitted=()):
    """Runs in turn, predicted and measured, that take these steps; the keys of fitted constants of each pair."""
    keys = [*fitted, *([()] * len(steps))]
    for (predicted, measured), key in zip(steps, keys, strict=False):
        yield made(times(predicted), fitted=key)
        yield made(times(measured), measured=True)


def saved(folder, **runs):
    """The files of runs, or of what is no good run, as plain data."""
    for name, run in runs.items():
        plain = run if isinstance(run, dict) else run.to_plain()
        (folder / f"{name}.json").write_text(json.dumps(plain))
    return [str(folder / f"{name}.json") for name in runs]


def cli(monkeypatch, capsys, *arguments):
    """(exit status, stdout, stderr) of the command line."""
    monkeypatch.setattr(sys, "argv", ["athanor", *map(str, arguments)])
    status = 0
    try:
        main()
    except SystemExit as done:
        status = done.code or 0
    return status, *capsys.readouterr()
