"""Seeds augmentation and dropout by the epoch."""

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from eenet.seeding import epoch_seed


class SeedEpochs(Callback):
    """Seeds torch anew for every training epoch.

    Lightning saves no random state, so a resumed run would augment and drop out differently from
    an uninterrupted one. With this, epoch n draws the same numbers in both. The order of the
    samples has a generator of its own, `eenet.data.batches.Batches`.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seeds a resumed run, whose first epoch Lightning takes up without announcing it."""
        _seed(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seeds an epoch before its first batch."""
        _seed(trainer)


def _seed(trainer: L.Trainer) -> None:
    torch.manual_seed(epoch_seed(trainer.current_epoch, stream=1 + trainer.global_rank))
