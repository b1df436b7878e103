"""What strategies send: formulas of their papers against the lowered schedule, and against what the simulated links carry."""

import pytest
from athanor.hardware.errors import InputError
from athanor.workloads.lowering.unroll import unrolled
from athanor.workloads.model.model import Model
from athanor.workloads.schedule.work import Exchange, FusedAttention, PipelineWork, at
from pytest import approx
from support.strategies import (
    BOTH,
    DENSE,
    EXPERTS,
    GATED,
    LATENT,
    PARAMETERS,
    SHAPE,
    SHARED,
    carried,
    exchanges,
    flat,
    kinds,
    lowered,
    moved,
    names,
    products,
    simulated,
    two_levels,
)

TOKENS, HIDDEN, LAYERS, WORDS = 64, 64, 2, 512
SINGLE = 4  # bytes of a number
STREAM = TOKENS * HIDDEN * SINGLE  # bytes of the residual stream of a replica
ENDS = SINGLE * (WORDS * HIDDEN + 2 * HIDDEN)  # bytes of the embedding and the last norm
WEIGHTS = SINGLE * PARAMETERS

CASES = {
    "data parallel": (DENSE, {"mesh": {"dp": 3}}),
    "zero 2": (DENSE, {"mesh": {"dp": 4}, "zero": "2", "tokens_per_rank": 128, "micro_batch": 2}),
    "zero 3": (DENSE, {"mesh": {"dp": 2, "fsdp": 4}, "zero": "3"}),
    "zero ++": (DENSE, {"mesh": {"dp": 2, "fsdp": 4}, "zero": "++"}),
    "two levels": (DENSE, {"mesh": {"dp": 8}, "zero": "hierarchical"}),
    "tensor": (GATED, {"mesh": {"dp": 2, "tp": 4}}),
    "sequence": (LATENT, {"mesh": {"dp": 2, "tp": 4}, "sequence_parallel": True}),
    "encoder-decoder": (BOTH, {"mesh": {"dp": 2, "tp": 4}, "sequence_parallel": True}),
    "two dimensions": (DENSE, {"mesh": {"tp": 4}, "tensor": "2d"}),
    "ring attention": (DENSE, {"mesh": {"cp": 4, "tp": 2}}),
    "fused ring attention": (GATED, {"mesh": {"cp": 4, "tp": 2}, "attention": "fused", "recompute": "full"}),
    "experts": (EXPERTS, {"mesh": {"ep": 4, "dp": 2}, "balancer": "none", "router": "zipf:1.0"}),
    "split experts": (EXPERTS, {"mesh": {"ep": 4, "tp": 2}, "sequence_parallel": True}),
    "whole experts": (EXPERTS, {"mesh": {"ep": 4, "tp": 2}, "expert_tensor": "whole"}),
    "experts cut over a part of tp": (EXPERTS, {"mesh": {"ep": 2, "tp": 4}, "expert_tensor": "2"}),
    "the same, by tokens": (EXPERTS, {"mesh": {"ep": 2, "tp": 4}, "expert_tensor": "2", "sequence_parallel": True}),
    "experts over a part of cp": (EXPERTS, {"mesh": {"dp": 2, "cp": 4}, "expert_context": "2"}),
    "prototypes": (EXPERTS, {"mesh": {"ep": 2, "cp": 2, "tp": 2}, "prototypes": 4}),
    "shared experts": (SHARED, {"mesh": {"ep": 4, "tp": 2}, "sequence_parallel": True, "expert_tensor": "whole"}),
    "recomputation": (EXPERTS, {"mesh": {"ep": 2, "tp": 2}, "recompute": "full"}),
}


@pytest.mark.parametrize("case", CASES)
def test_links_carry_what_the_schedule_says(case):
    """Every rank has its own node, so that all that it sends leaves one; uneven loads keep their own part of the bytes."""
    model, options = CASES[case]
    machine = flat(supernode=4) if case == "two levels" else flat()
    summary, schedule = simulated(model, machine, **options), lowered(model, machine, **options)
    expected = schedule.mesh.ranks * moved(schedule)
    assert expected > 0
    assert carried(summary) == approx(expected, rel=0.1 if "router" in options else 1e-9)
    assert carried(summary, "nic.in") == approx(carried(summary))


