"""Pipelines in the engine: published bubbles, every rank's flat step played naively, sums, bytes on links, the trace."""

import time
from collections import Counter
from dataclasses import replace

import athanor
import numpy as np
import pytest
import simpy
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.sim.engine.noise import Noise
from athanor.sim.engine.rank_engine import RankByRank
from athanor.sim.engine.stage_transfers import Handover
from athanor.sim.engine.step_engine import Engine
from athanor.sim.network.phases.transfers import Traffic
from athanor.workloads.collectives import rounds
from athanor.workloads.lowering import lower
from athanor.workloads.lowering.unroll import ARRIVALS, DEPARTURES, unrolled
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.model.model import Model, load_model
from athanor.workloads.pipelines import PIPELINES
from athanor.workloads.schedule.operation import Operation
from athanor.workloads.schedule.schedule import Schedule
from athanor.workloads.schedule.work import Exchange, Loop, PipelineWork
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.machines import tree

MACHINE = tree(nodes=64, supernode=64, taper=1.0)
"""Groups share no link but the interfaces of their own nodes."""


def layout_of(mesh, machine=MACHINE):
    return place(mesh, machine, "block:" + ",".join(mesh.axes), 1)


def one(name, category, work, after=(), stream=None):
    moves = isinstance(work, Exchange)
    return Operation(name, "forward", category, stream or ("communication" if moves else "compute"), work, after)


def pipeline_of(name, stages, micro_batches, chunks, mesh, passes, nbytes=0.0):
    """A pipeline whose virtual stages share the blocks ``passes``, one for each of F, B (and W)."""
    along = tuple(stages if axis == "pp" else 1 for axis in mesh.axes)
    send = Exchange("shift", "next", ("pp",), nbytes, "fp32") if stages > 1 else None
    uses = tuple(tuple((number,) for number in range(len(passes))) for _ in range(stages * chunks))
    return PipelineWork(
        name, stages, micro_batches, chunks, tuple(passes), uses, tuple(range(stages * chunks)), send, along
    )


def stepped(schedule, machine=MACHINE):
    """The engine's step, all ranks observed: its result, and (begin, end) by operation and rank."""
    layout = schedule.layout
    ranks = {str(rank): tuple(map(int, np.unravel_index(rank, layout.mesh.shape))) for rank in range(layout.mesh.ranks)}
    noise = Noise(layout, 0.0, 0.0, 0, 0)
    result = Engine(machine, schedule, Traffic(machine, layout, "fluid"), noise, ranks).run()
    return result, {(row.operation, int(row.ranks)): (row.start, row.end) for row in result.rows}


def spent(result, category):
    return sum(phase[category] for phase in result.exposed.values())


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 3), (2, 4), (4, 8)])
def test_bubbles_of_equal_stages_on_a_free_network(name, stages, micro_batches):
    """Idle seconds inside the pipeline and at its end are all bubble, on every stage as many: the mean is the published one."""
    chunks = 1 + PIPELINES[name].chunked
    if stages == 1:
        name, chunks = "1f1b", 1
    mesh = Mesh.of({"pp": stages, "dp": 2})
    split = PIPELINES[name].splits_backward
    seconds = [4.0 / chunks] * 3 if split else [4.0 / chunks, 8.0 / chunks]
    blocks = [(one("l0.work", "compute", Loop(each)),) for each in seconds]
    work = pipeline_of(name, stages, micro_batches, chunks, mesh, blocks)
    schedule = Schedule(layout_of(mesh), (one("micro-batches", "compute", work), one("update", "optimizer", Loop(5.0))))
    result, _ = stepped(schedule)
    bubble = {
        "interleaved": 6.0,
        "zb-h1": 4.0,
        "zb-h2": 4.0,
        "zb-v": 2.0,
        "dualpipe-v": 2.0,
        "pipedream": 0.0,
        "2bw": 0.0,
    }.get(name, 12.0)
    assert result.seconds == micro_batches * 12.0 + (stages - 1) * bubble + 5.0
    assert spent(result, "pipeline_bubble") == pytest.approx((stages - 1) * bubble)
    assert spent(result, "compute") == micro_batches * 12.0
    assert spent(result, "imbalance") == spent(result, "pipeline_transfer") == 0


