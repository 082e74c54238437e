"""One stage of the pipeline, in a process of its own: `python -m eenet.stage --config FILE`."""

import logging
import warnings
from pathlib import Path

from eenet.cli import reporting_errors
from eenet.data.splits import Split, SplitDataModule
from eenet.lightning_cli import EENetCLI
from eenet.modules.multi_exit import MultiExitModule


def run_network(cli: EENetCLI) -> None:
    """Stage 1: trains, or goes on from `last.ckpt`; tests the best checkpoint; collects outputs."""
    checkpoints = Path(cli.trainer.default_root_dir) / "checkpoints"
    last, best = checkpoints / "last.ckpt", checkpoints / "best.ckpt"
    resume = str(last) if last.is_file() else None
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=resume, weights_only=True)
    cli.trainer.test(
        cli.model, cli.datamodule, ckpt_path=str(best), weights_only=True, verbose=False
    )
    data: SplitDataModule = cli.datamodule
    splits: list[Split] = ["val", "test"]
    if data.has_calibration:
        splits.append("cal")
    for split in splits:
        data.predict_split = split
        cli.trainer.predict(cli.model, data, return_predictions=False)


def run_scheduler(cli: EENetCLI) -> None:
    """Stage 2: fits the policies and evaluates them on the test outputs."""
    cli.trainer.fit(cli.model, cli.datamodule)
    cli.trainer.test(cli.model, cli.datamodule, verbose=False)


def main() -> None:
    """Runs the stage that the config's model belongs to."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "You passed in a `val_dataloader` but have no")
    cli = EENetCLI(run=False)
    if isinstance(cli.model, MultiExitModule):
        run_network(cli)
    else:
        run_scheduler(cli)


if __name__ == "__main__":
    with reporting_errors():
        main()
