"""A step as Chakra's execution traces (MLCommons), a file a rank; and the reader that holds them to the rules of its consumers.

A file is a row of messages of protocol buffers, each after its length as a varint: first ``GlobalMetadata``, then a ``Node`` for
each operation. Numbers of fields are those of ``et_def.proto`` (package ChakraProtoMsg). ASTRA-sim's feeder asks for the
attributes ``is_cpu_op`` (where it is unset it has run communication as computation), ``num_ops`` and ``tensor_size`` of
computation, ``comm_type``, ``comm_size`` (int64) and ``pg_name`` of collectives, and ``comm_src``, ``comm_dst`` and ``comm_tag``
of messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ....hardware.errors import InputError
from ....hardware.precisions import BYTES
from ....workloads.lowering.unroll import unrolled
from ....workloads.schedule.operation import Operation, Role
from ....workloads.schedule.schedule import Schedule
from ....workloads.schedule.work import Exchange, FusedAttention, Gemm, HostCopy, Sweep, at
from ..kinds import Contents, Exporter, Wanted
from ..reading.files import TRACE, content, text
from ..reading.protobuf import chunk, double, fields, number, read_varint, signed, varint

VERSION = "0.0.4"
COMPUTES, SENDS, RECEIVES, COLLECTIVE = 4, 5, 6, 7
"""Types of nodes."""

COLLECTIVES = {
    "all-reduce": 0,
    "reduce": 1,
    "all-gather": 2,
    "gather": 3,
    "scatter": 4,
    "broadcast": 5,
    "all-to-all": 6,
    "reduce-scatter": 7,
    "barrier": 9,
}

MOST = 1024
"""Files that are written unasked."""


@dataclass(frozen=True)
class ChakraNode:
    """One operation of a trace: what it is, which nodes it waits for, and its attributes by name."""

    identity: int
    name: str
    kind: int
    after: tuple[int, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)


def chakra_nodes(schedule: Schedule, rank: int) -> list[ChakraNode]:
    """The nodes of one rank of a schedule.

    Operations of a stream follow each other, so that each also waits for the one before it there. Exchanges among one rank alone
    are left out, and what waited for them waits for what they waited for. Groups have the name of their axes and of their first
    rank; ring shifts are a send and a receipt.
    """
    mesh = schedule.mesh
    coordinate = tuple(int(each) for each in np.unravel_index(rank, mesh.shape))
    nodes: list[ChakraNode] = []
    stands: dict[int, tuple[int, ...]] = {}
    latest: dict[str, tuple[int, ...]] = {}
    tags: Counter[tuple[int, int]] = Counter()
    for place, operation in enumerate(unrolled(schedule, coordinate)):
        before = {each for other in operation.after for each in stands[other]} | set(latest.get(operation.stream, ()))
        after = tuple(sorted(before))
        made = [*_nodes(schedule, operation, rank, coordinate, len(nodes), after, tags)]
        nodes += made
        stands[place] = tuple(each.identity for each in made) or after
        latest[operation.stream] = stands[place]
    return nodes


def chakra_trace(nodes: Sequence[ChakraNode]) -> bytes:
    """The bytes of a file."""
    messages = [chunk(1, VERSION), *(_message(each) for each in nodes)]
    return b"".join(varint(len(each)) + each for each in messages)


def read_chakra(path: str | Path) -> list[ChakraNode]:
    """The nodes of a file; raises :class:`InputError` that says where it is broken, or which rule of its consumers it breaks."""
    data, at, found = content(path, TRACE), 0, list[ChakraNode]()
    try:
        size, at = read_varint(data, 0)
        if at + size > len(data):
            raise ValueError("breaks off in its first message")
        at += size
        while at < len(data):
            size, at = read_varint(data, at)
            if at + size > len(data):
                raise ValueError(f"breaks off within the {size} bytes from byte {at} on")
            found.append(_node(data[at : at + size]))
            at += size
    except (ValueError, UnicodeDecodeError) as reason:
        raise InputError(f"{path}: no trace of Chakra: {reason}") from None
    if broken := broken_rule(found):
        raise InputError(f"{path}: {broken}")
    return found


def broken_rule(nodes: Sequence[ChakraNode]) -> str:
    """What of ASTRA-sim's rules nodes break first; empty where they keep all."""
    known: set[int] = set()
    for each in nodes:
        where = f"node {each.identity} ({each.name})"
        if each.identity in known:
            return f"{where}: its number is there twice"
        if late := [other for other in each.after if other not in known]:
            return f"{where}: waits for node {late[0]}, which does not come before it"
        known.add(each.identity)
        needs = {
            COMPUTES: ("num_ops", "tensor_size"),
            COLLECTIVE: ("comm_type", "comm_size", "pg_name"),
            SENDS: ("comm_size", "comm_src", "comm_dst", "comm_tag"),
            RECEIVES: ("comm_size", "comm_src", "comm_dst", "comm_tag"),
        }.get(each.kind)
        if needs is None:
            return f"{where}: type {each.kind} is neither computation nor communication"
        if missing := next((name for name in ("is_cpu_op", *needs) if name not in each.attributes), None):
            return f"{where}: has no attribute {missing}"
        if each.kind == COLLECTIVE and each.attributes["comm_type"] not in COLLECTIVES.values():
            return f"{where}: comm_type {each.attributes['comm_type']} is no collective"
        if any(isinstance(each.attributes[name], int) and each.attributes[name] < 0 for name in needs):
            return f"{where}: has a size below 0"
    return ""


