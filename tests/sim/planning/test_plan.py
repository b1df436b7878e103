"""The planner: its formula is held to the engine, its search to every plan there is, its counts to each other."""

import json
import random
import re
import shlex
import signal
from itertools import pairwise

import athanor as athanor_package
import pytest
from athanor.hardware.errors import AthanorError, DoesNotFit, InputError
from athanor.hardware.machine import load_machine
from athanor.sim.planning.estimate import Estimator
from athanor.sim.planning.question import Question
from athanor.sim.planning.ranking import MEMORY, Ranked, RankedPlans, pareto, rank, reason
from athanor.sim.planning.search import search
from athanor.sim.planning.simulated_plans import faster_links, levels_used, options_of, play
from athanor.sim.planning.space import Space
from athanor.sim.simulate import simulate
from athanor.sim.workers import workers
from athanor.workloads.memory import memory, sample_loads
from athanor.workloads.model.model import Model, load_model
from athanor.workloads.pipelines import PIPELINES, Pipeline, Slot
from athanor.workloads.plan.setting import Setting
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import ATHANOR, PATIENCE, athanor, eventually, has_lines, start
from support.mpi_jobs import job, needs_mpi
from support.paths import ROOT
from support.stories import explored

TORUS = load_machine("fugaku").changed({"nodes": 96, "fabric.shape": [4, 6, 4]})
"""Fugaku's nodes and links on a torus that takes a moment: what is asked of it needs 16 ranks."""


def question(machine="selene", model="megatron-1.7b", gpus=16, batch=16, tries=(), memory=None, **fixed):
    return Question.of(
        load_machine(machine), load_model(model), {"global_batch": batch, **fixed}, tries, gpus, memory=memory
    )


def searched(asked, **options):
    *_, last = search(asked, **options)
    return last


def every_plan(asked):
    space = Space(asked)
    return [(mesh, options) for mesh in space.meshes for options in space.plans(mesh)]


def engine(asked, mesh, options):
    bare = asked.model.model_copy(update={"plan": {}})
    return simulate(asked.machine, bare, **options_of(asked, mesh, options)).summary()


SMALL = {
    "tries": (
        "tp=1,2",
        "pp=1,2,4",
        "micro-batch=1",
        "recompute=none",
        "zero=1,3",
        "pipeline=1f1b,zb-h1,interleaved",
    )
}
"""A space whose every plan can be simulated in seconds."""


@pytest.fixture(scope="module")
def answer():
    """The small space's answer, as Python code asks for it."""
    return athanor_package.plan("selene", "megatron-1.7b", gpus=16, global_batch=16, **SMALL)


# --- the formula ---------------------------------------------------------------------------------------------------------


