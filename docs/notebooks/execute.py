"""Executes the notebooks of this folder: ``make notebooks`` writes their outputs anew, a test looks whether they still come out.

One kernel executes them one after another, each with an empty namespace and in a folder of its own: libraries load once.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

HERE = Path(__file__).parent

PAGES = ("first-walk", "scale-your-own-machine", "swipe-under-skew")
"""In the order in which they are read: whoever executes them gets the same numbers."""

MEASURED = ("calibrate-and-trust",)
"""Those that measure this computer: their numbers differ each time, and they need an MPI."""

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""Of all notebooks: nothing of the computer that executed them."""

PATIENCE = 300
"""Seconds that a cell may take."""


def read(name: str) -> Any:
    """A notebook as it stands."""
    return nbformat.read(HERE / f"{name}.ipynb", as_version=4)


def executed(notebooks: Iterable[Any]) -> list[Any]:
    """Notebooks with what their cells give now; raises nbclient's ``CellExecutionError`` for a cell that fails."""
    notebooks = list(notebooks)
    with tempfile.TemporaryDirectory() as folder:
        together = nbformat.v4.new_notebook(metadata=METADATA)
        for number, notebook in enumerate(notebooks):
            place = Path(folder, str(number))
            place.mkdir()
            together.cells.append(nbformat.v4.new_code_cell(f"%reset -f\nimport os; os.chdir({str(place)!r}); del os"))
            together.cells += [_without_outputs(cell) for cell in notebook.cells]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        environment = {**os.environ, "PATH": path, "IPYTHONDIR": folder}  # the user's own settings and history stay out
        # sockets in the folder, where no other user reads along
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(Path(folder, "socket")))
        client = NotebookClient(together, km=manager, timeout=PATIENCE, record_timing=False)
        client.execute(env=environment)
    made, cells = [], iter(together.cells)
    for notebook in notebooks:
        next(cells)
        fresh = [next(cells) for _ in notebook.cells]
        for number, cell in enumerate((each for each in fresh if each.cell_type == "code"), 1):
            cell.execution_count = number
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = number
        made.append(nbformat.v4.new_notebook(cells=fresh, metadata=METADATA))
    return made


def _without_outputs(cell: Any) -> Any:
    fresh = nbformat.from_dict(cell)
    if fresh.cell_type == "code":
        fresh.outputs, fresh.execution_count = [], None
    return fresh


def told(notebook: Any) -> list[str]:
    """What each cell prints and shows as text or tables; of pictures only that there is one, since libraries draw them."""
    return ["\n".join(map(_told, cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"]


def _told(output: Any) -> str:
    if output.output_type == "stream":
        return f"{output.name}: {output.text}"
    shown = {kind: text for kind, text in output.data.items() if kind != "text/plain" or len(output.data) == 1}
    parts = [kind if kind.startswith("image/") else f"{kind}: {text}" for kind, text in sorted(shown.items())]
    return re.sub(r"data:image/png;base64,[\w+/=]+", "image/png", "\n".join(parts))


def main(names: Iterable[str]) -> None:
    """Execute notebooks and write them with what came out."""
    chosen = list(names) or [*PAGES, *MEASURED]
    for name, notebook in zip(chosen, executed(map(read, chosen)), strict=True):
        for number, cell in enumerate(notebook.cells):
            cell.id = f"cell-{number}"
        nbformat.write(notebook, HERE / f"{name}.ipynb")


if __name__ == "__main__":
    main(sys.argv[1:])
