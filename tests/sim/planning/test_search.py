"""A search: what it says of plans follows from their figures alone; how it goes on, narrows and falls back."""

import shlex
from collections import Counter

import pytest
from athanor.hardware.errors import DoesNotFit, InputError
from athanor.sim.planning import search as search_module
from athanor.sim.planning.ranking import MEMORY, RankedPlans
from athanor.sim.planning.search import MORE, Search, command, require_some, search, step_seconds
from athanor.sim.planning.simulated_plans import PlayedPlan, play
from athanor.sim.planning.space import Space
from athanor.sim.workers import Here
from support.small_searches import FEW, asked, hosted, ranked, sized

QUESTION = asked(memory=2e6, **FEW)


def played(seconds, **more):
    memory = dict.fromkeys(("parameters", "gradients", "optimizer", "activations", "other"), 1.0)
    return PlayedPlan(
        {
            "step_seconds": seconds,
            "memory_per_rank_bytes": {**memory, "total": 5e5, "capacity": 1e9},
            "breakdown": {"compute": 0.75 * seconds, "optimizer": 0.25 * seconds, "imbalance": 0.0},
            "peak_fraction": 0.4,
            "links": [{"kind": "nic.out", "max_utilisation": 0.3}, {"kind": "port.in", "max_utilisation": 0.2}],
            **more,
        }
    )


def answer(best, done, **found):
    return Search(QUESTION, Space(QUESTION), RankedPlans(best=best, **found), done)


ONE, TWO, THREE, FOUR = (
    ranked(1.0, {"dp": 4}),
    ranked(1.1, {"dp": 4}, zero="0"),
    ranked(1.3, {"dp": 2, "tp": 2}),
    ranked(1.2, {"pp": 2, "dp": 2}),
)

# --- what follows from figures -------------------------------------------------------------------------------------------


def test_plans_that_were_simulated_come_first_by_what_the_engine_says():
    failed = PlayedPlan(None, "cannot be")
    this = answer([ONE, TWO, THREE, FOUR], {0: played(2.0), 1: failed, 2: played(1.5)})
    assert [(each.seconds, done and done.summary and done.summary["step_seconds"]) for each, done in this.plans] == [
        (1.3, 1.5),
        (1.0, 2.0),
        (1.1, None),
        (1.2, None),
    ]
    assert this.errors == pytest.approx([1.3 / 1.5 - 1, 1.0 / 2.0 - 1])
    assert [step_seconds(*pair) for pair in this.plans] == [1.5, 2.0, 1.1, 1.2]
    assert this.margin == pytest.approx(2.0 / 1.5 - 1)
    assert this.margin_to_next_mesh == pytest.approx(1.1 / 1.5 - 1)
    plain = this.plain()
    error = plain["closed_form_error"]
    assert error == {"mean_absolute": pytest.approx((0.5 + 0.2 / 1.5) / 2), "worst": pytest.approx(-0.5)}


def test_equally_fast_plans_come_by_what_they_need():
    large, small = ranked(1.0, {"dp": 4}, 9e5), ranked(1.0, {"tp": 4}, 1e5)
    assert [each for each, _ in answer([large, small], {0: played(1.0), 1: played(1.0)}).plans] == [small, large]


@pytest.mark.parametrize(
    ("best", "by_mesh", "done", "margin", "next_mesh"),
    [
        ([], [], {}, None, None),
        ([ONE], [ONE], {}, None, None),
        ([ONE, TWO], [ONE], {}, 0.1, None),
        ([ONE, TWO], [ONE, THREE, FOUR], {}, 0.1, 0.2),
        ([ONE, THREE], [ONE, FOUR], {1: played(1.25), 0: played(1.0)}, 0.25, 0.2),
        ([ONE, TWO], [ONE, FOUR], {0: played(0.8)}, 1.1 / 0.8 - 1, 0.5),
        ([ONE, FOUR], [ONE, FOUR], {0: played(1.0), 1: played(3.0)}, 2.0, 2.0),
    ],
)
def test_margins_are_to_the_second_best_and_to_the_best_of_another_mesh(best, by_mesh, done, margin, next_mesh):
    this = answer(best, done, by_mesh=by_mesh)
    assert this.margin == (margin if margin is None else pytest.approx(margin))
    assert this.margin_to_next_mesh == (next_mesh if next_mesh is None else pytest.approx(next_mesh))


