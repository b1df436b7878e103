"""Models with experts for real: the serial model against finite differences, and every strategy against the serial model."""

import json

import numpy as np
import pytest
from athanor.mpi_runtime.training.token_routing import Routing, Tells, settle_together
from athanor.mpi_runtime.training.transformer.experts import gate
from athanor.mpi_runtime.training.transformer.experts.gate_training import GateTraining
from athanor.mpi_runtime.training.transformer.reference import Reference
from athanor.mpi_runtime.training.transformer.weights.shards import Sizes, Weight
from athanor.workloads.model.model import load_model
from athanor.workloads.routing.balancers import BALANCERS
from athanor.workloads.routing.balancers.past import BEGINNING
from support.gradients import gradients_that_are_finite_differences
from support.mpi_jobs import job, needs_mpi
from support.paths import JOBS

PLAIN = Sizes(2, 4, 4, 2, 8, 12, 16, experts=4, expert_hidden=6, top_k=1, moe=(True, True))
MODERN = Sizes(2, 4, 2, 3, 8, 12, 15, True, True, False, 4, 5, 2, 7, (False, True))
"""Two choices, gated experts, one beside them that every token passes, and a dense layer first."""


@pytest.mark.parametrize("sizes", [PLAIN, MODERN])
def test_gradients_are_finite_differences(sizes):
    """Of all weights, the gate's among them, where no choice is near another."""
    model, random = Reference(sizes, seed=1), np.random.default_rng(2)
    words = random.integers(0, sizes.vocabulary, (3, 9))
    words, targets, step = words[:, :-1], words[:, 1:], 1e-6
    gradients = gradients_that_are_finite_differences(model, words, targets, step, random, rel=1e-4)
    assert np.abs(gradients[Weight(1, "moe", "gate")]).max() > 1e-5


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_weights_of_answers_have_the_gradient_of_finite_differences(top_k):
    """Also where choices were dropped."""
    random = np.random.default_rng(top_k)
    scores, back = random.standard_normal((7, 5)), random.standard_normal((7, top_k))
    expert = gate.best(scores, top_k)
    expert[random.random(expert.shape) < 0.3] = -1
    direction, step = random.standard_normal(scores.shape), 1e-6
    ends = [np.sum(back * gate.weights(gate.chances(scores + way * direction), expert)) for way in (step, -step)]
    found = gate.weights_grad(gate.chances(scores), expert, back)
    assert np.sum(found * direction) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)
    assert (gate.weights(gate.chances(scores), expert)[expert < 0] == 0).all()


