"""What would change the best plan's step: each part of the machine against the engine on that machine, each choice likewise."""

import pytest
from athanor.hardware.machine import load_machine
from athanor.sim.planning import sensitivity
from athanor.sim.planning.estimate import Estimator
from athanor.sim.planning.ranking import Ranked
from athanor.sim.planning.sensitivity import CHECKED, changes
from athanor.sim.planning.simulated_plans import (
    PlayedPlan,
    faster_links,
    faster_machine,
    faster_parts,
    levels_used,
    options_of,
    play,
)
from athanor.sim.simulate import simulate
from athanor.sim.workers import Here
from athanor.workloads.collectives import ALGORITHMS
from athanor.workloads.model.precision import POLICIES
from athanor.workloads.pipelines import PIPELINES
from athanor.workloads.pipelines.stage_layers import nearly_even
from support.small_searches import FEW, asked, hosted, sized

USUAL = {"placement": "megatron", "micro_batch": 1, "zero": "1", "recompute": "none", "offload": "none", "overlap": "none",
         "tensor": "1d", "expert_tensor": "split", "attention": "unfused", "sequence_parallel": False,
         "pipeline": "1f1b", "chunks": 1}  # fmt: skip


def best_of(question, mesh, **options):
    """A plan with the estimator's figures, and what the engine says of it."""
    options = {**USUAL, **options}
    found = Estimator(question).estimate(mesh, options)
    plan = Ranked(mesh, options, found.seconds, {**found.memory.table(), "host": found.memory.host})
    return plan, play((question, mesh, options)).summary


# --- parts of the machine ------------------------------------------------------------------------------------------------


def value_at(machine, key):
    found = machine
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


@pytest.mark.parametrize("machine", ["cluster-64", "selene", "sunway-oceanlight"])
@pytest.mark.parametrize("offloads", [False, True])
def test_parts_of_a_machine_are_twice_as_good(machine, offloads):
    """Rates are doubled, overheads are halved; the host counts where something goes there, and where there is one."""
    for here, host in ((load_machine(machine), False), (hosted(machine), True)):
        found = faster_parts(here, offloads)
        names = {"peak", "memory bandwidth", "message overhead", "start of operators"}
        if here.core_group.launch:
            names.add("start of kernels by the host")
        host_known = offloads and (host or here.node.host_link)
        assert set(found) == names | ({"host link", "host memory bandwidth"} if host_known else set())
        peaks = {key for key in found["peak"] if not key.startswith("core_group.attention.")}
        assert peaks == {f"core_group.peak.{name}" for name in here.core_group.peak}
        assert (peaks != set(found["peak"])) == bool(here.core_group.attention), "kernels of attention compute, too"
        for part, settings in found.items():
            factor = 0.5 if part in ("message overhead", "start of operators", "start of kernels by the host") else 2
            for key, value in settings.items():
                assert value == factor * value_at(here, key)
        keys = [key for settings in found.values() for key in settings]
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("beside", [{"host_link": None}, {"host_memory_bandwidth": None}])
def test_a_host_that_is_not_known_whole_is_no_part(beside):
    machine = hosted()
    node = machine.node.model_copy(update=beside)
    assert "host link" not in faster_parts(machine.model_copy(update={"node": node}), True)


@pytest.mark.parametrize("machine", ["cluster-64", "fugaku"])
def test_links_of_a_class_are_faster_and_slower(machine):
    """Of fabrics on which messages are followed by level and by route alike."""
    question = asked(machine, sized(vocabulary=65536), gpus=4, **FEW)
    best, summary = best_of(question, {"dp": 4}, **FEW)
    classes, step = levels_used(summary), summary["step_seconds"]
    job = (question, best.mesh, best.options, summary["network"]["depth"])
    assert faster_links((*job, "no such link", 0.1)) == pytest.approx(step, rel=1e-12)
    slower = [faster_links((*job, each, 0.5)) for each in classes]
    assert min(slower) > step * (1 - 1e-12)
    assert max(slower) > 1.001 * step
    if machine == "cluster-64":
        fast = question.machine.changed({"node.interface_bandwidth": 2 * question.machine.node.interface_bandwidth})
        true = simulate(fast, question.model, **options_of(question, best.mesh, best.options)).summary()
        assert faster_links((*job, "nic", 2.0)) == pytest.approx(true["step_seconds"], rel=1e-12)
        assert true["step_seconds"] < 0.999 * step


