"""The MPI runtime with real processes: every algorithm, whole training steps, and what goes wrong."""

import json
import os
import signal
import tomllib

import athanor
import numpy as np
import pytest
from athanor.hardware.machine_writer import machine_toml
from athanor.hardware.records import build
from athanor.mpi_runtime.cluster import Shape, machine_of
from athanor.workloads.model.model import Model
from athanor.workloads.results.run import COLUMNS, Run
from support.mpi_jobs import BIN, OPEN_MPI, begin, finish, gone, job, needs_mpi, ranks_of, says, told
from support.paths import JOBS

pytestmark = needs_mpi

TINY = ("--model", "moda-tiny", "--tokens-per-rank", "64")


def said(text):
    """What Athanor itself said, line by line: launchers add lines of their own."""
    return [line for line in text.splitlines() if line.startswith("athanor: ")]


@pytest.mark.parametrize("ranks", [2, 4, 6])
def test_every_algorithm_over_real_messages(ranks):
    done = job(ranks, "python", JOBS / "collectives.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[0]) >= 70


PLANS = [
    "--mesh ep=2,dp=2",
    "--mesh ep=4 --top-k 2 --all-to-all two-level",
    "--mesh ep=2,dp=2 --balancer none --router zipf:1 --all-to-all pairwise-xor",
    "--mesh dp=2,ep=2 --balancer capacity:1.0 --router zipf:1 --zero 0",
    "--mesh ep=2,dp=2 --overlap gradients --precision layerwise --compute sleep",
    "--mesh ep=2,dp=2 --recompute full --micro-batch 1 --seq-len 32 --collectives library",
    "--mesh dp=4 --precision O3",
    "--mesh ep=2,dp=2 --optimizer lamb",
    "--mesh ep=2,dp=2 --optimizer muon --overlap gradients --collectives library",
    "--mesh ep=2,dp=2 --optimizer muon",
    "--mesh dp=4 --optimizer adafactor --precision O2 --overlap gradients --compute sleep",
    "--mesh ep=2,dp=2 --optimizer adam8bit",
    "--mesh dp=4 --optimizer sgd:momentum=0.8 --zero 0 --precision fp64",
]


NARROW = """
name = "narrow"
layers = 2
heads = 4
hidden = 64
ffn_hidden = 256
experts = 4
vocabulary = 250
seq_len = 64

[plan]
precision = "O0"
balancer = "swipe"
zero = "hierarchical"
accounting = "bagualu"
"""
"""moda-tiny with a quarter of every width, so with the same proportions, and a sixteenth of what is computed and checked."""

PAYLOADS = "--mesh ep=2,dp=2 --balancer none --router zipf:1"
WAYS = ["--balancer swipe", "--balancer none", "--balancer capacity:1.0", "--balancer swipe --all-to-all two-level"]
TREE = Shape(supernodes=2, nodes=2, node_rate=1e9, taper=0.5)


def all_runs(folder):
    """Execute everything that is executed on four ranks, in one job."""
    (folder / "narrow.toml").write_text(NARROW)
    (folder / "tree.toml").write_text(machine_toml(machine_of(TREE)))
    narrow = ("--model narrow.toml --tokens-per-rank 64 " + plan for plan in (*PLANS, PAYLOADS))
    tiny = (f"{' '.join(TINY)} --machine tree.toml --mesh ep=4 --router zipf:1 --compute sleep {way}" for way in WAYS)
    given = [*narrow, *tiny]
    names = [f"run{number}.json" for number in range(len(given))]
    commands = [
        ["execute", "--steps", "2", "-o", name, "--json", "-", *words.split()]
        for name, words in zip(names, given, strict=True)
    ]
    for name, answer in zip(names, told(folder, 4, commands), strict=True):
        assert answer.statuses == {0}, answer.errors
        assert json.loads(answer.out) == Run.load(folder / name).summary()


@pytest.fixture(scope="module")
def narrow():
    """The model of plans and of PAYLOADS."""
    return build(Model, tomllib.loads(NARROW), "narrow")


@pytest.fixture(scope="module")
def executed(once):
    """The run of a plan, of PAYLOADS or of a way: each was executed on four ranks."""
    folder = once("executed", all_runs)
    return lambda words: Run.load(folder / f"run{[*PLANS, PAYLOADS, *WAYS].index(words)}.json")


@pytest.mark.parametrize("plan", PLANS)
def test_a_step_does_what_its_schedule_says(plan, executed, narrow):
    """Checked by the job itself (loss, gradients, weights), and here against the simulation of the same."""
    run = executed(plan)
    options = dict(zip(plan.split()[::2], plan.split()[1::2], strict=True))
    own = {key: options.pop(key) for key in ("--compute", "--collectives") if key in options}
    mesh = {axis: int(size) for axis, size in (part.split("=") for part in options.pop("--mesh").split(","))}
    given = {key.removeprefix("--").replace("-", "_"): value for key, value in options.items()}
    given |= {key: int(given[key]) for key in ("top_k", "micro_batch", "seq_len") if key in given}
    simulated = athanor.simulate("laptop", narrow, mesh=mesh, tokens_per_rank=64, steps=2, **given)
    measured, predicted = run.summary(), simulated.summary()
    checked = measured["measured"]["checked"]
    assert measured["measured"]["ranks_per_host"] == measured["measured"]["ranks_sharing_memory"] == [4]
    if own.get("--compute") == "sleep":
        assert checked["token_layers"] == 4 * 64 * 2
        assert checked["gradients"] > 0 and checked["weights"] > 0
    else:
        assert checked["losses"] == 4
        assert min(checked["gradients"], checked["weights"]) >= narrow.parameters.total
    names = list(dict.fromkeys(simulated.to_frame()["operation"]))
    for rank in range(4):
        mine = run.to_frame().query(f"step == 1 and `class` == 'rank {rank}'")
        assert sorted(mine["operation"]) == sorted(names)
    assert tuple(run.to_frame().columns) == COLUMNS
    assert sum(measured["breakdown"].values()) == pytest.approx(measured["step_seconds"])
    assert sum(measured["phases"].values()) == pytest.approx(measured["step_seconds"])
    same = ("mesh", "parameters", "flops_per_step", "tokens_per_rank", "memory_per_rank_bytes", "ranks", "nodes")
    assert {key: measured[key] for key in same} == {key: predicted[key] for key in same}
    assert set(predicted) <= set(measured)
    for key in ("max_over_mean", "dropped_fraction"):
        assert measured["load_balance"][key] == pytest.approx(predicted["load_balance"][key])
    if own.get("--collectives") != "library":
        (bus,), (expected,) = measured["links"], predicted["links"]
        assert bus["kind"] == expected["kind"] == "ring"
        padding = (
            0.05 if options.get("--optimizer") == "muon" else 0.02
        )  # parts of matrices are filled up to the longest
        assert bus["bytes_per_step"] == pytest.approx(expected["bytes_per_step"], rel=padding)


def test_payloads_are_those_of_the_schedule(executed, narrow):
    run = executed(PAYLOADS)
    simulated = athanor.simulate(
        "laptop", narrow, mesh={"ep": 2, "dp": 2}, tokens_per_rank=64, balancer="none", router="zipf:1"
    )
    coordinates = {name: each["coordinate"] for name, each in simulated.classes.items()}
    ranks = {name: each["coordinate"] for name, each in run.classes.items()}
    for name, coordinate in coordinates.items():
        (rank,) = [key for key, value in ranks.items() if value == coordinate]
        found = run.to_frame().query(f"`class` == '{rank}' and kind == 'exchange'").set_index("operation")["bytes"]
        planned = (
            simulated.to_frame().query(f"`class` == '{name}' and kind == 'exchange'").set_index("operation")["bytes"]
        )
        assert np.allclose(found, planned[found.index], rtol=0.001)


@pytest.mark.parametrize("way", WAYS)
def test_every_byte_goes_where_the_simulator_sends_it(way, executed):
    """At the message depth the simulator knows whose tokens go where: bytes over each kind of link are the same."""
    options = dict(zip(way.split()[::2], way.split()[1::2], strict=True))
    given = {key.removeprefix("--").replace("-", "_"): value for key, value in options.items()}
    given |= {key: int(given[key]) for key in ("top_k", "micro_batch", "seq_len") if key in given}
    run = executed(way)
    simulated = athanor.simulate(
        machine_of(TREE), "moda-tiny", mesh={"ep": 4}, tokens_per_rank=64, router="zipf:1", depth="message", **given
    )
    measured = {row["kind"]: row["bytes_per_step"] for row in run.summary()["links"]}
    predicted = {row["kind"]: row["bytes_per_step"] for row in simulated.summary()["links"]}
    assert set(predicted) == set(measured) == {"nic.out", "nic.in", "trunk.out", "trunk.in"}
    for kind, nbytes in predicted.items():
        assert measured[kind] == pytest.approx(nbytes, rel=2e-4), kind  # padding of vectors, and counts of messages


# --- what goes wrong --------------------------------------------------------------------------------------------------------


REFUSALS = [
    (3, ["--mesh", "ep=2,dp=2"], 2, "--mesh ep=2,dp=2: has 4 ranks, and 3 run; start it with mpiexec -n 4"),
    (2, ["--mesh", "dp=2", "--expect-ranks", "4"], 2, "--expect-ranks 4: 2 ranks run"),
    (2, ["--mesh", "dp=2", "--machine", "laptopp"], 2, "did you mean laptop?"),
    (
        2,
        ["--mesh", "ep=2", "--all-to-all", "bruck"],
        2,
        "all-to-all bruck: blocks of unequal size cannot travel together",
    ),
    (2, ["--mesh", "dp=2", "--precision", "O0:1,O1"], 2, "executed steps have one policy"),
    (2, ["--mesh", "dp=2", "--machine", "broken.toml"], 2, "broken.toml: not a TOML file"),
    (2, ["--mesh", "dp=2", "--compute-scale", "0"], 2, "--compute-scale 0: must be above 0"),
    (2, ["--mesh", "dp=2", "-o", "/no/such/folder/run.json"], 2, "/no/such/folder/run.json: cannot be written"),
    (2, ["--mesh", "ep=2,dp=1", "--model", "moda-1.93t"], 3, "does not fit laptop"),
    (2, ["--mesh", "ep=2", "--model", "moda-1.93t", "--allow-overcommit"], 3, "of its memory, of which"),
]


@pytest.mark.parametrize("ranks", [2, 3])
def test_what_cannot_run_is_refused_by_one_rank(ranks, tmp_path):
    (tmp_path / "broken.toml").write_text("nodes = ")
    refused = [row[1:] for row in REFUSALS if row[0] == ranks]
    models = [() if "--model" in options else TINY for options, *_ in refused]
    commands = [["execute", *model, *options] for model, (options, *_) in zip(models, refused, strict=True)]
    for (_, status, message), answer in zip(refused, told(tmp_path, ranks, commands), strict=True):
        (line,) = answer.said
        assert message in line
        assert answer.statuses == {status}
        assert answer.out == "" and "Traceback" not in answer.errors
        assert answer.files == ["broken.toml"]


def test_a_job_that_is_refused_ends_with_the_status(tmp_path):
    """As mpiexec gives it on, and with one line of all its processes."""
    done = job(3, "athanor", "execute", *TINY, "--mesh", "ep=2,dp=2")
    (line,) = said(done.stderr)
    assert REFUSALS[0][-1] in line
    assert (done.returncode, done.stdout) == (2, "")


def long_job(*options):
    return begin(2, "athanor", "execute", *TINY, "--mesh", "dp=2", "--steps", "100000", *options)


def test_a_rank_that_is_killed_ends_all():
    process = long_job()
    ranks = ranks_of(process, 2)
    assert says(process, "first step done")
    os.kill(ranks[1], signal.SIGKILL)
    status, out, _ = finish(process)
    assert status != 0 and "step" not in out
    assert gone(ranks)


def test_no_job_runs_longer_than_its_limit():
    process = long_job("--time-limit", "3")
    ranks = ranks_of(process, 2)
    status, _, err = finish(process)
    assert status == 124
    (line,) = said(err)  # it may add where ranks are
    assert line.startswith("athanor: --time-limit 3: the job ran longer and was ended")
    assert gone(ranks)


def test_an_interruption_ends_all():
    process = long_job()
    ranks = ranks_of(process, 2)
    assert says(process, "first step done")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does
    status, out, err = finish(process)
    expected = (1, []) if OPEN_MPI else (130, ["athanor: interrupted"])
    assert (status, said(err)) == expected and "tokens/s" not in out
    assert gone(ranks)


def test_an_interruption_while_mpi_starts_ends_all():
    """No rank waits in ``MPI_Init`` for one that has ended; what the status is then, the launcher says."""
    process = long_job()
    ranks = ranks_of(process, 2)
    os.killpg(process.pid, signal.SIGINT)
    status, out, err = finish(process)
    assert status != 0 and out.count("step") == 0 and "Traceback" not in err
    assert gone(ranks)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        pytest.param(
            {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"},
            "Open MPI's mpiexec started this, and the MPI library is MPICH",
            marks=pytest.mark.skipif(OPEN_MPI, reason="the library is Open MPI, its launcher is no other's"),
        ),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}, "the launcher started 4 ranks, and MPI sees 1"),
    ],
)
def test_a_launcher_of_another_mpi(environment, message):
    """Each process of such a job is alone: the first says so, the others end without a word."""
    import subprocess

    for rank in "01":
        changed = {key: rank if value == "0" else value for key, value in environment.items()}
        done = subprocess.run(
            [BIN / "athanor", "execute", *TINY, "--mesh", "dp=4"],
            capture_output=True,
            text=True,
            env={**os.environ, **changed},
        )
        assert done.returncode == 2
        assert [message in line for line in said(done.stderr)] == ([True] if rank == "0" else [])


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("raise ImportError('No module named mpi4py')", "mpi4py is not installed: pip install 'athanor[mpich]'"),
        (
            "class rc: pass\ndef __getattr__(name): raise ImportError('cannot load MPI library')",
            "mpi4py finds no MPI library",
        ),
    ],
)
def test_without_mpi(module, message, tmp_path):
    import subprocess

    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text(module)
    done = subprocess.run(
        [BIN / "athanor", "execute", *TINY, "--mesh", "dp=1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    (line,) = said(done.stderr)
    assert done.returncode == 2 and message in line
