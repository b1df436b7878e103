"""FSDP with and without resharding between the passes: what is sent, what is whole, and who runs it."""

import pytest
from athanor.hardware.errors import InputError
from athanor.mpi_runtime.execute.capabilities import data_of
from athanor.workloads.memory import account
from athanor.workloads.plan.setting import Setting
from support.memory_settings import TINY, gpt
from support.strategies import DENSE, flat, lowered, moved, plan


@pytest.mark.parametrize("overlap", ["none", "gradients"])
def test_weights_that_stay_whole_are_gathered_once(overlap):
    """3 (n - 1)/n of the parameters with resharding, 2 (n - 1)/n without: gathered before the forward pass alone."""
    each = 7 / 8 * 4 * DENSE.parameters.total
    for zero, times in (("3", 3), ("shard-grad-op", 2)):
        found = moved(lowered(mesh={"dp": 8}, zero=zero, overlap=overlap), "gradient_sync")
        assert found == pytest.approx(times * each)


def test_weights_that_stay_whole_take_room():
    """All of them, in the format of products, beside shards in single precision."""
    model = gpt(**TINY)

    def whole(zero):
        options = {"mesh": {"dp": 8}, "zero": zero, "global_batch": 8, "precision": "bf16"}
        here = Setting.of("selene", model, options)
        lines = {(line.part, line.name, line.what): line.nbytes[0] for line in account(here, []).lines}
        return lines["other", "weights", "layers that are fetched"], here

    kept, here = whole("shard-grad-op")
    assert kept == 2 * model.parameters.total
    layer = model.of_layer(model.stack[0]).total
    assert whole("3")[0] == 2 * max(2 * layer, model.of_input.total + model.of_output.total)
    assert here.framework is Setting.of("selene", model, {"mesh": {"dp": 8}, "zero": "3", "global_batch": 8}).framework


def test_the_runtime_says_what_it_does_not_run():
    here = Setting.of(flat(), DENSE, plan(mesh={"dp": 2}, zero="shard-grad-op"))
    with pytest.raises(InputError, match="--zero shard-grad-op: the runtime lets weights go behind each pass"):
        data_of(here, True, True)
