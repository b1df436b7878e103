"""athanor train: losses fall and are those of one process, checkpoints go on to the bit and on other meshes, loads replay."""

import json
import shutil
from collections import Counter
from types import SimpleNamespace

import athanor
import numpy as np
import pytest
from athanor.hardware.errors import Ended, InputError
from athanor.mpi_runtime.trainer.checkpoints import latest
from athanor.mpi_runtime.trainer.corpus import Made, corpus_of
from athanor.reports.studies.predicted_training import PredictedTraining, read_training
from athanor.workloads.results.training_run import TrainingRun
from support.mpi_jobs import needs_mpi, told

MODEL = """
name = "small-moe"
layers = 2
heads = 4
hidden = 16
ffn_hidden = 24
experts = 4
top_k = 2
vocabulary = 37
seq_len = 8
"""
COMMON = "train --model model.toml --precision fp64 --balancer none --steps 6 --json -"
GATES = "--z-loss 0.02 --gate-bias 0.03"
RUNS = {
    "four ranks": "--mesh ep=2,dp=2 --tokens-per-rank 32 --zero 1 --out run --checkpoint-every 3 --predict",
    "again": "--mesh ep=2,dp=2 --tokens-per-rank 32 --zero 1 --resume run/step-00000003",
    "cut": "--mesh ep=2,tp=2 --tokens-per-rank 64 --zero 0 --resume run/step-00000003 --out cut --checkpoint-every 6",
    "further": "--mesh ep=2,dp=2 --tokens-per-rank 32 --zero 3 --resume cut --steps 8",
    "gates": f"--mesh ep=2,tp=2 --tokens-per-rank 64 {GATES}",
    "replicas": "--mesh ep=4 --tokens-per-rank 32 --zero 1 --balancer eplb:4,every=2",
    "shadows": "--mesh ep=2,dp=2 --tokens-per-rank 32 --zero 3 --balancer shadow:1",
    "by steps": "--mesh ep=2,dp=2 --tokens-per-rank 32 --zero 1 --precision fp64:2,bf16:2,layerwise --out steps"
    " --checkpoint-every 4",
    "by steps, again": "--mesh ep=2,dp=2 --tokens-per-rank 32 --zero 1 --precision fp64:2,bf16:2,layerwise"
    " --resume steps/step-00000004",
    "remembering": "--mesh ep=2,dp=2 --tokens-per-rank 32 --zero 1 --balancer damped:Damped --out kept --checkpoint-every 3",
    "remembering, again": "--mesh ep=2,dp=2 --tokens-per-rank 32 --zero 1 --balancer damped:Damped"
    " --resume kept/step-00000003",
    "forgotten": "--mesh ep=2,tp=2 --tokens-per-rank 64 --balancer damped:Damped --resume kept/step-00000003",
    "straight on": "--mesh ep=2,dp=2 --tokens-per-rank 32 --zero 3 --resume run --steps 8",
}
DAMPED = """
import numpy as np
from athanor.workloads.routing.balancers import Balancer, Carried


class Damped(Balancer):
    remembers = True

    def carry(self, wanted, tokens, past):
        every = wanted.sum(axis=0)
        mean = past.state.setdefault("mean", every + 0.0)
        past.state["times"] = past.state.get("times", 0) + 1
        before = past.wanted(2)
        more = 1 + (0 if before is None else int(before.max() > every.max()))
        past.state["mean"] = 0.5 * mean + 0.5 * every
        kept = np.minimum(every, np.ceil(mean).astype(np.int64) + more)
        return Carried(kept, moved=0 * kept[:, 0], dropped=(every - kept).sum(axis=-1))
"""
WRONG = {
    "--resume nowhere": "--resume nowhere: has no whole checkpoint (a folder step-N with manifest.json)",
    "--mesh ep=4 --optimizer sgd --steps 9 --resume run": "--optimizer was adam, and is sgd now",
    "--mesh ep=4 --steps 6 --resume run": "has 6 steps already; --steps 6 counts those too",
    "--checkpoint-every 2": "--checkpoint-every: needs --out DIR, the folder that checkpoints go to",
    "--data model.toml": "is read byte by byte, and the model has 37 words; needs 256",
}


