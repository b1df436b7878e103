"""Units, machine files, core groups and nodes."""

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import CATALOGUE, Machine, list_machines, load_machine
from athanor.hardware.units import parse, si
from athanor.workloads.schedule.costs import compute_seconds
from athanor.workloads.schedule.work import Gemm, Sweep
from hypothesis import given
from hypothesis import strategies as st

OCEANLIGHT = load_machine("sunway-oceanlight")
TEXT = (CATALOGUE / "sunway-oceanlight.toml").read_text()


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("51.2 GB/s", "byte / second", 51.2e9),
        ("200 Gbit/s", "byte / second", 25e9),
        ("256 KiB", "byte", 262144),
        ("2.304 TFLOP/s", "flop / second", 2.304e12),
        ("2.304 TFLOPS", "flop / second", 2.304e12),
        ("10 us", "second", 1e-5),
        ("2.25 GHz", "hertz", 2.25e9),
    ],
)
def test_units(text, unit, value):
    assert parse(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["51.2 GB", "fast", "", "51.2", "3 parsec/s", "1 GB/s GB/s"])
def test_wrong_units(text):
    with pytest.raises(ValueError, match=r"is (a|no) |dimension"):
        parse(text, "byte / second")


@given(st.floats(1e-12, 1e21))
def test_readable_numbers_read_back(value):
    assert parse(si(value, "B", digits=15), "byte") == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'memory_bandwidth = "51.2 GB/s"',
            'memory_bandwidth = "51.2 GB"',
            'core_group.memory_bandwidth is "51.2 GB": "51.2 GB" is a size; needs a bandwidth such as "51.2 GB/s"',
        ),
        ('memory_bandwidth = "51.2 GB/s"', "memory_bandwidth = 51.2", "has no unit; needs a bandwidth"),
        ('memory_bandwidth = "51.2 GB/s"', 'memory_bandwith = "51.2 GB/s"', "did you mean memory_bandwidth?"),
        ('memory = "16 GB"', 'memory = "-16 GB"', "must be above zero"),
        ('memory = "16 GB"', 'memory = "0 GB"', "must be above zero"),
        ('taper = "3/16"', 'taper = "16/3"', "must lie in (0, 1]"),
        ('routing = "adaptive"', 'routing = "adaptiv"', "did you mean adaptive?"),
        ("nodes = 107520", "nodes = 0", "nodes is 0: input should be greater than 0"),
        ("nodes = 107520", "nodes = 1.5", "nodes is 1.5"),
        ("supernode = 256\n", "", "fabric.supernode is missing"),
        ("[fabric]", "[fabrik]", "fabrik is an unknown key"),
        ('fp16 = "9.216 TFLOP/s"', 'fp4 = "9.216 TFLOP/s"', "core_group.peak.fp4"),
        ("nodes = 107520", "nodes = ", "not a TOML file"),
    ],
)
def test_bad_machine_files(tmp_path, old, new, message):
    """One line that names the file, the key, what was found and what is allowed."""
    assert old in TEXT
    path = tmp_path / "cluster.toml"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(InputError) as wrong:
        load_machine(path)
    text = str(wrong.value)
    assert message in text
    assert text.startswith(f"{path}: ")
    assert "\n" not in text


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_machine(tmp_path / "none.toml")
    with pytest.raises(InputError, match="did you mean sunway-oceanlight"):
        load_machine("sunway-oceanlite")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8 text"):
        load_machine(tmp_path / "binary.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load_machine(tmp_path)


@pytest.mark.parametrize("machine", list_machines(), ids=lambda machine: machine.name)
def test_every_number_of_the_catalogue_has_a_source(machine):
    assert machine.unsourced() == []
    assert len(list(machine.numbers())) > 20
    known = {key for key, _, _ in machine.numbers()} | set(type(machine).model_fields)
    prefixes = {".".join(key.split(".")[:n]) for key in known for n in range(1, 5)}
    assert set(machine.sources) <= prefixes, "a source for a key that is not there"


def test_oceanlight_is_the_published_machine():
    group, node = OCEANLIGHT.core_group, OCEANLIGHT.node
    assert OCEANLIGHT.supernodes == 420
    assert node.core_groups * group.cores == 390
    assert 96_000 * 390 == 37_440_000
    assert group.peak["fp16"] / group.peak["fp32"] == 4.0
    assert node.core_groups * group.peak["fp16"] == pytest.approx(55.296e12)
    assert OCEANLIGHT.processor(1).memory == 96e9
    assert OCEANLIGHT.fabric.uplinks == 48
    assert node.injection == 56.25e9


def test_changed_machines():
    full = OCEANLIGHT.changed({"fabric.taper": "1/1", "core_group.memory": "32 GB"})
    assert (full.fabric.taper, full.core_group.memory) == (1.0, 32e9)
    assert full.source("fabric.taper") == "set by the user"
    with pytest.raises(InputError, match=r"did you mean fabric.taper"):
        OCEANLIGHT.changed({"fabric.tapr": "1/1"})
    with pytest.raises(InputError, match="must lie in"):
        OCEANLIGHT.changed({"fabric.taper": "2"})
    with pytest.raises(InputError, match="needs a size"):
        OCEANLIGHT.changed({"core_group.memory": "32 GB/s"})


def test_a_machine_built_in_code_takes_plain_si():
    again = Machine.model_validate(OCEANLIGHT.model_dump())
    assert again == OCEANLIGHT


def gemm(m, n, k, precision="fp16", machine=OCEANLIGHT, count=1, ranks_per_node=1):
    return machine.processor(ranks_per_node).gemm(float(m), n, k, count, precision)


def test_large_gemms_reach_the_efficiency_of_the_kernel():
    cost = gemm(8192, 8192, 8192)
    flops = 2 * 8192**3
    peak = OCEANLIGHT.processor(1).peak("fp16") * OCEANLIGHT.calibration.gemm_efficiency
    assert float(flops / cost.seconds) == pytest.approx(peak, rel=0.01)
    assert float(flops / cost.seconds) < peak
    assert cost.compute > cost.memory


def test_a_thin_gemm_is_bound_by_memory():
    cost = gemm(1, 49152, 4096)
    assert cost.memory > cost.compute
    weights = 49152 * 4096 * 2
    assert float(cost.seconds) >= weights / (307.2e9 * 0.92)


def test_tiles_fit_the_local_memory_and_local_memory_decides_traffic():
    group = OCEANLIGHT.core_group
    for m, n in ((100.0, 1e5), (1e5, 100.0), (5e3, 5e3), (1.0, 1.0)):
        rows, columns = (float(side) for side in group.gemm_tile(np.array(m), np.array(n), "fp16"))
        panels = 2 * 128 * 2 * (rows + columns)
        assert rows * columns * 4 + panels <= 64 * 256 * 1024 * (1 + 1e-9)
        assert (rows, columns) <= (m, n)
    small = OCEANLIGHT.changed({"core_group.local_memory": "16 KiB"})
    assert gemm(4096, 4096, 4096, machine=small).memory > 2 * gemm(4096, 4096, 4096).memory
    alone = OCEANLIGHT.changed({"core_group.pooled_local_memory": False})
    assert gemm(4096, 4096, 4096, machine=alone).memory > gemm(4096, 4096, 4096).memory


def test_double_buffering_hides_the_shorter_part():
    single = OCEANLIGHT.changed({"core_group.double_buffering": False})
    both, one = gemm(2048, 4096, 4096), gemm(2048, 4096, 4096, machine=single)
    assert float(one.seconds) == pytest.approx(float(one.compute + one.memory))
    assert float(both.seconds) < float(one.seconds)


def test_half_precision_is_four_times_single():
    assert float(gemm(2048, 8192, 8192, "fp32").seconds / gemm(2048, 8192, 8192).seconds) == pytest.approx(4, rel=0.01)


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(1, 1e4), st.floats(1.0, 4.0))
def test_gemm_grows_with_every_side(m, n, k, factor):
    base = float(gemm(m, n, k).seconds)
    assert float(gemm(m * factor, n, k).seconds) >= base * (1 - 1e-12)
    assert float(gemm(m, n, k * factor).seconds) >= base * (1 - 1e-12)
    faster = OCEANLIGHT.changed({"core_group.memory_bandwidth": "102.4 GB/s"})
    assert float(gemm(m, n, k, machine=faster).seconds) <= base * (1 + 1e-12)