class ChakraTraces(Exporter):
    """Chakra execution traces of a step, a file a rank, for ASTRA-sim."""

    takes: ClassVar[str] = "a run file, RUN.TOML, or the JSON of athanor lower"

    def files(self, source: Path, wanted: Wanted) -> Contents:
        """``OUT.0.et``, ``OUT.1.et``, ..., and the ranks of each group in ``OUT.groups.json``, as ASTRA-sim takes them."""
        import json

        if source.suffix == ".json":
            schedule = Schedule.from_json(text(source, TRACE))
        else:
            from ....workloads.lowering import lower_step
            from ..run_settings import setting_of

            schedule = lower_step(setting_of(source, wanted))[0]
        ranks = schedule.mesh.ranks
        count = min(ranks, wanted.ranks or ranks)
        if count > MOST:
            raise InputError(
                f"{source}: {ranks:,} ranks are as many files; --ranks {MOST:,} or fewer writes the first ones"
            )
        prefix = wanted.out.with_suffix("") if wanted.out.suffix == ".et" else wanted.out
        found: dict[Path, bytes | str] = {}
        groups: dict[str, list[int]] = {}
        for rank in range(count):
            nodes = chakra_nodes(schedule, rank)
            found[prefix.with_name(f"{prefix.name}.{rank}.et")] = chakra_trace(nodes)
        for operation in _exchanges(schedule):
            for members in schedule.mesh.groups(operation.axes):
                groups[_group_name(operation.axes, int(members[0]))] = [int(each) for each in members]
        found[prefix.with_name(f"{prefix.name}.groups.json")] = json.dumps(groups)
        return found


def _exchanges(schedule: Schedule) -> Iterator[Exchange]:
    """Collectives over each set of axes, one of each."""
    seen: dict[tuple[str, ...], Exchange] = {}
    for operation in unrolled(schedule, (0,) * len(schedule.mesh.shape)):
        work = operation.work
        if isinstance(work, Exchange) and work.operation in COLLECTIVES and schedule.mesh.size(*work.axes) > 1:
            seen.setdefault(work.axes, work)
    yield from seen.values()


def _group_name(axes: Sequence[str], first: int) -> str:
    return f"{'+'.join(axes)}.{first}"


