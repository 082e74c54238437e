"""The folder of a stage: which file lies where, and how its config is kept; without torch."""

import json
import os
import re
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from eenet.files import sha256


class StageFolder:
    """The files of one stage, whether they exist or not.

    Args:
        path: Folder of the stage, its `trainer.default_root_dir`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.checkpoints = self.path / "checkpoints"
        self.best, self.last = self.checkpoints / "best.ckpt", self.checkpoints / "last.ckpt"
        if (shared := self.best.with_suffix(".safetensors")).is_file():  # by `eenet push`
            self.best = shared
        self.identity_file, self.record = self.path / "identity.json", self.path / "done.json"
        self.costs_file, self.outputs = self.path / "costs.json", self.path / "outputs"
        self.curve = self.path / "curve.csv"

    def outputs_file(self, split: str) -> Path:
        """The exit outputs of a split: "val", "test" or "cal"."""
        return self.outputs / f"{split}.safetensors"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config that the stage was run with.

        Raises:
            FileNotFoundError: If there is none.
        """
        if not self.config_file.is_file():
            raise FileNotFoundError(
                f"{self.config_file} is missing: put it back, or run the stage again"
            )
        config: dict[str, Any] = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        return config

    def identity(self) -> dict[str, Any] | None:
        """The settings that decide the stage's results, as recorded when it began."""
        return self.read_json(self.identity_file)

    def read_json(self, path: Path) -> dict[str, Any] | None:
        """A record of the stage; None if there is none.

        Raises:
            ValueError: If it is not what eenet wrote.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            content = str(error)
        if not isinstance(content, dict):
            raise ValueError(
                f"{path} is not the record that eenet wrote ({str(content)[:80]}). Put it back, or "
                "remove it: the stage then runs again from its last checkpoint"
            )
        return content

    def changed_files(self, record: dict[str, Any]) -> list[Path]:
        """The files that are missing or not what the stage wrote, by its record."""
        files = {self.path / name: digest for name, digest in record.get("files", {}).items()}
        return [path for path, x in files.items() if not path.is_file() or sha256(path) != x]

    def check_unchanged(self, *paths: Path) -> None:
        """Raises a ValueError if one of the files is not what the finished stage wrote."""
        record = self.read_json(self.record) or {}
        files = record.get("files", {})
        kept = {name: x for name, x in files.items() if self.path / name in paths}
        for path in self.changed_files({"files": kept}):
            raise ValueError(
                f"{path} is missing or has changed since the stage wrote it (checksum mismatch): "
                f"run `eenet pipeline --config {self.path.parent}/pipeline.yaml`"
            )

    def set_aside(self) -> None:
        """Gives the folder a numbered name."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(aside)
        print(f"{self.path.name}: earlier results are kept in {aside}")


def stages_of(
    run_dir: str | Path, stage2: str | Path | None = None
) -> tuple[StageFolder, StageFolder]:
    """The folders of both stages of a run, the second of which may lie elsewhere."""
    run_dir = find_run(run_dir)
    return StageFolder(run_dir / "stage1"), StageFolder(stage2 or run_dir / "stage2")


HUB = "hf:"
"""What stands before the name of a run on the Hugging Face hub."""
SHARED = ("README.md", "pipeline.yaml", *(f"stage[12]/*.{x}" for x in ("json", "yaml", "csv")))
SHARED += (
    "stage2/curve.png",
    "stage1/outputs/*.safetensors",
    "stage[12]/checkpoints/*.safetensors",
)
"""The files of a run that is shared; no others are downloaded."""


def find_run(name: str | Path) -> Path:
    """The folder of a run: a path as it is, hf:USER/NAME[@REVISION] from the hub or its cache.

    A process sees one version of a run on the hub, the one that it found first.

    Raises:
        FileNotFoundError: If the hub or, offline, its cache has no such run.
    """
    return _download(str(name)) if str(name).startswith(HUB) else Path(name)


@cache
def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repo, _, revision = name.removeprefix(HUB).partition("@")
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=[*SHARED]))
    except (OSError, ValueError) as error:  # all of the hub's errors are one of these
        raise FileNotFoundError(
            f"{name} cannot be had from the Hugging Face hub ({str(error).strip().splitlines()[0]})"
            ": check the name hf:USER/NAME[@REVISION], your login (`hf auth login`) if it is "
            "private, and the connection; with HF_HUB_OFFLINE=1 it must be in the cache already"
        ) from error


def check_finished(run_dir: str | Path, *stages: StageFolder) -> None:
    """Raises FileNotFoundError unless the stages of a run have left their checkpoints."""
    for stage in stages:
        if not stage.best.is_file():
            raise FileNotFoundError(
                f"{run_dir} is not the folder of a finished run: {stage.best} is missing. Give the "
                "run_dir of an `eenet pipeline` that has ended."
            )


_OF_THE_RUN = re.compile(r"(\.\./)+stage1/outputs/[^/]+")


def portable(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A stage's config as its folder keeps it: paths inside the run are relative to that folder.

    Args:
        config: The resolved config, in plain values; it is changed.
        folder: Folder of the stage.
    """
    config["trainer"]["default_root_dir"] = None  # the folder that the config lies in
    checkpoint = config.get("checkpoint") or {}
    if checkpoint.get("dirpath") and Path(checkpoint["dirpath"]) == folder / "checkpoints":
        checkpoint["dirpath"] = None
    for logger in loggers_of(config["trainer"]):
        if isinstance(logger, dict) and "save_dir" in (settings := logger.get("init_args") or {}):
            settings["save_dir"] = "."  # always the stage's folder
    data = (config.get("data") or {}).get("init_args") or {}
    for name in ("fit", "test"):
        if isinstance(data.get(name), str):
            relative = os.path.relpath(data[name], folder)
            data[name] = relative if _OF_THE_RUN.fullmatch(relative) else data[name]
    return config


def locate(config: Any, files: Iterable[Any]) -> None:
    """Finds what `portable` made relative, wherever the folder lies now.

    Args:
        config: Config of one stage, which is changed.
        files: The files it was read from; the folder is that of the last `config.yaml`.
    """
    folder = folder_of(files, "config.yaml")
    if config.trainer.default_root_dir is None:
        config.trainer.default_root_dir = str(folder or "runs/latest")
    data = config.data.get("init_args", {}) if config.get("data") else {}
    for name in ("fit", "test"):
        value = data.get(name)
        if folder and isinstance(value, str) and _OF_THE_RUN.fullmatch(value):
            data[name] = os.path.normpath(folder / value)


def folder_of(files: Iterable[Any], name: str) -> Path | None:
    """The folder of the last of the files that has that name, if one has."""
    paths = [Path(str(file)) for file in files if Path(str(file)).name == name]
    return paths[-1].parent if paths else None


def loggers_of(trainer: Any) -> list[Any]:
    """The loggers in a trainer's config, of which one may stand without a list."""
    loggers = trainer["logger"]
    return loggers if isinstance(loggers, list) else [loggers]


def difference(old: Any, new: Any, path: str = "") -> str:
    """The first place where two configs differ, as one line."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                return difference(old.get(key), new.get(key), f"{path}.{key}".strip("."))
    return f"{path}: {old!r} there, {new!r} here"
