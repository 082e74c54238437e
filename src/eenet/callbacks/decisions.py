"""Where each sample leaves, written while `predict` runs."""

import csv
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from eenet.files import atomic
from eenet.modules.scheduler import SchedulerModule


class WriteDecisions(Callback):
    """Writes `decisions.csv` into the run folder: a row for each sample, policy and budget.

    Acts on `SchedulerModule` alone. Exits count from 1; samples from 0, in the order of the file.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._seen = 0  # position of the next sample

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the rows of a batch."""
        if not isinstance(pl_module, SchedulerModule):
            return
        if batch_idx == 0:
            loader: Any = trainer.predict_dataloaders
            self._rows, self._seen = [], loader.sampler.start
        for label, fields in outputs.items():
            for budget, *columns in zip(
                pl_module.budgets, *(f.tolist() for f in fields), strict=True
            ):
                for n, values in enumerate(zip(*columns, strict=True)):
                    exit_, *rest = values
                    self._rows.append((self._seen + n, label, budget, exit_ + 1, *rest))
        self._seen += batch.quality.shape[1]

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the file, with the rows of all processes."""
        if not isinstance(pl_module, SchedulerModule):
            return
        parts = [self._rows]
        if trainer.world_size > 1:
            parts = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(parts, self._rows)
        if trainer.is_global_zero:
            with (
                atomic(Path(trainer.default_root_dir) / "decisions.csv") as temporary,
                temporary.open("w", newline="") as file,
            ):
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["sample", "policy", "budget", "exit", "prediction", "cost"])
                rows = [row for part in parts for row in part]
                rows.sort(key=lambda row: row[0])
                writer.writerows(rows)
