"""Studies: many points of a simulation over any keys of machine, model, plan and campaign."""

from __future__ import annotations

from .run import StudyResult, study

__all__ = ["StudyResult", "study"]
