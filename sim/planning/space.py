"""The plans that a search looks at: every mesh of so many ranks, and for each mesh every combination of the open choices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, NamedTuple

from ...hardware.errors import InputError
from ...workloads.mesh.mesh import DATA
from .question import OPEN_AXES, Question

OUTERMOST_FIRST = ("pp", "dp", "ep", "fsdp", "cp", "tp")

MOST = 1_000_000
"""Plans above which a search is refused unless ``--limit`` allows more: some minutes of one core."""

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
        """The ranks' divisors that also divide what an axis cuts."""
        model = self.question.model
        grid = 2 if "2d" in (self.question.fixed.get("tensor"), *self.question.tries.get("tensor", ())) else 1
        cut = {"tp": model.heads**grid, "ep": max(1, model.experts), "cp": self.question.seq_len}
        sizes = divisors_of(self.question.ranks)
        if axis == "pp":
            return [size for size in sizes if any(self._countable(way) % size == 0 for way in self._stage_layers)]
        return [size for size in sizes if cut.get(axis, size) % size == 0]

    @property
    def _stage_layers(self) -> list[str]:
        """Which layers stages may have."""
        return [way for (way,) in self._block("stage_layers", ["even"]).values]

    def _countable(self, way: str) -> int:
        """What stages share evenly: layers, and where both ends count as one each, these."""
        return self.question.model.depth + 2 * (way == "ends")

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
        beside_tp = mesh.get("tp", 1) > 1
        experts = self.question.model.experts and beside_tp
        found = [
            self._block("tensor", ["1d"]),
            self._block("expert_tensor", ["split", "whole"] if experts else ["split"]),
            self._block("placement", placements(mesh)),
            self._block("attention", [self.question.plan.attention]),
            self._block("micro_batch", self._micro_batches(mesh)),
            self._block("sequence_parallel", [False, True] if beside_tp else [False]),
            self._block("recompute", ["none", "selective", "full"]),
            self._block("offload", self.offloads),
            self._block("zero", ["0", "1", "2", "3"]),
            self._block("overlap", ["none", "gradients"]),
            self._block("optimizer", [self.question.plan.optimizer]),
            self._pipelines(mesh),
        ]
        return [block for block in found if block.names]

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
        together = self.question
        for key, values in narrow.items():
            if key in self.question.fixed or len(self.question.tries.get(key, (1, 2))) == 1:
                continue
            one = Space(self.question.changed(tries={**self.question.tries, key: values}), self.offloads)
            together = together.changed(tries={**together.tries, key: values})
            flag = f"--{key.replace('_', '-')} {values[0]}"
            if one.size <= most:
                yield flag, one.size
        every = Space(together, self.offloads)
        flags = " ".join(f"--{key.replace('_', '-')} {narrow[key][0]}" for key in narrow if key in together.tries)
        if flags:
            yield flags, every.size

    def _block(self, name: str, default: Any) -> Block:
        """The values of one choice: that which is fixed, those to be tried, or the usual ones."""
        fixed, tries = self.question.fixed, self.question.tries
        if name in fixed:
            return Block((name,), [(fixed[name],)])
        return Block((name,), [(value,) for value in tries.get(name, default)])

    def _pipelines(self, mesh: dict[str, int]) -> Block:
        """Schedules with their chunks, and where asked for with unequal stages; without stages the usual one stands for all."""
        stages, found = mesh.get("pp", 1), list[tuple[Any, ...]]()
        for way in self._stage_layers if stages > 1 else ["even"]:
            names = self._block("pipeline", ["gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2"]).values
            chunks = self._block("chunks", divisors_of(max(1, self._countable(way) // stages))[1:] or [2]).values
            some = [(name, count) for (name,) in names for (count,) in (chunks if name == "interleaved" else [(1,)])]
            found += [(*each, way) for each in (some if stages > 1 else [("1f1b", 1)])]
        if self._stage_layers == ["even"] and "stage_layers" not in self.question.model.plan:
            return Block(("pipeline", "chunks"), [each[:2] for each in found])
        return Block(("pipeline", "chunks", "stage_layers"), found)

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
    inside_out = [axis for axis in ("tp", "cp", "fsdp", "dp", "ep", "pp") if axis in mesh]
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
