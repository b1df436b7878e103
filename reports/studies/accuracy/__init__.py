"""Predictions held against published measurements: every row of a table, by source and in all, with a null model beside."""

from __future__ import annotations

from .validate import Accuracy, AccuracyOutcome, validate

__all__ = ["Accuracy", "AccuracyOutcome", "validate"]
