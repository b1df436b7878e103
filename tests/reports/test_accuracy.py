"""Predictions held against measurements: reading tables, conventions, the null model, statistics, and the command."""

import csv
import json
import re

import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import list_machines, load_machine
from athanor.reports.plots.accuracy import drawings
from athanor.reports.published import FOLDER
from athanor.reports.studies.accuracy import validate
from athanor.reports.studies.accuracy.cases import case_of, setting_of
from athanor.reports.studies.accuracy.conventions import counts_recomputation, step_flops
from athanor.reports.studies.accuracy.fitting import fit
from athanor.reports.studies.accuracy.judgement import Judged, statistics
from athanor.reports.studies.accuracy.memory_rows import is_beside, is_memory, pool_rows, with_memory
from athanor.reports.studies.accuracy.null_model import Guess, null_predictions
from athanor.reports.studies.accuracy.rows import LeftOut, PublishedRow, read_rows
from athanor.reports.studies.accuracy.systems import entry_of, system_of
from athanor.reports.studies.accuracy.targets import fitted_to, rows_of, target_of
from support.command_line import athanor

PUBLISHED = {row.id: row for row in read_rows()}
FEW = ("kort_22B_full", "kort_22B_selective", "kort_mem_activations_22B_none", "fastermoe", "mlm20_DGX2_8B")


def table(path, rows):
    """A CSV file of rows with the published columns."""
    with (FOLDER / "measurements.csv").open(encoding="utf-8", newline="") as lines:
        columns = csv.DictReader(lines).fieldnames
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows({key: row.get(key, "") for key in columns} for row in rows)
    return path


def row(name, **other):
    return {**PUBLISHED[name].fields, **other}


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith(("mlm20", "bloom"))])
def test_flops_by_the_sources_convention_give_its_own_throughput(name):
    here = PUBLISHED[name]
    told = float(re.search(r"([\d.]+) TFLOP/s/GPU", here.text("note")).group(1))
    model = setting_of(case_of(here)).model
    assert counts_recomputation(here)
    flops = step_flops(model, here.count("global_batch"), here.count("seq_len"), recomputed=True)
    assert flops / here.measured / here.count("num_accelerators") / 1e12 == pytest.approx(told, rel=0.005)


def test_model_flops_of_a_gpt_are_the_published_formula():
    model = setting_of(case_of(PUBLISHED["kort_175B_selective"])).model
    layers, h, s, v = model.layers, model.hidden, 2048, model.vocabulary
    formula = 72 * 64 * s * layers * h**2 * (1 + s / (6 * h) + v / (12 * layers * h))
    assert step_flops(model, 64, s, recomputed=False) == pytest.approx(formula, rel=1e-12)
    told = PUBLISHED["kort_175B_selective"]
    assert not counts_recomputation(PUBLISHED["mlmh100_16B"])
    assert formula / told.measured / 64 / 312e12 == pytest.approx(0.514, rel=0.005)  # its note: MFU 51.4 %


# --- memory -------------------------------------------------------------------------------------------------------------


def memory_rows(*names, **other):
    """What is predicted of the memory in rows."""
    rows = [PublishedRow(row(name, **other)) for name in names]
    return {
        each["id"]: each for each in validate([each for each in with_memory(rows) if is_memory(each)]).plain()["rows"]
    }


def test_a_row_that_tells_of_memory_beside_its_time_has_a_row_for_each():
    rows = list(with_memory(PUBLISHED.values()))
    told = {each.id.removesuffix(":memory"): each for each in rows if is_beside(each)}
    assert len(rows) == len(PUBLISHED) + len(told) and len({each.id for each in rows}) == len(rows)
    numbers = {name: (each.measured, each.text("unit")) for name, each in told.items()}
    assert numbers["bloom_l607"] == (29, "GB/GPU") and numbers["titan_8B_8"] == (82.4, "GiB/GPU")
    assert numbers["fugaku_1.3B_4"] == (18870, "MiB/GPU") and numbers["alpa_gpt2.6b"] == (8.745, "GB/GPU")
    assert not {"bloom_l856", "mlm20_DGX2_1B", "sc21_dp", "kort_mem_activations_1T_none"} & set(told)
    assert all(each.text("measured_metric") == "mem_total" for each in told.values())


