"""The checkpoint to go on from."""

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from eenet.modules.multi_exit import MultiExitModule


class LastCheckpoint(ModelCheckpoint):
    """Writes `checkpoints/last.ckpt` in the run folder after every epoch of stage 1.

    Lightning's own `save_last` writes only when the monitored metric improved, so that a run cut
    off later would repeat the epochs since.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", enable_version_counter=False)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Finds the run folder; stage 2 takes seconds and starts anew."""
        if not isinstance(pl_module, MultiExitModule):
            self.save_top_k = 0
        self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)