def all_runs(folder):
    """Everything in one job, in turn."""
    (folder / "model.toml").write_text(MODEL)
    (folder / "damped.py").write_text(DAMPED)
    commands = [f"{COMMON} {words}".split() for words in (*RUNS.values(), *WRONG)]
    for name, answer in zip((*RUNS, *WRONG), told(folder, 4, commands), strict=True):
        (folder / f"{[*RUNS, *WRONG].index(name)}.json").write_text(
            json.dumps([sorted(answer.statuses), answer.out, answer.said, answer.errors])
        )


@pytest.fixture(scope="module")
def answers(once):
    """(statuses, summary or text) by name, and the folder."""
    folder = once("trained", all_runs)
    names = [*RUNS, *WRONG]
    return {name: json.loads((folder / f"{at}.json").read_text()) for at, name in enumerate(names)}, folder


@pytest.fixture(scope="module")
def runs(answers):
    """The summaries."""
    found = {}
    for name in RUNS:
        statuses, out, _, errors = answers[0][name]
        assert statuses == [0], errors
        found[name] = json.loads(out)
    return found


@needs_mpi
def test_a_run_is_that_of_one_process(runs, answers):
    """The same losses and norms to 1e-10, from one process that has all tokens."""
    alone = athanor.train(
        "laptop",
        answers[1] / "model.toml",
        tokens_per_rank=128,
        precision="fp64",
        balancer="none",
        steps=6,
        mesh={"dp": 1},
    ).summary()
    assert alone["ranks"] == 1 and alone["mesh"] == {"dp": 1}
    for key in ("loss", "gradient_norm"):
        assert runs["four ranks"][key] == pytest.approx(alone[key], rel=1e-10)
        assert len(set(alone[key])) == 6
    assert runs["four ranks"]["tokens"] == alone["tokens"] == 6 * 128


@needs_mpi
def test_gates_are_trained_as_in_one_process(runs, answers):
    """Biases follow the load of all ranks, and the z-loss is of single tokens."""
    usual = {"tokens_per_rank": 128, "precision": "fp64", "balancer": "none", "steps": 6, "mesh": {"dp": 1}}
    alone = athanor.train("laptop", answers[1] / "model.toml", z_loss=0.02, gate_bias=0.03, **usual).summary()
    assert runs["gates"]["loss"] == pytest.approx(alone["loss"], rel=1e-10)
    assert runs["gates"]["loss"][2:] != pytest.approx(runs["four ranks"]["loss"][2:], rel=1e-4)


@needs_mpi
def test_a_run_goes_on_to_the_bit(runs):
    for key in ("loss", "gradient_norm"):
        assert runs["again"][key] == runs["four ranks"][key]


@needs_mpi
def test_a_policy_goes_on_with_what_it_remembers(runs, answers):
    """On the same mesh to the bit, from the middle of what it has seen; on another it begins anew, and that is said."""
    whole, again, other = (runs[name] for name in ("remembering", "remembering, again", "forgotten"))
    for key in ("loss", "gradient_norm"):
        assert again[key] == whole[key] != runs["four ranks"][key]
    assert not any("balancing policy" in text for text in again["warnings"])
    assert any(
        "begins without what it had seen: it was damped:Damped on the mesh" in text for text in other["warnings"]
    )
    assert not list(answers[1].glob("run/*/balancing-*"))  # one that looks at nothing leaves nothing


@needs_mpi
@pytest.mark.parametrize("name", ["replicas", "shadows"])
def test_copies_of_experts_change_loads_and_no_number(name, runs):
    """Whoever computes a token's expert: losses and norms of gradients are those without copies."""
    for key in ("loss", "gradient_norm"):
        assert runs[name][key] == pytest.approx(runs["four ranks"][key], rel=1e-10)
    balance = runs[name]["load_balance"]
    assert balance["max_over_mean"] != balance["wanted_max_over_mean"] > 1


@needs_mpi
def test_formats_change_by_step(runs, answers):
    """Two steps are those of double precision, then formats round; from a checkpoint between two policies to the bit."""
    changed, loss = runs["by steps"], runs["four ranks"]["loss"]
    assert changed["loss"][:2] == loss[:2] and changed["loss"][2:4] != loss[2:4]
    assert changed["loss"] == pytest.approx(loss, rel=1e-2)
    assert changed["loss_scale"] == [1, 1, 1, 1, 65536, 65536]
    for key in ("loss", "gradient_norm"):
        assert runs["by steps, again"][key] == changed[key]
    alone = {"tokens_per_rank": 128, "balancer": "none", "steps": 6, "mesh": {"dp": 1}}
    one = athanor.train("laptop", answers[1] / "model.toml", precision="fp64:2,bf16:2,layerwise", **alone).summary()
    assert changed["loss"] == pytest.approx(one["loss"], rel=2e-3)