def test_measured_memory_is_met():
    """Every published reading that is predicted: within 8 % in the mean, and but for Alpa's within 15 %."""
    found = validate([each for each in with_memory(PUBLISHED.values()) if is_memory(each)])
    judged = {kind: found.judged(rows) for kind, rows in found.memory.items()}
    assert judged["measured"]["rows"] == 25 and judged["measured"]["mape"] < 0.08
    errors = {each.row.id: each.error for each in found.memory["measured"] if each.error is not None}
    assert {name for name, error in errors.items() if abs(error) > 0.15} == {"alpa_gpt2.6b:memory"}
    assert judged["formula"]["rows"] == 12 and abs(judged["formula"]["worst"]) < 0.002
    assert all(each["null_relative_error"] is None for each in found.plain()["rows"])


def test_memory_has_a_plot_of_its_own_in_one_unit():
    """Pairs in GB whatever the row's unit."""
    told = [PublishedRow(row("titan_8B_8", id=name, note=note)) for name, note in TWO_UNITS.items()]
    rows = [each for each in with_memory(told) if is_memory(each)]
    figures = {name: figure for name, _, figure in drawings(validate(rows))}
    marks = [line.get_xdata() for line in figures["memory"].axes[0].lines[1:]]
    assert len(marks) == 1 and list(marks[0]) == pytest.approx([85.9, 85.9], rel=1e-3)
    assert "memory" not in {name for name, *_ in drawings(validate([PUBLISHED["kort_mem_activations_22B_none"]]))}


TWO_UNITS = {"one": "peak mem 80 GiB", "other": "peak mem 81920 MiB"}


def test_memory_is_not_mixed_with_times():
    rows = [PUBLISHED[name] for name in ("bloom_l607", "kort_22B_full")]
    apart, together = validate(rows).plain(), validate(list(with_memory(rows))).plain()
    assert len(together["rows"]) == 3 and together["sources"] == apart["sources"]
    assert together["overall"] == apart["overall"] and together["overall"]["rows"] == 2
    assert together["memory"]["measured"]["rows"] == 1 and apart["memory"]["measured"]["rows"] == 0
    assert together["rows"][1]["relative_error"] == together["memory"]["measured"]["worst"]


def test_a_peak_of_the_allocator_is_without_driver_and_libraries():
    peak = memory_rows("bloom_l607", note="peak mem 29 GB")["bloom_l607:memory"]
    card = memory_rows("bloom_l607")["bloom_l607:memory"]
    assert card["predicted"] - peak["predicted"] == pytest.approx((1573 * 2**20 + 3 * 0.3e9) / 1e9)
    assert peak["assumed"][-1] == "without driver and libraries"


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("dlperf_8x1x1_16_1536x16", {}, "the memory is that of OneFlow, which ran the same plan"),
        (
            "fugaku_1.3B_4",
            {},
            "the reading has what the system keeps, which fugaku does not say (core_group.reserved_memory)",
        ),
        ("kort_mem_activations_22B_none", {"unit": "acres"}, "unit acres: neither GiB, GB, MiB nor MB"),
        ("kort_mem_activations_22B_none", {"measured_metric": "mem_soul"}, "no such part of memory: mem_soul"),
        ("bloom_l607", {"measured_metric": "mem_soul", "unit": "GB"}, "no such part of memory: mem_soul"),
    ],
)
def test_memory_that_cannot_be_predicted_has_its_reason(name, change, reason):
    good = PUBLISHED["kort_mem_activations_22B_none"]
    rows = [
        good,
        *(each for each in with_memory([PublishedRow(row(name, **{"id": "other", **change}))]) if is_memory(each)),
    ]
    assert [each["reason"] for each in validate(rows).plain()["rows"]] == [None, reason]


# --- rows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dp": "3"}, "dp=3 x tp=8 x pp=1 is 24, not the 8 of num_accelerators"),
        ({"layers": "many"}, 'layers is "many", which is no number'),
        ({"measured_value": "-2"}, "measured_value is -2; it must be above zero, and finite"),
        ({"system": "", "accelerator": "Cerebras"}, "the catalogue has no machine with Cerebras"),
        ({"precision": "int4"}, "precision int4: neither fp8, bf16, fp16 nor fp32"),
        ({"measured_metric": "beauty"}, "no conversion from seconds of a step to beauty in s"),
        ({"micro_batch": "3"}, "micro_batch 3 does not divide the 4 sequences of a replica"),
        ({"heads": "63"}, "63"),
    ],
)
def test_rows_are_left_out_with_their_reason(change, reason):
    good = PublishedRow(row("kort_22B_full"))
    found = validate([good, PublishedRow(row("kort_22B_full", id="other", **change))]).plain()["rows"]
    assert found[0]["reason"] is None
    assert found[1]["relative_error"] is None
    assert reason in found[1]["reason"]