class TestDataParallel:
    @pytest.mark.parametrize("ranks", [2, 3, 8, 16])
    @pytest.mark.parametrize("overlap", ["none", "gradients"])
    def test_an_all_reduce_of_the_gradients(self, ranks, overlap):
        """2 (n - 1)/n G, whether it is one all-reduce or a bucket for each layer (Patarasuk and Yuan 2009)."""
        schedule = lowered(mesh={"dp": ranks}, overlap=overlap)
        assert moved(schedule) == approx(2 * (ranks - 1) / ranks * WEIGHTS)
        buckets = LAYERS + 1 if overlap == "gradients" else 1
        assert kinds(schedule, "gradient_sync") == {"all-reduce": buckets}

    def test_accumulation_reduces_once_a_step(self):
        one, four = (lowered(mesh={"dp": 4}, tokens_per_rank=64 * count, micro_batch=2) for count in (1, 4))
        assert moved(one) == moved(four)
        assert products(four) == 4 * products(one)

    def test_ranks_of_other_axes_share_the_gradients_of_what_they_hold(self):
        """Along tp and cp nothing is replicated but norms; along cp all is."""
        by_tensor = moved(lowered(mesh={"dp": 2, "tp": 4}), "gradient_sync")
        norms = SINGLE * DENSE.parameters.norm
        assert by_tensor == approx((WEIGHTS - norms) / 4 + norms)
        assert moved(lowered(mesh={"dp": 2, "cp": 4}), "gradient_sync") == approx(2 * 7 / 8 * WEIGHTS)


class TestTensorParallel:
    @pytest.mark.parametrize("ranks", [2, 4, 8])
    def test_four_all_reduces_a_layer(self, ranks):
        """8 (t - 1)/t b s h numbers a layer (Shoeybi et al. 2019); two more of the same size at both ends, and the loss."""
        schedule = lowered(mesh={"tp": ranks})
        share = 2 * (ranks - 1) / ranks
        for layer in range(LAYERS):
            assert moved(schedule, starting=f"l{layer}.") == approx(4 * share * STREAM)
        assert kinds(schedule, "tensor_parallel") == {"all-reduce": 4 * LAYERS + 3}
        assert moved(schedule) == approx(share * ((4 * LAYERS + 2) * STREAM + 3 * TOKENS * SINGLE))
        assert list(exchanges(schedule))[:3] == ["embedding.reduce", "l0.attention.reduce", "l0.ffn.reduce"]

    @pytest.mark.parametrize(("model", "ranks"), [(DENSE, 8), (GATED, 2)], ids=["dense", "gated"])
    def test_products_are_cut_evenly(self, model, ranks):
        assert products(lowered(model, mesh={"tp": ranks})) == approx(products(lowered(model, mesh={"dp": 1})) / ranks)

    def test_more_ranks_than_heads_of_keys_make_them_several_times(self):
        """Four ranks, two heads of keys and values: each has one, which another has too."""
        two, four = (products(lowered(GATED, mesh={"tp": ranks}), "forward", "l0.attention.qkv") for ranks in (2, 4))
        assert (two, four) == tuple(2 * TOKENS * HIDDEN * 8 * (8 / ranks + 2 * 1) for ranks in (2, 4))

    @pytest.mark.parametrize("ranks", [2, 4, 8])
    def test_sequence_parallelism_moves_the_same_and_one_gather_more_for_each_pair(self, ranks):
        """Each all-reduce becomes an all-gather and a reduce-scatter (Korthikanti et al. 2022)."""
        schedule = lowered(mesh={"tp": ranks}, sequence_parallel=True)
        share = (ranks - 1) / ranks
        for layer in range(LAYERS):
            every = moved(schedule, "tensor_parallel", f"l{layer}.")
            again = sum(moved(schedule, starting=f"l{layer}.{half}.gather.again") for half in ("attention", "ffn"))
            assert every - again == approx(8 * share * STREAM)
            assert again == approx(2 * share * STREAM)
        found = kinds(schedule, "tensor_parallel")
        # Forward two each in a layer, backward four gathers and two sums; embedding: one each; output: two and one.
        assert found == {"all-gather": 6 * LAYERS + 3, "reduce-scatter": 4 * LAYERS + 2, "all-reduce": 1}
        norms = moved(schedule, "gradient_sync")
        assert norms == approx(2 * share * SINGLE * DENSE.parameters.norm), "each rank has seen other tokens"

    def test_norms_and_residuals_are_cut_by_tokens(self):
        whole, cut = (lowered(mesh={"tp": 4}, sequence_parallel=cut) for cut in (False, True))
        for name in ("l0.attention.norm", "l1.ffn.residual", "output.norm", "l0.ffn.norm.grad"):
            sizes = [next(each.work.size for each in some.operations if each.name == name) for some in (whole, cut)]
            assert sizes[0] == 4 * sizes[1] == TOKENS * HIDDEN

    def test_cross_attention_needs_the_encoders_tokens_in_every_layer(self):
        """Its keys and values are made of them by columns, so that their gradients are partial sums."""
        source = 64 * HIDDEN * SINGLE
        plain, cut = (lowered(BOTH, mesh={"tp": 4}, sequence_parallel=cut) for cut in (False, True))
        for layer in (3, 4):
            assert moved(plain, starting=f"l{layer}.cross.source") == approx(2 * 3 / 4 * source)
            assert moved(cut, starting=f"l{layer}.cross.source") == approx(3 * 3 / 4 * source)
        assert moved(plain, starting="embedding.decoder") == approx(2 * 3 / 4 * source / 2)


