"""Numbers of a quality-vs-cost curve, and whether two curves differ."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eenet.outputs import ExitOutputs
from eenet.outputs.exit_outputs import mean_costs


def quality_at(cost: Tensor, quality: Tensor, budgets: Tensor) -> Tensor:
    """Quality that a curve reaches at budgets, between its points by drawing between the two.

    Args:
        cost: `[M]`, mean cost of each point, in any order.
        quality: `[M]`, its mean quality; or `[M, N]`, that of each sample, by which the paired
            samples of two policies are brought to the same cost.
        budgets: `[B]`, in the unit of `cost`.

    Returns:
        `[B]` or `[B, N]` float64: linear between the points, constant beyond the most expensive one
        (a budget is a ceiling), NaN below the cheapest one.
    """
    cost, quality = _sorted(cost, quality)
    budgets = budgets.double()
    right = torch.searchsorted(cost, budgets, right=True).clamp(max=len(cost) - 1)
    left = (right - 1).clamp_min(0)
    width = (cost[right] - cost[left]).clamp_min(torch.finfo(torch.float64).tiny)
    share = ((budgets - cost[left]) / width).clamp(0, 1)
    share = torch.where(budgets < cost[0] * (1 - 1e-12), torch.nan, share)  # not by rounding
    return torch.lerp(quality[left], quality[right], share.reshape(-1, *[1] * (quality.dim() - 1)))


def mean_at(curves: Sequence[tuple[Tensor, Tensor]], budgets: Tensor) -> Tensor:
    """The mean of several networks' curves (cost and quality, as above) at budgets, `[B]`."""
    return torch.stack([quality_at(*curve, budgets) for curve in curves]).mean(0)


def relative(outputs: ExitOutputs) -> tuple[Tensor, Tensor]:
    """Costs as fractions of the full network's `[E(, N)]`, and quality `[E, N]`, in float64."""
    return outputs.relative_costs, outputs.answer_quality().double()


def exit_means(networks: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean cost and quality of each exit, `[E]`, over networks, given by `relative`."""
    costs = torch.stack([mean_costs(costs) for costs, _ in networks])
    return costs.mean(0), torch.stack([q.mean(1) for _, q in networks]).mean(0)


def budget_at(cost: Tensor, quality: Tensor, wanted: Tensor) -> Tensor:
    """The least cost at which a curve reaches a quality.

    Args:
        cost: `[M]`, as for `quality_at`.
        quality: `[M]`.
        wanted: `[W]`, qualities to reach.

    Returns:
        `[W]` float64, linear between the points; `inf` where the curve stays below.
    """
    cost, quality = _sorted(cost, quality)
    wanted = wanted.double()
    quality = quality.nan_to_num(nan=-1e9)  # what `quality_at` gives below a curve's first point
    reached = quality.cummax(0).values
    right = torch.searchsorted(reached, wanted)
    last = right.clamp(max=len(cost) - 1)
    left = (last - 1).clamp_min(0)
    rise = (quality[last] - quality[left]).clamp_min(torch.finfo(torch.float64).tiny)
    share = ((wanted - quality[left]) / rise).clamp(0, 1)
    found = torch.where(right == 0, cost[0], torch.lerp(cost[left], cost[last], share))
    return torch.where(right == len(cost), torch.inf, found)


def area(cost: Tensor, quality: Tensor, low: float, high: float) -> float:
    """Mean quality over the budgets from `low` to `high`: the area under the curve, normalized.

    Args:
        cost: `[M]`, as for `quality_at`.
        quality: `[M]`.
        low: Least budget; NaN comes out where the curve starts above it.
        high: Largest budget.
    """
    if not low < high:
        raise ValueError(f"low={low:g} must be below high={high:g}")
    ends = torch.tensor([low, high], dtype=torch.float64)
    inner = cost.double()[(cost > low) & (cost < high)]
    knots = torch.cat([ends, inner]).sort().values
    return float(torch.trapezoid(quality_at(cost, quality, knots), knots) / (high - low))


class Difference(NamedTuple):
    """Mean difference of two policies at M budgets and its interval, each `[M]` float64."""

    mean: Tensor
    low: Tensor
    high: Tensor


def paired_difference(
    first: Tensor, second: Tensor, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Difference:
    """Paired bootstrap intervals, simultaneous over the budgets (max-t).

    The largest studentised deviation over the budgets is resampled, so that all M intervals
    together cover with probability `level` (Westfall and Young 1993; Efron and Tibshirani 1993,
    chapter 12). Samples are drawn whole, so the pairing and the dependence between budgets stay.

    Args:
        first: `[M, N]`, quality of each sample's answer under one policy at each budget.
        second: `[M, N]`, under the other.
        level: Coverage.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.
    """
    if first.shape != second.shape or first.dim() != 2:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"first and second must both be [budgets, samples], got {shapes}")
    difference = first.double() - second.double()
    count = difference.shape[1]
    mean = difference.mean(1)
    error = difference.std(1, correction=0) / count**0.5
    centered = (difference - mean[:, None]).T.float()
    generator = torch.Generator().manual_seed(seed)
    largest = torch.empty(resamples, dtype=torch.float64)
    for r in range(resamples):
        drawn = torch.randint(count, (count,), generator=generator)
        weights = torch.bincount(drawn, minlength=count).to(centered)
        deviation = (weights @ centered).double() / count
        # Where the two policies never differ the error is zero, and so is every deviation.
        largest[r] = (deviation.abs() / error.clamp_min(1e-12)).max()
    reach = largest.quantile(level) * error
    return Difference(mean, mean - reach, mean + reach)


def _sorted(cost: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
    if cost.shape != quality.shape[:1] or not len(cost):
        shapes = f"{tuple(cost.shape)} and {tuple(quality.shape)}"
        raise ValueError(f"cost and quality must both be [points], got {shapes}")
    order = cost.argsort(stable=True)
    return cost[order].double(), quality[order].double()
