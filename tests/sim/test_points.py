"""Points of studies: the same rows whoever works on them and whatever is known, and after an end what was finished."""

import pytest
from athanor.sim.studies.collective_sweep import sweep
from athanor.sim.studies.scaling import scale
from athanor.sim.workers import Here, Processes


class Backwards:
    """Workers that do the last task first."""

    def results(self, call, tasks):
        last = len(tasks) - 1
        for number, result in Here().results(call, list(reversed(tasks))):
            yield last - number, result


@pytest.fixture(scope="module")
def crew():
    made = Processes(2, patience=0.0)
    yield made
    made.close()


SWEEP = ("cluster-64", "reduce-scatter", 12, 2**14)
MEASURED = ("wall_seconds", "peak_rss_bytes")
"""What a summary says of the process that made it."""

STUDY = ("weak", "cluster-64", "moda-tiny", [4, 8, 16])


def told(study):
    plain = study.to_plain()
    for point in plain["points"]:
        for key in MEASURED:
            del point[key]
    return plain


def test_a_study_is_the_same_whoever_works_on_its_points(crew):
    alone = scale(*STUDY)
    for each in (crew, Backwards()):
        heard = []
        study = scale(*STUDY, workers=each, on_point=lambda key, study, heard=heard: heard.append((key, study)))
        assert told(study) == told(alone)
        assert len({key for key, _ in heard}) == 3
        for number, (_, known) in enumerate(heard, 1):
            nodes = [point.nodes for point in known.points]
            assert (len(nodes), nodes) == (number, sorted(nodes)), "what is finished, in the order of nodes"
            assert known.points[0].speedup == 1.0, "beside the smallest that is finished"
            assert known.newest in known.points
        assert sorted(known.newest.nodes for _, known in heard) == [4, 8, 16]


def test_a_sweep_is_the_same_whoever_works_on_its_points(crew):
    alone = sweep(*SWEEP)
    assert alone.left_out, "algorithms for powers of two only"
    for each in (crew, Backwards()):
        names = {}
        study = sweep(*SWEEP, workers=each, on_point=lambda key, study, names=names: names.update({key: study.newest}))
        assert study.plain() == alone.plain()
        assert sorted(map(str, names.values())) == sorted(map(str, alone.points))
        half = dict(list(names.items())[::2])
        assert sweep(*SWEEP, known=half, workers=each).plain() == alone.plain()