@needs_mpi
def test_a_run_goes_on_upon_other_meshes_and_comes_back(runs):
    """Cut otherwise and with other shards, the numbers are the same but for the order of sums."""
    for key in ("loss", "gradient_norm"):
        assert runs["cut"][key] == pytest.approx(runs["four ranks"][key], rel=1e-10)
        assert runs["further"][key] == pytest.approx(runs["straight on"][key], rel=1e-10)
        assert len(runs["further"][key]) == 8


@needs_mpi
@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_is_said_in_a_line(words, answers):
    statuses, out, said, errors = answers[0][words]
    assert statuses == [2] and not out, errors
    (line,) = said
    assert WRONG[words] in line


@needs_mpi
def test_recorded_loads_are_replayed(answers):
    """The simulator wants of every expert what the run has recorded."""
    _, folder = answers
    text = (folder / "run" / "loads.csv").read_text().splitlines()
    assert len(text) == 1 + 6 * 2 * 4
    counts = np.array([int(line.split(",")[3]) for line in text[1:]]).reshape(6, 2, 4)
    assert (counts.sum(axis=2) == 128 * 2).all()
    options = {"mesh": {"ep": 2, "dp": 2}, "tokens_per_rank": 32, "balancer": "none", "steps": 6}
    run = athanor.simulate("laptop", folder / "model.toml", router=f"trace:{folder / 'run' / 'loads.csv'}", **options)
    by_rank = counts.reshape(6, 2, 2, 2).sum(axis=3)
    expected = (by_rank.max(axis=2) / by_rank.mean(axis=2)).max()
    assert run.summary()["load_balance"]["wanted_max_over_mean"] == pytest.approx(expected, abs=0.02)


@needs_mpi
def test_steps_are_predicted_one_by_one_from_recorded_loads(answers, runs):
    """What train --predict says is what simulate says of the replayed loads, and compare says the same of both files."""
    _, folder = answers
    options = {"mesh": {"ep": 2, "dp": 2}, "tokens_per_rank": 32, "balancer": "none", "steps": 6, "zero": "1"}
    options |= {"precision": "fp64", "router": f"trace:{folder / 'run' / 'loads.csv'}"}
    run = athanor.simulate("laptop", folder / "model.toml", **options)
    found = runs["four ranks"]["predicted"]
    assert found["step_seconds"] == run.totals.each_step_seconds and len(set(found["step_seconds"])) > 1
    measured = runs["four ranks"]["step_seconds"]
    errors = [ours / theirs - 1 for ours, theirs in zip(found["step_seconds"], measured, strict=True)]
    assert found["relative_errors"] == pytest.approx(errors)
    assert found["errors"]["count"] == 5 and found["errors"]["bias"] == pytest.approx(np.mean(errors[1:]))
    assert 0 < found["data_share"] < 1
    rows = (folder / "run" / "predicted.csv").read_text().splitlines()
    assert len(rows) == 7 and {"predicted.png", "predicted.svg"} <= {each.name for each in (folder / "run").iterdir()}
    compared = PredictedTraining.of(run, read_training(folder / "run" / "training.json"))
    assert {**compared.plain(), "notes": []} == {**found, "notes": []}


def record(seconds, first=0):
    told = {"model": "small", "mesh": {"dp": 2}, "ranks": 2, "tokens_per_rank": 64, "tokens_per_step": 128}
    run = TrainingRun(told, step_seconds=seconds, data_seconds=[0.1 * each for each in seconds], first=first)
    run.loss = [1.0] * len(seconds)
    return run.summary()


def prediction(seconds, **changed):
    totals = {"model": "small", "mesh": {"dp": 2}, "ranks": 2, "tokens_per_rank": 64, "machine": "m", "phases": {}}
    totals |= {"each_step_seconds": seconds, "network": SimpleNamespace(depth="fluid"), "fitted_constants": ["x"]}
    return SimpleNamespace(totals=SimpleNamespace(**{**totals, **changed}))


