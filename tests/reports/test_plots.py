"""Laws of all plots: names as they stand, plain ticks, labels with units, letters that can be read at 400 pixels."""

import re
from functools import lru_cache, partial
from types import SimpleNamespace

import athanor
import pytest
from athanor.reports.content.figures import Bars, Beside, ClaimErrors, Series, StepsByCategory
from athanor.reports.plots import collectives, comparison, plans, runs, scaling
from athanor.reports.plots.accelerator import predicted_against_measured
from athanor.reports.plots.draw import as_png, as_svg, draw, printable
from athanor.reports.plots.runtime_validation import errors_of_cells
from athanor.reports.plots.style import SMALL, WIDTH
from athanor.reports.studies.runtime_validation import EXPERTS
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from support.toy_runs import made, one, times

NASTY = "a $x^{$ \\frac{ [bold] <b>&\"' :smile: %s {0} _\x07"
NARROW = 368
"""Pixels that a figure has on a page of 400."""


@lru_cache
def summary():
    return athanor.simulate("laptop", "moda-tiny", mesh={"ep": 2, "dp": 2}).summary()


@lru_cache
def study(kind):
    return athanor.scale(kind, "cluster-64", "moda-tiny", [8, 16, 32])


def named(study, name):
    """The study, its model and machine called otherwise."""
    model = study.model.model_copy(update={"name": name})
    machine = study.machine.model_copy(update={"name": name})
    return SimpleNamespace(kind=study.kind, grow=study.grow, points=study.points, model=model, machine=machine)


def searched(name):
    plan = {"memory_per_rank_bytes": {"total": 6e10}, "step_seconds": 0.9951}
    other = {"memory_per_rank_bytes": {"total": 4e10}, "step_seconds": 0.9953}
    part = {"part": name, "gain": 0.00995}
    return {"plans": [plan, other], "by_mesh": [], "front": [plan, other], "memory_bytes": 8e10, "model": name,
            "machine": name, "ranks": 64, "sensitivity": [part]}  # fmt: skip


def renamed(name):
    pair = one(made(times(1.1)), made(measured=True))
    return type(pair)(**{**vars(pair), "name": name})


def cells(name):
    step = SimpleNamespace(variation=0.01, relative_error=0.05)
    cell = SimpleNamespace(tree=SimpleNamespace(name=name), placement=name, balancer="none", skew=0.5, plan=EXPERTS)
    pair = SimpleNamespace(step=step)
    return [SimpleNamespace(cell=cell, nominal=pair, calibrated=pair)]


MAKERS = {
    "strong": lambda name: scaling.scaling(named(study("strong"), name), 3.0, name),
    "weak": lambda name: scaling.scaling(named(study("weak"), name), 1e13, name),
    "breakdown": lambda name: runs.breakdown({name: summary(), "b": summary()}, name),
    "breakdown of many": lambda name: runs.breakdown({f"{name}{n}": summary() for n in range(9)}, "nodes"),
    "steps": lambda name: draw(StepsByCategory({name: summary(), "b": summary()}, name, "placement", 1.6, name)),
    "load": lambda name: runs.expert_load({name: {"wanted": [1.005, 0.995], "carried": [1.0, 1.0]}}),
    "memory": lambda name: runs.memory({name: summary()["memory_per_rank_bytes"]}, name),
    "sizes": lambda name: collectives.times_by_size({name: [(4096, 0.995e-3), (65536, 0.997e-3)]}, name, name),
    "best": lambda name: collectives.best_by_size({(4, 1024.0): name, (8, 1024.0): "b"}, [name, "b"], name, name),
    "algorithms": lambda name: collectives.algorithm_times({name: 0.9951, "b": 0.9953}, 0.9, name),
    "bars beside": lambda name: draw(Beside({name: (0.995, 0.996)}, name, name)),
    "dots beside": lambda name: draw(Beside({f"{name}{n}": (0.995, 0.996) for n in range(8)}, name, name)),
    "series": lambda name: draw(Series({name: [(1, 0.995), (8, 0.996)]}, name, name, name)),
    "linear series": lambda name: draw(Series({name: [(1, 995e6), (8, 996e6)]}, name, name, name, False)),
    "bars": lambda name: draw(Bars({name: 995e6}, name, name, name, (996e6, name))),
    "claims": lambda name: draw(ClaimErrors({"fitted": [0.01, -0.3]}, {"fitted": name})),
    "front": lambda name: plans.front(searched(name)),
    "sensitivity": lambda name: plans.sensitivity(searched(name)),
    "timelines": lambda name: comparison.timelines(renamed(name)),
    "operations": lambda name: comparison.operations(renamed(name)),
    "errors": lambda name: comparison.errors(renamed(name)),
    "configurations": lambda name: comparison.steps([renamed(name), renamed("b")]),
    "cells": lambda name: errors_of_cells(cells(name)),
    "accelerator": lambda name: predicted_against_measured({name: [(0.995, 0.996, False), (1.0, 1.1, True)]}),
}


