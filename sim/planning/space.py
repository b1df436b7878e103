"""The plans that a search looks at: every mesh of so many ranks, and for each mesh every combination of the open choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, NamedTuple

from ...hardware.errors import InputError
from ...workloads.mesh.axes import AXES, CONTEXT, DATA, OUTWARD
from ...workloads.pipelines import find_pipeline
from ...workloads.pipelines.stage_layers import nearly_even
from ...workloads.plan.plan import BELONGS, Plan
from .question import DIMENSIONS, OPEN_AXES, Question

OUTERMOST_FIRST = tuple(axis for axis in reversed(OUTWARD) if axis in AXES)

LARGEST_FIRST = (
    "tensor",
    "expert_tensor",
    "placement",
    "attention",
    "micro_batch",
    "sequence_parallel",
    "recompute",
    "recompute_layers",
    "offload",
    "zero",
    "overlap",
)
"""Choices from those that decide most of a plan's work: what comes first changes last, and what it decides is kept."""

STAGES = ("pipeline", "chunks", "stage_layers")
"""Choices that depend on each other."""

WITHOUT: dict[str, list[Any]] = {"sequence_parallel": [False], "expert_tensor": ["split"]}
"""What stands for all values of choices that say nothing without tp."""

NEARLY_EVEN = ""
"""Layers as evenly as they can be: stands for ``even``, or for a list where they do not divide."""

MOST = 500_000
"""Plans above which a search looks at :data:`USUAL` values only, unless ``--limit`` allows more: some minutes of one core."""

USUAL: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("micro_batch", (1, 2, 4, 8)),
    ("chunks", (2, 4)),
    ("micro_batch", (1, 2)),
    ("pipeline", ("1f1b", "interleaved")),
    ("recompute", ("none", "full")),
    ("overlap", ("gradients",)),
    ("zero", ("1", "2", "3")),
)
"""To what open choices are narrowed, one after another until the plans are few enough: what most published runs take.

What needs the least memory is always among it, so that narrowing never leaves out all that fits.
"""

Options = dict[str, Any]


class Candidate(NamedTuple):
    """A plan of the space: sizes of its mesh's axes, and the choices in the order of a space's dimensions."""

    mesh: dict[str, int]
    options: Options


