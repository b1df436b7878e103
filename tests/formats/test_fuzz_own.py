"""Files of our own, changed by hand or broken, are read or refused in one line, in little time and memory (``make fuzz``)."""

import json
import tomllib
from pathlib import Path

import pytest
from athanor import Run, load_machine, load_model, lower, read_run_file
from athanor.hardware.site.assumed import read_faults
from athanor.reports.explored.page import page
from athanor.reports.explored.saved import story_of
from athanor.reports.formats.traces.chakra import chakra_nodes, chakra_trace, read_chakra
from athanor.reports.published.read_runs import read_runs
from athanor.reports.studies.predicted_training import read_training
from athanor.sim.studies.study.study_file import StudyFile
from athanor.workloads.datasets.dataset import load_dataset
from athanor.workloads.routing.routers import Recorded
from athanor.workloads.routing.trace import Trace
from athanor.workloads.schedule.schedule import Schedule
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT
from support.spoiled import FUZZED, WRITTEN, read_or_refused, spoiled

SAVED = json.loads((ROOT / "tests" / "data" / "saved_results.json").read_text())
"""What commands wrote, of each kind, cut to a few rows."""


def tables(pattern, *names):
    """Files of TOML that there are, as trees and, since their order and comments count too, as texts."""
    texts = [(ROOT / pattern.format(name)).read_text() for name in names]
    return [("toml", tomllib.loads(text)) for text in texts] + texts


def run_of(path):
    """A run, and all that is asked of it to show it."""
    run = Run.load(path)
    return run.summary(), len(run.to_frame())


def page_of(path):
    """The page that ``athanor report`` makes."""
    return page([story_of(path)])


def lowered():
    return lower("laptop", "moda-tiny", mesh={"ep": 2})


def schedule():
    """A few operations of a schedule."""
    plain = json.loads(lowered().to_json())
    return {**plain, "operations": plain["operations"][:12]}


def operations():
    return chakra_trace(chakra_nodes(lowered(), 0))


TRACE = "step,layer,expert,tokens\n" + "".join(
    f"{step},{layer},{expert},{9 - expert}\n" for step in (1, 2) for layer in (0, 1) for expert in range(4)
)
LINES = "".join(json.dumps({"step": step, "layer": 0, "tokens": [5, 3, 1, 1]}) + "\n" for step in (1, 2))
POPULAR = "iteration,rank,share\n" + "".join(
    f"{at},{rank},{1 / (1 + rank):.3f}\n" for at in (0, 100) for rank in range(8)
)

READERS = {
    "machine": (load_machine, ".toml", tables("hardware/catalogue/{}.toml", "laptop", "selene", "sunway-oceanlight", "frontier", "gb200-nvl72")),
    "model": (load_model, ".toml", tables("workloads/model/catalogue/{}.toml", "moda-tiny", "deepseek-v3", "jamba-1.5-mini", "gpt-oss-20b")),
    "run file": (read_run_file, ".toml", tables("examples/{}.toml", "run", "job")),
    "study": (StudyFile.read, ".toml", tables("examples/studies/{}.toml", "swipe", "images")),
    "dataset": (load_dataset, ".toml", tables("workloads/datasets/catalogue/{}.toml", "tokens", "resnet50")),
    "faults": (read_faults, ".toml", tables("hardware/site/rates/{}.toml", "llama3", "bloom")),
    "published runs": (read_runs, ".toml", tables("reports/published/runs/{}.toml", "fastermoe", "alpa")),
    "older table": (read_runs, ".csv", ["".join((ROOT / "tests/data/older_table.csv").read_text().splitlines(keepends=True)[:6])]),
    "routing trace": (Trace.load, ".csv", [TRACE, LINES]),
    "popularity": (Recorded.load, ".csv", [POPULAR]),
    "run": (run_of, ".json", [("json", SAVED["run"])]),
    "schedule": (lambda path: Schedule.from_json(path.read_text(errors="replace")), ".json", [("json", schedule())]),
    "training": (read_training, ".json", [("json", SAVED["a training"])]),
    "page": (page_of, ".json", [("json", each) for kind, each in SAVED.items() if kind != "points"]),
    "page of points": (page_of, ".csv", [SAVED["points"]]),
    "chakra": (read_chakra, ".et", [operations()]),
}  # fmt: skip
"""Who reads a file, how it ends, and files of its kind: texts, bytes, or trees and how they are written."""


@pytest.mark.parametrize("kind", READERS)
def test_samples_are_read(kind, tmp_path):
    """Else nothing behind the first refusal would ever be tried."""
    read, ending, samples = READERS[kind]
    for sample in samples:
        file = tmp_path / f"sample{ending}"
        text = WRITTEN[sample[0]](sample[1]) if isinstance(sample, tuple) else sample
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert read(file) is not None


WORST = [
    b"[" * 100_000, b'{"a":' * 100_000, b"a = " + b"[" * 100_000, b"9" * 5000, b'{"format": ' + b"9" * 5000 + b"}", b"a = " + b"9" * 5000,
    b'{"a": 1e999, "b": NaN}', "name = 'é'".encode("latin-1"), b"\xff\xfe\x00", b"\x00" * 100, b"\x1f\x8b\x08\x00", b"1,2\n" * 10_000,
]  # fmt: skip
"""What readers of JSON, TOML and tables have stumbled over."""


@pytest.mark.parametrize("kind", READERS)
def test_the_worst_is_refused_too(kind, tmp_path):
    read, ending, _ = READERS[kind]
    for number, content in enumerate(WORST):
        file = tmp_path / f"{number}{ending}"
        file.write_bytes(content)
        assert not read_or_refused(read, file)


@pytest.mark.parametrize("kind", READERS)
@settings(**FUZZED)
@given(data=st.data())
def test_any_file_is_read_or_refused_in_one_line(kind, data, tmp_path_factory):
    read, ending, samples = READERS[kind]
    file = Path(tmp_path_factory.getbasetemp()) / f"fuzz-{kind.replace(' ', '-')}{ending}"
    file.write_bytes(data.draw(spoiled(samples)))
    read_or_refused(read, file)
