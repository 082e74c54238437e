"""What a finished run does, as a page and as figures."""

import json
from pathlib import Path
from typing import Any

from eenet.callbacks.wandb import wandb_loggers
from eenet.files import write_text
from eenet.plotting.rows import exit_rows
from eenet.plotting.style import save_figure
from eenet.report.examples import choose, examples
from eenet.report.figures import figures
from eenet.report.numbers import Run, report_data
from eenet.report.page import page
from eenet.report.provenance import how_made, places
from eenet.run_folder import RunFolder, build
from eenet.stage_folder import difference


def write_report(folders: list[str], output: Path) -> Path:
    """Writes the page, whose path it returns, and the figures of run folders of one set-up.

    Raises:
        FileNotFoundError: If a folder is not that of a finished run.
        ValueError: If the runs are of different set-ups.
    """
    opened = [RunFolder(folder) for folder in folders]
    runs = [load(run) for run in opened]
    setups = [run.setup() for run in opened]
    for folder, setup in zip(folders, setups, strict=True):
        if setup != setups[0]:
            raise ValueError(
                f"runs: {folders[0]} and {folder} are of different set-ups "
                f"({difference(setups[0], setup)}); give runs that differ only in their seeds"
            )
    data = report_data(runs)
    decided, test = data.pop("decided"), runs[0].test
    positions = choose(decided[data["reference"]], test.num_exits)
    data |= examples(opened[0], test, positions)
    data["example_exits"] = {label: exits[:, positions] for label, exits in decided.items()}
    data["example_quality"] = test.answer_quality()[:, positions]
    if test.labels is not None:
        data["answers"] = test.evidence().prediction[:, positions]
        data["labels"] = test.labels[positions]
    data["name"], data["provenance"] = opened[0].name, test.metadata
    data["measured"] = json.loads(test.metadata.get("measured_costs", "{}"))
    data["exits"], data["places"] = exit_rows(test), places(opened[0], test.num_exits)
    data["made"] = how_made(opened, runs[0])
    drawn = figures(data)
    for name, figure in drawn.items():
        save_figure(
            figure, *(output / f"figures/{name}.{ending}" for ending in ("png", "svg", "pdf"))
        )
    path = output / "report.html"
    write_text(path, page(data, drawn))
    return path


def log_to_wandb(folder: str, figures: Path) -> None:
    """Logs the figures to the W&B run that stage 2 of a run folder logged to.

    Raises:
        ValueError: If it logged to none.
    """
    from lightning.pytorch.loggers import Logger

    for config in wandb_loggers(RunFolder(folder).stage2.config["trainer"]):
        config["init_args"]["save_dir"] = f"{folder}/stage2"
        logger: Any = build(Logger, config)
        for path in sorted(figures.glob("*.png")):
            logger.log_image(f"report/{path.stem}", [str(path)])
        logger.experiment.finish()
        return
    raise ValueError(f"wandb: stage 2 of {folder} has no WandbLogger to resume")


def load(run: RunFolder) -> Run:
    """A finished run, its outputs at the costs and qualities that its stage 2 was fitted with.

    Raises:
        FileNotFoundError: If the pipeline has not ended.
    """
    policies, splits = run.policies(), ["val", "test"]
    splits += ["cal"] if run.stage1.outputs_file("cal").is_file() else []
    outputs = {split: run.outputs(split) for split in splits}
    return Run(policies=policies, budgets=run.budgets(), **outputs)