def test_the_formula_puts_plans_in_the_engine_s_order_and_the_best_is_found(answer):
    asked = question(**SMALL)
    estimator, both = Estimator(asked), []
    for mesh, options in every_plan(asked):
        try:
            estimate = estimator.estimate(mesh, options)
        except InputError:
            continue
        if estimate.memory.fits:
            both.append((estimate.seconds, engine(asked, mesh, options)["step_seconds"]))
    assert len(both) > 40
    errors = sorted(abs(formula / true - 1) for formula, true in both)
    assert errors[len(errors) // 2] < 0.005
    assert errors[-1] < 0.06
    for (one, true), (other, also) in pairwise(both):  # what is clearly faster is ranked so
        if true < 0.95 * also:
            assert one < other
    best = min(true for _, true in both)
    found = answer.plain()
    assert found["ranked"] == len(both)
    assert found["plans"][0]["step_seconds"] == pytest.approx(best, rel=1e-12)
    assert found["closed_form_error"]["mean_absolute"] < 0.01


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        (question(tries=("cp=2,4", "pp=1", "tp=1,2")), 0.05),
        (question(tries=("cp=2,4", "pp=1,2", "tp=1,2"), attention="fused", seq_len=8192), 0.05),
        (question("cloud-brain-2", tries=("cp=4,8", "pp=1", "tp=1"), attention="fused", seq_len=4096), 0.05),
        (question(tries=("tensor=2d", "tp=4", "pp=1,2")), 0.05),
        (question(tries=("fsdp=2,8", "zero=1,2,3,++", "pp=1")), 0.05),
        (question(tries=("offload=optimizer;activations", "pp=1", "tp=2"), overlap="none"), 0.06),
        (question(tries=("pipeline=pipedream,2bw", "pp=2,4"), zero="0", overlap="none"), 0.02),
        (question(tries=("pp=2,4", "tp=1,2", "zero=2")), 0.05),
        (question(tries=("pp=2,13", "tp=1,2", "stage-layers=ends"), gpus=26, batch=52, zero="1"), 0.05),
        (question("cluster-64", "moda-tiny", 16, 64, overlap="none"), 0.06),
        (question(TORUS, "moda-tiny", 8, 64, overlap="none", tries=("pp=1", "tp=1,2")), 0.06),
    ],
    ids=[
        "cp",
        "cp fused",
        "cp fused, slow links",
        "2d",
        "fsdp",
        "offload",
        "endless",
        "zero 2 in stages",
        "ends",
        "experts",
        "torus",
    ],
)
def test_the_formula_knows_every_strategy(asked, most):
    estimator, seen = Estimator(asked), 0
    plans = every_plan(asked)
    random.Random(7).shuffle(plans)
    for mesh, options in plans:
        try:
            setting = estimator.setting(mesh, options)
            seconds, need = estimator.seconds(setting), estimator.memory(setting)
        except InputError:
            continue
        exact = memory(setting, sample_loads(setting))
        assert need.total == pytest.approx(exact.total, rel=1e-12)
        assert need.host == pytest.approx(exact.host, rel=1e-12)
        if exact.fits:
            assert seconds == pytest.approx(engine(asked, mesh, options)["step_seconds"], rel=most), (mesh, options)
            seen += 1
        if seen == 6:
            return
    raise AssertionError(f"only {seen} plans of {len(plans)} could be compared")


# --- the search ----------------------------------------------------------------------------------------------------------


def test_counts_add_up():
    asked = question(memory=12e9, tries=("tp=1,2", "pp=1,2", "micro-batch=1,2", "recompute=none,full"))
    space, found = Space(asked), searched(asked, simulated=1)
    plain = found.plain()
    assert plain["enumerated"] == space.size == len(every_plan(asked))
    assert sum(plain["pruned"].values()) + plain["ranked"] == plain["enumerated"]
    assert plain["pruned"][MEMORY] > 0
    assert plain["pruned"]["pp with --zero 3 or ++"] > 0
    assert found.found.judged == plain["ranked"] + plain["pruned"][MEMORY]
    assert not any(re.search(r"=\d", key) for key in plain["pruned"])
    assert all(plan["memory_per_rank_bytes"]["total"] <= 12e9 for plan in plain["plans"])
    assert plain["meshes"] == plain["meshes_done"] == len(plain["by_mesh"])


def test_the_front_is_one(answer):
    front = answer.plain()["front"]
    assert len(front) > 1
    for faster, smaller in pairwise(front):
        assert faster["closed_form_seconds"] <= smaller["closed_form_seconds"]
        assert faster["memory_per_rank_bytes"]["total"] > smaller["memory_per_rank_bytes"]["total"]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=30))
def test_every_plan_is_on_the_front_or_beaten_by_it(points):
    plans = [Ranked({"dp": number}, {}, float(s), {"total": float(m)}) for number, (s, m) in enumerate(points)]
    front = pareto(plans)
    for plan in plans:
        assert any(each.seconds <= plan.seconds and each.total <= plan.total for each in front)
    for each in front:
        assert not any(
            (other.seconds < each.seconds and other.total <= each.total)
            or (other.seconds <= each.seconds and other.total < each.total)
            for other in plans
        )


