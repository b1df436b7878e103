"""Pages that are explored: what they hold, and what they do in a real browser."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from athanor.hardware.errors import InputError
from athanor.reports.content.sections import Section
from athanor.reports.explored.page import orders, page
from athanor.reports.explored.saved import story_of, told
from athanor.reports.explored.stories import runs, studies
from athanor.reports.explored.stories.choices import choice
from athanor.reports.explored.stories.compared import compared
from athanor.reports.explored.stories.timeline import MOST_BARS, timeline
from athanor.reports.explored.story import Chart
from athanor.sim.what_if import Knob, KnobGrid
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pages import Opened, a_browser
from support.toy_runs import made

NASTY = "<script>alert(1)</script></script><!-- a $x^{$ [b] {{ 1 }} \u2028 ' \" &"
STEPS = {"forward": {"compute": 4.0, "all_to_all": 2.0}, "backward": {"compute": 2.0}, "update": {"gradient_sync": 4.0}}
MEMORY = {"parameters": 2e9, "optimizer": 6e9, "total": 8e9, "capacity": 16e9}
CHANGES = [{"change": f"2 x {NASTY}", "step_seconds": 9.0, "gain": 0.25}]


def toy(model="toy", seconds=12.0):
    """A run with everything that a page shows."""
    run = made()
    told = {
        "model": model,
        "step_seconds": seconds,
        "breakdown_by_phase": STEPS,
        "memory_per_rank_bytes": MEMORY,
        "mfu": 0.4,
        "hfu": 0.5,
    }
    told["bottleneck"] = {"level": "nic", "utilisation": 0.8, "exposed_seconds": 2.0, "changes": CHANGES}
    totals = type(run.totals).model_validate({**run.totals.plain(), **told})
    return replace(run, totals=totals, expert_load={"wanted": [1.5, 0.5], "carried": [1.1, 0.9]})


def grid():
    """A step that takes 12 s over the factor of links, and one that cannot be had."""
    axes = (Knob("links", (0.5, 1.0, 2.0)), Knob("jitter", (1.0, 2.0)))
    points = [toy(seconds=12.0 / links * noise).totals for links in axes[0].factors for noise in axes[1].factors]
    return KnobGrid(axes, (*points[:-1], f"refused, {NASTY}"))


def table():
    """A study of nine points, one of which does not fit."""
    rows = [
        {
            "point": 3 * a + b,
            "command": "simulate",
            "machine": "bench",
            "model": NASTY,
            "machine.nodes": 2**a,
            "plan.zero": b,
        }
        | {"status": "ok" if a + b < 4 else "does not fit", "reason": "" if a + b < 4 else f"too large {NASTY}"}
        | (
            {"step_seconds": 8.0 / 2**a + b, "mfu": 0.1 * (a + 1), "breakdown.compute": 1.0, "fits": "yes"}
            if a + b < 4
            else {}
        )
        | {"inputs": json.dumps({"machine": "bench", "plan": {"zero": b}})}
        for a in range(3)
        for b in range(3)
    ]
    return pd.DataFrame(rows)


def whole():
    """A page of a run with sliders, and of a study."""
    run = toy(NASTY)
    return page([runs.story(run.summary(), run, choice(grid())), studies.story(table(), NASTY)], title=NASTY)


# What a page holds


def test_a_page_needs_nothing_else_and_names_do_nothing_in_it():
    text = whole()
    assert len(text.encode()) < 5e6
    scripts = re.findall(r"<script[^>]*>", text)
    assert scripts == ['<script type="application/json" id="data">', "<script>", "<script>"]
    assert "default-src &#39;none&#39;" in text
    assert not re.search(
        r"""(src|href)=["'](?!#|data:,)""",
        text.partition("<main")[0] + text.partition("<main")[2].partition('id="data"')[0],
    )
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert {each["kind"] for each in data.values()} == {"plot", "timeline", "choice", "picked"}


