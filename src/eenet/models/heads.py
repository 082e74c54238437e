"""Exit heads for feature maps."""

from torch import nn


def image_head(channels: int, num_classes: int, convs: int = 0) -> nn.Sequential:
    """A classifier on a feature map `[B, channels, H, W]`, giving logits `[B, num_classes]`.

    Args:
        channels: Channels of the feature map.
        num_classes: Number of classes.
        convs: 3x3 convolutions (stride 2, batch norm, ReLU) before the pooling, as in the early
            heads of EENet's authors.
    """
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers += [
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
    )
