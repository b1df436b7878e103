"""Whether a plan can be lowered and simulated in the memory of this computer, before that starts."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

import numpy as np

from ...hardware.errors import DoesNotFit
from ...hardware.machine import Machine
from ..collectives import rounds
from ..plan.setting import Setting
from .data_parallel.sharding import last_of, parts_of
from .pipeline_blocks import last_differs

BASE = 110e6
"""Bytes of Python with its libraries."""

ARRAYS = 70
"""Arrays of one number a rank that are alive at once: layout, groups, links and their loads. Measured at 96,000 ranks."""

LATEST = 32
"""Arrays of what the latest layers carry, and of what their operations take, where layers' loads differ. Measured."""

ROW = 700
"""Bytes of one row of the trace. Measured."""

SLOT = 600
"""Bytes of one pass of a micro-batch through a stage, as it is played. Measured at 20,000 and 40,000 of them."""

CLOCKS = 6
"""Times of a pass that are numbers a rank where ranks differ."""

MOST_ROWS = 20_000
"""Rows of a rank's trace of a pipeline up to which it tells every operation; above, every pass."""

MOST_PAIRS = 20_000_000
"""Pairs of ranks of an all-to-all above which one is refused on a fabric that is no tree: each has a route of its own."""

PAIR, HOP = 100, 4
"""Bytes that a pair of ranks takes there, and each link of its route. Measured."""

FLOW = 80
"""Bytes that all that a group sends alike on a leg of routes takes, beside its links. Measured."""

PAIRS_AT_ONCE = 1 << 18
"""Pairs whose routes are worked out together: few enough that the arrays in between take little memory."""

MOST_STEPS = 4096
"""Ranks of a group above which an all-to-all of one step for each other rank is refused: each step is a transfer."""

STEP = 150
"""Bytes a rank that are kept for each of these steps: the loads and classes of links."""

OPERATIONS = 50
"""Operations of one layer in a micro-batch, forward and backward."""


def estimate_bytes(setting: Setting) -> float:
    """Bytes that simulating the plan needs at most, from the sizes of its arrays and of its trace."""
    plan, model, ranks = setting.plan, setting.model, setting.mesh.ranks
    layers = model.layers * setting.batch.micro_batches
    arrays = float(ARRAYS)
    uneven = bool(model.experts) and not plan.balancing.level
    if uneven:  # each layer's tokens and what follows from them: of blocks all at once, else of the latest layers
        arrays += 6 * layers if setting.composed else LATEST + layers / 2
    if setting.machine.fabric.cables > 1:  # loads and shares by cable, for every run of a group in a supernode
        arrays += 2 * setting.machine.fabric.cables
    messages = float(STEP) * ranks * setting.mesh.size("ep") if _pairwise(setting) else 0.0
    if "ep" in setting.mesh.axes and not setting.machine.fabric.is_tree:
        by_legs = plan.depth in ("bound", "links") or (plan.depth == "auto" and uneven)
        of_legs = _of_legs(setting) if by_legs else None
        messages += _of_pairs(setting) if of_legs is None else of_legs
    experts = 8.0 * model.experts * (6 + 3 * setting.top_k + (2 * model.layers if plan.drift else 0))
    classes = 3 if uneven or plan.speed_spread or plan.slowness_of_nodes or setting.mesh.size("pp") > 1 else 1
    blocks = setting.composed and not uneven
    trace = _of_blocks(setting, classes) if blocks else ROW * OPERATIONS * layers * plan.steps * classes
    return BASE + 8.0 * ranks * arrays + messages + experts + trace


