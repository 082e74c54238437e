"""Checks that a checkpoint belongs to the module that loads it."""

from typing import Any

from lightning import LightningModule


def refuse_foreign_checkpoint(
    module: LightningModule, checkpoint: dict[str, Any], prefix: str
) -> None:
    """Refuses a checkpoint in which nothing lies under `prefix`.

    Raises:
        ValueError: If no key of the checkpoint's state starts with `prefix`.
    """
    if not any(key.startswith(prefix) for key in checkpoint["state_dict"]):
        found = sorted({key.split(".")[0] for key in checkpoint["state_dict"]})
        raise ValueError(
            f"ckpt_path: this checkpoint is not of {type(module).__name__}: it holds {found}, not "
            f"'{prefix}'. Give the checkpoint of the same stage."
        )
