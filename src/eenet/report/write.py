"""What a finished run does, as a page and as figures."""

import json
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from lightning.pytorch.loggers import Logger

from eenet.cli.lightning import loggers_of
from eenet.cli.pipeline import difference
from eenet.files import write_text
from eenet.inference.run import build, load_policies, stage_config
from eenet.plotting.style import save_figure
from eenet.report.examples import choose, examples
from eenet.report.figures import figures
from eenet.report.numbers import Run, report_data
from eenet.report.page import page


def write_report(folders: list[str], output: Path) -> Path:
    """Writes the page, whose path it returns, and the figures of run folders of one set-up.

    Raises:
        FileNotFoundError: If a folder is not that of a finished run.
        ValueError: If the runs are of different set-ups.
    """
    runs = [load(folder) for folder in folders]
    setups = [_setup(*pair) for pair in zip(folders, runs, strict=True)]
    for folder, setup in zip(folders, setups, strict=True):
        if setup != setups[0]:
            raise ValueError(
                f"runs: {folders[0]} and {folder} are of different set-ups "
                f"({difference(setups[0], setup)}); give runs that differ in their seeds alone"
            )
    data = report_data(runs)
    decided, test = data.pop("decided"), runs[0].test
    positions = choose(decided[data["reference"]], test.num_exits)
    data |= examples(folders[0], test, positions)
    data["example_exits"] = {label: exits[:, positions] for label, exits in decided.items()}
    data["example_quality"] = test.answer_quality()[:, positions]
    if test.labels is not None:
        data["answers"] = test.evidence().prediction[:, positions]
        data["labels"] = test.labels[positions]
    data["name"], data["provenance"] = Path(folders[0]).resolve().name, test.metadata
    drawn = figures(data)
    for name, figure in drawn.items():
        save_figure(figure, *(output / f"figures/{name}.{ending}" for ending in ("png", "svg")))
    path = output / "report.html"
    write_text(path, page(data, drawn))
    return path


def log_to_wandb(folder: str, figures: Path) -> None:
    """Logs the figures to the W&B run that stage 2 of a run folder logged to.

    Raises:
        ValueError: If it logged to none.
    """
    for config in loggers_of(stage_config(folder, 2)["trainer"]):
        if "WandbLogger" in str(config):
            config["init_args"]["save_dir"] = f"{folder}/stage2"
            logger: Any = build(Logger, config)
            for path in sorted(figures.glob("*.png")):
                logger.log_image(f"report/{path.stem}", [str(path)])
            logger.experiment.finish()
            return
    raise ValueError(f"wandb: stage 2 of {folder} has no WandbLogger to go on with")


def load(folder: str | Path) -> Run:
    """A finished run, its outputs at the costs and qualities that its stage 2 was fitted with.

    Raises:
        FileNotFoundError: If the folder is not that of a finished run.
    """
    policies = load_policies(folder)
    config = stage_config(folder, 2)
    data: Any = build(LightningDataModule, config["data"])
    splits = "val", "test", "cal"
    data.paths = {split: f"{folder}/stage1/outputs/{split}.safetensors" for split in splits}
    val, test = data.outputs("val"), data.outputs("test")
    cal = data.outputs("cal") if Path(data.paths["cal"]).is_file() else None
    settings = config["model"]["init_args"]
    full = 1.0 if settings["budget_unit"] == "fraction" else float(val.mean_costs[-1])
    return Run(val, test, policies, [budget / full for budget in settings["budgets"]], cal)


def _setup(folder: str, run: Run) -> dict[str, Any]:
    """What has to be equal for runs to be seeds of one set-up."""
    setup: dict[str, Any] = {"test": {"samples": run.test.num_samples}}
    for stage in ("stage1", "stage2"):
        setup[stage] = json.loads((Path(folder) / stage / "identity.json").read_text())
        del setup[stage]["seed_everything"]
    return setup
