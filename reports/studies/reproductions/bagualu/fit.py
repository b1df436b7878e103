"""The fit of what BaGuaLu did not publish: the machine's unknowns, from a few of its results, so that others can be predicted.

Four unknowns (GEMM efficiency, network efficiency, overhead of a message, the framework's time for a parameter) meet
four results exactly: 1.93T's EFLOPS, the placement's speed-up, the strong scaling, and 174T's EFLOPS, without which
the message overhead would be free. The fifth, tokens a node, is free. The fit moves along it, and along the message
overhead with 174T left out, to show how far predictions move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .....hardware.errors import InputError
from .....hardware.files import write_whole
from .....hardware.machine import CATALOGUE, Machine, Unknowns, load_machine
from .....sim.simulate import simulate
from .....sim.studies.scaling import scaled
from .....workloads.plan.setting import Setting
from ....published import published

Progress = Callable[[str], None]

FREE_TOKENS = (800, 1536, 2048, 3072)
FREE_OVERHEADS = (1e-6, 2e-6, 4e-6)
"""Values along the two directions that the results leave open."""

FITTED = ("gemm_efficiency", "network_efficiency", "update_overhead", "message_overhead")
RESULTS = ("eflops moda-1.93t", "placement_speedup", "strong_speedup", "eflops moda-174t")
"""The results that the unknowns are fitted to, in the order in which leaving off the last frees the last unknown."""


@dataclass(frozen=True)
class BaguaLuFit:
    """Values of the unknowns, and how far the simulated results are from the published ones they were fitted to (relative)."""

    unknowns: Unknowns
    errors: dict[str, float]


def with_unknowns(machine: Machine, unknowns: Unknowns) -> Machine:
    """The machine with other values of its unknowns."""
    return machine.changed(
        {f"calibration.{key}": value for key, value in unknowns.model_dump(exclude={"varies"}).items()}
    )


def targets() -> dict[str, float]:
    """Published results by name."""
    table = published("bagualu")
    scaling = {name: table["scaling"][name] for name in ("placement_speedup", "strong_speedup")}
    return {**{f"eflops {name}": value for name, value in table["eflops"].items()}, **scaling}


def results(machine: Machine, names: Iterable[str]) -> dict[str, float]:
    """What the simulator says of the named results on a machine."""
    size = tokens_of(machine, "moda-1.93t")
    whole = simulate(machine, "moda-1.93t", **size).summary()
    found = {}
    for name in names:
        if name == "placement_speedup":
            found[name] = (
                simulate(machine, "moda-1.93t", **{**size, "placement": "opposite"}).summary()["step_seconds"]
                / whole["step_seconds"]
            )
        elif name == "strong_speedup":
            reference = Setting.of(machine, "moda-1.93t", size)
            _, options = scaled(
                "strong", reference, reference.layout.nodes // published("bagualu")["scaling"]["strong_ratio"]
            )
            found[name] = simulate(machine, "moda-1.93t", **options).summary()["step_seconds"] / whole["step_seconds"]
        else:
            model = name.removeprefix("eflops ")
            totals = (
                whole if model == whole["model"] else simulate(machine, model, **tokens_of(machine, model)).summary()
            )
            found[name] = totals["flops_per_second"] / 1e18
    return found


def tokens_of(machine: Machine, model: str) -> dict[str, Any]:
    """A step of just the machine's tokens a node, which are varied: MoDa's length of a sequence is not known."""
    per_node = Setting.of(machine, model, {}).ranks_per_node
    return {"tokens_per_rank": machine.calibration.tokens_per_node // per_node}


def ratios(machine: Machine, names: Sequence[str] = RESULTS) -> NDArray[np.float64]:
    """Simulated over published, for each of the named results."""
    published_, found = targets(), results(machine, names)
    return np.array([found[name] / published_[name] for name in names])


def fit(machine: Machine, start: Unknowns, message_overhead: float | None = None) -> BaguaLuFit:
    """Solve for the unknowns at ``start``'s tokens a node, from ``start``; a ``message_overhead`` is kept and 174T left out."""
    try:
        from scipy.optimize import root
    except ImportError:
        raise InputError("fit needs SciPy, which is not installed: pip install 'athanor[fit]'") from None
    free = message_overhead is None
    names, wanted = (FITTED, RESULTS) if free else (FITTED[:3], RESULTS[:3])
    kept = {} if message_overhead is None else {"message_overhead": message_overhead}

    def unknowns(logs: NDArray[np.float64]) -> Unknowns:
        values = {name: float(f"{value:.6g}") for name, value in zip(names, np.exp(logs), strict=True)}
        return start.model_copy(update={**kept, **values})

    def off(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(ratios(with_unknowns(machine, unknowns(logs)), wanted))

    first = np.log([getattr(start, name) for name in names])
    found = root(off, first, method="hybr", options={"xtol": 1e-6, "eps": 1e-4, "factor": 0.1})
    if not np.abs(found.fun).max() < 1e-3:
        raise InputError(
            f"fit bagualu: no values of {', '.join(names)} meet the results at {start.tokens_per_node} tokens a node"
        )
    return BaguaLuFit(unknowns(found.x), dict(zip(wanted, np.expm1(found.fun).tolist(), strict=True)))


def fit_bagualu(progress: Progress = lambda text: None) -> Iterator[tuple[str, BaguaLuFit]]:
    """The fit at the catalogue's tokens a node, then fits along the free directions, each as (what varies, fit)."""
    machine = load_machine(published("bagualu")["machine"])
    here = Unknowns(**{name: getattr(machine.calibration, name) for name in (*FITTED, "tokens_per_node")})
    progress(f"{here.tokens_per_node} tokens a node")
    best = fit(machine, here)
    yield "", best
    for tokens in FREE_TOKENS:
        progress(f"{tokens} tokens a node")
        scale = tokens / here.tokens_per_node
        guess = {
            "tokens_per_node": tokens,
            "network_efficiency": min(0.99, best.unknowns.network_efficiency / scale),
            "message_overhead": best.unknowns.message_overhead * scale,
            "update_overhead": best.unknowns.update_overhead * scale,
        }
        yield "tokens_per_node", fit(machine, best.unknowns.model_copy(update=guess))
    for overhead in FREE_OVERHEADS:
        progress(f"{overhead * 1e6:g} us a message")
        yield "message_overhead", fit(machine, best.unknowns, message_overhead=overhead)


def calibration_table(fits: Sequence[tuple[str, BaguaLuFit]]) -> str:
    """The ``[calibration]`` tables of a machine file: the first fit, and the others as its free directions."""
    lines = ["[calibration]", *_entries(fits[0][1].unknowns)]
    for varies, each in fits[1:]:
        lines += ["", "[[calibration.free_direction]]", f'varies = "{varies}"', *_entries(each.unknowns)]
    return "\n".join(lines) + "\n"


def _entries(unknowns: Unknowns) -> list[str]:
    values: dict[str, Any] = unknowns.model_dump()
    return [
        f"gemm_efficiency = {values['gemm_efficiency']:.6g}",
        f"network_efficiency = {values['network_efficiency']:.6g}",
        f'message_overhead = "{values["message_overhead"] * 1e6:.6g} us"',
        f'update_overhead = "{values["update_overhead"] * 1e12:.6g} ps"',
        f"tokens_per_node = {values['tokens_per_node']}",
    ]


def write_machine(path: Path, fits: Sequence[tuple[str, BaguaLuFit]]) -> None:
    """Write the catalogue's machine file with other ``[calibration]`` tables; raises :class:`InputError` where it cannot."""
    text = (CATALOGUE / f"{published('bagualu')['machine']}.toml").read_text(encoding="utf-8")
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            starts = line.startswith(("[calibration]", "[[calibration."))
            if starts and not inside:
                kept += [*calibration_table(fits).rstrip().splitlines(), ""]
            inside = starts
        if not inside:
            kept.append(line)
    write_whole(path, "\n".join(kept) + "\n")
