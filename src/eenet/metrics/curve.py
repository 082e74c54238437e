"""Quality against budget: what a policy reaches, spends and does at each of several budgets."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from eenet.scheduling.thresholds import at_exits


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
    """`[M, E]`: mean quality of those that left there; NaN where nobody did."""


def exit_sums(exits: Tensor, costs: Tensor, quality: Tensor) -> dict[str, Tensor]:
    """The sums over samples that a `Curve` is made of.

    Args:
        exits: Where each sample leaves at each budget, `[M, N]`, int64.
        costs: `[E]` or `[E, N]`.
        quality: Quality of each exit's answer, `[E, N]`.

    Returns:
        "count" (scalar), and over the samples at each budget the sums of "cost", "cost_sq",
        "quality", "quality_sq" (`[M]`), "left" and "left_quality" (`[M, E]`), float64.
    """
    spent = at_exits(costs.double(), exits)
    reached = at_exits(quality.double(), exits)
    left = torch.zeros(len(exits), len(quality), dtype=torch.float64, device=exits.device)
    return {
        "count": torch.tensor(float(exits.shape[1]), dtype=torch.float64, device=exits.device),
        "cost": spent.sum(1),
        "cost_sq": spent.square().sum(1),
        "quality": reached.sum(1),
        "quality_sq": reached.square().sum(1),
        "left": left.scatter_add(1, exits, torch.ones_like(reached)),
        "left_quality": left.scatter_add(1, exits, reached),
    }


def curve_from_sums(sums: dict[str, Tensor]) -> Curve:
    """The `Curve` of the sums that `exit_sums` gives, added up over batches."""
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
    )


class BudgetCurve(Metric):
    """`Curve` of a policy as a torchmetrics metric, exact over batches and processes.

    Args:
        budgets: Number of budgets M.
        exits: Number of exits E.

    Example:
        >>> metric = BudgetCurve(budgets=1, exits=2)
        >>> metric.update(torch.tensor([[0, 1]]), torch.tensor([1.0, 3.0]), torch.ones(2, 2))
        >>> metric.curve().cost
        tensor([2.], dtype=torch.float64)
    """

    full_state_update = False

    def __init__(self, budgets: int, exits: int) -> None:
        super().__init__()
        shapes: dict[str, tuple[int, ...]] = {"count": ()}
        shapes |= dict.fromkeys(("cost", "cost_sq", "quality", "quality_sq"), (budgets,))
        shapes |= dict.fromkeys(("left", "left_quality"), (budgets, exits))
        self._shape = (budgets, exits)
        self._names = list(shapes)
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(f"sum_{name}", zeros, dist_reduce_fx="sum")

    def update(self, exits: Tensor, costs: Tensor, quality: Tensor) -> None:
        """Adds a batch; the arguments are those of `exit_sums`."""
        for name, value in exit_sums(exits, costs, quality).items():
            setattr(self, f"sum_{name}", getattr(self, f"sum_{name}") + value)

    def curve(self) -> Curve:
        """What `compute` gives, with its dimensions: torchmetrics squeezes single numbers."""
        curve: Curve = self.compute()
        per_budget = [field.reshape(self._shape[0]) for field in curve[:4]]
        return Curve(*per_budget, *(field.reshape(self._shape) for field in curve[4:]))

    def compute(self) -> Curve:
        """The curve over all batches."""
        return curve_from_sums({name: getattr(self, f"sum_{name}") for name in self._names})
