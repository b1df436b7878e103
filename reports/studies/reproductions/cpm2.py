"""``reproduce cpm2``: CPM-2's sizes, and inference on one GPU whose experts stream from the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....hardware.machine import Machine, load_machine
from ....sim.studies.inference import Inference
from ....workloads.model.model import load_model
from ...content.figures import Bars, Series
from ...content.inputs import inputs
from ...content.sections import Drawing, ReportPart, Section
from ..claims import Claim
from .desk import Desk, Step, inference
from .facts import Facts
from .record import Reproduction

PROMPT: dict[str, Any] = {"prompt": 128, "new_tokens": 32, "precision": "O3"}
"""What is asked for; not published."""

GOES_ON: dict[str, Any] = {"allow_overcommit": True}

SEQUENCES = (1, 4, 16)

STREAMING_TEXT = (
    "One V100 of 32 GB in a server of 1.5 TB; prompts of 128 tokens, 32 new each. With prefetch all experts of the"
    " next layer come while one computes, since nobody knows yet which will be chosen; without it those that were"
    " chosen come, and are waited for. The link to the host bounds both."
)


def build(desk: Desk) -> Reproduction:
    """Sizes, what fits one GPU, and how fast experts stream."""
    facts = Facts("cpm2")
    machine = load_machine("dgx2-v100").changed({"node.core_groups": 1, "nodes": 1})
    found = Reproduction("cpm2", facts.table["title"], machine)
    ways: dict[str, Step] = {name: (machine, name, {**PROMPT, **GOES_ON}) for name in ("cpm-2", "cpm-2-moe")}
    plain = {name: Inference(**each) for name, each in desk.each(inference, ways).items()}
    streams: dict[tuple[int, bool], Step] = {}
    for count in SEQUENCES:
        for prefetch in (True, False):
            options = {**PROMPT, "offload": "experts", "sequences": count, "prefetch": prefetch}
            streams[count, prefetch] = (machine, "cpm-2-moe", {**options, **GOES_ON})
    made = desk.each(inference, streams, lambda way: f"{way[0]} sequences, {'prefetch' if way[1] else 'on demand'}")
    streamed = {way: Inference(**each) for way, each in made.items()}
    found.claims = [
        *_sizes(facts),
        *_fits(facts, machine, plain, streamed[1, True]),
        *_streaming(facts, machine, streamed),
    ]
    columns = ("sequences", "experts", "s a token", "tokens/s", "GB from the host for a token", "GB on the GPU")
    found.parts = [
        ReportPart(
            Section(
                "Experts that stream from the host, 198 B",
                STREAMING_TEXT,
                columns,
                [_row(*each) for each in streamed.items()],
                2,
            ),
            [
                Drawing("memory", "Weights and cache on the GPU.", _drawn_memory(plain, streamed[1, True])),
                Drawing("streaming", "Tokens a second of all sequences together.", _drawn_speed(streamed)),
            ],
        )
    ]
    found.inputs = inputs(machine, load_model("cpm-2-moe"), {**PROMPT, "offload": "experts"})
    return found


def _sizes(facts: Facts) -> Iterator[Claim]:
    for name in facts.values["parameters"]:
        yield facts.claim("parameters", f"{name}: parameters", load_model(name).parameters.total, at=name)
    name = "cpm-2: parameters, as the overview's table prints them"
    yield facts.claim("overview_parameters", name, load_model("cpm-2").parameters.total, "contradiction", at="cpm-2")
    model = load_model("cpm-2-moe")
    one = model.parameters.expert / model.experts
    yield facts.claim("expert_parameters", "cpm-2-moe: parameters of one expert in all layers", one)


def _fits(facts: Facts, machine: Machine, plain: dict[str, Inference], streamed: Inference) -> Iterator[Claim]:
    for name, each in plain.items():
        weights = each.memory_per_rank_bytes["weights"] / 1e9
        yield facts.claim("half_gigabytes", f"{name}: GB of half-precision weights", weights, at=name)
    for name, expected in (("cpm-2", True), ("cpm-2-moe", False)):
        yield facts.truth("half_gigabytes", f"{name} fits one GPU of 32 GB", plain[name].fits, target=expected)
    fifty = facts.value("fifty_billion_gigabytes") * 1e9 <= machine.core_group.memory
    yield facts.truth(
        "fifty_billion_gigabytes", "50 B in half precision fit one GPU of 32 GB", fifty, "arithmetic", target=False
    )
    yield facts.truth("streaming", "cpm-2-moe runs on one GPU with its experts in host memory", streamed.fits)


def _streaming(facts: Facts, machine: Machine, streamed: dict[tuple[int, bool], Inference]) -> Iterator[Claim]:
    model, link = load_model("cpm-2-moe"), machine.node.host_link
    assert link is not None
    decoder = 2.0 * model.parameters.expert * model.layers / model.depth
    slowest = decoder / link
    found = streamed[1, True].token_seconds
    yield Claim(
        "seconds a token with prefetch over those of the host's link alone",
        1.0,
        found / slowest,
        "predicted",
        facts.source("streaming"),
    )


def _row(key: tuple[int, bool], each: Inference) -> tuple[str, ...]:
    count, prefetch = key
    return (
        str(count),
        "all, ahead" if prefetch else "the chosen, on demand",
        f"{each.token_seconds:.3f}",
        f"{each.tokens_per_second:.3f}",
        f"{each.host_bytes_per_token / 1e9:.1f}",
        f"{each.memory_per_rank_bytes['total'] / 1e9:.1f}",
    )


def _drawn_memory(plain: dict[str, Inference], streamed: Inference) -> Bars:
    runs = {"11 B": plain["cpm-2"], "198 B": plain["cpm-2-moe"], "198 B,\nexperts at the host": streamed}
    sizes = {name: each.memory_per_rank_bytes["total"] / 1e9 for name, each in runs.items()}
    return Bars(sizes, "GB on the GPU", "Inference on one GPU", "model", (32.0, "a V100 of 32 GB"))


def _drawn_speed(streamed: dict[tuple[int, bool], Inference]) -> Series:
    curves = {
        name: [(count, streamed[count, prefetch].tokens_per_second) for count in SEQUENCES]
        for name, prefetch in (("all experts, ahead", True), ("the chosen, on demand", False))
    }
    return Series(curves, "sequences at once", "tokens a second", "Experts that stream from the host")
