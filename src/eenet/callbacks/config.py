"""The resolved config: saved into the run folder and logged."""

from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.cli import SaveConfigCallback

from eenet.files import write_text


class RunConfig(SaveConfigCallback):
    """Saves what `fit` was started with as `config.yaml` in the run folder, and logs it.

    The file is a valid `--config` for `fit`, `validate`, `test` and `predict` of the same run.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Saves and logs the config at the start of `fit` alone."""
        if stage != "fit" or self.already_saved or not trainer.is_global_zero:
            return
        self.already_saved = True
        text = self.parser.dump(self.config, skip_none=False)
        write_text(Path(trainer.default_root_dir) / "config.yaml", text)
        for logger in trainer.loggers:
            logger.log_hyperparams(_without_secrets(yaml.safe_load(text)))


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
