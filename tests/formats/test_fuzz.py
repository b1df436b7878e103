"""Whatever a file of others holds, an importer reads it or says in one line what is wrong: no traceback, no hang, no flood.

``make fuzz`` tries ten thousand files of each format (``FUZZ=10000``); the suite some of each.
"""

import json
from copy import deepcopy

import athanor as package
import pytest
from athanor.reports.formats.importers import IMPORTERS
from athanor.reports.formats.kinds import Asked
from athanor.reports.formats.traces.kineto_writer import kineto_trace
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT
from support.scripts import script
from support.spoiled import FUZZED, WRITTEN, places, read_or_refused, spoiled

MEGATRON = script("tests/formats/test_megatron.py")
TOPOLOGIES = script("tests/formats/test_topologies.py")
FRAMEWORKS = script("tests/formats/test_frameworks.py")
MEASUREMENTS = script("tests/formats/test_measurements.py")

CONFIGS = [each["config"] for each in json.loads((ROOT / "tests" / "data" / "huggingface.json").read_text()).values()]

NEMO = {
    "num_nodes": 2, "devices": 8,
    "model": {"num_layers": 8, "hidden_size": 64, "num_attention_heads": 4, "seq_length": 8, "tensor_model_parallel_size": 2, "vocab_size": 99},
}  # fmt: skip
DUMPED = {
    "num_layers": 2,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "seq_length": 4,
    "world_size": 2,
    "vocab_size": 9,
    "bf16": True,
}

SAMPLES = {
    "hf": [("json", each) for each in CONFIGS],
    "megatron": [
        *MEGATRON.SCRIPTS.values(),
        "A=(--num-layers 8 --hidden-size 64)\ntorchrun --nnodes 2 --nproc_per_node 4 x.py ${A[@]} --num-attention-heads 4 --seq-length 8 "
        "--vocab-size 99 --bf16 --moe-layer-freq ([0]*1+[1]*7) --num-experts 4",
        "Namespace(" + ", ".join(f"{key}={value}" for key, value in DUMPED.items()) + ")",
        "".join(f"  {key} ........ {value}\n" for key, value in DUMPED.items()),
        ("yaml", NEMO),
        ("json", DUMPED),
    ],
    "deepspeed": [("json", FRAMEWORKS.ZERO2), ("json", FRAMEWORKS.AUTO)],
    "torchtitan": [
        ("toml", FRAMEWORKS.TITAN),
        '[model]\nname = "llama3"\nflavor = "8B"\n[parallelism]\ndata_parallel_shard_degree = 4\n[training]\nseq_len = 8\n',
    ],
    "nccl-tests": [
        MEASUREMENTS.nccl_log(),
        "# size count type redop root time algbw busbw\n 1024 256 float sum -1 10.0 0.1 0.2\n",
        ("json", {"config": {"nranks": 2, "operation": "all_reduce"}, "results": [{"size": 1024, "out_of_place": {"time": 10.0, "bus_bw": 0.2}}]}),
    ],
    "osu": [MEASUREMENTS.OSU.format("1 2.0\n1024 3.0\n4194304 400.5"), "# OSU MPI-CUDA Allreduce Latency Test v7.4\n# Size Latency (us)\n1 2.0\n1024 3.0\n"],
    "slurm": [TOPOLOGIES.CONF, TOPOLOGIES.YAML, TOPOLOGIES.BLOCKS],
    "nvidia-topo": [TOPOLOGIES.matrix(8, lambda *_: "NV18", 8), TOPOLOGIES.matrix(4, lambda *_: "NV4", 2)],
    "hwloc": [TOPOLOGIES.hwloc(), TOPOLOGIES.hwloc(gpus=2)],
    "kineto": [],  # of the prediction
}  # fmt: skip
"""Files of each format's shape: texts, or trees and how they are written."""


