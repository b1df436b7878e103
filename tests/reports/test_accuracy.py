"""Predictions held against measurements: conventions, memory, the null model, statistics, fits, and the command."""

import json
import re

import pytest
from athanor.cli import cli
from athanor.hardware.errors import InputError
from athanor.hardware.machine import list_machines, load_machine
from athanor.reports.plots.accuracy import drawings
from athanor.reports.published import FOLDER
from athanor.reports.published.read_runs import published_runs
from athanor.reports.published.run import Convention, MemoryReading, PublishedRun
from athanor.reports.studies.accuracy import validate
from athanor.reports.studies.accuracy.cases import LeftOut, case_of, setting_of
from athanor.reports.studies.accuracy.conventions import step_flops
from athanor.reports.studies.accuracy.fitting import fit
from athanor.reports.studies.accuracy.judgement import Judged, orders, statistics
from athanor.reports.studies.accuracy.memory_rows import with_memory
from athanor.reports.studies.accuracy.null_model import Guess, null_predictions
from athanor.reports.studies.accuracy.targets import runs_of, target_of
from click.testing import CliRunner
from support.command_line import athanor
from support.runs import with_some

PUBLISHED = published_runs()
FEW = ("kort_22B_full", "kort_22B_selective", "kort_mem_activations_22B_none", "fastermoe", "mlm20_DGX2_8B")


def changed(name, **keys):
    """A published run with other values; of tables, with other values of some keys."""
    run = PUBLISHED[name]
    for key, value in keys.items():
        now = getattr(run, key)
        run = run.model_copy(update={key: {**now, **value} if isinstance(now, dict) else value})
    return PublishedRun.model_validate(run.model_dump())


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith(("mlm20", "bloom"))])
def test_flops_by_the_sources_convention_give_its_own_throughput(name):
    """Both publish TFLOP/s too, which count what is recomputed."""
    run = PUBLISHED[name]
    told = float(re.search(r"([\d.]+) TFLOP/s/GPU", run.notes).group(1))
    setting = setting_of(case_of(run))
    flops = step_flops(setting.model, run.batch, setting.model.seq_len, Convention(recomputation=True))
    assert flops / run.value / setting.mesh.ranks / 1e12 == pytest.approx(told, rel=0.005)


def test_model_flops_of_a_gpt_are_the_published_formula():
    run = PUBLISHED["kort_175B_selective"]
    model = setting_of(case_of(run)).model
    layers, h, s, v = model.layers, model.hidden, 2048, model.vocabulary
    formula = 72 * 64 * s * layers * h**2 * (1 + s / (6 * h) + v / (12 * layers * h))
    assert step_flops(model, 64, s, Convention()) == pytest.approx(formula, rel=1e-12)
    assert formula / run.value / 64 / 312e12 == pytest.approx(0.514, rel=0.005)  # its notes: MFU 51.4 %


def test_sources_count_what_they_say():
    """Without an output layer, with half of the square of attention, and with the second forward pass."""
    model = setting_of(case_of(PUBLISHED["kort_175B_selective"])).model
    layers, h, s, v = model.layers, model.hidden, 2048, model.vocabulary

    def of(**keys):
        return step_flops(model, 1, s, Convention(**keys))

    assert of() - of(vocabulary=0) == pytest.approx(6 * s * h * v)
    assert of(vocabulary=2 * v) - of() == pytest.approx(6 * s * h * v)
    assert of(recomputation=True) - of() == pytest.approx(of(vocabulary=0) / 3)
    assert of() - of(causal=True) == pytest.approx(12 * layers * h * s * (s - 1) / 2)


# --- memory -------------------------------------------------------------------------------------------------------------


def memory_of(*runs):
    """What is predicted of the memory in runs, by name."""
    return {
        each["id"]: each for each in validate([each for each in with_memory(runs) if each.is_memory]).plain()["rows"]
    }


def test_a_run_that_tells_of_memory_beside_its_time_stands_for_both():
    runs = list(with_memory(PUBLISHED.values()))
    told = {each.id.removesuffix(":memory"): each for each in runs if each.beside}
    assert len(runs) == len(PUBLISHED) + len(told) and len({each.id for each in runs}) == len(runs)
    numbers = {name: (each.value, each.unit) for name, each in told.items()}
    assert numbers["bloom_l607"] == (29, "GB") and numbers["titan_8B_8"] == (82.4, "GiB")
    assert numbers["fugaku_1.3B_4"] == (18870, "MiB") and numbers["alpa_gpt2.6b"] == (8.745, "GB")
    assert not {"bloom_l856", "mlm20_DGX2_1B", "sc21_dp", "kort_mem_activations_1T_none"} & set(told)
    assert all(each.metric == "mem_total" and each.is_memory for each in told.values())
    assert len([each for each in told.values() if each.publication == "BigScience" and each.fitted]) == 7


