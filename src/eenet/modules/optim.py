"""Learning-rate schedules, and how both LightningModules hand them to Lightning."""

import math
from typing import Any

import lightning as L
from lightning.pytorch.cli import LRSchedulerCallable, ReduceLROnPlateau
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Linear warm-up from zero, then a half cosine to zero, over all steps of the training.

    The number of steps is not typed in: `optimizers_for` takes it from the trainer.

    Args:
        optimizer: The optimizer.
        warmup: Fraction of the steps that warm up, in [0, 1).

    Raises:
        ValueError: If `warmup` is outside [0, 1).
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.1) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup={warmup} must be a fraction of the training in [0, 1)")
        self.warmup = warmup
        self.total_steps = 1
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Factor of the base learning rate at `step`."""
        progress = (step + 1) / (self.total_steps + 1)
        if progress < self.warmup:
            return progress / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))


def optimizers_for(
    module: L.LightningModule, optimizer: Optimizer, lr_scheduler: LRSchedulerCallable | None
) -> Any:
    """What `configure_optimizers` returns for an optimizer and an optional schedule.

    `WarmupCosine` steps every batch over the trainer's estimated number of steps, Lightning's
    `ReduceLROnPlateau` brings the metric it monitors, anything else steps every epoch.
    """
    if lr_scheduler is None:
        return optimizer
    scheduler = lr_scheduler(optimizer)
    config: dict[str, Any] = {"scheduler": scheduler, "interval": "epoch"}
    if isinstance(scheduler, WarmupCosine):
        scheduler.total_steps = int(module.trainer.estimated_stepping_batches)
        config["interval"] = "step"
    elif isinstance(scheduler, ReduceLROnPlateau):
        config["monitor"] = scheduler.monitor
    return {"optimizer": optimizer, "lr_scheduler": config}
