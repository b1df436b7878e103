"""How long operations of alike ranks take: each begins when its stream is free and what it waits for is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...workloads.lowering.builder import COMMUNICATION
from ...workloads.lowering.pipeline_blocks import hands_on
from ...workloads.schedule.operation import COMPUTE, Operation
from .spans import Span

REPEATED = 4
"""Layers that are lowered of many alike: the first and the last, and two between them that show what all others are."""


class TimelineEntry(NamedTuple):
    """An operation: the number of its stream, its seconds or what stands for them, and the entries that it waits for."""

    stream: int
    seconds: float
    span: Span | None
    after: tuple[int, ...]


@dataclass(frozen=True)
class SpanTimeline:
    """Operations in program order, by the engine's rule. ``made`` are those on which rests what a block passes on.

    Where all run one after another, ``serial`` says how often each span comes, and ``alone`` are the seconds of the others.
    """

    entries: tuple[TimelineEntry, ...]
    streams: int
    made: tuple[int, ...]
    serial: Mapping[Span, int] | None
    alone: float

    @classmethod
    def of(cls, operations: Sequence[Operation], seconds: Callable[[Operation], float]) -> SpanTimeline:
        """The timeline of a block; ``seconds`` are those of an operation that is no span."""
        numbers: dict[str, int] = {}
        entries, last = list[TimelineEntry](), dict[int, int]()
        for number, each in enumerate(operations):
            stream = numbers.setdefault(each.stream, len(numbers))
            span = each.work if isinstance(each.work, Span) else None
            entries.append(TimelineEntry(stream, 0.0 if span else seconds(each), span, each.after))
            if hands_on(each):
                last[stream] = number
        serial = all(each.stream in (COMPUTE, COMMUNICATION) for each in operations)
        return cls._made(entries, len(numbers), tuple(last.values()), serial)

    @classmethod
    def _made(cls, entries: Sequence[TimelineEntry], streams: int, made: tuple[int, ...], serial: bool) -> SpanTimeline:
        passes_all_on = not entries or len(entries) - 1 in made
        counts = Counter(each.span for each in entries if each.span is not None) if serial and passes_all_on else None
        return cls(tuple(entries), streams, made, counts, sum(each.seconds for each in entries))

    def run(self, spans: Mapping[Span, float]) -> tuple[float, float]:
        """(seconds until all streams are done, until what is passed on is there) with these seconds for spans."""
        if self.serial is not None:
            whole = self.alone + sum(count * spans[span] for span, count in self.serial.items())
            return whole, whole
        free, done = [0.0] * self.streams, list[float]()
        for stream, seconds, span, after in self.entries:
            begin = free[stream]
            for other in after:
                if done[other] > begin:
                    begin = done[other]
            begin += seconds if span is None else spans[span]
            free[stream] = begin
            done.append(begin)
        return max(free), max((done[number] for number in self.made), default=0.0)

    def repeated(self, times: int) -> SpanTimeline | None:
        """The same with ``times`` more of the layers between the first and the last; None where these are not alike.

        ``self`` has :data:`REPEATED` layers. What comes from the end of the first layer's span to that of the second's has to
        come again from there to the third's, and is then put in between.
        """
        spans = enumerate(each.span for each in self.entries)
        layers = [number for number, span in spans if span is not None and span.layer is not None]
        per_layer, rest = divmod(len(layers), REPEATED)
        if rest or not per_layer:
            return None
        ends = [layers[per_layer * (at + 1) - 1] + 1 for at in range(REPEATED)]
        period = ends[1] - ends[0]
        once, again = self.entries[ends[0] : ends[1]], self.entries[ends[1] : ends[2]]
        far = any(number < ends[0] - period for each in once for number in each.after)
        if far or [_moved(each, period) for each in once] != list(again):
            return None
        more, shift = list[TimelineEntry](), times * period
        for time in range(1, times + 1):
            more += [_moved(each, time * period) for each in once]
        later = [
            each._replace(after=tuple(number + shift if number >= ends[0] else number for number in each.after))
            for each in self.entries[ends[1] :]
        ]
        made = tuple(number + shift if number >= ends[1] else number for number in self.made)
        return self._made([*self.entries[: ends[1]], *more, *later], self.streams, made, self.serial is not None)


def _moved(entry: TimelineEntry, by: int) -> TimelineEntry:
    return entry._replace(after=tuple(number + by for number in entry.after))