def test_parts_of_a_search_add_up_to_the_whole():
    """In whatever order meshes are done, and over a file: the same answer."""
    asked = question(**SMALL)
    space, estimator = Space(asked), Estimator(asked)
    parts = [rank(estimator, space, mesh, 20) for mesh in space.meshes]
    whole, again = RankedPlans(), RankedPlans()
    for part in parts:
        whole.add(part, 20)
    for part in reversed(parts):
        again.add(RankedPlans.from_plain(json.loads(json.dumps(part.plain()))), 20)
    assert whole.best == again.best
    assert whole.front == again.front
    assert whole.pruned == again.pruned
    assert whole.enumerated == again.enumerated == space.size


def test_nothing_is_offloaded_where_something_fits_without(answer):
    with_room = answer.plain()
    assert {plan["options"]["offload"] for plan in with_room["plans"]} == {"none"}
    tight = question(gpus=2, tries=("tp=1", "pp=1", "recompute=full", "zero=1", "micro-batch=1"), memory=16e9)
    space = Space(tight)
    estimator = Estimator(tight)
    assert not any(
        estimator.estimate(mesh, options).memory.fits for mesh in space.meshes for options in space.plans(mesh)
    )
    plain = searched(tight, simulated=1).plain()
    assert plain["plans"]
    assert "none" not in {plan["options"]["offload"] for plan in plain["plans"]}
    assert sum(plain["pruned"].values()) + plain["ranked"] == plain["enumerated"]


def test_the_best_plan_explains_itself(answer):
    plain = answer.plain()
    best = plain["plans"][0]
    assert sum(plain["limits"]["breakdown"].values()) == pytest.approx(1.0)
    gains = {each["part"]: each["gain"] for each in plain["sensitivity"]}
    assert gains["peak"] > 0.05
    assert all(gain > -1e-9 for gain in gains.values())
    assert {"nic bandwidth", "port bandwidth", "memory bandwidth", "memory", "message overhead"} <= set(gains)
    fused = next(each for each in plain["changes"] if each["after"] == "fused")
    assert fused["simulated"]
    asked = question(**SMALL)
    true = engine(asked, best["mesh"], {**best["options"], "placement": best["placement"], "attention": "fused"})
    assert fused["seconds"] == pytest.approx(true["step_seconds"])
    assert fused["gain"] == pytest.approx(1 - true["step_seconds"] / best["step_seconds"])


def test_links_that_are_as_fast_as_before_change_nothing():
    for machine, model in (("selene", "megatron-1.7b"), (TORUS, "moda-tiny")):
        asked = question(machine, model, 16, 32)
        mesh = {"dp": 8, "tp": 2}
        options = {"placement": "megatron", "micro_batch": 1, "zero": "1", "recompute": "none"}
        summary = play((asked, mesh, options)).summary
        for link in levels_used(summary):
            job = (asked, mesh, options, summary["network"]["depth"], link)
            same, faster = faster_links((*job, 1.0)), faster_links((*job, 2.0))
            assert same == pytest.approx(summary["step_seconds"], rel=1e-12)
            assert faster <= same * (1 + 1e-12)


def test_bagualu_s_choice_in_small():
    """Experts across and replicas inside, where trunks are narrow and gradients many: the planner's, as BaGuaLu's."""
    asked = question(
        "sunway-oceanlight", "moda-1.93t", 8000, 8000, tries=("tp=1", "pp=1", "ep=400,200"), recompute="none"
    )
    best = searched(asked, simulated=3).plain()["plans"][0]
    assert best["mesh"] == {"dp": 20, "ep": 400}
    assert best["placement"] == "moda"


