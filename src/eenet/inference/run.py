"""A finished run folder as a network and a policy."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock, Bottleneck

from eenet.files import load_part
from eenet.models import MultiExitNetwork
from eenet.policies import Policy


def load_run(folder: str | Path, label: str | None = None) -> tuple[MultiExitNetwork, Policy, Any]:
    """Loads what `eenet pipeline` left.

    Args:
        folder: The run folder.
        label: Label of the policy; by default the first of the run.

    Returns:
        The network, the policy, and the unit of the run's budgets.

    Raises:
        FileNotFoundError: If the folder is not that of a finished run.
        ValueError: If it holds no such policy, or a checkpoint does not fit its config.
    """
    policies = load_policies(folder, label)
    stage1, stage2 = (stage_config(folder, stage)["model"]["init_args"] for stage in (1, 2))
    net = build(MultiExitNetwork, stage1["net"])
    _load(net, folder, 1, "net.")
    return net, next(iter(policies.values())), stage2["budget_unit"]


def load_policies(folder: str | Path, label: str | None = None) -> dict[str, Policy]:
    """The fitted policies of a finished run by their labels, in the order of its config.

    Args:
        folder: The run folder.
        label: The only one to load; by default all are.

    Raises:
        FileNotFoundError: If the folder is not that of a finished run.
        ValueError: If it holds no such policy, or a checkpoint does not fit its config.
    """
    for stage in ("stage1", "stage2"):
        if not (Path(folder) / stage / "checkpoints" / "best.ckpt").is_file():
            raise FileNotFoundError(
                f"{folder} is not the folder of a finished run: {stage}/checkpoints/best.ckpt is "
                "missing. Give the run_dir of an `eenet pipeline` that has ended."
            )
    config = stage_config(folder, 2)["model"]["init_args"]["policies"]
    policies = {policy.label: policy for policy in build(list[Policy], config)}
    chosen = {name: policy for name, policy in policies.items() if label in (None, name)}
    if not chosen:
        raise ValueError(f"policy={label!r}: {folder} holds {list(policies)}")
    for name, policy in chosen.items():
        _load(policy, folder, 2, f"policies.{name}.")
    return chosen


def fold(net: MultiExitNetwork) -> MultiExitNetwork:
    """Folds batch norms into the convolutions before them, in place: for inference only.

    Only where the order is known: in `nn.Sequential` and in torchvision's residual blocks.
    """
    known = (nn.Sequential.forward, BasicBlock.forward, Bottleneck.forward)
    for module in net.eval().modules():
        if type(module).forward in known:
            children: list[tuple[str, Any]] = list(module.named_children())
            for (name, conv), (after, norm) in pairwise(children):
                pair = (type(conv), type(norm)) == (nn.Conv2d, nn.BatchNorm2d)
                if pair and norm.track_running_stats:
                    setattr(module, name, fuse_conv_bn_eval(conv, norm))
                    setattr(module, after, nn.Identity())
    return net


def stage_config(folder: str | Path, stage: int) -> dict[str, Any]:
    """The resolved config of stage 1 or 2."""
    path = Path(folder) / f"stage{stage}" / "config.yaml"
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def build(kind: Any, config: Any) -> Any:
    """What a config of `class_path` and `init_args` (or a list of them) describes."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=kind)
    return parser.instantiate(parser.parse_object({"it": config})).it


def _load(module: nn.Module, folder: str | Path, stage: int, prefix: str) -> None:
    path = Path(folder) / f"stage{stage}" / "checkpoints" / "best.ckpt"
    own = load_part(path, prefix)
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(
            f"{path} does not fit stage{stage}/config.yaml, or another version of eenet wrote it; "
            f"run that stage again. {error}"
        ) from error