def test_stages_that_end_early_go_on_early():
    """The gradients of the last stage are on their way while the first still works; what is left to wait is bubble."""
    mesh = Mesh.of({"pp": 3, "dp": 2})
    blocks = [(one("l0.work", "compute", Loop(2.0)),), (one("l0.work", "compute", Loop(4.0)),)]
    work = pipeline_of("1f1b", 3, 4, 1, mesh, blocks)
    reduction = Exchange("all-reduce", "ring", ("dp",), 20.0, "fp32")
    schedule = Schedule(
        layout_of(mesh),
        (one("micro-batches", "compute", work), one("gradients", "gradient_sync", reduction, after=(0,))),
    )
    result, found = stepped(schedule)
    assert [found["gradients", rank] for rank in (0, 2, 4)] == [(36.0, 38.0), (32.0, 34.0), (28.0, 30.0)]
    assert result.seconds == 38.0
    assert (spent(result, "gradient_sync"), spent(result, "pipeline_bubble")) == (2.0, 12.0)


def naive(schedule, machine=MACHINE):
    """Every rank's flat step: one SimPy process for each of its streams; ``{(operation, rank): (begin, end)}``.

    An exchange begins with the last of its group and takes as long as alone. A message waits for its sender's card, then for its
    receiver's, and keeps both busy until it has arrived.
    """
    mesh, env = schedule.mesh, simpy.Environment()
    layout, times, arrived = schedule.layout, {}, {}
    came, gone = Counter(), {}
    lasting = {}

    def alone(exchange):
        key = (exchange.operation, exchange.axes, exchange.nbytes)
        if key not in lasting:
            result, _ = stepped(Schedule(layout, (one("alone", "other", exchange),)), machine)
            lasting[key] = result.seconds
        return lasting[key]

    def event(of, key):
        return of.setdefault(key, env.event())

    outs, ins = ([simpy.Resource(env) for _ in range(mesh.ranks)] for _ in range(2))

    def message(seconds, key, sender, sent):
        if seconds:
            with outs[sender].request() as out:
                yield out
                with ins[key[1]].request() as into:
                    yield into
                    yield env.timeout(seconds)
        event(arrived, key).succeed((sent, env.now))

    def stream(rank, coordinate, mine, done):
        for number, operation in mine:
            for other in operation.after:
                yield done[other]
            work, begin, end = operation.work, env.now, None
            if operation.stream == ARRIVALS:
                begin, end = yield event(arrived, (operation.name, rank))
            elif operation.stream == DEPARTURES:
                step = (1 if work.algorithm == "next" else -1) * mesh.ranks // mesh.shape[0]
                receiver = (rank + step) % mesh.ranks
                name = operation.name.removesuffix(".send")
                env.process(message(work.nbytes / machine.injection, (name, receiver), rank, env.now))
            elif isinstance(work, Exchange):
                group = tuple(
                    length for axis, length in zip(mesh.axes, coordinate, strict=True) if axis not in work.axes
                )
                key = (operation.name, group)
                came[key] += 1
                if came[key] == mesh.size(*work.axes):
                    event(gone, key).succeed()
                yield event(gone, key)
                begin = env.now
                yield env.timeout(alone(work))
            else:
                yield env.timeout(work.steps)
            times[operation.name, rank] = begin, env.now if end is None else end
            done[number].succeed()

    for rank in range(mesh.ranks):
        coordinate = tuple(map(int, np.unravel_index(rank, mesh.shape)))
        flat = unrolled(schedule, coordinate)
        done = [env.event() for _ in flat]
        for name in dict.fromkeys(operation.stream for operation in flat):
            mine = [(number, each) for number, each in enumerate(flat) if each.stream == name]
            env.process(stream(rank, coordinate, mine, done))
    env.run()
    return times