def test_a_model_s_own_plan_gives_what_is_not_searched():
    own = {
        "mesh": {"dp": 2},
        "precision": "O3",
        "attention": "fused",
        "recompute": "full",
        "zero": "0",
        "global_batch": 7,
    }
    model = load_model("megatron-1.7b").model_copy(update={"plan": own})
    asked = Question.of(load_machine("selene"), model, {"global_batch": 32}, gpus=16)
    assert (asked.plan.precision, asked.plan.attention, asked.plan.global_batch) == ("O3", "fused", 32)
    seen = [options for _, options in every_plan(asked)]
    assert {options["attention"] for options in seen} == {"fused"}
    assert {options["recompute"] for options in seen} == {"none", "selective", "full"}
    assert {options["zero"] for options in seen} == {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("gpt3-175b", {"mesh": {"pp": 2, "tp": 512}}),
        ("gpt3-175b", {"mesh": {"pp": 64, "tp": 2}, "stage_layers": "even"}),
        ("gpt3-175b", {"mesh": {"pp": 2, "dp": 64}, "zero": "3"}),
        ("gpt3-175b", {"mesh": {"dp": 96}, "global_batch": 100}),
        ("mixtral-8x7b", {"mesh": {"ep": 16, "dp": 8}}),
    ],
)
def test_reasons_have_no_numbers_of_single_plans(model, options):
    """What breaks one rule is counted under one reason, whatever its sizes."""
    with pytest.raises(InputError) as wrong:
        Setting.of("selene", model, options)
    said = reason(wrong.value)
    assert said == wrong.value.rule
    numbers = set(re.findall(r"\d+", str(wrong.value))) - {"3"}  # of ZeRO's stage, which belongs to the rule
    assert not numbers & set(re.findall(r"\d+", said)), said
    assert model not in said


WIDE = {
    "tensor": ["1d", "2d"],
    "attention": ["unfused", "fused"],
    "recompute": ["none", "products", "full"],
    "zero": ["0", "2", "3", "++"],
    "overlap": ["none", "gradients", "all"],
    "offload": ["none", "optimizer", "activations"],
    "micro_batch": [None, 1, 2, 3],
    "sequence_parallel": [False, True],
    "expert_tensor": ["split", "whole"],
    "pipeline": list(PIPELINES),
    "chunks": [1, 2],
    "stage_layers": ["even", "ends"],
}


@pytest.mark.parametrize(("machine", "model"), [("selene", "megatron-1.7b"), ("cluster-64", "moda-tiny")])
def test_whatever_is_no_plan_breaks_a_rule(machine, model):
    """Of whichever choices: it is counted by the rule that it breaks, which is the same for all that break it."""
    draw, rules = random.Random(3), set()
    asked = question(machine, model, 16, 24)
    estimator = Estimator(asked)
    meshes = [
        {"dp": 16},
        {"dp": 2, "tp": 8},
        {"pp": 4, "dp": 4},
        {"pp": 16},
        {"ep": 16},
        {"cp": 16},
        {"fsdp": 4, "tp": 4},
    ]
    for _ in range(1500):
        options = {name: draw.choice(values) for name, values in WIDE.items()}
        try:
            estimator.estimate(draw.choice(meshes), options)
        except InputError as wrong:
            assert wrong.rule, str(wrong)
            assert reason(wrong) == wrong.rule
            rules.add(wrong.rule)
    assert len(rules) > 12
    for rule in rules:
        assert not re.search(r"[=;]|\d{2}", rule), rule


def test_a_prime_number_of_layers_makes_pipelines():
    """Stages that are as even as they can be; of 61 layers none divide."""
    model = Model(**{**load_model("megatron-1.7b").model_dump(), "layers": 61})
    asked = Question.of(load_machine("selene"), model, {"global_batch": 32, "zero": "1"}, ("pp=4", "tp=1"), 16)
    found = searched(asked, simulated=1).plain()
    assert found["ranked"] + sum(found["pruned"].values()) == found["enumerated"]
    ways = {each.options["stage_layers"] for each in rank(Estimator(asked), Space(asked), {"pp": 4, "dp": 4}, 99).best}
    assert "15,16,15,15" in ways
    for way in ways:
        counts = [int(each) for each in way.split(",")]
        assert sum(counts) == 61
        assert max(counts) - min(counts) == 1
    assert found["plans"][0]["step_seconds"] == pytest.approx(found["plans"][0]["closed_form_seconds"], rel=0.03)
    assert "--stage-layers" in found["plans"][0]["command"]


