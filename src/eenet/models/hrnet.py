"""High-resolution networks for semantic segmentation with an exit after each stage."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eenet.extras import require
from eenet.models.base import MultiExitNetwork, null_is_none
from eenet.models.layers import conv_block
from eenet.models.sources import load_network
from eenet.models.weights import take_weights

_Branches = list[Tensor]
# What follows the stages, in timm's networks for classes and in the authors' for segmentation.
_UNUSED = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.", "last_layer.")


class HRNet(MultiExitNetwork):
    """HRNet (Wang et al. 2020) with exits after its four stages.

    The state is the list of branches, finest first, `[B, C_s, H / 4 / 2^s, W / 4 / 2^s]`: one after
    stage 1, four after stage 4. Every exit has HRNetV2's segmentation head: all branches at the
    size of the finest, side by side, then a 1x1 convolution of that width with batch norm and ReLU,
    and one to the classes. Logits are `[E, B, C, H / 4, W / 4]`; whoever needs them per pixel
    enlarges them bilinearly, as the authors do. Stem and stages are timm's, run one by one.

    Args:
        name: timm's name of the network: "hrnet_w18", "hrnet_w48", "hrnet_w18_small", ...
        num_classes: Number of classes; 19 for Cityscapes.
        weights: None for random ones, "DEFAULT" for those that timm downloads (ImageNet), or the
            path of a file of weights of timm's or the authors' network, with its head or without.

    Raises:
        ModuleNotFoundError: If timm is not installed.
        ValueError: If timm has no such HRNet, or `weights` is none of these or cannot be had. In
            `forward`, if the height or the width of the images is not a multiple of 32.
    """

    def __init__(
        self, name: str = "hrnet_w18", num_classes: int = 19, weights: str | None = None
    ) -> None:
        timm = require("timm", "seg")
        if name not in (known := timm.list_models("hrnet*")):
            raise ValueError(f"name={name!r} is none of timm's HRNets: {known}")
        weights = null_is_none(weights)
        file = weights if weights and Path(weights).is_file() else None
        model: Any = load_network(f"timm:{name}", weights=None if file else weights).model
        if file:
            take_weights(model, file, fresh=_UNUSED)
        stem = (model.conv1, model.bn1, model.act1, model.conv2, model.bn2, model.act2)
        stages: list[nn.Module] = [_First(*stem, model.layer1)]
        widths = [model.layer1[-1].conv3.out_channels]
        for k in (2, 3, 4):
            stage = getattr(model, f"stage{k}")
            stages.append(_Stage(getattr(model, f"transition{k - 1}"), stage))
            widths.append(sum(stage[-1].get_num_in_chs()))
        super().__init__(stages, [_Head(width, num_classes) for width in widths], num_classes)
        self.restore_args = {"weights": None}

    def begin(self, x: Tensor) -> Tensor:
        """The images as they are, if the branches halve them evenly."""
        if x.shape[-2] % 32 or x.shape[-1] % 32:
            raise ValueError(
                f"images of {x.shape[-2]} x {x.shape[-1]}: HRNet needs multiples of 32; set "
                "image_size and crop of the data accordingly"
            )
        return x


class _First(nn.Sequential):
    """Stem and stage 1, which has one branch."""

    def forward(self, x: Tensor) -> _Branches:
        return [super().forward(x)]  # type: ignore[no-untyped-call]


class _Stage(nn.Module):
    """Opens a coarser branch and runs the stage on all of them."""

    def __init__(self, transition: nn.ModuleList, stage: nn.Module) -> None:
        super().__init__()
        self.transition, self.stage = transition, stage

    def forward(self, branches: _Branches) -> _Branches:
        # As in the authors' code, what changes shape comes from the coarsest branch.
        opened = [
            branches[i] if isinstance(change, nn.Identity) else change(branches[-1])
            for i, change in enumerate(self.transition)
        ]
        result: _Branches = self.stage(opened)
        return result


class _Head(nn.Module):
    """HRNetV2's head (Sun et al. 2019, section 3.2)."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*conv_block(width, width, 1), nn.Conv2d(width, num_classes, 1))

    def forward(self, branches: _Branches) -> Tensor:
        size = branches[0].shape[2:]
        coarse = (F.interpolate(b, size, mode="bilinear") for b in branches[1:])
        logits: Tensor = self.layers(torch.cat([branches[0], *coarse], dim=1))
        return logits
