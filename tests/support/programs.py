"""Programs of exchanges and loops, drawn or made by a seed, and how the engine runs them."""

import numpy as np
from athanor.sim.engine.noise import Noise
from athanor.sim.engine.step_engine import Engine
from athanor.sim.network.phases.transfers import Traffic
from athanor.workloads.lowering.builder import settle
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.schedule.operation import Operation
from athanor.workloads.schedule.schedule import Schedule
from athanor.workloads.schedule.work import Exchange, Loop
from hypothesis import strategies as st
from support.machines import tree

COLLECTIVES = [
    ("all-to-all", "linear"),
    ("all-to-all", "two-level"),
    ("reduce-scatter", "ring"),
    ("all-reduce", "two-level"),
    ("all-gather", "two-level"),
]


STEPS = [
    ("all-to-all", "pairwise-shift"),
    ("all-reduce", "halving-doubling"),
    ("all-reduce", "binary-tree"),
    ("all-gather", "bruck"),
    ("broadcast", "scatter-all-gather"),
    ("reduce", "chain"),
    ("barrier", "dissemination"),
]
"""Collectives in which some steps differ from others, or some ranks send nothing."""


def simulate(machine, schedule, depth="fluid"):
    """Begin and end of every operation on every rank, and the step's result."""
    layout = schedule.layout
    ranks = {str(rank): tuple(map(int, np.unravel_index(rank, layout.mesh.shape))) for rank in range(layout.mesh.ranks)}
    engine = Engine(machine, schedule, Traffic(machine, layout, depth), Noise(layout, 0.0, 0.0, 0, 0), ranks)
    result = engine.run()
    numbers = {operation.name: number for number, operation in enumerate(schedule.operations)}
    return {(numbers[row.operation], int(row.ranks)): (row.start, row.end) for row in result.rows}, result


def schedule_of(layout, works):
    """Works in program order: loops on the compute stream, exchanges on the communication stream, each after the one before."""
    operations = []
    for number, work in enumerate(works):
        communicates = isinstance(work, Exchange)
        work = settle(work, layout)[0] if communicates else work
        stream, category = ("communication", "all_to_all") if communicates else ("compute", "compute")
        after = (number - 1,) if number and operations[-1].stream != stream else ()
        operations.append(Operation(f"op{number}", "forward", category, stream, work, after))
    return Schedule(layout, tuple(operations))


@st.composite
def machines(draw, **fixed):
    routing = draw(st.sampled_from(["adaptive", "static"]))
    supernode = draw(st.integers(1, 4))
    taper = draw(st.sampled_from([0.25, 0.5, 1.0]))
    latencies = draw(st.sampled_from([(0.0, 0.0, 0.0), (0.01, 0.1, 0.3)]))
    overhead = draw(st.sampled_from([0.0, 0.05]))
    inside = draw(st.sampled_from(["ring", "switch"]))
    drawn = {
        "inside": inside,
        "routing": routing,
        "supernode": supernode,
        "taper": taper,
        "latencies": latencies,
        "overhead": overhead,
    }
    return tree(nodes=64, **{**drawn, **fixed})


@st.composite
def meshes(draw):
    return Mesh.of({"ep": draw(st.integers(1, 4)), "dp": draw(st.integers(1, 3))})


def amounts(mesh, low, high):
    """A value that is the same for all ranks, differs along one axis, or everywhere."""
    shapes = [(1, 1), (mesh.shape[0], 1), (1, mesh.shape[1]), mesh.shape]
    values = st.integers(low, high).map(float)
    even = values
    uneven = st.sampled_from(shapes).flatmap(
        lambda shape: st.lists(values, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
            lambda flat: np.array(flat).reshape(shape)
        )
    )
    return st.one_of(even, uneven)


def exchanges(mesh, axes, even, kinds=COLLECTIVES):
    def build(kind, nbytes, received):
        uneven = kind[0] == "all-to-all" and not even and bool(np.any(received))  # what is sent has to go somewhere
        size = nbytes if uneven else float(np.max(nbytes))
        return Exchange(
            *kind, axes, size, "fp32", np.asarray(received, dtype=float) * np.ones((1, 1)) if uneven else None
        )

    return st.builds(build, st.sampled_from(kinds), amounts(mesh, 0, 50), amounts(mesh, 0, 9))


def drifting_program(seed):
    """A random program of ranks that drift apart and groups that contend, with the machine and layout to run it on."""
    random = np.random.default_rng(seed)
    mesh = Mesh.of({"ep": int(random.integers(2, 5)), "dp": int(random.integers(2, 4))})
    machine = tree(
        nodes=64,
        supernode=int(random.integers(2, 5)),
        taper=float(random.choice([0.25, 0.5, 1.0])),
        routing=str(random.choice(["adaptive", "static"])),
    )
    layout = place(mesh, machine, str(random.choice(["moda", "block:ep,dp", "block:dp,ep"])))
    works = []
    for _ in range(int(random.integers(3, 8))):
        if random.random() < 0.5:
            works.append(Loop(random.uniform(0, 10, mesh.shape)))
            continue
        kind = COLLECTIVES[random.integers(len(COLLECTIVES))]
        axes = [("ep",), ("dp",), ("ep", "dp")][random.integers(3)]
        if kind[0] == "all-to-all":
            sizes = random.uniform(0, 100, mesh.shape), "fp32", random.uniform(0, 9, mesh.shape)
            works.append(Exchange(*kind, axes, *sizes))
        else:
            works.append(Exchange(*kind, axes, float(random.uniform(0, 100)), "fp32"))
    return machine, schedule_of(layout, works)


def beside(seed):
    """The same with exchanges on two streams, which wait for some of what came before, on any stream."""
    machine, schedule = drifting_program(seed)
    random = np.random.default_rng([seed, 1])
    operations = []
    for number, each in enumerate(schedule.operations):
        exchanges = isinstance(each.work, Exchange)
        stream = str(random.choice(["communication", "gradients"])) if exchanges else "compute"
        after = tuple(other for other in range(number) if operations[other].stream != stream and random.random() < 0.4)
        operations.append(Operation(each.name, each.phase, each.category, stream, each.work, after))
    return machine, Schedule(schedule.layout, tuple(operations))
