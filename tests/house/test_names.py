"""One name means one thing: no two classes of the package are called alike."""

import ast
from collections import defaultdict
from pathlib import Path

import athanor

ROOT = Path(athanor.__file__).parent
ROOMS = ("cli", "hardware", "workloads", "sim", "mpi_runtime", "reports")


def test_no_two_classes_have_one_name():
    """A reader who searches for a class finds it, and not another."""
    places = defaultdict(list)
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for each in ast.walk(ast.parse(path.read_text())):
                if isinstance(each, ast.ClassDef):
                    places[each.name].append(f"{path.relative_to(ROOT)}:{each.lineno}")
    assert len(places) > 200
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