def texts(figure):
    return [each for each in figure.findobj(Text) if each.get_visible() and each.get_text()]


@pytest.mark.parametrize("what", MAKERS)
def test_names_stand_as_they_are(what):
    """No name begins a formula; what cannot be printed is named; and the figure can be drawn both ways."""
    figure = MAKERS[what](NASTY)
    assert "<svg" in as_svg(figure)
    assert as_png(figure).startswith(b"\x89PNG")
    assert not any(each.get_parse_math() for each in texts(figure))
    drawn = re.sub(r"\s", "", "".join(each.get_text() for each in texts(figure)))
    assert not re.search("[\x00-\x1f]", drawn)


@pytest.mark.parametrize("what", MAKERS)
def test_ticks_are_plain_axes_labelled_and_letters_legible(what):
    figure = MAKERS[what]("name")
    as_svg(figure)  # lays it out
    assert figure.get_size_inches()[0] == WIDTH
    shrunk = NARROW / (96 * WIDTH)
    for each in texts(figure):
        assert each.get_fontsize() >= SMALL
        assert each.get_fontsize() * 96 / 72 * shrunk >= 7.8, f"{each.get_text()} is too small at 400 pixels"
    for axes in figure.axes:
        lowest = axes is figure.axes[-1] or not axes.get_shared_x_axes().joined(axes, figure.axes[-1])
        assert axes.get_title(loc="left")
        assert axes.get_ylabel()
        assert axes.get_xlabel() or not lowest
        for axis in (axes.xaxis, axes.yaxis):
            ticks = [each.get_text() for each in axis.get_ticklabels() if each.get_text()]
            assert ticks or (axis is axes.xaxis and not lowest)
            for tick in ticks:
                assert not re.search(r"\$|\\|×|\de[+-]?\d|0{4}\d|9{5}", tick), tick
            assert axis.get_offset_text().get_text() == ""


@pytest.mark.parametrize("what", MAKERS)
def test_nothing_is_cut_off(what):
    """All texts lie within the figure, a hair's breadth aside."""
    figure = MAKERS[what]("moda-14.5t")
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    for each in texts(figure):
        box = each.get_window_extent()
        inside = box.x0 >= -2 and box.y0 >= -2 and box.x1 <= width + 2 and box.y1 <= height + 2
        assert inside or not each.get_in_layout() or _of_no_tick(each, figure), each.get_text()


def _of_no_tick(text, figure):
    """Whether a text is the label of a tick beyond its axis's ends, which is not drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if text in (tick.label1, tick.label2):
                    return not low <= tick.get_loc() <= high
    return False


@settings(max_examples=15, deadline=None)
@given(name=st.text(min_size=1, max_size=30))
def test_any_name_can_be_drawn(name):
    figure = Figure(figsize=(2, 2))
    axes = figure.add_subplot(title=name, xlabel=name)
    axes.set_xticks([0.2, 0.5], [name, "b"])
    axes.plot([0, 1], [0, 1], label=name)
    figure.legend(handles=axes.get_lines())
    as_svg(figure).encode()
    as_png(figure)
    assert printable(printable(name)) == printable(name)
    assert draw(Bars({name: 1.0}, name, name, name))


def test_the_same_name_gives_the_same_file():
    first, second = (as_svg(partial(MAKERS["bars"], NASTY)()) for _ in range(2))
    assert first == second
