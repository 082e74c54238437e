"""Metrics that add up over batches and processes, by torchmetrics (which is slow to import)."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from eenet.metrics.curve import Curve, curve_from_sums, exit_sums
from eenet.metrics.segmentation import mean_iou


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
        """The result of `compute` with its dimensions: torchmetrics squeezes single numbers."""
        curve: Curve = self.compute()
        fields = [f.reshape(self._shape[: 1 + (i > 3)]) for i, f in enumerate(curve[:6])]
        return Curve._make([*fields, curve.confusion])

    def compute(self) -> Curve:
        """The curve over all batches."""
        sums: Any = {name.removeprefix("sum_"): x for name, x in self.metric_state.items()}
        return curve_from_sums(sums)


class MeanIoU(MulticlassConfusionMatrix):
    """`mean_iou` of all pixels seen: torchmetrics' confusion counts, exact over processes."""

    def compute(self) -> Tensor:
        """The mean IoU, a scalar."""
        return mean_iou(self.confmat).float()