def test_tables_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no-such\.csv: no such file"):
        read_rows(tmp_path / "no-such.csv")
    short = tmp_path / "short.csv"
    short.write_text("id,source\nx,y\n")
    with pytest.raises(InputError, match=r"column system is missing \(id, source\)"):
        read_rows(short)
    twice = table(tmp_path / "twice.csv", [row("kort_22B_full")] * 2)
    with pytest.raises(InputError, match=r"line 3: id kort_22B_full stands there twice"):
        read_rows(twice)
    none = [PublishedRow(row("kort_22B_full", system="", accelerator="abacus"))]
    with pytest.raises(InputError, match=r"none of the 1 rows can be predicted; kort_22B_full: .* abacus"):
        validate(none)


def test_a_published_row_is_never_silent():
    """Every row has a prediction or a reason; those about steps of known plans are predicted."""
    with_plan = [name for name in PUBLISHED if name.startswith(("sc21t1", "kort_530", "vtrain_39", "bloom", "mlmh100"))]
    assert len(with_plan) > 70
    for name in with_plan:
        setting_of(case_of(PUBLISHED[name]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bridge_2509_405B", {"stage_layers": "ends", "chunks": 8, "mesh": {"pp": 8, "dp": 8, "cp": 2, "tp": 8}}),
        ("bridge_2509_Q235", {"stage_layers": "ends", "expert_tensor": "whole", "mesh": {"pp": 8, "ep": 16, "tp": 2}}),
        (
            "bridge_2509_DSV3",
            {"stage_layers": "ends", "expert_tensor": "whole", "mesh": {"pp": 8, "dp": 2, "ep": 32, "tp": 2}},
        ),
        ("nemo_Llama38B", {"attention": "cudnn", "mesh": {"dp": 4, "cp": 2}}),
        ("titan_405B_512", {"zero": "1", "pipeline": "1f1b", "micro_batch": 4, "stage_layers": "ends"}),
        ("titan_405B_512i", {"zero": "1", "pipeline": "interleaved", "chunks": 2, "micro_batch": 4}),
        ("moezoo_8x22b_fp8", {"expert_tensor": "split", "chunks": 7}),
    ],
)
def test_plans_of_published_runs(name, expected):
    """As their sources and libraries have them; each can be simulated."""
    case = case_of(PUBLISHED[name])
    assert {key: case.options.get(key) for key in expected} == expected
    assert ("stage_layers" in case.options) == any("embedding and output count" in text for text in case.assumed)
    setting = setting_of(case)
    assert setting.mesh.ranks == PUBLISHED[name].count("num_accelerators")
    assert setting.model.layers == PUBLISHED[name].count("layers") + (name == "bridge_2509_DSV3")


def test_the_null_model_never_sees_its_own_model():
    rows = [Guess(model, "A100", 1.0, 0.0, seconds) for model, seconds in (("a", 2.0), ("b", 4.0), ("b", 4.0))]
    assert null_predictions(rows) == pytest.approx([4.0, 2.0, 2.0])
    assert null_predictions(rows[:1]) == [None]
    other = Guess("c", "H100", 1.0, 0.0, 8.0)
    assert null_predictions([*rows, other])[3] in (2.0, 4.0)  # none of its kind: those of all others


def judged(error, plans=None, predicted=None, measured=None, null=None, covered=None):
    return Judged(error, null, plans, predicted, measured, covered)


def test_statistics_are_what_they_say():
    told = statistics([judged(0.1, null=0.5), judged(-0.3, covered=True), judged(0.2, covered=False)], skipped=2)
    assert (told["rows"], told["skipped"], told["worst"], told["median"]) == (3, 2, -0.3, 0.2)
    assert (told["bias"], told["mape"]) == (pytest.approx(0.0), pytest.approx(0.2))
    assert (told["null_rows"], told["null_mape"], told["mape_beside_null"]) == (1, 0.5, 0.1)
    assert told["coverage"] == 0.5
    assert told["rank_correlation"] is None
    assert statistics([], skipped=4)["mape"] is None


def test_regret_is_what_following_the_prediction_costs():
    plans = [judged(0.0, ("m",), made, real) for made, real in ((1.0, 11.0), (2.0, 10.0), (3.0, 12.0))]
    told = statistics(plans, 0)
    assert told["regret"] == pytest.approx(0.1)
    assert told["rank_correlation"] == pytest.approx(0.5)
    assert told["plans"] == 3
    assert statistics(plans[:2], 0)["regret"] is None  # two plans say nothing


