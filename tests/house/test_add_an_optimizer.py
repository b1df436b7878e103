"""The how-to page of optimizers does what it says: its class is found everywhere, and no file of Athanor is touched."""

import json
import re
import sys

import athanor
import numpy as np
import pytest
from athanor.mpi_runtime.training.optimizer_rounds import update_alone
from athanor.workloads.model.tensors import Tensor
from athanor.workloads.optimizers import OPTIMIZERS, TensorShare
from support.mpi_jobs import JOBS, job, needs_mpi
from support.paths import ROOT

PAGE = (ROOT / "docs" / "howto" / "add-an-optimizer.md").read_text()
OWN = "own_optimizers:Lion"
PLAN = {"machine": "laptop", "model": "gpt-tiny", "mesh": {"dp": 4}, "zero": "2", "global_batch": 8, "precision": "O0"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on Python's path with the page's module."""
    (tmp_path / "own_optimizers.py").write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1])
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_optimizers", None)


def test_it_is_simulated(folder):
    own, sgd = (athanor.simulate(**PLAN, optimizer=name) for name in (OWN, "sgd"))
    names = set(own.to_frame()["operation"])
    assert {name for name in names if name.startswith("update.lion.")} == {
        f"update.lion.{part}" for part in ("ffn", "attention", "norm", "embedding")
    }
    mine, other = (run.totals["memory_per_rank_bytes"]["optimizer"] for run in (own, sgd))
    assert mine == other, "one momentum, as SGD has"


def test_memory_and_planner_know_it(folder):
    options = {key: value for key, value in PLAN.items() if key != "mesh"}
    tries = [f"optimizer=adam;{OWN}:beta1=0.95", "tp=1", "pp=1", "overlap=none", "recompute=none", "micro_batch=1"]
    found = athanor.plan(**options, gpus=4, tries=tries, simulated=2)
    need = {plan.options["optimizer"]: plan.memory for plan, _ in found.plans}
    assert need.keys() == {"adam", f"{OWN}:beta1=0.95"}
    assert need["adam"]["optimizer"] > need[f"{OWN}:beta1=0.95"]["optimizer"]


@needs_mpi
def test_it_trains_over_mpi_as_one_process_does(folder):
    """The job compares loss, gradients and weights with the serial model, updated by the same class."""
    plans = [
        {"mesh": {"tp": 2}, "precision": "fp64", "tokens_per_rank": 64, "optimizer": OWN},
        {"mesh": {"dp": 2}, "zero": "2", "precision": "fp64", "tokens_per_rank": 64, "optimizer": f"{OWN}:beta2=0.9"},
    ]
    done = job(2, "python", JOBS / "dense.py", *map(json.dumps, plans), PYTHONPATH=str(folder))
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert json.loads(line)["summary"]["measured"]["checked"]["weights"] > 0


def test_its_update_is_the_published_one(folder):
    """Algorithm 2 of Chen et al. 2023."""
    lion, random = OPTIMIZERS.find(f"{OWN}:learning_rate=0.01"), np.random.default_rng(0)
    weights = random.standard_normal(9)
    w, m, state = weights.copy(), np.zeros(9), {"momentum": np.zeros(9)}
    for step in range(1, 5):
        g = random.standard_normal(9)
        update_alone(lion, "ffn", TensorShare(Tensor(1, 9), np.arange(9), weights, None, g, state, step))
        w = w - 0.01 * (np.sign(0.9 * m + 0.1 * g) + 0.1 * w)
        m = 0.99 * m + 0.01 * g
    assert np.allclose(weights, w, rtol=1e-12)


def test_what_is_missing_is_said(folder):
    (folder / "own_optimizers.py").write_text("class Lion:\n    pass\n")
    with pytest.raises(athanor.InputError, match=r"own_optimizers:Lion is no optimizer: it has no "):
        athanor.simulate(**PLAN, optimizer=OWN)