@pytest.mark.parametrize("side", ["m", "k"])
def test_no_rows_cost_nothing_and_arrays_broadcast(side):
    sides = {"m": 64.0, "n": 64.0, "k": 64.0, side: np.array([[0.0], [10.0]])}
    cost = OCEANLIGHT.processor(1).gemm(sides["m"], sides["n"], sides["k"], 1, "fp16")
    assert cost.seconds.shape == (2, 1)
    assert cost.seconds[0, 0] == 0.0 < cost.seconds[1, 0]


def test_no_work_is_not_even_started():
    processor, calibration = OCEANLIGHT.processor(1), OCEANLIGHT.calibration
    rows = np.array([0.0, 1.0])
    for work in (Gemm(rows, 8.0, 8.0, 1, "fp16"), Sweep(rows, 2, 2, 1, "fp16")):
        idle, busy = compute_seconds(work, processor, calibration).seconds
        assert idle == 0.0
        assert busy > OCEANLIGHT.core_group.operator_overhead
    for nothing in (Gemm(8.0, 0.0, 8.0, 1, "fp16"), Gemm(8.0, 8.0, 8.0, 0, "fp16"), Sweep(0.0, 2, 2, 1, "fp16")):
        assert float(compute_seconds(nothing, processor, calibration).seconds) == 0.0


