"""Lightning's CLI with eenet's defaults, for the config of either stage."""

import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from eenet import data, models, modules, policies
from eenet.callbacks.collect import CollectOutputs
from eenet.callbacks.progress import EpochLines
from eenet.callbacks.reproducibility import BestCheckpoint, LastCheckpoint, RunConfig, SeedEpochs
from eenet.callbacks.results import CurveReport, WriteDecisions
from eenet.callbacks.wandb import check_online, drop_anonymous, name_trial_run, wandb_loggers
from eenet.cli.merging import merge_no_init_args
from eenet.stage_folder import StageFolder, locate, loggers_of

merge_no_init_args()
# A class may be named without its package: jsonargparse looks among those that are imported.
for _package in (data, models, modules, policies):
    for _name in _package.__all__:
        getattr(_package, _name)

STRICT: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
"""A parser raises what is wrong, and takes the beginning of an option for a mistake."""

_WHAT = {
    "fit": "Train a network (stage 1), or fit policies on exit outputs (stage 2).",
    "validate": "Compute the validation metrics of a stage's best checkpoint.",
    "test": "Compute the test metrics of a network, or the curve of fitted policies.",
    "predict": "Write the exit outputs of a network, or where each sample leaves. To get answers "
    "for images or texts from a finished pipeline: eenet predict RUN_DIR.",
}
"""What the subcommands do."""


class EENetCLI(LightningCLI):
    """LightningCLI with eenet's defaults: everything a run writes lies in one folder.

    The folder is `trainer.default_root_dir`: the resolved config, `checkpoints/best.ckpt` and
    `checkpoints/last.ckpt`, and what the loggers write. `validate`, `test` and `predict` take the
    folder's best checkpoint unless `--ckpt_path` names another.

    Args:
        args: Arguments instead of the process's own.
        run: Whether the first argument is a subcommand to run.
    """

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        self.curve_report = CurveReport()
        kinds = (SeedEpochs, LastCheckpoint, CollectOutputs, WriteDecisions, EpochLines)
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={"callbacks": [self.curve_report, *(kind() for kind in kinds)]},
            parser_kwargs=STRICT | {x: STRICT | {"description": y} for x, y in _WHAT.items()},
            args=args,
            run=run,
        )

    @staticmethod
    def add_arguments_to_parser(parser: LightningArgumentParser) -> None:
        """Adds the checkpoint callback, whose settings are part of the config."""
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "trainer.default_root_dir": "runs/latest",
                "checkpoint.monitor": "val/acc_mean",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
            }
        )

    def instantiate_trainer(self, **changes: Any) -> Trainer:
        """Makes the trainer: no bars in a file, no summary of layers, the learning rate for W&B."""
        config = (self.config[self.subcommand] if self.subcommand else self.config).trainer
        own_bar = "ProgressBar" in str(config.callbacks)
        if config.enable_progress_bar is None and not (own_bar or sys.stdout.isatty()):
            changes["enable_progress_bar"] = False
        if config.enable_model_summary is None:
            changes["enable_model_summary"] = False  # it counts no FLOPs; the report has exits
        if wandb_loggers(config):
            self.trainer_defaults["callbacks"].append(LearningRateMonitor("epoch"))
        trainer = super().instantiate_trainer(**changes)
        drop_anonymous(trainer.loggers)
        return trainer

    def after_test(self) -> None:
        """Prints the curve, below the progress bars."""
        self.curve_report.show()

    def before_instantiate_classes(self) -> None:
        """Puts checkpoints and logs into the run folder and finds the checkpoint to evaluate."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        locate(config, config.get("config") or self.config.get("config") or [])
        reject_paths_outside_run(config)
        for logger in loggers_of(config.trainer):
            if "save_dir" in getattr(logger, "init_args", {}):
                logger.init_args.save_dir = config.trainer.default_root_dir
        name_trial_run(config.trainer)
        if self.subcommand in (None, "fit"):
            check_online(config.trainer)
        if config.checkpoint.dirpath is None:
            config.checkpoint.dirpath = str(Path(config.trainer.default_root_dir) / "checkpoints")
        if not self.subcommand:
            return
        folder = StageFolder(config.trainer.default_root_dir)
        if self.subcommand == "fit" and folder.record.exists():
            raise ValueError(
                f"trainer.default_root_dir={str(folder.path)!r} is the finished stage of a "
                "pipeline, which a fit would overwrite: give another --trainer.default_root_dir"
            )
        if config.weights_only is None:
            config.weights_only = True  # never unpickle code
        if self.subcommand != "fit" and config.ckpt_path is None:
            best = Path(config.checkpoint.dirpath) / "best.ckpt"
            if not best.is_file():
                raise ValueError(
                    f"ckpt_path: there is nothing to {self.subcommand}, {best} does not exist. "
                    "Run `fit` first, or give --ckpt_path."
                )
            config.ckpt_path = str(best)


def reject_paths_outside_run(config: Namespace) -> None:
    """Refuses names in a config that would make files outside the run folder.

    Raises:
        ValueError: If the checkpoint's or a logger's name has `..` in it or begins at the root.
    """
    named = [("checkpoint.filename", config.checkpoint.filename)]
    for logger in loggers_of(config.trainer):
        init = getattr(logger, "init_args", {})
        named += [(f"trainer.logger.{key}", init.get(key)) for key in ("name", "version", "prefix")]
    for key, name in named:
        if isinstance(name, str) and (Path(name).is_absolute() or ".." in Path(name).parts):
            raise ValueError(f"{key}={name!r} leads out of the run folder")


def stage_parser() -> LightningArgumentParser:
    """A parser of the config of one stage, the same that `eenet fit` takes."""
    parser = LightningArgumentParser(description="", **STRICT)
    parser.add_argument("--seed_everything", type=bool | int, default=0, help="Seed.")
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    EENetCLI.add_arguments_to_parser(parser)
    return parser
