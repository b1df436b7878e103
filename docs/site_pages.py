"""What MkDocs asks before it builds the site (``hooks`` of ``mkdocs.yml``): pages that are made, and files outside ``docs/``.

- The README is the first page; the changes are one as well.
- The reference of the Python API has a page for each kind of public name, from the docstrings of what runs: options that
  decorators add to a docstring are there too.
- Notebooks become pages with their outputs.
- A file of the repository that a page links to, such as an example, is copied into the site, and the link leads there.
"""

from __future__ import annotations

import html
import posixpath
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
ROOMS = ("hardware", "workloads", "sim", "mpi_runtime", "reports", "cli")
"""Folders of the package: it is the repository's root, whatever that is called, and all else there is none of it."""

OUTSIDE = {"README.md": "index.md", "CHANGELOG.md": "changes.md"}
"""Pages that lie outside ``docs/``, and where they go."""

COPIES = "repository"
"""The folder of the site with other files of the repository."""

API = {
    "run": "Simulate, execute, study",
    "objects": "Machines, models, plans, results",
    "import": "Files of other tools",
    "errors": "Errors",
}
"""The pages of public names; :func:`page_of` says what stands on which."""

LINK = re.compile(r"(?P<before>\]\(|src=\")(?P<target>[^)\s\"#]+)(?P<anchor>#[^)\s\"]*)?(?P<after>\)|\")")


@event_priority(100)  # before mkdocstrings reads where the package is
def on_config(config: Any) -> Any:
    """Lead mkdocstrings to the package alone: its folder has tests, environments and outputs beside it."""
    folder = Path(tempfile.mkdtemp(prefix="athanor-site-"))
    package = folder / "athanor"
    for room in ROOMS:
        shutil.copytree(ROOT / room, package / room, ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    shutil.copy(ROOT / "__init__.py", package)
    homes = sorted(_home_of(name) for names in public().values() for name in names)
    (folder / "docstrings.py").write_text(EXTENSION.replace("HOMES", repr(tuple(homes))), encoding="utf-8")
    sys.path.insert(0, str(folder))
    python = config.plugins["mkdocstrings"].config.handlers["python"]
    python["paths"] = [str(folder)]
    python["options"]["extensions"] = [{f"{folder / 'docstrings.py'}": {}}]
    config.extra["package"] = str(folder)
    config.nav = navigation()
    return config


def navigation() -> list[Any]:
    """All pages by section, those of a folder with its own first."""

    def inside(folder: str) -> list[str]:
        paths = sorted((ROOT / "docs" / folder).glob("**/*.md"), key=lambda path: (path.name != "README.md", path))
        return [path.relative_to(ROOT / "docs").as_posix() for path in paths]

    notebooks = (ROOT / "docs" / "notebooks").glob("*.ipynb")
    return [
        {"Athanor": ["index.md", "glossary.md", "accuracy.md", "architecture.md", "changes.md"]},
        {"Notebooks": ["notebooks/README.md", *(f"notebooks/{path.stem}.md" for path in sorted(notebooks))]},
        {"How to": inside("howto")},
        {"Strategies": inside("strategies")},
        {"Files": inside("formats")},
        {"Reference": ["cli.md", "plan.md", "api/index.md", *(f"api/{page}.md" for page in API)]},
    ]


def on_post_build(config: Any) -> None:
    """Remove what :func:`on_config` made."""
    shutil.rmtree(config.extra["package"])


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and the files of the repository that pages link to."""
    for notebook in sorted(Path(config.docs_dir, "notebooks").glob("*.ipynb")):
        files.remove(files.src_uris[f"notebooks/{notebook.name}"])
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=of_notebook(notebook)))
    for name, there in OUTSIDE.items():
        files.append(File.generated(config, there, content=(ROOT / name).read_text(encoding="utf-8")))
    for page, text in api_pages().items():
        files.append(File.generated(config, page, content=text))
    copies: dict[str, Path] = {}
    for file in files.documentation_pages():
        for path in filter(_copied, _targets(file.content_string, _home(file.src_uri))):
            inside = _files(ROOT / path)
            copies |= {f"{COPIES}/{each.relative_to(ROOT).as_posix()}": each for each in inside}
            if (ROOT / path).is_dir():
                names = [each.relative_to(ROOT / path).as_posix() for each in inside]
                listing = "\n".join([f"# {path}", "", *(f"- [{name}]({name})" for name in names), ""])
                if f"{COPIES}/{path}/index.md" not in files.src_uris:
                    files.append(File.generated(config, f"{COPIES}/{path}/index.md", content=listing))
    for place, path in copies.items():
        files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def _files(path: Path) -> list[Path]:
    """A file, or all files of a folder."""
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    return [each for each in found if each.is_file() and "__pycache__" not in each.parts]


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead to where things are in the site."""
    home, here = _home(page.file.src_uri), posixpath.dirname(page.file.src_uri)
    made = {path: there for there, path in HOMES.items()}

    def led(found: re.Match[str]) -> str:
        target = found["target"]
        if "://" in target or target.startswith(("data:", "mailto:")):
            return found[0]
        path = posixpath.normpath(posixpath.join(home, target))
        there = _place(path, made)
        return f"{found['before']}{posixpath.relpath(there, here or '.')}{found['anchor'] or ''}{found['after']}"

    return _outside_code(markdown, led)


HOMES = {there: name for name, there in OUTSIDE.items()}
"""Of pages that lie elsewhere in the repository: where, by their place in the site."""


def _home(page: str) -> str:
    """The folder of the repository from which a page's links start."""
    return posixpath.dirname(HOMES.get(page, f"docs/{page}"))


def _place(path: str, made: dict[str, str]) -> str:
    """Where a file of the repository is in the site."""
    if path in made:
        return made[path]
    if _copied(path):
        return f"{COPIES}/{path}" + ("/index.md" if (ROOT / path).is_dir() else "")
    return re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))


