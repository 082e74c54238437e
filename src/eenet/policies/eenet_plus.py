"""EENet+: optimal stopping with the critical price of computation as the score."""

import math
from itertools import product
from typing import Any, Self

import torch
from torch import Tensor

from eenet.outputs.evidence import Evidence, along_exits
from eenet.outputs.exit_outputs import ExitOutputs, per_sample
from eenet.policies.critical_price import GainDecision, critical_price, scale
from eenet.policies.eenet_plus_inputs import CORE, exit_inputs, input_groups
from eenet.policies.nested import NestedFamily, NestedPolicy
from eenet.policies.ridge import CrossFitter
from eenet.policies.single_sample import ScalarDecision

_PRICES = (0, 0.01, 0.02, 0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Prices of computation in units of the quality's range over the costs' range."""
_SWITCHES = 24
"""Working points, evenly spread over the cost, at which the heuristics may take over."""
_CONFIDENCES = ("one_minus_margin", "one_minus_max", "entropy")
"""The heuristics among which that choice is made."""


class EENetPlus(NestedPolicy):
    """One fit for every budget: leave where going on is not worth its price.

    At a price l per unit of cost, leaving at exit k is worth `q_k - l c_k`. The gain of going on,
    `G_k(l) = E[q_T - q_k - l (c_T - c_k) | what exits <= k show]` with T > k the exit where the
    policy at price l then stops, is learned by backward induction (Longstaff and Schwartz 2001):
    ridge regressions at a grid of prices, cross-fitted, so that the stops T of a sample come from
    fits that have not seen it. G_k falls with l; made monotone and interpolated it has one zero,
    the *critical price*. The score is its negative and the threshold is common to all exits, so
    the rules of all budgets are nested (see `nested`): a larger budget lets no sample leave
    earlier.

    Below the price where the out-of-fold curve says so, the score continues with the best of
    margin, max probability and entropy, to which one standard error is granted: at low prices
    gains are as small as their errors. See docs/method.md.

    Args:
        folds: Number of folds of the cross-fitting.
        seed: Seed of the folds.
        soft: Share, in the quality to learn from, of what the last exit says of an answer, where
            there are labels, which are noisier but need no calibrated exit. Outputs without labels
            are learned only from the last exit.
    """

    label = "eenet+"
    sized_by_data = (*NestedPolicy.sized_by_data, "weight", "bias", "prices", "steps")
    weight: Tensor  # [E - 1, D, 2 P]: gains, costs
    bias: Tensor  # [E - 1, 2 P]
    prices: Tensor  # [P]
    steps: Tensor  # [E - 1], mean cost of the next step
    switch: Tensor
    confidence: Tensor

    def __init__(self, folds: int = 5, seed: int = 0, soft: float = 0.0) -> None:
        super().__init__()
        if folds < 2:
            raise ValueError(f"folds={folds} must be 2 or more")
        if not 0 <= soft <= 1:
            raise ValueError(f"soft={soft} must lie between 0 and 1")
        self.soft = soft
        self.folds = self.least_samples = folds
        self.seed = seed
        self.register_buffer("switch", torch.tensor(math.inf))
        self.register_buffer("confidence", torch.tensor(0))

    def fit(self, outputs: ExitOutputs) -> Self:
        """Learns the gains of going on by backward induction, and calibrates out of fold.

        Args:
            outputs: Outputs of at least `folds` samples; never those that the network was trained
                on. They need labels or qualities only where there are no logits.
        """
        quality, samples = outputs.learning_quality(self.soft), outputs.num_samples
        self.check_samples(samples)
        full = outputs.mean_costs[-1]  # prices are in quality per cost of the full network
        costs, mean_costs = (outputs.costs / full).float(), (outputs.mean_costs / full).float()
        span = float(mean_costs[-1] - mean_costs[0]) or float(mean_costs[-1])
        worth = float(quality.max() - quality.min()) or 1.0
        self.prices = torch.tensor(_PRICES) * worth / span
        self.steps = mean_costs.diff().clamp_min(1e-6)
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(self.seed))
        shown = outputs.map(_show, dim=1)
        inputs, doubts = shown[..., :-3], shown[..., -3:].unbind(-1)
        evidence = Evidence(shown[..., :0], *doubts)  # all that is needed of it from here on
        learned = self._induce(inputs, quality, costs, order % self.folds)
        self._choose_switch(learned, evidence, quality, outputs.costs)
        # Out-of-fold scores: those of the fit's own samples would be too sure of themselves.
        return self._set_calibration(outputs, self._switched(learned, evidence))

    @property
    def fitted(self) -> bool:
        """Whether there are regressions."""
        return self.prices.numel() > 0

    def check_shape(self, exits: int, classes: int) -> None:
        """Raises a ValueError if the policy was fitted on other exits or classes."""
        super().check_shape(exits, classes)
        if self.weight.numel() and sum(input_groups(classes).values()) != self.weight.shape[1]:
            raise ValueError(f"{self.label} was fitted on another number of classes than {classes}")

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by the negative critical price, in quality per cost of the full network."""
        if k == len(self.steps):
            return torch.zeros_like(evidence.entropy), state
        inputs, state = exit_inputs(k, evidence, state)
        gain, extra = (inputs @ self.weight[k] + self.bias[k]).chunk(2, dim=1)
        price = self._price(k, gain * scale(inputs[:, :1]), extra)
        return self._switched(-price, evidence), state

    def decide_one(self, k: int) -> ScalarDecision:
        """See `Policy.decide_one`: whether the gain at the price of the threshold is positive."""
        weight = torch.cat([self.weight[k], self.bias[k][None]]).double().cpu().numpy()
        confidence, switch = _CONFIDENCES[int(self.confidence)], float(self.switch)
        return GainDecision(
            k, weight, self.prices.tolist(), float(self.steps[k]), confidence, switch
        )

    def _induce(self, inputs: Tensor, quality: Tensor, costs: Tensor, folds: Tensor) -> Tensor:
        """Backward induction: sets the regressions, returns out-of-fold scores `[E, N]`."""
        exits, samples = quality.shape
        costs = per_sample(costs, samples)
        best = quality.max()

        def smooth(k: int, fitter: CrossFitter) -> Tensor:  # less variance, little bias
            predicted = best - fitter.fit((best - quality[k])[:, None]).out_of_fold
            return 0.5 * quality[k][:, None] + 0.5 * predicted

        last = CrossFitter(inputs[-1], folds, CORE, scale(inputs[-1][:, 0]))
        stopped_quality = smooth(exits - 1, last).expand(-1, len(self.prices))
        stopped_cost = costs[-1][:, None].expand(-1, len(self.prices))
        scores = torch.zeros(exits, samples)
        weights, biases = [], []
        for k in reversed(range(exits - 1)):
            weighted = CrossFitter(inputs[k], folds, CORE, scale(inputs[k][:, 0]))
            worth, here = smooth(k, weighted), costs[k][:, None]
            gain = weighted.fit(stopped_quality - worth)
            extra = CrossFitter(inputs[k], folds, CORE).fit(stopped_cost - here)
            weights.append(torch.cat([gain.weight, extra.weight], 1))
            biases.append(torch.cat([gain.bias, extra.bias]))
            price = self._price(k, gain.out_of_fold, extra.out_of_fold)
            scores[k] = -price
            stops = price[:, None] <= self.prices
            stopped_quality = torch.where(stops, worth, stopped_quality)
            stopped_cost = torch.where(stops, here, stopped_cost)
        if weights:
            self.weight, self.bias = torch.stack(weights).flip(0), torch.stack(biases).flip(0)
        return scores

    def _price(self, k: int, gain: Tensor, extra: Tensor) -> Tensor:
        step = self.steps[k]
        return critical_price(gain - self.prices * torch.maximum(extra, step), self.prices, step)

    def _switched(self, scores: Tensor, evidence: Evidence) -> Tensor:
        """Replaces scores above the switch by the order of the chosen confidence, above it too."""
        doubts = torch.stack([getattr(evidence, name) for name in _CONFIDENCES])
        unsure = doubts.index_select(0, self.confidence.reshape(1))[0].clamp(1e-30, 1.0)
        return torch.where(scores < self.switch, scores, self.switch - unsure.log())

    def _choose_switch(
        self, scores: Tensor, evidence: Evidence, quality: Tensor, costs: Tensor
    ) -> None:
        """Sets the price and the heuristic with the largest area, one standard error for them."""
        family = NestedFamily(scores, costs)
        low, high = family.mean_costs[[0, -1]].tolist()
        grid = torch.linspace(low, high, 65, dtype=torch.float64)
        never = float(scores.min()) - 1.0
        budgets = torch.linspace(low, high, _SWITCHES + 1).tolist()[:-1]
        switches = [max(family.threshold(budget), never) for budget in budgets]

        def area(switch: float, index: int) -> Tensor:
            self.switch, self.confidence = torch.tensor(switch), torch.tensor(index)
            candidate = NestedFamily(self._switched(scores, evidence), costs)
            return candidate.mean_over(quality, grid)

        learned = area(math.inf, 0)

        def lead(switch: float, index: int) -> float:
            gain = area(switch, index) - learned
            return float(gain.mean() + gain.std() / len(gain) ** 0.5)

        choices = [(math.inf, 0), *product(switches, range(len(_CONFIDENCES)))]
        best = max(choices, key=lambda choice: lead(*choice))
        self.switch, self.confidence = map(torch.tensor, best)


def _show(evidence: Evidence) -> Tensor:
    """`[E, N, D + 3]`: the inputs at all exits, and the three uncertainties in their order."""
    inputs = torch.stack(along_exits(exit_inputs, evidence))
    return torch.cat([inputs, torch.stack(evidence[1:], -1)], -1)
