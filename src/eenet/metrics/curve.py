"""Quality against budget: what a policy reaches, spends and does at each of several budgets."""

from typing import NamedTuple

import torch
from torch import Tensor

from eenet.policies.thresholds import at_exits


class Curve(NamedTuple):
    """Statistics of a policy at M budgets on N samples; every field is float64."""

    quality: Tensor
    """`[M]`: mean quality, the accuracy by default."""
    quality_se: Tensor
    """`[M]`: its standard error."""
    cost: Tensor
    """`[M]`: mean cost per sample."""
    cost_se: Tensor
    """`[M]`: its standard error."""
    shares: Tensor
    """`[M, E]`: share of the samples that left at each exit."""
    exit_quality: Tensor
    """`[M, E]`: mean quality of those that left there; NaN where none did."""
    confusion: Tensor | None = None
    """`[M, C, C]`: confusion counts of all answers, for segmentation."""


def exit_sums(
    exits: Tensor, costs: Tensor, quality: Tensor, confusion: Tensor | None = None
) -> dict[str, Tensor]:
    """The sums over samples that a `Curve` is made of.

    Args:
        exits: Where each sample leaves at each budget, `[M, N]`, int64.
        costs: `[E]` or `[E, N]`.
        quality: Quality of each exit's answer, `[E, N]`.
        confusion: Confusion counts of each answer, `[E, N, C, C]`.

    Returns:
        "count" (scalar), and over the samples at each budget the sums of "cost", "cost_sq",
        "quality", "quality_sq" (`[M]`), "left", "left_quality" (`[M, E]`) and, if it is given,
        "confusion" (`[M, C, C]`), float64.
    """
    spent = at_exits(costs.double(), exits)
    reached = at_exits(quality.double(), exits)
    left = torch.zeros(len(exits), len(quality), dtype=torch.float64, device=exits.device)
    sums = {
        "count": torch.tensor(float(exits.shape[1]), dtype=torch.float64, device=exits.device),
        "cost": spent.sum(1),
        "cost_sq": spent.square().sum(1),
        "quality": reached.sum(1),
        "quality_sq": reached.square().sum(1),
        "left": left.scatter_add(1, exits, torch.ones_like(reached)),
        "left_quality": left.scatter_add(1, exits, reached),
    }
    if confusion is not None:
        parts = [(exits == k).double() @ c.double().flatten(1) for k, c in enumerate(confusion)]
        sums["confusion"] = torch.stack(parts).sum(0).view(-1, *confusion.shape[2:])
    return sums


def curve_from_sums(sums: dict[str, Tensor]) -> Curve:
    """Computes the `Curve` of summed batches.

    Args:
        sums: What `exit_sums` returns, added up over batches.
    """
    n = sums["count"]

    def mean_and_error(name: str) -> tuple[Tensor, Tensor]:
        mean = sums[name] / n
        variance = (sums[name + "_sq"] / n - mean.square()).clamp_min(0)
        return mean, (variance / n).sqrt()

    return Curve(
        *mean_and_error("quality"),
        *mean_and_error("cost"),
        sums["left"] / n,
        sums["left_quality"] / sums["left"],
        sums.get("confusion"),
    )
