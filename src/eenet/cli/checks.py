"""What `eenet pipeline` refuses before any folder is made or anything long begins."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jsonargparse import Namespace

from eenet.callbacks.wandb import check_online
from eenet.cli.lightning import reject_paths_outside_run, stage_parser
from eenet.models import narrow
from eenet.models.costs import count_macs
from eenet.outputs.exit_outputs import check_costs


def check_config(config: Namespace) -> None:
    """Refuses missing settings, infinite numbers, and settings with which no stage can end."""
    for name in ("stage1", "stage2"):
        stage = config[name]
        for part in ("trainer", "model", "data", "checkpoint"):
            if not isinstance(stage, Namespace) or not isinstance(stage.get(part), Namespace):
                raise ValueError(f"{name}.{part}: the config must describe it")
            if part in ("model", "data") and "class_path" not in stage[part]:
                raise ValueError(f"{name}.{part}.class_path is missing")
        for key, value in stage.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name}.{key}={value} must be a finite number")
        whole: dict[str, Any] = {"trainer.fast_dev_run": False, "checkpoint.filename": "best"}
        whole |= dict.fromkeys(("trainer.limit_predict_batches", "trainer.enable_checkpointing"))
        for key, wanted in whole.items():
            if stage[key] not in (wanted, wanted is None):
                value = f"{name}.{key}={stage[key]}"
                raise ValueError(f"{value} would leave the pipeline without the files it needs")
        reject_paths_outside_run(stage)
        for key in ("max_epochs", "max_steps"):
            if stage.trainer[key] == 0:
                raise ValueError(f"{name}.trainer.{key}=0: there is nothing to train")
    if config.stage1.checkpoint.save_top_k == 0:
        raise ValueError("stage1.checkpoint.save_top_k=0 saves no checkpoint")
    trainer = config.stage1.trainer
    epochs, every = trainer.max_epochs or -1, trainer.check_val_every_n_epoch or 0
    if trainer.limit_val_batches == 0 or 0 < epochs < every:
        raise ValueError(
            "stage1.trainer: limit_val_batches=0 or check_val_every_n_epoch above max_epochs "
            "leaves no validation, by which the best checkpoint is chosen"
        )


def check_stages(config: Namespace, todo: str) -> None:
    """Tries what would fail after hours: stages that do not fit together, budgets out of reach.

    Args:
        config: The pipeline's config.
        todo: What is missing of stage 1, as `StageRun.to_do` says.
    """
    with _errors_prefixed("stage2"):
        stage2 = stage_parser().instantiate(config.stage2)
    scheduler = stage2.model
    for name in ("stage1", "stage2") if todo else ("stage2",):
        with _errors_prefixed(name):
            check_online(config[name].trainer)
    if todo != "all":
        if not todo:
            _check_fit(stage2)
        return
    with _errors_prefixed("stage1"):
        stage1 = stage_parser().instantiate(config.stage1)
    module, data = stage1.model, stage1.data
    with _errors_prefixed("stage1.model.optimizer"):
        module.optimizer(module.parameters())
    with _errors_prefixed("stage1.data"):
        data.setup("fit")
        batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    with _errors_prefixed("stage1.model.net, on the data"):
        module.check_data(data)
        with torch.inference_mode():
            module.eval().answer(narrow(batch, torch.tensor([0])))
        macs = count_macs(module.net, batch[0])
    samples = len(data.val_dataloader().dataset)
    shortage = f"stage1.data: validation leaves {samples} samples to stage2.model.policies"
    with _errors_prefixed(shortage):
        scheduler.check_samples(samples)
    costs = config.stage2.data.init_args.get("costs")
    if costs != "ms":  # known only once it is measured
        vector = torch.tensor(costs if isinstance(costs, list) else macs, dtype=torch.float64)
        with _errors_prefixed("stage2.data.costs"):
            check_costs(vector, module.net.num_exits)
        with _errors_prefixed("stage2.model.budgets"):
            scheduler.resolve_budgets(vector)


def _check_fit(stage2: Any) -> None:
    """Tries the settings of stage 2 on the exit outputs that there are."""
    with _errors_prefixed("stage2.data"):
        outputs = stage2.data.outputs("fit")
    with _errors_prefixed("stage2.model.budgets"):
        stage2.model.resolve_budgets(outputs.mean_costs)
    with _errors_prefixed("stage2.model.policies"):
        stage2.model.check_samples(outputs.num_samples)


@contextmanager
def _errors_prefixed(key: str) -> Iterator[None]:
    """Turns whatever a part says of bad settings into an error that names the part."""
    try:
        yield
    except OSError as error:
        if error.filename:
            raise  # it names its file
        raise ValueError(f"{key}: {error}") from error
    except Exception as error:
        raise ValueError(f"{key}: {error}") from error