class TestTensorIn2D:
    @pytest.mark.parametrize("side", [2, 4])
    def test_summa(self, side):
        """Three passes of (7 b s h + 12 h²)(q - 1)/q² numbers a layer, and two a token for each norm (Xu et al. 2021)."""
        options = {"mesh": {"tp": side**2}, "tensor": "2d", "tokens_per_rank": 32 * side}
        tokens = 32 * side
        schedule = lowered(**options)
        blocks = (7 * tokens * HIDDEN + 12 * HIDDEN**2) * (side - 1) / side**2
        norms = 4 * 2 * (side - 1) / side * 2 * tokens / side
        for layer in range(LAYERS):
            assert moved(schedule, starting=f"l{layer}.") == approx(SINGLE * (3 * blocks + norms))
        assert products(schedule) == approx(products(lowered(mesh={"dp": 1}, tokens_per_rank=tokens)) / side**2)

    def test_a_product_takes_as_many_steps_as_the_grid_has_rows(self):
        steps = names(lowered(mesh={"tp": 4}, tensor="2d"), "l0.ffn.up")
        assert steps == [
            *(".a.0", ".b.0", ".0", ".a.1", ".b.1", ".1"),
            *(".dgrad.b.0", ".dgrad.0", ".dgrad.reduce.0", ".dgrad.b.1", ".dgrad.1", ".dgrad.reduce.1"),
            *(".wgrad.a.0", ".wgrad.0", ".wgrad.reduce.0", ".wgrad.a.1", ".wgrad.1", ".wgrad.reduce.1"),
        ]

    @pytest.mark.parametrize(("side", "algorithm"), [(2, "binomial"), (4, "chain")])
    def test_blocks_go_along_chains_where_there_are_more_than_two_ranks(self, side, algorithm):
        schedule = lowered(mesh={"tp": side**2}, tensor="2d", tokens_per_rank=32 * side)
        found = {(each.operation, each.algorithm) for each in exchanges(schedule).values()}
        assert found == {("broadcast", algorithm), ("reduce", algorithm), ("all-reduce", "ring")}

    @pytest.mark.parametrize(
        ("placement", "ways"), [("auto", {"row": 2, "col": 2}), ("megatron", {"row": 0, "col": 4})]
    )
    def test_tiles_share_the_cards(self, placement, ways):
        """Of 4 x 4 ranks, four a node: in tiles each row and column is on two nodes, else a column on one and a row on four."""
        machine = two_levels()
        options = {"mesh": {"tp": 16}, "tensor": "2d", "tokens_per_rank": 128}
        expected = 0.0
        for each in exchanges(lowered(machine=machine, **options)).values():
            nodes = ways[each.axes[0]]
            around = each.operation == "all-reduce"  # a ring closes; a chain ends
            crossings = nodes * 2 * 3 / 4 if around else max(0, nodes - 1)
            expected += 4 * crossings * each.nbytes
        assert carried(simulated(machine=machine, placement=placement, **options)) == approx(expected)

    @pytest.mark.parametrize(("sequences", "better"), [(4, False), (64, True)])
    def test_less_than_in_1d_where_tokens_outweigh_weights(self, sequences, better):
        """On a 4 x 4 grid 3 (7 T + 12 h) 3/16 < 8 T 15/16, that is h < 0.53 T: at 483 tokens or more where h is 256."""
        options = {"mesh": {"tp": 16}, "tokens_per_rank": 32 * sequences}
        model = Model(**{**SHAPE, "heads": 16, "hidden": 256, "ffn_hidden": 1024}, name="wide")
        one, two = (lowered(model, tensor=way, **options) for way in ("1d", "2d"))
        assert (moved(two, starting="l0.") < moved(one, starting="l0.")) == better


