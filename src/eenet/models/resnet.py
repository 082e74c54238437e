"""ResNets for small images (He et al. 2016, section 4.2) with exits after chosen blocks."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from eenet.models.base import MultiExitNetwork, check_exits, null_is_none
from eenet.models.layers import conv_block, image_head
from eenet.models.weights import take_weights

_BLOCKS = {"basic": (BasicBlock, 2), "bottleneck": (Bottleneck, 3)}
"""Of each kind, with how many layers."""


class CifarResNet(MultiExitNetwork):
    """ResNet-20/32/44/56/... for small images, three groups of 16-32-64 channels by default.

    The blocks are torchvision's. A change of shape is projected by a 1x1 convolution (option B of
    the paper), or padded with zeros, without parameters (option A, of most published networks).
    EENet's
    "ResNet56-3" (Ilhan et al. 2024) is `depth=56, exits=[9, 18, 27]`; the authors' code builds the
    same 9-9-9 layout from bottleneck blocks, which is `depth=83, block="bottleneck"` with the same
    exits (0.87 M parameters before heads).

    Args:
        depth: Number of weighted layers: 6n + 2 for basic blocks, 9n + 2 for bottleneck blocks,
            with n blocks in each of the three groups.
        exits: After which blocks (counted from 1 over all groups) an exit stands, increasing; the
            last must be the last block, 3n.
        num_classes: Number of classes.
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1, four times wider).
        in_channels: Channels of the input images, which may have any size from 8 x 8.
        widths: Channels of the three groups (times four at the output of bottleneck blocks).
        head_convs: 3x3 convolutions in each early head before its pooling (EENet's authors use 3;
            0 is pooling and one linear layer).
        shortcut: "project" or "pad", what a shortcut does where the shape changes.
        weights: File with weights of a network with one exit, under the usual names ("conv1",
            "layer1.0.bn1", "fc" or "linear"). Early heads start from scratch, and so does the last
            one if the file is for another number of classes.

    Raises:
        ValueError: If the depth fits no such network or the exits are not as described.
    """

    def __init__(
        self,
        depth: int = 20,
        exits: Sequence[int] = (3, 6, 9),
        num_classes: int = 10,
        block: Literal["basic", "bottleneck"] = "basic",
        in_channels: int = 3,
        widths: tuple[int, int, int] = (16, 32, 64),
        head_convs: int = 0,
        shortcut: Literal["project", "pad"] = "project",
        weights: str | None = None,
    ) -> None:
        block_class, layers = _BLOCKS[block]
        per_group, rest = divmod(depth - 2, 3 * layers)
        if rest or per_group < 1:
            raise ValueError(f"depth={depth} fits no {block} ResNet: it must be {3 * layers}n + 2")
        exits = check_exits(exits, 3 * per_group)

        stages: list[nn.Module] = []
        heads: list[nn.Sequential] = []
        stem = conv_block(in_channels, widths[0], 3)
        stage: list[nn.Module] = [stem]
        channels = widths[0]
        for index in range(3 * per_group):
            width = widths[index // per_group]
            stride = 2 if index and index % per_group == 0 else 1
            stage.append(_residual(block_class, channels, width, stride, shortcut))
            channels = width * block_class.expansion
            if index + 1 in exits:
                stages.append(nn.Sequential(*stage))
                last = index + 1 == exits[-1]
                heads.append(image_head(channels, num_classes, 0 if last else head_convs))
                stage = []
        super().__init__(stages, heads, num_classes)
        self.restore_args = {"weights": None}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if (weights := null_is_none(weights)) is not None:
            blocks = [m for m in self.modules() if isinstance(m, block_class)]
            self.trained = _take_published(stem, blocks, heads[-1], weights)
        # Convolutions are about a third faster in this layout. Widths that are not multiples of 8
        # corrupted memory in it (torch 2.14, backward pass on CPU).
        if all(width % 8 == 0 for width in widths):
            self.to(memory_format=torch.channels_last)


def _residual(
    block: type[BasicBlock] | type[Bottleneck],
    channels: int,
    width: int,
    stride: int,
    shortcut: Literal["project", "pad"],
) -> nn.Module:
    out = width * block.expansion
    change: nn.Module | None = None
    if stride != 1 or channels != out:
        conv = nn.Conv2d(channels, out, 1, stride, bias=False)
        project = nn.Sequential(conv, nn.BatchNorm2d(out))
        change = project if shortcut == "project" else _Pad(out - channels, stride)
    residual: nn.Module = block(channels, width, stride, change)
    return residual


class _Pad(nn.Module):
    """Takes every `stride`-th pixel and adds channels of zeros, half of them on either side."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.before, self.after = channels // 2, channels - channels // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


def _take_published(
    stem: nn.Sequential, blocks: list[nn.Module], head: nn.Sequential, path: str
) -> bool:
    """Loads a network with one exit; says whether its classifier was taken, too."""
    single, third = nn.Module(), len(blocks) // 3
    single.conv1, single.bn1, single.fc = stem[0], stem[1], head[-1]
    for k in range(3):
        setattr(single, f"layer{k + 1}", nn.Sequential(*blocks[k * third : (k + 1) * third]))
    words = {"linear": "fc", "classifier": "fc", "shortcut": "downsample"}
    return "fc.weight" in take_weights(single, path, ("fc.",), words)
