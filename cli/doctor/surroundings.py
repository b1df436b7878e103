"""What is around Python: the system, namespaces, places to write to, a browser, the shell."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...hardware.cores import cores
from ...hardware.errors import AthanorError
from .finding import Finding, answer

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "brave",
    "firefox",
)
PAGE = "data:text/html,<title>page</title><script>document.title='ran'</script>"


def system() -> Iterator[Finding]:
    """The kernel, and the cores that this process may use."""
    found = f"{platform.system()} {platform.release()} on {platform.machine()}, {cores()} of {os.cpu_count()} cores"
    linux = platform.system() == "Linux"
    do = "" if linux else "simulations work; run jobs over MPI and emulated clusters on Linux"
    yield Finding("system", linux, found, "jobs over MPI with all their checks", do)


def namespaces() -> Iterator[Finding]:
    """Whether a cluster can be emulated; the smallest one is tried."""
    from ...mpi_runtime.cluster import missing

    why = missing()
    do = (
        "use the loopback device (athanor cluster up --help), a virtual machine, or a container that may unshare"
        if why
        else ""
    )
    found = why or "network namespaces, veth devices, bridges and shapers can be made"
    yield Finding("namespaces", why is None, found, "athanor cluster up, validate-runtime on emulated trees", do)


def places() -> Iterator[Finding]:
    """Folders in which commands write."""
    from ...mpi_runtime.cluster.state import folder

    for what, needed, path, do in (
        ("working folder", "-o and --out with names that say no folder", Path.cwd(), "go to a folder of your own"),
        ("temporary files", "jobs, studies", Path(tempfile.gettempdir()), "set TMPDIR to a folder of your own"),
    ):
        why = _not_writable(path)
        yield Finding(what, not why, f"{path}{why and ': ' + why}", needed, do if why else "")
    needed = "athanor cluster"
    try:
        path = folder()
    except AthanorError as reason:
        yield Finding("clusters' folder", False, str(reason), needed, "set XDG_RUNTIME_DIR to a folder of your own")
        return
    why = _not_writable(path)
    do = "set XDG_RUNTIME_DIR to a folder of your own" if why else ""
    yield Finding("clusters' folder", not why, f"{path}{why and ': ' + why}", needed, do)


def browser() -> Iterator[Finding]:
    """A browser on this computer, and whether it shows a page."""
    needed = "looking at reports here"
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        do = "open reports elsewhere: each is one file that needs no network"
        yield Finding("browser", False, f"none of {', '.join(BROWSERS)} is on PATH", needed, do)
        return
    version = answer([path, "--version"])
    told = version.out.strip().splitlines()
    if version.status != 0 or not told:
        yield Finding("browser", False, f"{path}: {version.reason}", needed, "install it anew")
        return
    if "firefox" in Path(path).name:
        yield Finding("browser", True, f"{told[-1]}, {path}", needed)
        return
    with tempfile.TemporaryDirectory() as profile:
        words = ["--headless", "--disable-gpu", "--no-sandbox", f"--user-data-dir={profile}", "--dump-dom", PAGE]
        shown = answer([path, *words])
    ran = "<title>ran</title>" in shown.out
    found = f"{told[-1]}, {path}" if ran else f"{path} shows no page: {shown.reason}"
    yield Finding("browser", ran, found, needed, "" if ran else "install it anew")


LINES = {
    "bash": (".bashrc", 'eval "$(_ATHANOR_COMPLETE=bash_source athanor)"'),
    "zsh": (".zshrc", 'eval "$(_ATHANOR_COMPLETE=zsh_source athanor)"'),
    "fish": (".config/fish/completions/athanor.fish", "_ATHANOR_COMPLETE=fish_source athanor | source"),
}
"""Of each shell that can complete: its file in the home folder, and the line that belongs there."""


def completion() -> Iterator[Finding]:
    """Whether the shell's start-up file has the line that makes it complete."""
    needed = "completing commands, options and names by Tab"
    shell = Path(os.environ.get("SHELL", "")).name
    if shell not in LINES:
        text = f"the shell is {shell}" if shell else "SHELL does not say which shell there is"
        yield Finding("completion", False, text, needed, f"use {', '.join(LINES)}")
        return
    file, line = LINES[shell]
    path = Path.home() / file
    try:
        there = f"{shell}_source athanor" in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        there = False
    found = f"{path} has the line of {shell}" if there else f"{path} has no line for athanor"
    yield Finding("completion", there, found, needed, "" if there else f"add to {path}: {line}")


def _not_writable(path: Path) -> str:
    """Why no file can be made in a folder; nothing where one can."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"1")
    except OSError as reason:
        return f"cannot be written: {reason.strerror}"
    return ""
