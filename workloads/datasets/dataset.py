"""A data set: how many samples, how large, and the processor's time to decode one."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ...hardware.records import Record, build, catalogue_names, find, read_toml
from ...hardware.units import Bytes, SecondsOrZero

CATALOGUE = Path(__file__).parent / "catalogue"


class DataPart(Record):
    """A kind of data that every sample has some of: texts, images, features."""

    name: str
    size: Bytes


class Dataset(Record):
    """Samples of one data set, each of which makes a sequence of the model.

    A ``part`` is what lies on the file system; those in ``read`` are what training reads, all where it names none. A sample is
    their share; sizes of samples deviate by ``deviation``, relative to the mean. ``samples_per_file`` of them lie in one
    file, and ``decode`` is the time of one worker for one sample.
    """

    name: str
    description: str = ""
    samples: int = Field(gt=0)
    part: tuple[DataPart, ...] = Field(min_length=1)
    read: tuple[str, ...] = ()
    deviation: float = Field(default=0.0, ge=0)
    samples_per_file: int = Field(default=1, gt=0)
    decode: SecondsOrZero = 0.0
    sources: dict[str, str] = {}

    @property
    def nbytes(self) -> float:
        """Bytes of one pass over what is read."""
        return sum(each.size for each in self.part if not self.read or each.name in self.read)

    @property
    def sample_bytes(self) -> float:
        """Bytes of one sample on average."""
        return self.nbytes / self.samples


def load_dataset(named: str | Path | Dataset) -> Dataset:
    """A data set from a catalogue name, a TOML file, or as it is; raises :class:`InputError` that says what is wrong."""
    if isinstance(named, Dataset):
        return named
    return build(Dataset, read_toml(find("dataset", CATALOGUE, str(named))), str(named))


def list_datasets() -> list[Dataset]:
    """All data sets of the catalogue."""
    return [load_dataset(name) for name in catalogue_names(CATALOGUE)]
