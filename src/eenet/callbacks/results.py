"""What stage 2 leaves: where each sample leaves, and the curve as table, figure and in W&B."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from rich.table import Table

from eenet.callbacks.wandb import link_outputs, log_curve
from eenet.files import write_text
from eenet.modules.scheduler import SchedulerModule
from eenet.plotting.rows import curve_rows, print_table, rich_table, to_csv
from eenet.plotting.style import plot_curves, save_figure


class WriteDecisions(Callback):
    """Writes `decisions.csv` into the run folder: a row for each sample, policy and budget.

    Active only for `SchedulerModule`. Exits count from 1; samples from 0, in the order of the file.
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


class CurveReport(Callback):
    """Writes `curve.csv`, `curve.json` and `curve.png` into the run folder, and logs them.

    Active only for `SchedulerModule`, after `test`.
    """

    table: Table | None = None
    """The table that `show` prints."""

    def show(self) -> None:
        """Prints the curves as a table, once the progress bars are gone."""
        if self.table is not None:
            print_table(self.table)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes and logs the curves."""
        if not isinstance(pl_module, SchedulerModule) or not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        outputs = data.outputs("test")
        full_cost = float(outputs.mean_costs[-1])
        exit_costs = (outputs.mean_costs / full_cost).tolist()
        exit_quality = outputs.answer_quality().double().mean(1).tolist()
        budgets = pl_module.relative_budgets(full_cost)
        measured = json.loads(outputs.metadata.get("measured_costs", "{}"))
        rows = curve_rows(
            pl_module.results(), pl_module.rules, budgets, full_cost, exit_quality[-1], measured
        )

        folder = Path(trainer.default_root_dir)
        measure = outputs.measure
        figure = plot_curves(rows, exit_costs, exit_quality, measure)
        summary = {
            "samples": outputs.num_samples,
            "cost_unit": outputs.metadata.get("cost_unit", "given"),
            "exit_costs": outputs.mean_costs.tolist(),
            "exit_quality": exit_quality,
            "rows": rows,
        }
        write_text(folder / "curve.csv", to_csv(rows))
        write_text(folder / "curve.json", json.dumps(summary, indent=1) + "\n")
        save_figure(figure, folder / "curve.png")
        self.table = rich_table(rows, exit_quality[-1], measure)
        paths = [Path(path) for path in data.paths.values() if path]
        link_outputs(trainer.loggers, paths, used=True)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                log_curve(logger, rows, folder, outputs)