def test_the_answer_stands_first():
    run = toy()
    story = runs.story(run.summary(), run)
    assert [fact.label for fact in story.facts[:4]] == ["Time", "MFU", "Bottleneck", "Memory"]
    assert [fact.value for fact in story.facts[:4]] == ["12 s", "40.0%", "compute", "fits"]
    text = page([story])
    assert (
        text.index('class="facts"')
        < text.index('class="lead"')
        < text.index("<section")
        < text.index("Inputs and their sources")
    )


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1.2 ms", "3 s", "40 us", "2 h"], [0.0012, 3.0, 4e-5, 7200.0]),
        (["3 GB", "512 B", "1.5 MB"], [3e9, 512.0, 1.5e6]),
        (["6.658 B", "1.93 T", "4.98 M"], [6.658e9, 1.93e12, 4.98e6]),
        (["12.5%", "-4.20%", "+3%"], [0.125, -0.042, 0.03]),
        (["2.5 TFLOP/s", "1,024 FLOP/s"], [2.5e12, 1024.0]),
        (["875.1 k/s", "1.371 Mtokens/s", "9 tokens/s"], [875100.0, 1.371e6, 9.0]),
        (["1,024", "", "6.6"], [1024.0, "", 6.6]),
        (["dp=4", "", "mesh"], ["", "", ""]),
        (["1f1b", "3"], ["", ""]),
        (["5 of 9", "2 of 9"], ["", ""]),
    ],
)
def test_cells_are_sorted_by_what_they_say(cells, numbers):
    found = [row[0] for row in orders(Section("", "", ("x",), [(cell,) for cell in cells]))]
    assert [each and pytest.approx(float(each)) for each in found] == numbers


def test_several_results_stand_side_by_side():
    runs_told = [
        replace(runs.story(toy(seconds=seconds).summary()), file=f"{seconds:g}.json") for seconds in (12.0, 6.0)
    ]
    part = compared(runs_told, ["#r1", "#r2"])
    assert part.section.columns[:5] == ("result", "file", "kind", "Time", "MFU")
    assert [row[1:4] for row in part.section.rows] == [
        ("12.json", "a simulated run", "12 s"),
        ("6.json", "a simulated run", "6 s"),
    ]
    assert [row["amount"] for row in part.charts[0].content["rows"]] == [12.0, 6.0]
    assert page(runs_told).index("Side by side") < page(runs_told).index("<article")


def test_a_timeline_of_many_operations_joins_neighbours_and_keeps_their_time():
    row = made().trace[0]
    rows = [row._replace(start=at * 1e-4, end=(at + 1) * 1e-4, operation=f"o{at}") for at in range(20_000)]
    content = timeline(rows).content["columns"]
    assert len(content["start"]) <= MOST_BARS
    assert sum(content["seconds"]) == pytest.approx(2.0, rel=1e-6)
    assert timeline([]) is None


def test_sliders_hold_simulated_points_only():
    content = choice(grid()).content
    assert [axis["at"] for axis in content["axes"]] == [1, 0]
    values = [point["value"] for point in content["points"]]
    assert values == [24.0, 48.0, 12.0, 24.0, 6.0, None]
    assert content["base"] == 2
    found = studies.story(table(), "s").parts[0].charts[0].content
    assert [point["value"] for point in found["points"]][:3] == [8.0, 9.0, 10.0]
    assert found["points"][8]["reason"].startswith("does not fit")
    assert found["points"][found["base"]]["value"] == 2.0
    holes = table().drop(index=4)
    assert studies.story(holes, "s").parts[0].section.title == "Points"  # no grid, no sliders


def test_files_that_hold_no_results_are_refused_in_one_line(tmp_path):
    for name, content in {
        "a.json": "[1]",
        "b.json": "{",
        "c.json": '{"step_seconds": NaN}',
        "d.csv": "a,b\n1,2\n",
        "e.parquet": "x",
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError) as said:
            story_of(tmp_path / name)
        assert "\n" not in str(said.value)
        assert name in str(said.value) or "NaN" in str(said.value)
    with pytest.raises(InputError, match=r"holds no results: none of run\.json"):
        story_of(tmp_path)


def places(plain, path=()):
    """Every path into nested plain data."""
    yield path
    inside = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in inside:
        yield from places(value, (*path, key))


