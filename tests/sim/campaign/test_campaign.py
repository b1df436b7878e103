"""A campaign from machine and model to wall clock, energy and cost, and what the command line makes of it."""

import json

import athanor as package
import pytest
from athanor.hardware.errors import InputError, NeverDone
from athanor.hardware.machine import load_machine
from athanor.hardware.site.assumed import assumed_power
from athanor.hardware.site.storage import Storage
from athanor.sim.campaign import budget
from athanor.sim.campaign.campaign_options import CampaignOptions
from athanor.sim.campaign.campaign_plan import CampaignPlan, campaign_options_source
from athanor.sim.campaign.energy import ENTRY_STATE, STATE_OF, STEPS, Draw, memory_bound_share, step_states
from athanor.sim.campaign.ledger import ENTRIES
from athanor.sim.campaign.storage.file_system import transfer
from athanor.workloads.model.model import load_model
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.operation import CATEGORIES
from support.command_line import athanor
from support.paths import ROOT
from support.stories import explored

SMALL = {"mtbf_node": "10d", "seeds": 9, "ranks_per_node": 1}


def small(**options):
    return package.campaign("cluster-64", "moda-tiny", **{**SMALL, "train_steps": 300_000_000, **options})


@pytest.fixture(scope="module")
def found():
    return small().summary()


def test_the_summary_has_what_was_promised(found):
    wall = found["wall_clock_seconds"]
    assert wall["p5"] <= wall["median"] <= wall["p95"]
    assert 0 < found["goodput"] < 1
    assert sum(found["ledger"].values()) == pytest.approx(wall["median"], rel=1e-9)
    assert found["ledger"]["productive"] == pytest.approx(found["steps"] * found["step_seconds"])
    assert found["goodput"] == pytest.approx(found["ledger"]["productive"] / wall["median"])
    assert set(found["checkpoint_interval_seconds"]) == {"used", "young", "daly", "daly_first_order", "optimum"}
    assert found["energy_joules"] > 0
    assert found["co2_kilograms"] > 0
    assert found["cost"] > 0
    assert found["interruptions"] > 0
    for each in found["seeds"]:
        assert sum(each["ledger"].values()) == pytest.approx(each["wall_clock_seconds"])
    json.dumps(found, allow_nan=False)


def test_what_is_assumed_is_said(found):
    told = " ".join(found["warnings"])
    for table in ("faults", "power", "storage", "price"):
        assert f"has no [{table}]" in told


def test_the_step_is_the_simulators(found):
    run = package.simulate("cluster-64", "moda-tiny", ranks_per_node=1)
    assert found["step_seconds"] == run.summary()["step_seconds"]


def test_the_same_seed_gives_the_same_campaign(found):
    assert small().summary() == found
    assert small(seed=9).summary()["wall_clock_seconds"] != found["wall_clock_seconds"]


def test_steps_that_differ_are_sampled():
    told = small(jitter=0.2, seeds=1).summary()
    assert len(set(told["sampled_step_seconds"])) == 3
    assert told["step_seconds"] == pytest.approx(sum(told["sampled_step_seconds"]) / 3)


def test_budgets_agree():
    model = load_model("gpt3-175b")
    parameters = budget.activated_parameters(model)
    assert parameters == model.parameters.total
    assert budget.tokens_to_loss(parameters, budget.loss_of(parameters, 3e11)) == pytest.approx(3e11)
    # Chinchilla's own: 70 B parameters and 1.4 T tokens beat 280 B and 300 B tokens
    assert budget.loss_of(70e9, 1.4e12) < budget.loss_of(280e9, 300e9)
    assert budget.steps_of(CampaignPlan(tokens=1e9), model, 3e6) == 334
    with pytest.raises(InputError, match="do not come below"):
        budget.steps_of(CampaignPlan(target_loss=1.0), model, 3e6)


def test_a_mixture_counts_what_a_token_passes_through():
    model = load_model("moda-1.93t")
    assert model.parameters.dense < budget.activated_parameters(model) < 0.01 * model.parameters.total


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "give one of them"),
        ({"tokens": 1e9, "target_loss": 2.0}, "give one of them"),
        ({"tokens": 1e9, "mtbf_node": "5"}, "--mtbf-node 5: .*needs a time"),
        ({"tokens": 1e9, "checkpoint_interval": "dally"}, "or a rule: daly, young, optimum"),
        ({"tokens": 1e9, "mtbf_node": "5y", "faults": "llama3"}, "give one of the two"),
        ({"tokens": 1e9, "power_cap": "5 GB"}, "--power-cap 5 GB"),
        ({"tokens": 1e9, "policy": "pray"}, "no such choice"),
        ({"tokens": -1.0}, "must be above 0"),
    ],
)
def test_bad_options_are_one_line(options, told):
    with pytest.raises(InputError, match=told):
        CampaignPlan.of(options)


def test_a_training_that_does_not_end_says_why():
    with pytest.raises(NeverDone, match="does not end: with a fault every"):
        small(mtbf_node="3min")


