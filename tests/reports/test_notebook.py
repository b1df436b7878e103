"""What notebooks show: every result has a card, whatever it is called; its numbers are those of the result; plots draw the run."""

import subprocess
import sys
from html.parser import HTMLParser

import athanor
import pytest
from athanor.hardware.shown import Shown
from athanor.hardware.units import si
from athanor.reports.notebook.html import card, html
from athanor.sim.planning.search import Search
from athanor.sim.planning.search import search as searches
from athanor.workloads.results.training_run import TrainingRun
from support.small_searches import asked

NASTY = "<script>alert('x')</script> & \"quotes\""
VOID = {"br", "img", "meta"}


class Page(HTMLParser):
    """The tags of a page, which have to be closed in order, and its text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.targets = [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [value for name, value in attrs if name in ("src", "href") or name.endswith(":href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def run():
    return athanor.simulate("laptop", "moda-tiny", mesh={"ep": 2, "dp": 2}, router="zipf:1.0", balancer="none")


@pytest.fixture(scope="module")
def shown(run):
    """One of each kind, and a text that its card has to have."""
    machine = athanor.load_machine("cluster-64").model_copy(update={"name": NASTY})
    model = athanor.load_model("moda-tiny").model_copy(update={"name": NASTY, "description": NASTY})
    (*_, search) = searches(asked(), simulated=1)
    told = {
        "tokens_per_step": 8,
        "entropy": 1.0,
        "ranks": 2,
        "mesh": {"dp": 2},
        "data": NASTY,
        "gate": "own",
        "balancer": "none",
    }
    scaled = athanor.scale("strong", machine, model, [16, 32])
    return {
        "machine": (machine, "nodes"),
        "model": (model, "hidden"),
        "plan": (athanor.Plan(mesh="dp=2", zero="1"), "zero 1"),
        "run": (run, si(run.totals.step_seconds, "s")),
        "scaling": (scaled, f"{scaled.points[-1].speedup:.2f}"),
        "search": (search, f"{search.plain()['plans'][0]['step_seconds']:.4g}"),
        "campaign": (athanor.campaign("cluster-64", "moda-tiny", tokens=1e7, seeds=1), "moda-tiny"),
        "training": (TrainingRun(told, [2.0, 1.5], step_seconds=[0.1, 0.1], gradient_norm=[1.0, 1.0]), "1.5000"),
    }  # fmt: skip


def subclasses(kind):
    return {kind, *(found for each in kind.__subclasses__() for found in subclasses(each))}


def test_everything_that_is_shown_has_a_card(shown):
    """Of every class that says so of itself, one was shown below."""
    kinds = {each for each in subclasses(Shown) if each.__module__.startswith("athanor.")} - {Shown}
    assert kinds == {type(each) for each, _ in shown.values()}
    assert {Search, TrainingRun} <= kinds
    with pytest.raises(TypeError, match="nothing shows a int"):
        card(1)


NAMES = ["machine", "model", "plan", "run", "scaling", "search", "campaign", "training"]


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_whole_html_that_says_what_was_found(name, shown):
    what, said = shown[name]
    text = what._repr_html_()
    page = Page(text)
    assert said in page.text
    assert page.tags[0] == "div"
    assert not {"script", "style", "link", "iframe"} & set(page.tags)
    assert all(each.startswith("data:image/png;base64,") for each in page.targets)
    assert NASTY in page.text or NASTY not in repr(what)
    assert html(what) == text


def test_the_card_of_a_run_has_every_category_link_and_warning(run):
    page = Page(run._repr_html_())
    totals = run.summary()
    for category, seconds in totals["breakdown"].items():
        assert (f"{seconds:.4g}" in page.text) or not seconds, category
    for row in totals["links"]:
        assert f"{row['kind']}{row['links']:,}" in page.text
    widths = [float(each.partition("%")[0]) for each in run._repr_html_().split("width:")[2:]]
    assert sum(widths) == pytest.approx(100, abs=0.1)
    warned = run.totals.model_copy(update={"warnings": [NASTY]})
    assert NASTY in Page(type(run)(warned, run.plan, run.classes, run.trace, run.expert_load)._repr_html_()).text


def test_every_plot_is_a_png_as_wide_as_a_cell(run):
    for draw in (run.plot.breakdown, run.plot.timeline, run.plot.links, run.plot.memory, run.plot.expert_load):
        data, told = draw()._repr_png_()
        assert data.startswith(b"\x89PNG")
        assert told["width"] < 600


def test_a_timeline_has_every_operation_of_its_rank(run):
    axes = run.plot.timeline().figure.axes[0]
    first = next(iter(run.classes))
    rows = [row for row in run.trace if row.ranks == first and row.end > row.start]
    spans = [path.get_extents() for bars in axes.collections for path in bars.get_paths()]
    assert [each.get_text() for each in axes.get_yticklabels()] == list(dict.fromkeys(row.stream for row in run.trace))
    for row in rows:
        assert any(span.x0 <= 1e3 * row.start + 1e-6 and 1e3 * row.end <= span.x1 + 1e-6 for span in spans), (
            row.operation
        )
    assert max(span.x1 for span in spans) == pytest.approx(1e3 * max(row.end for row in rows), abs=1e-6)


def test_links_are_drawn_at_their_use(run):
    axes = run.plot.links().figure.axes[0]
    drawn = sorted(bar.get_width() for bar in axes.patches)
    assert drawn == pytest.approx(sorted(row["mean_utilisation"] for row in run.summary()["links"]))


def test_what_cannot_be_drawn_is_refused(run, tmp_path):
    with pytest.raises(athanor.InputError, match=r"no such class of ranks .*did you mean"):
        run.plot.timeline(next(iter(run.classes))[:-1])
    dense = athanor.simulate("laptop", "gpt-tiny", mesh="dp=2")
    with pytest.raises(athanor.InputError, match="has no experts"):
        dense.plot.expert_load()
    drawing = run.plot.links()
    with pytest.raises(athanor.InputError, match=r"must end in \.png"):
        drawing.save(tmp_path / "links.gif")
    with pytest.raises(athanor.InputError, match="cannot be written"):
        drawing.save(tmp_path / "nowhere" / "links.png")
    for kind in ("png", "svg", "pdf"):
        drawing.save(str(tmp_path / f"links.{kind}"))
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".svg", ".pdf"}


def test_showing_a_run_loads_no_plots():
    """And importing the package loads nothing that shows."""
    script = """
import sys
import athanor
assert not [name for name in sys.modules if name.startswith("athanor.reports")]
athanor.simulate("cluster-64", "moda-tiny")._repr_html_()
assert "matplotlib" not in sys.modules and "pandas" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
