"""What a checkpoint holds: published sizes, and that replicas, stages and sharding leave it what it is."""

import pytest
from athanor.workloads.memory.checkpoint import checkpoint_bytes
from athanor.workloads.plan.setting import Setting


@pytest.mark.parametrize(
    ("model", "mesh", "published"),
    [
        ("bloom-176b", "pp=12,dp=8,tp=4", 2.3 * 2**40),  # bigscience: 2.3 TB as file systems count them
        ("llama3-8b", "dp=8", 105 * 2**30),  # MLPerf Storage, llama3-8b
        ("llama3-405b", "dp=64,tp=8", 5.29 * 2**40),  # MLPerf Storage, llama3-405b
    ],
)
def test_published_sizes(model, mesh, published):
    options = {"mesh": mesh, "precision": "bf16", "optimizer": "adam"}
    size = checkpoint_bytes(Setting.of("eos-h100", model, options))
    assert size == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("mesh", ["dp=4", "ep=4", "tp=2,dp=2", "ep=2,dp=2"])
@pytest.mark.parametrize("zero", ["0", "1", "3"])
def test_each_number_is_saved_once(mesh, zero):
    one = checkpoint_bytes(Setting.of("cluster-64", "moda-tiny", {"mesh": "dp=1", "zero": "0", "precision": "O2"}))
    options = {"mesh": mesh, "zero": zero, "precision": "O2", "ranks_per_node": 1}
    assert checkpoint_bytes(Setting.of("cluster-64", "moda-tiny", options)) == pytest.approx(one)


@pytest.mark.parametrize(("optimizer", "each"), [("sgd", 2 + 8), ("adam", 2 + 12)])
def test_the_optimizer_says_what_it_keeps(optimizer, each):
    setting = Setting.of("cluster-64", "moda-tiny", {"mesh": "dp=4", "precision": "O2", "optimizer": optimizer})
    assert checkpoint_bytes(setting) / setting.model.parameters.total == pytest.approx(each)