def test_a_power_cap_lengthens_steps_and_saves_energy_where_memory_waits():
    free, capped = small(seeds=1), small(seeds=1, power_cap="300W")
    assert capped.step_seconds[0] > free.step_seconds[0]
    assert capped.draw.watts["productive"] < free.draw.watts["productive"]


@pytest.mark.parametrize("kind", ["asynchronous", "multi-level"])
def test_other_kinds_of_checkpoints_keep_steps_waiting_less(kind):
    options = {"checkpoint_bytes": 1e15, "mtbf_node": None, "faults": "llama3", "seeds": 3, "train_steps": 100_000_000}
    blocking, other = small(**options).summary(), small(checkpoint=kind, **options).summary()
    assert other["checkpoint"]["save_seconds"] < blocking["checkpoint"]["save_seconds"]
    assert other["wall_clock_seconds"]["median"] < blocking["wall_clock_seconds"]["median"]
    if kind == "multi-level":
        intervals = [each["interval_seconds"] for each in other["checkpoint"]["levels"]]
        assert intervals == sorted(intervals)
        assert 0 < other["checkpoint"]["overhead_first_order"] < 1


def test_memory_bound_work_is_counted_in_pipelines_too():
    plain, staged = (
        memory_bound_share(Setting.of("selene", "gpt3-6.7b", {"mesh": mesh, "global_batch": 64, "micro_batch": 1}))
        for mesh in ("dp=8,tp=8", "pp=4,dp=2,tp=8")
    )
    assert 0.05 < plain < 0.6
    assert staged == pytest.approx(plain, rel=0.1)


def test_power_swings_from_phase_to_phase_around_the_steps_mean(found):
    run = small(seeds=1)
    *phases, save = run.swings
    assert save[2] == "checkpoint"
    assert [each[2] for each in phases] == 3 * ["forward", "backward", "update"]
    seconds = sum(end - start for start, end, _, _ in phases)
    assert seconds == pytest.approx(3 * found["step_seconds"])
    mean = sum((end - start) * watts for start, end, _, watts in phases) / seconds
    assert mean == pytest.approx(found["watts"]["productive"], rel=1e-6)
    assert len({watts for *_, watts in phases}) == 3


def test_hot_spares_restart_sooner_and_are_paid_for():
    options = {"faults": "llama3", "mtbf_node": None, "spares": 8, "seeds": 1, "train_steps": 30_000_000}
    plain, hot = small(**options), small(policy="hot-spare", **options)
    assert hot.job.restart < plain.job.restart
    assert hot.draw.watts["restart"] > plain.draw.watts["restart"]
    assert hot.dollars(hot.middle) / hot.middle.seconds == pytest.approx(
        3 * plain.dollars(plain.middle) / plain.middle.seconds
    )


def test_slow_nodes_and_links_of_a_faults_file_degrade_steps(tmp_path):
    (tmp_path / "f.toml").write_text(
        'detection = "1 h"\nrepair = "1 h"\nscheduling = "1 min"\ninitialisation = "1 min"\n'
        '[[component]]\nname = "slow"\nper = "job"\nmtbf = "1 d"\nslowdown = 1.5\n'
        '[[component]]\nname = "cable"\nper = "job"\nmtbf = "1 d"\nlink_share = 0.25\n'
        '[[component]]\nname = "uplink"\nper = "supernode"\nmtbf = "1 d"\nuplink_share = 0.125\n'
    )
    spread = {"mesh": "ep=4,dp=2", "placement": "ep=supernode,dp=node"}
    found = small(faults=str(tmp_path / "f.toml"), mtbf_node=None, seeds=2, **spread)
    slow, cable, uplink = found.job.slowed[0], found.job.slowed[1], found.job.slowed[2]
    assert 0 < uplink < 1
    assert 1 / 1.5 - 1e-9 <= slow < 1
    assert 0 < cable < 1
    assert found.middle.ledger["degraded"] > 0
    assert found.middle.ledger["recomputed"] < 0.01 * found.middle.seconds


@pytest.mark.parametrize("kind", ["blocking", "multi-level"])
def test_where_all_faults_are_announced_nothing_is_lost_and_every_number_is_finite(tmp_path, kind):
    (tmp_path / "f.toml").write_text(
        'detection = "1 h"\nrepair = "1 h"\nscheduling = "1 min"\ninitialisation = "1 min"\n'
        '[[component]]\nname = "maintenance"\nper = "job"\nmtbf = "2 d"\nplanned = true\n'
    )
    found = small(faults=str(tmp_path / "f.toml"), mtbf_node=None, seeds=2, checkpoint=kind).summary()
    json.dumps(found, allow_nan=False)
    assert found["interruptions"] > 0
    assert found["ledger"]["recomputed"] == pytest.approx(0.0, abs=1.0)
    assert found["ledger"]["detection"] == 0.0


def test_an_elastic_job_needs_groups():
    with pytest.raises(InputError, match="no data-parallel groups"):
        small(policy="elastic", mesh="ep=4")