def test_kinds_of_links_are_classes_without_directions():
    rows = [{"kind": kind, "level": kind[:-4].rstrip(".")} for kind in ("port.out", "nic.out", "port.out", "nic.out")]
    assert levels_used({"links": rows}) == ["port", "nic"]


def test_what_cannot_be_played_says_so():
    question = asked(**FEW)
    wrong = (question, {"tp": 3}, {**USUAL, **FEW})
    assert faster_links((*wrong, "links", "nic", 2.0)) is None
    assert faster_machine((*wrong, {})) is None
    assert play(wrong).summary is None
    assert play(wrong).reason
    assert play((question, {"dp": 4}, {**USUAL, **FEW})).reason == ""


def test_a_plan_s_options_are_the_question_s_and_its_own():
    question = asked(model=sized(plan={"seq_len": 32, "precision": "O1"}), precision="O3")
    found = options_of(question, {"dp": 4}, {"zero": "3", "micro_batch": None})
    assert found["mesh"] == {"dp": 4}
    assert (found["precision"], found["seq_len"], found["zero"], found["global_batch"]) == ("O3", 32, "3", 8)
    assert None not in found.values()
    assert "micro_batch" not in found


def test_each_part_of_the_machine_has_the_step_of_a_machine_where_it_is_twice_as_good():
    question = asked(hosted(), memory=1e9, tries=(), **{**FEW, "offload": "optimizer"})
    best, summary = best_of(question, {"dp": 4}, offload="optimizer", **FEW)
    step, found = summary["step_seconds"], changes(question, best, summary, [], Here()).machine
    parts = faster_parts(question.machine, True)
    links = {f"{name} bandwidth" for name in levels_used(summary)}
    assert {each.part for each in found} == set(parts) | links
    for each in found:
        if each.part in parts:
            there = play(
                (question.changed(machine=question.machine.changed(parts[each.part])), best.mesh, best.options)
            )
            assert each.seconds == there.summary["step_seconds"]
        else:
            name = each.part.removesuffix(" bandwidth")
            job = (question, best.mesh, best.options, summary["network"]["depth"], name, 2.0)
            assert each.seconds == faster_links(job)
        assert each.gain == 1 - each.seconds / step
        assert each.note == ""
    gains = [each.gain for each in found]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0.1
    assert any(each.part == "host link" and each.gain > 0 for each in found)


class Idle:
    """Workers that do nothing, as those that hand everything on to others would."""

    def results(self, call, tasks):
        return iter(())


def test_more_memory_gives_the_fastest_plan_that_it_has_room_for():
    """Played on a machine with twice the memory; no plan there is slower than the best one here."""
    question = asked(memory=1e6, **FEW)
    best, summary = best_of(question, {"dp": 2, "tp": 2}, **FEW)
    faster, _ = best_of(question, {"dp": 4}, **FEW)
    step = summary["step_seconds"]

    def memory(roomier):
        return sensitivity._of_machine(question, best, summary, roomier, step, Idle())

    assert memory([]) == []
    (same,) = memory([Ranked(faster.mesh, faster.options, faster.seconds, {**faster.memory, "total": 1e6})])
    assert (same.seconds, same.gain, same.note) == (step, 0.0, "the best plan stays the best")
    (other,) = memory([Ranked(faster.mesh, {**faster.options, "zero": "0"}, 9.0, {**faster.memory, "total": 1e6 + 1})])
    true = play((question, faster.mesh, {**faster.options, "zero": "0"})).summary["step_seconds"]
    assert true < step
    assert other.seconds == pytest.approx(true, rel=1e-12)
    assert other.gain == pytest.approx(1 - true / step)
    assert other.note == "dp=4 zero 0"
    for seconds, expected in ((0.5 * step, 0.5 * step), (2 * step, step)):  # cannot be played
        (unknown,) = memory([Ranked({"tp": 3}, best.options, seconds, {**best.memory, "total": 2e6})])
        assert unknown.seconds == pytest.approx(expected)
        assert unknown.note == "tp=3"
    (slower,) = memory([Ranked(best.mesh, {**best.options, "zero": "3"}, 0.0, {**best.memory, "total": 2e6})])
    assert slower.seconds <= step
    assert slower.gain >= 0


