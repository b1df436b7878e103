"""Costs of messages by size, and links behind token buckets: one law at all depths, and none for machines without."""

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine, read_machine
from athanor.hardware.machine_writer import machine_toml
from athanor.hardware.message_costs import BOTH, HANDED, ONE, MessageCost
from athanor.sim.network.fluid import Fluid
from athanor.sim.network.message_costs import MessageCosts
from athanor.sim.simulate import simulate
from athanor.sim.studies.collective import collective

RATE = 25e6
TABLE = (
    MessageCost(level="supernode", way="one", start=100e-6),
    MessageCost(level="top", way="both", start=400e-6, rate=200e6),
    MessageCost(level="top", way="both", least=65536, start=700e-6, rate=400e6),
)


def tree(table=(), burst=None):
    """Eight nodes in two supernodes, whose cards send 25 MB/s and whose trunks hold nothing back."""
    machine = load_machine("cluster-64").changed(
        {"fabric.supernode": 4, "fabric.taper": 1.0, "node.interface_bandwidth": RATE, "node.interfaces": 1}
        | {"calibration.network_efficiency": 1.0}
    )
    calibration = machine.calibration.model_copy(update={"messages": tuple(table), "link_burst": burst})
    return machine.model_copy(update={"calibration": calibration})


def emptied(offered, burst, step=1e-6):
    """When a link has carried what is ``offered`` (second: bytes), by following its token bucket in small steps."""
    left, tokens, now, last = 0.0, burst * RATE, 0.0, 0.0
    coming = sorted(offered.items())
    while coming or left > 0:
        while coming and coming[0][0] <= now + step / 2:
            left += coming.pop(0)[1]
        sent = min(left, tokens + RATE * step)
        left, tokens = left - sent, min(tokens + RATE * step - sent, burst * RATE)
        now += step
        last = now if sent else last
    return last


@pytest.mark.parametrize("gap", [0.5e-3, 3e-3, 20e-3])
@pytest.mark.parametrize("burst", [0.3e-3, 2e-3])
def test_a_link_is_a_token_bucket(burst, gap):
    fluid = Fluid(2, 1, np.array([RATE, np.inf]), burst)
    one = np.ones(1)
    for slot in (0, 1):
        fluid.book(np.array([slot]), np.zeros((1, 1), dtype=np.int64), np.ones((1, 1)), one, one * np.inf, one * 1e5)
    fluid.begin(np.array([0]))
    fluid.settle()
    come, ends = False, []
    while (now := min(fluid.next(), np.inf if come else gap)) < np.inf:
        ended = fluid.advance(now)
        ends += [now] * len(ended)
        if not come and now >= gap:
            fluid.begin(np.array([1]))
            come = True
        fluid.settle()
    assert len(ends) == 2 and ends[-1] == pytest.approx(emptied({0.0: 1e5, gap: 1e5}, burst), rel=3e-3, abs=2e-5)


@pytest.mark.parametrize(("table", "burst"), [(TABLE, None), ((), 2e-3), (TABLE, 0.2e-3), (TABLE, 2e-3)])
@pytest.mark.parametrize("nbytes", [512, 100_000, 8_000_000])
def test_depths_agree_and_steps_take_what_the_law_says(table, burst, nbytes):
    machine, steps = tree(table, burst), 14
    size = nbytes / 8
    start, rate = machine.fabric.latency(2) + machine.calibration.message_overhead, np.inf
    if table:
        start, rate = (700e-6, 400e6) if size >= 65536 else (400e-6, 200e6)
    hidden = min(burst or 0.0, start)
    first = start + max(size / rate, size / RATE - (burst or 0.0))
    found = [
        collective(machine, "all-reduce", "ring", 8, nbytes, depth=depth).seconds
        for depth in ("message", "fluid", "links")
    ]
    told = first + (steps - 1) * (start + max(size / rate, size / RATE - hidden))
    assert found[1:] == pytest.approx([told] * 2, rel=1e-6)
    left = max(0.0, (burst or 0.0) - start - size / RATE)  # tokens that the first step leaves to the second
    assert found[0] <= told * (1 + 1e-3) and found[0] == pytest.approx(told, rel=1e-3, abs=steps * left + 1e-6)


@pytest.mark.parametrize("depth", ["fluid", "links"])
def test_an_exchange_of_a_step_takes_what_the_collective_takes(depth):
    machine = tree(TABLE, 2e-3)
    run = simulate(machine, "gpt-tiny", mesh={"dp": 8}, zero="0", depth=depth, tokens_per_rank=64)
    (sync,) = [row for row in run.trace if row.collective == "all-reduce"][:1]
    alone = collective(machine, "all-reduce", sync.algorithm, 8, sync.nbytes, depth=depth)
    assert sync.end - sync.start == pytest.approx(alone.seconds, rel=1e-6)


def test_costs_go_by_level_way_and_size_and_what_is_unknown_by_what_is_next():
    costs = MessageCosts.of(tree(TABLE))
    source, target = np.zeros(4, dtype=np.int64), np.array([0, 1, 4, 7])
    sizes = np.array([8.0, 1e6, 65535.0, 65536.0])
    start, rate = costs.start(source, target, sizes, BOTH)
    inside = load_machine("cluster-64").fabric.latency_node + tree().calibration.message_overhead
    assert start.tolist() == pytest.approx([inside, 700e-6, 400e-6, 700e-6])  # no entry is of nodes' insides
    assert rate.tolist() == pytest.approx([np.inf, 400e6, 200e6, 400e6])
    for way in (ONE, HANDED):
        assert costs.start(source, target, sizes, way)[0].tolist() == pytest.approx([inside, *[100e-6] * 3])


def test_a_table_is_written_and_read_and_must_rise():
    machine = tree(TABLE, 2e-3)
    assert read_machine(machine_toml(machine), "it") == machine
    assert ("calibration.messages.1.start", "400 us") in [(key, text) for key, text, _ in machine.numbers()]
    for table, what in (((*TABLE, TABLE[1]), "comes after"), (TABLE[2:], "must have least = 0 B")):
        with pytest.raises(InputError, match=what):
            read_machine(machine_toml(tree(table)), "it")


def pipeline(burst, rate):
    """Seconds of a step of four stages on eight micro-batches, whose messages of 16 KiB need 16 KiB over the rate."""
    machine = tree((), burst).changed({"node.interface_bandwidth": rate})
    options = {"mesh": {"pp": 4}, "zero": "0", "micro_batch": 1, "tokens_per_rank": 512, "depth": "fluid"}
    return simulate(machine, "gpt-tiny", **options)


def test_stages_hand_on_through_buckets():
    """A bucket hides what it holds and no more: cards that are always busy carry all but that at their own rate."""
    slow, fast = 1e6, 1e12
    for rate in (slow, 20e6):
        seconds = [pipeline(burst, rate).totals.step_seconds for burst in (None, 0.0, 1e-4, 1e-3, 1e-2)]
        assert seconds[0] == seconds[1] and seconds == sorted(seconds, reverse=True)
    free = pipeline(None, fast).totals.step_seconds
    assert pipeline(10.0, 20e6).totals.step_seconds == pytest.approx(free, rel=0.01)
    sent = 2 * 8 * 16384  # bytes of a stage between two others, activations and their gradients
    for burst in (1e-3, 1e-2):
        assert pipeline(burst, slow).totals.step_seconds >= (sent / slow - burst) * (1 - 1e-9)
