"""What excludes what, and what has to divide: every rule and every size, each with its one line."""

import pytest
from athanor.hardware.errors import InputError
from athanor.workloads.model.model import Model
from athanor.workloads.plan.compatibility import RULES
from athanor.workloads.plan.plan import Plan
from support.command_line import athanor
from support.strategies import BOTH, DENSE, EXPERTS, GATED, SHARED, flat, hosted, lowered

LINEAR = Model.model_validate(
    {
        "name": "linear",
        "layers": 2,
        "hidden": 64,
        "ffn_hidden": 64,
        "vocabulary": 128,
        "seq_len": 64,
        "mixers": ["fading"],
        "recurrent": {"fading": {"kind": "lightning", "heads": 4, "head_size": 16}},
    }
)

EXCLUDED = {
    ("--tensor 2d", "--sequence-parallel"): (DENSE, {"mesh": {"tp": 4}, "tensor": "2d", "sequence_parallel": True}),
    ("--tensor 2d", "cp"): (DENSE, {"mesh": {"tp": 4, "cp": 2}, "tensor": "2d"}),
    ("--tensor 2d", "experts"): (EXPERTS, {"mesh": {"tp": 4}, "tensor": "2d"}),
    ("--tensor 2d", "--zero 3 or ++"): (DENSE, {"mesh": {"tp": 4, "dp": 2}, "tensor": "2d", "zero": "3"}),
    ("--sequence-parallel", "no tp"): (DENSE, {"mesh": {"dp": 2}, "sequence_parallel": True}),
    ("cp", "an encoder-decoder"): (BOTH, {"mesh": {"cp": 2}}),
    ("pp", "an encoder-decoder"): (BOTH, {"mesh": {"pp": 5}}),
    ("pp", "--zero 3 or ++"): (DENSE, {"mesh": {"pp": 2, "dp": 2}, "zero": "3"}),
    ("pp", "--depth message"): (DENSE, {"mesh": {"pp": 2}, "depth": "message"}),
    ("an asynchronous --pipeline", "--zero or --overlap"): (
        DENSE,
        {"mesh": {"pp": 2, "dp": 2}, "pipeline": "2bw", "overlap": "gradients"},
    ),
    ("an asynchronous --pipeline", "--offload of optimizer, parameters or experts"): (
        DENSE,
        {"mesh": {"pp": 2}, "pipeline": "pipedream", "offload": "parameters"},
    ),
    ("--offload optimizer", "--zero ++"): (DENSE, {"mesh": {"fsdp": 2}, "zero": "++", "offload": "optimizer"}),
    ("--offload optimizer", "an --optimizer of whole tensors"): (
        DENSE,
        {"mesh": {"dp": 2}, "offload": "optimizer", "optimizer": "lamb"},
    ),
    ("--accounting fp32", "another --optimizer than Adam"): (
        DENSE,
        {"mesh": {"dp": 2}, "accounting": "fp32", "optimizer": "sgd"},
    ),
    ("--offload experts", "no experts"): (DENSE, {"mesh": {"dp": 2}, "offload": "experts"}),
    ("--offload-delay", "no --offload optimizer"): (DENSE, {"mesh": {"dp": 2}, "offload_delay": True}),
    ("--zero ++", "no fsdp"): (DENSE, {"mesh": {"dp": 4}, "zero": "++"}),
    ("--recompute products", "--attention unfused"): (DENSE, {"mesh": {"dp": 2}, "recompute": "products"}),
    ("--recompute products", "experts"): (
        EXPERTS,
        {"mesh": {"dp": 2}, "recompute": "products", "attention": "fused"},
    ),
    ("--cuda-graphs", "a machine without core_group.launch"): (DENSE, {"mesh": {"dp": 2}, "cuda_graphs": True}),
    ("--cuda-graphs", "experts whose loads vary"): (EXPERTS, {"mesh": {"dp": 2}, "cuda_graphs": True}),
    ("--document-lengths", "an encoder"): (BOTH, {"mesh": {"dp": 2}, "document_lengths": "8"}),
    ("cp", "recurrent layers"): (LINEAR, {"mesh": {"cp": 2}}),
    ("--tensor 2d", "recurrent layers or further tokens"): (LINEAR, {"mesh": {"tp": 4}, "tensor": "2d"}),
    ("--recompute products", "recurrent layers or further tokens"): (
        LINEAR,
        {"mesh": {"dp": 2}, "recompute": "products", "attention": "fused"},
    ),
    ("--recompute modules:mla_up_proj", "no latent attention"): (
        DENSE,
        {"mesh": {"dp": 2}, "recompute": "modules:mlp+mla_up_proj"},
    ),
    ("--recompute modules:moe, moe_act or shared_experts", "no experts"): (
        DENSE,
        {"mesh": {"dp": 2}, "recompute": "modules:moe_act"},
    ),
    ("--recompute-layers", "--recompute none"): (DENSE, {"mesh": {"dp": 2}, "recompute_layers": "every:2"}),
    ("--dispatch node-limited", "no experts"): (DENSE, {"mesh": {"dp": 2}, "dispatch": "node-limited"}),
    ("--dispatch node-limited", "another --all-to-all than linear"): (
        EXPERTS,
        {"mesh": {"ep": 2}, "dispatch": "node-limited", "all_to_all": "bruck"},
    ),
    ("--route-nodes", "--dispatch copies"): (EXPERTS, {"mesh": {"ep": 2}, "route_nodes": 1}),
    ("ep", "no experts"): (DENSE, {"mesh": {"ep": 2}}),
    ("--prototypes", "no experts"): (DENSE, {"mesh": {"dp": 2}, "prototypes": 2}),
    ("--all-to-all bruck", "--expert-tensor below tp"): (
        EXPERTS,
        {"mesh": {"ep": 2, "tp": 4}, "all_to_all": "bruck", "expert_tensor": "2"},
    ),
    ("--expert-tensor in ranks", "no experts"): (DENSE, {"mesh": {"tp": 4}, "expert_tensor": "2"}),
    ("--all-to-all bruck", "--expert-context spread"): (
        EXPERTS,
        {"mesh": {"ep": 2, "cp": 2}, "all_to_all": "bruck", "expert_context": "spread"},
    ),
    ("--expert-context spread", "no experts"): (DENSE, {"mesh": {"cp": 2}, "expert_context": "spread"}),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.first} with {rule.second}")
