"""A wide, shallow ResNet with four exits: 68% on CIFAR-100 after 42 minutes on one core.

Its shape is that of the networks which win speed contests on CIFAR-10 (Page 2018, "How to train
your ResNet"; Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", arXiv:2404.00498): a fixed whitening
layer, few layers, many channels. It is a network of one's own as `class_path` takes it:

    eenet pipeline --config experiments/fast_resnet.yaml
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from eenet.models import MultiExitNetwork
from eenet.models.layers import image_head


class FastResNet(MultiExitNetwork):
    """Exits after block 1, within block 2, after block 2 and at the end (118 M MACs without heads).

    Args:
        num_classes: Number of classes.
        widths: Channels of the three blocks.
        head_convs: 3x3 convolutions in each of the four heads.
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: tuple[int, int, int] = (64, 256, 256),
        head_convs: Sequence[int] = (2, 1, 0, 0),
    ) -> None:
        one, two, three = widths
        stages = [
            nn.Sequential(Whitening(), Halve(24, one), Residual(one)),
            Halve(one, two),
            Residual(two),
            nn.Sequential(Halve(two, three), Residual(three)),
        ]
        channels = (one, two, two, three)
        heads = [
            image_head(width, num_classes, convs)
            for width, convs in zip(channels, head_convs, strict=True)
        ]
        super().__init__(stages, heads, num_classes)
        self.to(memory_format=torch.channels_last)


class Whitening(nn.Module):
    """Decorrelates 2 x 2 patches of RGB images; fixed but for its bias (Jordan 2024, section 3.2).

    The filters are the scaled eigenvectors of the patches' covariance, and their negatives. They
    come from the two photos inside scikit-learn, at about the scale of CIFAR's images.
    """

    def __init__(self) -> None:
        super().__init__()
        photos = torch.stack([torch.tensor(x) for x in load_sample_images().images])
        small = F.avg_pool2d(photos.movedim(-1, 1).float(), 8)
        scaled = (small - small.mean((0, 2, 3), keepdim=True)) / small.std((0, 2, 3), keepdim=True)
        patches = F.unfold(scaled, 2).movedim(1, -1).flatten(0, 1)
        variance, vectors = torch.linalg.eigh(patches.T.cov())
        filters = (vectors / (variance + 1e-2).sqrt()).T.reshape(-1, 3, 2, 2)
        self.register_buffer("weight", torch.cat([filters, -filters]))
        self.bias = nn.Parameter(torch.zeros(len(self.weight)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, 3, H, W]` to `[B, 24, H-1, W-1]`."""
        return F.gelu(F.conv2d(x, self.weight, self.bias))


class Halve(nn.Sequential):
    """A 3x3 convolution and max pooling, which halves the resolution."""

    def __init__(self, channels: int, out: int) -> None:
        conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        super().__init__(conv, nn.MaxPool2d(2), nn.BatchNorm2d(out), nn.GELU())


class Residual(nn.Module):
    """A 3x3 convolution that is added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.change = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape `[B, channels, H, W]`."""
        return x + self.change(x)