def test_more_memory_is_room_for_what_did_not_fit():
    """A plan that needs more than the machine has is played where it has twice as much."""
    question = asked(**FEW)
    best, summary = best_of(question, {"dp": 2, "tp": 2}, **FEW)
    faster, _ = best_of(question, {"dp": 4}, **FEW)
    small = question.changed(
        machine=question.machine.changed({"core_group.memory": 0.6 * faster.total}), memory=0.6 * faster.total
    )
    (found,) = sensitivity._of_machine(small, best, summary, [faster], summary["step_seconds"], Idle())
    assert found.part == "memory"
    assert found.seconds == pytest.approx(play((question, faster.mesh, faster.options)).summary["step_seconds"])


# --- choices -------------------------------------------------------------------------------------------------------------


def others(question, best):
    """{option: other values}, as they are looked at."""
    found = {}
    for option, before, after in sensitivity._alternatives(question, best):
        assert before == best.options.get(option, getattr(question.plan, option))
        assert after != before
        found.setdefault(option, []).append(after)
    return found


ALWAYS = {"attention", "micro_batch", "recompute", "recompute_layers", "zero", "overlap", "precision"}


@pytest.mark.parametrize(
    ("mesh", "options", "more"),
    [
        ({"dp": 4}, {}, set()),
        ({"dp": 4}, {"micro_batch": None}, {"-micro_batch"}),
        ({"dp": 2, "tp": 2}, {}, {"tensor", "sequence_parallel"}),
        ({"dp": 2, "pp": 2}, {}, {"pipeline"}),
        ({"dp": 2, "pp": 2}, {"pipeline": "interleaved", "chunks": 2}, {"pipeline"}),
    ],
)  # fmt: skip
def test_choices_that_say_something_are_made_otherwise(mesh, options, more):
    question = asked(tries=())
    best = Ranked(mesh, {**USUAL, **options}, 1.0, {"total": 1.0})
    expected = ALWAYS | {name for name in more if name[0] != "-"}
    found = others(question, best)
    if "-micro_batch" in more:
        assert set(found) - {"micro_batch"} == expected - {"micro_batch"}
    else:
        assert set(found) == expected
    assert set(found["precision"]) == set(POLICIES) - {question.plan.precision}
    assert "hierarchical" not in found["zero"], "the same as 1 where there are no supernodes to speak of"


@pytest.mark.parametrize(("size", "tried"), [(1, [2]), (2, [1, 4]), (8, [4, 16])])
def test_micro_batches_are_halved_and_doubled(size, tried):
    best = Ranked({"dp": 4}, {**USUAL, "micro_batch": size}, 1.0, {"total": 1.0})
    assert others(asked(tries=()), best)["micro_batch"] == tried


@pytest.mark.parametrize(
    ("layers", "way", "chunks", "tried"),
    [
        (8, "even", 2, [4]),
        (8, "even", 4, [2]),
        (12, "even", 2, [3, 6]),
        (10, "ends", 2, [3, 6]),
        (6, "ends", 3, [2, 4]),
    ],
)
def test_chunks_share_a_stage_s_layers(layers, way, chunks, tried):
    question = asked(model=sized(layers=layers), tries=())
    options = {**USUAL, "pipeline": "interleaved", "chunks": chunks, "stage_layers": way}
    best = Ranked({"dp": 2, "pp": 2}, options, 1.0, {"total": 1.0})
    assert others(question, best)["chunks"] == tried


def test_layers_of_stages_are_the_question_s_where_the_plan_names_none():
    question = asked(model=sized(layers=10), tries=(), stage_layers="ends")
    options = {**USUAL, "pipeline": "interleaved", "chunks": 2}
    assert others(question, Ranked({"dp": 2, "pp": 2}, options, 1.0, {"total": 1.0}))["chunks"] == [3, 6]