@st.composite
def pipelines(draw):
    """A schedule: some work, a pipeline with blocks of loops and collectives, differing from stage to stage, an update.

    Either blocks send something or stages do, so that nothing shares a card; and no two things happen at once by chance.
    """
    stages, name = (
        draw(st.integers(1, 4)),
        draw(st.sampled_from([n for n, p in PIPELINES.items() if not p.asynchronous])),
    )
    name = name if stages > 1 else "1f1b"
    chunks = draw(st.integers(2, 3)) if name == "interleaved" else 1 + PIPELINES[name].folded
    micro_batches = stages * draw(st.integers(1, 3)) if name == "interleaved" else draw(st.integers(1, 6))
    micro_batches = min(micro_batches, 3) if PIPELINES[name].folded else micro_batches
    micro_batches += 2 * stages * (name == "dualpipe-v")
    mesh = Mesh.of({"pp": stages, "dp": draw(st.integers(1, 3))})
    handing_over, random = draw(st.booleans()), np.random.default_rng(draw(st.integers(0, 999)))
    seconds = st.integers(0, 9).map(lambda most: float(random.uniform(0.01, 1 + most)))
    nbytes = st.integers(0, 60).map(lambda most: float(random.uniform(0, most)))

    def block():
        operations = []
        for number in range(draw(st.integers(int(handing_over), 4))):
            work = draw(
                seconds.map(Loop)
                if handing_over
                else st.one_of(
                    seconds.map(Loop), nbytes.map(lambda size: Exchange("all-reduce", "ring", ("dp",), size, "fp32"))
                )
            )
            stream = (
                "communication" if isinstance(work, Exchange) else draw(st.sampled_from(["compute", "compute", "host"]))
            )
            others = [at for at, each in enumerate(operations) if each.stream != stream]
            after = tuple(sorted(draw(st.sets(st.sampled_from(others), max_size=2)))) if others else ()
            made = one(f"l0.op{number}", "compute", work, after, stream)
            operations.append(replace(made, phase=draw(st.sampled_from(["backward", "backward", "update"]))))
        return tuple(operations)

    passes = 3 if PIPELINES[name].splits_backward else 2
    blocks, uses = [], []
    for _ in range(stages * chunks):
        mine = []
        for _ in range(passes):
            count = micro_batches if draw(st.booleans()) else 1
            mine.append(tuple(range(len(blocks), len(blocks) + count)))
            blocks += [block() for _ in range(count)]
        uses.append(tuple(mine))
    along = tuple(stages if axis == "pp" else 1 for axis in mesh.axes)
    sent = draw(nbytes) if handing_over else 0.0
    send = Exchange("shift", "next", ("pp",), sent, "fp32") if stages > 1 else None
    work = PipelineWork(
        name, stages, micro_batches, chunks, tuple(blocks), tuple(uses), tuple(range(stages * chunks)), send, along
    )
    operations = (
        one("before", "other", Loop(draw(seconds))),
        one("micro-batches", "compute", work),
        one("gradients", "gradient_sync", Exchange("all-reduce", "ring", ("dp",), draw(nbytes), "fp32"), (1,)),
        one("update", "optimizer", Loop(draw(seconds)), (2,)),
    )
    return Schedule(layout_of(mesh), operations)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pipelines())
def test_pipelines_are_what_every_rank_does_by_itself(schedule):
    """Begin and end of every operation on every rank, handing over included; and every second is accounted for."""
    result, found = stepped(schedule)
    expected = {key: value for key, value in naive(schedule).items() if not key[0].endswith(".send")}
    assert found.keys() == expected.keys()
    for key, (begin, end) in expected.items():
        assert found[key] == (pytest.approx(begin, abs=1e-9), pytest.approx(end, abs=1e-9)), key
    assert result.seconds == pytest.approx(max(end for _, end in expected.values()), abs=1e-9)
    assert sum(sum(phase.values()) for phase in result.exposed.values()) == pytest.approx(result.seconds, abs=1e-9)
    again = Schedule.from_json(schedule.to_json())
    assert all(isinstance(each, Operation) for block in again.operations[1].work.blocks for each in block)
    assert again == schedule


def dense(**changes):
    """A small dense model."""
    tiny = load_model("moda-tiny").model_dump(exclude={"plan", "sources"})
    return Model.model_validate({**tiny, "name": "dense", "experts": 0, "layers": 8, "tied": False, **changes})


