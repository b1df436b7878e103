"""Whatever a file holds, an importer reads it or says in one line what is wrong: no traceback, no hang.

``FUZZ=10000 pytest tests/formats/test_fuzz.py`` tries ten thousand files of each format; the suite some of each.
"""

import json
import os

import athanor as package
import pytest
from athanor import AthanorError
from athanor.reports.formats.importers import IMPORTERS
from athanor.reports.formats.kinds import Asked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.paths import ROOT

CASES = int(os.environ.get("FUZZ", "25"))

CONFIGS = [each["config"] for each in json.loads((ROOT / "tests" / "data" / "huggingface.json").read_text()).values()]

SEEDS = {
    "hf": [json.dumps(each) for each in CONFIGS],
    "megatron": [
        "A=(--num-layers 8 --hidden-size 64)\ntorchrun --nnodes 2 --nproc_per_node 4 x.py ${A[@]} --num-attention-heads 4 --seq-length 8 "
        "--vocab-size 99 --bf16 --moe-layer-freq ([0]*1+[1]*7) --num-experts 4",
        "Namespace(num_layers=2, hidden_size=8, num_attention_heads=2, seq_length=4, world_size=2, vocab_size=9)",
        "  num_layers ........ 2\n  hidden_size ....... 8\n  num_attention_heads ..... 2\n  seq_length ........ 4\n",
    ],
    "deepspeed": [json.dumps({"train_batch_size": 8, "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}, "bf16": {"enabled": True}})],
    "torchtitan": ['[model]\nname = "llama3"\nflavor = "8B"\n[parallelism]\ndata_parallel_shard_degree = 4\n[training]\nseq_len = 8\n'],
    "nccl-tests": ["# size count type redop root time algbw busbw\n 1024 256 float sum -1 10.0 0.1 0.2\n"],
    "osu": ["# OSU MPI Latency Test v7.4\n# Size Latency (us)\n1 2.0\n1024 3.0\n"],
    "slurm": ["SwitchName=a Switches=b[1-2]\nSwitchName=b1 Nodes=n[1-4]\nSwitchName=b2 Nodes=n[5-8]\n"],
    "nvidia-topo": ["\tGPU0\tGPU1\tNIC0\tCPU Affinity\nGPU0\tX\tNV4\tPIX\t0\nGPU1\tNV4\tX\tSYS\t0\n\n"],
    "hwloc": ['<topology version="2.0"><object type="Machine"><object type="NUMANode" local_memory="9"/><object type="Core"/></object></topology>'],
    "kineto": [json.dumps({"distributedInfo": {"rank": 0}, "traceEvents": [
        {"ph": "X", "cat": "kernel", "name": "k", "ts": 1.0, "dur": 2.0, "args": {"operation": "embedding.lookup", "step": 0}}]})],
}  # fmt: skip

NOISE = st.one_of(
    st.text(max_size=12),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(["null", "true", "{", "}", "[", "]", '"', "\\", "$X", "$((", "*", "&a", "!!python/object:os.system", "\n", "1e999", "NaN", "-1"]),
)  # fmt: skip


@st.composite
def spoiled(draw, kind):
    """A file of the kind with some pieces cut out, put in or doubled; or anything at all."""
    text = draw(st.sampled_from(SEEDS[kind]))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(text)))
        end = draw(st.integers(begin, min(len(text), begin + 30)))
        text = text[:begin] + draw(NOISE) + draw(st.sampled_from(["", text[begin:end]])) + text[end:]
    return draw(st.one_of(st.just(text.encode(errors="surrogatepass")), st.binary(max_size=40)))


@pytest.fixture(scope="module")
def prediction(tmp_path_factory):
    file = tmp_path_factory.mktemp("prediction") / "run.json"
    package.simulate("cluster-64", "moda-tiny").save(file)
    return str(file)


def asking(kind, prediction):
    """What is said of a file beside its name: so much that each of the seeds is read."""
    defined = {
        "megatron": {"world_size": "2", "vocab_size": "9"},
        "nccl-tests": {"operation": "all-reduce", "ranks": "2", "hosts": "2"},
        "osu": {"operation": "all-reduce"},
        "kineto": {"run": prediction},
    }
    return Asked(machine="selene", defined=defined.get(kind, {}))


@pytest.mark.parametrize("kind", SEEDS)
def test_seeds_are_read(kind, prediction, tmp_path):
    """Else nothing behind the first refusal would ever be tried."""
    for text in SEEDS[kind]:
        file = tmp_path / "seed.txt"
        file.write_text(text)
        assert IMPORTERS.find(kind).read(file, asking(kind, prediction)) is not None


@pytest.mark.parametrize("kind", SEEDS)
@settings(max_examples=CASES, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_any_file_is_read_or_refused_in_one_line(kind, data, prediction, tmp_path_factory):
    content = data.draw(spoiled(kind))
    suffix = data.draw(st.sampled_from([".txt", ".yaml"])) if kind in ("megatron", "slurm") else ".txt"
    file = tmp_path_factory.getbasetemp() / f"fuzz-{kind}{suffix}"
    file.write_bytes(content)
    asked = asking(kind, prediction)
    try:
        IMPORTERS.find(kind).read(file, asked)
    except AthanorError as wrong:
        assert str(wrong)
        assert "\n" not in str(wrong)


def test_every_format_is_tried():
    assert {*SEEDS} == {*IMPORTERS}
