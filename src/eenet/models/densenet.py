"""DenseNet-BC (Huang et al. 2017) with exits after chosen dense blocks."""

from collections.abc import Sequence
from typing import Literal

from torch import nn
from torchvision.models.densenet import _DenseBlock, _Transition

from eenet.models.base import MultiExitNetwork, check_exits
from eenet.models.layers import image_head, image_stem, initialize


class DenseNet(MultiExitNetwork):
    """DenseNet with an exit after each dense block; DenseNet121 by default.

    Blocks and transitions are torchvision's. What a dense block leaves is not normalized: each
    transition and each head begins with a batch norm and a ReLU of its own. So the last exit is
    torchvision's DenseNet, `norm5` and classifier included, and an early exit takes nothing from
    the path to the next. EENet's "DenseNet121-4" (Ilhan et al. 2024) is `stem="cifar"`,
    `num_classes=100`, `head_convs=3`.

    Args:
        blocks: Layers in each dense block.
        exits: After which dense blocks (counted from 1) an exit stands, increasing; the last must
            be the last block.
        num_classes: Number of classes.
        stem: "cifar" (one 3x3 convolution, full resolution) or "imagenet" (7x7 with stride 2 and
            3x3 max pooling, a quarter of the resolution).
        growth_rate: Channels that each layer adds.
        stem_channels: Channels of the stem; twice the growth rate in the paper.
        in_channels: Channels of the input images.
        drop_rate: Dropout after each layer.
        head_convs: 3x3 convolutions in each early head before its pooling.

    Raises:
        ValueError: If the stem is unknown, a block is empty or the exits are not as described.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (6, 12, 24, 16),
        exits: Sequence[int] = (1, 2, 3, 4),
        num_classes: int = 100,
        stem: Literal["cifar", "imagenet"] = "cifar",
        growth_rate: int = 32,
        stem_channels: int = 64,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        head_convs: int = 0,
    ) -> None:
        if not blocks or min(blocks) < 1:
            raise ValueError(f"blocks={list(blocks)} must be numbers of layers, each at least 1")
        exits = check_exits(exits, len(blocks))

        stages: list[nn.Module] = []
        heads: list[nn.Module] = []
        stage: list[nn.Module] = [*image_stem(stem, in_channels, stem_channels)]
        channels = stem_channels
        for number, layers in enumerate(blocks, start=1):
            if number > 1:
                stage.append(_Transition(channels, channels // 2))
                channels //= 2
            stage.append(_DenseBlock(layers, channels, 4, growth_rate, drop_rate))
            channels += layers * growth_rate
            if number in exits:
                stages.append(nn.Sequential(*stage))
                convs = 0 if number == exits[-1] else head_convs
                norm = (nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
                heads.append(nn.Sequential(*norm, image_head(channels, num_classes, convs)))
                stage = []
        super().__init__(stages, heads, num_classes)
        initialize(self, "fan_in")