PLANS = [
    {"mesh": {"pp": 4, "dp": 2}},
    {"mesh": {"pp": 4, "tp": 2, "dp": 2}, "pipeline": "interleaved", "chunks": 2},
    {"mesh": {"dp": 2, "pp": 2, "tp": 4}, "pipeline": "zb-h1", "tensor": "2d", "micro_batch": 2},
    {"mesh": {"pp": 2, "cp": 2, "tp": 2}, "pipeline": "gpipe", "sequence_parallel": True},
    {"mesh": {"pp": 2, "dp": 4}, "zero": "1", "recompute": "full"},
    {"mesh": {"pp": 4, "dp": 2}, "pipeline": "2bw", "zero": "0"},
    {"mesh": {"pp": 4, "dp": 2}, "pipeline": "pipedream", "zero": "0"},
    {"mesh": {"pp": 2, "dp": 2, "tp": 2}, "overlap": "gradients"},
    {"mesh": {"pp": 2, "cp": 4}, "pipeline": "zb-h2", "attention": "fused"},
    {"mesh": {"pp": 2, "dp": 4}, "zero": "2"},
    {"mesh": {"pp": 4, "dp": 2}, "zero": "2", "overlap": "gradients", "pipeline": "zb-h1"},
    {"mesh": {"pp": 5, "dp": 2}, "stage_layers": "ends"},
    {"mesh": {"pp": 4, "dp": 2}, "stage_layers": "0,1,5,2", "pipeline": "zb-h1", "zero": "1"},
    {
        "mesh": {"pp": 5, "tp": 2},
        "stage_layers": "ends",
        "pipeline": "interleaved",
        "chunks": 2,
        "micro_batch": 1,
        "tokens_per_rank": 10 * 64,
        "overlap": "gradients",
    },
]


def step_of(plan, **more):
    options = {
        "tokens_per_rank": 8 * 64,
        "micro_batch": 1,
        "placement": "block:" + ",".join(plan["mesh"]),
        **plan,
        **more,
    }
    if options.get("tensor") == "2d":
        options["placement"] = "auto"
    return "cluster-64", dense(), options


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: ",".join(f"{key}={value}" for key, value in plan.items()))
def test_seconds_and_bytes_of_plans_add_up(plan):
    """The breakdown sums to the step, and links carry what the ranks' flat steps send."""
    machine, model, options = step_of(plan)
    run = athanor.simulate(machine, model, **options)
    totals = run.summary()
    assert sum(totals["breakdown"].values()) == pytest.approx(totals["step_seconds"], rel=1e-9)
    assert min(totals["breakdown"].values()) >= -1e-12
    endless = PIPELINES[options.get("pipeline", "1f1b")].asynchronous
    assert (totals["breakdown"]["pipeline_bubble"] > 1e-9) is not endless or totals["breakdown"]["imbalance"] >= 0
    schedule = lower(machine, model, **options)
    mesh, layout = schedule.mesh, schedule.layout
    assert totals["flops_per_step"] == pytest.approx(
        sum(
            float(np.broadcast_to(each.work.flops, mesh.shape)[coordinate])
            for coordinate in np.ndindex(mesh.shape)
            for each in unrolled(schedule, coordinate)
        )
    )
    sent = 0.0
    for coordinate in np.ndindex(mesh.shape):
        for operation in unrolled(schedule, coordinate):
            work = operation.work
            if operation.stream == DEPARTURES:
                sent += work.nbytes
            elif isinstance(work, Exchange) and operation.stream != ARRIVALS:
                size, grid = mesh.size(*work.axes), layout.two_level(work.axes)
                outer, inner = (1, size) if grid is None else grid.shape[1:]
                nbytes = float(np.broadcast_to(work.nbytes, mesh.shape)[coordinate])
                for each in rounds(work.operation, work.algorithm, outer, inner):
                    width = {"group": size, "inner": inner, "outer": outer}[each.scope]
                    busy = (
                        width if each.everyone else np.mean([len(each.partners(at, 0, width)) for at in range(width)])
                    )
                    part = (width - 1) / width if each.everyone else busy
                    sent += nbytes * each.share * each.steps * part
    assert layout.ranks_per_node == 1
    links = {row["kind"]: row["bytes_per_step"] for row in totals["links"]}
    assert links["nic.out"] == pytest.approx(sent, rel=1e-9)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 5), st.data())
