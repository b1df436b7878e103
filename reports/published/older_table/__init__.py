"""The older form of published runs, a CSV table of a row a measurement: read as records, by rules that are written down.

``docs/formats/published-runs.md`` has the rules. Texts for people (``note``) decide nothing.
"""
