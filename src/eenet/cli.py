"""The `eenet` command: Lightning's CLI for either stage, and the commands around it."""

from pathlib import Path

from lightning import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from eenet.callbacks.collect import CollectOutputs
from eenet.callbacks.config import RunConfig
from eenet.callbacks.report import CurveReport
from eenet.callbacks.seed import SeedEpochs


class EENetCLI(LightningCLI):
    """LightningCLI with eenet's defaults: everything a run writes lies in one folder.

    The folder is `trainer.default_root_dir`: the resolved config, `checkpoints/best.ckpt` and
    `checkpoints/last.ckpt`, and what the loggers write. `validate`, `test` and `predict` take the
    folder's best checkpoint unless `--ckpt_path` names another.
    """

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={"callbacks": [SeedEpochs(), CollectOutputs(), CurveReport()]},
            parser_kwargs={"description": "Adaptive inference with multi-exit networks."},
            args=args,
            run=run,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the checkpoint callback, whose settings are part of the config."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "trainer.default_root_dir": "runs/latest",
                "checkpoint.monitor": "val/acc",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,
            }
        )

    def before_instantiate_classes(self) -> None:
        """Puts checkpoints into the run folder and finds the one to evaluate."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        folder = Path(config.trainer.default_root_dir or ".") / "checkpoints"
        if config.checkpoint.dirpath is None:
            config.checkpoint.dirpath = str(folder)
        if self.subcommand in ("validate", "test", "predict") and config.ckpt_path is None:
            best = Path(config.checkpoint.dirpath) / "best.ckpt"
            if not best.is_file():
                self.parser.error(
                    f"ckpt_path: nothing to {self.subcommand}, {best} does not exist; run `fit` "
                    "first or give --ckpt_path"
                )
            config.ckpt_path = str(best)


def main(args: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    EENetCLI(args=args)
