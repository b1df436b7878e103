"""The matrix of ``nvidia-smi topo -m`` as a node: its GPUs, what joins them, and its network cards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from ....hardware.errors import InputError
from ....hardware.machine import Machine, load_machine
from ....hardware.units import parse
from ..kinds import Asked, Importer, Makes
from ..reading.files import text
from .changed import changed

NVLINK = "25 GB/s"
"""One direction of a link of NVLink 2 to 4 (V100, A100, H100); of NVLink 5 twice as much."""

LINKS = 18
"""Most links of a GPU: more to all others together can only go through a switch."""

NEAR = ("PIX", "PXB")
"""A card at the same PCIe switch as a GPU."""

CELL = re.compile(r"X|NV\d{1,2}|PIX|PXB|PHB|NODE|SYS")

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def read_nvidia_topo(path: str | Path, asked: Asked | None = None) -> Machine:
    """The machine of ``asked.machine`` with the GPUs and cards of a node and the links between GPUs.

    The matrix says how many links of NVLink there are, not how fast: ``asked.defined`` has ``link_bandwidth``, 25 GB/s unless it
    says. Raises :class:`InputError` for what is no matrix, and for GPUs that are not joined alike.
    """
    asked = asked or Asked()
    name = str(path)
    matrix = _matrix(text(path), name)
    gpus = [row for row in matrix if row.startswith("GPU")]
    cards = [column for column in next(iter(matrix.values())) if not column.startswith("GPU")]
    values: dict[str, Any] = {"node.core_groups": len(gpus)}
    if len(gpus) > 1:
        values |= _inside(matrix, gpus, name, asked)
    if cards:
        own = sum(any(matrix[gpu][card] in NEAR for card in cards) for gpu in gpus)
        values |= {"node.interfaces": len(cards), "node.cards": "own" if own == len(gpus) else "shared"}
    if asked.machine is not None and load_machine(asked.machine).plan.get("ranks_per_node"):
        values["plan.ranks_per_node"] = len(gpus)
    return changed(asked, name, f"{Path(path).name} of nvidia-smi topo -m", values)


class NvidiaTopology(Importer):
    """nvidia-smi topo -m: GPUs, links and cards of a node (--machine has the other numbers)."""

    makes: ClassVar[Makes] = "machine"

    def read(self, path: Path, asked: Asked) -> Machine:
        """The machine."""
        return read_nvidia_topo(path, asked)


def _matrix(source: str, name: str) -> dict[str, dict[str, str]]:
    """What joins each GPU to each other and to each card."""
    columns: list[str] = []
    found: dict[str, dict[str, str]] = {}
    for line in ESCAPES.sub("", source).splitlines():
        words = line.split()
        if not columns:
            if words[:1] == ["GPU0"]:
                columns = [word for word in words if re.fullmatch(r"(GPU|NIC)\d+|mlx\d+_\w+|hfi\d+_\w+", word)]
            continue
        if words and re.fullmatch(r"GPU\d+", words[0]):
            cells = words[1 : 1 + len(columns)]
            if len(cells) < len(columns) or not all(CELL.fullmatch(cell) for cell in cells):
                raise InputError(
                    f"{name}: {words[0]}: must have X, NV#, PIX, PXB, PHB, NODE or SYS in each of {len(columns)} columns"
                )
            found[words[0]] = dict(zip(columns, cells, strict=True))
        elif found and not words:
            break
    gpus = [column for column in columns if column.startswith("GPU")]
    if not found or [*found] != gpus:
        raise InputError(f"{name}: is no matrix of nvidia-smi topo -m, with a line and a column for each GPU")
    return found


def _inside(matrix: dict[str, dict[str, str]], gpus: list[str], name: str, asked: Asked) -> dict[str, Any]:
    """What joins GPUs, and how much of it each has."""
    pairs = {(one, other): matrix[one][other] for one in gpus for other in gpus if one != other}
    for (one, other), cell in pairs.items():
        if pairs[other, one] != cell or cell == "X":
            raise InputError(f"{name}: {one} and {other}: {cell} one way and {pairs[other, one]} the other")
    linked = {pair: int(cell[2:]) for pair, cell in pairs.items() if cell.startswith("NV")}
    if not linked:
        asked.tell(
            "GPUs are joined by PCIe alone: the machine's bandwidth inside a node stays; set node.ring_bandwidth"
        )
        return {"node.inside_reduction": None}
    told = asked.defined.get("link_bandwidth", NVLINK)
    try:
        each = parse(told, "byte / second")
    except ValueError as reason:
        raise InputError(f"--define link_bandwidth={told}: {reason}") from None
    totals = {gpu: sum(count for (one, _), count in linked.items() if one == gpu) for gpu in gpus}
    counts = {*linked.values()}
    through = len(linked) == len(pairs) and len(counts) == 1 and max(totals.values()) > LINKS
    links = counts.pop() if through else max(totals.values())
    if not through and len({*totals.values()}) > 1:
        least = min(totals, key=lambda gpu: totals[gpu])
        raise InputError(f"{name}: {least} has {totals[least]} links to others, some GPUs {links}; must have as many")
    if not through and len(linked) < len(pairs):
        asked.tell("not all GPUs are joined directly: their links together are taken as if they led to all")
    found: dict[str, Any] = {"node.inside": "switch" if through else "links", "node.ring_bandwidth": links * each}
    return found if through else {**found, "node.inside_reduction": None}
