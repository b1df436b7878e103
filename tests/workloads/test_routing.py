"""Precision policies, routers and balancers."""

import itertools

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.workloads.loads.loads import LoadModel
from athanor.workloads.memory import FIXED_FP32, update_state_share
from athanor.workloads.model.precision import POLICIES, PrecisionSchedule
from athanor.workloads.optimizers import OPTIMIZERS
from athanor.workloads.plan.setting import Setting
from athanor.workloads.routing.balancers import Capacity, ExpertChoice, Swipe, Unbalanced
from athanor.workloads.routing.balancers.expert_choice import picked
from athanor.workloads.routing.routers import ROUTERS, Zipf, choices, popularity
from hypothesis import given, settings
from hypothesis import strategies as st


def test_update_state_is_three_quarters_under_apex_o2():
    assert update_state_share("O2") == 0.75
    assert update_state_share("layerwise") == 0.75


def test_bytes_a_parameter_of_each_policy():
    size = {"fp16": 2, "bf16": 2, "fp32": 4, "fp64": 8}
    total = {
        name: size[f.weight] + size[f.gradient] + OPTIMIZERS["adam"].state_bytes(f)
        for name, policy in POLICIES.items()
        for f in [policy["expert"]]
    }
    assert total == {"O0": 16, "O1": 16, "O2": 16, "O3": 8, "layerwise": 16, "fp64": 32, "bf16": 18, "fp8": 18}
    assert sum(FIXED_FP32.values()) == 24
    assert POLICIES["layerwise"]["gate"].compute == "fp32"


def test_precision_by_iteration():
    schedule = PrecisionSchedule.parse("O0:2,O2:1,layerwise")
    names = [next(name for name, policy in POLICIES.items() if policy is schedule.at(step)) for step in range(5)]
    assert names == ["O0", "O0", "O2", "layerwise", "layerwise"]
    for wrong in ("O0:2", "O5", "O0,O1", "O0:x,O1", ""):
        with pytest.raises(InputError):
            PrecisionSchedule.parse(wrong)


@pytest.mark.parametrize("spec", ["uniform", "zipf:0", "zipf:1.0", "zipf:2.5", "table:smartmoe-32"])
@pytest.mark.parametrize("experts", [1, 16, 32, 400])
def test_popularity_is_a_distribution(spec, experts):
    chances = popularity(ROUTERS.find(spec), experts, layer=3, step=5, drift=0.1, seed=7)
    assert chances.shape == (experts,)
    assert chances.sum() == pytest.approx(1)
    assert (chances >= 0).all()


def test_recorded_popularity_keeps_its_statistics_at_any_number_of_experts():
    """1,001 iterations into training: 10.5 times the mean on the most popular expert, 65 % of tokens above the mean."""
    for experts in (32, 64, 320):
        shares = ROUTERS.find("table:smartmoe-32").shares(experts, 0)
        assert shares.max() * experts == pytest.approx(10.5, rel=0.01)
        assert np.maximum(shares - 1 / experts, 0).sum() == pytest.approx(0.65, abs=0.02)


def test_drift_moves_popularity_and_leaves_it_as_uneven():
    """Who is popular wanders by the stated share a step in the mean; sorted popularity stays as it was."""
    at = [popularity(Zipf(1.0), 64, 0, step, 0.05, seed=1) for step in range(300)]
    moved = [np.abs(after - before).sum() / 2 for before, after in itertools.pairwise(at)]
    assert 0.01 < np.mean(moved) <= 0.05
    for chances in at[::50]:
        assert np.sort(chances) == pytest.approx(np.sort(at[0]))
    assert np.abs(at[-1] - at[0]).sum() / 2 > 0.3
    assert (popularity(Zipf(1.0), 64, 0, 3, 0.05, seed=1) == at[3]).all(), "in whatever order steps are asked for"
    assert (popularity(Zipf(1.0), 64, 0, 9, 0.0, seed=1) == at[0]).all()


