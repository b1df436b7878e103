"""Validated records from TOML files, and the one line that is said when a file is wrong."""

from __future__ import annotations

import json
import re
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from .errors import InputError, suggestion
from .frozen_dict import frozen

R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """A frozen, validated piece of a machine or a model; unknown keys are refused."""

    # Schemas are built when they are first needed: parts of a machine within the machine's, other kinds of fabric never.
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    def model_post_init(self, context: Any) -> None:
        """Freeze what it holds as well."""
        self._freeze()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, frozen too."""
        copied = super().model_copy(update=update, deep=deep)
        copied._freeze()
        return copied

    def _freeze(self) -> None:
        for name in type(self).model_fields:
            if type(value := self.__dict__.get(name)) in (dict, list):
                self.__dict__[name] = frozen(value)


def read_toml(path: Path) -> dict[str, Any]:
    """The table that a TOML file holds; raises :class:`InputError` where it cannot be read."""
    try:
        return parsed_toml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as reason:
        raise InputError(f"{path}: cannot be read: {getattr(reason, 'strerror', None) or 'not UTF-8 text'}") from None


def parsed_toml(text: str, source: str) -> dict[str, Any]:
    """The table that TOML text holds; raises :class:`InputError` that names its ``source`` where it is none."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as reason:
        raise InputError(f"{source}: not a TOML file: {reason}") from None


def parsed_json(text: str) -> Any:
    """What JSON text holds; raises ``ValueError`` that says why it is none, or none that is read.

    That a number has too many digits is no ``JSONDecodeError``, and that it nests too deep not even a ``ValueError``.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nests too deep") from None


def build(record: type[R], table: dict[str, Any], source: str) -> R:
    """``table`` as a validated ``record``; raises :class:`InputError` that names ``source``, the key and what is allowed."""
    try:
        return record.model_validate(table, context={"units_required": True})
    except ValidationError as wrong:
        raise InputError(f"{source}: {describe(record, wrong)}") from None


def put(table: dict[str, Any], key: str, value: Any) -> bool:
    """Set the item of a dotted ``key`` in nested tables and lists; whether there is one."""
    *path, last = key.split(".")
    here: Any = table
    for part in path:
        here = _named(here).get(part)
    if last not in (holder := _named(here)):
        return False
    here[last if here is holder else int(last)] = value
    return True


def rebuilt(record: type[R], table: dict[str, Any], settings: Mapping[str, Any], flag: str) -> R:
    """A record's changed ``table`` as a record; raises :class:`InputError` that names the setting behind its ``flag``."""
    try:
        return record.model_validate(table)
    except ValidationError as wrong:
        key, value, reason = first_error(record, wrong)
        if key in settings:
            raise InputError(f"{flag}{key}={value}: {reason}") from None
        given = f" {flag}".join(f"{name}={text}" for name, text in settings.items())
        raise InputError(f"{flag}{given}: {describe(record, wrong)}") from None


def _named(value: Any) -> dict[str, Any]:
    """The items of a table by key, of a list by number; none of anything else."""
    if isinstance(value, list):
        return {str(number): item for number, item in enumerate(value)}
    return value if isinstance(value, dict) else {}


def catalogue_names(folder: Path, suffix: str = ".toml") -> list[str]:
    """The names in a catalogue folder, sorted."""
    return sorted(path.stem for path in folder.glob(f"*{suffix}"))


def find(kind: str, folder: Path, name_or_path: str, suffix: str = ".toml") -> Path:
    """The file of a catalogue name, or the path itself where it looks like one.

    Raises :class:`InputError` that lists the catalogue, and the nearest name, where neither exists.
    """
    if name_or_path in catalogue_names(folder, suffix):
        return folder / f"{name_or_path}{suffix}"
    path = Path(name_or_path)
    if path.exists():
        return path
    if path.suffix == suffix or "/" in name_or_path:
        raise InputError(f"{name_or_path}: no such file")
    names = suggestion(name_or_path, catalogue_names(folder, suffix))
    raise InputError(f"--{kind} {name_or_path}: no such {kind} in the catalogue, nor a file{names}")