RESULTS = {
    "run": toy().to_plain(),
    "campaign": {
        "machine": "m", "model": "n", "mesh": {"dp": 2}, "nodes": 2, "steps": 9, "tokens": 9.0, "policy": "p", "warnings": ["w"],
        "wall_clock_seconds": {"median": 9.0, "p5": 8.0, "p95": 10.0}, "goodput": 0.9, "mtbf_seconds": 5.0, "ledger_seed": 0,
        "ledger": {"productive": 8.0, "io": 1.0}, "watts": {"productive": 2.0, "io": 1.0}, "mean_watts": 1.0, "interruptions": 2,
        "interruptions_by_component": {"host": 2.0}, "energy_joules": 7.0, "co2_kilograms": 1.0, "cost": 3.0,
        "checkpoint": {"bytes": 1.0, "write_seconds": 1.0, "write_limit": "servers", "save_seconds": 1.0, "load_seconds": 1.0},
        "checkpoint_interval_seconds": dict.fromkeys(("used", "young", "daly_first_order", "daly", "optimum"), 3.0),
        "seeds": [{"seed": 0, "wall_clock_seconds": 9.0, "goodput": 0.9, "interruptions": 2, "energy_joules": 7.0}],
    },
    "training": {
        "model": "n", "machine": "m", "mesh": {"dp": 2}, "ranks": 2, "data": "d", "gate": "g", "balancer": "b", "plan": {"seed": 0},
        "steps": 2, "tokens": 8, "tokens_per_step": 4, "loss": [2.0, 1.0], "entropy": 0.5, "step_seconds": [1.0, 1.0],
        "gradient_norm": [1.0, 1.0], "median_step_seconds": 1.0, "tokens_per_second": 4.0, "warnings": [],
        "load_balance": dict.fromkeys(("wanted_max_over_mean", "max_over_mean", "moved_fraction", "dropped_fraction"), 1.0)
        | {"max_over_mean_by_step": [1.0, 1.0]},
    },
    "scaling": {
        "kind": "weak", "machine": "m", "model": "n", "grow": "data", "options": {},
        "points": [{**toy().summary(), "parameters": {"total": 9}, "nodes": n, "speedup": n, "efficiency": 1.0} for n in (1, 2)],
    },
}  # fmt: skip
ODD = (None, "", "x", NASTY, -1, 0, 1e308, [], {}, [[]], True, ["a"], {"a": None})


@settings(max_examples=80)
@given(st.sampled_from(sorted(RESULTS)), st.data())
def test_whatever_a_file_says_is_a_page_or_one_line(kind, data):
    plain = json.loads(json.dumps(RESULTS[kind]))
    *path, last = data.draw(st.sampled_from([each for each in places(plain) if each]))
    here = plain
    for key in path:
        here = here[key]
    if isinstance(here, dict) and data.draw(st.booleans()):
        del here[last]
    else:
        here[last] = data.draw(st.sampled_from(ODD))
    try:
        page([told(Path("x.json"), json.dumps(plain).encode(), lambda name: None)])
    except InputError as said:
        assert "\n" not in str(said)


def test_these_results_are_pages():
    for plain in RESULTS.values():
        assert told(Path("x.json"), json.dumps(plain).encode(), lambda name: None).facts


# What it does in a browser


@pytest.fixture(scope="module")
def browser():
    with a_browser() as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    target = tmp_path_factory.mktemp("pages") / "page.html"
    target.write_text(whole(), encoding="utf-8")
    return target.as_uri()


@pytest.fixture(scope="module")
def opened(browser, address):
    return Opened(browser, address)


def test_it_opens_without_a_word_and_asks_nobody(opened, address):
    assert opened.said == []
    assert opened.asked == [address]
    assert opened.processor_seconds < 1.0
    assert opened.overflow() <= 0
    assert opened.page.title().startswith("<script>alert(1)")
    assert "<script>alert(1)</script>" in opened.page.locator("h2.title").first.text_content()
    drawn = opened.page.locator(".chart:not(.timeline) svg").count()
    assert drawn >= 9
    opened.keep("explored")


def test_sliders_move_what_is_told(opened):
    slider = opened.page.locator(".choices input").first
    told = opened.page.locator(".found").first
    assert told.inner_text().split("\n")[:2] == ["step", "12 s"]
    slider.focus()
    opened.page.keyboard.press("ArrowRight")
    assert "6 s" in told.inner_text()
    assert "-50.00%" in told.inner_text()
    assert slider.get_attribute("aria-valuetext") == "x2"
    opened.page.locator(".choices input").nth(1).focus()
    opened.page.keyboard.press("End")
    assert "refused, <script>" in opened.page.locator(".choice p[role=status]").first.inner_text()
    opened.page.get_by_role("button", name="As it is").click()
    assert "12 s" in told.inner_text()
    assert opened.said == []


