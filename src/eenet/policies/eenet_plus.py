"""EENet+: optimal stopping with the critical price of computation as the score."""

import math
from bisect import bisect_right
from itertools import accumulate, product
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from eenet.outputs.evidence import Evidence, along_exits
from eenet.outputs.exit_outputs import ExitOutputs
from eenet.policies.base import Policy, Rule, warn_of_ties
from eenet.policies.eenet_plus_inputs import CORE, exit_inputs, sample_inputs
from eenet.policies.nested import NestedFamily, common_thresholds
from eenet.policies.ridge import CrossFitter
from eenet.policies.single_sample import Sample, Single, reaches

_PRICES = (0, 0.01, 0.02, 0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Prices of computation in units of the quality's range over the costs' range."""
_SWITCHES = 24
"""Working points, evenly spread over the cost, at which the heuristics may take over."""
_CONFIDENCES = ("one_minus_margin", "one_minus_max", "entropy")
"""The heuristics among which that choice is made."""


class EENetPlus(Policy):
    """One fit for every budget: leave where going on is not worth its price.

    At a price l per unit of cost, leaving at exit k is worth `q_k - l c_k`. The gain of going on,
    `G_k(l) = E[q_T - q_k - l (c_T - c_k) | what exits <= k show]` with T > k the exit where the
    policy at price l then stops, is learned by backward induction (Longstaff and Schwartz 2001):
    ridge regressions at a grid of prices, cross-fitted, so that the stops T of a sample come from
    fits that have not seen it. G_k falls with l; made monotone and interpolated it has one zero,
    the *critical price*. The score is its negative and the threshold is common to all exits, so
    the rules of all budgets are nested (see `nested`): a larger budget lets nobody leave earlier.

    Below the price where the out-of-fold curve says so, the score goes on with the best of margin,
    max probability and entropy, to which one standard error is granted: at low prices gains are as
    small as their errors. See docs/method.md.

    Args:
        folds: Number of folds of the cross-fitting.
        seed: Seed of the folds.
    """

    label = "eenet+"
    sized_by_data = (*Policy.sized_by_data, "weight", "bias", "prices", "steps")
    weight: Tensor  # [E - 1, D, 2 P]: gains, costs
    bias: Tensor  # [E - 1, 2 P]
    prices: Tensor  # [P]
    steps: Tensor  # [E - 1], mean cost of the next step
    switch: Tensor
    confidence: Tensor

    def __init__(self, folds: int = 5, seed: int = 0) -> None:
        super().__init__()
        if folds < 2:
            raise ValueError(f"folds={folds} must be 2 or more")
        self.folds = folds
        self.seed = seed
        self.register_buffer("switch", torch.tensor(math.inf))
        self.register_buffer("confidence", torch.tensor(0))
        self._family: NestedFamily | None = None

    def fit(self, outputs: ExitOutputs) -> Self:
        """Learns the gains of going on by backward induction, and calibrates out of fold.

        Args:
            outputs: Labelled outputs, or outputs with qualities, of at least `folds` samples;
                never those that the network was trained on.
        """
        quality = outputs.answer_quality()
        samples = outputs.num_samples
        if samples < self.folds:
            raise ValueError(f"folds={self.folds}: there are only {samples} samples to fit on")
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
        self._choose_switch(learned, evidence, outputs)
        # Out-of-fold scores: those of the fit's own samples would be too sure of themselves.
        self.calibration_scores = self._switched(learned, evidence)
        self.calibration_costs = outputs.costs
        return self

    def step(self, k: int, evidence: Evidence, state: Any) -> tuple[Tensor, Any]:
        """Scores by the negative critical price, in quality per cost of the full network."""
        if k == len(self.steps):
            return torch.zeros_like(evidence.entropy), state
        inputs, state = exit_inputs(k, evidence, state)
        gain, extra = (inputs @ self.weight[k] + self.bias[k]).chunk(2, dim=1)
        price = self._price(k, gain * _scale(inputs[:, :1]), extra)
        return self._switched(-price, evidence), state

    def single(self, k: int) -> Single:
        """See `Policy.single`: whether the gain at the price of the threshold is positive."""
        weight = torch.cat([self.weight[k], self.bias[k][None]]).double().cpu().numpy()
        prices, step, switch = self.prices.tolist(), float(self.steps[k]), float(self.switch)
        confidence, count = _CONFIDENCES[int(self.confidence)], len(prices)
        # What rounding each input can add to a gain: float32's, for sums of so many terms.
        size = (abs(weight[:, :count]) + prices * abs(weight[:, count:])).max(1)
        size[-1] += step * prices[-1]
        size *= len(size) * 2.0**-24

        def decide(sample: Sample, threshold: float, state: Any) -> tuple[bool | None, Any]:
            shown, state = sample_inputs(k, sample, state)
            if threshold > switch:  # there the order is that of a confidence
                sure = sample.at_most(confidence, math.exp(switch - threshold))
                if not sure:
                    return sure, state
            shown.append(1.0)
            x, scale = np.array(shown), _scale(shown[0])
            parts = (x @ weight).tolist()
            pairs = zip(parts[:count], parts[count:], prices, strict=True)
            gains = [scale * g - price * (c if c > step else step) for g, c, price in pairs]
            gain, fall = gain_at(-min(threshold, switch), gains, prices, step)
            return reaches(-gain, 0.0, float(abs(x) @ size) + 1e-5 * fall), state

        return decide

    def at(self, budget: float) -> Rule:
        """The rule whose common threshold keeps `budget` on the calibration samples."""
        rule = self._rule(self.family().threshold(budget))
        warn_of_ties(rule, self.calibration_costs, budget)
        return rule

    def family(self) -> NestedFamily:
        """All working points on the calibration samples, sorted once for each calibration."""
        scores, costs = self.calibration_scores, self.calibration_costs
        if not scores.numel():
            raise ValueError("this policy was not fitted yet: call fit first")
        family = self._family
        if family is None or family.scores is not scores or family.costs is not costs:
            family = self._family = NestedFamily(scores, costs)
        return family

    def _rule(self, threshold: float) -> Rule:
        family = self.family()
        thresholds = common_thresholds(threshold, len(family.scores)).to(family.scores)
        steps = family.steps_below(threshold)
        return Rule(self, thresholds, float(family.cost[steps]), float(family.cost_se[steps]))

    def at_point(self, u: float) -> Rule:
        """The rule at a working point, for `BudgetControl`.

        Args:
            u: 0 and below: all leave first; 1 and above: all leave last; in between the budget
                `c_1 + u (c_E - c_1)`.
        """
        if not 0 < u < 1:
            return self._rule(-math.inf if u <= 0 else math.inf)
        low, high = self.family().mean_costs[[0, -1]].tolist()
        return self._rule(self.family().threshold(low + u * (high - low)))

    def _induce(self, inputs: Tensor, quality: Tensor, costs: Tensor, folds: Tensor) -> Tensor:
        """Backward induction: sets the regressions, returns out-of-fold scores `[E, N]`."""
        exits, samples = quality.shape
        costs = (costs if costs.dim() == 2 else costs[:, None]).expand(exits, samples)
        best = quality.max()

        def smooth(k: int, fitter: CrossFitter) -> Tensor:  # less variance, little bias
            predicted = best - fitter.fit((best - quality[k])[:, None]).out_of_fold
            return 0.5 * quality[k][:, None] + 0.5 * predicted

        last = CrossFitter(inputs[-1], folds, CORE, _scale(inputs[-1][:, 0]))
        stopped_quality = smooth(exits - 1, last).expand(-1, len(self.prices))
        stopped_cost = costs[-1][:, None].expand(-1, len(self.prices))
        scores = torch.zeros(exits, samples)
        weights, biases = [], []
        for k in reversed(range(exits - 1)):
            weighted = CrossFitter(inputs[k], folds, CORE, _scale(inputs[k][:, 0]))
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

    def _choose_switch(self, scores: Tensor, evidence: Evidence, outputs: ExitOutputs) -> None:
        """Sets the price and the heuristic with the largest area, one standard error for them."""
        family, quality = NestedFamily(scores, outputs.costs), outputs.answer_quality()
        low, high = family.mean_costs[[0, -1]].tolist()
        grid = torch.linspace(low, high, 65, dtype=torch.float64)
        never = float(scores.min()) - 1.0
        budgets = torch.linspace(low, high, _SWITCHES + 1).tolist()[:-1]
        switches = [max(family.threshold(budget), never) for budget in budgets]

        def area(switch: float, index: int) -> Tensor:
            self.switch, self.confidence = torch.tensor(switch), torch.tensor(index)
            candidate = NestedFamily(self._switched(scores, evidence), outputs.costs)
            return candidate.mean_over(quality, grid)

        learned = area(math.inf, 0)

        def lead(switch: float, index: int) -> float:
            gain = area(switch, index) - learned
            return float(gain.mean() + gain.std() / len(gain) ** 0.5)

        choices = [(math.inf, 0), *product(switches, range(len(_CONFIDENCES)))]
        best = max(choices, key=lambda choice: lead(*choice))
        self.switch, self.confidence = map(torch.tensor, best)


def critical_price(gains: Tensor, prices: Tensor, step: Tensor) -> Tensor:
    """The price at which the gain of going on falls to zero.

    Args:
        gains: `[N, P]`, gain of going on at each price; made non-increasing by taking the mean of
            its least non-increasing majorant and its largest non-increasing minorant.
        prices: `[P]`, increasing.
        step: Cost of the next step, the slope of the gain beyond both ends.

    Returns:
        `[N]`: interpolated where the gain changes sign within the prices, extrapolated beyond.
    """
    if torch.compiler.is_compiling():  # ONNX lacks cummin and cummax
        columns = gains.unbind(1)
        least = torch.stack([*accumulate(columns, torch.minimum)], 1)
        most = torch.stack([*accumulate(reversed(columns), torch.maximum)], 1)
    else:
        least, most = gains.cummin(1).values, gains.flip(1).cummax(1).values
    falling = 0.5 * (least + most.flip(1))
    left = ((falling > 0).sum(1, keepdim=True) - 1).clamp(0, len(prices) - 2)
    pair = left + torch.arange(2, device=left.device)
    above, below = falling.gather(1, pair).unbind(1)
    lower, upper = prices[pair].unbind(1)
    share = (above / (above - below).clamp_min(1e-12)).clamp(0, 1)
    beyond = falling[:, 0].clamp_max(0) + falling[:, -1].clamp_min(0)
    return torch.lerp(lower, upper, share) + beyond / step


def _show(evidence: Evidence) -> Tensor:
    """`[E, N, D + 3]`: the inputs at all exits, and the three uncertainties in their order."""
    inputs = torch.stack(along_exits(exit_inputs, evidence))
    return torch.cat([inputs, torch.stack(evidence[1:], -1)], -1)


def gain_at(
    price: float, gains: list[float], prices: list[float], step: float
) -> tuple[float, float]:
    """The gain of one sample at a price, which is positive exactly below its `critical_price`.

    Returns:
        The gain, and by how much it falls between the neighbouring prices.
    """
    inside = min(max(price, prices[0]), prices[-1])
    right = min(bisect_right(prices, inside), len(prices) - 1)
    least, most = min(gains[:right]), max(gains[right:])
    above = 0.5 * (least + max(gains[right - 1], most))
    below = 0.5 * (min(least, gains[right]) + most)
    share = (inside - prices[right - 1]) / (prices[right] - prices[right - 1])
    return above + share * (below - above) - step * (price - inside), above - below


def _scale(doubt: Any) -> Any:
    """What the gain of going on and its variance are roughly proportional to."""
    return doubt + 0.01
