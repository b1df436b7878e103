"""A collective by itself and a step that holds nothing else are one thing at each depth."""

from __future__ import annotations

import numpy as np
import pytest
from athanor.hardware.machine import load_machine
from athanor.sim.engine.bound_engine import BoundEngine
from athanor.sim.engine.noise import Noise
from athanor.sim.engine.rank_engine import RankByRank
from athanor.sim.engine.step_engine import Engine
from athanor.sim.network.phases.transfers import Traffic
from athanor.sim.studies.collective import Collective
from athanor.workloads.collectives import ALGORITHMS
from athanor.workloads.schedule.operation import Operation
from athanor.workloads.schedule.schedule import Schedule
from athanor.workloads.schedule.work import Exchange


def step_seconds(asked, algorithm, nbytes, depth):
    """What a step takes that holds only this exchange."""
    work = Exchange(asked.operation, algorithm, ("ep",), nbytes, "fp32")
    schedule = Schedule(asked.layout, (Operation("exchange", "forward", "all_to_all", "communication", work),))
    quiet = Noise(asked.layout, 0.0, 0.0, 0, 0)
    if depth == "message":
        return RankByRank(asked.machine, schedule, quiet, {}).run().seconds
    engine = BoundEngine if depth == "bound" else Engine
    traffic = Traffic(asked.machine, asked.layout, depth)
    return engine(asked.machine, schedule, traffic, quiet, {}).run().seconds


@pytest.mark.parametrize("machine", ["selene", "cluster-64", "eos-h100", "tpu-v3"])
@pytest.mark.parametrize("depth", ["bound", "links", "fluid", "message"])
def test_a_step_of_one_collective_takes_what_the_collective_takes(machine, depth):
    random, machine, found = np.random.default_rng(len(machine)), load_machine(machine), 0
    while found < 8:
        operation = random.choice(["all-reduce", "all-gather", "reduce-scatter", "all-to-all", "broadcast"])
        algorithm, ranks = str(random.choice(list(ALGORITHMS[operation]))), int(random.integers(2, 49))
        each = int(random.choice([1, machine.node.core_groups]))
        if ALGORITHMS[operation][algorithm].power_of_two:
            ranks = 1 << (ranks.bit_length() - 1)
        if ranks > machine.nodes * each or (ALGORITHMS[operation][algorithm].grid and ranks % 2):
            continue
        nbytes = float(2 ** random.uniform(6, 30))
        asked = Collective(machine, str(operation), ranks, ranks_per_node=each, depth=depth)
        if ALGORITHMS[operation][algorithm].grid and asked.layout.two_level(("ep",)) is None:
            continue
        expected = asked.run(algorithm, nbytes).seconds
        vector = nbytes * ranks if operation == "all-to-all" else nbytes
        assert step_seconds(asked, algorithm, vector, depth) == pytest.approx(expected, rel=1e-9), (
            operation,
            algorithm,
            ranks,
        )
        found += 1
