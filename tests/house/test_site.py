"""The site of the documentation, without building it: every public name and notebook has its page, and links lead to them.

``make docs`` builds it, where each warning is an error.
"""

import re
from types import SimpleNamespace

import pytest
from support.paths import ROOT
from support.scripts import script


@pytest.fixture(scope="module")
def pages():
    pytest.importorskip("mkdocs", reason="MkDocs is not installed (extra docs)")
    return script("docs/site_pages.py")


def test_every_public_name_stands_on_one_page(pages):
    import athanor

    made = pages.api_pages()
    found = re.findall(r"heading: athanor\.(\w+)", "".join(made.values()))
    assert sorted(found) == sorted({*athanor.__all__} - {"__version__"})
    for path in re.findall(r"^::: (\S+)$", "".join(made.values()), re.MULTILINE):
        assert path.startswith("athanor.")
    assert "athanor.InputError" in made["api/errors.md"]
    assert "athanor.read_hf" in made["api/import.md"]
    assert "athanor.simulate" in made["api/run.md"]


def test_navigation_has_every_page_of_docs(pages):
    named = {page for section in pages.navigation() for each in section.values() for page in each}
    docs = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert docs <= named
    assert {f"notebooks/{path.stem}.md" for path in ROOT.glob("docs/notebooks/*.ipynb")} <= named
    assert {*pages.HOMES} <= named


def test_links_lead_to_where_things_are_in_the_site(pages):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="howto/example.md"))
    text = (
        "[a](../formats/json.md#x) [b](../../README.md) [c](../../examples/run.toml) [d](../../examples) "
        "[e](../notebooks/first-walk.ipynb) [f](https://example.org/a.md) [g](#here)\n```\n[h](../../README.md)\n```\n"
    )
    made = pages.on_page_markdown(text, page, None, None)
    assert re.findall(r"\]\(([^)]*)\)", made) == [
        "../formats/json.md#x",
        "../index.md",
        "../repository/examples/run.toml",
        "../repository/examples/index.md",
        "../notebooks/first-walk.md",
        "https://example.org/a.md",
        "#here",
        "../../README.md",
    ]


def test_a_notebook_is_a_page_with_what_its_cells_show(pages):
    text = pages.of_notebook(ROOT / "docs" / "notebooks" / "first-walk.ipynb")
    assert text.startswith("# A first walk")
    assert "```python\nimport athanor" in text
    assert text.count('<img alt="') >= 3
    assert "<table" in text and "<style" not in text