def test_limits_are_shares_of_the_best_plan_s_step():
    assert answer([], {}).limits() == {}
    assert answer([ONE], {}).limits() == {}
    assert answer([ONE], {0: PlayedPlan(None, "no")}).limits() == {}
    assert answer([ONE, TWO], {0: played(4.0), 1: played(2.0)}).limits() == {
        "breakdown": {"compute": 0.75, "optimizer": 0.25},
        "links": {"nic.out": 0.3, "port.in": 0.2},
        "peak_fraction": 0.4,
        "memory": 5e5 / QUESTION.memory,
    }


def test_a_plan_is_told_with_the_engine_s_figures_where_there_are_some():
    this = answer([ONE, TWO], {0: played(2.0), 1: PlayedPlan(None, "because")}, front=[TWO, FOUR], by_mesh=[ONE])
    plain = this.plain()
    first, second = plain["plans"]
    assert first["mesh"] == {"dp": 4}
    assert first["placement"] == "megatron"
    assert first["options"] == {"micro_batch": 1, "zero": "1", "offload": "none"}
    assert (first["step_seconds"], first["closed_form_seconds"], first["simulated"]) == (2.0, 1.0, True)
    assert first["memory_per_rank_bytes"] == {
        **dict.fromkeys(("parameters", "gradients", "optimizer", "activations", "other"), 1.0),
        "total": 5e5,
        "host": 7.0,
    }
    assert (first["breakdown"]["compute"], first["peak_fraction"], first["reason"]) == (1.5, 0.4, "")
    assert (second["step_seconds"], second["simulated"], second["reason"]) == (1.1, False, "because")
    assert second["breakdown"] is second["peak_fraction"] is None
    assert second["memory_per_rank_bytes"]["parameters"] == TWO.memory["parameters"]
    assert [(each["step_seconds"], each["reason"]) for each in plain["front"]] == [(1.1, "because"), (1.2, "")]
    assert [(each["step_seconds"], each["simulated"]) for each in plain["by_mesh"]] == [(2.0, True)]
    assert plain["sensitivity"] == plain["changes"] == []


def test_an_answer_tells_what_was_asked_and_how_far_it_came():
    counts = Counter({"memory": 2, "heads": 3})
    this = answer([ONE], {}, enumerated=10, judged=6, seconds=0.5, pruned=counts)
    plain = this.plain()
    assert (plain["machine"], plain["model"], plain["ranks"]) == ("cluster-64", "gpt-tiny", 4)
    assert (plain["global_batch"], plain["seq_len"], plain["memory_bytes"]) == (8, QUESTION.model.seq_len, 2e6)
    assert (plain["ranks_per_node"], plain["meshes"], plain["meshes_done"]) == (1, len(Space(QUESTION).meshes), 0)
    assert (plain["enumerated"], plain["ranked"], plain["plans_per_second"], plain["search_seconds"]) == (
        10,
        5,
        12,
        0.5,
    )
    assert list(plain["pruned"].items()) == [("heads", 3), ("memory", 2)]
    assert (plain["interrupted"], plain["narrowed"], plain["left_out"]) == (False, {}, 0)
    assert plain["closed_form_error"] is None
    assert plain["fixed"] == {"global_batch": 8, **FEW}
    empty = answer([], {}).plain()
    assert empty["plans_per_second"] == 0.0
    assert empty["plans"] == []


def test_where_no_plan_is_left_it_says_why():
    require_some(answer([ONE], {}, pruned=Counter({MEMORY: 9})))
    with pytest.raises(
        DoesNotFit, match=r"gpt-tiny on 4 ranks of cluster-64: none of 9 plans fits 0\.0 GB a rank; more"
    ):
        require_some(answer([], {}, enumerated=9, pruned=Counter({MEMORY: 1, "heads": 8})))
    with pytest.raises(DoesNotFit, match=r"the least that was seen needs 3\.5 GB"):
        roomier = [ranked(1.0, {"dp": 4}, 3.5e9)]
        require_some(answer([], {}, enumerated=9, pruned=Counter({MEMORY: 1}), roomier=roomier))
    with pytest.raises(InputError, match=r"none of 10 plans can be: 4 d, 3 c, 2 b$"):
        require_some(answer([], {}, enumerated=10, pruned=Counter({"a": 1, "b": 2, "c": 3, "d": 4})))


