"""Layers that the networks for images share."""

from itertools import pairwise
from typing import Any, Literal

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock, Bottleneck

from eenet.models.base import MultiExitNetwork


def conv_block(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias, padded to keep the size at stride 1, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )


def image_stem(kind: str, in_channels: int, channels: int) -> nn.Sequential:
    """The first layers for images `[B, in_channels, H, W]`, giving `channels` feature maps.

    Args:
        kind: "cifar" (3x3 at full resolution) or "imagenet" (7x7 with stride 2 and 3x3 max
            pooling, a quarter of the resolution).
        in_channels: Channels of the images.
        channels: Channels of the feature maps.

    Raises:
        ValueError: If the kind is neither.
    """
    if kind == "cifar":
        return conv_block(in_channels, channels, 3)
    if kind == "imagenet":
        pool = nn.MaxPool2d(3, stride=2, padding=1)
        return conv_block(in_channels, channels, 7, stride=2).append(pool)
    raise ValueError(f"stem={kind!r} must be 'cifar' or 'imagenet'")


def image_head(channels: int, num_classes: int, convs: int = 0) -> nn.Sequential:
    """A classifier on a feature map `[B, channels, H, W]`, giving logits `[B, num_classes]`.

    Args:
        channels: Channels of the feature map.
        num_classes: Number of classes.
        convs: 3x3 convolutions (stride 2, batch norm, ReLU) before the pooling, as in the early
            heads of EENet's authors.
    """
    layers = [layer for _ in range(convs) for layer in conv_block(channels, channels, 3, stride=2)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
    )


def initialize(net: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """Draws the convolutions after He et al. 2015, and sets the biases of linear layers to zero."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


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
