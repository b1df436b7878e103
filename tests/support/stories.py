"""What must hold of the page of any saved results."""

import json

from athanor.reports.explored.page import page
from athanor.reports.explored.saved import story_of


def explored(path, kind, *sources):
    """The story of saved results, after a look at what all pages have: an answer, facts, alt texts, tables, and these sources."""
    story = story_of(path)
    assert story.kind == kind
    assert story.answer.endswith(".")
    assert len(story.facts) >= 3
    charts = [chart for part in story.parts for chart in part.charts]
    assert charts
    assert all(len(chart.alt) > 30 and json.dumps(chart.content, allow_nan=False) for chart in charts)
    for part in story.parts:
        section = part.section
        assert all(len(row) == len(section.columns) for row in section.rows), section.title
        if part.filtered:
            numbers = {row["row"] for chart in part.charts for row in chart.content["rows"] if isinstance(row, dict)}
            assert numbers <= set(range(len(section.rows)))
    titles = [section.title for section in story.sources]
    assert all(any(title.startswith(wanted) for title in titles) for wanted in sources), titles
    assert len(page([story]).encode()) < 5e6
    return story
