"""Metrics of adaptive inference."""

from eenet.metrics.bounds import (
    mixture_curve,
    oracle_curve,
    random_curve,
    share_closed,
    stopping_curves,
)
from eenet.metrics.curve import BudgetCurve, Curve, curve_from_sums, exit_sums
from eenet.metrics.curve_maths import Difference, area, budget_at, paired_difference, quality_at

__all__ = [
    "BudgetCurve",
    "Curve",
    "Difference",
    "area",
    "budget_at",
    "curve_from_sums",
    "exit_sums",
    "mixture_curve",
    "oracle_curve",
    "paired_difference",
    "quality_at",
    "random_curve",
    "share_closed",
    "stopping_curves",
]
