"""Python and the packages: those that Athanor cannot do without, and those of its extras."""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from .finding import Finding

EXTRAS = {
    "fit": "athanor fit, the rank correlation of athanor compare",
    "studies": "sensitivity and search of athanor study",
    "accelerator": "athanor calibrate --accelerator",
}
"""What extras are for, except those for MPI (see ``mpi.py``) and for working on Athanor itself."""


def python() -> Iterator[Finding]:
    """The interpreter, and whether the shell finds this installation's command."""
    from ...hardware.version import version

    wanted = metadata.metadata("athanor")["Requires-Python"]
    found = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    yield Finding(
        "Python", _suits(platform.python_version(), wanted), found, "everything", f"use Python {wanted}", True
    )
    mine, there = Path(sys.executable).parent / "athanor", shutil.which("athanor")
    package = Path(__file__).parents[2]
    if there and mine.exists() and Path(there).resolve() == mine.resolve():
        yield Finding("command", True, f"athanor {version()}, {there}, package in {package}")
        return
    other = f"the shell finds another installation, {there}" if there else "the shell finds no athanor"
    do = f"activate the environment (. {mine.parent}/activate) or type {sys.executable} -m athanor"
    yield Finding("command", False, f"{other}; this one is athanor {version()} in {package}", "typing athanor", do)


def libraries() -> Iterator[Finding]:
    """What every command may need."""
    found, wrong = _state(_requirements(None))
    do = "pip install --force-reinstall athanor, in an environment of its own"
    yield Finding("libraries", not wrong, "; ".join(wrong) or ", ".join(found), "everything", do if wrong else "", True)


def extras() -> Iterator[Finding]:
    """What some commands need."""
    for name, needed in EXTRAS.items():
        found, wrong = _state(_requirements(name))
        do = f"pip install 'athanor[{name}]'" if wrong else ""
        yield Finding(f"extra {name}", not wrong, "; ".join(wrong) or ", ".join(found), needed, do)


def _requirements(extra: str | None) -> list[tuple[str, str]]:
    """(package, versions that suit) of those that hold here: of an extra, those that it brings beside what is always there."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires("athanor") or ()]
    always = {each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})}
    chosen = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": extra or ""})]
    pairs = [(each.name, str(each.specifier)) for each in chosen if extra is None or each.name not in always]
    nested = [other for each in chosen if each.name == "athanor" for other in each.extras]
    return [pair for pair in pairs if pair[0] != "athanor"] + [
        more for other in nested for more in _requirements(other)
    ]


def _state(requirements: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """What is there and works, and what is wrong with the others."""
    found, wrong = [], []
    modules = _modules()
    for name, versions in requirements:
        try:
            there = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed")
            continue
        if not _suits(there, versions):
            wrong.append(f"{name} {there} is there, it has to be {versions}")
        elif reason := _not_loading(_own(name, modules.get(name.lower(), []))):
            wrong.append(f"{name} {there} cannot be loaded: {reason}")
        else:
            found.append(f"{name} {there}")
    return found, wrong


def _modules() -> dict[str, list[str]]:
    """The modules of each package that are for others to import."""
    of: dict[str, list[str]] = {}
    for module, packages in metadata.packages_distributions().items():
        for each in packages:
            if not module.startswith("_") and module.isidentifier():
                of.setdefault(each.lower(), []).append(module)
    return of


def _own(package: str, modules: list[str]) -> list[str]:
    """The module that a package is named after; all of its modules where none is (some bring their tests as well)."""
    named = [each for each in modules if each.lower() == package.lower().replace("-", "_")]
    return named or modules


def _not_loading(modules: list[str]) -> str:
    """Why one of some modules cannot be imported; nothing where all can."""
    for name in modules:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
        except Exception as reason:  # whatever a broken installation raises
            return f"{type(reason).__name__}: {reason}".splitlines()[0]
    return ""


def _suits(version: str, versions: str) -> bool:
    """Whether a version is one of those that are wanted."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(versions).contains(version, prereleases=True)
