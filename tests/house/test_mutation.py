"""The sampler of mistakes: every one of them is a change that Python can read, and is drawn alike each time."""

import ast
import importlib.util
import sys

import pytest
from support.paths import ROOT, TESTS


@pytest.fixture(scope="module")
def points():
    spec = importlib.util.spec_from_file_location("points", TESTS / "mutation" / "points.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["points"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["points"]


def test_each_mistake_is_another_program(points):
    """Parsed, it differs from the file, and only in the span that it says."""
    path = ROOT / "workloads" / "lowering" / "simulator_memory.py"
    source, plain = path.read_bytes(), ast.dump(ast.parse(path.read_bytes()))
    found = points.mutants(ROOT, path)
    assert len({each.key for each in found}) > 50
    for each in found:
        changed = each.applied(source)
        assert source[each.start : each.end].decode() == each.before
        assert ast.dump(ast.parse(changed)) != plain, each.key


def test_kinds_of_mistakes(points, tmp_path):
    path = tmp_path / "some.py"
    path.write_text(
        '"""Text 1."""\n\nSIZE: int = 3\n\n\ndef f(a: int, b: int = 0) -> int:\n    """Sum 2."""\n    g(a, b, c=1.5)\n'
        '    if not a or b < 1:\n        raise ValueError(f"{a + b}")\n    return max(a, b) + b\n'
    )
    found = [(each.line, each.after, each.at_import) for each in points.mutants(tmp_path, path)]
    assert found == [
        (3, "4", True),
        (6, "1", True),
        (8, "pass", False),
        (8, "g(b, a, c=1.5)", False),
        (8, "g(a, b)", False),
        (8, "3.0", False),
        (9, "(not a and b < 1)", False),
        (9, "(a)", False),
        (9, "(b <= 1)", False),
        (9, "2", False),
        (11, "(max(a, b) - b)", False),
        (11, "min(a, b)", False),
    ]