def test_every_rule_speaks(rule):
    """One line: what, with what, why."""
    model, options = EXCLUDED[rule.first, rule.second]
    machine = hosted(flat())
    if rule.second != "a machine without core_group.launch":
        machine = machine.changed({"core_group.launch": "1 us"})
    with pytest.raises(InputError) as refused:
        lowered(model, machine, **options)
    assert str(refused.value) == f"{rule.first} with {rule.second}: {rule.why}"


def test_every_rule_names_something_that_exists():
    """No rule is there twice, and none here that is gone."""
    assert sorted((rule.first, rule.second) for rule in RULES) == sorted(EXCLUDED)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (DENSE, {"mesh": {"tp": 3}}, "--mesh tp=3: tp=3 does not divide the 8 heads of dense"),
        (
            DENSE.model_copy(update={"heads": 6, "head_size": 8}),
            {"mesh": {"tp": 3}},
            "--mesh tp=3: tp=3 does not divide the 64 hidden elements of dense",
        ),
        (
            DENSE.model_copy(update={"ffn_hidden": 250}),
            {"mesh": {"tp": 4}},
            "--mesh tp=4: tp=4 does not divide the 250 inner elements of the FFN of dense",
        ),
        (
            GATED.model_copy(update={"heads": 12, "kv_heads": 6, "head_size": 8}),
            {"mesh": {"tp": 4}},
            "--mesh tp=4: tp=4 does not divide the 6 key-value heads of gated",
        ),
        (
            SHARED.model_copy(update={"expert_hidden": 130}),
            {"mesh": {"tp": 4}},
            "--mesh tp=4: tp=4 does not divide the 130 inner elements of an expert of shared",
        ),
        (EXPERTS, {"mesh": {"ep": 3}}, "--mesh ep=3: ep=3 does not divide the 16 experts of experts"),
        (
            EXPERTS,
            {"mesh": {"ep": 3, "tp": 4}, "expert_tensor": "whole"},
            "--mesh ep=3,tp=4: ep*tp=12 does not divide the 16 experts of experts",
        ),
        (
            EXPERTS,
            {"mesh": {"tp": 8}, "expert_tensor": "3"},
            "--expert-tensor 3: does not divide the 8 ranks of tp",
        ),
        (
            EXPERTS,
            {"mesh": {"tp": 8}, "expert_tensor": "halve"},
            "--expert-tensor halve: write split, whole or a number of ranks of tp",
        ),
        (
            EXPERTS,
            {"mesh": {"ep": 2, "cp": 4}, "expert_context": "3"},
            "--expert-context 3: does not divide the 4 ranks of cp",
        ),
        (
            EXPERTS.model_copy(update={"expert_hidden": 130}),
            {"mesh": {"tp": 8}, "expert_tensor": "4"},
            "--mesh tp=8: etp=4 does not divide the 130 inner elements of an expert of experts",
        ),
        (
            EXPERTS,
            {"mesh": {"ep": 3, "tp": 4}, "expert_tensor": "2"},
            "--mesh ep=3,tp=4: ep*tep=6 does not divide the 16 experts of experts",
        ),
        (EXPERTS, {"mesh": {"ep": 2}, "prototypes": 3}, "--prototypes 3: does not divide the 16 experts of experts"),
        (
            DENSE,
            {"mesh": {"cp": 3}},
            "--mesh cp=3: cp=3 does not divide the 64 tokens of a micro-batch of dense",
        ),
        (
            DENSE,
            {"mesh": {"tp": 8}, "sequence_parallel": True, "tokens_per_rank": 4},
            "--mesh tp=8: tp=8 does not divide the 4 tokens that a rank has of a micro-batch of dense",
        ),
        (
            DENSE,
            {"mesh": {"tp": 4}, "tensor": "2d", "tokens_per_rank": 96},
            "--mesh tp=4: q=2 does not divide the 3 sequences of a micro-batch of dense",
        ),
        (
            DENSE,
            {"mesh": {"tp": 6}, "tensor": "2d"},
            "--tensor 2d: tp=6 is no square; the grid is q x q, nearest 4 or 9",
        ),
        (
            DENSE,
            {"mesh": {"pp": 3}},
            "--stage-layers even: 2 layers do not divide over pp=3 stages; N,N,... says how many",
        ),
        (
            DENSE,
            {"mesh": {"pp": 4}},
            "--stage-layers even: 2 layers do not divide over pp=4 stages; ends would, with embedding and output as a layer each: 4",
        ),
        (
            DENSE,
            {"mesh": {"dp": 2}, "stage_layers": "ends"},
            "--stage-layers ends: the mesh has no pp, all layers are on one stage",
        ),
        (
            DENSE,
            {"mesh": {"dp": 2}, "chunks": 2},
            "--chunks 2: the mesh has no pp; chunks are parts of a pipeline stage",
        ),
        (
            DENSE,
            {"mesh": {"pp": 2}, "pipeline": "zero"},
            "--pipeline zero: no such pipeline",
        ),
        (DENSE, {"mesh": {"tp": 2, "sp": 2}}, "--mesh sp: no such axis"),
        (
            DENSE,
            {"mesh": {"dp": 2}, "offload": "optimiser"},
            "--offload optimiser: no such thing to offload (optimizer, parameters, activations, experts); did you mean optimizer?",
        ),
        (
            DENSE,
            {"mesh": {"dp": 2}, "offload": "optimizer"},
            "--offload optimizer: test-tree has no host link (node.host_link, node.host_memory, node.host_memory_bandwidth)",
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else None,
)
def test_what_does_not_divide_is_said_with_its_numbers(model, options, message):
    with pytest.raises(InputError) as refused:
        lowered(model, **options)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_whole_experts_need_not_divide():
    """Their inner size stays in one piece."""
    odd = EXPERTS.model_copy(update={"expert_hidden": 129})
    lowered(odd, mesh={"ep": 2, "tp": 2}, expert_tensor="whole")
    with pytest.raises(InputError, match="129 inner elements of an expert"):
        lowered(odd, mesh={"ep": 2, "tp": 2})