def test_measured_memory_is_met():
    """Every published reading of the card or the allocator that is predicted: within 8 % in the mean, but for Alpa's within 15 %."""
    runs = [each for each in with_memory(PUBLISHED.values()) if each.is_memory and each.publication != "SimuMax"]
    found = validate(runs)
    judged = {kind: found.judged(rows) for kind, rows in found.memory.items()}
    assert judged["measured"]["rows"] == 25 and judged["measured"]["mape"] < 0.08
    errors = {each.row.id: each.error for each in found.memory["measured"] if each.error is not None}
    assert {name for name, error in errors.items() if abs(error) > 0.15} == {"alpa_gpt2.6b:memory"}
    assert judged["formula"]["rows"] == 12 and abs(judged["formula"]["worst"]) < 0.002
    assert all(each["null_relative_error"] is None for each in found.plain()["rows"])


def reading(name, **keys):
    """A run with another reading of its memory."""
    memory = {**(PUBLISHED[name].memory or MemoryReading(value=1, unit="GB", reading="system")).model_dump(), **keys}
    return PUBLISHED[name].model_copy(update={"memory": MemoryReading(**memory)})


def test_memory_has_a_plot_of_its_own_in_one_unit():
    """Pairs in GB whatever the unit."""
    runs = [
        reading("titan_8B_8", value=value, unit=unit).model_copy(update={"id": unit})
        for value, unit in ((80, "GiB"), (81920, "MiB"))
    ]
    figures = {
        name: figure for name, _, figure in drawings(validate([each for each in with_memory(runs) if each.is_memory]))
    }
    marks = [line.get_xdata() for line in figures["memory"].axes[0].lines[1:]]
    assert len(marks) == 1 and list(marks[0]) == pytest.approx([85.9, 85.9], rel=1e-3)
    assert "memory" not in {name for name, *_ in drawings(validate([PUBLISHED["kort_mem_activations_22B_none"]]))}


def test_memory_is_not_mixed_with_times():
    runs = [PUBLISHED[name] for name in ("bloom_l607", "kort_22B_full")]
    apart, together = validate(runs).plain(), validate(list(with_memory(runs))).plain()
    assert len(together["rows"]) == 3 and together["sources"] == apart["sources"]
    assert together["overall"] == apart["overall"] and together["overall"]["rows"] == 2
    assert together["memory"]["measured"]["rows"] == 1 and apart["memory"]["measured"]["rows"] == 0
    assert together["rows"][1]["relative_error"] == together["memory"]["measured"]["worst"]


def test_readings_are_of_the_card_of_the_allocator_or_of_tensors():
    """The system shows driver and libraries too; the allocator its idle blocks; tensors alone are the least."""
    kinds = ("system", "reserved", "allocated")
    found = [memory_of(reading("bloom_l607", reading=kind))["bloom_l607:memory"] for kind in kinds]
    card, reserved, allocated = (each["predicted"] for each in found)
    assert card - reserved == pytest.approx((1573 * 2**20 + 3 * 0.3e9) / 1e9)
    assert 0.8 * reserved < allocated < reserved
    assert found[1]["assumed"][-1] == "without driver and libraries"


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (PUBLISHED["dlperf_8x1x1_16_1536x16"], "the memory is that of OneFlow, which ran the same plan"),
        (
            PUBLISHED["fugaku_1.3B_4"],
            "the reading has what the system keeps, which fugaku does not say (core_group.reserved_memory)",
        ),
    ],
)
def test_memory_that_cannot_be_predicted_has_its_reason(run, reason):
    good = PUBLISHED["kort_mem_activations_22B_none"]
    rows = [good, *(each for each in with_memory([run]) if each.is_memory)]
    assert [each["reason"] for each in validate(rows).plain()["rows"]] == [None, reason]


# --- rows ---------------------------------------------------------------------------------------------------------------


def test_where_nothing_can_be_predicted_the_first_reason_is_said():
    with pytest.raises(InputError, match=r"none of the 1 rows can be predicted; fastermoe: a ratio of two runs"):
        validate([PUBLISHED["fastermoe"]])