def _copied(path: str) -> bool:
    """Whether a path is one of a file of the repository that is no page of the site."""
    return path not in OUTSIDE and not path.startswith(("docs/", "..")) and (ROOT / path).exists()


def _targets(text: str, home: str) -> list[str]:
    """Where the links of a page lead, as paths in the repository."""
    found: list[str] = []

    def seen(link: re.Match[str]) -> str:
        if "://" not in link["target"] and not link["target"].startswith(("data:", "mailto:")):
            found.append(posixpath.normpath(posixpath.join(home, link["target"])))
        return link[0]

    _outside_code(text, seen)
    return found


def _outside_code(text: str, change: Any) -> str:
    """A page with its links changed, those in blocks of code left as they are."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if number % 2 else LINK.sub(change, part) for number, part in enumerate(parts))


def public() -> dict[str, list[str]]:
    """The public names by the page that they stand on."""
    import athanor

    found: dict[str, list[str]] = {page: [] for page in API}
    for name in sorted({*athanor.__all__} - {"__version__"}, key=str.lower):
        found[page_of(getattr(athanor, name))].append(name)
    return found


def page_of(found: Any) -> str:
    """The page of a class or function, by the room that has it: what runs something, what something is, what reads files."""
    if isinstance(found, type):
        return "errors" if issubclass(found, BaseException) else "objects"
    room = found.__module__.split(".")[1:3]
    if room == ["reports", "formats"]:
        return "import"
    return "objects" if room[0] in ("hardware", "workloads") else "run"


def api_pages() -> dict[str, str]:
    """The pages of the Python API; every public name stands on one of them."""
    listed = [
        f"- [{API[page]}]({page}.md): " + ", ".join(f"[`{name}`]({page}.md#{_home_of(name)})" for name in names)
        for page, names in public().items()
    ]
    about = (
        "# Python\n\n`import athanor` has everything that the command line has. Units are SI: seconds, bytes, bytes per second,"
        " FLOP/s. What you can mend raises `AthanorError` with one line.\n\n"
    )
    pages = {"api/index.md": about + "\n".join(listed)}
    for page, names in public().items():
        blocks = [f"::: {_home_of(name)}\n    options:\n      heading: athanor.{name}\n" for name in names]
        pages[f"api/{page}.md"] = "\n".join([f"# {API[page]}", "", *blocks])
    return pages


def _home_of(name: str) -> str:
    """The module and name under which something is defined, as mkdocstrings asks for it."""
    import athanor

    found = getattr(athanor, name)
    return f"{found.__module__}.{found.__qualname__}"


def of_notebook(path: Path) -> str:
    """A notebook as a page: its texts, its code, and what the cells gave."""
    notebook = nbformat.read(path, as_version=4)
    parts = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        parts += [_output(output) for output in cell.outputs]
    return "\n\n".join(parts) + "\n"


def _output(output: Any) -> str:
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```"
    data = output.data
    if "image/png" in data:
        picture = data["image/png"].replace("\n", "")
        width = output.metadata.get("image/png", {}).get("width", 500)
        about = html.escape(data.get("text/plain", "a plot"))
        return f'<img alt="{about}" width="{width:.0f}" src="data:image/png;base64,{picture}">'
    if "text/html" in data:
        return re.sub(r"\n\s*\n", "\n", re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL))
    return f"```text\n{data['text/plain']}\n```"


EXTENSION = '''
"""Docstrings as they are at run time, with roles as links."""

import importlib
import inspect
import re

import griffe

OPTION = re.compile("^  (\\\\w+): ", re.MULTILINE)
ROLE = re.compile(r":(?:class|func|meth|data|mod):`~?([^`]+)`")


SHOWN = HOMES


class Docstrings(griffe.Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring is None or not any(f"{obj.path}.".startswith(f"{home}.") for home in SHOWN):
            return
        if obj.is_function or obj.is_class:
            try:
                found = importlib.import_module(obj.module.canonical_path)
                for name in obj.path.removeprefix(obj.module.path).strip(".").split("."):
                    found = getattr(found, name)
                told = inspect.getdoc(found)
            except (ImportError, AttributeError):
                told = None
            if told:
                obj.docstring.value = told
        obj.docstring.value = OPTION.sub(lambda option: f"- `{option[1]}`: ", obj.docstring.value)
        obj.docstring.value = ROLE.sub(lambda role: f"`{role[1]}`", obj.docstring.value).replace("``", "`")
'''
"""An extension of griffe, which reads sources: decorators add a plan's options to docstrings."""
