"""A stage of the pipeline: whether its folder holds what this config gives, and what is missing."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from eenet.callbacks.wandb import name_stage_run
from eenet.cli.lightning import stage_parser
from eenet.files import sha256, write_text
from eenet.stage_folder import StageFolder, difference, portable

# What may differ between two calls on one run folder, since no result depends on it.
_NOT_IN_IDENTITY = (
    ("trainer", "default_root_dir"),  # a folder can be moved
    ("trainer", "logger"),
    ("trainer", "log_every_n_steps"),
    ("trainer", "enable_model_summary"),
    ("trainer", "enable_progress_bar"),
    ("trainer", "profiler"),
    ("trainer", "accelerator"),  # the same computation elsewhere, up to rounding
    ("trainer", "num_sanity_val_steps"),  # epochs have seeds of their own
    ("checkpoint", "dirpath"),
    ("checkpoint", "verbose"),
    ("data", "init_args", "num_workers"),
    ("data", "init_args", "eval_batch_size"),
    ("data", "init_args", "predict_split"),  # the stage collects all splits
)
_TITLES = {
    "stage1": "Stage 1: training the network and collecting its exit outputs",
    "stage2": "Stage 2: fitting the exit policies and evaluating them on test",
}
_PRODUCED = {
    "stage1": ("checkpoints/best.ckpt", "costs.json", "outputs/val.safetensors"),
    "stage2": ("checkpoints/best.ckpt", "curve.csv", "curve.json", "curve.png"),
}


class StageRun:
    """A stage's folder and its config.

    Args:
        folder: Where it is kept.
        config: Its part of the pipeline's config; its root folder is set.
    """

    def __init__(self, folder: StageFolder, config: Namespace) -> None:
        self.folder, self.config, self.name = folder, config, folder.path.name
        config.trainer.default_root_dir = str(folder.path)

    def text(self) -> str:
        """The resolved config, valid as `--config` of every command wherever the folder lies."""
        config = yaml.safe_load(stage_parser().dump(self.config, skip_none=False))
        return yaml.safe_dump(portable(config, self.folder.path), sort_keys=False)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The settings that decide the stage's results; those that this class changes do not."""
        identity: dict[str, Any] = _deciding(yaml.safe_load(self.text()))
        return identity

    def to_do(self, sources: dict[str, Any], overwrite: bool = False) -> str:
        """Says what is missing: "all", "outputs" of a network that is certain, or "" if complete.

        Args:
            sources: Checksums of the stage's inputs.
            overwrite: Whether a network that is not the one that was trained may be set aside.

        Raises:
            ValueError: If a record cannot be read, or the network is not the one that was trained.
        """
        record = self.folder.read_json(self.folder.record)
        if (
            record is None
            or record.get("sources") != sources
            or not self._same(record.get("identity"))
        ):
            return "all"
        changed = self.folder.changed_files(record)
        if not changed:
            described = self.folder.config_file, self.folder.identity_file
            if lost := [path for path in described if not self._is_described(path)]:
                self._describe(*lost)
            return ""
        if self.folder.best in changed and self.name == "stage1":
            if overwrite:
                self.folder.set_aside()
                return "all"
            raise ValueError(
                f"{self.folder.best} is missing or not the network that this stage trained "
                "(checksum mismatch). Put it back, or give --overwrite true to train again; the "
                "old stage is then kept under another name"
            )
        for path in changed:
            print(f"{path} has changed since the stage wrote it (checksum mismatch): written again")
        return "outputs" if self.name == "stage1" else "all"

    def check_identity(self, overwrite: bool) -> None:
        """Refuses to resume the training of another config; with `overwrite`, sets it aside.

        Raises:
            ValueError: If there is one, and no `overwrite`.
        """
        if self.folder.path.exists() and not self.folder.path.is_dir():
            raise ValueError(f"{self.folder.path} is a file: remove it, or choose another run_dir")
        old = self.folder.read_json(self.folder.identity_file)
        if old is None or self._same(old):
            return
        if not overwrite:
            raise ValueError(
                f"run_dir={self.folder.path.parent} holds a network trained with another config "
                f"({difference(_deciding(old), self.identity)}). Choose another --run_dir, or "
                "give --overwrite true to train again."
            )
        self.folder.set_aside()

    def discard_other(self) -> None:
        """Removes what an interrupted stage of another config left."""
        if self.folder.path.exists() and not self._same(self.folder.identity()):
            shutil.rmtree(self.folder.path)

    def execute(self, todo: str, sources: dict[str, Any], launcher: str | None, lock: int) -> None:
        """Runs the stage in a process of its own and records what it wrote.

        Args:
            todo: "all" or "outputs", as `to_do` says.
            sources: Checksums of the stage's inputs.
            launcher: What starts the processes, may be empty. None runs one process, and not as one
                of the tasks of the Slurm job around it.
            lock: File descriptor of the run folder's lock, held as long as the stage runs.
        """
        print(f"\n{_TITLES[self.name.partition('.')[0]]}, in {self.folder.path}", flush=True)
        # What a killed process left half-written, in folders kept aside too.
        for stray in self.folder.path.parent.glob("stage*/**/.*.part"):
            stray.unlink()
        self._describe(self.folder.config_file, self.folder.identity_file)
        command = [sys.executable, "-m", "eenet.cli.stage", todo]
        command += ["--config", str(self.folder.config_file)]
        slurm = launcher is None
        env = {k: v for k, v in os.environ.items() if not (slurm and k.startswith("SLURM_"))}
        env.setdefault("WANDB_SILENT", "true")
        words = [*shlex.split(launcher or ""), *command]
        subprocess.run(words, check=True, env=env, pass_fds=[lock])
        self._record(sources)

    def _record(self, sources: dict[str, Any]) -> None:
        produced = [self.folder.path / name for name in _PRODUCED[self.name.partition(".")[0]]]
        files = {*produced, *self.folder.outputs.glob("*.safetensors")}
        names = {str(path.relative_to(self.folder.path)): sha256(path) for path in sorted(files)}
        record = {"identity": self.identity, "sources": sources, "files": names}
        write_text(self.folder.record, json.dumps(record, indent=1))

    def _same(self, identity: Any) -> bool:
        return bool(_deciding(identity) == self.identity)

    def _describe(self, *paths: Path) -> None:
        """Writes those of the two files that follow from the config."""
        name_stage_run(self.config, self.folder.path)
        config, identity = self.folder.config_file, self.folder.identity_file
        contents = {config: self.text(), identity: json.dumps(self.identity)}
        for path in paths:
            write_text(path, contents[path])

    def _is_described(self, path: Path) -> bool:
        try:
            return self._same(yaml.safe_load(path.read_text("utf-8")))
        except (OSError, ValueError, yaml.YAMLError):
            return False


def swap(new: StageFolder, old: StageFolder) -> None:
    """Puts a finished fit in the place of the one before, which is kept under another name."""
    if old.path.exists():
        old.set_aside()
    new.path.rename(old.path)


def _deciding(config: Any) -> Any:
    """The part of a stage's config on which its results depend."""
    if not isinstance(config, dict):
        return config
    config = json.loads(json.dumps(config))
    for *parts, name in _NOT_IN_IDENTITY:
        place = config
        for part in parts:
            place = place.get(part) or {} if isinstance(place, dict) else {}
        if isinstance(place, dict):
            place.pop(name, None)
    data = config.get("data") or {}
    if str(data.get("class_path")).endswith("OutputsData"):
        settings = data.get("init_args") or {}
        data["init_args"] = settings | {"fit": None, "test": None}  # compared by content
    return config