def _nodes(
    schedule: Schedule,
    operation: Operation,
    rank: int,
    coordinate: tuple[int, ...],
    identity: int,
    after: tuple[int, ...],
    tags: Counter[tuple[int, int]],
) -> Iterator[ChakraNode]:
    work = operation.work
    if not isinstance(work, Exchange):
        sizes = {"num_ops": round(at(work.flops, coordinate)), "tensor_size": round(_bytes(work, coordinate))}
        on_host = isinstance(work, HostCopy)
        yield ChakraNode(identity, operation.name, COMPUTES, after, {"is_cpu_op": on_host, **sizes})
        return
    groups = schedule.mesh.groups(work.axes)
    members = next(each for each in groups if rank in each).tolist()
    if len(members) < 2:
        return
    size = {"is_cpu_op": False, "comm_size": round(at(work.nbytes, coordinate))}
    if work.operation in COLLECTIVES:
        name = _group_name(work.axes, members[0])
        yield ChakraNode(
            identity,
            operation.name,
            COLLECTIVE,
            after,
            {**size, "comm_type": COLLECTIVES[work.operation], "pg_name": name},
        )
        return
    step = 1 if work.algorithm == "next" else -1
    place, role = members.index(rank), operation.task.role
    for kind, mine, other in ((SENDS, Role.STAGE_RECEIVE, place + step), (RECEIVES, Role.STAGE_SEND, place - step)):
        if role is mine:
            continue
        ends = (rank, members[other % len(members)])
        ends = ends if kind == SENDS else (ends[1], ends[0])
        sender = coordinate if role is Role.STAGE_RECEIVE else np.unravel_index(ends[0], schedule.mesh.shape)
        nbytes = round(at(work.nbytes, tuple(int(each) for each in sender)))
        if nbytes:
            yield _transfer(identity, operation, kind, ends, after, {"is_cpu_op": False, "comm_size": nbytes}, tags)
            identity += 1


def _transfer(
    identity: int,
    operation: Operation,
    kind: int,
    ends: tuple[int, int],
    after: tuple[int, ...],
    size: dict[str, Any],
    tags: Counter[tuple[int, int]],
) -> ChakraNode:
    """One message; those from one rank to another are numbered in order, at both ends alike."""
    tag = tags[ends]
    tags[ends] += 1
    return ChakraNode(
        identity, operation.name, kind, after, {**size, "comm_src": ends[0], "comm_dst": ends[1], "comm_tag": tag}
    )


def _bytes(work: Any, coordinate: tuple[int, ...]) -> float:
    """Bytes that an operation moves to and from memory, as a roofline counts them."""
    if isinstance(work, Gemm):
        m, k = at(work.m, coordinate), at(work.k, coordinate)
        return work.count * (m * k + k * work.n + m * work.n) * BYTES[work.precision]
    if isinstance(work, FusedAttention):
        return at(work.elements, coordinate) * BYTES[work.precision]
    if isinstance(work, Sweep):
        return at(work.size, coordinate) * (work.read + work.written)
    return at(work.nbytes, coordinate) if isinstance(work, HostCopy) else 0.0


def _message(node: ChakraNode) -> bytes:
    found = number(1, node.identity) + chunk(2, node.name) + number(3, node.kind)
    if node.after:
        found += chunk(5, b"".join(varint(each) for each in node.after))
    return found + b"".join(chunk(10, _attribute(name, value)) for name, value in node.attributes.items())


BOOLEAN, INTEGER, DOUBLE, STRING = 27, 9, 3, 29
"""Fields of an ``AttributeProto`` that hold a bool_val, int64_val, double_val and string_val."""


def _attribute(name: str, value: Any) -> bytes:
    if isinstance(value, bool):
        return chunk(1, name) + number(BOOLEAN, int(value))
    if isinstance(value, int):
        return chunk(1, name) + number(INTEGER, value)
    if isinstance(value, float):
        return chunk(1, name) + double(DOUBLE, value)
    return chunk(1, name) + chunk(STRING, str(value))


def _node(data: bytes) -> ChakraNode:
    identity = kind = 0
    name, after, attributes = "", list[int](), dict[str, Any]()
    for place, _, value in fields(data):
        if place in (1, 3) and isinstance(value, int):
            identity, kind = (value, kind) if place == 1 else (identity, value)
        elif place == 2 and isinstance(value, bytes):
            name = value.decode()
        elif place in (4, 5):
            after += [value] if isinstance(value, int) else _packed(value)
        elif place == 10 and isinstance(value, bytes):
            key = ""
            held: Any = None
            for inner, _, each in fields(value):
                if inner == 1 and isinstance(each, bytes):
                    key = each.decode()
                elif inner == BOOLEAN:
                    held = bool(each)
                elif isinstance(each, int):
                    held = signed(each)
                elif inner == STRING:
                    held = each.decode()
            if held is None:
                held = False  # a field that has its default is not written by every writer
            attributes[key] = held
    return ChakraNode(identity, name, kind, tuple(after), attributes)


def _packed(data: bytes) -> list[int]:
    found, at_byte = list[int](), 0
    while at_byte < len(data):
        value, at_byte = read_varint(data, at_byte)
        found.append(value)
    return found
