"""What all tests share: Hypothesis without deadlines, bytecode that is kept, and what is made once for all workers."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from support.wheel import InstalledWheel, install

# How long an example takes says nothing about whether it is right.
settings.register_profile("athanor", deadline=None)
settings.load_profile("athanor")


def pytest_configure(config: pytest.Config) -> None:
    """Keep bytecode for this run where the user keeps none: else each program that a test starts compiles all libraries anew.

    The folder is made before workers start and is known to them and to every program by the environment.
    """
    if sys.dont_write_bytecode and not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="athanor-bytecode-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        sys.dont_write_bytecode, sys.pycache_prefix = False, folder
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder


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
