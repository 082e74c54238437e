"""The checkpoint to go on from."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from eenet.files import atomic
from eenet.modules.multi_exit import MultiExitModule


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place before it takes that place.

    Lightning's own writes to the system's temporary folder first, and a file that is moved from
    there to another file system, such as a cluster's shared one, can be cut off on its way.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Saves a checkpoint; `path` may be a URL, which Lightning's own way serves."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with atomic(path) as temporary:
            torch.save(checkpoint, temporary)


class LastCheckpoint(ModelCheckpoint):
    """Writes `checkpoints/last.ckpt` in the run folder after every epoch of stage 1.

    Lightning's own `save_last` writes only when the monitored metric improved, so that a run cut
    off later would repeat the epochs since.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", enable_version_counter=False)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Finds the run folder; stage 2 takes seconds and starts anew."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if not isinstance(pl_module, MultiExitModule):
            self.save_top_k = 0
        self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)
