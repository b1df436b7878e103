"""What errors come to: signed, absolute, the worst, and whether plans stand in their true order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_PLANS = 3
"""Plans of one model from which on their order says something."""


CLEAR = 0.05
"""How far apart two measured steps are, relatively, that no chance of a single run has put in their order."""


@dataclass(frozen=True)
class Judged:
    """One row as statistics see it: relative errors of the prediction and of the null model, and what it may be compared with.

    ``plans`` names the rows among which a user would choose: one model, one batch, as many of the same accelerators.
    ``predicted_seconds`` and ``measured_seconds`` are those of a step, where the row is about one. ``fitted`` says that some
    constant was fitted to the row, and ``run`` what it is called.
    """

    error: float
    null_error: float | None
    plans: tuple[object, ...] | None
    predicted_seconds: float | None
    measured_seconds: float | None
    covered: bool | None
    fitted: bool = False
    run: str = ""


def statistics(rows: Sequence[Judged], skipped: int) -> dict[str, Any]:
    """The keys of a source, or of all sources together; None where there is nothing to tell."""
    errors = np.array([row.error for row in rows])
    nulls = np.array([row.null_error for row in rows if row.null_error is not None])
    beside = np.array([row.error for row in rows if row.null_error is not None])
    found: dict[str, Any] = {"rows": len(rows), "skipped": skipped}
    sizes = np.abs(errors)
    found |= {
        "mape": _or_none(sizes.mean) if len(rows) else None,
        "median": float(np.median(sizes)) if len(rows) else None,
        "p95": float(np.percentile(sizes, 95)) if len(rows) else None,
        "worst": float(errors[sizes.argmax()]) if len(rows) else None,
        "bias": float(errors.mean()) if len(rows) else None,
        **order(rows),
        "null_rows": len(nulls),
        "null_mape": float(np.abs(nulls).mean()) if len(nulls) else None,
        "null_median": float(np.median(np.abs(nulls))) if len(nulls) else None,
        "median_beside_null": float(np.median(np.abs(beside))) if len(beside) else None,
        "mape_beside_null": float(np.abs(beside).mean()) if len(beside) else None,
    }
    unseen = [abs(row.error) for row in rows if not row.fitted]
    found["unfitted_rows"] = len(unseen)
    found["unfitted_mape"] = float(np.mean(unseen)) if unseen else None
    covered = [row.covered for row in rows if row.covered is not None]
    found["coverage"] = sum(covered) / len(covered) if covered else None
    return found


def _or_none(value: Any) -> float:
    return float(value())


def order(rows: Sequence[Judged]) -> dict[str, Any]:
    """Whether plans of one model stand in their true order, and what following the prediction would cost.

    ``rank_correlation`` is the mean over models, weighted by their plans; ``regret`` the largest of any model, with that of all
    in ``plans``; ``clear_ordered`` the share of right ones among pairs of plans that differ by more than :data:`CLEAR`.
    """
    found = orders(rows)
    known = [each for each in found if each["rank_correlation"] is not None]
    plans, clear = (sum(each[key] for each in found) for key in ("plans", "clear_pairs"))
    weight = sum(each["plans"] for each in known)
    return {
        "rank_correlation": sum(e["rank_correlation"] * e["plans"] for e in known) / weight if known else None,
        "clear_ordered": sum(e["clear_ordered"] * e["clear_pairs"] for e in found if e["clear_pairs"]) / clear
        if clear
        else None,
        "regret": max(each["regret"] for each in found) if found else None,
        "plans": plans,
    }


def orders(rows: Sequence[Judged]) -> list[dict[str, Any]]:
    """Each group of plans among which a user would choose, three at least: how they are ordered, and what the first one costs."""
    groups: dict[tuple[object, ...], list[Judged]] = {}
    for row in rows:
        if row.plans is not None and row.predicted_seconds is not None and row.measured_seconds is not None:
            groups.setdefault(row.plans, []).append(row)
    return [_group(each) for each in groups.values() if len(each) >= LEAST_PLANS]


def _group(rows: Sequence[Judged]) -> dict[str, Any]:
    from scipy.stats import spearmanr

    predicted = np.array([row.predicted_seconds for row in rows], dtype=float)
    measured = np.array([row.measured_seconds for row in rows], dtype=float)
    flat = np.ptp(predicted) == 0 or np.ptp(measured) == 0
    first, second = np.triu_indices(len(rows), 1)
    apart = np.log(measured[first] / measured[second])
    clear = np.abs(apart) > np.log1p(CLEAR)
    right = np.sign(np.log(predicted[first] / predicted[second])) == np.sign(apart)
    return {
        "plans": len(rows),
        "spread": float(measured.max() / measured.min() - 1),
        "rank_correlation": None if flat else float(spearmanr(predicted, measured).statistic),
        "clear_pairs": int(clear.sum()),
        "clear_ordered": float(right[clear].mean()) if clear.any() else None,
        "regret": float(measured[predicted.argmin()] / measured.min() - 1),
        "chosen": rows[int(predicted.argmin())].run,
        "best": rows[int(measured.argmin())].run,
        "worst": rows[int(np.abs(np.log(predicted / measured) - np.median(np.log(predicted / measured))).argmax())].run,
    }
