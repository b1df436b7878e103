"""Slurm's topology.conf and topology.yaml as the fabric of a machine: a regular tree of switches, or blocks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ....hardware.errors import InputError
from ....hardware.fabrics.fat_tree import FatTree
from ....hardware.machine import Machine, load_machine
from ..kinds import Asked, Importer, Makes
from ..reading.files import text
from ..reading.keys import Keys
from ..reading.trees import read_yaml
from .changed import changed
from .host_lists import hosts

PAIR = re.compile(r"(\w+)\s*=\s*(\S+)")

DEEPEST = 8
"""Levels of switches."""


@dataclass(frozen=True)
class Switch:
    """A switch with nodes, or with further switches below it."""

    name: str
    nodes: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()


def read_slurm(path: str | Path, asked: Asked | None = None) -> Machine:
    """The machine of ``asked.machine`` with the nodes and the tree of a topology.

    A file says which switch leads where, but not how wide: tapers and latencies of its tiers are those of the machine's own fat
    tree where it has as many, else ``asked.defined`` has ``taper`` (of all levels, 1/1 unless it says), and latencies grow from
    the machine's. Raises :class:`InputError` for a tree that is not regular, and names the switch.
    """
    asked = asked or Asked()
    name = str(path)
    downs, count = _tree(_switches(Path(path), name), name)
    base = load_machine(asked.machine) if asked.machine else None
    fabric = base.fabric if base else None
    own = fabric.tiers if isinstance(fabric, FatTree) and len(fabric.tiers) == len(downs) else ()
    taper = Keys(asked.defined, "--define").raw("taper", default=None)
    if not own and taper is None and len(downs) > 1:
        asked.tell("the file says nothing of bandwidth between switches: all of it is taken (--define taper=1/2)")
    latencies = [tier.latency for tier in own] or _latencies(base, len(downs))
    tiers: list[dict[str, Any]] = []
    for number, down in enumerate(downs):
        tier: dict[str, Any] = {"down": down, "latency": latencies[number]}
        if number < len(downs) - 1:
            tier["taper"] = taper if taper is not None else own[number].taper if own else 1.0
        tiers.append(tier)
    inside = float(getattr(fabric, "latency_node", 1e-6))
    table = {"kind": "fat-tree", "routing": "adaptive", "latency_node": inside, "tiers": tiers}
    return changed(asked, name, f"{Path(path).name} of Slurm", {"fabric": table, "nodes": count})


class SlurmTopology(Importer):
    """Slurm's topology.conf or topology.yaml: nodes and fabric of a machine (--machine has its other numbers)."""

    makes: ClassVar[Makes] = "machine"

    def read(self, path: Path, asked: Asked) -> Machine:
        """The machine."""
        return read_slurm(path, asked)


def _latencies(base: Machine | None, levels: int) -> list[float]:
    """Latencies of levels where the machine has others: from its nearest on, half a microsecond more at each."""
    found = base.fabric.model_dump() if base else {}
    near = [value for key, value in found.items() if key.startswith("latency_") and key != "latency_node"]
    near += [tier["latency"] for tier in found.get("tiers", ())]
    first = min(near, default=1.5e-6)
    return [first + 5e-7 * level for level in range(levels)]


def _switches(path: Path, name: str) -> list[Switch]:
    if path.suffix in (".yaml", ".yml"):
        return _of_yaml(read_yaml(path), name)
    found = []
    lines = text(path).replace("\\\n", " ").splitlines()
    for number, line in enumerate(lines, 1):
        words = {key.lower(): value for key, value in PAIR.findall(line.partition("#")[0])}
        if not words:
            continue
        where = f"{name}: line {number}"
        kind = next((key for key in ("switchname", "blockname") if key in words), None)
        if kind is None:
            if "blocksizes" in words:
                continue
            raise InputError(f"{where}: {line.strip()[:60]!r} must begin with SwitchName= or BlockName=")
        below = [key for key in ("nodes", "switches") if key in words]
        if len(below) != 1:
            raise InputError(f"{where}: {words[kind][:40]} must have Nodes= or Switches=, one of them")
        if unknown := [key for key in words if key not in (kind, *below, "linkspeed")]:
            raise InputError(f"{where}: {unknown[0]}: no such key of a switch (SwitchName, Nodes, Switches, LinkSpeed)")
        found.append(_switch(words[kind], below[0], words[below[0]], where))
    if not found:
        raise InputError(f"{name}: has no switches")
    return found if any(each.switches for each in found) or len(found) == 1 else _joined(found)


