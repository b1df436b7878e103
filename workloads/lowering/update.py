"""Gradients over the network and the optimizer: plain data parallel, or sharded through the hierarchy."""

from __future__ import annotations

from dataclasses import dataclass

from ...hardware.precisions import BYTES
from ..mesh import Mesh
from ..model import Model
from ..precision import Formats, Part
from ..schedule import Bookkeeping, Exchange, Sweep
from .program import Program

ADAM_FLOPS = 12
"""FLOPs of Adam for one parameter; it is bound by memory."""


@dataclass(frozen=True)
class Share:
    """Parameters of one part that a rank holds, and the axes over which they are replicated."""

    part: Part
    parameters: float
    axes: tuple[str, ...]


def held(model: Model, mesh: Mesh, layers: int | None = None) -> list[Share]:
    """What a rank holds of the whole model, or of so many of its layers (then without embedding).

    Experts are cut along ``ep`` and replicated along ``dp``; all else is replicated everywhere.
    """
    counts = model.parameters
    part = 1.0 if layers is None else layers / model.layers
    replicas = tuple(axis for axis in mesh.axes if axis == "dp")
    shares = [Share("expert", counts.expert / mesh.size("ep") * part, replicas)]
    shares += [Share("attention", counts.attention * part, mesh.axes), Share("gate", counts.gate * part, mesh.axes)]
    shares += [Share("norm", counts.norm * part, mesh.axes)]
    if layers is None:
        shares.append(Share("embedding", float(counts.embedding), mesh.axes))
    return shares


@dataclass(frozen=True)
class Update:
    """Lowers the update.

    ``zero="0"``: all-reduce every gradient, and every rank updates all that it holds. ``zero="hierarchical"``:
    reduce-scatter, update of a shard, all-gather; experts inside their ``dp`` group by a ring, dense parameters over
    all ranks in two levels. Either way the volume is 2 (n - 1)/n of the vector (ZeRO, Rajbhandari et al. 2020;
    BaGuaLu's ParO extends it to the hierarchy).
    """

    model: Model
    mesh: Mesh
    formats: dict[Part, Formats]
    zero: str

    def synchronise(self, program: Program, shares: list[Share], name: str, aside: bool = False) -> None:
        """Reduce the gradients of these shares, at once or beside what follows."""
        collective = "all-reduce" if self.zero == "0" else "reduce-scatter"
        append = program.aside if aside else program.add
        for kind, axes, nbytes in self._vectors(shares, "gradient"):
            append(f"{name}.{kind}.{collective}", self._exchange(collective, axes, nbytes), "gradient_sync")

    def step(self, program: Program) -> None:
        """The framework's own work on what a rank holds, Adam on the rank's share, and the way back of updated weights."""
        shares = held(self.model, self.mesh)
        program.add("update.bookkeeping", Bookkeeping(sum(share.parameters for share in shares)), "other")
        for share in shares:
            program.add(f"update.adam.{share.part}", self._adam(share), "optimizer")
        if self.zero != "0":
            for kind, axes, nbytes in self._vectors(shares, "weight"):
                program.add(f"update.{kind}.all-gather", self._exchange("all-gather", axes, nbytes), "gradient_sync")

    def _exchange(self, collective: str, axes: tuple[str, ...], nbytes: float) -> Exchange:
        return Exchange(collective, "two-level" if set(axes) == set(self.mesh.axes) else "ring", axes, nbytes)

    def _vectors(self, shares: list[Share], what: str) -> list[tuple[str, tuple[str, ...], float]]:
        """(name, axes, bytes) of the flat vectors that experts and dense parts make; those without replicas left out."""
        vectors = []
        for kind, members in (
            ("experts", [share for share in shares if share.part == "expert"]),
            ("dense", [share for share in shares if share.part != "expert"]),
        ):
            if members and self.mesh.size(*members[0].axes) > 1:
                nbytes = sum(share.parameters * BYTES[getattr(self.formats[share.part], what)] for share in members)
                vectors.append((kind, members[0].axes, nbytes))
        return vectors

    def _adam(self, share: Share) -> Sweep:
        """One sweep over gradients, state and weights of the rank's part; without a master copy the weights are read too."""
        formats = self.formats[share.part]
        count = share.parameters / (1 if self.zero == "0" else self.mesh.size(*share.axes))
        weight = BYTES[formats.weight]
        read = BYTES[formats.gradient] + formats.state_bytes + (weight if len(formats.state) == 2 else 0)
        return Sweep(count, float(read), float(formats.state_bytes + weight), ADAM_FLOPS, "fp32")
