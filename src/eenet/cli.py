"""The `eenet` command: Lightning's CLI for either stage, and the commands around it."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from eenet import __version__
from eenet.callbacks.collect import CollectOutputs
from eenet.callbacks.config import RunConfig
from eenet.callbacks.decisions import WriteDecisions
from eenet.callbacks.report import CurveReport
from eenet.callbacks.seed import SeedEpochs

_HELP = f"""\
eenet {__version__}: adaptive inference with multi-exit networks

  eenet pipeline --config FILE   train a network, fit exit policies, draw the curve; resumes
  eenet fit      --config FILE   train a network (stage 1) or fit policies (stage 2)
  eenet validate --config FILE   validation metrics of a stage's best checkpoint
  eenet test     --config FILE   test metrics of a network, or the curve of fitted policies
  eenet predict  --config FILE   exit outputs of a network, or where each sample leaves

Each takes --help. Any setting of a FILE can be changed by a dotted flag, for example
--trainer.max_epochs 3. EENET_TRACEBACK=1 shows where an error came from.
"""


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
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={
                "callbacks": [SeedEpochs(), CollectOutputs(), CurveReport(), WriteDecisions()]
            },
            args=args,
            run=run,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the checkpoint callback, whose settings are part of the config."""
        _add_checkpoint(parser)

    def before_instantiate_classes(self) -> None:
        """Puts checkpoints into the run folder and finds the one to evaluate."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        folder = Path(config.trainer.default_root_dir) / "checkpoints"
        if config.checkpoint.dirpath is None:
            config.checkpoint.dirpath = str(folder)
        if not self.subcommand:
            return
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


def stage_parser() -> LightningArgumentParser:
    """A parser of the config of one stage, the same that `eenet fit` takes."""
    parser = LightningArgumentParser()
    parser.add_argument("--seed_everything", type=bool | int, default=0, help="Seed.")
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    _add_checkpoint(parser)
    return parser


def main(args: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    words = sys.argv[1:] if args is None else args
    if not words or words[0] in ("-h", "--help"):
        print(_HELP)
        return
    with reporting_errors():
        if words[0] == "pipeline":
            from eenet.pipeline import run_pipeline

            run_pipeline(words[1:])
        else:
            EENetCLI(args=args)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Ends the process with one line for a user's mistake, unless EENET_TRACEBACK is set."""
    # Lightning 2.6 against torch 2.14; nothing that a user can act on.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    warnings.filterwarnings("ignore", ".*does not have many workers")
    try:
        yield
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the stage has said what was wrong
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("EENET_TRACEBACK"):
            raise
        print(f"eenet: error: {_cause(str(error))}", file=sys.stderr)
        sys.exit(2)


def _cause(message: str) -> str:
    """What a class said when jsonargparse could not instantiate it, without the dump around it."""
    if not message.startswith("Does not validate against any of the Union subtypes"):
        return message
    errors = message.partition("\nErrors:\n")[2].partition("\nGiven value type:")[0]
    lines = [line.removeprefix("  - ") for line in errors.splitlines()]
    return "\n".join(line for line in lines if "<class 'NoneType'>" not in line)


def _add_checkpoint(parser: LightningArgumentParser) -> None:
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
