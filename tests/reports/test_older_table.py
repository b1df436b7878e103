"""The older CSV table of runs: read by rules that are written down, row by row as the records of the same runs, or left out."""

import csv
import json
import re
import tomllib
from pathlib import Path

import pytest
from athanor.hardware.errors import InputError
from athanor.reports.published.older_table.columns import NEEDED
from athanor.reports.published.older_table.names import _table
from athanor.reports.published.read_runs import converted, published_runs, read_runs
from athanor.reports.studies.accuracy.cases import LeftOut, cases_of, setting_of
from athanor.reports.studies.accuracy.libraries import libraries
from support.command_line import athanor

TABLE = Path(__file__).parents[1] / "data" / "older_table.csv"
"""Rows of every publication and accelerator of the table that the published records were made of."""

TOLD = {
    "zero3_18B_4xIB_1k": "the model 'GPT 18B'",
    "bridge_2509_405B": "is 512, not the 1,024 of num_accelerators",
    "nemo_Llama38B": "is 4, not the 8 of num_accelerators",
    "mlm_ex_Llama3-8B": "is 4, not the 8 of num_accelerators",
    "bridge_2509_DSV3": "61 layers do not divide over pp=8 stages of 4 chunks",
    "zeropp_18B_4xIB_1k": "layers and hidden were not published",
}
"""Rows whose records know more than their columns do: context parallelism, shapes and stages stood in notes."""

BY_NOTES = {"titan_70B_256a"}
"""A row that its note alone tells from another, by a kernel; its columns are those of the other."""

ROW = {
    "id": "a",
    "source": "somewhere",
    "system": "DGX-H100",
    "accelerator": "H100-80GB",
    "num_accelerators": "64",
    "model": "Llama3-70B",
    "seq_len": "8192",
    "global_batch": "128",
    "micro_batch": "1",
    "dp": "2",
    "tp": "8",
    "pp": "4",
    "zero_stage": "1",
    "recompute": "none",
    "precision": "bf16",
    "measured_metric": "throughput_per_accel",
    "measured_value": "1000",
    "unit": "tokens/s",
}


def rows(tmp_path, *changes):
    """The runs of a table that has the row above once for each set of changes."""
    every = [{**ROW, "id": f"row{number}", **change} for number, change in enumerate(changes)]
    columns = list(dict.fromkeys([*NEEDED, *(key for row in every for key in row)]))
    file = tmp_path / "rows.csv"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(every)
    return read_runs(file)


def row(tmp_path, **changes):
    (run,) = rows(tmp_path, changes)
    return run


def simulated(run):
    """All that decides a prediction."""
    if run.metric == "bus_bandwidth":
        return run.machine_used.model_dump(exclude={"name"}), run.collective, run.accelerators
    steps = []
    for case in cases_of(run):
        setting = setting_of(case)
        model = setting.model.model_dump(exclude={"name", "sources", "description", "published_parameters", "plan"})
        steps.append((case.machine.model_dump(exclude={"name"}), model, setting.plan.to_plain()))
    return steps


def left_out(run):
    try:
        if not run.left_out and run.metric != "bus_bandwidth":
            setting_of(cases_of(run)[0])
    except LeftOut as reason:
        return str(reason)
    return run.left_out


def test_a_table_gives_what_the_records_of_the_same_runs_give():
    """One setting, metric and convention give one prediction, to the last digit; the others are told."""
    published, compared = published_runs(), 0
    for run in read_runs(TABLE):
        record, reason = published[run.id], left_out(run)
        if reason:
            assert left_out(record) or run.id in TOLD, (run.id, reason)
            continue
        told = (run.metric, run.value, run.unit, run.convention, run.confidence)
        assert told == (record.metric, record.value, record.unit, record.convention, record.confidence), run.id
        if run.id in BY_NOTES:
            assert simulated(run) != simulated(record)
            continue
        assert simulated(run) == simulated(record), run.id
        compared += 1
    assert compared > 35


def test_every_word_of_the_table_names_something():
    """Machines and models of the catalogue, and libraries that there are."""
    known = {each.name for each in libraries()}
    words = _table()
    for each in [*words["system"], *words["accelerator"]]:
        assert "left_out" in each or load(each["machine"])
        assert each.get("library", "torchtitan") in known
    for each in words["publication"]:
        assert {each["library"], each.get("zero3_library", each["library"])} <= known
    begins = [each["begins"].casefold() for each in words["publication"]]
    for number, name in enumerate(begins):
        assert not any(name.startswith(earlier) for earlier in begins[:number]), name


def load(name):
    from athanor.hardware.machine import load_machine

    return load_machine(name)


