"""Exits in any network, by the names of its modules."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torchvision.ops import Permute

from eenet.models.base import MultiExitNetwork, null_is_none
from eenet.models.cutting import Graph, Size, cut
from eenet.models.layers import image_head
from eenet.models.sources import load_network

Pooling = Literal["auto", "first", "mean"]


class Backbone(MultiExitNetwork):
    """A network with exits behind named modules and its own classifier at the end.

    The network is cut where the named modules end, by tracing (`torch.fx`) only the `forward` of
    the modules around them, in evaluation mode: dropout that such a `forward` calls as a function
    is left out. Everything else runs as it was written. The last exit is the original network.
    Early heads normalize their features (batch norm for maps, layer norm for tokens and
    vectors), pool maps, take one token or the mean of all, and classify by a linear layer; another
    head can be put into `heads[k]`. `eenet exits MODEL` lists the modules that exits can stand
    behind, and what they cost.

    Args:
        model: A name of torchvision ("resnet50"), "timm:NAME", "hf:ID_OR_FOLDER" of an image
            classifier, "hf:MODEL_TYPE" for one by its configuration (`options`), the dotted name of
            a class or function ("mynet.Net"), or a `torch.nn.Module` that takes one tensor and
            returns logits `[B, C]`. A module is used as it is, not copied, and counts as trained.
        exits: Names of the modules behind which early exits stand, in the order in which they run:
            "layer1", or with dots "blocks.3", "encoder.layers.encoder_layer_5".
        num_classes: Number of classes, by default those of the network. If its weights are for
            another number, the classifier's last layer starts from scratch.
        weights: "DEFAULT" for those that belong to the name, which may be downloaded; one of
            torchvision's by name ("IMAGENET1K_V2"); the path of a file of weights of this network,
            with its classifier or without; None for random ones, or the module's own.
        head_convs: 3x3 convolutions in each early head on maps before its pooling.
        pooling: What early heads see of tokens `[B, T, D]`: the "first" (a class token), their
            "mean", or "auto", the mean if the tokens are a grid in the image's proportions.
        input_size: Shape of one sample, by default that for which the network was made; else 3
            channels of 224 x 224. What the network computes from it is taken as constant between
            stages.
        options: Further arguments of the named network, such as `{"img_size": 64}` for a ViT of
            timm, `{"image_size": 64}` for torchvision's, or a configuration of transformers.

    Raises:
        ModuleNotFoundError: If timm or transformers is needed and not installed.
        ValueError: If there is no such network or weights, torch.fx cannot trace the network, or an
            exit is not a module of it, is out of order or is bypassed by a connection.
    """

    def __init__(
        self,
        model: Any,  # str or nn.Module, of which a parser would list every subclass
        exits: Sequence[str],
        num_classes: int | None = None,
        weights: str | None = None,
        head_convs: int = 0,
        pooling: Pooling = "auto",
        input_size: Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        source = load_network(model, num_classes, null_is_none(weights), options)
        size = tuple(input_size or source.size)
        graph = Graph(source.model, size, exits)
        stages, classifier, shapes = cut(graph, list(exits))
        classes = graph.shape(graph.nodes[-1])[0]
        early = [_head(shape, size, classes, head_convs, pooling) for shape in shapes[:-1]]
        super().__init__(stages, [*early, classifier], classes)
        self.trained, self.trained_stages = source.trained, source.trained_stages
        self.restore_args = source.restore
        self.channel_dim = 1 if len(shapes[0]) == 3 and not _channels_last(shapes[0], size) else -1


class TorchvisionBackbone(Backbone):
    """A torchvision classifier with exits behind named modules: `Backbone` by another name.

    Args:
        name: torchvision's name of the network.
        exits: See `Backbone`, as for all that follow.
        num_classes: Number of classes.
        weights: torchvision's by name, "DEFAULT", or the path of a file.
        head_convs: 3x3 convolutions in each early head before its pooling.
        image_size: Height and width of the images, for a ViT of another size than its usual.
        options: Further arguments of torchvision's network.
    """

    def __init__(
        self,
        name: str = "resnet50",
        exits: Sequence[str] = ("layer1", "layer2", "layer3"),
        num_classes: int = 1000,
        weights: str | None = None,
        head_convs: int = 0,
        image_size: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        size = None if image_size is None else (3, image_size, image_size)
        if size and name.startswith("vit"):  # the only networks that are built for one size
            options = {**(options or {}), "image_size": image_size}
        super().__init__(name, exits, num_classes, weights, head_convs, "first", size, options)


def _head(shape: Size, size: Size, num_classes: int, convs: int, pooling: Pooling) -> nn.Sequential:
    """An early head for features of this shape of samples of that size."""
    if len(shape) == 3:
        last = _channels_last(shape, size)
        channels, order = (shape[-1], [Permute([0, 3, 1, 2])]) if last else (shape[0], [])
        # Not every network's features are normalized, and a frozen one cannot adapt their scale.
        norm = nn.BatchNorm2d(channels)
        return nn.Sequential(*order, norm, image_head(channels, num_classes, convs))
    if len(shape) not in (1, 2):
        raise ValueError(
            f"exits: no head is known for features {list(shape)} of a sample; choose modules that "
            "give maps [channels, height, width], tokens [tokens, width] or vectors"
        )
    mean = pooling == "mean" or (pooling == "auto" and _is_grid(shape[0], size))
    pool = [_Token(mean)] if len(shape) == 2 else []
    return nn.Sequential(*pool, nn.LayerNorm(shape[-1]), nn.Linear(shape[-1], num_classes))


def _channels_last(shape: Size, size: Size) -> bool:
    """Whether features are maps `[H, W, C]` (Swin): such have the image's proportions in front."""
    if len(shape) != 3 or len(size) != 3:
        return False
    return shape[0] * size[2] == shape[1] * size[1] and shape[1] * size[2] != shape[2] * size[1]


def _is_grid(tokens: int, size: Size) -> bool:
    """Whether so many tokens are a grid in the proportions of the image, without a class token."""
    rows, rest = divmod(tokens * size[-2], size[-1]) if len(size) == 3 else (0, 1)
    return not rest and math.isqrt(rows) ** 2 == rows


class _Token(nn.Module):
    """Takes the first token out of `[B, T, D]`, or the mean of all."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1) if self.mean else tokens[:, 0]