class Block(NamedTuple):
    """Choices that depend on each other, as a list of their combinations."""

    names: tuple[str, ...]
    values: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Space:
    """All plans of a question; ``offloads`` are the things that may go to the host."""

    question: Question
    offloads: tuple[str, ...] = ("none",)

    @cached_property
    def meshes(self) -> list[dict[str, int]]:
        """Every way to spread the ranks over the open axes; axes of one rank are left out.

        Where no sizes are asked for, an axis has those that divide what it cuts: heads, layers, experts.
        """
        asked, model = self.question.axes, self.question.model
        names = [axis for axis in OUTERMOST_FIRST if (axis in OPEN_AXES or axis in asked) and axis != "dp"]
        if not model.experts and "ep" not in asked:
            names.remove("ep")
        ranks, found = self.question.ranks, list[dict[str, int]]()
        for sizes in _spread(ranks, [asked.get(axis, self._sizes(axis)) for axis in names]):
            rest = ranks // prod(sizes)
            if "dp" in asked and rest not in asked["dp"]:
                continue
            every = {**dict(zip(names, sizes, strict=True)), "dp": rest}
            found.append({axis: every[axis] for axis in OUTERMOST_FIRST if every.get(axis, 1) > 1} or {"dp": 1})
        return found

    def _sizes(self, axis: str) -> list[int]:
        """The ranks' divisors that also divide what an axis cuts; of stages as many as have layers."""
        model = self.question.model
        grid = 2 if "2d" in (self.question.fixed.get("tensor"), *self.question.tries.get("tensor", ())) else 1
        cut = {"tp": model.heads**grid, "ep": model.experts, **dict.fromkeys(CONTEXT, self.question.seq_len)}
        sizes = divisors_of(self.question.ranks)
        if axis == "pp":
            return [size for size in sizes if self._ways(size, 1)]
        return [size for size in sizes if cut.get(axis, size) % size == 0]

    def _ways(self, stages: int, chunks: int) -> list[str]:
        """Ways to divide the layers over stages: as evenly as they can be, unless some are asked for."""
        found = []
        for (way,) in self._asked_ways():
            layers, parts = self.question.model.depth + 2 * (way == "ends"), stages * chunks
            if way == NEARLY_EVEN and layers % parts and layers > parts:
                found.append(nearly_even(layers, stages, chunks))
            elif layers % parts == 0:
                found.append("even" if way == NEARLY_EVEN else way)
        return found

    @cached_property
    def size(self) -> int:
        """Plans in all."""
        return sum(self.count(mesh) for mesh in self.meshes)

    def count(self, mesh: dict[str, int]) -> int:
        """Plans of a mesh."""
        return prod(len(block.values) for block in self.blocks(mesh))

    def plans(self, mesh: dict[str, int]) -> Iterator[Options]:
        """Every combination of choices of a mesh; those named last change first."""
        blocks = self.blocks(mesh)
        names = [name for block in blocks for name in block.names]
        for chosen in product(*(block.values for block in blocks)):
            yield dict(zip(names, (value for values in chosen for value in values), strict=True))

    def blocks(self, mesh: dict[str, int]) -> list[Block]:
        """The choices of a mesh, from those that decide most of a plan's work to those that decide least."""
        known = [name for name in LARGEST_FIRST if name in DIMENSIONS]
        names = [*known, *(name for name in DIMENSIONS if name not in known and name not in STAGES)]
        found = [self._block(name, self._usual(name, mesh)) for name in names]
        return [*found, self._pipelines(mesh)]

    def _usual(self, name: str, mesh: dict[str, int]) -> Sequence[Any]:
        """The values of a choice that are tried unasked."""
        own = [getattr(self.question.plan, name)]
        if name in WITHOUT and mesh.get(BELONGS.get(name, "tp"), 1) == 1:
            return WITHOUT[name]
        match name:
            case "placement":
                return placements(mesh)
            case "micro_batch":
                return self._micro_batches(mesh)
            case "offload":
                return self.offloads
            case "expert_tensor" if not self.question.model.experts:
                return WITHOUT[name]
            case _:
                return Plan.options()[name].tried_unasked() or own

    def narrowed(self, most: int) -> Space:
        """The space with as few choices narrowed to :data:`USUAL` as leave at most so many plans, or all of them if need be.

        The space itself where it is small enough. Choices that are fixed, or whose values are named, stay as they are. What was
        narrowed is in :attr:`Question.narrowed`.
        """
        space = self
        for key, values in USUAL:
            if space.size <= most:
                break
            if key not in self.question.fixed and key not in self.question.tries:
                left = {**space.question.narrowed, key: values}
                fewer = Space(self.question.changed(narrowed=left), self.offloads)
                if fewer.size < space.size:
                    space = fewer
        return space

    def require_few(self, most: int) -> None:
        """Raise :class:`InputError` where there are more plans than ``most``, with bounds that leave fewer, or no mesh at all."""
        if not self.meshes:
            asked = ", ".join(f"--try {axis}={','.join(map(str, sizes))}" for axis, sizes in self.question.axes.items())
            raise InputError(
                f"{asked}: no mesh of {self.question.ranks:,} ranks has such sizes; each must divide the ranks"
            )
        if self.size <= most:
            return
        told = "; ".join(f"{flag} leaves {size:,}" for flag, size in self._bounds(most))
        raise InputError(
            f"--limit {most:,}: {len(self.meshes):,} meshes of {self.question.ranks:,} ranks make {self.size:,} plans;"
            f" {told or 'fix more of the options'}"
        )

    def _bounds(self, most: int) -> Iterator[tuple[str, int]]:
        """Options that make the space small enough, or smaller if none does: one by one, then all together."""
        narrow = {
            "zero": ("1",),
            "recompute": ("full",),
            "pipeline": ("1f1b",),
            "overlap": ("gradients",),
            "micro_batch": (1,),
        }
        together, flags = self.question, list[str]()
        for key, values in narrow.items():
            if key in self.question.fixed or len(self.question.tries.get(key, ())) == 1:
                continue
            one = Space(self.question.changed(tries={**self.question.tries, key: values}), self.offloads)
            together = together.changed(tries={**together.tries, key: values})
            flags.append(f"--{key.replace('_', '-')} {values[0]}")
            if one.size <= most:
                yield flags[-1], one.size
        if flags:
            yield " ".join(flags), Space(together, self.offloads).size

    def _block(self, name: str, default: Any) -> Block:
        """The values of one choice: that which is fixed, those to be tried, or the usual ones, narrowed."""
        fixed, tries = self.question.fixed, self.question.tries
        if name in fixed:
            return Block((name,), [(fixed[name],)])
        if name in tries:
            return Block((name,), [(value,) for value in tries[name]])
        few = self.question.narrowed.get(name, default)
        return Block((name,), [(value,) for value in default if value in few] or [(value,) for value in default])

    def _pipelines(self, mesh: dict[str, int]) -> Block:
        """Schedules with their chunks and the layers of their stages; without stages the usual one stands for all."""
        stages, found = mesh.get("pp", 1), list[tuple[Any, ...]]()
        if stages == 1:
            found = [("1f1b", 1, "even")]
        for (name,) in self._block("pipeline", self._usual("pipeline", mesh)).values if stages > 1 else ():
            for (count,) in self._chunks(name, stages):
                found += [(name, count, way) for way in self._ways(stages, count)]
        if {each[2] for each in found} == {"even"} and self.question.plan.stage_layers == "even":
            return Block(("pipeline", "chunks"), [each[:2] for each in found])
        return Block(STAGES, found)

    def _chunks(self, name: str, stages: int) -> list[tuple[int]]:
        """Chunks of a stage: more than one where a schedule has them, as many as share its layers evenly."""
        if find_pipeline(name).folded:
            return [(2,)]
        if find_pipeline(name).chunked:
            each = {(self.question.model.depth + 2 * (way == "ends")) // stages for (way,) in self._asked_ways()}
            counts = sorted({count for layers in each for count in divisors_of(max(1, layers))[1:]}) or [2]
            return [(int(count),) for (count,) in self._block("chunks", counts).values]
        return [(1,)]

    def _asked_ways(self) -> list[tuple[Any, ...]]:
        return self._block("stage_layers", [NEARLY_EVEN]).values

    def _micro_batches(self, mesh: dict[str, int]) -> list[int | None]:
        """Sequences of a micro-batch that divide a replica's; None where these are no whole number."""
        batch = int(self.question.plan.global_batch or 0)
        sequences, rest = divmod(batch, prod(mesh.get(axis, 1) for axis in DATA))
        return [None] if rest else list[int | None](divisors_of(sequences))


def placements(mesh: dict[str, int]) -> list[str]:
    """Placements worth telling apart: where tokens of experts and gradients of replicas compete for the inside, both ways."""
    both = mesh.get("dp", 1) > 1 and mesh.get("ep", 1) > 1
    if set(mesh) <= {"dp", "ep"}:
        return ["moda", "opposite"] if both else ["moda"]
    if not both:
        return ["megatron"]
    trading = {"dp": "ep", "ep": "dp"}
    inside_out = [each for axis in OUTWARD if (each := trading.get(axis, axis)) in mesh]
    return ["megatron", f"block:{','.join(inside_out)}"]


def divisors_of(number: int) -> list[int]:
    """All divisors, rising."""
    small = [part for part in range(1, int(number**0.5) + 1) if number % part == 0]
    return small + [number // part for part in reversed(small) if part * part != number]


def _spread(ranks: int, sizes: list[Any]) -> Iterator[tuple[int, ...]]:
    """Every choice of a size for each axis whose product divides the ranks."""
    if not sizes:
        yield ()
        return
    for size in sizes[0]:
        if ranks % size == 0:
            for rest in _spread(ranks // size, sizes[1:]):
                yield (size, *rest)
