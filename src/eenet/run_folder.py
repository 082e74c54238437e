"""The folder of a run: the only place that knows which file lies where, and how to load it."""

import copy
import json
import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from torch import nn

from eenet import data
from eenet.files import load_part, load_tensors, sha256
from eenet.models import MultiExitNetwork
from eenet.outputs import ExitOutputs, load_outputs, recost, with_cost_matrix
from eenet.policies import Policy


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
        self.identity_file, self.record = self.path / "identity.json", self.path / "done.json"
        self.costs_file, self.outputs = self.path / "costs.json", self.path / "outputs"
        self.curve = self.path / "curve.csv"

    def outputs_file(self, split: str) -> Path:
        """The exit outputs of a split: "val", "test" or "cal"."""
        return self.outputs / f"{split}.safetensors"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config that the stage was run with."""
        config: dict[str, Any] = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        return config

    def identity(self) -> dict[str, Any] | None:
        """What decides the stage's results, as recorded when it was begun."""
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


class RunFolder:
    """The folder of an `eenet pipeline`.

    Nothing is read before it is asked for, so that a folder may also be one that is to be made.

    Args:
        path: The `run_dir` of the pipeline.
        stage2: Folder of other policies that were fitted on the run's outputs, such as a trial's.
    """

    def __init__(self, path: str | Path, stage2: str | Path | None = None) -> None:
        self.path = Path(path)
        self.stage1 = StageFolder(self.path / "stage1")
        self.stage2 = StageFolder(stage2 or self.path / "stage2")
        self.config_file = self.path / "pipeline.yaml"

    def __str__(self) -> str:
        return str(self.path)

    def network(self) -> MultiExitNetwork:
        """The trained network, from its checkpoint alone: nothing else is read or downloaded.

        Raises:
            FileNotFoundError: If the pipeline has not ended.
            ValueError: If the checkpoint does not fit the config.
        """
        self.check_finished(self.stage1)
        self.stage1.check_unchanged(self.stage1.best)
        config = dict(self.stage1.config["model"]["init_args"]["net"])
        restore = load_tensors(self.stage1.best).get("restore_args", {})
        known = ArgumentParser().add_class_arguments(resolve_name(config["class_path"]))
        if restore.keys() <= set(known):  # a subclass that takes other arguments is built as it was
            config["init_args"] = {**config.get("init_args", {}), **restore}
        net: MultiExitNetwork = build(MultiExitNetwork, config)
        _load(net, self.stage1, "net.")
        return net

    def policies(self, label: str | None = None) -> dict[str, Policy]:
        """The fitted policies by their labels, in the order of the config.

        Args:
            label: The only one to load; by default all are.

        Raises:
            FileNotFoundError: If the pipeline has not ended.
            ValueError: If there is no such policy, or the checkpoint does not fit the config.
        """
        self.check_finished(self.stage1, self.stage2)
        self.stage2.check_unchanged(self.stage2.best)
        config = self.stage2.config["model"]["init_args"]["policies"]
        policies = {policy.label: policy for policy in build(list[Policy], config)}
        if label is not None and label not in policies:
            raise ValueError(f"policy={label!r}: {self} holds {list(policies)}")
        policies = {name: p for name, p in policies.items() if label in (None, name)}
        for name, policy in policies.items():
            _load(policy, self.stage2, f"policies.{name}.")
        return policies

    def outputs(self, split: str) -> ExitOutputs:
        """The exit outputs of a split, at the costs and qualities that stage 2 was fitted with.

        Args:
            split: "val", "test", or "cal" if there is one.

        Raises:
            FileNotFoundError: If that split was not collected.
        """
        settings = self.stage2.config["data"].get("init_args", {})
        self.stage1.check_unchanged(self.stage1.outputs_file(split))
        outputs = load_outputs(self.stage1.outputs_file(split))
        outputs = with_cost_matrix(outputs, settings.get("cost_matrix"))
        costs = settings.get("costs")
        return outputs if costs is None else recost(outputs, costs)

    def data(self) -> Any:
        """The data of stage 1, to encode samples as in training; nothing is read.

        What the checkpoint keeps of them (tokenizer, class names) comes from there. eenet's own are
        a `DataSource` without Lightning.
        """
        config = self.stage1.config["data"]
        name = config["class_path"].rpartition(".")[2]
        if hasattr(data, f"{name}Source") and config["class_path"] == f"eenet.data.{name}":
            source = f"eenet.data.{name}Source"
            made = build(data.DataSource, config | {"class_path": source})
        else:
            from lightning import LightningDataModule

            made = build(LightningDataModule, config)
        checkpoint = load_tensors(self.stage1.best) if self.stage1.best.is_file() else {}
        if name in checkpoint:
            made.load_state_dict(checkpoint[name])
        return made

    @property
    def budget_unit(self) -> Any:
        """The unit of the run's budgets, "fraction" or "cost"."""
        return self.stage2.config["model"]["init_args"]["budget_unit"]

    def budgets(self) -> list[float]:
        """The run's budgets as fractions of the full network's cost."""
        budgets: list[float] = self.stage2.config["model"]["init_args"]["budgets"]
        full = 1.0
        if self.budget_unit != "fraction":
            full = float(self.outputs("val").mean_costs[-1])
        return [budget / full for budget in budgets]

    def setup(self) -> dict[str, Any]:
        """What has to be equal for runs to be seeds of one set-up."""
        samples = load_outputs(self.stage1.outputs_file("test")).num_samples
        setup: dict[str, Any] = {"test": {"samples": samples}}
        for name, stage in (("stage1", self.stage1), ("stage2", self.stage2)):
            setup[name] = (stage.identity() or {}) | {"seed_everything": None}
        return setup

    def check_finished(self, *stages: StageFolder) -> None:
        """Raises FileNotFoundError unless the stages have left their checkpoints."""
        for stage in stages:
            if not stage.best.is_file():
                raise FileNotFoundError(
                    f"{self} is not the folder of a finished run: "
                    f"{stage.best} is missing. Give the run_dir of an `eenet pipeline` that has "
                    "ended."
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


def build(kind: Any, config: Any) -> Any:
    """What a config of `class_path` and `init_args` (or a list of them) describes."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=kind)
    return parser.instantiate(parser.parse_object({"it": copy.deepcopy(config)})).it


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


def _load(module: nn.Module, stage: StageFolder, prefix: str) -> None:
    state = load_part(stage.best, prefix)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{stage.best} does not fit {stage.config_file}, or another version of eenet wrote it; "
            f"run that stage again. {error}"
        ) from error
