"""The samples file: every finished point, a line each, so that an interrupted calibration goes on where it stopped."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from ...hardware.growing_file import GrowingFile
from ...hardware.locks import lock
from ..job.world import World
from .points import BenchPoint
from .samples import SampleSeries

FORMAT = "athanor-samples/1"


def job_of(world: World) -> dict[str, Any]:
    """What tells one job from another: how many ranks run on which hosts, in their order, and the MPI library."""
    hosts = [[name, len(list(ranks))] for name, ranks in groupby(world.hosts)]
    return {"ranks": world.size, "hosts": hosts, "library": world.library}


class KeptSamples:
    """The points that a samples file holds of a job; those of other jobs stay where they are.

    A line that an interruption cut short is passed over. Of a point that was measured again the last line counts.
    """

    def __init__(self, path: Path, job: dict[str, Any], fresh: bool = False) -> None:
        self.job = job
        self.known: dict[str, SampleSeries] = {}
        self._file = GrowingFile(path)
        self._lock = lock(path)  # two calibrations would mix what they measured
        for entry in self._file.entries():
            if not fresh:
                self._take(entry)

    def _take(self, entry: Any) -> None:
        try:
            if entry["format"] == FORMAT and entry["job"] == self.job:
                series = SampleSeries(
                    BenchPoint(**entry["point"]),
                    entry["repeats"],
                    tuple(entry["seconds"]),
                    tuple(entry["reasons"]),
                    entry["date"],
                )
                self.known[series.point.key] = series
        except (KeyError, TypeError):
            return

    def of(self, point: BenchPoint, samples: int) -> SampleSeries | None:
        """The series of a point, where it has so many samples that count; it may be held out now, or not."""
        series = self.known.get(point.key)
        if series is None or series.point.detail != point.detail or len(series.seconds) < samples:
            return None
        return SampleSeries(point, series.repeats, series.seconds, series.reasons, series.date)

    def keep(self, series: SampleSeries) -> None:
        """Append a finished point."""
        self.known[series.point.key] = series
        self._file.append(
            {
                "format": FORMAT,
                "job": self.job,
                "point": vars(series.point),
                "repeats": series.repeats,
                "seconds": series.seconds,
                "reasons": series.reasons,
                "date": series.date,
            }
        )
