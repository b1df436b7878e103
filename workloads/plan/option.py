"""What an option of a plan is: its type, choices, bounds, unit, group and meaning, declared with the field itself.

From these the command line makes its options, run files their keys, editors their types and ``docs/cli.md`` its text. Nothing
heavy is imported here: ``athanor simulate --help`` reads it.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ...hardware.errors import nearest, suggestion
from ..mesh.mesh_text import mesh_sizes
from .choices import names_of, searched_names_of

Group = Literal[
    "Mesh and placement",
    "Batch",
    "Precision and optimizer",
    "Experts",
    "Tensor and sequence parallelism",
    "Pipeline",
    "Sharding and offload",
    "Memory and recomputation",
    "Overlap",
    "Network",
    "Noise and steps",
    "Budget",
    "Faults and restarts",
    "Checkpoints",
    "Data",
    "Power and money",
]
"""Headings under which options stand, in this order."""

REQUIRED: Any = object()
"""Default of an option that has none: the model's plan or the user names it."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a plan.

    ``type`` is ``int``, ``float``, ``bool``, ``str``, a ``Literal`` or a mapping; ``optional`` says that None stands for
    "follows from the others". ``otherwise`` explains what holds where nobody names a value, if the default does not say it.
    ``form`` is what stands for a value in a help text. ``names`` is the kind of names that a text may begin with (see
    :mod:`~athanor.workloads.plan.choices`). ``more`` and ``least`` bound a number below (exclusive and inclusive), ``less``
    and ``most`` from above. ``searched`` is True where ``athanor plan`` tries values of it; ``tried`` are those that it tries
    unasked, by default all of a kind that are not marked otherwise, none where the plan's own value stands. ``fixable`` is
    False where a search takes no value that a user fixes. ``inference`` says that ``athanor infer`` takes it,
    ``simulated_only`` that ``athanor execute`` refuses it.
    """

    group: Group
    help: str
    name: str = ""
    type: Any = str
    optional: bool = False
    default: Any = REQUIRED
    unit: str = ""
    form: str = ""
    otherwise: str = ""
    names: str = ""
    more: float | None = None
    least: float | None = None
    less: float | None = None
    most: float | None = None
    searched: bool = False
    tried: tuple[Any, ...] | None = None
    fixable: bool = True
    inference: bool = False
    simulated_only: bool = False

    @property
    def flag(self) -> str:
        """``--micro-batch``."""
        return f"--{self.name.replace('_', '-')}"

    def choices(self) -> tuple[str, ...]:
        """The names that a value may be, or begin with; none where it is a number or free text."""
        if get_origin(self.type) is Literal:
            return get_args(self.type)
        return names_of(self.names) if self.names else ()

    def tried_unasked(self) -> tuple[Any, ...]:
        """The values that a search tries where none are named; none where the plan's own value stands."""
        if self.tried is not None:
            return self.tried
        if self.type is bool:
            return (False, True)
        return searched_names_of(self.names) if self.names else self.choices()

    def default_text(self) -> str:
        """The default as a reader sees it."""
        if self.default is REQUIRED:
            return "the model's plan"
        if self.otherwise:
            return self.otherwise
        return {True: "yes", False: "no"}[self.default] if isinstance(self.default, bool) else f"{self.default}"

    def read(self, value: Any) -> Any:
        """A user's value in the option's own type; raises ``ValueError`` with the reason and what is allowed."""
        if self.name == "mesh":
            return _mesh(value)
        if self.name == "placement":
            return _placement(value)
        if get_origin(self.type) is Literal:
            return _choice(value, get_args(self.type))
        if self.type is bool:
            return _truth(value)
        if self.type in (int, float):
            number = _number(value, self.type)
            if self._outside(number):
                raise ValueError(f"must be {self.bounds()}")
            return number
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str):
            raise ValueError("must be a text")
        return text

    def bounds(self) -> str:
        """``above 0``, ``from 0 to below 1``: where a number may lie; empty where anywhere."""
        low = (
            f"above {self.more:g}"
            if self.more is not None
            else f"from {self.least:g}"
            if self.least is not None
            else ""
        )
        high = f"below {self.less:g}" if self.less is not None else f"{self.most:g}" if self.most is not None else ""
        if low and high:
            return f"{low} to {high}"
        return f"{low} on" if low.startswith("from") else low or high

    def _outside(self, number: float) -> bool:
        return bool(
            (self.more is not None and not number > self.more)
            or (self.least is not None and not number >= self.least)
            or (self.less is not None and not number < self.less)
            or (self.most is not None and not number <= self.most)
        )