def test_the_command_line_says_so_in_one_line():
    words = ["simulate", "--machine", "cluster-64", "--model", "moda-tiny", "--mesh", "tp=4", "--tensor", "2d"]
    done = athanor(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "--tensor 2d with experts: SUMMA is for products that all ranks of the grid share" in done.stderr


def test_what_a_model_recommends_gives_way_to_the_mesh_that_is_asked_for():
    """A pipeline's chunks and sequence parallelism say nothing where there are no stages, and no tp."""
    own = {"mesh": {"pp": 2, "tp": 4}, "pipeline": "interleaved", "chunks": 8, "sequence_parallel": True}
    model = DENSE.model_copy(update={"plan": own})
    plan = Plan.of(model, {"mesh": {"dp": 8}})
    assert (plan.pipeline, plan.chunks, plan.sequence_parallel) == ("1f1b", 1, False)
    assert Plan.of(model, {"mesh": {"dp": 8, "tp": 2}}).sequence_parallel
    assert Plan.of(model, {"mesh": {"pp": 4, "tp": 2}}).chunks == 8
    assert Plan.of(model, {"pipeline": "1f1b"}).chunks == 1
    with pytest.raises(InputError, match="--sequence-parallel with no tp"):
        lowered(EXPERTS, mesh={"ep": 8}, sequence_parallel=True)
