"""What is shown and written of comparisons: tables, JSON, CSV, the report, and plots that show what they claim."""

import csv
import io
import json
import re
import subprocess

import athanor
import pytest
from athanor import Run, compare_runs
from athanor.reports.pages.comparison import write_comparison
from athanor.reports.pages.output_folder import Folder
from athanor.reports.plots import comparison as comparison_plots
from athanor.reports.studies.comparison import compare
from athanor.reports.studies.comparison.compare import Comparison
from athanor.reports.studies.comparison.timeline import Bar, Timeline
from support import command_line
from support.drawn import drawn_text, read
from support.paths import ROOT
from support.toy_runs import cli, made, one, pairs_of, saved, times


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A prediction, and what a run of it may look like: other hardware, jitter, three steps."""
    folder = tmp_path_factory.mktemp("runs")
    machine = athanor.load_machine("cluster-64")
    slower = machine.changed({"node.interface_bandwidth": machine.node.interface_bandwidth / 2})
    options = {"mesh": {"ep": 2, "dp": 2}, "router": "zipf:1.0", "balancer": "none", "seed": 1}
    predicted = athanor.simulate(machine, "moda-tiny", **options)
    measured = athanor.simulate(slower, "moda-tiny", jitter=0.1, steps=3, **options)
    # The classes are the most and least loaded of either run; here the same ranks shall be observed.
    classes = dict(zip(measured.classes, predicted.classes.values(), strict=True))
    totals = measured.totals.model_copy(
        update={"measured": {"library": "MPICH 5.0", "hosts": ["n0", "n1"], "load": 0.5}}
    )
    return saved(folder, p=predicted, m=Run(totals, measured.plan, classes, measured.trace, measured.expert_load))


def test_the_command_prints_tables(real, monkeypatch, capsys):
    status, out, error = cli(monkeypatch, capsys, "compare", *real)
    assert (status, error) == (0, "")
    text = " ".join(out.split())
    for word in ("Zero-fit", "note:", "forward", "gradient_sync", "gemm", "all-to-all (linear)", "ep+dp", "supernode"):
        assert word in text
    for word in (
        "steps vary by",
        "operations, by measured time",
        "moe.dispatch",
        "dropped fraction",
        "nic.out",
        "MAPE",
    ):
        assert word in text


def test_json_on_stdout_is_all_there_is_and_every_key_is_explained(real, monkeypatch, capsys):
    status, out, error = cli(monkeypatch, capsys, "compare", *real, *real, "--json", "-")
    assert status == 0
    assert error.splitlines() == ["compare: p 1 done", "compare: p 2 done"]
    plain = json.loads(out)
    assert plain == json.loads(json.dumps(compare_runs(*real, *real).plain()))
    page = (ROOT / "docs" / "formats" / "comparison.md").read_text()

    def keys(value):
        if isinstance(value, dict):
            for key, item in value.items():
                yield key
                yield from keys(item)
        elif isinstance(value, list):
            for item in value:
                yield from keys(item)

    for pair in plain["pairs"]:
        assert pair["measured"].pop("plan")["steps"] == 3, "its keys are those of docs/plan.md"
        assert pair["predicted"].pop("plan")["router"] == "zipf:1.0"
    others = {"ep", "dp", "library", "hosts", "load"} | set(plain["pairs"][0]["load"]["measured"])
    for key in set(keys(plain)) - others:
        side = re.sub(r"^(predicted|measured)_(?=bytes_per|mean|max)", "", key)
        assert f"`{key}`" in page or f"`{side}`" in page, key


def test_what_is_written_of_one_pair(real, tmp_path, monkeypatch, capsys):
    assert cli(monkeypatch, capsys, "compare", *real, "--out", tmp_path / "out")[0] == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    plots = {f"{name}.{kind}" for name in ("timelines", "errors", "operations") for kind in ("svg", "png")}
    assert written == plots | {"comparison.json", "operations.csv", "report.html"}
    pair = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"][0]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "operations.csv").read_text())))
    assert {row["ranks"] for row in rows} == {each["ranks"] for each in pair["matched"]}
    for wanted in pair["operations"]:
        place = (wanted["name"], wanted["ranks"])
        here = [row for row in rows if (row["label"], row["ranks"]) == place]
        assert len(here) == wanted["count"]
        for key in ("predicted_seconds", "measured_seconds"):
            assert sum(float(row[key]) for row in here) == pytest.approx(wanted[key])
    page = read(tmp_path / "out" / "report.html")
    text = " ".join(" ".join(page.text).split())
    assert page.links == [], "the report needs no other file and no network"
    assert page.tags.count("svg") == 3
    for word in (
        "Predicted against measured: moda-tiny on cluster-64",
        "Timelines",
        "athanor compare",
        "MPICH 5.0",
        "zipf:1.0",
    ):
        assert word.lower() in text.lower(), word


def test_what_is_written_of_several_pairs(tmp_path):
    found = compare_runs(*pairs_of((1.0, 2.0), (3.0, 1.0), fitted=[(), ("calibration.gemm_efficiency",)]))
    write_comparison(Folder(tmp_path), found, "athanor compare")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"steps.svg", "timelines_1.png", "timelines_2.png", "errors_2.svg", "report.html"} <= names
    text = " ".join(" ".join(read(tmp_path / "report.html").text).split())
    for word in (
        "zero-fit",
        "pair 2: times",
        "Fitted: the prediction rests on calibration.gemm_efficiency",
        "rank correlation",
    ):
        assert word in text


def test_an_interruption_keeps_the_pairs_that_are_done(tmp_path, monkeypatch, capsys):
    files = saved(tmp_path, p1=made(), m1=made(measured=True), p2=made(), m2=made(measured=True))
    done, real_pair = [], compare.compare_pair

    def interrupted(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(arguments)
        return real_pair(*arguments)

    monkeypatch.setattr(compare, "compare_pair", interrupted)
    status, _, error = cli(monkeypatch, capsys, "compare", *files, "--out", tmp_path / "out")
    assert status == 130
    assert error.splitlines()[-1] == "athanor: interrupted"
    assert [pair["name"] for pair in json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"]] == ["p1"]


def test_the_command_of_the_page_runs_in_a_process_of_its_own(tmp_path):
    tiny = ["--machine", "cluster-64", "--model", "moda-tiny", "-o"]
    for file, more in (("p.json", []), ("m.json", ["--steps", "2", "--jitter", "0.02"])):
        assert command_line.athanor("simulate", *tiny, file, *more, cwd=tmp_path).returncode == 0
    done = subprocess.run(
        [*command_line.ATHANOR, "compare", "p.json", "m.json", "--json", "-"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    step = json.loads(done.stdout)["pairs"][0]["step"]
    assert step["relative_error"] == pytest.approx(step["predicted_seconds"] / step["measured_seconds"] - 1)
    assert step["measured_variation"] > 0


# --- plots ---------------------------------------------------------------------------------------------------------------


def test_timelines_show_both_sides_to_one_scale():
    pair = one(made(), made(times(2.0), measured=True))
    figure = comparison_plots.timelines(pair)
    above, below = figure.axes
    assert above.get_xlim() == below.get_xlim()
    for axes, side, seconds in ((above, "predicted: all ranks alike, step 0, 12 s", 12), (below, "measured: all", 24)):
        assert axes.get_title(loc="left").startswith(side)
        spans = [path.get_extents() for drawn in axes.collections for path in drawn.get_paths()]
        assert sum(span.width for span in spans) == pytest.approx(1e3 * seconds)
        assert max(span.x1 for span in spans) == pytest.approx(1e3 * seconds)
        assert [text.get_text() for text in axes.texts] == ["forward", "backward", "update"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["compute", "communication"]
    assert below.get_xlabel() == "ms from the start of the step"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "compute",
        "all-to-all",
        "gradient-sync",
        "end of the step",
    }


def test_the_step_of_median_length_is_shown():
    pace = [5.0, 1.0, 2.0]
    pair = one(made(), made(lambda name, phase, step, rank: pace[step], steps=3, measured=True))
    assert (pair.timelines[1].step, pair.timelines[1].seconds) == (2, 24.0)
    assert pair.timelines[1].phases == {"forward": 0.0, "backward": 12.0, "update": 16.0}


def test_bars_too_close_to_be_told_apart_are_joined():
    bars = [Bar("compute", "compute", "forward", at, at + 0.9) for at in (0.0, 1.0, 3.0)]
    bars.append(Bar("communication", "all_to_all", "forward", 0.5, 0.6))
    bars.append(Bar("compute", "compute", "backward", 3.95, 5.0))
    found = Timeline("all", 0, 5.0, bars).merged(gap=0.2)
    spans = [(bar.stream, bar.phase, bar.start, bar.end) for bar in found]
    assert spans == [
        ("compute", "forward", 0.0, 1.9),
        ("communication", "forward", 0.5, 0.6),
        ("compute", "forward", 3.0, 3.9),
        ("compute", "backward", 3.95, 5.0),
    ]


def test_points_and_bars_stand_where_the_numbers_are():
    slow = made(
        lambda name, phase, step, rank: (4.0 if phase == "backward" else 1.0) * (1 + 0.1 * step), steps=2, measured=True
    )
    pair = one(made(), slow)
    points = {
        (x, y) for line in comparison_plots.operations(pair).axes[0].get_lines() if line.get_marker() == "o"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }  # fmt: skip
    assert points == {(row.seconds.measured, row.seconds.predicted) for row in pair.operations}
    figure = comparison_plots.errors(pair)
    axes = figure.axes[0]
    rows = [pair.step, *pair.phases, *pair.categories, *pair.groups["kinds"]]
    assert [patch.get_width() for patch in axes.patches[1:]] == pytest.approx([row.relative_error for row in rows])
    whiskers = [path.get_extents() for drawn in axes.collections for path in drawn.get_paths()]
    assert [(each.x0, each.x1) for each in whiskers] == [pytest.approx((-row.variation, row.variation)) for row in rows]
    for word in ("relative error of the prediction", "whiskers", "±10%", "kinds of operation"):
        assert word in drawn_text(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:4] == [
        "step",
        "forward",
        "backward",
        "update",
    ]
    steps = comparison_plots.steps(compare_runs(*pairs_of((1.0, 2.0), (3.0, 1.0), fitted=[(), ("a",)])).pairs)
    for word in ("zero-fit", "fitted", "pair 1", "pair 2", "no error", "measured", "predicted"):
        assert word in drawn_text(steps)


def test_names_of_phases_do_not_overlap():
    pair = one(made(times(0.05)), made(measured=True))
    above, below = comparison_plots.timelines(pair).axes
    assert [text.get_text() for text in above.texts] == ["forward, backward, update"]
    assert [text.get_text() for text in below.texts] == ["forward", "backward", "update"]
    assert len(above.get_lines()) == len(below.get_lines()) == 4, "each phase's begin and the end are marked on both"


def test_a_bar_that_is_cut_says_its_true_error():
    figure = comparison_plots.errors(one(made(times(9.0)), made()))
    assert figure.axes[0].patches[1].get_width() == comparison_plots.MOST_ERROR
    assert "+800.00% (cut)" in drawn_text(figure)


def test_a_comparison_without_pairs_of_a_kind_has_none_of_it():
    assert Comparison([]).plain() == {"pairs": [], "zero_fit": None, "fitted": None}