def test_second_choices_equal_drawing_without_replacement():
    chances, random = Zipf(1.0).shares(12, 0), np.random.default_rng(0)
    drawn = np.array([random.choice(12, size=4, replace=False, p=chances) for _ in range(30_000)])
    found = choices(chances, 4)
    for place_, tolerance in (
        (0, 0.01),
        (1, 0.01),
        (2, 0.02),
        (3, 0.02),
    ):  # from the third on read off exponential clocks
        counted = np.bincount(drawn[:, place_], minlength=12) / len(drawn)
        assert found[place_] == pytest.approx(counted, abs=tolerance)
    assert choices(chances, 12).sum(axis=1) == pytest.approx(np.ones(12))


@given(st.floats(0, 5), st.integers(2, 40), st.integers(1, 6))
def test_a_token_chooses_an_expert_at_most_once(exponent, experts, top_k):
    rows = choices(Zipf(exponent).shares(experts, 0), min(top_k, experts))
    assert rows.sum(axis=1) == pytest.approx(np.ones(len(rows)))
    assert rows.sum(axis=0).max() <= 1 + 1e-9
    assert (rows >= 0).all()


@pytest.mark.parametrize("spec", ["zipff", "zipf:x", "zipf:-1", "uniform:3", "table:", "table:nowhere"])
def test_bad_routers(spec):
    with pytest.raises(InputError):
        ROUTERS.find(spec)


def test_bad_tables(tmp_path):
    for text in (
        "iteration,rank\n1,1\n",
        "iteration,rank,share\n1,1,x\n",
        "iteration,rank,share\n",
        "iteration,rank,share\n1,1,0\n",
        "iteration,rank,share\n1,1,nan\n",
    ):
        path = tmp_path / "table.csv"
        path.write_text(text)
        with pytest.raises(InputError, match=r"table\.csv"):
            ROUTERS.find(f"table:{path}")


def swipe_token_by_token(wanted, tokens):
    """The whole algorithm on every token of one group, as FastMoE's gate runs it: ``wanted[source, token, choice]`` is a rank."""
    ranks, _, top_k = wanted.shape
    final = wanted.copy()
    room = [tokens * top_k] * ranks
    moved = 0
    for choice in range(top_k):
        local = [[int((wanted[src, :, choice] == dest).sum()) for dest in range(ranks)] for src in range(ranks)]
        dropped = [0] * ranks
        for dest in range(ranks):  # receivers admit senders in rank order
            for src in range(ranks):
                accepted = min(room[dest], local[src][dest])
                dropped[src] += local[src][dest] - accepted
                local[src][dest] = accepted
                room[dest] -= accepted
        moved += sum(dropped)
        free = 0
        for src in range(ranks):  # the surplus is dealt out from rank 0 upwards
            while dropped[src] > 0:
                while room[free] == 0:
                    free += 1
                take = min(dropped[src], room[free])
                local[src][free] += take
                dropped[src] -= take
                room[free] -= take
        for src in range(ranks):  # tokens keep their choice while there is an accepted place for it
            left = list(local[src])
            homeless = []
            for token in range(tokens):
                dest = wanted[src, token, choice]
                if left[dest]:
                    left[dest] -= 1
                else:
                    homeless.append(token)
            for token in homeless:
                dest = next(rank for rank in range(ranks) if left[rank])
                left[dest] -= 1
                final[src, token, choice] = dest
    return final, moved


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 3), st.floats(0, 2), st.integers(0, 99))
def test_swipe_on_marginals_equals_swipe_on_tokens(ranks, tokens, top_k, exponent, seed):
    random = np.random.default_rng(seed)
    wanted = random.choice(ranks, size=(ranks, tokens, top_k), p=Zipf(exponent).shares(ranks, 0))
    final, moved = swipe_token_by_token(wanted, tokens)
    marginals = np.array([[np.bincount(wanted[:, :, choice].ravel(), minlength=ranks)] for choice in range(top_k)])
    carried = Swipe().carry(marginals, tokens)
    assert np.bincount(final.ravel(), minlength=ranks).tolist() == carried.tokens[0].tolist()
    assert carried.tokens[0].tolist() == [tokens * top_k] * ranks
    assert carried.moved[0] == moved == (final != wanted).sum()


