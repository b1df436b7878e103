"""What would make a plan fit: all single changes there are, and as few together as it takes, against trying everything."""

from itertools import combinations

import numpy as np
import pytest
from athanor.hardware.errors import DoesNotFit, InputError
from athanor.workloads.memory import memory, remedies, require_fit, sample_loads
from athanor.workloads.memory.remedies import TOGETHER, shortage
from athanor.workloads.recomputation import RECOMPUTATIONS
from support.memory_settings import GB, TINY, gpt, gpus, layers_keep, moe, need, of, setting

DENSE, HOST = gpt(**TINY), gpus(host=64 * GB)

CHANGES = {
    "replicas": (
        (DENSE, gpus(), {"mesh": {"dp": 8}}),
        [
            *("--zero 1", "--zero 2", "--zero 3"),
            "--mesh dp=4,tp=2 --tokens-per-rank 256 --micro-batch 4",
            "--mesh dp=4,pp=2 --tokens-per-rank 256 --micro-batch 4",
            "--mesh dp=2,tp=4 --tokens-per-rank 512 --micro-batch 4",
            "--mesh dp=2,pp=4 --tokens-per-rank 512 --micro-batch 4",
            "--mesh dp=1,tp=8 --tokens-per-rank 1024 --micro-batch 4",
            "--mesh dp=1,pp=8 --tokens-per-rank 1024 --micro-batch 4",
            *("--micro-batch 1", "--recompute selective", "--recompute full"),
        ],
    ),
    "replicas of what is cut": (  # three times two; tp fills a node at 8; micro-batches are the plan's own
        (DENSE, gpus(), {"mesh": {"dp": 6, "tp": 4}, "micro_batch": 2, "tokens_per_rank": 256}),
        [
            *("--zero 1", "--zero 2", "--zero 3", "--sequence-parallel"),
            "--mesh dp=3,tp=8 --tokens-per-rank 512",
            "--mesh dp=3,tp=4,pp=2 --tokens-per-rank 512",
            *("--micro-batch 1", "--recompute selective", "--recompute full"),
        ],
    ),
    "cut already": (  # no whole sequences, so that a micro-batch is none of them
        (
            DENSE,
            gpus(),
            {
                "mesh": {"dp": 2, "tp": 8},
                "zero": "1",
                "recompute": "selective",
                "tokens_per_rank": 40,
                "sequence_parallel": True,
            },
        ),
        ["--zero 2", "--zero 3", "--mesh dp=1,tp=8,pp=2 --tokens-per-rank 80", "--recompute full"],
    ),
    "one sequence": (
        (DENSE, gpus(), {"mesh": {"dp": 2}, "tokens_per_rank": 32, "recompute": "full", "zero": "3"}),
        [
            "--mesh dp=1,tp=2 --tokens-per-rank 64 --micro-batch 1",
        ],
    ),
    "global batch": (
        (DENSE, gpus(), {"mesh": {"dp": 2}, "global_batch": 8, "zero": "2", "recompute": "products", "attention": "fused"}),
        [
            "--zero 3",
            *("--mesh dp=1,tp=2 --micro-batch 4", "--mesh dp=1,pp=2 --micro-batch 4", "--micro-batch 1"),
            "--recompute full",
        ],
    ),
    "grid": (
        (DENSE, gpus(), {"mesh": {"dp": 2, "tp": 4}, "tensor": "2d"}),
        ["--zero 1", "--zero 2", "--recompute selective", "--recompute full"],
    ),
    "alone": ((DENSE, gpus(), {"mesh": {"dp": 1}, "tokens_per_rank": 32}), ["--recompute selective", "--recompute full"]),
    "experts": (
        (moe(), gpus(), {"mesh": {"ep": 4, "dp": 2}}),
        [
            *("--zero hierarchical", "--zero 2", "--zero 3"),
            "--mesh ep=4,dp=1,tp=2 --tokens-per-rank 256 --micro-batch 4",
            "--mesh ep=4,dp=1,pp=2 --tokens-per-rank 256 --micro-batch 4",
            *("--micro-batch 1", "--recompute selective", "--recompute full"),
        ],
    ),
    "hierarchical": (
        (moe(), gpus(), {"mesh": {"ep": 4}, "zero": "hierarchical", "tokens_per_rank": 32, "recompute": "full"}),
        ["--zero 2", "--zero 3"],
    ),
    "host": (
        (DENSE, HOST, {"mesh": {"dp": 1}, "recompute": "full", "tokens_per_rank": 32}),
        [
            *("--offload optimizer", "--offload activations", "--offload activations,optimizer"),
            "--offload optimizer,parameters",
        ],
    ),
    "host with inputs": (  # each once
        (DENSE, HOST, {"mesh": {"dp": 1}, "recompute": "full", "tokens_per_rank": 32, "offload": "activations"}),
        ["--offload activations,optimizer", "--offload activations,optimizer,parameters"],
    ),
    "host with half of a state": (
        (moe(), HOST, {"mesh": {"ep": 4}, "recompute": "full", "zero": "3", "tokens_per_rank": 32, "offload": "optimizer:0.5"}),
        [
            *("--offload optimizer", "--offload activations,optimizer:0.5", "--offload activations,optimizer"),
            *("--offload optimizer,parameters", "--offload experts,optimizer:0.5", "--offload experts,optimizer"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_single_changes_are_all_that_there_are(case):
    """On a machine on which everything fits, from cheap to dear; each a valid plan of as many ranks, with the same batch."""
    (model, machine, options), expected = CHANGES[case]
    here = setting(model, machine, **options)
    found = list(remedies(here, sample_loads(here)))
    assert [each.flags for each in found] == expected
    for each in found:
        other = setting(model, machine, **{**options, **each.options})
        assert each.need == memory(other, sample_loads(other))
        assert other.mesh.ranks == here.mesh.ranks
        assert other.batch.tokens * other.mesh.replicas == here.batch.tokens * here.mesh.replicas
        if "mesh" in each.options and here.batch.micro_tokens % here.batch.seq_len == 0:
            assert other.batch.micro_tokens == here.batch.micro_tokens


def tried(model, machine, options, singles):
    """All plans that fit of the fewest changes that help, by trying them all."""
    for together in range(1, TOGETHER + 1):
        found = []
        for chosen in combinations(singles, together):
            if len({next(iter(change)) for change in chosen}) < together:
                continue  # two kinds of the same
            changes = {name: value for change in chosen for name, value in change.items()}
            try:
                there = need(model, machine, **{**options, **changes})
            except InputError:
                continue
            if there.fits:
                found.append((changes, there))
        if found:
            return found
    return []


ROOM = {"replicas": (5, 1.3, 0.5, 0.4, 0.2), "experts": (1.1, 0.9, 0.6, 0.2), "host": (0.8, 0.4)}


@pytest.mark.parametrize("case, room", [(case, room) for case in ROOM for room in ROOM[case]])
def test_as_few_changes_together_as_it_takes(case, room):
    """``room`` is a rank's memory, in those of the best single change."""
    (model, machine, options), _ = CHANGES[case]
    here = setting(model, machine, **options)
    singles = list(remedies(here, sample_loads(here)))
    least = min(each.need.total for each in singles)
    small = machine.changed({"core_group.memory": room * least})
    expected = tried(model, small, options, [each.options for each in singles])
    tight = setting(model, small, **options)
    found = [(each.options, each.need) for each in remedies(tight, sample_loads(tight))]
    assert {str(sorted(changes.items())): there for changes, there in found} == {
        str(sorted(changes.items())): there for changes, there in expected
    }
    assert len(found) == len(expected)


def test_loads_of_other_micro_batches_are_in_proportion():
    """Uneven loads are drawn once for each mesh; of fewer tokens the fullest rank carries as much less."""
    options = {"mesh": {"ep": 4}, "router": "zipf:1.5", "balancer": "none"}
    here = setting(moe(), **options)
    loads = sample_loads(here)
    found = {each.flags: each.need for each in remedies(here, loads)}
    fewer = setting(moe(), micro_batch=1, **options)
    assert found["--micro-batch 1"] == memory(fewer, [load.of_tokens(1 / 4) for load in loads])
    assert found["--zero 2"] == memory(setting(moe(), zero="2", **options), loads)
    quarter = loads[0].of_tokens(1 / 4)
    assert np.array_equal(quarter.received * 4, loads[0].received)
    assert np.array_equal(quarter.sent * 4, loads[0].sent)


def test_kinds_of_recomputation_stand_in_the_order_of_what_they_keep():
    kept = [
        layers_keep(setting(DENSE, mesh={"dp": 1}, recompute=name, attention="fused" if each.keeps_products else "unfused"))
        for name, each in RECOMPUTATIONS.items()
        if not each.of_modules
    ]  # fmt: skip
    assert kept == sorted(set(kept), reverse=True)


# --- what is said ------------------------------------------------------------------------------------------------------


def test_a_shortage_names_stage_and_the_largest_parts_first():
    """Parts above half a percent; the stage where there are several; of the host only where that is too small."""
    for mesh in ({"dp": 2}, {"pp": 2, "dp": 1}, {"pp": 4, "dp": 1}):
        here = setting(gpt(32, 4096, 32), gpus(GB), mesh=mesh, tokens_per_rank=8192, recompute="full", micro_batch=1)
        found = memory(here, [])
        text = shortage(here, found)
        fullest = int(np.argmax(sum(line.nbytes for line in of(here).lines if not line.host)))
        where = f" on stage {fullest}" if "pp" in mesh else ""
        head, _, tail = text.rstrip(")").partition(" (")
        assert head == f"gpt does not fit test-tree{where}: {found}"
        words = [part.split() for part in tail.split(", ")]
        sizes = {name: size for name, size in found.table().items() if name not in ("total", "capacity")}
        assert [name for name, _ in words] == sorted(
            (name for name, size in sizes.items() if size > 0.005 * found.total), key=sizes.get, reverse=True
        )
        assert all(size == f"{sizes[name] / 1e9:.1f}" for name, size in words)
    assert any(size < 0.005 * found.total for size in sizes.values()) or len(words) == len(sizes)
    small = setting(DENSE, gpus(host=1e6), mesh={"dp": 4}, offload="optimizer")
    assert shortage(small, memory(small, [])).endswith("GB a rank"), "parts are of the device, which has room"


def test_what_does_not_fit_is_refused_with_the_first_thing_that_helps():
    here = setting(DENSE, gpus(9.7e6), mesh={"dp": 8})
    found = memory(here, [])
    with pytest.raises(DoesNotFit, match=r"; --zero 1 needs 0\.0 GB$"):
        require_fit(here, [], found)
    roomy = setting(DENSE, mesh={"dp": 8})
    require_fit(roomy, [], memory(roomy, []))
