"""`eenet pipeline`: both stages in one run folder, each in a process of its own.

A stage that is complete and unchanged is skipped, one that was cut off goes on. A process each
keeps W&B's runs apart and lets Lightning launch its own ranks.
"""

import json
import os
import shlex
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionParser, ArgumentParser, Namespace

from eenet.cli.checks import check_config, check_stages
from eenet.cli.lightning import STRICT, stage_parser
from eenet.cli.recipes import DEFAULTS
from eenet.files import sha256, write_text
from eenet.run_folder import difference, loggers_of

# What may change without making a finished stage stale.
_INCIDENTAL = (
    *("trainer.default_root_dir", "trainer.logger", "trainer.log_every_n_steps"),
    *("trainer.enable_model_summary", "trainer.enable_progress_bar", "checkpoint.dirpath"),
)
_TITLES = {
    "stage1": "Stage 1: training the network and collecting its exit outputs",
    "stage2": "Stage 2: fitting the exit policies and evaluating them on test",
}


@dataclass
class _Options:
    """Train a multi-exit network, collect its exit outputs, fit policies on them, draw the curve.

    Args:
        run_dir: Run folder.
        overwrite: Train anew where the run folder holds a network of another config; the old stage
            is kept under another name.
        launcher: What starts the processes of stage 1: 'srun' in a Slurm job, or 'torchrun
            --no-python --nproc-per-node 4'; nothing where Lightning starts them itself.
    """

    run_dir: str = "runs/pipeline"
    overwrite: bool = False
    launcher: str = ""


def pipeline_parser() -> ArgumentParser:
    """The parser of `eenet pipeline`."""
    parser = ArgumentParser(prog="eenet pipeline", default_config_files=[DEFAULTS], **STRICT)
    parser.add_argument("-c", "--config", action="config", help="Recipe or YAML file.")
    parser.add_class_arguments(_Options)
    for stage in ("stage1", "stage2"):
        parser.add_argument(f"--{stage}", action=ActionParser(parser=stage_parser()))
    return parser


def run_pipeline(args: list[str]) -> None:
    """Runs both stages.

    Args:
        args: Command-line arguments after `pipeline`.

    Raises:
        ValueError: If the run folder holds a network of another config, without `--overwrite`.
        subprocess.CalledProcessError: If a stage fails; what it had finished is kept.
    """
    parser = pipeline_parser()
    config = parser.parse_args(args)
    check_config(config)
    run = Path(config.run_dir)
    stage1, stage2 = _Stage(run, "stage1", config.stage1), _Stage(run, "stage2", config.stage2)
    outputs = stage1.folder / "outputs"
    data = config.stage2.data.init_args
    data.fit, data.test = str(outputs / "val.safetensors"), str(outputs / "test.safetensors")

    trained = ["checkpoints/best.ckpt", "outputs/val.safetensors", "outputs/test.safetensors"]
    todo = not stage1.is_complete({})
    check_stages(config, todo)
    if todo:
        stage1.make_room(keep_if_same=True, overwrite=config.overwrite)
    write_text(run / "pipeline.yaml", parser.dump(config, skip_none=False))
    if todo:
        stage1.execute({}, trained, config.launcher)
    sources = {"outputs": [sha256(data.fit), sha256(data.test)]}
    if not stage2.is_complete(sources):
        stage2.make_room(keep_if_same=False, overwrite=True)
        fitted = ["checkpoints/best.ckpt", "curve.csv", "curve.json", "curve.png"]
        stage2.execute(sources, fitted, None)
    _say_what_is_there(run, stage1.folder, stage2.folder)


