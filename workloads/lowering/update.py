"""Gradients over the network and the optimizer: plain data parallel, or sharded through the hierarchy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...hardware.precisions import BYTES, Precision
from ..mesh import Mesh
from ..model import Model
from ..precision import Formats, Part
from ..schedule import Bookkeeping, Exchange, Sweep
from ..sharding import Holding, held
from .program import Program

ADAM_FLOPS = 12
"""FLOPs of Adam for one parameter; it is bound by memory."""


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

    def synchronise(self, program: Program, holdings: list[Holding], name: str, aside: bool = False) -> None:
        """Reduce the gradients of these holdings, at once or beside what follows."""
        collective = "all-reduce" if self.zero == "0" else "reduce-scatter"
        append = program.aside if aside else program.add
        for kind, vector in self._vectors(collective, holdings, "gradient"):
            append(f"{name}.{kind}.{collective}", vector, "gradient_sync")

    def step(self, program: Program) -> None:
        """The framework's own work on what a rank holds, Adam on the rank's share, and the way back of updated weights."""
        holdings = held(self.model, self.mesh)
        program.add("update.bookkeeping", Bookkeeping(sum(each.parameters for each in holdings)), "other")
        for each in holdings:
            program.add(f"update.adam.{each.part}", self._adam(each), "optimizer")
        if self.zero != "0":
            for kind, vector in self._vectors("all-gather", holdings, "weight"):
                program.add(f"update.{kind}.all-gather", vector, "gradient_sync")

    def _vectors(self, collective: str, holdings: list[Holding], what: str) -> Iterator[tuple[str, Exchange]]:
        """A flat vector for each set of replicas and each format, as (name, exchange); without replicas there is none."""
        sizes: dict[tuple[tuple[str, ...], Precision], float] = {}
        for each in holdings:
            key = (each.replicas, getattr(self.formats[each.part], what))
            sizes[key] = sizes.get(key, 0.0) + each.parameters * BYTES[key[1]]
        for (axes, precision), nbytes in sizes.items():
            if self.mesh.size(*axes) > 1:
                whole = set(axes) == set(self.mesh.axes)
                algorithm = "two-level" if whole else "ring"
                yield (
                    f"{'dense' if whole else 'experts'}.{precision}",
                    Exchange(collective, algorithm, axes, nbytes, precision),
                )

    def _adam(self, holding: Holding) -> Sweep:
        """One sweep over gradients, state and weights of the rank's part; without a master copy the weights are read too."""
        formats = self.formats[holding.part]
        count = holding.parameters / (1 if self.zero == "0" else self.mesh.size(*holding.replicas))
        weight = BYTES[formats.weight]
        read = BYTES[formats.gradient] + formats.state_bytes + (0 if formats.master else weight)
        return Sweep(count, float(read), float(formats.state_bytes + weight), ADAM_FLOPS, "fp32")
