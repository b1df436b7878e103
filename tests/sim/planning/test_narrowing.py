"""A search of too many plans keeps to usual values of open choices: never below what fits, and it says what it left out."""

import io
import pickle
from collections import Counter

import pytest
from athanor.cli.commands.plan import plan as plan_command
from athanor.hardware.errors import DoesNotFit, InputError
from athanor.hardware.machine import load_machine
from athanor.reports.pages.plan import narrowing, show_search
from athanor.sim.planning.estimate import Estimator
from athanor.sim.planning.question import Question
from athanor.sim.planning.search import OFFLOADS, search
from athanor.sim.planning.space import MOST, USUAL, Space
from athanor.workloads.model.model import load_model
from rich.console import Console


def question(tries=(), memory=None, model="megatron-1.7b", gpus=4, batch=16, **fixed):
    options = {"global_batch": batch, **fixed}
    return Question.of(load_machine("selene"), load_model(model), options, tries, gpus, memory=memory)


def every_plan(space):
    return Counter(repr((mesh, options)) for mesh in space.meshes for options in space.plans(mesh))


def ranked(asked, **options):
    """The answer when all is ranked and nothing simulated yet."""
    for this in search(asked, **options):
        if this.found.best and this.done == len(this.space.meshes):
            return this
    raise AssertionError("nothing fits")


def least_memory(estimator, space, mesh):
    """Bytes of the plan of a mesh that needs fewest, or None where none is a plan."""
    found = []
    for options in space.plans(mesh):
        try:
            found.append(estimator.memory(estimator.setting(mesh, options)).total)
        except InputError:
            continue
    return min(found, default=None)


LIMIT = 300

EXPERTS = {"tries": ("tp=1,2", "pp=1,4", "ep=1,8", "micro-batch=1,2", "sequence-parallel=on"), "gpus": 16}


@pytest.mark.parametrize("asked", [question(), question(model="mixtral-8x7b", **EXPERTS)], ids=["dense", "experts"])
def test_what_needs_the_least_memory_is_kept_on_every_mesh(asked):
    whole, estimator = Space(asked), Estimator(asked)
    narrow = whole.narrowed(1)
    assert 3 * narrow.size < whole.size
    for mesh in whole.meshes:
        assert least_memory(estimator, narrow, mesh) == least_memory(estimator, whole, mesh), mesh


@pytest.mark.parametrize("most", [10_000, 1500, 1000, 500, 200, 1])
def test_as_few_choices_are_narrowed_as_it_takes(most):
    whole = Space(question())
    narrow = whole.narrowed(most)
    given = narrow.question.narrowed
    assert narrow.meshes == whole.meshes
    assert not every_plan(narrow) - every_plan(whole)  # nothing that was not there
    if whole.size <= most:
        assert narrow is whole
        return
    assert given
    if narrow.size > most:  # all is narrowed that can be
        assert narrow.size == whole.narrowed(0).size
    last = list(given)[-1]
    before = dict(USUAL[: USUAL.index((last, given[last]))])
    assert before.keys() >= given.keys() - {last}
    assert Space(whole.question.changed(narrowed=before)).size > most  # one less would not do


def test_what_is_fixed_or_tried_stays():
    asked = question(("micro-batch=1,16", "zero=0"), recompute="selective")
    narrow = Space(asked).narrowed(1)
    seen = [options for mesh in narrow.meshes for options in narrow.plans(mesh)]
    assert {options["micro_batch"] for options in seen} == {1, 16}
    assert {options["zero"] for options in seen} == {"0"}
    assert {options["recompute"] for options in seen} == {"selective"}
    assert {options["pipeline"] for options in seen} == {"1f1b", "interleaved"}
    assert set(narrow.question.narrowed) == {"pipeline", "chunks", "overlap"}


def test_a_choice_that_has_none_of_the_usual_values_keeps_its_own():
    """27 layers on 3 stages: chunks of 3 and 9 only."""
    model = load_model("megatron-1.7b").model_copy(update={"layers": 27})
    asked = Question.of(load_machine("selene"), model, {"global_batch": 12}, ("pp=3", "pipeline=interleaved"), 3)
    assert {options["chunks"] for options in Space(asked).narrowed(1).plans({"pp": 3})} == {3, 9}