class TestRingAttention:
    @pytest.mark.parametrize("ranks", [2, 4, 8])
    def test_keys_and_values_go_around(self, ranks):
        """2 (n - 1) blocks forward, 4 (n - 1) backward, reductions of gradients included (Li et al. 2021, section 3.2)."""
        schedule = lowered(mesh={"cp": ranks})
        block = STREAM / ranks
        found = exchanges(schedule, "tensor_parallel")
        for layer in range(LAYERS):
            shifts = [name for name, each in found.items() if each.operation == "shift" and f"l{layer}." in name]
            assert len(shifts) == 2 * 2 * (ranks - 1)
            forward = sum(
                moved(schedule, starting=f"l{layer}.attention.{what}.{step}")
                for what in ("keys", "values")
                for step in range(1, ranks)
            )
            assert forward == approx(2 * (ranks - 1) * block)
            assert moved(schedule, "tensor_parallel", f"l{layer}.") == approx(6 * (ranks - 1) * block)

    def test_grouped_keys_are_as_many_fewer(self):
        """Two heads of keys for eight of queries."""
        schedules = [lowered(model, mesh={"cp": 4}) for model in (DENSE, GATED)]
        whole, grouped = (moved(each, "tensor_parallel") for each in schedules)
        assert grouped == approx(whole / 4)

    def test_scores_are_an_nth(self):
        one, four = (lowered(mesh={"cp": ranks}) for ranks in (1, 4))
        sizes = [next(e.work.size for e in some.operations if e.name == "l0.attention.softmax") for some in (one, four)]
        assert sizes[0] == 4 * sizes[1] == DENSE.heads * TOKENS * 32
        assert products(four) == approx(products(one) / 4)