HOSTED = {"node.host_memory": "6 GB", "node.host_link": "2 GB/s", "node.host_memory_bandwidth": "12 GB/s"}


def test_a_rank_has_its_share_of_the_host():
    machine = OCEANLIGHT.changed(HOSTED)
    whole, pair = machine.processor(1), machine.processor(3)
    assert (whole.host_memory, pair.host_memory) == (6e9, 2e9)
    assert (float(whole.host_copy(12e9)), float(pair.host_copy(12e9))) == (1.0, 3.0)
    assert pair.host_sweep(np.array([0.0, 4e9])).tolist() == [0.0, 1.0]
    assert load_machine(machine) == Machine.model_validate(machine.model_dump())


def test_a_machine_without_a_host_says_so():
    processor = OCEANLIGHT.processor(1)
    assert processor.host_memory is None
    for asked in (processor.host_copy, processor.host_sweep):
        with pytest.raises(InputError, match=r"no host memory beyond .*node\.host_link"):
            asked(1.0)
    with pytest.raises(InputError, match=r": node: has host_memory but not host_link, host_memory_bandwidth; a host"):
        OCEANLIGHT.changed({"node.host_memory": "6 GB"})


def test_a_rank_a_core_group_has_a_sixth():
    whole, sixth = OCEANLIGHT.processor(1), OCEANLIGHT.processor(6)
    assert sixth.memory == whole.memory / 6
    assert sixth.peak("fp16") == whole.peak("fp16") / 6
    with pytest.raises(InputError, match="4 ranks a node"):
        OCEANLIGHT.processor(4)


def test_memory_bound_operators_follow_bandwidth_and_the_ring():
    processor = OCEANLIGHT.processor(1)
    read, written = 6 * 51.2e9 * 0.92, 6 * 51.2e9 * 0.70
    assert float(processor.sweep(1e9, 2, 2, 1, "fp16").seconds) == pytest.approx(2e9 / read + 2e9 / written)
    narrow = OCEANLIGHT.changed({"node.ring_bandwidth": "128 GB/s"})  # 5/6 of 307.2 GB/s have to cross it
    slower = float(narrow.processor(1).sweep(1e9, 2, 2, 1, "fp16").seconds)
    assert slower == pytest.approx(2 * (2e9 / read + 2e9 / written))
    assert float(processor.sweep(1e9, 0, 0, 1000, "fp16").seconds) == pytest.approx(1e12 / processor.peak("fp16"))
