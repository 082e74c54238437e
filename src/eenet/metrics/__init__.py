"""Metrics of adaptive inference."""

from eenet.metrics.curve import BudgetCurve, Curve

__all__ = ["BudgetCurve", "Curve"]
