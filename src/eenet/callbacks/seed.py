"""Random numbers that depend on the seed and the epoch alone."""

import os

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback


class SeedEpochs(Callback):
    """Seeds torch anew at the start of every training epoch.

    Lightning saves no random state, so a resumed run would shuffle, augment and drop out
    differently from an uninterrupted one. With this, epoch n draws the same numbers in both.
    """

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seeds by (global seed, epoch, rank), before the epoch's first batch is drawn."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        entropy = np.random.SeedSequence((seed, trainer.current_epoch, trainer.global_rank))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