class _Stage:
    """A stage's folder, its config, and the record of what it finished."""

    def __init__(self, run: Path, name: str, config: Namespace) -> None:
        self.name = name
        self.folder = run / name
        self.record = self.folder / "done.json"
        config.trainer.default_root_dir = str(self.folder)
        self.config = config

    def text(self) -> str:
        """The resolved config, valid as `--config` of every command."""
        return str(stage_parser().dump(self.config, skip_none=False))

    def identity(self) -> dict[str, Any]:
        """What decides the stage's results."""
        config: dict[str, Any] = yaml.safe_load(self.text())
        for key in _INCIDENTAL:
            part, _, name = key.partition(".")
            config[part].pop(name, None)
        if self.name == "stage2":  # its inputs are compared by content
            config["data"]["init_args"] |= {"fit": None, "test": None}
        return config

    def is_complete(self, sources: dict[str, Any]) -> bool:
        """Whether the stage finished with this config and these inputs, its files untouched."""
        if not self.record.is_file():
            return False
        record = json.loads(self.record.read_text())
        if record["identity"] != self.identity() or record["sources"] != sources:
            return False
        for name, digest in record["files"].items():
            path = self.folder / name
            if not path.is_file() or sha256(path) != digest:
                print(f"{path} is not what the stage wrote (its checksum differs): made anew")
                return False
        return True

    def make_room(self, keep_if_same: bool, overwrite: bool) -> None:
        """Moves results of another config out of the way; asks first where that loses training."""
        begun = self.folder / "identity.json"
        if not begun.is_file():
            return
        old = json.loads(begun.read_text())
        if keep_if_same and old == self.identity():
            return
        if not overwrite:
            raise ValueError(
                f"run_dir={self.folder.parent} holds a network trained with another config "
                f"({difference(old, self.identity())}). Choose another --run_dir, or give "
                "--overwrite true to train anew."
            )
        number = 1
        while (aside := self.folder.with_name(f"{self.name}.{number}")).exists():
            number += 1
        self.folder.rename(aside)
        print(f"{self.name}: earlier results are kept in {aside}")

    def execute(self, sources: dict[str, Any], produced: list[str], launcher: str | None) -> None:
        """Runs the stage and records what it produced.

        Without a launcher, which may be empty, it is a single process, and not one of the tasks of
        the Slurm job around it.
        """
        print(f"\n{_TITLES[self.name]}, in {self.folder}", flush=True)
        # What a process left that was killed while it wrote, in folders kept aside too.
        for stray in self.folder.parent.glob(f"{self.name}*/**/.*.part"):
            stray.unlink()
        self.name_wandb_run()
        write_text(self.folder / "config.yaml", self.text())
        write_text(self.folder / "identity.json", json.dumps(self.identity()))
        command = [
            sys.executable,
            "-m",
            "eenet.cli.stage",
            "--config",
            f"{self.folder}/config.yaml",
        ]
        single = launcher is None
        env = {k: v for k, v in os.environ.items() if not (single and k.startswith("SLURM_"))}
        subprocess.run([*shlex.split(launcher or ""), *command], check=True, env=env)
        files = {name: sha256(self.folder / name) for name in produced}
        record = {"identity": self.identity(), "sources": sources, "files": files}
        write_text(self.record, json.dumps(record, indent=1))

    def name_wandb_run(self) -> None:
        """Gives W&B one run per stage, grouped by run folder."""
        run = self.folder.parent.name
        for logger in loggers_of(self.config.trainer):
            if getattr(logger, "class_path", "").endswith("WandbLogger"):
                init = logger.init_args
                init.name = init.name or f"{run}-{self.name}"
                # A stage that is taken up again goes on in its own W&B run.
                path = self.folder / "wandb-id.txt"
                if not path.is_file():
                    # The letter in front: YAML would read an id such as 12e45678 as a number.
                    write_text(path, init.version or init.id or f"e{uuid.uuid4().hex[:8]}")
                init.version = path.read_text()
                own = {"group": run, "job_type": self.name, "resume": "allow"}
                logger.dict_kwargs = {**own, **logger.get("dict_kwargs", {})}


def _say_what_is_there(run: Path, stage1: Path, stage2: Path) -> None:
    print(
        f"\nDone. Look at\n  {stage2}/curve.png    the accuracy-vs-budget curve\n"
        f"  {stage2}/curve.csv    every policy at every budget: accuracy, cost used, exit shares\n"
        f"  {stage1}/costs.json   what each exit costs in MACs and milliseconds\n"
        f"Then try\n  eenet pipeline --config {run}/pipeline.yaml "
        "--stage2.model.init_args.budgets '[0.55, 0.75, 0.95]'\n"
        "which keeps the trained network and fits the policies for other budgets."
    )
