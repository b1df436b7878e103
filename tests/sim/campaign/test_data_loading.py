"""Data: what steps demand of a file system, when they wait, and that each law has its closed form."""

import numpy as np
import pytest
from athanor.hardware.machine import load_machine
from athanor.hardware.site.storage import Storage
from athanor.sim.campaign.storage.data_loading import largest_normal, load_steps, mean_stall
from athanor.workloads.datasets import list_datasets, load_dataset

MACHINE = load_machine("eos-h100")

DEMANDS = [
    ("unet3d", 7, 0.323, 3.18),
    ("unet3d", 7, 0.636, 1.61),
    ("resnet50", 400, 0.224, 0.205),
    ("resnet50", 400, 0.435, 0.105),
    ("cosmoflow", 1, 0.00350, 0.808),
    ("cosmoflow", 1, 0.00551, 0.513),
]
"""MLPerf Storage: data set, batch of an accelerator, its seconds a step on H100 and A100, and GB/s that follow."""


def loaded(name, samples, step, nodes=1, storage=None, **more):
    storage = storage or Storage(read=1e15, write=1e15, metadata_rate=1e12, latency=0.0)
    return load_steps(load_dataset(name), samples, step, MACHINE, storage, nodes, **more)


@pytest.mark.parametrize(("name", "batch", "step", "demand"), DEMANDS)
def test_accelerators_demand_what_mlperf_storage_says(name, batch, step, demand):
    assert loaded(name, batch, step).bytes_per_second / 1e9 == pytest.approx(demand, rel=0.005)


@pytest.mark.parametrize(("name", "batch", "step", "demand"), DEMANDS)
def test_a_file_system_that_gives_less_than_that_is_waited_for(name, batch, step, demand):
    def reached(share):
        storage = Storage(read=share * demand * 1e9, write=1e9, metadata_rate=1e12, latency=0.0)
        return loaded(name, batch, step, storage=storage).utilisation

    slow = loaded(
        name, batch, step, storage=Storage(read=0.5 * demand * 1e9, write=1e9, metadata_rate=1e12, latency=0.0)
    )
    assert slow.step_seconds == step + slow.stall_seconds > 1.9 * step
    assert reached(1.1) > 0.99
    assert reached(0.9) == pytest.approx(0.9, rel=0.01)
    assert reached(0.5) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("prefetch", [0, 1, 2, 8])
def test_steady_stalls_have_closed_forms(prefetch):
    def stall(read, decode, step=1.0):
        return mean_stall(np.full(600, read), np.full(600, decode), step, prefetch)

    if prefetch == 0:
        assert stall(0.3, 0.2) == pytest.approx(0.5)
        return
    assert stall(0.3, 0.2) == pytest.approx(0.0, abs=1e-9)
    if prefetch == 1:  # one batch ahead: reading begins when the step before does
        assert stall(0.7, 0.6) == pytest.approx(0.3, abs=0.01)
    else:
        assert stall(0.7, 0.6) == pytest.approx(0.0, abs=1e-9)
        assert stall(1.4, 0.2) == pytest.approx(0.4, abs=0.01)
        assert stall(0.2, 1.3) == pytest.approx(0.3, abs=0.01)


def test_more_batches_ahead_smooth_what_varies():
    random = np.random.default_rng(0)
    reads = 0.9 * random.gamma(4.0, 0.25, size=2000)
    stalls = [mean_stall(reads, np.zeros(2000), 1.0, prefetch) for prefetch in (0, 1, 2, 4, 16, 64)]
    assert stalls == sorted(stalls, reverse=True)
    assert stalls[0] == pytest.approx(reads.mean(), rel=0.01)
    assert stalls[-1] < 0.03


@pytest.mark.parametrize("of", [1, 4, 64, 5000])
def test_the_slowest_of_many_nodes(of):
    found = largest_normal(np.random.default_rng(1), of, 4000).mean()
    drawn = np.random.default_rng(2).standard_normal((1000, of)).max(axis=1).mean()
    assert found == pytest.approx(drawn, abs=0.12)


def test_the_largest_batch_of_many_nodes_is_waited_for():
    storage = Storage(read=1e15, write=1e15, client=2.5e9, metadata_rate=1e12, latency=0.0)
    one, many = (loaded("unet3d", 7 * nodes, 0.5, nodes, storage=storage) for nodes in (1, 1000))
    assert many.stall_seconds > one.stall_seconds + 0.05


def test_decoding_takes_workers():
    slow, fast = (loaded("m6-corpus", 4000, 0.05, workers=workers) for workers in (2, 32))
    assert slow.decode_seconds == pytest.approx(4000 * 200e-6 / 2)
    assert slow.stall_seconds == pytest.approx(slow.decode_seconds - 0.05, rel=0.02)
    assert fast.stall_seconds == pytest.approx(0.0, abs=1e-9)


def test_m6_corpus_is_what_its_parts_are():
    data = load_dataset("m6-corpus")
    sizes = {each.name: each.size for each in data.part}
    assert sizes["text"] == pytest.approx((15 + 70 + 12.2) * 1e9)
    assert sizes["images"] == pytest.approx((0.1 + 1.5 + 0.3) * 1e12)
    assert sizes["features"] / sizes["images"] == pytest.approx(8.4, rel=0.01)
    assert sizes["features"] / 96_000 == pytest.approx(167e6, rel=0.01)
    assert data.nbytes == sizes["text"] + sizes["features"]


def test_every_data_set_names_its_sources():
    for each in list_datasets():
        assert {f"part.{number}" for number in range(len(each.part))} <= set(each.sources), each.name