@pytest.mark.parametrize("name", ["none", "swipe", "even", "capacity:1", "capacity:0.5"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_groups_settle_as_their_policy_says(name, top_k):
    """What ranks carry is what the policy carries of what they want, and no token is lost but for those dropped."""
    random, ranks, local, tokens = np.random.default_rng(5), 4, 2, 24
    policy = BALANCERS.find(name)
    chance = np.array([8, 4, 2, 2, 1, 1, 1, 1]) / 20
    wanted = np.array([[random.choice(8, top_k, replace=False, p=chance) for _ in range(tokens)] for _ in range(ranks)])
    routings = [Routing(each, ranks, local, at) for at, each in enumerate(wanted)]
    counts = np.stack([each.by_choice() for each in routings], axis=1)
    settle_together(routings, policy, Tells.of(policy, ranks, tokens, top_k), BEGINNING)
    carried = sum(each.counts().sum(axis=1) for each in routings)
    expected = policy.carry(counts.sum(axis=1)[:, None], tokens, BEGINNING)
    assert carried.tolist() == expected.tokens[0].tolist()
    assert sum(each.dropped for each in routings) == expected.dropped[0]


SMALL = """
name = "small-moe"
layers = 2
heads = 4
hidden = 16
ffn_hidden = 24
experts = 4
top_k = 1
vocabulary = 37
seq_len = 8
"""
FINE = """
name = "fine-moe"
layers = 2
heads = 8
kv_heads = 4
hidden = 16
ffn_hidden = 24
expert_hidden = 12
gated = true
norm = "rms"
tied = false
experts = 4
top_k = 2
shared_experts = 1
dense_first = 1
vocabulary = 37
seq_len = 8
"""
PLANS = {
    ("SMALL", 4): [
        {"mesh": {"dp": 2, "ep": 2}, "balancer": "swipe", "zero": "hierarchical", "overlap": "gradients"},
        {"mesh": {"ep": 2, "tp": 2}, "balancer": "swipe", "zero": "1", "sequence_parallel": True},
        {"mesh": {"ep": 2, "tp": 2}, "balancer": "swipe", "zero": "1", "expert_tensor": "whole"},
        {"mesh": {"tp": 4}, "balancer": "none", "expert_tensor": "whole", "sequence_parallel": True, "top_k": 2},
        {"mesh": {"pp": 2, "ep": 2}, "balancer": "even", "pipeline": "gpipe", "zero": "2"},
        {"mesh": {"cp": 2, "ep": 2}, "balancer": "swipe", "zero": "3", "attention": "fused"},
        {"mesh": {"pp": 2, "tp": 2}, "balancer": "none", "expert_tensor": "whole"},
        {"mesh": {"tp": 4}, "balancer": "none", "expert_tensor": "2", "sequence_parallel": True, "zero": "1"},
        {"mesh": {"cp": 4}, "balancer": "swipe", "expert_context": "2", "zero": "1", "tokens_per_rank": 64},
        {"mesh": {"cp": 2, "ep": 2}, "balancer": "swipe", "zero": "1", "expert_context": "spread"},
        {"mesh": {"cp": 2, "tp": 2}, "balancer": "none", "expert_parallel": 4, "expert_tensor": "whole", "top_k": 2},
        {"mesh": {"ep": 4}, "balancer": "swipe", "optimizer": "muon", "zero": "1", "way": {"collectives": "library"}},
        {"mesh": {"ep": 2, "dp": 2}, "balancer": "none", "zero": "1", "framework": "megatron"},
        {"mesh": {"ep": 2, "tp": 2}, "balancer": "swipe", "precision": "bf16", "zero": "1"},
        {"mesh": {"ep": 4}, "balancer": "shadow:1", "router": "zipf:1.5", "zero": "1", "recompute": "full"},
        {"mesh": {"ep": 2, "pp": 2}, "balancer": "shadow:1", "router": "zipf:1.5", "pipeline": "zb-h1", "zero": "1"},
        {
            "mesh": {"ep": 2, "dp": 2},
            "precision": "bf16",
            "gradients": "bf16",
            "zero": "2",
            "way": {"collectives": "library"},
        },
    ],
    ("FINE", 4): [
        {"mesh": {"ep": 2, "dp": 2}, "balancer": "capacity:1", "zero": "0"},
        {"mesh": {"ep": 4}, "balancer": "swipe", "all_to_all": "two-level", "zero": "1"},
        {"mesh": {"ep": 2, "tp": 2}, "balancer": "capacity:1", "sequence_parallel": True, "recompute": "full"},
        {"mesh": {"ep": 2, "tp": 2}, "balancer": "none", "zero": "1"},
        {"mesh": {"ep": 2, "tp": 2}, "expert_tensor": "whole", "sequence_parallel": True, "recompute": "full"},
        {"mesh": {"tp": 4}, "balancer": "none", "expert_tensor": "2", "recompute": "full"},
        {"mesh": {"ep": 2, "pp": 2}, "balancer": "swipe", "pipeline": "zb-h1", "zero": "1"},
        {"mesh": {"ep": 2, "pp": 2}, "balancer": "capacity:1", "overlap": "gradients", "zero": "2"},
        {"mesh": {"ep": 2, "cp": 2}, "balancer": "swipe", "zero": "1"},
        {"mesh": {"ep": 2, "fsdp": 2}, "balancer": "swipe", "zero": "3", "micro_batch": 2, "recompute": "full"},
        {"mesh": {"fsdp": 2, "ep": 2}, "balancer": "none", "zero": "2", "micro_batch": 2, "overlap": "gradients"},
        {"mesh": {"dp": 4}, "balancer": "swipe", "zero": "1"},
        {"mesh": {"ep": 2, "dp": 2}, "balancer": "expert-choice", "zero": "1", "recompute": "full"},
    ],
    ("FINE", 8): [
        {"mesh": {"ep": 2, "tp": 2, "pp": 2}, "balancer": "swipe", "zero": "0", "sequence_parallel": True},
        {"mesh": {"dp": 2, "ep": 2, "tp": 2}, "balancer": "swipe", "zero": "3"},
        {"mesh": {"dp": 2, "ep": 2, "cp": 2}, "balancer": "capacity:1", "zero": "2", "recompute": "full"},
        {"mesh": {"pp": 2, "ep": 2, "dp": 2}, "balancer": "swipe", "zero": "1", "pipeline": "1f1b"},
    ],
}


@needs_mpi
@pytest.mark.parametrize(("name", "ranks"), PLANS)
def test_strategies_train_as_one_process_does(name, ranks, tmp_path):
    """Loss, all gradients and all weights, compared by the job itself in double precision."""
    path = tmp_path / "model.toml"
    path.write_text({"SMALL": SMALL, "FINE": FINE}[name])
    usual = {"model": str(path), "precision": "fp64", "tokens_per_rank": 32, "router": "zipf:0.7"}
    done = job(ranks, "python", JOBS / "dense.py", *(json.dumps({**usual, **plan}) for plan in PLANS[name, ranks]))
    assert done.returncode == 0 and not done.stderr, done.stderr
    total = load_model(path).parameters.total
    for line in done.stdout.splitlines():
        found = json.loads(line)["summary"]
        assert found["measured"]["checked"]["losses"] == ranks
        assert min(found["measured"]["checked"][key] for key in ("gradients", "weights")) >= total


# --- what trains gates beside the loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 3])
def test_auxiliary_losses_have_the_gradient_of_finite_differences(pieces):
    """While choices stay, which have no gradient."""
    random = np.random.default_rng(1)
    scores = random.standard_normal((12, 5))
    gates, wanted = GateTraining(0.3, 0.2, pieces=pieces), gate.best(scores, 2)
    direction, step = random.standard_normal(scores.shape), 1e-6
    ends = [gates.loss(scores + way * direction, wanted) for way in (step, -step)]
    found = np.sum(gates.gradient(scores, wanted, len(scores)) * direction)
    assert found == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


def test_the_balance_loss_is_alpha_where_experts_are_even_and_alpha_times_their_number_where_one_has_all():
    """0.01 and 1.28 for 128 experts at 0.01 (Fedus et al. 2021)."""
    experts, gates = 128, GateTraining(0.01)
    even = np.log(np.full((experts, experts), 1e-9) + np.eye(experts))
    assert gates.loss(even, gate.best(even, 1)) == pytest.approx(0.01, rel=1e-6)
    one = np.zeros((experts, experts))
    one[:, 5] = 100
    assert gates.loss(one, gate.best(one, 1)) == pytest.approx(1.28, rel=1e-6)


def test_biases_follow_the_load_by_its_sign():
    """Chosen by scores with biases, weighted by scores alone; what is above the mean loses, below it wins."""
    gates, scores = GateTraining(bias_rate=0.25), np.log(np.array([[0.6, 0.3, 0.1]]))
    assert gates.wanted(0, scores, 1).tolist() == [[0]]
    gates.adjust({0: np.array([8, 1, 3]), 1: np.array([4, 4, 4])})
    assert gates.biases[0].tolist() == [-0.25, 0.25, 0.25] and gates.biases[1].tolist() == [0, 0, 0]
    assert gates.wanted(0, scores, 1).tolist() == [[1]]
    assert gates.wanted(1, scores, 1).tolist() == [[0]]
