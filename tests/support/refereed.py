"""Random plans for the referee, by kind: of small models on machines whose network is slow enough to matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from athanor.hardware.errors import DoesNotFit, InputError
from athanor.hardware.machine import Machine, load_machine
from athanor.sim.engine.noise import Noise
from athanor.sim.engine.rank_engine import RankByRank
from athanor.sim.engine.step_engine import Engine
from athanor.sim.network.phases.transfers import Traffic
from athanor.workloads.lowering import lower_step
from athanor.workloads.model.model import Model, load_model
from athanor.workloads.pipelines import PIPELINES
from athanor.workloads.plan.run_file import resolved
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.schedule import Schedule
from oracles.referee.step import Referee

SEQUENCE = 64


@dataclass(frozen=True)
class Case:
    """A plan on a machine, ready to be played: by the engine at any depth, and by the referee."""

    machine: Machine
    schedule: Schedule
    noise: Noise
    text: str

    def referee(self) -> float:
        """The referee's seconds."""
        slowness = self.noise.slowness()
        return Referee(
            self.machine,
            self.schedule,
            lambda number: slowness if number < 0 else slowness * self.noise.of_operation(number),
        ).run()

    def engine(self, depth: str) -> float:
        """The engine's seconds."""
        if depth == "message":
            return RankByRank(self.machine, self.schedule, self.noise, {}).run().seconds
        traffic = Traffic(self.machine, self.schedule.layout, depth)
        return Engine(self.machine, self.schedule, traffic, self.noise, {}).run().seconds


def cluster(random: np.random.Generator, slowest: float = 0.01) -> Machine:
    """A small cluster of supernodes of 4 to 16 nodes, whose network is up to 1 / ``slowest`` times slower than it should be."""
    machine = load_machine("cluster-64")
    efficiency = float(0.9 * slowest ** random.uniform())
    calibration = machine.calibration.model_copy(update={"network_efficiency": efficiency})
    fabric = machine.fabric.model_copy(update={"routing": str(random.choice(["static", "adaptive"]))})
    changed = machine.model_copy(update={"calibration": calibration, "fabric": fabric})
    return changed.with_supernodes_of(int(random.choice([4, 8, 16])))


def dense(layers: int) -> Model:
    """A small dense model."""
    tiny = load_model("moda-tiny").model_dump(exclude={"plan", "sources"})
    return Model.model_validate({**tiny, "name": "dense", "experts": 0, "layers": layers, "tied": False})


def sparse(layers: int, experts: int) -> Model:
    """A small model with experts."""
    tiny = load_model("moda-tiny").model_dump(exclude={"plan", "sources"})
    return Model.model_validate({**tiny, "name": "sparse", "experts": experts, "layers": layers})


def mesh_of(random: np.random.Generator, sizes: dict[str, list[int]], most: int) -> dict[str, int]:
    """A mesh of these axes in random order, of at most so many ranks."""
    while True:
        mesh = {axis: int(random.choice(some)) for axis, some in sizes.items()}
        if np.prod(list(mesh.values())) <= most:
            return {axis: mesh[axis] for axis in map(str, random.permutation(list(mesh)))}


def staged(random: np.random.Generator, mesh: dict[str, int]) -> dict[str, Any]:
    """A pipeline's options: any schedule that ends and goes one way, and some micro-batches."""
    straight = [name for name, each in PIPELINES.items() if not each.asynchronous and not each.folded]
    name = str(random.choice(straight))
    chunks = int(random.choice([2, 3])) if name == "interleaved" else 1
    micro_batches = mesh["pp"] * int(random.integers(1, 4)) if name == "interleaved" else int(random.integers(2, 13))
    options = {"pipeline": name, "micro_batch": 1, "tokens_per_rank": micro_batches * SEQUENCE}
    return {**options, "chunks": chunks} if chunks > 1 else options


def block(mesh: dict[str, int]) -> dict[str, Any]:
    """Ranks fill the nodes in the order of the mesh's axes."""
    return {"mesh": mesh, "placement": "block:" + ",".join(mesh)}


def hand_overs(random: np.random.Generator, most: int) -> tuple[Machine, Model, dict[str, Any]]:
    """Pipelines of every schedule whose hand-overs are slow."""
    mesh = mesh_of(random, {"pp": [2, 3, 4, 8], "dp": [1, 2, 4]}, most)
    options = staged(random, mesh)
    layers = mesh["pp"] * options.get("chunks", 1)
    return cluster(random), dense(layers), {**block(mesh), **options, "speed_spread": float(random.choice([0.0, 0.1]))}


