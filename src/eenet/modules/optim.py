"""What both LightningModules share: optimizers, learning-rate schedules, length of training."""

import math
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, OneCycleLR


def training_progress(trainer: L.Trainer) -> float:
    """Fraction of the training that is over, in [0, 1].

    By optimizer steps where their number is known, else by epochs; by time only where nothing but
    `max_time` ends the training, since the result then depends on the machine's speed.

    Raises:
        ValueError: If nothing ends the training.
    """
    steps = _known_steps(trainer)
    if math.isfinite(steps):
        return trainer.global_step / steps
    if (trainer.max_epochs or -1) > 0:
        return trainer.current_epoch / (trainer.max_epochs or 1)
    for timer in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(timer, Timer) and (remaining := timer.time_remaining()) is not None:
            elapsed = timer.time_elapsed()
            progress = elapsed / (elapsed + max(0.0, remaining))
            return float(trainer.strategy.broadcast(progress))  # processes may not differ
    raise ValueError(
        "trainer.max_epochs=-1: nothing ends this training, and self-distillation and learning-"
        "rate schedules depend on its length; give max_epochs, max_steps or max_time"
    )


def _known_steps(trainer: L.Trainer) -> float:
    """Optimizer steps of the whole training, infinite if they are not known in advance."""
    try:
        steps = trainer.estimated_stepping_batches
    except MisconfigurationException:  # other epochs accumulate gradients of more batches
        return math.inf
    return steps if steps >= 0 else math.inf  # -1: the data have no length


class WarmupCosine(LambdaLR):
    """Linear warm-up from zero, then a half cosine to zero, over all steps of the training.

    The number of steps is not a setting: `StageModule` takes it from the trainer.

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
        self.total_steps = 1.0
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Factor of the base learning rate at `step`."""
        progress = (step + 1) / (self.total_steps + 1)
        if progress < self.warmup:
            return progress / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))


def parameter_group(module: nn.Module, rate: float) -> list[dict[str, Any]]:
    """The trainable parameters of a module as a group, if there are any."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [{"params": parameters, "rate": rate}] if parameters else []


class StageModule(L.LightningModule):
    """Base of the modules of both stages: how they are optimized, which checkpoints they take.

    Args:
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer. `WarmupCosine`,
            `OneCycleLR` and `CyclicLR` step every batch, Lightning's `ReduceLROnPlateau` on the
            metric that it monitors, all others every epoch.
    """

    part: str
    """Name of the submodule that is fitted."""
    lr: float | None = None
    """Learning rate instead of the optimizer's; Lightning's `Tuner.lr_find` sets it."""

    def __init__(
        self, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None
    ) -> None:
        super().__init__()
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler

    def configure_optimizers(self) -> Any:
        """The optimizer of what is to be fitted, and its schedule; None if there is nothing."""
        groups = self.parameter_groups()
        if not groups:
            return None
        optimizer = self.optimizer(groups)
        for group in optimizer.param_groups:
            group["lr"] = (group["lr"] if self.lr is None else self.lr) * group["rate"]
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        config: dict[str, Any] = {"scheduler": scheduler, "interval": "epoch", "name": "train/lr"}
        if isinstance(scheduler, WarmupCosine | OneCycleLR | CyclicLR):
            config["interval"] = "step"
            self._fit_to_training(scheduler)
        elif isinstance(scheduler, ReduceLROnPlateau):
            config["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": config}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters to fit, in groups with a factor "rate" of the learning rate each."""
        return parameter_group(getattr(self, self.part), 1.0)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Steps a schedule, after a look at how long the training is now."""
        self._fit_to_training(scheduler)
        super().lr_scheduler_step(scheduler, metric)

    def _fit_to_training(self, scheduler: Any) -> None:
        """Tells a schedule the length of the training, or refuses one that is shorter."""
        steps = _known_steps(self.trainer)
        if isinstance(scheduler, OneCycleLR) and scheduler.total_steps < steps < math.inf:
            raise ValueError(
                f"lr_scheduler: OneCycleLR has total_steps={scheduler.total_steps}, but the "
                f"training takes {steps}"
            )
        if not isinstance(scheduler, WarmupCosine):
            return
        progress = training_progress(self.trainer)
        if not math.isfinite(steps):
            if (self.trainer.max_epochs or -1) > 0:
                raise ValueError(
                    "lr_scheduler: WarmupCosine needs the number of steps, which these data and "
                    "this trainer do not tell; give trainer.max_steps"
                )
            steps = self.trainer.global_step / progress if progress else math.inf
        scheduler.total_steps = steps

    def on_train_batch_end(self, *_: Any) -> None:
        """Ends a training of `max_steps` with a validation too, by which checkpoints are chosen."""
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses the checkpoint of the other stage, which holds nothing of this part."""
        if not any(key.startswith(f"{self.part}.") for key in checkpoint["state_dict"]):
            found = sorted({key.split(".")[0] for key in checkpoint["state_dict"]})
            raise ValueError(
                f"ckpt_path: this checkpoint is not of {type(self).__name__}: it holds {found}, "
                f"not {self.part!r}. Give the checkpoint of the same stage."
            )
