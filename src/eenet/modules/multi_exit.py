"""Stage 1: training a multi-exit network."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from eenet.metrics import MeanIoU
from eenet.metrics.segmentation import confusion_counts, mean_iou
from eenet.models import MultiExitNetwork
from eenet.models.weights import take_up
from eenet.modules import losses
from eenet.modules.optim import StageModule, training_progress
from eenet.outputs.evidence import pool_pixels
from eenet.run_folder import trained_network
from eenet.stage_folder import StageFolder


class MultiExitModule(StageModule):
    """Trains all exits of a network together.

    The loss is the weighted cross-entropy of all exits, plus self-distillation from the last exit
    in the last part of the training (Ilhan et al. 2024, section 3.1). Logged per split: `loss`,
    `acc_exit_1` ... `acc_exit_E`, and `acc_mean`, their mean weighted as in the loss, by which the
    best checkpoint is chosen: a network is to be good at all of its exits.

    Args:
        net: The network.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.
        exit_weights: Weights of the exits' losses: "linear", "uniform", or one number per exit.
        distill_weight: Weight of the self-distillation (`alpha_KL`); 0 leaves it out.
        distill_temperature: Its temperature T.
        distill_from: It starts after this fraction of the training.
        start_from: Checkpoint of stage 1, or file of weights with the same names, whose network is
            loaded. Heads that it lacks or that are of another form start from scratch; with
            exits elsewhere all but the last.
        outputs_dtype: In what exit outputs are collected: "float16" halves the file, and rounds
            logits to 11 bits.
        heads_only: Train only the early heads. Stages and last head stay as they are, batch
            statistics and dropout included: the last exit remains the network one already has. A
            last head that is new, for other classes than the weights are for, is trained as well.
        last_exit_first: Until this fraction of the training only the last exit is trained, then
            all exits together: mixed training (Kubaty et al. 2025).
        partition: Fraction of the channels that each stage hands on without gradient, so that they
            serve only its exit: feature partitioning (Gong et al. 2024, DFS).

    Raises:
        ValueError: If a number is out of range, `start_from` fits no network like this, or what
            is frozen was never trained.
    """

    part = "net"
    weights: Tensor
    metric_name = "acc"
    ignore_index = -100

    def __init__(
        self,
        net: MultiExitNetwork,
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(
            p, lr=0.1, momentum=0.9, weight_decay=5e-4
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
        exit_weights: losses.ExitWeighting = "linear",
        distill_weight: float = 0.01,
        distill_temperature: float = 3.0,
        distill_from: float = 0.75,
        start_from: str | None = None,
        outputs_dtype: Literal["float32", "float16"] = "float32",
        heads_only: bool = False,
        last_exit_first: float = 0.0,
        partition: float = 0.0,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        names = ("distill_from", "last_exit_first", "partition")
        for name, x in zip(names, (distill_from, last_exit_first, partition), strict=True):
            if not 0 <= x <= 1:
                raise ValueError(f"{name}={x} must be a fraction from 0 to 1")
        if heads_only and last_exit_first:
            raise ValueError("last_exit_first trains what heads_only=true freezes: leave one out")
        if distill_weight < 0 or distill_temperature <= 0:
            raise ValueError(
                f"distill_weight={distill_weight} must be 0 or more and "
                f"distill_temperature={distill_temperature} positive"
            )
        self.net, net.partition = net, partition
        self.outputs_dtype: torch.dtype = getattr(torch, outputs_dtype)
        if heads_only and net.num_exits < 2:
            raise ValueError("heads_only=true: the network has no early exit")
        trained = net.trained
        if start_from is not None:
            taken = take_up(net, start_from)
            trained = any(name.startswith(f"heads.{net.num_exits - 1}.") for name in taken)
        if heads_only and not (trained or net.trained_stages):
            raise ValueError(
                "heads_only=true would keep a last exit that was never trained: give start_from, "
                "or a network with pretrained weights; a network of your own that has them says so "
                "by `self.trained = True`"
            )
        last = [net.heads[-1]] if trained else []
        self._frozen = [net.stages, *last] if heads_only else []
        for module in self._frozen:
            module.requires_grad_(False).eval()
        weights = losses.exit_weights(exit_weights, net.num_exits)
        self.register_buffer("weights", weights, persistent=False)
        self.distill_weight, self.distill_from = distill_weight, distill_from
        self.distill_temperature, self.last_exit_first = distill_temperature, last_exit_first
        self.metrics: Any = nn.ModuleDict()
        for split in ("train", "val", "test"):
            metrics = nn.ModuleList(self.metric() for _ in range(net.num_exits))
            self.metrics[f"{split}/{self.metric_name}"] = metrics

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **settings: Any) -> Self:
        """Lightning's; without `net` the config of the checkpoint's stage says which network."""
        if "net" not in settings:
            checkpoint = Path(checkpoint_path).absolute()
            stage = StageFolder(checkpoint.parents[1])
            settings["net"] = trained_network(stage, checkpoint)
        return super().load_from_checkpoint(checkpoint_path, *args, **settings)

    def setup(self, stage: str) -> None:
        """Refuses data that do not fit the network, before training does in its own words."""
        self.check_data(getattr(self.trainer, "datamodule", None))

    def check_data(self, data: Any) -> None:
        """Refuses a data module that has been set up but does not fit (`ValueError`)."""
        self.net.check_data(data)
        classes = getattr(data, "num_classes", self.net.num_classes)
        if classes != self.net.num_classes:
            raise ValueError(
                f"model.init_args.net.init_args.num_classes={self.net.num_classes}, but the data "
                f"have {classes} classes: {getattr(data, 'class_names', None) or 'unnamed'}"
            )

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, in which what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what builds the network without the files that it started from."""
        checkpoint["restore_args"] = self.net.restore_args

    def metric(self) -> Metric:
        """The metric that is logged for each exit, from predictions and targets."""
        return MulticlassAccuracy(self.net.num_classes, average="micro")

    def forward(self, x: Any) -> Tensor:
        """Logits `[E, B, C]` of all exits for a batch."""
        return self.net(x)  # type: ignore[no-any-return]

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> Tensor:
        """Loss of one training batch."""
        weights = self.weights
        if self.last_exit_first and training_progress(self.trainer) < self.last_exit_first:
            weights = torch.eye(len(weights), device=weights.device)[-1]
        logits, loss = self._shared_step(batch, "train", weights)
        if self.distill_weight and training_progress(self.trainer) >= self.distill_from:
            pull = losses.self_distillation(logits, weights, self.distill_temperature)
            loss = loss + self.distill_weight * pull
        return loss

    def validation_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:
        """Loss and accuracies of one validation batch."""
        self._shared_step(batch, "val", self.weights)

    def test_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:
        """Loss and accuracies of one test batch."""
        self._shared_step(batch, "test", self.weights)

    def on_validation_epoch_end(self) -> None:
        """Logs the mean over the exits."""
        self._log_mean("val")

    def on_test_epoch_end(self) -> None:
        """Logs the mean over the exits."""
        self._log_mean("test")

    def predict_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Returns `logits [B, E, C]` (`outputs_dtype`) and `labels [B]`, on the CPU."""
        logits, y = self.answer(batch, exactly=True)
        largest = torch.finfo(self.outputs_dtype).max
        logits = logits.float().clamp(-largest, largest).to(self.outputs_dtype)
        return {"logits": logits.transpose(0, 1).cpu(), "labels": y.cpu()}

    def answer(self, batch: Any, exactly: bool = False) -> tuple[Tensor, Tensor]:
        """Logits `[E, B, C, ...]` of a batch, and its labels as int64.

        Args:
            batch: A pair of inputs and labels, `[B]` or one for each pixel.
            exactly: As when serving: mixed precision rounds logits until scores tie.

        Raises:
            ValueError: If labels or logits are not as described.
        """
        if not (isinstance(batch, tuple | list) and len(batch) == 2 and torch.is_tensor(batch[1])):
            raise ValueError(
                f"data: a batch must be a pair of inputs and labels, got {type(batch).__name__}; "
                "samples without labels are answered by eenet.inference.AdaptivePredictor"
            )
        x, y = batch
        with torch.autocast(self.device.type, enabled=False) if exactly else nullcontext():
            logits: Tensor = self(x)
        shape, labels = tuple(logits.shape[1:]), tuple(y.shape)
        if y.is_floating_point() or len(shape) == len(labels) == 2:
            raise ValueError(
                f"data: labels must be one class index per sample, got {y.dtype} {labels}; "
                "regression and several labels per sample are not supported"
            )
        if shape[1] != self.net.num_classes or len(shape) != 1 + len(labels):
            pixels = ", height, width" if len(labels) > 1 else ""
            raise ValueError(
                f"net: a head must give logits [batch, {self.net.num_classes}{pixels}] for these "
                f"labels, got {list(shape)}"
            )
        return logits, y.long()

    def _shared_step(
        self, batch: tuple[Any, Tensor], split: str, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits, y = self.answer(batch)
        full = [losses.upsample_to_labels(z, y) for z in logits]
        train = split == "train"
        loss = losses.multi_exit_cross_entropy(full, y, weights, self.ignore_index)
        self.log(f"{split}/loss", loss, prog_bar=train, batch_size=len(y), sync_dist=not train)
        name = f"{split}/{self.metric_name}"
        for k, metric in enumerate(self.metrics[name]):
            # Not `argmax`, which takes four times as long on maps on a CPU.
            metric.update(full[k].detach().max(1).indices, y)
            self.log(f"{name}_exit_{k + 1}", metric, on_epoch=True, on_step=False)
        return logits, loss

    def _log_mean(self, split: str) -> None:
        name = f"{split}/{self.metric_name}"
        values = torch.stack([metric.compute() for metric in self.metrics[name]])
        mean = (values * self.weights).sum()
        self.log(f"{name}_mean", mean, prog_bar=split == "val", sync_dist=True)


class SegmentationModule(MultiExitModule):
    """The same for semantic segmentation: a class for every pixel, 255 where there is none.

    Logged is `miou` in place of `acc`, the mean IoU over the classes that the split's labels hold:
    give `val/miou_mean` to the checkpoint callback as its `monitor`.
    """

    metric_name = "miou"
    ignore_index = 255

    def metric(self) -> Metric:
        """The mean IoU of one exit."""
        return MeanIoU(self.net.num_classes, ignore_index=self.ignore_index, validate_args=False)

    def predict_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Returns the exits' pixels reduced to what is stored, on the CPU.

        Returns:
            `pooled [B, E, C + 3]` (see `pool_pixels`), `confusion [B, E, C, C]` (int32) and
            `quality [B, E]`, each image's own mean IoU (0 if it has no labelled pixel).
        """
        logits, y = self.answer(batch, exactly=True)
        answers = (losses.upsample_to_labels(z, y).max(1).indices for z in logits)
        confusion = torch.stack([confusion_counts(a, y, logits.shape[2]) for a in answers], dim=1)
        quality = mean_iou(confusion).nan_to_num(0.0).float()
        pooled = pool_pixels(logits).transpose(0, 1)
        return {"pooled": pooled.cpu(), "confusion": confusion.cpu(), "quality": quality.cpu()}