# --- the command of a plan -----------------------------------------------------------------------------------------------


def test_a_plan_s_command_says_what_is_not_usual():
    model = sized(plan={"recompute": "full"})
    question = asked(model=model, precision="O1", overlap="none", tensor_overlap=False)
    plan = ranked(1.0, {"dp": 2, "tp": 2}, recompute="none", sequence_parallel=True, offload="optimizer", chunks=None)
    words = shlex.split(command(question, plan))
    assert words[:8] == ["athanor", "simulate", "--machine", "cluster-64", "--model", "gpt-tiny", "--mesh", "dp=2,tp=2"]
    flags = dict(zip(words[8::1], [*words[9:], None], strict=True))
    assert "--sequence-parallel" in words
    assert "--no-tensor-overlap" in words
    assert flags["--precision"] == "O1"
    assert flags["--global-batch"] == "8"
    assert flags["--ranks-per-node"] == "1"
    assert flags["--zero"] == "1"
    assert flags["--offload"] == "optimizer"
    assert flags["--recompute"] == "none", "the default, but not what the model's own plan says"
    assert not {"--chunks", "--overlap"} & set(words)
    said = asked(model=model, said=("run.toml",))
    assert shlex.split(command(said, plan))[2:4] == ["run.toml", "--mesh"]


# --- searching -----------------------------------------------------------------------------------------------------------


def whole(question, **options):
    *_, last = search(question, **options)
    return last


@pytest.fixture(scope="module")
def found():
    """(what was told, how often something was handed on, the answer)."""
    told = []
    every = list(search(asked(**FEW), simulated=3, advance=told.append))
    return told, len(every), every[-1]


def test_a_search_tells_how_far_it_is(found):
    told, handed_on, this = found
    meshes = len(this.space.meshes)
    assert this.done == meshes
    assert not this.interrupted
    assert handed_on == 1 + meshes + 3 + 1
    ranking, simulating = told[:meshes], told[meshes:-1]
    for number, text in enumerate(ranking, 1):
        assert f"({number} of {meshes} meshes, " in text
        assert ", best 0.00" in text
    assert ranking[-1].split("meshes, ")[1].startswith(f"{this.found.enumerated} plans")
    assert [text[:17] for text in simulating] == [f"simulated {n} of 3:" for n in (1, 2, 3)]
    times = sorted(f"{done.summary['step_seconds']:.4g}" for done in this.played.values())
    assert sorted(text.split()[-2] for text in simulating) == times
    assert told[-1] == "what limits the best"


def test_the_best_are_simulated_and_tell_what_would_change_them(found):
    _, _, this = found
    assert sorted(this.played) == [0, 1, 2]
    assert len(this.found.best) == min(3 * MORE, this.found.ranked)
    for place, done in this.played.items():
        each = this.found.best[place]
        assert done.summary["step_seconds"] == play((this.question, each.mesh, each.options)).summary["step_seconds"]
    assert this.changes is not None
    assert this.plain()["sensitivity"]
    assert {row["simulated"] for row in this.plain()["plans"][:3]} == {True}


def test_the_best_of_another_mesh_is_simulated_where_all_others_are_of_one():
    question = asked(**FEW)
    alone = whole(question, simulated=1)
    meshes = [alone.found.best[place].mesh for place in alone.played]
    assert len(meshes) == 2
    assert meshes[0] != meshes[1]
    assert alone.found.best[1] == alone.found.by_mesh[1]
    assert len({str(each) for each in alone.found.best}) == len(alone.found.best), "each plan stands there once"
    single = whole(asked(tries=("tp=1", "pp=1"), **FEW), simulated=2)
    assert len(single.played) == 2
    assert single.margin_to_next_mesh is None
    several = whole(question, simulated=3)
    assert len(several.played) == 3, "two meshes are among them already"


def test_a_best_plan_that_cannot_be_simulated_has_no_limits(monkeypatch):
    monkeypatch.setattr(search_module, "play", lambda job: PlayedPlan(None, "broken"))
    this = whole(asked(**FEW), simulated=1)
    assert this.changes is None
    assert this.limits() == {}
    assert this.plain()["plans"][0]["reason"] == "broken"