class Sequential(Pipeline):
    """A pipeline that nobody has told the planner of."""

    name, about = "sequential", "one micro-batch at a time"

    def orders(self, stages, micro_batches, chunks=1):
        return [[Slot(kind, m, 0) for m in range(micro_batches) for kind in ("F", "B")] for _ in range(stages)]


def test_a_new_choice_is_searched(monkeypatch):
    """A registry's line is enough, and what changes training is left out unless it is asked for."""
    usual = {options["pipeline"] for options in Space(question()).plans({"pp": 4, "dp": 4})}
    assert usual == {name for name, each in PIPELINES.items() if not each.asynchronous and each.searched}
    monkeypatch.setattr(PIPELINES, "_known", {**PIPELINES._known, "sequential": Sequential()})
    assert {options["pipeline"] for options in Space(question()).plans({"pp": 4, "dp": 4})} == {*usual, "sequential"}
    asked = question(tries=("pipeline=sequential,1f1b", "pp=4", "tp=1", "zero=1", "recompute=none", "micro-batch=1"))
    found = searched(asked, simulated=4).plain()
    assert {plan["options"]["pipeline"] for plan in found["plans"]} == {"sequential", "1f1b"}
    assert abs(found["closed_form_error"]["worst"]) < 0.03


def test_bounds_leave_out_nothing_that_is_kept():
    """Plans whose pipelines are not played, as they would be too slow: with a bound that never says so all is the same."""
    asked = question(batch=64, tries=("pp=2,4,8", "tp=1,2", "zero=1,3", "micro-batch=1,2"))
    space, estimator = Space(asked), Estimator(asked)

    class Thorough(Estimator):
        def seconds(self, setting, worth=None):
            return super().seconds(setting)

    for mesh in space.meshes:
        quick, thorough = (rank(each, space, mesh, 5) for each in (estimator, Thorough(asked)))
        for name in ("best", "front", "roomier", "pruned", "enumerated", "judged"):
            assert getattr(quick, name) == getattr(thorough, name)


def test_several_processes_find_the_same(answer):
    asked = question(**SMALL)
    alone = answer.plain()
    with workers(2) as crew:
        together = searched(asked, workers=crew).plain()
    for plain in (alone, together):
        del plain["search_seconds"], plain["plans_per_second"]
    assert json.dumps(alone) == json.dumps(together)


def test_a_search_goes_on_where_it_stopped(answer):
    asked, known = question(**SMALL), {}
    for this in search(asked, simulated=1, on_mesh=lambda key, part, whole: known.__setitem__(key, part.plain())):
        if this.done == 3:
            break
    assert len(known) == 3
    again = []
    whole = searched(asked, simulated=1, known=known, on_mesh=lambda key, part, whole: again.append(key))
    assert not set(again) & set(known)
    assert len(again) + 3 == len(Space(asked).meshes)
    assert (whole.found.front, whole.found.by_mesh) == (answer.found.front, answer.found.by_mesh)
    assert whole.found.pruned == answer.found.pruned
    other = question(**SMALL, seq_len=1024)  # another question knows nothing of it
    seen = []
    searched(other, known=known, simulated=1, on_mesh=lambda key, part, whole: seen.append(key))
    assert len(seen) == len(Space(other).meshes)