class TestFusedRingAttention:
    @pytest.mark.parametrize("recompute", ["none", "full"])
    @pytest.mark.parametrize("ranks", [2, 3, 8])
    def test_blocks_go_around_and_come_back_with_their_gradients(self, ranks, recompute):
        """N - 1 blocks of keys and values forward; backward as many, and as many gradients (Liu et al. 2023, section 3)."""
        model = Model(name="long", **{**SHAPE, "seq_len": 48})
        schedule = lowered(model, mesh={"cp": ranks}, attention="fused", tokens_per_rank=96, recompute=recompute)
        block = 2 * 96 * HIDDEN * SINGLE / ranks
        for layer in range(LAYERS):
            forward, backward = (
                [
                    each.work
                    for each in schedule.operations
                    if each.phase == phase and f"l{layer}.attention.ring" in each.name
                ]
                for phase in ("forward", "backward")
            )
            assert [each.nbytes for each in forward] == approx([block] * (ranks - 1))
            assert sum(each.nbytes for each in backward) == approx((2 + (recompute == "full")) * (ranks - 1) * block)
            assert {each.operation for each in (*forward, *backward)} == {"shift"}
        assert moved(schedule, "tensor_parallel") == approx(LAYERS * (3 + (recompute == "full")) * (ranks - 1) * block)

    @pytest.mark.parametrize("model", [DENSE, GATED, LATENT], ids=lambda model: model.name)
    @pytest.mark.parametrize("tp", [1, 4])
    def test_a_block_is_the_heads_that_there_are(self, model, tp):
        """Grouped keys are as many fewer, cut over tp as far as there are any; latent ones have sizes of their own."""
        schedule = lowered(model, mesh={"cp": 2, "tp": tp}, attention="fused")
        heads = max(1, model.key_value_heads // tp)
        block = TOKENS / 2 * heads * (model.query_size + model.value_size) * SINGLE
        assert moved(schedule, "tensor_parallel", "l1.attention.ring") == approx(3 * block)

    @pytest.mark.parametrize("ranks", [2, 4])
    def test_kernels_together_are_the_whole(self, ranks):
        def kernels(count):
            schedule = lowered(GATED, mesh={"cp": count}, attention="fused")
            return [each.work for each in schedule.operations if isinstance(each.work, FusedAttention)]

        (once, parts) = kernels(1), kernels(ranks)
        assert len(parts) == ranks * len(once)
        assert sum(each.flops for each in parts) == approx(sum(each.flops for each in once) / ranks)

    def test_a_split_backward_pass_goes_around_once(self):
        """Gradients of weights need no keys of others: they are in B alone."""
        schedule = lowered(mesh={"pp": 2, "cp": 2}, attention="fused", pipeline="zb-h1", micro_batch=1)
        (work,) = (each.work for each in schedule.operations if isinstance(each.work, PipelineWork))
        count = [
            {sum(".ring" in each.name for each in work.blocks[number]) for uses in work.uses for number in uses[which]}
            for which in range(3)
        ]
        assert count == [{1}, {2}, {0}]


class TestZero:
    @pytest.mark.parametrize("level", ["0", "1", "2", "hierarchical"])
    def test_up_to_level_two_as_much_as_an_all_reduce(self, level):
        """2 (n - 1)/n (Rajbhandari et al. 2020, section 7)."""
        schedule = lowered(mesh={"dp": 8}, zero=level)
        assert moved(schedule) == approx(2 * 7 / 8 * WEIGHTS)
        scattered = kinds(schedule, "gradient_sync")
        assert ("reduce-scatter" in scattered) == (level != "0")

    @pytest.mark.parametrize("overlap", ["none", "gradients"])
    @pytest.mark.parametrize("pipeline", ["1f1b", "zb-h1"])
    def test_level_two_in_stages_reduces_each_micro_batch(self, pipeline, overlap):
        """Layers' gradients m times, those of both ends and new weights once; nothing twice where backward passes split."""
        count = 6
        options = {"mesh": {"pp": 2, "dp": 4}, "zero": "2", "overlap": overlap, "pipeline": pipeline}
        schedule = lowered(**options, tokens_per_rank=count * 32, micro_batch=1)
        sizes = dict.fromkeys(range(2), 0.0)
        for stage in sizes:
            for each in unrolled(schedule, (stage, 0)):
                if isinstance(each.work, Exchange) and each.category == "gradient_sync" and each.work.axes == ("dp",):
                    sizes[stage] += at(each.work.nbytes, (stage, 0))
        layer = SINGLE * DENSE.of_layer(DENSE.stack[0]).total
        words, norm = SINGLE * WORDS * HIDDEN, SINGLE * 2 * HIDDEN
        assert sizes == approx({0: (count + 1) * layer + 2 * words, 1: (count + 1) * layer + 2 * (words + norm)})

    def test_level_three_half_as_much_again(self):
        """3 (n - 1)/n: weights before the forward and before the backward pass, gradients after it."""
        schedule = lowered(mesh={"dp": 8}, zero="3")
        assert moved(schedule) == approx(3 * 7 / 8 * WEIGHTS)
        for layer in range(LAYERS):
            each = [name.split(".fp32.")[1] for name in exchanges(schedule) if name.startswith(f"l{layer}.")]
            assert each == ["all-gather", "all-gather.again", "reduce-scatter"]

    def test_micro_batches(self):
        """Level 2 reduces layers, and level 3 also gathers all weights, once for each."""
        options = {"mesh": {"dp": 8}, "tokens_per_rank": 4 * 64, "micro_batch": 2}
        share, layers = 7 / 8, WEIGHTS - ENDS
        assert moved(lowered(zero="2", **options)) == approx(share * (4 * layers + ENDS + WEIGHTS))
        assert moved(lowered(zero="3", **options)) == approx(share * (2 * 4 * WEIGHTS + 4 * layers + ENDS))

    def test_overlap_moves_the_same(self):
        for level in ("1", "2", "3", "++"):
            none, beside = (
                lowered(mesh={"dp": 2, "fsdp": 2}, zero=level, overlap=way) for way in ("none", "gradients")
            )
            assert moved(none) == approx(moved(beside))

    def test_hybrid_shards_span_fsdp_and_gradients_are_summed_over_dp(self):
        """PyTorch's HSDP, MiCS (Zhang et al. 2022): 3 (f - 1)/f inside, an all-reduce of a shard across."""
        schedule = lowered(mesh={"dp": 2, "fsdp": 4}, zero="3")
        assert moved(schedule) == approx(3 * 3 / 4 * WEIGHTS + 2 * 1 / 2 * WEIGHTS / 4)
        across = [each for each in exchanges(schedule).values() if each.axes == ("dp",)]
        assert {each.operation for each in across} == {"all-reduce"}
        one = lowered(mesh={"dp": 2, "fsdp": 4}, zero="1")
        assert moved(one) == approx(2 * 3 / 4 * WEIGHTS + 2 * 1 / 2 * WEIGHTS / 4)

    @pytest.mark.parametrize("nodes", [2, 4])
    def test_plus_plus_sends_a_quarter_across_nodes(self, nodes):
        """3 M in half precision become 0.5 M, nothing, and 0.25 M (Wang et al. 2023, table 1), to a node's share of all."""
        machine, weights = two_levels(nodes), 2 * PARAMETERS
        ranks, share = 4 * nodes, (nodes - 1) / nodes
        around = (ranks - 1) / ranks  # a flat ring crosses each node's bounds with all but one block
        plain = simulated(machine=machine, mesh={"dp": ranks}, zero="3", precision="O3")
        quantised = simulated(machine=machine, mesh={"dp": nodes, "fsdp": 4}, zero="++", precision="O3")
        assert carried(plain) == approx(nodes * 3 * around * weights)
        assert carried(quantised) == approx(nodes * (0.5 * around + 0.25 * share) * weights)

    def test_plus_plus_updates_a_shard_of_all_replicas(self):
        sizes = {}
        for level in ("1", "++"):
            schedule = lowered(mesh={"dp": 2, "fsdp": 4}, zero=level)
            sizes[level] = next(each.work.size for each in schedule.operations if each.name == "update.adam.ffn")
        assert sizes == {"1": DENSE.parameters.ffn / 4, "++": DENSE.parameters.ffn / 8}

    def test_quantised_weights_are_unpacked_when_they_are_there(self):
        for overlap in ("none", "gradients"):
            schedule = lowered(mesh={"dp": 2, "fsdp": 2}, zero="++", overlap=overlap)
            numbers = {each.name: number for number, each in enumerate(schedule.operations)}
            for layer in range(LAYERS):
                unpack = numbers[f"l{layer}.weights.dense.fp32.dequantise"]
                assert numbers[f"l{layer}.weights.dense.fp32.all-gather"] in schedule.operations[unpack].after


class TestExperts:
    TOKEN = HIDDEN * SINGLE

    def test_four_payloads_a_layer(self):
        """Tokens to experts and back, forward and backward."""
        for copies in (1, 2):
            schedule = lowered(EXPERTS, mesh={"ep": 4}, balancer="none", top_k=copies)
            counts = sum(moved(schedule, starting=f"l{layer}.moe.counts") for layer in range(LAYERS))
            assert moved(schedule, "all_to_all") - counts == approx(4 * LAYERS * 3 / 4 * copies * TOKENS * self.TOKEN)

    def test_split_experts_see_all_tokens_on_each_rank_of_tp(self):
        alone, split = (lowered(EXPERTS, mesh={"ep": 4, "tp": width}) for width in (1, 2))
        assert moved(split, "all_to_all") == moved(alone, "all_to_all")
        for name in ("l0.moe.up", "l1.moe.down.wgrad"):
            assert products(split, starting=name) == approx(products(alone, starting=name) / 2)
        assert moved(split, starting="l0.moe.reduce") == approx(2 * 1 / 2 * STREAM)

    def test_whole_experts_are_spread_over_tp_as_well(self):
        """Each rank of tp sends its own share of the tokens, to ep·tp ranks."""
        schedule = lowered(EXPERTS, mesh={"ep": 4, "tp": 2}, expert_tensor="whole")
        dispatch = exchanges(schedule)["l0.moe.dispatch"]
        assert (dispatch.axes, dispatch.nbytes) == (("ep", "tp"), TOKENS * self.TOKEN / 2)
        alone = lowered(EXPERTS, mesh={"ep": 8}, tokens_per_rank=32, micro_batch=1)
        for name in ("l0.moe.up", "l0.moe.gate"):
            assert products(schedule, starting=name) == approx(products(alone, starting=name))
        together = exchanges(schedule)["l0.moe.collect"]
        assert (together.operation, together.nbytes) == ("all-gather", STREAM)
        cut = lowered(EXPERTS, mesh={"ep": 4, "tp": 2}, expert_tensor="whole", sequence_parallel=True)
        assert "l0.moe.collect" not in exchanges(cut), "the residual stream is cut in the same way"

    @pytest.mark.parametrize("tokens", [False, True])
    def test_degrees_at_both_ends_are_split_and_whole_experts(self, tokens):
        """Operation by operation, to the last bit."""
        for degree, word in (("8", "split"), ("1", "whole")):
            one, other = (
                lowered(EXPERTS, mesh={"ep": 2, "tp": 8}, expert_tensor=way, sequence_parallel=tokens)
                for way in (degree, word)
            )
            assert [(each.name, repr(each.work)) for each in one.operations] == [
                (each.name, repr(each.work)) for each in other.operations
            ]

    @pytest.mark.parametrize("each", [2, 4])
    def test_experts_cut_over_a_part_of_tp(self, each):
        """Groups of etp do what tp does with split experts, each with its share of the tokens; over the groups lie other experts."""
        groups = 8 // each
        large = flat(nodes=32, supernode=32)
        schedule = lowered(EXPERTS, large, mesh={"dp": 2, "ep": 2, "tp": 8}, expert_tensor=str(each))
        found = exchanges(schedule)
        dispatch, summed, together = (found[f"l0.moe.{name}"] for name in ("dispatch", "reduce", "collect"))
        assert (dispatch.axes, dispatch.nbytes) == (("ep", "tep"), TOKENS * self.TOKEN / groups)
        assert (summed.operation, summed.axes, summed.nbytes) == ("all-reduce", ("etp",), STREAM / groups)
        assert (together.operation, together.axes, together.nbytes) == ("all-gather", ("tep",), STREAM)
        alone = lowered(EXPERTS, mesh={"dp": 2, "ep": 2})
        for name in ("l0.moe.up", "l0.moe.down.wgrad"):
            assert products(schedule, starting=name) == approx(products(alone, starting=name) / 8)
        assert products(schedule, starting="l0.moe.gate") == approx(products(alone, starting="l0.moe.gate") / groups)
        cut = exchanges(lowered(EXPERTS, mesh={"ep": 2, "tp": 8}, expert_tensor=str(each), sequence_parallel=True))
        gathered, scattered = cut["l0.moe.gather"], cut["l0.moe.reduce"]
        assert (gathered.operation, gathered.axes, gathered.nbytes) == ("all-gather", ("etp",), STREAM / groups)
        assert (scattered.operation, scattered.axes) == ("reduce-scatter", ("etp",)) and "l0.moe.collect" not in cut
        copies = {name: work for name, work in found.items() if name.startswith("gradients.experts")}
        assert {work.axes for work in copies.values()} == {("dp",)}, "expert dp is world / (etp ep pp)"
        weights = SINGLE * EXPERTS.parameters.expert
        assert moved(schedule, starting="gradients.experts") == approx(2 * 1 / 2 * weights / (2 * groups * each))

    def test_the_more_an_expert_is_cut_the_more_is_sent(self):
        """Tokens travel on every rank that has a part of their experts."""
        sent = [
            moved(
                lowered(EXPERTS, mesh={"ep": 2, "tp": 8}, expert_tensor=way, sequence_parallel=True), starting="l0.moe"
            )
            for way in ("1", "2", "4", "8")
        ]
        assert sent == sorted(sent) and len({*sent}) == 4

    def test_experts_spread_over_a_part_of_cp(self):
        """Copies are then in every group of so many ranks of cp, and their gradients summed over groups."""
        schedule = lowered(EXPERTS, mesh={"dp": 2, "ep": 2, "cp": 4}, expert_context="2")
        found = exchanges(schedule)
        assert found["l0.moe.dispatch"].axes == ("ep", "cep")
        assert {work.axes for name, work in found.items() if name.startswith("gradients.experts")} == {("dp", "cdp")}
        assert {work.axes for name, work in found.items() if ".attention.keys" in name} == {("cp",)}
        weights = SINGLE * EXPERTS.parameters.expert
        assert moved(schedule, starting="gradients.experts") == approx(2 * 3 / 4 * weights / 4)

    def test_experts_spread_over_cp_as_well(self):
        """Ranks of cp route their own parts of sequences; over them lie other experts, so that only dp has copies to sum."""
        copies = lowered(EXPERTS, mesh={"dp": 2, "ep": 2, "cp": 2})
        spread = lowered(EXPERTS, mesh={"dp": 2, "ep": 2, "cp": 2}, expert_context="spread")
        there, here = (exchanges(each)["l0.moe.dispatch"] for each in (copies, spread))
        assert (there.axes, here.axes) == (("ep",), ("ep", "cp")) and there.nbytes == here.nbytes
        assert products(spread, starting="l0.moe") == approx(products(copies, starting="l0.moe"))
        axes = {name: each.axes for name, each in exchanges(spread).items() if name.startswith("gradients.experts")}
        assert axes and set(axes.values()) == {("dp",)}
        kept, dealt = (moved(each, starting="gradients.experts") for each in (copies, spread))
        assert dealt == approx(
            kept * (2 * 1 / 2) / (2 * 3 / 4) / 2
        )  # rings of 2 in place of 4, over half of the experts

    def test_a_degree_of_experts_counts_ranks_of_tp_cp_and_dp(self):
        """Megatron's folding: tp first where experts are whole, then cp, then dp; the same plan as one with its axes named."""
        folded = lowered(EXPERTS, mesh={"dp": 4, "cp": 2, "tp": 2}, expert_parallel=8, expert_tensor="whole")
        named = {"mesh": {"dp": 2, "ep": 2, "cp": 2, "tp": 2}, "expert_tensor": "whole", "expert_context": "spread"}
        named = lowered(EXPERTS, **named)
        assert (moved(folded), products(folded)) == (moved(named), products(named))
        ways = [{name: each.axes for name, each in exchanges(schedule).items()} for schedule in (folded, named)]
        assert ways[0] == ways[1] and ways[0]["l0.moe.dispatch"] == ("ep", "cp", "tp")
        over_cp = lowered(EXPERTS, mesh={"dp": 4, "cp": 2, "tp": 2}, expert_parallel=2)
        assert exchanges(over_cp)["l0.moe.dispatch"].axes == ("cp",)
        part = lowered(EXPERTS, mesh={"cp": 4, "tp": 4}, expert_parallel=4, expert_tensor="2")
        assert exchanges(part)["l0.moe.dispatch"].axes == ("cep", "tep"), "two ranks of cp, two groups of tp"
        for mesh, degree, why in (
            ({"dp": 3, "cp": 4}, 6, "leaves 6 for cp=4; neither divides the other"),
            ({"dp": 4, "tp": 2}, 8, "leaves 8 for dp=4, which it does not divide"),
            ({"dp": 2, "ep": 2}, 2, "the mesh has ep=2; name one of the two"),
        ):
            with pytest.raises(InputError, match=why):
                lowered(EXPERTS, mesh=mesh, expert_parallel=degree)

    def test_gates_that_route_other_tokens_sum_their_gradients(self):
        """Split experts, too: a rank of tp weighs parts of their outputs, so that its gate has a part of the gradient."""
        for options, summed in (
            ({}, True),
            ({"sequence_parallel": True}, True),
            ({"expert_tensor": "whole"}, True),
            ({"expert_tensor": "whole", "sequence_parallel": True}, True),
        ):
            schedule = lowered(EXPERTS, mesh={"ep": 4, "tp": 2}, **options)
            found = moved(schedule, starting="gradients.gate.sequence")
            assert found == approx(summed * 2 * 1 / 2 * SINGLE * EXPERTS.parameters.gate)

    def test_shared_experts_see_every_token(self):
        schedule = lowered(SHARED, mesh={"ep": 4})
        assert products(schedule, "forward", "l1.shared") == 2 * TOKENS * 2 * HIDDEN * 2 * 128
        assert products(schedule, starting="l1.shared") == approx(3 * products(schedule, "forward", "l1.shared"))
        assert not names(schedule, "l0.shared"), "the first layer is dense"
        whole = lowered(SHARED, mesh={"ep": 4, "tp": 2}, expert_tensor="whole")
        assert products(whole, starting="l1.shared") == approx(products(schedule, starting="l1.shared") / 2)

    def test_prototypes_choose_once_in_each_group(self):
        """M6-T: k groups with the top expert of each cost what k experts of one group do, and read scores once."""
        groups, chosen = (lowered(EXPERTS, mesh={"ep": 4}, **way) for way in ({"prototypes": 4}, {"top_k": 4}))
        assert moved(groups, "all_to_all") == moved(chosen, "all_to_all")
        assert products(groups) == products(chosen)
        reads = [next(e.work.read for e in some.operations if e.name == "l0.moe.top_k") for some in (groups, chosen)]
        assert reads == [SINGLE, 4 * SINGLE]

    def test_prototypes_keep_to_their_groups(self):
        """However skewed the router is, each group of experts gets every token once."""
        setting = {"mesh": {"ep": 4}, "prototypes": 4, "router": "zipf:1.5", "balancer": "none"}
        dispatch = exchanges(lowered(EXPERTS, **setting))["l0.moe.dispatch"]
        assert dispatch.received is None, "each rank has one group here, so that all carry the same"
        assert dispatch.nbytes == 4 * TOKENS * self.TOKEN
        assert exchanges(lowered(EXPERTS, **{**setting, "prototypes": 2}))["l0.moe.dispatch"].received is not None

    def test_gradients_of_experts_are_summed_where_they_are_replicated(self):
        schedule = lowered(EXPERTS, mesh={"ep": 4, "dp": 2})
        counts = EXPERTS.parameters
        expected = SINGLE * (counts.expert / 4 + 2 * 7 / 8 * counts.dense)
        assert moved(schedule, "gradient_sync") == approx(expected)

    def test_a_decoder_of_another_length_routes_its_own_tokens(self):
        model = Model(**SHAPE, name="both", encoder_layers=2, decoder_seq_len=16, experts=16)
        schedule = lowered(model, mesh={"ep": 4})
        found = exchanges(schedule)
        assert found["l1.moe.dispatch"].nbytes == 2 * found["l2.moe.dispatch"].nbytes == TOKENS * self.TOKEN


def test_a_mesh_that_is_no_square_is_no_grid():
    with pytest.raises(InputError, match=r"--tensor 2d: tp=8 is no square; the grid is q x q, nearest 4 or 9"):
        lowered(mesh={"tp": 8}, tensor="2d")