def _of_blocks(setting: Setting, classes: int) -> float:
    """Bytes of a step whose micro-batches are alike: blocks are written once, their order is played, and its trace is short."""
    plan, count = setting.plan, setting.batch.micro_batches
    stages, chunks = setting.mesh.size("pp"), setting.plan.chunks
    parts, stack = parts_of(setting), setting.stack
    distinct = {
        (tuple(stack[layer] for layer in part), not at, at == last_of(setting)) for at, part in enumerate(parts)
    }
    written = OPERATIONS * sum(len(layers) for layers, *_ in distinct) * (2 if last_differs(setting) else 1)
    passes = 3 * chunks * count
    told = min(OPERATIONS * (1 + len(stack) // stages) * count, MOST_ROWS) + 2 * passes
    clocks = 8.0 * CLOCKS * setting.mesh.ranks / stages if plan.jitter or plan.speed_spread else 0.0
    return ROW * (written + told * plan.steps * classes) + (SLOT + clocks) * stages * passes


def require_room(setting: Setting) -> None:
    """Raise :class:`DoesNotFit` where a simulation needs more memory than this computer has free, or too many transfers."""
    if _pairwise(setting) and (size := setting.mesh.size("ep")) > MOST_STEPS:
        raise DoesNotFit(
            f"--all-to-all {setting.plan.all_to_all}: {size:,} ranks along ep take as many steps, each a transfer of its own,"
            f" and {MOST_STEPS:,} can be; linear and two-level take one or two"
        )
    needed, free = estimate_bytes(setting), available_bytes()
    if needed > free:
        raise DoesNotFit(
            f"simulating {setting.mesh.ranks:,} ranks needs about {needed / 1e9:.1f} GB of this computer's memory,"
            f" of which {free / 1e9:.1f} GB are free; a smaller --mesh, --balancer swipe or larger micro-batches need less"
        )


def _of_pairs(setting: Setting) -> float:
    """Bytes of the routes of an all-to-all's pairs of ranks, where the fabric is no tree."""
    pairs = min(setting.mesh.ranks * (setting.mesh.size("ep") - 1), MOST_PAIRS)  # more are refused when they are met
    hops = 2 + _hops(setting.machine)
    return float(PAIR + HOP * hops) * pairs + 24.0 * hops * min(pairs, PAIRS_AT_ONCE)


def _of_legs(setting: Setting) -> float | None:
    """The same at ``links`` depth, where bytes are added up by the legs of routes; None where there are none."""
    node = setting.layout.node[setting.layout.groups(("ep",))]
    legs = setting.machine.fabric.legs(int(node.max()) + 1)
    if legs is None:
        return None
    found, every, end = 0.0, np.arange(len(node))[:, None], np.zeros(1, dtype=np.int64)
    for leg in legs:
        flows = np.ones(len(node))
        for labels in (leg.source[node], leg.target[node]):
            width = int(labels.max()) + 1
            flows *= np.bincount(np.unique(every * width + labels, return_index=True)[0] // width, minlength=len(node))
        hops = leg.links(end, end).shape[1]
        found += float(FLOW + HOP * hops) * float(flows.sum()) + 24.0 * hops * PAIRS_AT_ONCE
    return found


def _hops(machine: Machine) -> int:
    """Links of the fabric's longest route: all routes are given as wide as that."""
    first, last = np.zeros(1, dtype=np.int64), np.full(1, machine.nodes - 1)
    return int(machine.fabric.routes(first, last, machine.nodes).shape[1])


def _pairwise(setting: Setting) -> bool:
    """Whether the plan's all-to-all takes a step for each other rank of a group."""
    if "ep" not in setting.mesh.axes:
        return False
    some = 4  # ranks that tell a step each from one for all, or from log2 of them
    made = list(rounds("all-to-all", setting.plan.all_to_all, 1, some))
    return not any(each.everyone for each in made) and sum(each.steps for each in made) == some - 1


class TooManyPairs(DoesNotFit):
    """An all-to-all has more pairs of ranks than can have routes of their own."""


def require_pairs(pairs: int, way: str = "fewer ranks in all or along ep (--mesh) have fewer") -> None:
    """Raise :class:`TooManyPairs` for more pairs of an all-to-all than can have routes, with the ``way`` out."""
    if pairs > MOST_PAIRS:
        raise TooManyPairs(
            f"an all-to-all has {pairs:,} pairs of ranks, each with a route of its own where the fabric is no tree, and"
            f" {MOST_PAIRS:,} can be; {way}"
        )


def available_bytes() -> float:
    """Bytes that this process may still take: free memory, and what limits on the process and its control group leave."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    left = [float("inf") if limit == resource.RLIM_INFINITY else float(limit) - _in_use("VmSize")]
    try:
        left.append(_kibibytes("/proc/meminfo", "MemAvailable"))
    except (OSError, StopIteration):
        left.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    group = Path("/sys/fs/cgroup")
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such limit: the file is absent or says "max"
            left.append(float((group / most).read_text()) - float((group / used).read_text()))
    return max(0.0, min(left))


def _kibibytes(path: str, key: str) -> float:
    """The bytes that a line of a kernel's table names in KiB."""
    lines = Path(path).read_text(encoding="ascii").splitlines()
    return next(1024.0 * float(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _in_use(key: str) -> float:
    """Bytes that the kernel counts for this process under a key; 0 where it does not say."""
    try:
        return _kibibytes("/proc/self/status", key)
    except (OSError, StopIteration):
        return 0.0


def peak_rss_bytes() -> int:
    """The most memory that this process has held so far.

    Linux's own count comes first: ``getrusage`` starts a child with what its parent held.
    """
    if held := _in_use("VmHWM"):
        return int(held)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