def test_meshes_that_are_known_are_not_done_again():
    question, known, keys = asked(**FEW), {}, []
    first = whole(question, simulated=1, on_mesh=lambda key, part, this: known.__setitem__(key, part.plain()))
    again = whole(question, simulated=1, known=known, on_mesh=lambda key, part, this: keys.append(key))
    assert not keys
    assert again.done == first.done == len(known)
    assert again.found.best == first.found.best
    assert again.found.enumerated == first.found.enumerated


def test_nothing_goes_to_the_host_unless_nothing_fits_without():
    machine = hosted()
    few = {**FEW, "zero": "1", "precision": "O2"}
    need = min(plan.total for plan in whole(asked(machine, tries=("tp=1", "pp=1"), **few), simulated=1).found.best)
    room = asked(machine, tries=("tp=1", "pp=1"), memory=need, **few)
    assert {each.options["offload"] for each in whole(room, simulated=1).found.best} == {"none"}
    tight = asked(machine, tries=("tp=1", "pp=1"), memory=0.9 * need, **few)
    told, known, keys = [], {}, []
    this = whole(
        tight, simulated=1, advance=told.append, on_mesh=lambda key, part, _: (keys.append(key), known.update({key: part.plain()}))
    )  # fmt: skip
    assert len(set(keys)) == 2, "meshes with and without a host are known apart"
    away = {each.options["offload"] for each in this.found.best}
    assert away
    assert "none" not in away
    assert away <= set(search_module.OFFLOADS)
    assert this.found.enumerated == 1 + len(search_module.OFFLOADS)
    assert sum(this.found.pruned.values()) + this.found.ranked == this.found.enumerated
    assert [text for text in told if text == "nothing fits without a host: 4 plans that offload"]
    assert whole(tight, simulated=1, known=known, on_mesh=lambda *_: pytest.fail("known")).found.best == this.found.best
    fixed = asked(machine, tries=("tp=1", "pp=1"), memory=0.9 * need, offload="none", **few)
    with pytest.raises(DoesNotFit):
        whole(fixed)
    with pytest.raises(DoesNotFit):
        whole(asked(machine, tries=("tp=1", "pp=1", "offload=none"), memory=0.9 * need, **few))
    with pytest.raises(DoesNotFit):
        whole(asked(tries=("tp=1", "pp=1"), memory=0.9 * need, **few))


def test_experts_go_to_the_host_where_there_are_some(monkeypatch):
    """Which offloads are tried, told by the spaces that are made."""
    seen = []
    monkeypatch.setattr(search_module, "Space", lambda *args: seen.append(args) or Space(*args))
    for model, extra in ((sized(), ()), (sized("moda-tiny"), search_module.OF_EXPERTS)):
        seen.clear()
        next(iter(search(asked(hosted(), model, **FEW))))
        assert [args[1:] for args in seen] == [(), (search_module.OFFLOADS + extra,)]


def test_workers_do_what_can_be_done_at_once():
    class Counting(Here):
        tasks = 0

        def results(self, call, tasks):
            self.tasks += len(tasks)
            for number in reversed(range(len(tasks))):  # in any order
                yield number, call(tasks[number])

    crew = Counting()
    question = asked(**FEW)
    this, alone = whole(question, simulated=3, workers=crew).plain(), whole(question, simulated=3).plain()
    assert crew.tasks > len(Space(question).meshes) + 3
    for plain in (this, alone):
        del plain["search_seconds"], plain["plans_per_second"]
    assert this == alone


@pytest.mark.parametrize(
    ("machine", "tries", "fixed"),
    [
        (hosted(), (), {"offload": "none"}),
        (hosted(), (), {"offload": "optimizer"}),
        (hosted(), ("offload=none,optimizer",), {}),
        ("cluster-64", (), {}),
    ],
)
def test_a_host_is_tried_only_where_there_is_one_and_nothing_was_said(machine, tries, fixed, monkeypatch):
    seen = []
    monkeypatch.setattr(search_module, "Space", lambda *args: seen.append(args) or Space(*args))
    next(iter(search(asked(machine, tries=("tp=1", "pp=1", *tries), **{**FEW, **fixed}))))
    assert [args[1:] for args in seen] == [()]