def _of_yaml(table: Any, name: str) -> list[Switch]:
    if not isinstance(table, list) or not table or not all(isinstance(each, Mapping) for each in table):
        raise InputError(f"{name}: must hold a list of topologies, - topology: NAME")
    chosen = next((each for each in table if each.get("cluster_default")), table[0])
    keys = Keys({str(key): value for key, value in chosen.items()}, name, "topology ")
    keys.free("topology", "cluster_default")
    kind = next((each for each in ("tree", "block") if each in keys), None)
    if kind is None:
        raise InputError(f"{name}: topology {chosen.get('topology', '')}: must be a tree or a block")
    inside = keys.table(kind)
    inside.free("block_sizes")
    found = []
    for each in inside.items("switches" if kind == "tree" else "blocks"):
        if not isinstance(each, Mapping):
            raise InputError(f"{name}: {kind}: each switch must be a mapping")
        own = Keys({str(key): value for key, value in each.items()}, name, f"{kind}.")
        called = str(own.raw("switch", "block"))
        own.free("link_speed")
        below = "nodes" if "nodes" in own else "children"
        found.append(_switch(called, "nodes" if below == "nodes" else "switches", own.text(below), name))
        own.finish("a fabric")
    keys.finish("a fabric")
    if not found:
        raise InputError(f"{name}: has no switches")
    return found if kind == "tree" else _joined(found)


def _switch(name: str, kind: str, below: str, where: str) -> Switch:
    try:
        names = tuple(hosts(below))
    except ValueError as reason:
        raise InputError(f"{where}: {name[:40]}: {reason}") from None
    return Switch(name, nodes=names) if kind == "nodes" else Switch(name, switches=names)


def _joined(leaves: list[Switch]) -> list[Switch]:
    """Blocks, or leaves alone, below one switch that joins all."""
    return [*leaves, Switch("", switches=tuple(each.name for each in leaves))] if len(leaves) > 1 else leaves


def _tree(switches: list[Switch], name: str) -> tuple[list[int], int]:
    """Children of a switch on each level from the leaves up, and the number of nodes; raises where a level is not regular."""
    known = {each.name: each for each in switches}
    if twice := next((key for key, times in Counter(each.name for each in switches).items() if times > 1), None):
        raise InputError(f"{name}: switch {twice} is there twice")
    below = [child for each in switches for child in each.switches]
    if missing := next((child for child in below if child not in known), None):
        raise InputError(f"{name}: switch {missing} is named but not described")
    if twice := next((child for child, times in Counter(below).items() if times > 1), None):
        raise InputError(f"{name}: switch {twice} is below two others; only trees can be carried")
    roots = [each for each in switches if each.name not in set(below)]
    if len(roots) != 1:
        raise InputError(f"{name}: has {len(roots)} switches that no other leads to, must have one")
    level, downs = roots, list[int]()
    while level:
        if len(downs) >= DEEPEST:
            raise InputError(f"{name}: has more than {DEEPEST} levels of switches")
        leaves = [each for each in level if each.nodes]
        if leaves and len(leaves) != len(level):
            raise InputError(f"{name}: switch {leaves[0].name} has nodes, but others of its level have switches")
        sizes = [len(each.nodes or each.switches) for each in level]
        full = max(sizes)
        if odd := next((each for each, size in zip(level[:-1], sizes, strict=False) if size != full), None):
            have = len(odd.nodes or odd.switches)
            raise InputError(
                f"{name}: switch {odd.name} leads to {have}, others of its level to {full}; must be regular"
            )
        downs.append(full)
        level = [known[child] for each in level for child in each.switches]
        if leaves:
            break
    nodes = [node for each in switches for node in each.nodes]
    if twice := next((node for node, times in Counter(nodes).items() if times > 1), None):
        raise InputError(f"{name}: node {twice} is below two switches")
    return [down for down in reversed(downs) if down > 1] or [2], len(nodes)