# --- bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": 0}, "--gpus 0: must be at least 1"),
        ({"gpus": 5000}, "--gpus 5000: selene has 560 nodes of 8 ranks, 4,480 in all"),
        ({"gpus": None}, "--gpus and --nodes: give one of the two"),
        (
            {"mesh": {"dp": 2}},
            "--mesh: the search chooses it; --try tp=4,8 bounds an axis, and --gpus or --nodes all of it",
        ),
        ({"tries": ("zeero=1",)}, "did you mean zero?"),
        ({"tries": ("tp=x",)}, "--try tp=x: x is no number from 1 on"),
        ({"tries": ("zero=4",)}, "--try zero=4: no such value 4"),
        ({"tries": ("pipeline",)}, "--try pipeline: write pipeline=VALUE,..."),
        ({"tries": ("zero=1",), "zero": "3"}, "--try zero: --zero fixes it already; give one of the two"),
        (
            {"tries": ("offload=disk",)},
            "--try offload=disk: no such value disk (none, optimizer, parameters, activations, experts)",
        ),
        ({"tries": ("sequence-parallel=1",)}, "--try sequence-parallel=1: write sequence-parallel=on,off"),
        ({"memory": -1.0}, "--max-memory -1: must be above 0"),
    ],
)
def test_bad_questions(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        question(**{"gpus": 16, **options})


def test_a_space_that_is_too_large_names_bounds_that_fit():
    with pytest.raises(InputError) as wrong:
        searched(question(), limit=3000)
    text = str(wrong.value)
    size = Space(question()).size
    assert text.startswith(f"--limit 3,000: {len(Space(question()).meshes)} meshes of 16 ranks make {size:,} plans;")
    flag, value, left = re.search(r"--([a-z-]+) (\S+) leaves ([\d,]+)", text).groups()
    narrower = question(**{flag.replace("-", "_"): int(value) if value.isdigit() and flag != "zero" else value})
    assert Space(narrower).size == int(left.replace(",", ""))


def test_what_fits_nowhere_says_what_it_needs():
    with pytest.raises(DoesNotFit, match=r"none of [\d,]+ plans fits 1\.0 GB a rank"):
        searched(question(memory=1e9, tries=("tp=2", "pp=2", "micro-batch=1", "recompute=full", "zero=1")))


def test_sizes_that_no_mesh_has():
    with pytest.raises(
        InputError, match=re.escape("--try tp=3: no mesh of 16 ranks has such sizes; each must divide the ranks")
    ):
        searched(question(tries=("tp=3",)))


def test_what_is_no_plan_at_all_says_why():
    with pytest.raises(InputError, match=r"none of [\d,]+ plans can be: .* tp does not divide the heads"):
        searched(question(tries=("tp=16",)))


# --- the command ---------------------------------------------------------------------------------------------------------

COMMAND = ["plan", "--machine", "selene", "--model", "megatron-1.7b", "--gpus", "16", "--global-batch", "32"]
FEW = [
    "--try",
    "tp=1,2",
    "--try",
    "pp=1,2",
    "--zero",
    "1",
    "--recompute",
    "none",
    "--try",
    "pipeline=1f1b",
    "--simulate",
    "2",
]


def test_the_command_writes_everything(tmp_path):
    slower = ["--set", "node.ring_bandwidth=100 GB/s"]
    done = athanor(*COMMAND, *FEW, *slower, "--out", tmp_path / "out", "--json", tmp_path / "plan.json")
    assert done.returncode == 0, done.stderr
    for text in ("Best plans", "Time against memory", "Twice as good", "One choice otherwise", "athanor simulate"):
        assert text in done.stdout
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found == json.loads((tmp_path / "out" / "plan.json").read_text())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"plans.csv", "points.jsonl", "report.html", "front.svg", "front.png", "sensitivity.svg"} <= names
    best = found["plans"][0]
    story = explored(tmp_path / "out", "a plan search", "Machine: ", "Model: ")
    (drawn,) = story.parts[0].charts
    known = {plan["command"] for name in ("plans", "front", "by_mesh") for plan in found[name]}
    assert len(drawn.content["rows"]) == len(known) == len(story.parts[0].section.rows)
    front = [row for row in drawn.content["rows"] if row["what"] == "on the front"]
    assert len(front) == len({plan["command"] for plan in found["front"]})
    words = shlex.split(best["command"])[1:]
    again = athanor(*words, "--json", "-")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["step_seconds"] == pytest.approx(best["step_seconds"], rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--max-memory", "lots"], 2, "--max-memory lots:"),
        (["--jobs", "0"], 2, "--jobs 0: must be at least 1"),
        (["--limit", "0"], 2, "--limit 0: must be at least 1"),
        (["--simulate", "0"], 2, "--simulate 0: must be at least 1"),
        (["--limit", "10"], 2, "--limit 10: "),
        (["--nodes", "2"], 2, "--gpus and --nodes: give one of the two"),
        (["--offload", "optimizer", "--machine", "cluster-64"], 2, "plans can be: "),
        (["--max-memory", "100MB", "--machine", "cluster-64"], 3, "plans fits 0.1 GB a rank"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, status, message, tmp_path):
    done = athanor(*COMMAND, *FEW, *arguments, "--json", tmp_path / "plan.json")
    assert done.returncode == status
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("athanor:")]
    assert message in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "plan.json").exists()


