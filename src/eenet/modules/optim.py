"""What both LightningModules share: optimizers, learning-rate schedules, whose checkpoints."""

import math
from typing import Any

import lightning as L
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Linear warm-up from zero, then a half cosine to zero, over all steps of the training.

    The number of steps is not typed in: `StageModule` takes it from the trainer.

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


class StageModule(L.LightningModule):
    """What the modules of both stages share: how they are optimised, what checkpoints they take.

    Args:
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer: `WarmupCosine` steps
            every batch over the trainer's estimated number of steps, Lightning's
            `ReduceLROnPlateau` brings the metric it monitors, anything else steps every epoch.
    """

    part: str
    """Name of the submodule that is fitted."""

    def __init__(
        self, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None
    ) -> None:
        super().__init__()
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler

    def configure_optimizers(self) -> Any:
        """The optimizer of what is to be fitted, and its schedule; None if there is nothing."""
        parameters = [p for p in getattr(self, self.part).parameters() if p.requires_grad]
        if not parameters:
            return None
        optimizer = self.optimizer(parameters)
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        config: dict[str, Any] = {"scheduler": scheduler, "interval": "epoch"}
        if isinstance(scheduler, WarmupCosine):
            scheduler.total_steps = int(self.trainer.estimated_stepping_batches)
            config["interval"] = "step"
        elif isinstance(scheduler, ReduceLROnPlateau):
            config["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": config}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses the checkpoint of the other stage, which holds nothing of this part."""
        if not any(key.startswith(f"{self.part}.") for key in checkpoint["state_dict"]):
            found = sorted({key.split(".")[0] for key in checkpoint["state_dict"]})
            raise ValueError(
                f"ckpt_path: this checkpoint is not of {type(self).__name__}: it holds {found}, "
                f"not {self.part!r}. Give the checkpoint of the same stage."
            )
