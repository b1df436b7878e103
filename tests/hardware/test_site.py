"""What a machine's site adds: times and prices as people write them, power under a cap, carbon by the hour, what is assumed."""

import tomllib

import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.hardware.machine_writer import machine_toml
from athanor.hardware.records import build, read_toml
from athanor.hardware.site import assumed
from athanor.hardware.site.faults import Faults
from athanor.hardware.site.power import Power
from athanor.hardware.site.price import Price
from athanor.hardware.site.storage import Storage
from athanor.hardware.units import duration, read_duration

POWER = Power(idle=40.0, compute=250.0, memory=220.0, communication=120.0, checkpoint=80.0)

SITE = {
    "faults": {
        "detection": "5 min",
        "repair": "1 d",
        "scheduling": "2 min",
        "initialisation": "1 min",
        "component": [{"name": "node", "mtbf": "5 y"}, {"name": "switch", "mtbf": "100 d", "takes": "supernode"}],
    },
    "power": {"idle": "100 W", "compute": "0.4 kW", "memory": "350 W", "communication": "250 W", "checkpoint": "150 W"},
    "storage": {"read": "2 TB/s", "write": "1 TB/s", "client": "1 GB/s"},
    "price": {"node": "2.5 USD/h", "energy": "0.08 USD/kWh", "carbon": "0.4 kg/kWh"},
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5y", 157788000.0),
        ("3h", 10800.0),
        ("10 min", 600.0),
        ("2 weeks", 1209600.0),
        ("1000 / 6.5 d", 13292307.692307692),
    ],
)
def test_times_as_people_write_them(text, seconds):
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "5 GB", "-1 h", "0 s", "soon"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="needs a time such as"):
        read_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.02, "20 ms"), (90.0, "1.5 min"), (5400.0, "1.5 h"), (86400.0 * 30, "30 d"), (31557600 * 5.0, "5 y")],
)
def test_times_as_people_read_them(seconds, text):
    assert duration(seconds) == text


def test_a_machine_keeps_its_site_when_it_is_written_and_changed():
    table = load_machine("cluster-64").model_dump(mode="json") | {"sources": {}}
    machine = type(load_machine("cluster-64")).model_validate(table | SITE)
    assert machine.faults.component[0].mtbf == pytest.approx(5 * 31557600)
    assert machine.price.carbon == (pytest.approx(0.4 / 3.6e6),)
    again = build(type(machine), tomllib.loads(machine_toml(machine)), "again")
    assert again == machine
    assert machine.changed({"power.idle": "90 W"}).power.idle == 90.0
    shown = {key: text for key, text, _ in machine.numbers()}
    assert shown["faults.component.0.mtbf"] == "5 y"
    assert shown["price.node"] == "2.5 USD/h"
    assert shown["price.carbon"] == "0.4 kg/kWh"


@pytest.mark.parametrize(
    ("table", "wrong", "told"),
    [
        ("power", {"idle": "500 W"}, "compute = 400 W is below idle = 500 W"),
        ("price", {"carbon": ["0.4 kg/kWh"] * 3}, "needs one, or 24"),
        ("price", {"carbon": "0.4 kg/h"}, "needs an intensity"),
        ("faults", {"detection": "5"}, "needs a time"),
        ("faults", {"component": []}, "at least 1 item"),
        ("storage", {"write": "0 B/s"}, "above zero"),
    ],
)
def test_a_wrong_site_is_refused_in_one_line(table, wrong, told):
    kinds = {"power": Power, "price": Price, "faults": Faults, "storage": Storage}
    with pytest.raises(InputError, match=told):
        build(kinds[table], {**SITE[table], **wrong}, "own.toml")


def test_a_cap_lowers_frequency_by_the_cube_root_of_power():
    assert POWER.frequency_under(300.0) == 1.0
    frequency = POWER.frequency_under(150.0)
    assert POWER.idle + (POWER.compute - POWER.idle) * frequency**3 == pytest.approx(150.0)
    lower = POWER.capped(150.0)
    assert lower.compute == pytest.approx(150.0)
    assert lower.idle == POWER.idle
    assert POWER.memory > lower.memory > POWER.idle
    with pytest.raises(ValueError, match=r"41\.68 W at least"):
        POWER.frequency_under(40.5)


def test_carbon_by_the_hour():
    day = Price(carbon=tuple([1.0] * 12 + [3.0] * 12))
    assert day.carbon_over(86400.0 * 100) == pytest.approx(2.0)
    assert day.carbon_over(6 * 3600.0, start_hour=9.0) == pytest.approx(2.0)
    assert day.carbon_over(3600.0, start_hour=23.5) == pytest.approx(2.0)
    assert day.carbon_over(1800.0, start_hour=12.0) == pytest.approx(3.0)
    assert Price(carbon=0.5).carbon_over(1.0) == 0.5


@pytest.mark.parametrize("name", ["selene", "sunway-oceanlight", "laptop"])
def test_what_is_assumed_is_of_the_machines_size(name):
    machine = load_machine(name)
    assert assumed.assumed_power(machine).compute == 500.0 * machine.accelerators_per_node
    assert assumed.assumed_storage(machine).write <= assumed.MOST_STORAGE
    bare = machine.model_copy(update={"power": None})
    assert assumed.assumed_price(bare).node * 3600 == pytest.approx(2.0 * machine.accelerators_per_node)


def test_rents_that_are_assumed_go_with_power():
    """An H100 costs what it is let for; what draws a fifth of that does not cost the same."""
    dollars = {name: assumed.assumed_price(load_machine(name)).node * 3600 for name in ("eos-h100", "fugaku", "selene")}
    assert dollars["eos-h100"] / 8 == pytest.approx(2.0)
    assert 0.2 < dollars["fugaku"] < 0.5
    assert 1.0 < dollars["selene"] / 8 < 1.5


@pytest.mark.parametrize("name", ["llama3", "meta-rsc1", "meta-rsc2", "opt", "bloom", "tpu-v4"])
def test_published_rates_name_a_source_for_each_component(name):
    table = read_toml(assumed.RATES / f"{name}.toml")
    assert {f"component.{number}" for number in range(len(table["component"]))} <= set(table["sources"])
    assert assumed.read_faults(name).component
