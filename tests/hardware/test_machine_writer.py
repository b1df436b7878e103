"""Machines written as files read back equal, whatever their fabric and their numbers."""

import tomllib

import pytest
from athanor.hardware.machine import Machine, list_machines, load_machine
from athanor.hardware.machine_writer import machine_toml
from athanor.hardware.records import build
from hypothesis import given
from hypothesis import strategies as st
from support.paths import EXAMPLES

FILES = sorted(EXAMPLES.glob("**/*.toml"))
MACHINES = [*list_machines(), *(load_machine(path) for path in FILES if "[core_group]" in path.read_text())]


def read_back(machine):
    return build(Machine, tomllib.loads(machine_toml(machine)), "written")


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_every_machine_reads_back_equal(machine):
    assert read_back(machine) == machine


def test_values_are_written_as_people_write_them():
    text = machine_toml(load_machine("sunway-oceanlight"))
    for line in ('memory_bandwidth = "51.2 GB/s"', 'local_memory = "256 KiB"', 'taper = "3/16"', 'clock = "2.25 GHz"'):
        assert line in text.splitlines()


@given(
    bandwidth=st.floats(1e-3, 1e21),
    memory=st.floats(1, 1e18),
    latency=st.floats(0, 1e6),
    taper=st.floats(1e-9, 1),
    source=st.text(st.characters(codec="utf-8"), max_size=30),
)
def test_no_digit_and_no_character_is_lost(bandwidth, memory, latency, taper, source):
    machine = load_machine("cluster-64").changed(
        {
            "node.interface_bandwidth": bandwidth,
            "core_group.memory": memory,
            "fabric.latency_node": latency,
            "fabric.taper": taper,
        }
    )
    named = machine.model_copy(update={"sources": {**machine.sources, "fabric.taper": source}})
    assert read_back(named) == named