def test_texts_for_people_decide_nothing(tmp_path):
    words = "8x50GB/s IB, one NIC, FlashAttention 2, CP2, AsyncTP, 4k tokens per GPU per micro-step, hw FLOPs, peak mem 70 GiB"
    plain, told = rows(tmp_path, {}, {"note": words, "nodes": "1", "source": f"my {words}"})
    assert simulated(plain) == simulated(told) and plain.convention == told.convention and told.memory is None


def test_a_system_that_is_not_known_leaves_its_accelerator(tmp_path):
    """F1: eight cards of 50 GB/s are a DGX H100's; what a text says of cards is not read, and what is assumed is told."""
    known, other = rows(tmp_path, {}, {"system": "DGX-H100 (8x6GB/s IB)"})
    assert simulated(known) == simulated(other)
    assert any(each.startswith("nodes of Eos") for each in other.assumed) and known.assumed != other.assumed
    assert row(tmp_path, system="selene", machine="dgx1-v100").machine == "dgx1-v100"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"system": "my cluster", "accelerator": "X100"}, r"'X100' names no machine; a column machine may name one"),
        ({"machine": "eos"}, r"machine eos: no such machine"),
        ({"dp": "", "tp": "", "pp": ""}, r"dp, tp and pp were not published"),
        ({"dp": "", "tp": "", "pp": "", "zero_stage": "3"}, r"dp, tp and pp were not published"),
        ({"dp": "3"}, r"is 96, not the 64"),
        ({"dp": "two"}, r'dp is "two", which is no number'),
        ({"tp": "1.5"}, r"tp is 1\.5, which is no whole number"),
        ({"model": "Unheard-70B"}, r"layers and hidden were not published"),
        ({"global_batch": ""}, r"plan\.global_batch was not published"),
        ({"precision": "int8"}, r"precision int8: neither"),
        ({"precision": ""}, r"precision was not published"),
        ({"recompute": "partly"}, r"recompute partly: neither none, selective nor full"),
        ({"zero_stage": "4"}, r"zero_stage 4: neither"),
        ({"measured_value": ""}, r"measured_value is blank"),
        ({"measured_metric": "joy"}, r"measured_metric 'joy' is not predicted"),
        ({"unit": "furlongs"}, r"unit 'furlongs': throughput_per_accel is in samples/s or"),
        ({"unit": "TFLOP/s", "recompute": "full"}, r"a column convention says hardware or model"),
        ({"attention": "flash-9"}, r"plan\.attention: no such attention kernel"),
        ({"library": "mine"}, r"library mine: no such library"),
    ],
)
def test_a_row_that_cannot_be_read_is_left_out_with_what_it_needs(tmp_path, changes, reason):
    run, good = rows(tmp_path, changes, {})
    assert re.search(reason, left_out(run)), left_out(run)
    assert not left_out(good)


def test_columns_of_a_users_own_are_keys_of_plans_and_models(tmp_path):
    run = row(tmp_path, attention="flash-2", overlap="none", cp="2", dp="1", chunks="")
    assert run.plan["attention"] == "flash-2" and run.plan["overlap"] == "none"
    assert run.plan["mesh"] == {"pp": 4, "cp": 2, "tp": 8}
    cut = row(tmp_path, layers="40", kv_heads="16")
    assert (cut.model_used.layers, cut.model_used.kv_heads, cut.base) == (40, 16, "llama3-70b")


def test_models_by_name_by_shape_and_by_columns(tmp_path):
    shape = {
        "layers": "32",
        "hidden": "4096",
        "ffn_hidden": "14336",
        "heads": "32",
        "vocab": "128256",
        "seq_len": "8192",
    }
    named, alike = rows(tmp_path, {"model": "llama-3 8b"}, {"model": "mine", **shape})
    assert named.model_used.kv_heads == alike.model_used.kv_heads == 8
    assert any("llama3-8b" in each for each in alike.assumed)
    own = {**shape, "layers": "20", "model": "mine"}
    plain, gated = rows(tmp_path, {**own, "params_B": ""}, {**own, "params_B": "5.5"})
    assert not plain.model_used.gated and gated.model_used.gated