def test_errors_of_predicted_steps_are_those_of_this_jobs_warm_steps():
    """Steps before a checkpoint belong to another job, and the first of a job counts for no error."""
    found = PredictedTraining.of(prediction([1.0] * 6), record([9.0, 9.0, 5.0, 2.0, 1.0, 0.8], first=2))
    assert found.first == 2 and list(found.measured) == [5.0, 2.0, 1.0, 0.8]
    plain = found.plain()
    assert plain["errors"]["count"] == 3 and plain["left_out"] == 1
    assert plain["errors"]["bias"] == pytest.approx((-0.5 + 0.0 + 0.25) / 3)
    assert plain["errors"]["mape"] == pytest.approx(0.25)
    assert plain["errors"]["worst"] == {"name": "step 4", "relative_error": pytest.approx(-0.5)}
    assert plain["data_share"] == pytest.approx(0.1)
    one = PredictedTraining.of(prediction([1.0]), record([2.0, 1.0, 4.0]))  # of a dense model one step stands for all
    assert list(one.predicted) == [1.0] * 3
    for wrong, steps in (
        (prediction([1.0, 2.0]), 3),
        (prediction([1.0], ranks=4), 1),
        (prediction([1.0], mesh={"dp": 4}), 1),
    ):
        with pytest.raises(InputError, match=r"must be|was|were"):
            PredictedTraining.of(wrong, record([1.0] * steps))


@needs_mpi
def test_a_checkpoint_that_was_changed_is_refused(answers, tmp_path):
    """One byte of a shard is enough; and a folder without a manifest is no checkpoint."""
    _, folder = answers
    for name in ("step-00000003", "step-00000006"):
        shutil.copytree(folder / "run" / name, tmp_path / name)
    assert latest(tmp_path).name == "step-00000006"
    (tmp_path / "step-00000006" / "manifest.json").unlink()
    assert latest(tmp_path).name == "step-00000003"
    shard = tmp_path / "step-00000003" / "rank-00001.npz"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    options = {"tokens_per_rank": 128, "precision": "fp64", "balancer": "none", "steps": 9, "mesh": {"dp": 1}}
    with pytest.raises(Ended, match=r"rank-00001\.npz is not what manifest\.json says"):
        athanor.train("laptop", folder / "model.toml", resume=tmp_path, **options)


def test_the_made_corpus_has_the_entropy_that_it_says():
    """Counts of pairs of words come to it, and nothing else than a word's eight successors follows it."""
    corpus = Made(20, seed=3)
    words = corpus.batch(0, 4000, 33)
    pairs = Counter(zip(words[:, :-1].reshape(-1).tolist(), words[:, 1:].reshape(-1).tolist(), strict=True))
    before = Counter(words[:, :-1].reshape(-1).tolist())
    total = sum(pairs.values())
    found = -sum(count / total * np.log(count / before[pair[0]]) for pair, count in pairs.items())
    assert found == pytest.approx(corpus.entropy, abs=0.01)
    assert all(after in corpus.successors[word] for word, after in pairs)
    assert (corpus.batch(1, 4, 9) == Made(20, seed=3).batch(1, 4, 9)).all()
    assert (corpus.batch(1, 4, 9) != corpus.batch(2, 4, 9)).any()


def test_a_text_is_read_byte_by_byte(tmp_path):
    (tmp_path / "text").write_text("abcdefghij")
    corpus = corpus_of(str(tmp_path / "text"), 300, seed=0)
    words = corpus.batch(0, 50, 4)
    assert (np.diff(words) == 1).all() and words.min() == ord("a") and words.max() == ord("j")
    with pytest.raises(InputError, match="has 10 bytes, a sequence with its target 11"):
        corpus.batch(0, 1, 11)


@needs_mpi
def test_steps_that_overflow_update_nothing(tmp_path):
    """At a scale of 10^12 no gradient fits into halves; weights stay, so that the losses are those of a rate of zero."""
    (tmp_path / "model.toml").write_text(MODEL)
    usual = {"tokens_per_rank": 32, "precision": "O2", "steps": 3, "mesh": {"dp": 1}, "balancer": "none"}
    skipped = athanor.train("laptop", tmp_path / "model.toml", loss_scale="1e12", **usual).summary()
    assert [each["what"] for each in skipped["scale_events"]] == ["skipped"] * 3
    assert skipped["loss_scale"] == [1e12] * 3
    still = athanor.train("laptop", tmp_path / "model.toml", optimizer="adam:learning_rate=0", **usual).summary()
    moved = athanor.train("laptop", tmp_path / "model.toml", optimizer="adam:learning_rate=0.1", **usual).summary()
    assert skipped["loss"] == still["loss"] != moved["loss"]
    assert not still["scale_events"]