def test_the_pace_of_an_endless_pipeline(stages, between, data):
    """The slowest round trip: from stage i to j and back j - i + 1 micro-batches may be under way (a circuit of its max-plus system)."""
    mesh = Mesh.of({"pp": stages})
    work = [[float(data.draw(st.integers(1, 9))) for _ in range(2)] for _ in range(stages)]
    blocks = [(one("l0.work", "compute", Loop(each)),) for seconds in work for each in seconds]
    plain = pipeline_of("pipedream", stages, 12, 1, mesh, blocks[:2])
    uses = tuple(((2 * stage,), (2 * stage + 1,)) for stage in range(stages))
    pipeline = replace(plain, blocks=tuple(blocks), uses=uses)
    slow = MACHINE.model_copy(
        update={"calibration": MACHINE.calibration.model_copy(update={"message_overhead": between})}
    )
    result, _ = stepped(Schedule(layout_of(mesh), (one("micro-batches", "compute", pipeline),)), slow)
    trips = [
        (sum(map(sum, work[i : j + 1])) + 2 * (j - i) * between) / (j - i + 1)
        for i in range(stages)
        for j in range(i, stages)
    ]
    assert result.seconds == pytest.approx(12 * max(trips))
    assert spent(result, "imbalance") == pytest.approx(0.0, abs=1e-9)


def test_uneven_experts_differ_from_micro_batch_to_micro_batch():
    """Each micro-batch has blocks of its own; stages together compute what one stage would, in the same micro-batches."""
    model = load_model("moda-tiny")
    options = {"tokens_per_rank": 4 * 64, "micro_batch": 1, "seq_len": 64, "router": "zipf:1.2", "balancer": "none"}
    piped = athanor.simulate("cluster-64", model, mesh={"pp": 2, "ep": 2}, placement="block:pp,ep", **options)
    alone = athanor.simulate("cluster-64", model, mesh={"ep": 2}, placement="block:ep", **options)
    schedule = lower("cluster-64", model, mesh={"pp": 2, "ep": 2}, placement="block:pp,ep", **options)
    (work,) = (each.work for each in schedule.operations if isinstance(each.work, PipelineWork))
    assert {len(numbers) for passes in work.uses for numbers in passes} == {4}
    assert piped.summary()["flops_per_step"] == pytest.approx(alone.summary()["flops_per_step"], rel=0.02)
    assert piped.summary()["load_balance"] == alone.summary()["load_balance"]
    for run in (piped, alone):
        assert sum(run.summary()["breakdown"].values()) == pytest.approx(run.summary()["step_seconds"], rel=1e-9)
    assert piped.summary()["breakdown"]["pipeline_bubble"] > 0


def test_messages_between_stages_take_their_own_ways():
    """Stages 0 and 1 share a supernode, 1 and 2 do not: that message crosses; the last stage sends to none but in chunks."""
    machine = tree(nodes=4, supernode=2, taper=0.5, latencies=(0.0, 1.0, 3.0), overhead=0.5)
    mesh = Mesh.of({"pp": 4})
    send = Exchange("shift", "next", ("pp",), 100.0, "fp32")
    traffic = Traffic(machine, layout_of(mesh, machine), "fluid")
    forward = Handover.of(traffic, send, "F", wraps=False)
    assert forward.seconds.tolist() == [11.5, 13.5, 11.5, 0.0]
    assert Handover.of(traffic, send, "B", wraps=False).seconds.tolist() == [0.0, 11.5, 13.5, 11.5]
    wrapped = Handover.of(traffic, send, "F", wraps=True, sends=[3, 2, 2, 1])
    assert wrapped.seconds.tolist() == [11.5, 13.5, 11.5, 13.5]
    assert wrapped.loads.loads["node.out" if "node.out" in wrapped.loads.loads else "nic.out"].tolist() == [
        300.0,
        200.0,
        200.0,
        100.0,
    ]


def test_the_trace_tells_operations_or_slots(monkeypatch):
    machine, model, options = step_of(PLANS[1])
    run = athanor.simulate(machine, model, **options)
    assert set(run.classes) == {"first stage", "last stage"}
    frame = run.to_frame().query("`class` == 'last stage'").set_index("operation")
    came, norm = frame.loc["m2.l3.activations"], frame.loc["m2.l3.attention.norm"]
    assert (came.kind, came.category, came.stream, came["axes"]) == ("exchange", "pipeline_transfer", "pipeline", "pp")
    assert came.start < came.end <= norm.start
    assert "m2.l7.activations.grad" not in frame.index and "m2.l3.activations.grad" in frame.index
    assert frame.index.is_unique
    monkeypatch.setattr("athanor.sim.engine.pipeline_trace.MOST_ROWS", 10)
    short = athanor.simulate(machine, model, **options)
    assert short.summary()["step_seconds"] == run.summary()["step_seconds"]
    brief = short.to_frame().query("`class` == 'last stage'").set_index("operation")
    slot = brief.loc["m2.c0.forward"]
    assert slot.start == pytest.approx(norm.start) and slot.flops > norm.flops
    assert brief.loc["m7.c1.backward"].phase == "backward"
    flops = brief[brief.kind == "pipeline"].flops.sum()
    assert flops == pytest.approx(frame[frame.index.str.startswith("m")].flops.sum())


