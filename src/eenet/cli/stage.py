"""One stage of the pipeline in a process of its own: `python -m eenet.cli.stage --config FILE`."""

import sys

from eenet.cli.lightning import EENetCLI
from eenet.cli.main import reporting_errors
from eenet.files import is_intact
from eenet.modules.multi_exit import MultiExitModule
from eenet.stage_folder import StageFolder


def main(words: list[str]) -> None:
    """Fits, or resumes, and tests; then collects a network's exit outputs.

    Args:
        words: Arguments; "outputs" in front leaves out what comes before the collection.
    """
    cli = EENetCLI(args=words[1:] if words[0] in ("all", "outputs") else words, run=False)
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    if not isinstance(model, MultiExitModule):
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)
        cli.after_test()
        return
    folder = StageFolder(trainer.default_root_dir)
    best = str(folder.best)
    if words[0] != "outputs":
        resume, why = checkpoint_to_resume(folder)
        if why and trainer.is_global_zero:
            print(why, flush=True)
        trainer.fit(model, data, ckpt_path=resume, weights_only=True)
        trainer.test(model, data, ckpt_path=best, weights_only=True, verbose=False)
    for split in ("val", "test", *(["cal"] if data.has_calibration else [])):
        data.predict_split = split
        trainer.predict(model, data, ckpt_path=best, weights_only=True, return_predictions=False)


def checkpoint_to_resume(folder: StageFolder) -> tuple[str | None, str]:
    """The checkpoint to resume from, if there is one, and what is to be said of it."""
    if not folder.last.is_file() and not folder.best.is_file():
        return None, ""
    if not is_intact(folder.best):
        return None, f"{folder.best} is missing or damaged: training starts from scratch"
    if is_intact(folder.last):
        return str(folder.last), ""
    return str(folder.best), f"{folder.last} is missing or damaged: resuming from {folder.best}"


if __name__ == "__main__":
    with reporting_errors():
        main(sys.argv[1:])
