"""The version of this installation."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1)
def version() -> str:
    """The version that ``pyproject.toml`` states."""
    from importlib.metadata import version as installed

    return installed("athanor")