def test_a_flat_schedule_is_its_own_unrolling():
    schedule = lower("cluster-64", "moda-tiny")
    assert unrolled(schedule, (0, 0)) == schedule.operations


def test_noise_makes_stages_differ_and_the_message_depth_refuses():
    machine, model, options = step_of(PLANS[0])
    quiet = athanor.simulate(machine, model, **options).summary()
    noisy = athanor.simulate(machine, model, speed_spread=0.2, jitter=0.1, **options).summary()
    assert noisy["step_seconds"] > quiet["step_seconds"]
    assert sum(noisy["breakdown"].values()) == pytest.approx(noisy["step_seconds"], rel=1e-9)
    schedule = lower(machine, model, **options)
    with pytest.raises(InputError, match="--depth message: pipelines are looked at block by block"):
        RankByRank(load_machine(machine), schedule, Noise(schedule.layout, 0.0, 0.0, 0, 0), {})


def test_a_large_pipeline_is_simulated_quickly(capsys):
    """64 stages, 512 micro-batches, two chunks. The time is told, not judged."""
    model = dense(layers=128, hidden=1024, heads=16, ffn_hidden=4096, vocabulary=32000, seq_len=512)
    start = time.process_time()
    run = athanor.simulate(
        "sunway-oceanlight", model, mesh={"pp": 64, "dp": 2}, pipeline="interleaved", chunks=2, micro_batch=1,
        tokens_per_rank=512 * 512, allow_overcommit=True,
    )  # fmt: skip
    with capsys.disabled():
        print(f"\n64 x 512 x 2 slots simulated in {time.process_time() - start:.2f} s of CPU time")
    assert run.summary()["micro_batches"] == 512
    assert sum(run.summary()["breakdown"].values()) == pytest.approx(run.summary()["step_seconds"], rel=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"overlap": "gradients"},
        {"recompute": "full", "zero": "2"},
        {"router": "zipf:1.2", "balancer": "none", "zero": "0"},
    ],
    ids=str,
)
def test_micro_batches_as_blocks_are_what_they_are_written_out(options, monkeypatch):
    """With one stage the order is trivial: seconds, books, bytes and trace are those of the flat schedule."""
    plan = {"mesh": {"ep": 2, "dp": 2}, "tokens_per_rank": 4 * 64, "micro_batch": 1, "seq_len": 64, **options}
    flat = athanor.simulate("cluster-64", "moda-tiny", **plan)
    monkeypatch.setattr("athanor.workloads.plan.setting.MOST_FLAT", 0)
    blocks = athanor.simulate("cluster-64", "moda-tiny", **plan)
    assert any(isinstance(each.work, PipelineWork) for each in lower("cluster-64", "moda-tiny", **plan).operations)
    one, other = flat.summary(), blocks.summary()
    even = "router" not in options  # ranks that differ begin a block together
    assert other["step_seconds"] == pytest.approx(one["step_seconds"], rel=1e-9 if even else 0.05)
    assert other["flops_per_step"] == pytest.approx(one["flops_per_step"])
    for found, expected in zip(other["links"], one["links"], strict=True):
        assert found["bytes_per_step"] == pytest.approx(expected["bytes_per_step"])
    if even:
        assert other["breakdown"] == pytest.approx(one["breakdown"], abs=1e-12)
        order = ["class", "stream", "start", "operation"]
        rows = [run.to_frame().sort_values(order).set_index("operation") for run in (flat, blocks)]
        assert set(rows[0].index) == set(rows[1].index)
        again = rows[1].loc[rows[0].index]
        assert (again.start - rows[0].start).abs().max() < 1e-12
        assert (again.end - rows[0].end).abs().max() < 1e-12