def test_an_elastic_job_goes_on_where_others_wait():
    options = {"spares": 0, "seeds": 3}
    waits = small(**options).summary()
    goes_on = small(policy="elastic", **options).summary()
    assert goes_on["ledger"]["repair_wait"] < 0.5 * waits["ledger"]["repair_wait"]
    assert goes_on["ledger"]["degraded"] > 0


def test_every_category_of_a_step_and_entry_of_a_ledger_has_a_power():
    assert {*STATE_OF, "compute"} == set(CATEGORIES)
    assert {*ENTRY_STATE, *STEPS} == set(ENTRIES)


def test_states_of_a_step_are_all_of_it_and_power_follows_them():
    setting = Setting.of("cluster-64", "moda-tiny", {})
    states = step_states(setting, package.simulate("cluster-64", "moda-tiny"))
    assert sum(states.values()) == pytest.approx(1.0)
    power = assumed_power(load_machine("cluster-64"))
    draw = Draw.of(power, states, 10)
    assert draw.watts["productive"] > draw.watts["restart"]
    assert draw.watts["restart"] == pytest.approx(10 * power.pue * (power.idle + power.switches))


def test_a_checkpoint_takes_as_long_as_its_tightest_way():
    machine = load_machine("sunway-oceanlight")

    def seconds(**rates):
        given = {"read": 1e18, "write": 1e18, "metadata_rate": 1e12, "latency": 0.0}
        return transfer(machine, Storage(**{**given, **rates}), 96_000, 96e12, 96_000)

    assert seconds(write=1e12) == (pytest.approx(96.0), "servers") or seconds(write=1e12).limit == "servers"
    assert seconds(write=1e12).seconds == pytest.approx(96.0)
    assert seconds(client=1e8).seconds == pytest.approx(10.0)
    assert seconds(metadata_rate=100.0).seconds == pytest.approx(960.0)
    trunk = seconds()
    assert trunk.limit.startswith("links of")
    assert trunk.seconds == pytest.approx(1e9 / (machine.injection * 3 / 16))


def test_the_types_of_options_are_current():
    assert (ROOT / "sim" / "campaign" / "campaign_options.py").read_text() == campaign_options_source(), (
        "run make pages"
    )
    assert set(CampaignPlan.options()) < set(CampaignOptions.__annotations__)


def test_every_key_is_explained(found):
    page = (ROOT / "docs" / "formats" / "campaign.md").read_text()
    keys = [*found, *found["ledger"], *found["checkpoint"], *found["seeds"][0], *found["checkpoint_interval_seconds"]]
    for key in keys:
        assert f"`{key}`" in page, key


def test_the_command_writes_its_folder_and_its_json(tmp_path):
    words = [
        "campaign",
        "--machine",
        "cluster-64",
        "--model",
        "moda-tiny",
        "--train-steps",
        "20000",
        "--mtbf-node",
        "2d",
        "--seeds",
        "5",
    ]
    done = athanor(*words, "--json", "c.json", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "of it productive" in done.stdout
    told = json.loads((tmp_path / "c.json").read_text())
    assert told["model"] == "moda-tiny"
    names = {each.name for each in (tmp_path / "out").iterdir()}
    assert {
        "campaign.json",
        "seeds.csv",
        "spans.csv",
        "report.html",
        "waterfall.png",
        "gantt.png",
        "power.png",
    } <= names
    story = explored(tmp_path / "out", "a campaign", "Machine: cluster-64", "Model: moda-tiny")
    assert story.facts[0].label == "Wall clock"
    assert sum(row["amount"] for row in story.parts[0].charts[0].content["rows"]) == pytest.approx(1.0)
    assert len(story.parts[1].charts[0].content["rows"]) == 5  # seeds
    assert athanor("campaign", "--machine", "cluster-64", "--model", "moda-tiny").returncode == 2


def test_a_run_file_holds_a_campaign(tmp_path):
    (tmp_path / "c.toml").write_text(
        'machine = "cluster-64"\nmodel = "moda-tiny"\n[campaign]\ntrain_steps = 5000\nseeds = 2\nmtbf_node = "3d"\n'
    )
    done = athanor("campaign", tmp_path / "c.toml", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 5000


def test_steps_wait_for_data_that_come_too_slowly():
    quick = small(dataset="tokens", seeds=1).summary()
    assert quick["data"]["stall_seconds"] == 0.0
    slow = small(dataset="m6-corpus", workers=1, seeds=1, train_steps=1_000_000).summary()
    data = slow["data"]
    assert data["stall_seconds"] > 0
    stalls = 1_000_000 * data["stall_seconds"]
    assert slow["ledger"]["productive"] == pytest.approx(1_000_000 * slow["step_seconds"])
    assert slow["ledger"]["io"] >= stalls * 0.999
    assert data["utilisation"] == pytest.approx(slow["step_seconds"] / (slow["step_seconds"] + data["stall_seconds"]))
