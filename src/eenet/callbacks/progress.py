"""How far a training is, where no progress bar shows it."""

import sys
import time

import lightning as L
from lightning.pytorch.callbacks import Callback

from eenet.modules.multi_exit import MultiExitModule


class EpochLines(Callback):
    """Prints a line for each epoch of stage 1 where the output is not a terminal."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock, at the first epoch or the one that a run resumes with."""
        self._first, self._begun = trainer.current_epoch, time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints the epoch, the loss, the validation metric of each exit and the minutes left."""
        if not isinstance(pl_module, MultiExitModule) or sys.stdout.isatty():
            return
        found, done, total = trainer.callback_metrics, trainer.current_epoch + 1, trainer.max_epochs
        name = f"val/{pl_module.metric_name}_exit_"
        exits = [f"{100 * float(x):.1f}" for key, x in found.items() if key.startswith(name)]
        words = [f"epoch {done}" + (f"/{total}" if (total or -1) > 0 else "")]
        words += [f"loss {float(found['train/loss']):.3f}"] if "train/loss" in found else []
        words += [f"val {pl_module.metric_name} by exit {' '.join(exits)}%"] if exits else []
        if total and total > 0:
            each = (time.monotonic() - self._begun) / (done - self._first)
            words.append(f"{each * (total - done) / 60:.1f} min left")
        if trainer.is_global_zero:
            print("  ".join(words), flush=True)
