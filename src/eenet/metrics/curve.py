"""Quality against budget: what a policy reaches, spends and does at each of several budgets."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

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
    """`[M, E]`: mean quality of those that left there; NaN where nobody did."""
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
        sums.get("confusion"),
    )


class BudgetCurve(Metric):
    """`Curve` of a policy as a torchmetrics metric, exact over batches and processes.

    Args:
        budgets: Number of budgets M.
        exits: Number of exits E.
        classes: Number of classes C, where there are confusion counts to add up.

    Example:
        >>> metric = BudgetCurve(budgets=1, exits=2)
        >>> metric.update(torch.tensor([[0, 1]]), torch.tensor([1.0, 3.0]), torch.ones(2, 2))
        >>> metric.curve().cost
        tensor([2.], dtype=torch.float64)
    """

    full_state_update = False

    def __init__(self, budgets: int, exits: int, classes: int | None = None) -> None:
        super().__init__()
        self._shape = (budgets, exits)
        one = torch.zeros(exits, 1)  # a sample, for the shapes of its sums
        counts = None if classes is None else torch.zeros(exits, 1, classes, classes)
        sums = exit_sums(torch.zeros(budgets, 1, dtype=torch.int64), one, one, counts)
        for name, value in sums.items():
            self.add_state(f"sum_{name}", torch.zeros_like(value), dist_reduce_fx="sum")

    def update(
        self, exits: Tensor, costs: Tensor, quality: Tensor, confusion: Tensor | None = None
    ) -> None:
        """Adds a batch; the arguments are those of `exit_sums`."""
        for name, value in exit_sums(exits, costs, quality, confusion).items():
            setattr(self, f"sum_{name}", getattr(self, f"sum_{name}") + value)

    def curve(self) -> Curve:
        """What `compute` gives, with its dimensions: torchmetrics squeezes single numbers."""
        curve: Curve = self.compute()
        fields = [f.reshape(self._shape[: 1 + (i > 3)]) for i, f in enumerate(curve[:6])]
        return Curve._make([*fields, curve.confusion])

    def compute(self) -> Curve:
        """The curve over all batches."""
        sums: Any = {name.removeprefix("sum_"): x for name, x in self.metric_state.items()}
        return curve_from_sums(sums)