def beside_blocks(random: np.random.Generator, most: int) -> tuple[Machine, Model, dict[str, Any]]:
    """Pipelines whose stages send a lot themselves: tensor and context parallelism, gradients of every micro-batch."""
    mesh = mesh_of(random, {"pp": [2, 4], "dp": [1, 2, 4], str(random.choice(["tp", "cp"])): [1, 2, 4]}, most)
    options = staged(random, mesh)
    layers = mesh["pp"] * options.get("chunks", 1)
    more = {"zero": str(random.choice(["0", "1", "2"])), "overlap": str(random.choice(["none", "gradients"]))}
    return cluster(random), dense(layers), {**block(mesh), **options, **more}


def drifting(random: np.random.Generator, most: int) -> tuple[Machine, Model, dict[str, Any]]:
    """Groups whose ranks jitter, over trunks that they share."""
    mesh = mesh_of(random, {"dp": [2, 4, 8], "tp": [2, 4]}, most)
    more = {"overlap": str(random.choice(["none", "gradients"])), "zero": str(random.choice(["0", "1", "2"]))}
    noise = {"jitter": float(random.choice([0.01, 0.1])), "speed_spread": float(random.choice([0.0, 0.1]))}
    return cluster(random, 0.1), dense(2), {**block(mesh), **more, **noise, "ranks_per_node": 1}


def uneven(random: np.random.Generator, most: int) -> tuple[Machine, Model, dict[str, Any]]:
    """Experts that get as many tokens as their popularity brings them."""
    mesh = mesh_of(random, {"ep": [2, 4, 8], "dp": [1, 2, 4]}, most)
    more = {
        "router": f"zipf:{random.uniform(0, 1.5):.2f}",
        "balancer": str(random.choice(["none", "capacity:1.25"])),
        "zero": str(random.choice(["0", "1"])),
        "all_to_all": str(random.choice(["linear", "pairwise-shift"])),
    }
    return cluster(random, 0.1), sparse(2, 8), {**block(mesh), **more}


def uneven_stages(random: np.random.Generator, most: int) -> tuple[Machine, Model, dict[str, Any]]:
    """The same in a pipeline, each micro-batch with loads of its own."""
    mesh = mesh_of(random, {"pp": [2, 4], "ep": [2, 4], "dp": [1, 2]}, most)
    options = staged(random, mesh)
    more = {"router": f"zipf:{random.uniform(0, 1.5):.2f}", "balancer": "none", "zero": "0"}
    layers = mesh["pp"] * options.get("chunks", 1)
    return cluster(random, 0.1), sparse(layers, 8), {**block(mesh), **options, **more}


def prefetched(random: np.random.Generator, most: int) -> tuple[Machine, Model, dict[str, Any]]:
    """Weights in shards that are gathered while layers before them compute (ZeRO 3)."""
    mesh = mesh_of(random, {"dp": [2, 4, 8, 16], "tp": [1, 2, 4]}, most)
    more = {"zero": str(random.choice(["3", "3", "++"])), "overlap": str(random.choice(["gradients", "all"]))}
    noise = {"speed_spread": float(random.choice([0.0, 0.0, 0.1]))}
    batch = {"micro_batch": 2, "tokens_per_rank": 2 * SEQUENCE * int(random.integers(1, 4))}
    return cluster(random), dense(int(random.integers(2, 5))), {**block(mesh), **more, **noise, **batch}


KINDS: dict[str, Callable[[np.random.Generator, int], tuple[Machine, Model, dict[str, Any]]]] = {
    "pipelines, slow hand-overs": hand_overs,
    "pipelines, stages that send": beside_blocks,
    "pipelines, uneven experts": uneven_stages,
    "uneven experts": uneven,
    "groups that drift, a shared trunk": drifting,
    "ZeRO 3 with prefetch": prefetched,
}


def case(kind: str, seed: int, most: int = 16) -> Case:
    """A plan of a kind, of at most so many ranks; draws until one is allowed."""
    random = np.random.default_rng([seed, *kind.encode()])
    while True:
        machine, model, options = KINDS[kind](random, most)
        try:
            setting = Setting.of(*resolved(machine, model, options, True)[:3])
            schedule, _ = lower_step(setting, 0)
        except (InputError, DoesNotFit):
            continue
        plan = setting.plan
        noise = Noise(setting.layout, plan.speed_spread, plan.jitter, plan.seed, 0)
        network = f"network {machine.calibration.network_efficiency:.3f}"
        return Case(machine, schedule, noise, f"{kind} {seed}: {options}, {network}, {machine.fabric}")