@pytest.fixture(scope="module")
def narrowed():
    """An answer that was narrowed, and its question."""
    asked = question(("tp=1,2",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("athanor.sim.planning.search.MOST", LIMIT)
        yield asked, ranked(asked)


def test_counts_and_values_are_in_the_answer(narrowed):
    asked, answer = narrowed
    plain = answer.plain()
    whole = Space(asked)
    assert 0 < plain["enumerated"] <= LIMIT
    assert plain["enumerated"] + plain["left_out"] == whole.size
    assert sum(plain["pruned"].values()) + plain["ranked"] == plain["enumerated"]
    assert plain["narrowed"] == {key: list(values) for key, values in whole.narrowed(LIMIT).question.narrowed.items()}
    assert plain["plans"][0]["options"]["micro_batch"] in plain["narrowed"]["micro_batch"]


def test_a_limit_searches_all_and_says_nothing_of_it(narrowed):
    asked, _ = narrowed
    few = asked.changed(axes={"tp": (1,), "pp": (1, 2)})
    size = Space(few).size
    assert size > LIMIT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("athanor.sim.planning.search.MOST", LIMIT)
        plain = ranked(few, limit=size).plain()
    assert (plain["narrowed"], plain["left_out"], plain["enumerated"]) == ({}, 0, size)


def test_the_message_names_what_was_kept_and_how_many_were_left_out(narrowed):
    plain = narrowed[1].plain()
    text = narrowing(plain)
    assert f"{plain['left_out']:,} others were not" in text
    for key, values in plain["narrowed"].items():
        assert f"{key.replace('_', '-')} {', '.join(map(str, values))}" in text
    out = io.StringIO()
    show_search(Console(file=out, width=1000), plain)
    assert text in out.getvalue()
    out = io.StringIO()
    show_search(Console(file=out, width=1000), {**plain, "narrowed": {}, "left_out": 0})
    assert "too many plans" not in out.getvalue()


class Elsewhere:
    """Workers to which tasks are sent, as to other processes and ranks of a job."""

    def results(self, call, tasks):
        for number, task in enumerate(tasks):
            here, there = pickle.loads(pickle.dumps((call, task)))
            yield number, here(there)


def test_other_processes_search_the_same_plans(narrowed, monkeypatch):
    asked, answer = narrowed
    monkeypatch.setattr("athanor.sim.planning.search.MOST", LIMIT)
    there, here = ranked(asked, workers=Elsewhere()).plain(), answer.plain()
    for plain in (there, here):
        del plain["search_seconds"], plain["plans_per_second"]
    assert there == here


def test_a_narrowed_search_goes_on_with_what_it_had_and_with_no_other(narrowed, monkeypatch):
    asked, answer = narrowed
    known = {}

    def finished(key, part, this):
        known[key] = part.plain()

    for this in search(asked, limit=10**6, on_mesh=finished):
        if this.done == 2:
            break
    monkeypatch.setattr("athanor.sim.planning.search.MOST", LIMIT)
    again = []
    for this in search(asked, known=known, on_mesh=finished):
        again.append(this.done)
        if this.done == 2:
            break
    assert again[0] == 0  # the whole search's meshes are none of this one's
    assert len(known) == 2 + 2
    whole = ranked(asked, known=known)
    assert whole.found.pruned == answer.found.pruned
    assert whole.found.front == answer.found.front
    assert whole.left_out == answer.left_out


def test_what_goes_to_the_host_is_narrowed_too_and_counted(monkeypatch):
    monkeypatch.setattr("athanor.sim.planning.search.MOST", 60)
    asked = question(("tp=1", "pp=1", "recompute=full"), memory=16e9, gpus=2)
    plain = ranked(asked).plain()
    assert plain["plans"][0]["options"]["offload"] != "none"
    sizes = Space(asked).size + Space(asked, OFFLOADS).size
    assert plain["enumerated"] + plain["left_out"] == sizes
    assert plain["left_out"] > 0


def test_where_nothing_fits_it_says_that_not_all_was_searched(monkeypatch):
    monkeypatch.setattr("athanor.sim.planning.search.MOST", 60)
    asked = question(("tp=1", "pp=1", "recompute=full"), memory=1e9, gpus=2)
    with pytest.raises(DoesNotFit, match=r"; [\d,]+ plans were not searched, a larger --limit does"):
        ranked(asked)


def test_the_command_says_above_how_many_plans():
    (limit,) = [each for each in plan_command.params if each.name == "limit"]
    assert f"{MOST:,}" in limit.help


def test_deepseek_v3_on_2048_gpus_is_narrowed_to_some_minutes():
    asked = question(model="deepseek-v3", gpus=2048, batch=15360)
    whole = Space(asked)
    assert whole.size > 4_000_000
    assert MOST / 5 < whole.narrowed(MOST).size <= MOST