def test_tables_sort_and_filter_what_is_plotted(opened):
    points = opened.page.locator("table", has=opened.page.locator("caption", has_text="Points")).first
    step = points.locator("th", has_text="step")
    step.get_by_role("button").click()
    cells = points.locator("tbody tr td:nth-child(4)")
    values = [text for text in cells.all_inner_texts() if text]
    assert values == sorted(values, key=lambda text: float(text.split()[0]))
    assert step.get_attribute("aria-sort") == "ascending"
    step.get_by_role("button").click()
    assert [text for text in cells.all_inner_texts() if text] == values[::-1]
    before = opened.page.locator(".picked svg path[aria-roledescription=point]").count()
    opened.page.locator("input[type=search]").first.fill("zero=1")
    opened.page.wait_for_function(
        "document.querySelectorAll('.picked svg path[aria-roledescription=point]').length === 3"
    )
    assert before == 8
    assert points.locator("tbody tr:visible").count() == 3
    opened.page.locator("input[type=search]").first.fill("")
    assert opened.said == []


def test_the_timeline_zooms_by_keys_and_by_dragging(opened):
    canvas, told = opened.page.locator(".timeline canvas"), opened.page.locator(".told")
    assert told.inner_text() == "0 s to 12 s of 12 s"
    canvas.focus()
    opened.page.keyboard.press("+")
    assert told.inner_text() == "3 s to 9 s of 12 s"
    opened.page.keyboard.press("ArrowLeft")
    assert told.inner_text() == "1.8 s to 7.8 s of 12 s"
    opened.page.keyboard.press("0")
    box = canvas.bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 12)
    opened.page.mouse.up()
    first, _, last = told.inner_text().split(" of ")[0].partition(" s to ")
    assert 4 < float(first) < 7 < float(last.split()[0]) < 10
    opened.page.keyboard.press("0")
    assert opened.said == []


@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1300, True)])
def test_it_is_legible_on_a_phone_and_in_the_dark(browser, address, width, dark):
    opened = Opened(browser, address, width, dark)
    assert opened.overflow() <= 0
    assert opened.said == []
    paper, ink = opened.page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    light = [sum(map(int, re.findall(r"\d+", text)[:3])) for text in (paper, ink)]
    assert (light[0] < light[1]) == dark
    labels = opened.page.evaluate(
        "[...document.querySelectorAll('.chart svg text')].map(t => parseFloat(getComputedStyle(t).fontSize))"
    )
    assert min(labels) >= 11
    assert opened.page.evaluate(
        "[...document.querySelectorAll('.chart')].every(e => e.scrollWidth <= e.clientWidth + 1)"
    )
    opened.keep("explored")
    opened.page.close()


DARK_PIXELS = """() => {
  const canvas = document.querySelector('.timeline canvas'), {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let dark = 0;
  for (let at = 0; at < data.length; at += 4) dark += data[at + 3] > 200 && data[at] + data[at + 1] + data[at + 2] < 90;
  return dark;
}"""


def test_it_prints_in_dark_on_white_with_all_its_plots(browser, address):
    opened = Opened(browser, address, 1300, dark=True)
    opened.page.emulate_media(media="print", color_scheme="dark")
    letters = opened.page.evaluate(
        "[...document.querySelectorAll('.chart svg text')].map(t => getComputedStyle(t).fill)"
    )
    assert len(letters) > 50
    assert all(sum(map(int, re.findall(r"\d+", text)[:3])) < 300 for text in letters), "dark letters, and nobody waited"
    assert opened.page.evaluate(DARK_PIXELS) > 20
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.page.locator(".filter:visible, .bar:visible").count() == 0
    assert len(opened.page.pdf()) > 20_000
    opened.page.close()


def test_every_plot_says_in_words_what_it_shows(opened):
    charts = opened.page.locator(".chart[id]")
    told = [charts.nth(at).get_attribute("aria-label") for at in range(charts.count())]
    assert all(len(text) > 30 for text in told)
    names = opened.page.evaluate(
        "[...document.querySelectorAll('button, input, select, canvas')].filter(e => !(e.textContent.trim() || e.labels?.length || e.getAttribute('aria-label'))).length"
    )
    assert names == 0


def test_charts_are_data():
    story = runs.story(toy().summary(), toy())
    charts = [chart for part in story.parts for chart in part.charts]
    assert all(isinstance(chart, Chart) and json.dumps(chart.content) for chart in charts)
