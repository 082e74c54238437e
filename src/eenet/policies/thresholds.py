"""From scores and a budget to exit thresholds, and from thresholds to exits."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from eenet.outputs.exit_outputs import mean_costs

ROUNDING = 1e-9
"""Relative error that sums of costs may have by rounding, which breaks no budget."""
_LEAST_SHARE = 1e-12
"""Share that every exit has, so that each budget can be met by tilting."""


def first_exit(scores: Tensor, thresholds: Tensor) -> Tensor:
    """Where each sample leaves: the first exit whose threshold its score reaches, or the last.

    Args:
        scores: `[E, N]`.
        thresholds: `[E]`.

    Returns:
        Exits `[N]`, int64, from 0.
    """
    leaves = scores >= thresholds[:, None]
    leaves[-1] = True
    return leaves.int().argmax(0)


def at_exits(values: Tensor, exits: Tensor) -> Tensor:
    """Picks each sample's value (cost, quality) at the exit where it leaves.

    Args:
        values: `[E]`, or `[E, N]` where they depend on the sample.
        exits: `[N]` or `[M, N]`, int64; the result has this shape.
    """
    if values.dim() == 1:
        return values[exits]
    return values.gather(0, exits if exits.dim() == 2 else exits[None]).view_as(exits)


def tilt(shares: Tensor, strength: float) -> Tensor:
    """Moves an exit distribution towards early or late exits: `P_k rho^k`, normalized.

    From uniform shares this is the geometric distribution of BranchyNet's and MSDNet's budgeted
    evaluation (Huang et al. 2018, section 4.2).

    Args:
        shares: `[E]`, non-negative, not all zero.
        strength: `log rho`; negative moves towards early exits.
    """
    steps = torch.arange(len(shares), dtype=torch.float64)
    return torch.softmax(shares.double().log() + strength * steps, dim=0)


def quota_thresholds(scores: Tensor, shares: Tensor) -> Tensor:
    """Thresholds that let the wanted share of samples leave at each exit.

    At each exit in turn the highest scores of those still there leave (Ilhan et al. 2024,
    section 3.3). Thresholds lie midway between neighboring scores, so that the last bits of a
    score do not decide. Where many scores tie, the nearest possible number leaves, and the later
    exits make up for it.

    Args:
        scores: `[E, N]` of the samples to calibrate on.
        shares: `[E]`, the wanted exit distribution.

    Returns:
        `[E]` float32; `inf` where no sample leaves, the last one `-inf`.
    """
    exits, samples = scores.shape
    wanted = _quotas(shares, samples)
    thresholds = torch.full((exits,), -math.inf, device=scores.device)
    staying = torch.ones(samples, dtype=torch.bool, device=scores.device)
    for k in range(exits - 1):
        left = samples - int(staying.sum())
        thresholds[k] = _cut(scores[k][staying], max(int(wanted[k]) - left, 0))
        staying &= scores[k] < thresholds[k]
    return thresholds


def _quotas(shares: Tensor, samples: int) -> Tensor:
    """How many samples leave at each exit or before, `[E]` int64."""
    return (shares.double().cumsum(0) * samples).round().long()


def _cut(scores: Tensor, count: int) -> float:
    """The threshold that the `count` highest of `scores` reach, or the nearest possible number."""
    if count <= 0:
        return math.inf
    if count >= len(scores):
        return -math.inf
    ordered = scores.sort(descending=True).values
    lowest, below = float(ordered[count - 1]), float(ordered[count])
    if lowest == below:  # a tie across the cut: all of it leaves, or none
        above = int((ordered > lowest).sum())
        with_tie = int((ordered >= lowest).sum())
        count = above if count - above < with_tie - count else with_tie
        return _cut(scores, count)
    middle = torch.tensor(0.5 * lowest + 0.5 * below, dtype=scores.dtype).item()
    return middle if below < middle else lowest


def budget_thresholds(scores: Tensor, costs: Tensor, shares: Tensor, budget: float) -> Tensor:
    """Thresholds `[E]` whose exit distribution is `shares`, tilted until it meets the budget.

    On the samples themselves the budget is never exceeded, however numbers are rounded and
    whichever scores tie.

    Args:
        scores: `[E, N]` of the samples to calibrate on.
        costs: `[E]` or `[E, N]`.
        shares: `[E]`, the exit distribution to start from.
        budget: Average cost to meet, in the unit of `costs`; checked.
    """
    alike = costs.dim() == 1 or bool((costs == costs[:, :1]).all())
    samples, means = scores.shape[1], mean_costs(costs).cpu()
    budget = check_budget(budget, means)
    shares = shares.cpu().double().clamp_min(_LEAST_SHARE)

    def thresholds(strength: float) -> Tensor:
        return quota_thresholds(scores, tilt(shares, strength))

    def spent(strength: float) -> float:
        return float(at_exits(costs, first_exit(scores, thresholds(strength))).double().mean())

    def ideal(strength: float) -> float:
        return float((tilt(shares, strength) * means).sum())

    def rounded(strength: float) -> float:  # what is spent where all samples cost the same
        staying = 1 - _quotas(tilt(shares, strength), samples)[:-1].double() / samples
        return float(means[0] + (staying * means.diff()).sum())

    most = budget * (1 + ROUNDING)
    strength = solve_budget(ideal, budget)
    if rounded(strength) > most:
        strength = solve_budget(rounded, most)
    least = budget - float(means[-1] - means[0]) / samples
    if not (alike and least <= spent(strength) <= most):  # only trying tells, and where scores tie
        strength = solve_budget(spent, most)
    return thresholds(strength)


def solve_budget(cost: Callable[[float], float], budget: float) -> float:
    """The largest strength, by bisection, whose non-decreasing `cost` is within the budget."""
    low, high = -60.0, 60.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        if cost(middle) <= budget:
            low = middle
        else:
            high = middle
    return low


def check_budget(budget: float, costs: Tensor) -> float:
    """Checks that an average cost per sample can be met and spent by exits of costs `[E]`.

    Returns:
        The budget, moved into the range where it lies outside by no more than rounding.

    Raises:
        ValueError: If it lies below the first exit's cost or above the last one's.
    """
    low, high = float(costs[0]), float(costs[-1])
    if not low * (1 - 1e-6) <= budget <= high * (1 + 1e-6):
        fractions = "" if high == 1 else f" (as fractions: {low / high:.3f} to 1)"
        raise ValueError(
            f"budget={budget:g} cannot be met: it must lie between {low:.4g}, the cost of the "
            f"first exit, and {high:.4g}, that of the full network{fractions}"
        )
    return min(max(budget, low), high)
