"""Callbacks that let a run be repeated and resumed: config, last checkpoint, random numbers."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from eenet.files import atomic, write_text
from eenet.modules.multi_exit import MultiExitModule
from eenet.seeding import epoch_seed
from eenet.stage_folder import portable


class RunConfig(SaveConfigCallback):
    """Saves what `fit` was started with as `config.yaml` in the run folder, and logs it.

    The file is a valid `--config` for `fit`, `validate`, `test` and `predict` of the same run.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Logs the config at the start of `fit`."""
        if stage == "fit" and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_hyperparams(_without_secrets(self._content(trainer)))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the config once training begins: a fit that is refused changes nothing."""
        if trainer.is_global_zero:
            text = yaml.safe_dump(self._content(trainer), sort_keys=False)
            write_text(Path(trainer.default_root_dir) / "config.yaml", text)

    def _content(self, trainer: L.Trainer) -> dict[str, Any]:
        content = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        return portable(content, Path(trainer.default_root_dir))


def _without_secrets(config: Any) -> Any:
    """The config without values under keys that name a credential."""
    if isinstance(config, dict):
        secret = ("key", "token", "secret", "password")
        return {
            name: "***" if value and str(name).lower().endswith(secret) else _without_secrets(value)
            for name, value in config.items()
        }
    if isinstance(config, list):
        return [_without_secrets(value) for value in config]
    return config


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place before it takes that place.

    Lightning's own writes to the system's temporary folder first, and a file that is moved from
    there to another file system, such as a cluster's shared one, can be interrupted.
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


class _MovableCheckpoint(ModelCheckpoint):
    """Lightning's, for a folder that may be moved in between.

    Lightning keeps absolute paths in its state and forgets the best score where they differ.
    """

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, with names of files in place of paths."""
        return _in_folder(super().state_dict(), "")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the files of that name in the present folder."""
        super().load_state_dict(_in_folder(state_dict, self.dirpath or ""))


def _in_folder(state: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """A checkpoint callback's state with all its files in another folder."""

    def moved(path: str) -> str:
        return os.path.join(folder, os.path.basename(path)) if path else path

    paths = {name: moved(state[name]) for name in state if name.endswith("_model_path")}
    models = {moved(path): score for path, score in state["best_k_models"].items()}
    return state | paths | {"best_k_models": models, "dirpath": str(folder)}


class BestCheckpoint(_MovableCheckpoint):
    """The checkpoint of the best epoch."""

    @property
    def state_key(self) -> str:
        """The key that runs of earlier versions have too."""
        return super().state_key.replace(type(self).__qualname__, "ModelCheckpoint", 1)


class LastCheckpoint(_MovableCheckpoint):
    """Writes `checkpoints/last.ckpt` in the run folder after every epoch of stage 1.

    Lightning's own `save_last` writes only when the monitored metric improved, so that a run cut
    off later would repeat the epochs since.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", enable_version_counter=False)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Finds the run folder; stage 2 takes seconds and restarts from scratch."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if not isinstance(pl_module, MultiExitModule):
            self.save_top_k = 0
        self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)


class SeedEpochs(Callback):
    """Seeds torch again for every training epoch.

    Lightning saves no random state, so a resumed run would augment and drop out differently from
    an uninterrupted one. With this, epoch n draws the same numbers in both. The order of the
    samples has a generator of its own, `eenet.data.batches.BatchSampler`.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seeds a resumed run, whose first epoch Lightning takes up without announcing it."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seeds an epoch before its first batch."""
        torch.manual_seed(epoch_seed(trainer.current_epoch, stream=1 + trainer.global_rank))