@pytest.mark.parametrize(
    ("changes", "library"),
    [
        ({}, "megatron-core"),
        ({"source": "pytorch/torchtitan docs, of next year"}, "torchtitan"),
        ({"source": "SC21 Table 2"}, "megatron-lm-2"),
        ({"zero_stage": "3", "pp": "1", "dp": "8"}, "torchtitan"),
        ({"library": "deepspeed", "source": "SC21 Table 2"}, "deepspeed"),
        ({"system": "DGX-A100", "accelerator": "A100-80GB"}, None),
    ],
)
def test_the_library_is_that_of_a_column_of_the_publication_or_told_to_be_assumed(tmp_path, changes, library):
    run = row(tmp_path, **changes)
    assert run.library == library
    if library is None:
        assert run.plan["attention"] == "flash-2"  # F1: sequences of 8,192 on an A100 had no unfused attention
        assert "attention" not in row(tmp_path, **changes, seq_len="2048", attention="").plan


def test_flops_count_as_a_column_or_the_publication_says(tmp_path):
    flops = {"unit": "TFLOP/s", "recompute": "full"}
    found = rows(
        tmp_path,
        {**flops, "convention": "hardware"},
        {**flops, "convention": "model"},
        {**flops, "source": "SC21 Table 1"},
        {"measured_metric": "HFU", "unit": "%"},
        {**flops, "convention": "causal"},
    )
    assert [run.convention.recomputation for run in found] == [True, False, True, True, False]
    assert found[4].convention.causal


def test_experts_over_all_data_parallel_ranks_or_whole_over_tensor_parallel_ones_too(tmp_path):
    moe = {"model": "Qwen3-30B-A3B", "seq_len": "4096", "dp": "8", "pp": "2"}
    split, whole = rows(
        tmp_path,
        {**moe, "num_accelerators": "64", "tp": "4", "ep": "4"},
        {**moe, "num_accelerators": "64", "tp": "4", "ep": "32"},
    )
    assert split.plan["mesh"] == {"pp": 2, "dp": 2, "ep": 4, "tp": 4} and "expert_tensor" not in split.plan
    assert whole.plan["mesh"] == {"pp": 2, "ep": 8, "tp": 4} and whole.plan["expert_tensor"] == "whole"
    own, folded, between = rows(
        tmp_path,
        {**moe, "num_accelerators": "64", "tp": "4", "ep": "4", "etp": "1"},
        {**moe, "num_accelerators": "64", "tp": "1", "cp": "4", "ep": "32"},
        {**moe, "num_accelerators": "64", "tp": "4", "ep": "4", "etp": "2"},
    )
    assert own.plan["mesh"] == {"pp": 2, "dp": 8, "tp": 4} and own.plan["expert_tensor"] == "whole"
    assert folded.plan["mesh"] == {"pp": 2, "ep": 8, "cp": 4} and folded.plan["expert_context"] == "spread"
    assert between.plan["mesh"] == {"pp": 2, "dp": 4, "ep": 2, "tp": 4} and between.plan["expert_tensor"] == "2"
    (apart,) = rows(tmp_path, {**moe, "num_accelerators": "64", "tp": "4", "ep": "4", "etp": "3"})
    assert apart.left_out == "etp=3 does not divide tp=4"


def test_a_table_that_is_none_is_refused(tmp_path):
    file = tmp_path / "rows.csv"
    for text, wrong in (
        ("id,source\n1,2\n", "column system is missing"),
        (",".join(NEEDED) + "\n", "has no rows below its header"),
        (",".join(NEEDED) + "\n" + "\n".join(["a" + "," * (len(NEEDED) - 1)] * 2) + "\n", "id a stands there twice"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=wrong):
            read_runs(file)
    with pytest.raises(InputError, match="no such file"):
        read_runs(tmp_path / "none.csv")


def test_a_table_is_converted_into_records_that_say_the_same(tmp_path):
    found = rows(
        tmp_path, {}, {"dp": ""}, {"dp": "3"}, {"layers": "40"}, {"attention": "flash-9"}, {"precision": "fp8"}
    )
    table, target = tmp_path / "rows.csv", tmp_path / "runs.toml"
    done = athanor("validate", "--data", table, "--convert", target)
    assert done.returncode == 0 and "6 runs written" in done.stdout and "2 of them left out" in done.stdout
    assert tomllib.loads(target.read_text()) == converted(table)
    assert read_runs(target) == found
    refused = athanor("validate", "--convert", target)
    assert refused.returncode == 2 and "--data FILE.csv" in refused.stderr


def test_validate_takes_a_table(tmp_path):
    rows(
        tmp_path,
        {
            "model": "Llama3-8B",
            "num_accelerators": "8",
            "dp": "8",
            "tp": "1",
            "pp": "1",
            "micro_batch": "2",
            "global_batch": "16",
        },
        {"dp": "", "tp": "", "pp": ""},
    )
    done = athanor("validate", "--data", tmp_path / "rows.csv", "--json", "-", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["rows"]
    assert first["predicted"] > 1000 and second["reason"] == "dp, tp and pp were not published"
