"""The folder of a run, and how to load what lies in it."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from jsonargparse import ArgumentParser
from torch import nn

from eenet import data
from eenet.files import load_checkpoint, load_part
from eenet.models import MultiExitNetwork
from eenet.outputs import ExitOutputs, load_outputs, recost, with_cost_matrix
from eenet.policies import Policy
from eenet.stage_folder import HUB, StageFolder, check_finished, stages_of


class RunFolder:
    """The folder of an `eenet pipeline`.

    Nothing is read before it is asked for, so that a folder may also be one that is to be made.

    Args:
        path: The `run_dir` of the pipeline, or hf:USER/NAME[@REVISION] on the hub.
        stage2: Folder of other policies that were fitted on the run's outputs, such as a trial's.
    """

    def __init__(self, path: str | Path, stage2: str | Path | None = None) -> None:
        self.stage1, self.stage2 = stages_of(path, stage2)
        self.path, self.name = self.stage1.path.parent, Path(path).resolve().name
        self._foreign = str(path).startswith(HUB)
        self.config_file = self.path / "pipeline.yaml"

    def __str__(self) -> str:
        return str(self.path)

    def network(self) -> MultiExitNetwork:
        """Loads the trained network from its checkpoint; nothing else is read or downloaded.

        Raises:
            FileNotFoundError: If the pipeline has not ended.
            ValueError: If the checkpoint does not fit the config.
        """
        check_finished(self.path, self.stage1)
        self.stage1.check_unchanged(self.stage1.best)
        if self._foreign:  # the checkpoint is not read once more for a run of one's own
            restore = load_checkpoint(self.stage1.best).get("restore_args", {})
            self._check_trusted([self.stage1.config["model"]["init_args"]["net"], restore])
        return trained_network(self.stage1, self.stage1.best)

    def policies(self, label: str | None = None) -> dict[str, Policy]:
        """The fitted policies by their labels, in the order of the config.

        Args:
            label: The only one to load; by default all are.

        Raises:
            FileNotFoundError: If the pipeline has not ended.
            ValueError: If there is no such policy, or the checkpoint does not fit the config.
        """
        check_finished(self.path, self.stage1, self.stage2)
        self.stage2.check_unchanged(self.stage2.best)
        config = self.stage2.config["model"]["init_args"]["policies"]
        self._check_trusted(config)
        policies = {policy.label: policy for policy in build(list[Policy], config)}
        if label is not None and label not in policies:
            raise ValueError(f"policy={label!r}: {self} holds {list(policies)}")
        policies = {name: p for name, p in policies.items() if label in (None, name)}
        for name, policy in policies.items():
            _load(policy, self.stage2, f"policies.{name}.", self.stage2.best)
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
        self._check_trusted({"class_path": config["class_path"]})
        name = config["class_path"].rpartition(".")[2]
        if hasattr(data, f"{name}Source") and config["class_path"] == f"eenet.data.{name}":
            source = f"eenet.data.{name}Source"
            made = build(data.DataSource, config | {"class_path": source})
        else:
            from lightning import LightningDataModule

            made = build(LightningDataModule, config)
        checkpoint = load_checkpoint(self.stage1.best) if self.stage1.best.is_file() else {}
        if name in checkpoint:
            made.load_state_dict(checkpoint[name])
        return made

    def _check_trusted(self, config: Any) -> None:
        """Lets what comes from the hub name nothing to import but eenet's own classes."""
        for key, value in _words(config) if self._foreign else ():
            named = key == "class_path" or (key != "exits" and _DOTTED.fullmatch(value))
            if key == "trust_remote_code" or (named and not _OWN.fullmatch(value)):
                raise ValueError(
                    f"{key}={value!r}: a run from the hub may only name classes of eenet, since "
                    "others could run any code. If you trust it, download it (`hf download "
                    "USER/NAME --local-dir FOLDER`), read its config.yaml, and give the folder"
                )

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
        """Everything that must be equal for runs to be seeds of one set-up."""
        samples = load_outputs(self.stage1.outputs_file("test")).num_samples
        setup: dict[str, Any] = {"test": {"samples": samples}}
        for name, stage in (("stage1", self.stage1), ("stage2", self.stage2)):
            setup[name] = (stage.identity() or {}) | {"seed_everything": None}
        return setup


_DOTTED = re.compile(r"[^\W\d]\w*(\.\w+)+")
_OWN = re.compile(r"eenet\.(data|models|policies)\.\w+")


def _words(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The plain values in a config with their keys, as text."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _words(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner, key)
    else:
        yield key, str(value)


def trained_network(stage: StageFolder, checkpoint: Path) -> MultiExitNetwork:
    """The network of stage 1 by its config, with the weights of one of its checkpoints."""
    config = dict(stage.config["model"]["init_args"]["net"])
    restore = load_checkpoint(checkpoint).get("restore_args", {})
    known = ArgumentParser().add_class_arguments(resolve_name(config["class_path"]))
    if restore.keys() <= set(known):  # a subclass that takes other arguments is built as it was
        config["init_args"] = {**config.get("init_args", {}), **restore}
    net: MultiExitNetwork = build(MultiExitNetwork, config)
    _load(net, stage, "net.", checkpoint)
    return net


def build(kind: Any, config: Any) -> Any:
    """Builds what a config of `class_path` and `init_args` (or a list of them) describes."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=kind)
    return parser.instantiate(parser.parse_object({"it": copy.deepcopy(config)})).it


def _load(module: nn.Module, stage: StageFolder, prefix: str, checkpoint: Path) -> None:
    state = load_part(checkpoint, prefix)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{checkpoint} does not fit {stage.config_file}, or another version of eenet wrote it; "
            f"run that stage again. {error}"
        ) from error
