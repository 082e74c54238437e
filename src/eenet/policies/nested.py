"""Nested families: one score per exit and sample, one threshold common to all exits.

A sample goes past exit k exactly where `R_k = max(s_1..s_k) < t`, so raising t only adds steps, of
cost `c_{k+1} - c_k` each: sorting all R_k once gives cost and quality at every threshold exactly.
"""

import math
from functools import cached_property

import torch
from torch import Tensor

from eenet.outputs.exit_outputs import mean_costs, per_sample
from eenet.policies.base import Policy, Rule, warn_of_ties
from eenet.policies.thresholds import ROUNDING, check_budget


class NestedFamily:
    """All working points of a nested family on N samples.

    Args:
        scores: `[E, N]`; those of the last exit do not count.
        costs: `[E]` or `[E, N]`, cumulative.
    """

    def __init__(self, scores: Tensor, costs: Tensor) -> None:
        self.scores, self.costs = scores, costs
        self.levels, self._order = scores[:-1].cummax(0).values.flatten().sort()
        self._samples = scores.shape[1]
        self.mean_costs = mean_costs(costs)
        self.cost = self.climb(costs)

    @cached_property
    def cost_se(self) -> Tensor:
        """Standard error of `cost`, `[P + 1]`."""
        variance = self.climb(self.costs.double().square()) - self.cost.square()
        return (variance.clamp_min(0) / self._samples).sqrt()

    def climb(self, values: Tensor) -> Tensor:
        """Mean value at the exit of leaving after the first 0, 1, .. P steps, `[P + 1]` float64.

        Args:
            values: `[E]` or `[E, N]`.
        """
        steps = self._steps(values).cumsum(0) / self._samples
        return values[0].double().mean() + torch.cat([steps.new_zeros(1), steps])

    def mean_over(self, values: Tensor, budgets: Tensor) -> Tensor:
        """Mean over budgets of each sample's value, `[N]` float64: its part of the area below.

        Args:
            values: `[E, N]`.
            budgets: `[B]` float64, increasing, from the first exit's mean cost on.
        """
        taken = torch.searchsorted(self.cost, budgets, right=True) - 1
        step = torch.arange(len(self.levels), device=taken.device)
        share = 1 - torch.searchsorted(taken, step, right=True) / len(budgets)  # with this step
        gained = share * self._steps(values)
        return values[0].double().index_add(0, self._order % self._samples, gained)

    def _steps(self, values: Tensor) -> Tensor:
        values = per_sample(values.double(), self._samples)
        return values.diff(dim=0).flatten()[self._order]

    def threshold(self, budget: float) -> float:
        """The largest common threshold whose mean cost stays within the budget.

        Raises:
            ValueError: If the budget is out of range.
        """
        budget = check_budget(budget, self.mean_costs)
        within = int(torch.searchsorted(self.cost, budget * (1 + ROUNDING), right=True))
        return self.threshold_after(max(within - 1, 0))  # by rounding not even the first may be

    def rule(self, scorer: Policy, threshold: float) -> Rule:
        """The rule of a common threshold on what gave the scores."""
        thresholds = common_thresholds(threshold, len(self.scores)).to(self.scores)
        steps = self.steps_below(threshold)
        return Rule(scorer, thresholds, float(self.cost[steps]), float(self.cost_se[steps]))

    def steps_below(self, threshold: float) -> int:
        """Number of steps taken at a common threshold."""
        return int(torch.searchsorted(self.levels, threshold))

    def threshold_after(self, steps: int) -> float:
        """The threshold at which the first `steps` steps are taken, or fewer where levels tie."""
        if steps >= len(self.levels):
            return math.inf
        above = self.levels[steps]
        steps = self.steps_below(float(above))  # equal levels are taken together
        if steps == 0:
            return -math.inf
        below = self.levels[steps - 1]
        middle = 0.5 * below + 0.5 * above
        return float(middle if below < middle else above)


def common_thresholds(threshold: float, exits: int) -> Tensor:
    """`[E]` float32: the threshold at every exit but the last, where whoever comes leaves."""
    thresholds = torch.full((exits,), threshold)
    thresholds[-1] = -math.inf
    return thresholds


class NestedPolicy(Policy):
    """A policy whose rules have one threshold for all exits, so that they are nested."""

    nested = True
    _family: NestedFamily | None = None

    def at(self, budget: float) -> Rule:
        """The rule whose common threshold keeps `budget` on the calibration samples."""
        self.check_budget(budget)
        return common_rule(self, self.family(), budget)

    def at_point(self, u: float) -> Rule:
        """See `Policy.at_point`."""
        if not self.nested:
            return super().at_point(u)
        if not 0 < u < 1:
            return self.family().rule(self, -math.inf if u <= 0 else math.inf)
        low, high = self.family().mean_costs[[0, -1]].tolist()
        return self.family().rule(self, self.family().threshold(low + u * (high - low)))

    def family(self) -> NestedFamily:
        """All working points on the calibration samples, sorted once for each calibration.

        Raises:
            ValueError: If the policy is not fitted.
        """
        scores, costs = self.calibration_scores, self.calibration_costs
        if not scores.numel():
            raise ValueError(self.how_to_fit)
        family = self._family
        if family is None or family.scores is not scores or family.costs is not costs:
            family = self._family = NestedFamily(scores, costs)
        return family


def common_rule(scorer: Policy, family: NestedFamily, budget: float) -> Rule:
    """The rule whose common threshold keeps `budget` on the samples of the family."""
    rule = family.rule(scorer, family.threshold(budget))
    warn_of_ties(rule, family.costs, budget)
    return rule