def test_an_interrupted_search_tells_its_best_so_far_and_goes_on(tmp_path):
    large = [*COMMAND[:-4], "--gpus", "512", "--global-batch", "512", "--jobs", "1", "--out", str(tmp_path)]
    process = start([*ATHANOR, *large])
    points = tmp_path / "points.jsonl"
    assert eventually(lambda: has_lines(points, 3))
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "athanor: interrupted"
    assert "(interrupted)" in out
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["interrupted"]
    assert 3 <= found["meshes_done"] < found["meshes"]
    assert sum(found["pruned"].values()) + found["ranked"] == found["enumerated"]
    assert points.read_text().count("\n") == found["meshes_done"]


@needs_mpi
def test_ranks_of_a_job_search_together(tmp_path):
    alone = athanor(*COMMAND, *FEW, "--json", "-")
    both = job(2, "athanor", *COMMAND, *FEW, "--json", "-")
    assert both.returncode == 0, both.stderr
    one, two = json.loads(alone.stdout), json.loads(both.stdout)
    for plain in (one, two):
        del plain["search_seconds"], plain["plans_per_second"]
    assert one == two


@needs_mpi
def test_what_a_job_cannot_write_ends_all_its_ranks():
    done = job(2, "athanor", *COMMAND, *FEW, "--json", "/no/such/folder/plan.json")
    assert done.returncode == 2
    assert done.stderr.count("athanor: /no/such/folder/plan.json: cannot be written") == 1


def test_every_key_of_an_answer_is_explained(answer):
    page = (ROOT / "docs" / "formats" / "plan-search.md").read_text()
    plain = answer.plain()
    nested = [
        plain["plans"][0],
        plain["sensitivity"][0],
        plain["changes"][0],
        plain["closed_form_error"],
        plain["limits"],
    ]
    for key in [*plain, *(key for each in nested for key in each)]:
        assert f"`{key}`" in page, key


def test_every_error_of_a_plan_is_counted_and_none_escapes():
    """Random corners of the space: a plan or a reason, never anything else."""
    asked = question("cluster-64", "moda-tiny", 8, 24, tries=("cp=1,2,8", "fsdp=1,2", "tensor=1d,2d", "zero=0,1,3,++"))
    plans = every_plan(asked)
    estimator = Estimator(asked)
    for mesh, options in random.Random(3).sample(plans, 400):
        try:
            estimate = estimator.estimate(mesh, options)
        except AthanorError:
            continue
        assert estimate.seconds > 0
        assert estimate.memory.total > 0