def first_error(record: type[BaseModel], wrong: ValidationError) -> tuple[str, Any, str]:
    """(dotted key, what was found, what is wrong) of the first error; unknown keys first, as they explain missing ones."""
    first, *more = sorted(wrong.errors(), key=lambda error: error["type"] != "extra_forbidden")
    key, found = ".".join(_follow(record, first["loc"])[0]), first["input"]
    match first["type"]:
        case "extra_forbidden":
            _, holder = _follow(record, first["loc"][:-1])
            reason = f"unknown key{suggestion(str(first['loc'][-1]), list(holder.model_fields) if holder else [])}"
        case "missing":
            _, holder = _follow(record, first["loc"][:-1])
            reason = f"is missing{_needs(holder.model_fields.get(str(first['loc'][-1])) if holder else None)}"
        case "value_error":
            reason = str(first["ctx"]["error"])
        case "literal_error":
            reason = f"no such choice{suggestion(str(found), _quoted(first['ctx']['expected']))}"
        case "union_tag_invalid":
            key, found = f"{key}.{_quoted(first['ctx']['discriminator'])[0]}", first["ctx"]["tag"]
            reason = f"no such choice{suggestion(found, _quoted(first['ctx']['expected_tags']))}"
        case _:
            reason = f"{first['msg'][0].lower()}{first['msg'][1:]}"
    return key, found, reason + (f" (and {len(more)} more)" if more else "")


def _needs(field: FieldInfo | None) -> str:
    """``"; needs a whole number above 0"``: what may stand in a field; empty where a table or a list has to."""
    if field is None:
        return ""
    for each in field.metadata:
        if hasattr(each, "example"):
            return f'; needs {getattr(each, "kind", "a share")} such as "{each.example}"'
    kinds: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text"}
    kind = kinds.get(field.annotation, "")
    above = next((f" above {each.gt}" for each in field.metadata if hasattr(each, "gt")), "")
    return f"; needs {kind}{above}" if kind else ""


def _quoted(text: str) -> list[str]:
    """The names in pydantic's ``"'a', 'b' or 'c'"``."""
    return re.findall(r"'([^']*)'", text)


def describe(record: type[BaseModel], wrong: ValidationError) -> str:
    """The first error of a file in one line."""
    key, found, reason = first_error(record, wrong)
    if reason.startswith("is missing"):
        return f"{key} {reason}"
    if reason.startswith("unknown key"):
        return f"{key} is an {reason}"
    if key and isinstance(found, dict):
        return f"{key}: {reason}"  # a whole table is wrong, which is too long to show
    return f"{key} is {_shown(found)}: {reason}" if key else reason


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _follow(record: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel] | None]:
    """A location in ``record`` as parts of a dotted key, and the record class that stands there, where there is one.

    Where records of several kinds may stand, pydantic puts the kind into the location; the key goes without.
    """
    here: Any = record
    key: list[str] = []
    for part in location:
        if kinds := _kinds(here):
            here = kinds[str(part)]
            continue
        key.append(str(part))
        if get_origin(here) in (Union, types.UnionType):
            here = next((option for option in get_args(here) if option is not type(None)), None)
        if isinstance(here, type) and issubclass(here, BaseModel) and part in here.model_fields:
            here = here.model_fields[str(part)].annotation
        elif get_origin(here) in (list, tuple, dict):
            here = get_args(here)[-1 if get_origin(here) is dict else 0]
    if get_origin(here) in (Union, types.UnionType) and not _kinds(here):
        here = next((option for option in get_args(here) if option is not type(None)), None)
    return key, here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _kinds(annotation: Any) -> dict[str, type[BaseModel]]:
    """The records of a union by their ``kind``; empty for anything else."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return {}
    options = [option for option in get_args(annotation) if isinstance(option, type) and issubclass(option, BaseModel)]
    return {option.model_fields["kind"].default: option for option in options if "kind" in option.model_fields}
