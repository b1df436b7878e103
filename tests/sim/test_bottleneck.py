"""What limits a step: every gain is that of a run on the machine that is named."""

import json

import athanor
import pytest
from athanor.cli.command_line import cli
from athanor.hardware.machine import load_machine
from click.testing import CliRunner

PLAN = {"mesh": {"ep": 4, "dp": 8}, "router": "zipf:1.0", "balancer": "none", "jitter": 0.05, "overlap": "none"}
MACHINE = load_machine("cluster-64").changed({"fabric.supernode": 8, "fabric.routing": "adaptive"})


def step(machine, **more):
    return athanor.simulate(machine, "moda-tiny", **{**PLAN, **more}).summary()["step_seconds"]


@pytest.fixture(scope="module")
def found():
    return athanor.simulate(MACHINE, "moda-tiny", bottleneck=True, **PLAN).summary()


def test_every_change_is_what_a_run_with_it_gives(found):
    """Cards and core groups by their keys of the machine file, the plan by its options; the most first."""
    changes = {each["change"]: each for each in found["bottleneck"]["changes"]}
    group, node = MACHINE.core_group, MACHINE.node
    by_hand = {
        "2 x memory bandwidth": step(MACHINE.changed({"core_group.memory_bandwidth": 2 * group.memory_bandwidth})),
        "2 x peak": step(MACHINE.changed({f"core_group.peak.{name}": 2 * rate for name, rate in group.peak.items()})),
        "no jitter": step(MACHINE, jitter=0.0),
        # twice the interfaces make trunks twice as fast too, but half the taper keeps these
        "2 x the bandwidth of nic": step(
            MACHINE.changed({"node.interface_bandwidth": 2 * node.interface_bandwidth, "fabric.taper": "1/4"})
        ),
        "2 x the bandwidth of trunk": step(MACHINE.changed({"fabric.taper": "1/1"})),
    }
    for change, seconds in by_hand.items():
        assert changes[change]["step_seconds"] == pytest.approx(seconds, rel=1e-12), change
        assert changes[change]["gain"] == pytest.approx(1 - seconds / found["step_seconds"])
    gains = [each["gain"] for each in found["bottleneck"]["changes"]]
    assert gains == sorted(gains, reverse=True)
    assert {"one more uplink of trunk", "one more card a node"} < set(changes)


def test_the_level_that_limits_is_the_one_whose_doubling_helps_most(found):
    limits = found["bottleneck"]
    doubled = {each["change"]: each["gain"] for each in limits["changes"] if "bandwidth of" in each["change"]}
    assert max(doubled, key=doubled.get) == f"2 x the bandwidth of {limits['level']}"
    use = max(row["max_utilisation"] for row in found["links"] if row["level"] == limits["level"])
    assert limits["utilisation"] == use
    assert 0 < limits["exposed_seconds"] < found["step_seconds"]


def test_one_rank_is_limited_by_no_links():
    alone = athanor.simulate("laptop", "moda-tiny", mesh={"dp": 1}, bottleneck=True).summary()["bottleneck"]
    assert (alone["level"], alone["utilisation"], alone["exposed_seconds"]) == (None, None, 0.0)
    assert [each["change"] for each in alone["changes"][:1]]


def test_tiers_are_named_as_in_the_machine_file():
    machine = "sunway-oceanlight"
    tiers = [{"down": 4, "taper": "1/2", "latency": "1 us"}, {"down": 16, "taper": "1/4", "latency": "2 us"}]
    fabric = {"kind": "fat-tree", "latency_node": "1 us", "tiers": [*tiers, {"down": 8, "latency": "3 us"}]}
    table = {**load_machine(machine).model_dump(mode="json"), "nodes": 512, "fabric": fabric}
    shaped = type(load_machine(machine)).model_validate(table)
    run = athanor.simulate(shaped, "moda-tiny", mesh={"ep": 4, "dp": 32}, ranks_per_node=1, bottleneck=True)
    levels = {row["level"] for row in run.summary()["links"]}
    assert {"tiers.0", "tiers.1"} < levels
    assert "one more uplink of tiers.0" in {each["change"] for each in run.summary()["bottleneck"]["changes"]}


@pytest.mark.parametrize(("model", "mesh"), [("moda-tiny", "ep=4,dp=2"), ("gpt-tiny", "dp=8")])
def test_the_command_says_it_in_words_and_in_the_report(model, mesh, tmp_path):
    words = ["simulate", "--machine", "cluster-64", "--model", model, "--mesh", mesh, "--bottleneck"]
    done = CliRunner().invoke(cli, [*words, "--json", str(tmp_path / "run.json"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "run.json").read_text())["bottleneck"]
    assert f"faster ones of {told['level']} would shorten them most" in " ".join(done.output.split())
    assert "What would help, simulated" in done.output
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Bottleneck" in page
    assert ("Expert load" in page) == (model == "moda-tiny")
    assert (tmp_path / "out" / "expert_load.png").exists() == (model == "moda-tiny")
