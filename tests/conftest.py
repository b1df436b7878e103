"""What all tests share: Hypothesis without deadlines, and what is made once for all workers."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from support.wheel import InstalledWheel, install

# How long an example takes says nothing about whether it is right.
settings.register_profile("athanor", deadline=None)
settings.load_profile("athanor")


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """``once(name, make)``: the folder ``name`` as ``make(folder)`` filled it, made by one of xdist's workers for all."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        made, done = shared / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                made.mkdir(exist_ok=True)
                make(made)
                done.touch()
        return made

    return folder


@pytest.fixture(scope="session")
def installed_wheel(once) -> InstalledWheel:
    """The package as users have it: built as a wheel, installed in an environment of its own, far from this checkout."""
    return InstalledWheel(once("installed", install))