@pytest.fixture(scope="module")
def prediction(tmp_path_factory):
    """The file of a run, and what a profiler would have seen of it, cut to a few operations."""
    run = package.simulate("cluster-64", "moda-tiny")
    trace = json.loads(kineto_trace(run))
    trace["traceEvents"] = [event for event in trace["traceEvents"] if event["ph"] == "X"][:30]
    marked = [
        {**event, "cat": "gpu_user_annotation", "name": event["args"].get("operation", "x")}
        for event in trace["traceEvents"]
    ]
    file = tmp_path_factory.mktemp("prediction") / "run.json"
    run.save(file)
    return str(file), [
        ("json", trace),
        ("json", trace["traceEvents"]),
        ("json", {"traceEvents": trace["traceEvents"] + marked}),
    ]


def samples(kind, prediction):
    return SAMPLES[kind] or prediction[1]


def asking(kind, prediction):
    """What is said of a file beside its name: so much that each of the samples is read."""
    defined = {
        "megatron": {"world_size": "16", "vocab_size": "50000"},
        "deepspeed": {"world_size": "16"},
        "torchtitan": {"world_size": "16"},
        "nccl-tests": {"operation": "all-reduce", "ranks": "2", "hosts": "2"},
        "osu": {"operation": "all-reduce", "ranks": "2", "hosts": "2"},
        "kineto": {"run": prediction[0]},
    }
    return Asked(machine="eos-h100", defined=defined.get(kind, {}))


def named(folder, content, kind, at=0):
    """A file with the content, by an ending that says how it is written where a format has several."""
    ends = {"megatron": [".sh", ".yaml", ".json"], "slurm": [".conf", ".yaml"]}.get(kind, [".txt"])
    file = folder / f"fuzz-{kind}{ends[at % len(ends)]}"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_are_read(kind, prediction, tmp_path):
    """Else nothing behind the first refusal would ever be tried."""
    for sample in samples(kind, prediction):
        text = sample if isinstance(sample, str) else WRITTEN[sample[0]](sample[1])
        yaml = (sample[0] == "yaml") if isinstance(sample, tuple) else text.startswith(("---", "- topology"))
        at = (
            1
            if yaml and kind in ("megatron", "slurm")
            else 2
            if isinstance(sample, tuple) and kind == "megatron"
            else 0
        )
        file = named(tmp_path, text.encode(), kind, at)
        assert IMPORTERS.find(kind).read(file, asking(kind, prediction)) is not None


@pytest.mark.parametrize("kind", SAMPLES)
@settings(**FUZZED)
@given(data=st.data())
def test_any_file_is_read_or_refused_in_one_line(kind, data, prediction, tmp_path_factory):
    content = data.draw(spoiled(samples(kind, prediction)))
    file = named(tmp_path_factory.getbasetemp(), content, kind, data.draw(st.integers(0, 2)))
    read_or_refused(lambda file: IMPORTERS.find(kind).read(file, asking(kind, prediction)), file)


@pytest.mark.parametrize("kind", ["hf", "deepspeed", "torchtitan", "kineto"])
def test_every_key_of_every_sample_may_be_of_another_type(kind, prediction, tmp_path):
    """One key at a time: what random files find only now and then, as where a list stands for the name of something."""
    trees = [sample for sample in samples(kind, prediction) if isinstance(sample, tuple)]
    seen = set()
    for written, tree in trees:
        for place, (_, name) in enumerate(places(tree, 60)):
            for value in ([], {"a": 1}, True):
                if (str(name), str(value)) in seen:
                    continue
                seen.add((str(name), str(value)))
                other = deepcopy(tree)
                inside, key = places(other, 60)[place]
                inside[key] = value
                file = named(tmp_path, WRITTEN[written](other).encode(), kind)
                read_or_refused(lambda file: IMPORTERS.find(kind).read(file, asking(kind, prediction)), file)


def test_every_format_is_tried():
    assert {*SAMPLES} == {*IMPORTERS}
