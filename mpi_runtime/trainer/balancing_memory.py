"""What balancing policies have seen and remember, as arrays of a checkpoint: a run that goes on as it was cut goes on with it.

Of each layer and micro-batch: the loads of the last steps, and what the policy put into its state: numbers, text, lists and
dictionaries of these, and arrays.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError
from ...workloads.routing.balancers.past import MOST_STEPS_AGO
from ..training.transformer.experts.token_routes import TokenRoutes

Array = NDArray[Any]

LOADS = ("wanted", "carried", "experts")
"""What is kept of a step, in the order in which it was told."""

STATES = "states"
"""The key of all plain values of states, as JSON."""


def memory_of(routes: TokenRoutes) -> dict[str, Array]:
    """Arrays by name; none where the policy neither looks back nor remembers.

    Raises :class:`InputError` where a state has what no checkpoint keeps.
    """
    found: dict[str, Array] = {}
    for (layer, micro_batch), steps in routes.told.items():
        for step, *loads in steps if routes.looks_back or any(routes.states.values()) else ():
            for name, each in zip(LOADS, loads, strict=True):
                if each is not None:
                    found[f"{layer}/{micro_batch}/{step}/{name}"] = each
    plain: dict[str, dict[str, Any]] = {}
    for (layer, micro_batch), state in routes.states.items():
        for key, value in state.items():
            if isinstance(value, np.ndarray):
                found[f"{layer}/{micro_batch}/{STATES}/{key}"] = _kept(key, value)
            else:
                plain.setdefault(f"{layer}/{micro_batch}", {})[key] = value
    if plain:
        found[STATES] = np.frombuffer(_text(plain).encode(), dtype=np.uint8)
    return found


def remember(routes: TokenRoutes, arrays: Mapping[str, Array]) -> None:
    """Give routes back what :func:`memory_of` found."""
    for name, each in arrays.items():
        if name == STATES:
            for place, state in json.loads(each.tobytes()).items():
                routes.states.setdefault(_place(place), {}).update(state)
            continue
        where, step, key = _split(name)
        if step == STATES:
            routes.states.setdefault(where, {})[key] = each
    steps: dict[tuple[int, int], dict[int, dict[str, Array]]] = {}
    for name, each in arrays.items():
        if name != STATES:
            where, step, key = _split(name)
            if step != STATES:
                steps.setdefault(where, {}).setdefault(int(step), {})[key] = each
    for where, of_step in steps.items():
        kept = routes.told.setdefault(where, deque(maxlen=MOST_STEPS_AGO))
        for number in sorted(of_step):
            loads = of_step[number]
            kept.append((number, loads["wanted"], loads["carried"], loads.get("experts")))


def _split(name: str) -> tuple[tuple[int, int], str, str]:
    layer, micro_batch, step, key = name.split("/", 3)
    return (int(layer), int(micro_batch)), step, key


def _place(name: str) -> tuple[int, int]:
    layer, micro_batch = map(int, name.split("/"))
    return layer, micro_batch


def _kept(key: str, value: Array) -> Array:
    if value.dtype.hasobject:
        raise InputError(f"--balancer: past.state[{key!r}] is an array of objects; checkpoints keep numbers and text")
    return value


def _text(plain: Mapping[str, Any]) -> str:
    try:
        return json.dumps(plain)
    except (TypeError, ValueError) as reason:
        raise InputError(f"--balancer: past.state cannot be kept in a checkpoint: {reason}") from None
