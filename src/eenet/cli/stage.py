"""One stage of the pipeline, in a process of its own: `python -m eenet.cli.stage --config FILE`."""

import logging
import warnings
from pathlib import Path

from eenet.cli.lightning import EENetCLI
from eenet.cli.main import reporting_errors
from eenet.modules.multi_exit import MultiExitModule


def main() -> None:
    """Fits, or goes on from `last.ckpt`, and tests; a network's exit outputs are then collected."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "You passed in a `val_dataloader` but have no")
    cli = EENetCLI(run=False)
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    if not isinstance(model, MultiExitModule):
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)
        return
    checkpoints = Path(trainer.default_root_dir) / "checkpoints"
    last, best = checkpoints / "last.ckpt", str(checkpoints / "best.ckpt")
    trainer.fit(model, data, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    trainer.test(model, data, ckpt_path=best, weights_only=True, verbose=False)
    for split in ("val", "test", *(["cal"] if data.has_calibration else [])):
        data.predict_split = split
        trainer.predict(model, data, return_predictions=False)


if __name__ == "__main__":
    with reporting_errors():
        main()
