"""Online budget control: a budget that holds on any sequence of samples."""

import math

from torch import Tensor

from eenet.policies.thresholds import check_budget


class BudgetControl:
    """Moves a working point along a nested family by the cost just spent.

    The working point u starts where the budget lies in the costs' range, in [0, 1], and after n_t
    samples with costs x becomes `u + step * sum(budget - x) / range`, where `range` = c_E - c_1
    (Gibbs and Candes 2021, with cost in place of miscoverage). The family must *saturate*: at
    u <= 0 everybody leaves at the first exit, at u >= 1 at the last.

    **Bound.** Let batches have at most b samples, x_i in [c_1, c_E], and n samples have passed.
    For any sequence, shifted or adversarial,

    `-(range (1 - u_1) / step + b (budget - c_1)) <= sum_i (x_i - budget)
    <= range u_1 / step + b (c_E - budget)`,

    hence `|average cost - budget| <= range (1 + step b) / (step n)`.

    The proof is in docs/method.md. Where a family does not reach the last exit, u is stopped at its
    upper limit; the bound on overspending holds all the same.
    Costs that depend on the sample keep the bounds if each sample's own range holds the budget.

    Args:
        budget: Average cost per sample, in the unit of the costs.
        costs: Cost of each exit `[E]`, or the mean costs.
        step: Step size; 0.01 forgets in a hundred samples.

    Raises:
        ValueError: If the budget or the step is out of range.
    """

    def __init__(self, budget: float, costs: Tensor, step: float = 0.01) -> None:
        if not step > 0:
            raise ValueError(f"step={step} must be positive")
        self.budget = check_budget(budget, costs)
        self.first, self.last = float(costs[0]), float(costs[-1])
        self.range = (self.last - self.first) or 1.0
        self.step = step
        self.u = (self.budget - self.first) / self.range

    def update(self, spent: Tensor) -> float:
        """Moves the working point.

        Args:
            spent: Costs `[b]` of the batch just answered at the working point.

        Returns:
            The working point for the next batch.

        Raises:
            ValueError: If a cost is NaN or infinite; the working point stays as it was.
        """
        gain = self.step / self.range
        saved = float((self.budget - spent.double()).sum())
        if not math.isfinite(saved):
            raise ValueError("spent holds NaN or infinity: the control would lose its way")
        self.u += gain * saved
        self.u = min(self.u, 1 + gain * len(spent) * (self.budget - self.first))
        return self.u

    def bound(self, samples: int, batch: int = 1) -> float:
        """Largest possible `|average cost - budget|` after so many samples, in the unit of cost."""
        return self.range * (1 + self.step * batch) / (self.step * samples)
