"""Several results side by side: what their pages answer first, in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ....hardware.units import si
from ...content.sections import Section
from ..story import Story, StoryPart
from .charts import SECONDS, bars


def compared(stories: Sequence[Story], addresses: Sequence[str]) -> StoryPart:
    """A row a result, with the facts that several of them have, and their steps as bars; ``addresses`` are where each is told."""
    counts = Counter(fact.label for story in stories for fact in story.facts)
    labels = [label for label, count in counts.items() if count > 1]
    rows = []
    for story in stories:
        values = {fact.label: fact.value for fact in story.facts}
        rows.append((story.title, story.file, story.kind, *(values.get(label, "") for label in labels)))
    steps = [
        (story.file, story.summary["step_seconds"], story.title) for story in stories if "step_seconds" in story.summary
    ]
    charts = []
    if len(steps) > 1:
        drawn = [
            {"name": file, "amount": seconds, "text": f"{title}: {si(seconds, 's')}"} for file, seconds, title in steps
        ]
        told = "; ".join(f"{file} {si(seconds, 's')}" for file, seconds, _ in steps)
        charts.append(
            bars(drawn, f"Bars of the time of a step of each run: {told}.", "", "time of a step", "file", SECONDS)
        )
    section = Section("Side by side", "", ("result", "file", "kind", *labels), rows, 3)
    return StoryPart(
        section, charts, filtered=len(rows) > 8 and not charts, links=[(address,) for address in addresses]
    )