def option(group: Group, default: Any, about: str, **how: Any) -> Any:
    """A field of a plan; ``how`` are further fields of :class:`Option`."""
    declared = Option(group, about, default=default, **how)
    return dataclasses.field(
        default=dataclasses.MISSING if default is REQUIRED else default, metadata={"option": declared}
    )


def options_of(plan: type) -> Mapping[str, Option]:
    """The options of a plan's class by name, in the order of its fields."""
    hints = get_type_hints(plan)
    found = {}
    for field in dataclasses.fields(plan):
        parts = get_args(hints[field.name]) if get_origin(hints[field.name]) in (Union, UnionType) else ()
        kept = [part for part in parts if part is not NoneType]
        kind = kept[0] if len(kept) == 1 else hints[field.name]
        declared: Option = field.metadata["option"]
        found[field.name] = dataclasses.replace(declared, name=field.name, type=kind, optional=NoneType in parts)
    return found


def grouped(options: Mapping[str, Option]) -> Iterator[tuple[Group, list[Option]]]:
    """Groups with their options, in the order in which they are shown."""
    for group in get_args(Group):
        if members := [each for each in options.values() if each.group == group]:
            yield group, members


def read_options(
    options: Mapping[str, Option], table: Mapping[str, Any], where: Callable[[str], str]
) -> tuple[dict[str, Any], str]:
    """A user's table with every value in its type, and what is wrong with the first that is not (empty where none).

    ``where`` names the place of a key, such as ``--top-k`` or ``run.toml: plan.top_k``. Unknown keys come first: they explain
    what is missing.
    """
    for key in table:
        if key not in options:
            return {}, f"{where(key)}: no such option{nearest(key, options)}"
    found = {}
    for key, value in table.items():
        try:
            found[key] = options[key].read(value)
        except ValueError as reason:
            return {}, f"{where(key)} {_shown(value)}: {reason}"
    return found, ""


def _shown(value: Any) -> str:
    """A value as it was typed, shortened."""
    text = ",".join(f"{key}={item}" for key, item in value.items()) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: Any, kind: Any) -> Any:
    """A whole number or a number; what only looks like one, such as a text or yes, is none."""
    if not isinstance(value, bool | str):
        try:
            if kind is float:
                return float(value)
            return int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
        except (TypeError, ValueError):
            pass
    raise ValueError("must be a whole number" if kind is int else "must be a number")


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _choice(value: Any, allowed: tuple[str, ...]) -> str:
    text = str(value)
    if text not in allowed or isinstance(value, bool):
        raise ValueError(f"no such choice{suggestion(text, allowed)}")
    return text


def _mesh(value: Any) -> dict[str, int]:
    if not isinstance(value, str | Mapping):
        raise ValueError("must be a text such as ep=400,dp=240, or sizes by axis")
    return {str(axis): _number(size, int) for axis, size in mesh_sizes(value).items()}


def _placement(value: Any) -> str | dict[str, str]:
    if isinstance(value, Mapping) and all(isinstance(level, str) for level in value.values()):
        return {str(axis): level for axis, level in value.items()}
    if not isinstance(value, str):
        raise ValueError("must be a text such as megatron or ep=supernode,dp=node, or levels by axis")
    return value