def test_the_command_writes_what_it_found(tmp_path):
    data = table(tmp_path / "few.csv", [row(name) for name in FEW])
    done = athanor("validate", "--data", data, "--out", tmp_path / "out", "--json", "-")
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    assert [each["id"] for each in plain["rows"]] == list(FEW)
    assert plain["overall"]["rows"] == 3  # the account by formula is no measurement
    assert plain["memory"]["formula"]["rows"] == 1
    assert [each["fitted"] for each in plain["rows"] if each["metric"].startswith("mem_")] == [True]
    assert plain["overall"]["skipped"] == 1
    by_source = {each["source"]: each for each in plain["sources"]}
    assert len(by_source) == 4
    told = next(each for each in plain["rows"] if each["id"] == "fastermoe")
    assert (told["predicted"], told["reason"][:7]) == (None, "a ratio")
    assert "kort_22B_full" in done.stderr  # progress
    for name in ("accuracy.json", "accuracy.csv", "report.html", "predicted_measured.svg", "errors_by_source.png"):
        assert (tmp_path / "out" / name).stat().st_size > 200
    keys = set(re.findall(r"`(\w+)`", (FOLDER.parent.parent / "docs" / "formats" / "accuracy.md").read_text()))
    assert set(plain["rows"][0]) | set(plain["overall"]) | {"source"} <= keys


def test_the_command_refuses_bad_tables(tmp_path):
    for text, message in (("id\n", "column source is missing"), ("", "column id is missing")):
        (tmp_path / "bad.csv").write_text(text)
        done = athanor("validate", "--data", tmp_path / "bad.csv")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert message in done.stderr


@pytest.mark.parametrize(
    ("system", "accelerator", "machine"),
    [
        ("Jean Zay V100 (4/node OPA)", "V100-32GB", "jean-zay-v100"),
        ("AWS p5 EFA", "H100", "aws-p5"),
        ("P6-B200 EFA", "B200", "dgx-b200"),
        ("B200-180GB", "B200-180GB", "dgx-b200"),
        ("GB200 NVL72", "GB200", "gb200-nvl72"),
        ("MI300X node", "AMD MI300X-192GB", "mi300x"),
        ("", "H800-80GB", "deepseek-h800"),
        ("", "A800", "selene"),
        ("", "H200-141GB", "eos-h100"),
        ("some cluster", "A100-40GB", "selene"),
        ("some cluster", "V100-SXM2-16GB", "dgx1-v100"),
        ("Atlas 800T A2", "Ascend 910B3", "cloud-brain-2"),
        ("Atlas 800 (8x910A)", "Ascend910A-32GB", "cloud-brain-2"),
    ],
)
def test_machines_are_found_by_system_else_by_accelerator(system, accelerator, machine):
    here = PublishedRow(row("coll_ar_h100", system=system, accelerator=accelerator))
    assert system_of(entry_of(here)).machine.name == machine


@pytest.mark.parametrize(
    ("system", "interfaces", "rate"),
    [
        ("DGX-2 1xIB", 1, 12.5e9),
        ("DGX-2 4xIB", 4, 12.5e9),
        ("DGX-2", 8, 12.5e9),
        ("a cluster of DGX-2, one NIC a node", 1, 12.5e9),
        ("DGX-A100 8x200Gb", 8, 25e9),
        ("DGX-A100 2x100Gb", 2, 12.5e9),
        ("Jean Zay A100 (4xOPA/node)", 4, 12.5e9),
        ("4 nodes x 8 V100; IB 100Gb", 1, 12.5e9),
    ],
)
def test_network_cards_that_a_system_names_are_taken(system, interfaces, rate):
    accelerator = "A100" if "A100" in system else "V100"
    node = system_of(entry_of(PublishedRow(row("coll_ar_h100", system=system, accelerator=accelerator)))).machine.node
    assert (node.interfaces, node.interface_bandwidth) == (interfaces, rate)


def test_sums_in_the_switch_are_taken_where_the_library_had_its_way():
    """Benchmarks of a node let the library choose; slides and nodes that are said to use rings do not."""
    for system, accelerator, reduces in (
        ("B200 node", "B200", True),
        ("H200 node", "H200", True),
        ("H200 node ring", "H200", False),
        ("DGX-B200", "B200", False),
        ("DGX-H100", "H100", False),
        ("AWS p5 EFA", "H100", True),
    ):
        node = system_of(
            entry_of(PublishedRow(row("coll_ar_h100", system=system, accelerator=accelerator)))
        ).machine.node
        assert (node.inside_reduction is not None) == reduces


def shared(machine):
    group = machine.core_group
    return group.tiles, group.dma_read, group.dma_write, group.operator_overhead, machine.calibration.gemm_efficiency