@pytest.mark.parametrize(("ep", "tp"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_exchanges_and_balancers_are_choices_where_experts_are_spread(ep, tp):
    question = asked(model=sized("moda-tiny"), tries=())
    mesh = {axis: size for axis, size in (("ep", ep), ("tp", tp)) if size > 1} or {"dp": 1}
    found = others(question, Ranked(mesh, dict(USUAL), 1.0, {"total": 1.0}))
    assert ("all_to_all" in found) == ("balancer" in found) == (ep > 1)
    assert ("expert_tensor" in found) == (ep > 1 and tp > 1)
    assert ("tensor" in found) == (tp > 1)
    if ep > 1:
        assert {question.plan.all_to_all, *found["all_to_all"]} == set(ALGORITHMS["all-to-all"])


@pytest.mark.parametrize("zero", ["1", "hierarchical"])
def test_sharding_in_levels_and_without_are_not_told_apart(zero):
    found = others(asked(tries=()), Ranked({"dp": 4}, {**USUAL, "zero": zero}, 1.0, {"total": 1.0}))
    assert not {"1", "hierarchical"} & set(found["zero"])
    usual = others(asked(tries=()), Ranked({"dp": 4}, {**USUAL, "zero": "0"}, 1.0, {"total": 1.0}))
    assert "1" in usual["zero"]


@pytest.mark.parametrize(
    ("layers", "mesh", "options"),
    [
        (4, {"dp": 4}, {}),
        (4, {"dp": 2, "tp": 2}, {"sequence_parallel": True}),
        (8, {"dp": 2, "pp": 2}, {"pipeline": "interleaved", "chunks": 4}),
        (5, {"dp": 2, "pp": 2}, {"stage_layers": nearly_even(5, 2, 1)}),
    ],
)
def test_choices_made_otherwise_have_the_step_that_the_engine_or_the_estimate_gives(layers, mesh, options):
    question = asked(model=sized(layers=layers), tries=())
    best, summary = best_of(question, mesh, **options)
    found, step = changes(question, best, summary, [], Here()).plan, summary["step_seconds"]
    estimator = Estimator(question)
    usual = estimator.estimate(mesh, best.options).seconds
    assert len(found) > 5
    for each in found:
        assert each.gain == pytest.approx(1 - each.seconds / step, abs=1e-12)
        changed = {**best.options, each.option: each.after}
        if each.option == "pipeline":
            chunks = max(2, best.options["chunks"]) if PIPELINES.find(each.after).chunked else 1
            changed["chunks"] = chunks
            if "stage_layers" in options and chunks > 1:
                continue  # a list for more parts, which is made anew
        if each.simulated:
            true = play((question, mesh, changed)).summary["step_seconds"]
            assert each.seconds == pytest.approx(true, rel=1e-12)
        else:
            estimate = estimator.estimate(mesh, changed)
            assert each.seconds == pytest.approx(estimate.seconds / usual * step, rel=1e-12)
            assert each.fits == estimate.memory.fits
    gains = [each.gain for each in found]
    assert gains == sorted(gains, reverse=True)
    assert sum(each.simulated for each in found) == min(CHECKED, sum(each.simulated or each.gain > 0 for each in found))
    if best.options["pipeline"] != "1f1b" or "stage_layers" in options:
        tried = {each.after for each in found if each.option == "pipeline"}
        assert tried, "others are plans too"


def test_only_what_fits_and_promises_something_is_simulated():
    """Of the choices that would be faster the most promising; what does not fit is told, and not played."""
    question = asked(tries=())
    best, summary = best_of(question, {"dp": 4}, recompute="full")
    roomy = changes(question, best, summary, [], Here()).plan
    larger = [each for each in roomy if each.option == "recompute" and each.gain > 0]
    assert larger
    assert any(each.simulated for each in roomy)
    needs = Estimator(question).estimate(best.mesh, best.options).memory.total
    small = question.changed(memory=1.0001 * needs)
    tight = changes(small, best, summary, [], Here()).plan
    by_choice = {(each.option, each.after): each for each in tight}
    for each in tight:
        assert not (each.simulated and not each.fits)
        assert not (each.simulated and each.gain <= -0.05)
    for each in larger:
        assert not by_choice[each.option, each.after].fits


def test_what_the_engine_says_decides_the_order():
    """Choices stand by their gain after the engine has played some, whatever the closed form had promised."""
    question = asked(tries=())
    best, summary = best_of(question, {"dp": 4}, recompute="full")
    step = summary["step_seconds"]

    class Contrary:
        """Says that what promises most gives least."""

        def results(self, call, tasks):
            return ((at, PlayedPlan({"step_seconds": step * (9.0 - at)})) for at, _ in enumerate(tasks) if call is play)

    found = changes(question, best, summary, [], Contrary()).plan
    assert [each.seconds / step for each in found if each.simulated] == pytest.approx([7.0, 8.0, 9.0])
    gains = [each.gain for each in found]
    assert gains == sorted(gains, reverse=True)
