"""Operations as plain data for JSON, and back: every key is there, none is unknown, and each value is one of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_args

import numpy as np

from ...hardware.errors import InputError, suggestion
from ...hardware.precisions import Precision
from .operation import CATEGORIES, PHASES, Gradient, ModelPart, Operand, Operation, Overlap, Role, Task
from .work import (
    Bookkeeping,
    Exchange,
    FusedAttention,
    Gemm,
    HostCopy,
    HostSweep,
    Launches,
    Loop,
    PipelineWork,
    Sweep,
    Work,
)

FORMAT = "athanor-schedule/5"

Read = Callable[[Any, str], Any]
"""Takes plain data and the key where it stands; raises :class:`InputError` that names the key."""


def operation_to_plain(operation: Operation) -> dict[str, Any]:
    """An operation as plain data; arrays are written with their shape."""
    return {
        **vars(operation),
        "work": _work_to_plain(operation.work),
        "after": list(operation.after),
        "task": dict(vars(operation.task)),
    }


def operation_from_plain(plain: Any, key: str) -> Operation:
    """The operation that :func:`operation_to_plain` gave; raises :class:`InputError` that names the key."""
    return Operation(**_record(plain, key, Operation, OPERATION))


def text(value: Any, key: str) -> str:
    """A text."""
    return str(_of(value, key, "text", isinstance(value, str)))


def items(read: Read) -> Read:
    """A list whose items are read alike, as a tuple."""

    def found(value: Any, key: str) -> tuple[Any, ...]:
        _of(value, key, "a list", isinstance(value, list))
        return tuple(read(each, f"{key}[{number}]") for number, each in enumerate(value))

    return found


def _work_to_plain(work: Work) -> dict[str, Any]:
    plain = {"kind": work.kind, **{key: _amount_to_plain(value) for key, value in vars(work).items()}}
    if isinstance(work, PipelineWork):
        plain["blocks"] = [[operation_to_plain(each) for each in block] for block in work.blocks]
        plain["activations"] = work.activations and _work_to_plain(work.activations)
    return plain


def _amount_to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "values": value.reshape(-1).tolist()}
    return value


def _of(value: Any, key: str, kind: str, right: bool) -> Any:
    if not right:
        raise InputError(f"schedule: {key} is {str(value)[:60]!r}, must be {kind}")
    return value


def _number(value: Any, key: str) -> Any:
    return _of(value, key, "a number", isinstance(value, int | float) and not isinstance(value, bool))


def _whole(value: Any, key: str) -> int:
    return int(_of(value, key, "a whole number", isinstance(value, int) and not isinstance(value, bool)))


def _flag(value: Any, key: str) -> bool:
    return bool(_of(value, key, "true or false", isinstance(value, bool)))


def _array(value: Any, key: str) -> Any:
    found = _record(value, key, None, {"shape": items(_whole), "values": items(_number)})
    shape, values = found["shape"], found["values"]
    _of(len(values), f"{key}.values", f"{int(np.prod(shape))} numbers, as its shape has", len(values) == np.prod(shape))
    return np.array(values, dtype=np.float64).reshape(shape)


def _amount(value: Any, key: str) -> Any:
    return _array(value, key) if isinstance(value, dict) else _number(value, key)


def _one_of(*allowed: Any) -> Read:
    def found(value: Any, key: str) -> Any:
        if value not in allowed or isinstance(value, bool | float | list | dict):
            close = suggestion(value, [str(each) for each in allowed]) if isinstance(value, str) else ""
            raise InputError(f"schedule: {key} is {value!r}, must be one of {', '.join(map(str, allowed))}{close}")
        return allowed[allowed.index(value)]

    return found


def _maybe(read: Read) -> Read:
    return lambda value, key: None if value is None else read(value, key)


def _record(plain: Any, key: str, kind: type[Any] | None, reads: Mapping[str, Read]) -> dict[str, Any]:
    """The keys of a table, each read in its way; raises where one is missing or unknown."""
    assert kind is None or [each.name for each in fields(kind)] == [*reads], f"the codec misses a field of {kind}"
    _of(plain, key, "a table", isinstance(plain, dict))
    for unknown in plain.keys() - reads.keys():
        raise InputError(f"schedule: {key} has no key {unknown!r}{suggestion(str(unknown), list(reads))}")
    for missing in reads.keys() - plain.keys():
        raise InputError(f"schedule: {key} lacks {missing!r}")
    return {name: read(plain[name], f"{key}.{name}") for name, read in reads.items()}


def _work(value: Any, key: str) -> Work:
    _of(value, key, "a table", isinstance(value, dict))
    kinds = {each.kind: (each, reads) for each, reads in WORKS.items()}
    kind, reads = kinds[_one_of(*kinds)(value.get("kind"), f"{key}.kind")]
    found = _record({name: each for name, each in value.items() if name != "kind"}, key, kind, reads)
    try:
        made: Work = kind(**found)
    except ValueError as reason:
        raise InputError(f"schedule: {key}: {reason}") from None
    return made


def _exchange(value: Any, key: str) -> Exchange:
    work = _work(value, key)
    _of(work.kind, f"{key}.kind", "exchange", isinstance(work, Exchange))
    assert isinstance(work, Exchange)
    return work


_precision = _one_of(*get_args(Precision))

WORKS: dict[type[Work], dict[str, Read]] = {
    Gemm: {
        "m": _amount,
        "n": _number,
        "k": _amount,
        "count": _number,
        "precision": _precision,
        "onto": _whole,
        "cast_from": _maybe(_precision),
        "launches": _number,
    },
    FusedAttention: {
        "queries": _number,
        "keys": _number,
        "size": _number,
        "value_size": _number,
        "count": _amount,
        "products": _whole,
        "precision": _precision,
        "share": _number,
        "kernel": text,
    },
    Sweep: {
        "size": _amount,
        "read": _number,
        "written": _number,
        "each": _number,
        "precision": _precision,
        "launches": _number,
        "streams": _flag,
    },
    Loop: {"steps": _amount},
    Launches: {"kernels": _number},
    Bookkeeping: {"parameters": _amount, "shards": _number},
    Exchange: {
        "operation": text,
        "algorithm": text,
        "axes": items(text),
        "nbytes": _amount,
        "element": text,
        "received": _maybe(_amount),
        "pairs": _maybe(_array),
        "root": _whole,
    },
    HostCopy: {"nbytes": _amount, "direction": _one_of("in", "out")},
    HostSweep: {"size": _amount, "nbytes": _number},
    PipelineWork: {
        "name": text,
        "stages": _whole,
        "micro_batches": _whole,
        "chunks": _whole,
        "blocks": items(items(operation_from_plain)),
        "uses": items(items(items(_whole))),
        "first_layer": items(_whole),
        "activations": _maybe(_exchange),
        "along": items(_whole),
    },
}
"""How each field of each kind of work is read."""

TASK: dict[str, Read] = {
    "role": _one_of(*Role),
    "part": _maybe(_one_of(*get_args(ModelPart))),
    "layer": _maybe(_whole),
    "operand": _maybe(_one_of(*get_args(Operand))),
    "gradient": _maybe(_one_of(*get_args(Gradient))),
    "step": _maybe(_whole),
    "overlaps": _maybe(_one_of(*get_args(Overlap))),
    "recomputed": _flag,
    "micro_batch": _maybe(_whole),
}


def _task(value: Any, key: str) -> Task:
    return Task(**_record(value, key, Task, TASK))


OPERATION: dict[str, Read] = {
    "label": text,
    "phase": _one_of(*PHASES),
    "category": _one_of(*CATEGORIES),
    "stream": text,
    "work": _work,
    "after": items(_whole),
    "task": _task,
}