def test_machines_with_the_same_accelerator_share_what_was_fitted_to_it():
    found = {}
    for machine in list_machines():
        if name := machine.core_group.accelerator:
            found.setdefault(name, set()).add(shared(machine).__repr__())
    assert {"A100", "H100", "V100"} <= set(found)
    assert all(len(values) == 1 for values in found.values())


def test_a_fit_finds_the_constants_that_rows_were_made_with():
    machine = load_machine("selene").changed({"calibration.gemm_efficiency": 0.6, "core_group.dma_read": 0.5})
    machine = machine.changed({"core_group.dma_write": 0.5})
    made = []
    for number, (hidden, heads, micro) in enumerate(
        (
            (2048, 16, 4),
            (4096, 32, 1),
            (1024, 64, 2),
            (8192, 64, 1),
            (512, 8, 16),
            (2048, 32, 2),
            (1024, 16, 1),
            (4096, 64, 2),
        )
    ):
        shape = {"layers": "2", "hidden": hidden, "ffn_hidden": 4 * hidden, "heads": heads, "model": f"GPT {number}"}
        plan = {"num_accelerators": "8", "dp": "2", "tp": "4", "global_batch": 4 * micro, "micro_batch": micro}
        text = {key: str(value) for key, value in {**shape, **plan, "id": f"made{number}"}.items()}
        made.append(row("kort_22B_full", **text))
    measured = validate([PublishedRow(each) for each in made], change=lambda _: machine).plain()["rows"]
    rows = [
        PublishedRow({**each, "measured_value": f"{told['predicted']!r}"})
        for each, told in zip(made, measured, strict=True)
    ]
    found = fit(target_of("accelerator", "a100"), rows)
    assert found.values["calibration.gemm_efficiency"] == pytest.approx(0.6, rel=0.05)
    assert found.values["core_group.dma_read"] == found.values["core_group.dma_write"] == pytest.approx(0.5, rel=0.1)
    assert max(abs(error) for error in found.held_out.values()) < 0.03
    assert set(found.held_out) | set(found.fitted) == {each["id"] for each in made}
    assert len(found.held_out) == 4


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(InputError, match=r"fit accelerator A1000: no such accelerator .*did you mean A100"):
        target_of("accelerator", "A1000")
    with pytest.raises(InputError, match=r"fit fabric selen: no such machine .*did you mean selene"):
        target_of("fabric", "selen")
    with pytest.raises(InputError, match=r"fit accelerator A100: 1 rows about it; 4 are needed"):
        rows_of(target_of("accelerator", "A100"), [PUBLISHED["kort_22B_full"]])
    with pytest.raises(LeftOut):
        case_of(PUBLISHED["gpipe_AmoebaNet_M1_K8"])


def test_sources_of_like_names_share_a_line_of_the_plot():
    """No row is missing from the plot where two sources are shortened to one name."""
    from athanor.reports.plots.accuracy import by_source

    rows = [PublishedRow(row("coll_ar_a100", id=f"r{at}", source=f"one page@{at}")) for at in range(3)]
    (axes,) = by_source(validate(rows)).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["one page (3)"]


def test_rows_say_whether_a_constant_was_fitted_to_them():
    """Every second row about an accelerator with fitted constants, collectives that rates were read off; none of a new table."""
    names = ["kort_22B_full", "kort_22B_selective", "bagualu_14.5T", "coll_ar_mi300x_8"]
    names += ["bagualu_174T", "gshard_128E_12L", "gpipe_AmoebaNet_M1_K8"]
    chosen = [PUBLISHED[name] for name in names]
    found = {each["id"]: each["fitted"] for each in validate(chosen).plain()["rows"]}
    half = fitted_to("accelerator", "A100")
    assert found == {
        "kort_22B_full": "kort_22B_full" in half,
        "kort_22B_selective": "kort_22B_selective" in half,
        "bagualu_14.5T": False,
        "coll_ar_mi300x_8": True,
        "bagualu_174T": True,
        "gshard_128E_12L": False,
        "gpipe_AmoebaNet_M1_K8": None,
    }
    assert found["kort_22B_full"] != found["kort_22B_selective"]
    again = validate([PublishedRow({**PUBLISHED[name].fields, "id": f"{name}.again"}) for name in names[:2]]).plain()
    assert [each["fitted"] for each in again["rows"]] == [False, False]
    assert again["overall"]["unfitted_rows"] == 2
    assert again["overall"]["unfitted_mape"] == pytest.approx(again["overall"]["mape"])
    assert len(pool_rows()) == 7