def test_a_published_run_is_never_silent():
    """Every run has a prediction or a reason; those about steps of known plans are predicted."""
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
    plan = setting_of(case).plan.to_plain()
    assert {key: plan[key] for key in expected} == expected
    assert (plan["stage_layers"] == "ends") == any("embedding and output count" in text for text in case.assumed)


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
    data = with_some(tmp_path / "data", lambda names: set(FEW) & set(names))
    done = athanor("validate", "--data", data, "--out", tmp_path / "out", "--json", "-")
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    assert {each["id"] for each in plain["rows"]} == set(FEW)
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
        shape = {"layers": 2, "hidden": hidden, "ffn_hidden": 4 * hidden, "heads": heads}
        plan = {"mesh": {"dp": 2, "tp": 4}, "global_batch": 4 * micro, "micro_batch": micro}
        run = changed("kort_22B_full", id=f"made{number}", model=f"GPT {number}", shape=shape, plan=plan)
        made.append(run.model_copy(update={"fitted": number % 2 == 0}))
    measured = validate(made, change=lambda _: machine).plain()["rows"]
    rows = [run.model_copy(update={"value": told["predicted"]}) for run, told in zip(made, measured, strict=True)]
    found = fit(target_of("accelerator", "a100"), rows)
    assert found.values["calibration.gemm_efficiency"] == pytest.approx(0.6, rel=0.05)
    assert found.values["core_group.dma_read"] == found.values["core_group.dma_write"] == pytest.approx(0.5, rel=0.1)
    assert max(abs(error) for error in found.held_out.values()) < 0.03
    assert set(found.held_out) | set(found.fitted) == {each.id for each in made}
    assert len(found.held_out) == 4


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(InputError, match=r"fit accelerator A1000: no such accelerator .*did you mean A100"):
        target_of("accelerator", "A1000")
    with pytest.raises(InputError, match=r"fit fabric selen: no such machine .*did you mean selene"):
        target_of("fabric", "selen")
    with pytest.raises(InputError, match=r"fit accelerator A100: 1 runs about it; 4 are needed"):
        runs_of(target_of("accelerator", "A100"), [PUBLISHED["kort_22B_full"]])
    with pytest.raises(LeftOut):
        case_of(PUBLISHED["gpipe_AmoebaNet_M1_K8"])


def test_sources_of_like_names_share_a_line_of_the_plot():
    """No row is missing from the plot where two sources are shortened to one name."""
    from athanor.reports.plots.accuracy import by_source

    long = "one page of a source whose name is long"
    rows = [changed("coll_ar_a100", id=f"r{at}", source=f"{long}, part {at}") for at in range(3)]
    (axes,) = by_source(validate(rows)).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"{long[:33]}… (3)"]


def test_rows_say_whether_a_constant_was_fitted_to_them():
    """As their records do; what a source computed was read off it, and what is not predicted has no answer."""
    names = [
        "coll_ar_mi300x_8",
        "bagualu_174T",
        "bagualu_14.5T",
        "gshard_128E_12L",
        "kort_mem_activations_22B_none",
        "fastermoe",
    ]
    found = {each["id"]: each["fitted"] for each in validate([PUBLISHED[name] for name in names]).plain()["rows"]}
    assert found == dict(zip(names, (True, True, False, False, True, None), strict=True))
    told = validate([changed("kort_22B_full", fitted=False)]).plain()["overall"]
    assert (told["unfitted_rows"], told["unfitted_mape"]) == (1, pytest.approx(told["mape"]))


def test_pairs_that_differ_clearly_are_counted_apart():
    """Of four plans two lie within 5 %: which of them is first no run of its own can tell."""
    times = {"a": (1.0, 10.0), "b": (2.0, 10.2), "c": (1.5, 12.0), "d": (4.0, 14.0)}
    rows = [Judged(0.0, None, ("m",), made, real, None, run=name) for name, (made, real) in times.items()]
    (found,) = orders(rows)
    assert (found["clear_pairs"], found["clear_ordered"]) == (5, pytest.approx(4 / 5))
    assert (found["chosen"], found["best"], found["worst"], found["regret"]) == ("a", "a", "d", 0.0)
    assert found["spread"] == pytest.approx(0.4)
    assert statistics(rows, 0)["clear_ordered"] == pytest.approx(4 / 5)


def test_all_fits_are_made_anew_on_what_there_is(tmp_path):
    """Of four small runs on V100 the accelerator's alone; what was simulated is known when it runs again."""
    names = ["dlperf_1x1x1_2_1536x16", "dlperf_1x1x1_8_768x12", "mlm20_DGX2_1B", "mlm20_DGX2_2B"]
    data, out = with_some(tmp_path / "data", lambda found: set(names) & set(found)), tmp_path / "out"
    for path in data.glob("*.toml"):  # of two layers each, to be quick
        path.write_text(path.read_text().replace("\nvalue = ", "\nshape = { layers = 2 }\nvalue = "))
    told = []
    for _ in range(2):
        done = CliRunner().invoke(cli, ["fit", "all", "--data", str(data), "--jobs", "1", "--out", str(out)])
        assert done.exit_code == 0, done.output
        told.append((json.loads((out / "fit.json").read_text()), (out / "points.jsonl").read_text()))
    assert told[0] == told[1]
    found = told[0][0]
    assert [each["name"] for each in found["fits"]] == ["V100"], "for others there are too few runs"
    assert {each["key"] for each in found["moved"]} >= {"calibration.gemm_efficiency"}
    assert set(found["rows"]["left_out"]) == set(names) == set(found["rows"]["fitted"])
    assert {each["name"] for each in found["fits"][0]["left_out"]} == {"DLPerf", "Megatron-LM README 2020"}
    keys = set(re.findall(r"`(\w+)`", (FOLDER.parent.parent / "docs" / "formats" / "accuracy.md").read_text()))
    assert set(found) | set(found["fits"][0]) - {"kind", "name", "machines"} <= keys
    refused = CliRunner().invoke(cli, ["fit", "all", "A100"])
    assert isinstance(refused.exception, InputError) and "takes no name" in str(refused.exception)
