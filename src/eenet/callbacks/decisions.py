"""Where each sample leaves, written while `predict` runs."""

import csv
import io
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from eenet.files import write_text
from eenet.modules.scheduler import SchedulerModule


class WriteDecisions(Callback):
    """Writes `decisions.csv` into the run folder: a row for each sample, policy and budget.

    Acts on `SchedulerModule` alone. Exits count from 1; samples from 0, in the order of the file.
    """

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins at the position of this process's first sample."""
        if isinstance(pl_module, SchedulerModule):
            loader: Any = trainer.predict_dataloaders
            self._rows: list[tuple[Any, ...]] = []
            self._next: int = loader.sampler.start

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keeps the rows of a batch."""
        if not isinstance(pl_module, SchedulerModule):
            return
        for label, fields in outputs.items():
            for m, budget in enumerate(pl_module.budgets):
                columns = (field[m].tolist() for field in fields)
                for n, (exit_, *rest) in enumerate(zip(*columns, strict=True), start=self._next):
                    self._rows.append((n, label, budget, exit_ + 1, *rest))
        self._next += batch.quality.shape[1]

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the file, with the rows of all processes."""
        if not isinstance(pl_module, SchedulerModule):
            return
        parts = [self._rows]
        if trainer.world_size > 1:
            parts = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(parts, self._rows)
        if trainer.is_global_zero:
            rows = sorted((row for part in parts for row in part), key=lambda row: row[0])
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["sample", "policy", "budget", "exit", "prediction", "cost"])
            writer.writerows(rows)
            write_text(Path(trainer.default_root_dir) / "decisions.csv", text.getvalue())