@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 8), st.integers(1, 50), st.floats(0.3, 3.0), st.integers(0, 99)
)
def test_tokens_are_conserved(top_k, groups, ranks, tokens, factor, seed):
    random = np.random.default_rng(seed)
    wanted = random.multinomial(ranks * tokens, Zipf(1.0).shares(ranks, 0), size=(top_k, groups))
    for balancer in (Unbalanced(), Capacity(factor), Swipe(), ExpertChoice()):
        carried = balancer.carry(wanted, tokens)
        assert (carried.tokens.sum(axis=-1) + carried.dropped == wanted.sum(axis=(0, 2))).all()
        assert (carried.tokens >= 0).all()
    assert (Capacity(factor).carry(wanted, tokens).tokens <= np.ceil(factor * tokens * top_k)).all()


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_experts_pick_as_many_tokens_each_and_those_that_like_them_best(top_k):
    random = np.random.default_rng(top_k)
    chances = random.dirichlet(np.ones(6), size=24)
    found = picked(chances, top_k)
    mine = (found[:, :, None] == np.arange(6)).any(axis=1)
    assert (mine.sum(axis=0) == 24 * top_k // 6).all()
    assert mine.sum(axis=1).max() == found.shape[1] and (np.sort(found, axis=1)[:, ::-1] >= -1).all()
    for expert in range(6):
        assert chances[mine[:, expert], expert].min() >= chances[~mine[:, expert], expert].max()


def test_expert_choice_is_level_in_the_simulator_and_needs_tokens_that_divide():
    """Every rank carries its mean; nothing is dropped, and ranks tell each other nothing but counts."""
    plan = {"mesh": {"ep": 4}, "router": "zipf:1.0", "balancer": "expert-choice"}
    load = LoadModel(Setting.of("cluster-64", "moda-tiny", plan)).sample(0, 0, 0)
    assert load.sent == load.received == load.carried[0] and load.max_over_mean == 1 and not load.dropped_fraction
    assert load.moved_fraction > 0.1
    uneven = Setting.of("cluster-64", "moda-tiny", {**plan, "tokens_per_rank": 31})
    with pytest.raises(InputError, match="31 tokens of a rank times 1 do not divide over"):
        LoadModel(uneven)


@pytest.mark.parametrize(("experts", "most", "moved"), [(16, 4.73, 0.366), (400, 60.9, 0.562)])
def test_what_swipe_moves_under_zipf(experts, most, moved):
    """K17: by construction the load is level; before, Zipf(1) has 4.9 and 60.6 times the mean, and 37 and 56 % above it."""
    tokens = 1_000_000
    wanted = np.round(Zipf(1.0).shares(experts, 0) * tokens * experts).astype(int)[None, None]
    assert wanted.max() / tokens == pytest.approx(most, rel=0.01)
    assert Swipe().carry(wanted, tokens).moved[0] / wanted.sum() == pytest.approx(moved, rel=0.01)


def test_padded_places_are_sent_and_computed_like_tokens():
    """Loads are those of capacity, and what ranks send and compute is the capacity, however full."""
    plan = {"mesh": {"ep": 4}, "global_batch": 4, "micro_batch": 1, "router": "zipf:1.0", "depth": "bound"}
    loads = {}
    for name in ("capacity:1.5", "padded:1.5"):
        setting = Setting.of("cluster-64", "moda-tiny", {**plan, "balancer": name})
        loads[name] = LoadModel(setting).sample(0, 0, 0)
    plain, padded = loads.values()
    places = float(np.ceil(1.5 * setting.batch.micro_tokens * setting.top_k))
    assert padded.sent == padded.received == places == np.max(plain.received)
    assert padded.dropped_fraction == plain.dropped_fraction > 0
    assert (padded.carried == plain.carried).all() and np.min(plain.received) < places
