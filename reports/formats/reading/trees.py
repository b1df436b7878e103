"""Files of nested data: JSON, YAML, TOML and XML. Nothing of them is run, and nothing in them can grow."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ....hardware.errors import InputError
from .files import TEXT, content, text

DEPTH = 100
"""How deep an XML file may nest."""

YAML = 2 * 2**20
"""Bytes of a YAML file, which is slow to read."""


def read_json(path: str | Path, most: int = TEXT) -> Any:
    """What a JSON file holds; raises :class:`InputError` with the place that is wrong."""
    return json_of(text(path, most), str(path))


def json_of(source: str, name: str) -> Any:
    """What a JSON text holds; ``name`` is said in errors."""
    try:
        return json.loads(source, parse_constant=_no_number)
    except RecursionError:
        raise InputError(f"{name}: nests too deep") from None
    except ValueError as reason:
        raise InputError(f"{name}: not a JSON file: {reason}") from None


def read_table(path: str | Path) -> dict[str, Any]:
    """The object that a JSON file holds; raises :class:`InputError` where it holds anything else."""
    return _table(read_json(path), path, "an object of JSON, { ... }")


def read_toml_table(path: str | Path) -> dict[str, Any]:
    """The table of a TOML file."""
    try:
        return tomllib.loads(text(path))
    except (ValueError, RecursionError) as reason:
        raise InputError(f"{path}: not a TOML file: {reason}") from None


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds: plain data, without tags, anchors and references; raises :class:`InputError` with the place."""
    import yaml

    source = text(path, YAML)
    try:
        for token in yaml.scan(source, Loader=yaml.SafeLoader):
            if isinstance(token, yaml.AliasToken | yaml.AnchorToken | yaml.TagToken):
                what = "tag" if isinstance(token, yaml.TagToken) else "reference"
                raise InputError(
                    f"{path}: line {token.start_mark.line + 1}: has a {what}, {_shown(token.value)}; only plain data is read"
                )
        return yaml.load(source, Loader=yaml.SafeLoader)
    except RecursionError:
        raise InputError(f"{path}: nests too deep") from None
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, IndexError) as reason:
        raise InputError(f"{path}: not a YAML file: {' '.join(str(reason).split())[:200]}") from None


def read_yaml_table(path: str | Path) -> dict[str, Any]:
    """The mapping of a YAML file."""
    return _table(read_yaml(path), path, "a mapping of YAML, key: value")


def read_xml(path: str | Path) -> Element:
    """The root of an XML file; raises :class:`InputError` for entities, deep nesting, and what is no XML."""
    builder, depth = TreeBuilder(), 0
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH:
            raise InputError(f"{path}: nests deeper than {DEPTH} elements")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def entity(name: str, *_: Any) -> NoReturn:
        raise InputError(f"{path}: declares an entity, {_shown(name)}; such files are not read")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(content(path), True)
        return builder.close()
    except (expat.ExpatError, AssertionError, ValueError, LookupError) as reason:
        raise InputError(f"{path}: not an XML file: {reason}") from None


def _table(found: Any, path: str | Path, wanted: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InputError(f"{path}: must hold {wanted}")
    return {str(key): value for key, value in found.items()}


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _shown(value: Any) -> str:
    return repr(value)[:60]
