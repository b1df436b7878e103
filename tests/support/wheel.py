"""The wheel of the package, installed in an environment of its own that sees the libraries of this one."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from support.paths import ROOT


@dataclass(frozen=True)
class InstalledWheel:
    """A folder with the wheel, an environment in which it is installed, and nothing of the checkout."""

    folder: Path

    @property
    def wheel(self) -> Path:
        (path,) = (self.folder / "dist").glob("*.whl")
        return path

    @property
    def python(self) -> Path:
        return self.folder / "env" / "bin" / "python"

    @property
    def athanor(self) -> Path:
        """The command."""
        return self.folder / "env" / "bin" / "athanor"

    def run(self, *command, cwd) -> subprocess.CompletedProcess[str]:
        """Run a command of that environment where no path leads to the checkout."""
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
        return subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)

    def mypy(self, *arguments, cwd) -> subprocess.CompletedProcess[str]:
        """What mypy says of a user's files, in strict mode, with the package as it is installed.

        mypy sees those of its libraries that bring types themselves and that the public names use; all of them, with
        stubs that users seldom have, would take it three times as long.
        """
        check = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", self.folder / "mypy"]
        return self.run(*check, "--python-executable", self.folder / "typed" / "bin" / "python", *arguments, cwd=cwd)


def install(folder: Path) -> None:
    """Build an sdist from a copy of the checkout (a build writes beside its sources), from it the wheel, and install it, offline.

    The copy has no git: the sdist is told its version, and the wheel has to find it in the sdist.
    """
    source, env = folder / "source", folder / "env"
    shutil.copytree(ROOT, source, ignore=built)
    told = {**os.environ, "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_ATHANOR": VERSION}
    build = "from setuptools.build_meta import build_sdist; build_sdist('../sdist')"
    (folder / "sdist").mkdir()
    quietly([sys.executable, "-c", build], cwd=source, env=told)
    shutil.rmtree(source)
    shutil.unpack_archive(folder / "sdist" / f"athanor-{VERSION}.tar.gz", folder, filter="data")
    source = folder / f"athanor-{VERSION}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--quiet", "--no-deps", "--no-index"]
    quietly([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder / "dist", source])
    shutil.rmtree(source)
    (wheel,) = (folder / "dist").glob("*.whl")
    site = environment(env)
    quietly([*pip, "--python", env / "bin" / "python", "install", *offline, "--no-compile", wheel])
    # A path in a .pth file brings the libraries, and not what their folder's own .pth files say: the checkout.
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "libraries.pth").write_text("".join(f"{path}\n" for path in libraries))
    typed = environment(folder / "typed")
    for path in (site / "athanor", *map(home, TYPED)):
        (typed / path.name).symlink_to(path)


VERSION = "4.5.6"
"""Of the wheel."""

TYPED = ("numpy", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection")
"""Libraries with types of their own that the package's public names use, and what those need."""


def home(library: str) -> Path:
    """The folder, or file, of a library."""
    origin = Path(importlib.util.find_spec(library).origin)
    return origin.parent if origin.name == "__init__.py" else origin


def environment(folder: Path) -> Path:
    """Make an environment without packages; returns where they go."""
    quietly([sys.executable, "-m", "venv", "--without-pip", folder])
    (site,) = folder.glob("lib/python*/site-packages")
    return site


def built(_, names: list[str]) -> list[str]:
    """What a checkout holds besides its sources."""
    return [n for n in names if n.startswith(".") or n in ("build", "out", "__pycache__") or n.endswith(".egg-info")]


def quietly(command, **settings) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **settings)
    assert done.returncode == 0, done.stderr
