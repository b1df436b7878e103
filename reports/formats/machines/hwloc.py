"""A node as hwloc describes it in XML (lstopo --of xml, version 2): its memories, cores, GPUs and network cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from xml.etree.ElementTree import Element

from ....hardware.errors import InputError
from ....hardware.machine import Machine
from ..kinds import Asked, Importer, Makes
from ..reading.keys import LARGEST
from ..reading.trees import read_xml
from .changed import changed

GPU, OPENFABRICS = "1", "3"
"""Kinds of devices of the operating system."""

COMPUTES = ("cuda", "rsmi", "ze")
"""How hwloc begins the names of devices that compute: of CUDA, ROCm, Level Zero. One card may have names of others as well."""


def read_hwloc(path: str | Path, asked: Asked | None = None) -> Machine:
    """The machine of ``asked.machine`` with the node that an XML file describes.

    With GPUs these are the core groups, and the node's memory is its host's. Without, each NUMA node that has cores is one, with
    its cores and its memory. Cards are those of InfiniBand and its like, where there are some. Raises :class:`InputError` for
    what is no such file, and for NUMA nodes that are not alike.
    """
    asked = asked or Asked()
    name = str(path)
    root = read_xml(path)
    if root.tag != "topology":
        raise InputError(f"{name}: the root is <{root.tag[:40]}>, must be <topology> of hwloc")
    if not (root.get("version") or "2").startswith("2"):
        raise InputError(f"{name}: version is {root.get('version')}, must be 2 (lstopo --of xml of hwloc 2)")
    objects = list(root.iter("object"))
    values = _with_gpus(objects, name) or _without(root, name)
    if cards := {each.get("name") for each in objects if _is_device(each, OPENFABRICS)}:
        values["node.interfaces"] = len(cards)
    return changed(asked, name, f"{Path(path).name} of hwloc", values)


class HwlocNode(Importer):
    """hwloc's XML: cores, memories, GPUs and cards of a node (--machine has the other numbers)."""

    makes: ClassVar[Makes] = "machine"

    def read(self, path: Path, asked: Asked) -> Machine:
        """The machine."""
        return read_hwloc(path, asked)


def _is_device(each: Element, kind: str) -> bool:
    return each.get("type") == "OSDev" and each.get("osdev_type") == kind


def _with_gpus(objects: list[Element], name: str) -> dict[str, Any]:
    """Core groups are GPUs; empty where there are none."""
    devices = [
        each for each in objects if each.get("type") == "OSDev" and (each.get("name") or "").startswith(COMPUTES)
    ]
    devices = devices or [
        each for each in objects if _is_device(each, GPU) and (each.get("name") or "").startswith("nvml")
    ]
    if not devices:
        return {}
    memory = sum(_number(each, "local_memory", name) for each in objects if each.get("type") == "NUMANode")
    return {"node.core_groups": len(devices), **({"node.host_memory": float(memory)} if memory else {})}


def _without(root: Element, name: str) -> dict[str, Any]:
    """Core groups are NUMA nodes with the cores beside them."""
    groups: list[tuple[int, int]] = []

    def walk(each: Element) -> None:
        memories = [child for child in each.findall("object") if child.get("type") == "NUMANode"]
        if memories:
            cores = sum(inner.get("type") == "Core" for inner in each.iter("object"))
            groups.extend((cores // len(memories), _number(memory, "local_memory", name)) for memory in memories)
            return
        for child in each.findall("object"):
            walk(child)

    walk(root)
    groups = [each for each in groups if each[0]]
    if not groups:
        raise InputError(f"{name}: has no NUMANode with a Core beside it")
    if len({cores for cores, _ in groups}) > 1:
        raise InputError(
            f"{name}: NUMA nodes have {', '.join(str(cores) for cores, _ in groups[:8])} cores; must be alike"
        )
    return {
        "node.core_groups": len(groups),
        "core_group.compute_cores": groups[0][0],
        "core_group.memory": float(min(memory for _, memory in groups)),
    }


def _number(each: Element, key: str, name: str) -> int:
    value = each.get(key, "0")
    if not value.isdecimal() or len(value) > 18 or int(value) > LARGEST * 1000:
        raise InputError(
            f"{name}: {each.get('type')} {each.get('os_index', '')}: {key} is {value[:40]!r}: must be a number of bytes"
        )
    return int(value)
