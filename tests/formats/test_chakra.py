"""Chakra traces of a step: our reader finds every operation again, they keep ASTRA-sim's rules, and messages meet."""

from collections import Counter

import athanor as package
import pytest
from athanor import InputError
from athanor.reports.formats.traces.chakra import (
    COLLECTIVE,
    COMPUTES,
    RECEIVES,
    SENDS,
    ChakraNode,
    broken_rule,
    chakra_nodes,
    chakra_trace,
    read_chakra,
)
from athanor.workloads.lowering.unroll import unrolled
from athanor.workloads.schedule.work import at
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import athanor

SMALL = {"mesh": {"pp": 2, "dp": 2, "tp": 2}, "global_batch": 4, "micro_batch": 1, "sequence_parallel": True}


@pytest.fixture(scope="module")
def schedule():
    return package.lower("selene", "gpt-tiny", **SMALL)


def test_the_reader_finds_what_was_written(schedule, tmp_path):
    for rank in (0, 7):
        nodes = chakra_nodes(schedule, rank)
        file = tmp_path / f"step.{rank}.et"
        file.write_bytes(chakra_trace(nodes))
        assert read_chakra(file) == nodes
        assert broken_rule(nodes) == ""


def test_work_and_bytes_are_those_of_the_schedule(schedule):
    operations = unrolled(schedule, (0, 0, 0))
    nodes = chakra_nodes(schedule, 0)
    flops = sum(at(each.work.flops, (0, 0, 0)) for each in operations)
    assert sum(each.attributes["num_ops"] for each in nodes if each.kind == COMPUTES) == pytest.approx(flops, rel=1e-6)
    sent = sum(
        at(each.work.nbytes, (0, 0, 0))
        for each in operations
        if each.kind == "exchange" and each.work.operation != "shift"
    )
    assert sum(each.attributes["comm_size"] for each in nodes if each.kind == COLLECTIVE) == pytest.approx(
        sent, rel=1e-6
    )
    assert {each.kind for each in nodes} == {COMPUTES, COLLECTIVE, SENDS, RECEIVES}


def test_every_message_is_sent_by_one_rank_and_received_by_another(schedule):
    ends = {SENDS: Counter(), RECEIVES: Counter()}
    for rank in range(schedule.mesh.ranks):
        for each in chakra_nodes(schedule, rank):
            if each.kind in ends:
                at = each.attributes
                assert rank == at["comm_src" if each.kind == SENDS else "comm_dst"]
                ends[each.kind][at["comm_src"], at["comm_dst"], at["comm_tag"], at["comm_size"]] += 1
    assert ends[SENDS] == ends[RECEIVES]
    assert {*ends[SENDS].values()} == {1}


def test_members_of_a_group_call_its_collectives_in_one_order(schedule):
    calls = {}
    for rank in range(schedule.mesh.ranks):
        for each in chakra_nodes(schedule, rank):
            if each.kind == COLLECTIVE:
                group = calls.setdefault(each.attributes["pg_name"], {})
                group.setdefault(rank, []).append((each.attributes["comm_type"], each.attributes["comm_size"]))
    for members in calls.values():
        first, *others = members.values()
        assert len(members) > 1
        assert all(each == first for each in others)


def test_the_command_writes_a_file_a_rank(tmp_path):
    run = tmp_path / "run.toml"
    run.write_text('machine = "selene"\nmodel = "gpt-tiny"\n[plan]\nmesh = "dp=2,tp=2"\n')
    done = athanor("export", "chakra", run, "-o", tmp_path / "et" / "step", "--ranks", 2)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "et").iterdir()} == {"step.0.et", "step.1.et", "step.groups.json"}
    assert read_chakra(tmp_path / "et" / "step.1.et")


def test_rules_are_broken_by_their_name():
    node = ChakraNode(0, "a", COMPUTES, (), {"is_cpu_op": False, "num_ops": 1, "tensor_size": 1})
    assert broken_rule([node]) == ""
    assert "is there twice" in broken_rule([node, node])
    assert "waits for node 7" in broken_rule([ChakraNode(0, "a", COMPUTES, (7,), node.attributes)])
    assert "has no attribute is_cpu_op" in broken_rule(
        [ChakraNode(0, "a", COMPUTES, (), {"num_ops": 1, "tensor_size": 1})]
    )
    assert "has no attribute pg_name" in broken_rule(
        [ChakraNode(0, "a", COLLECTIVE, (), {"is_cpu_op": False, "comm_type": 0, "comm_size": 1})]
    )


@given(st.binary(max_size=200))
def test_any_bytes_are_a_trace_or_are_refused(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "any.et"
    file.write_bytes(data)
    try:
        read_chakra(file)
    except InputError as wrong:
        assert "\n" not in str(wrong)
