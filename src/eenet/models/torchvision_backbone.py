"""Exits for torchvision's classification networks, attached by the names of their modules."""

import copy
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.ops import Permute

from eenet.models.base import MultiExitNetwork, null_is_none
from eenet.models.layers import image_head
from eenet.models.weights import take_weights


class TorchvisionBackbone(MultiExitNetwork):
    """A torchvision classifier with exits behind named modules and its own classifier at the end.

    The network is cut where the named modules end, by tracing only the `forward` of the modules
    around them; everything else runs as torchvision wrote it. The last exit is the original
    network, bit for bit. Early heads normalise their features (batch norm, or layer norm for
    tokens), pool them or take the class token, and classify.

    Args:
        name: torchvision's name of the network, such as "resnet50", "efficientnet_b0",
            "convnext_tiny" or "vit_b_16".
        exits: Names of the modules behind which early exits stand, in the order in which they run:
            "layer1", or with dots "features.3", "encoder.layers.encoder_layer_5".
        num_classes: Number of classes. If the weights are for another number, the classifier's
            last layer starts anew.
        weights: One of torchvision's weights by name ("IMAGENET1K_V2", "DEFAULT"), the path of a
            file of weights of this network, with its classifier or without, or None for random
            ones.
        head_convs: 3x3 convolutions in each early head before its pooling.
        image_size: Height and width of the input images, for a ViT of another size than its usual.
        options: Further arguments of torchvision's network, such as `{"transform_input": true}` for
            an Inception whose weights come from a file.

    Raises:
        ValueError: If torchvision has no such network or weights and there is no such file, or an
            exit is no module of it, is out of order or is bypassed by a connection.
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
        weights = null_is_none(weights)
        model, trained = _load(name, num_classes, weights, image_size, **(options or {}))
        *stages, classifier = _cut(model, list(exits))
        shapes = _feature_shapes(stages, getattr(model, "image_size", image_size or 224))
        # Swin's features are the only maps with channels last.
        last = isinstance(model, torchvision.models.SwinTransformer)
        early = [_head(shape, num_classes, head_convs, last) for shape in shapes[:-1]]
        super().__init__(stages, [*early, classifier], num_classes)
        self.trained = trained
        self.channel_dim = -1 if last or len(shapes[0]) == 3 else 1
        # What torchvision's weights change of the architecture.
        options = dict(options or {})
        if hasattr(model, "transform_input"):  # GoogLeNet, Inception
            options |= {"transform_input": model.transform_input, "init_weights": False}
        size = getattr(model, "image_size", image_size)
        self.restore_args = {"weights": None, "image_size": size, "options": options}


def _load(
    name: str, num_classes: int, weights: str | None, size: int | None, **options: Any
) -> tuple[nn.Module, bool]:
    """The network, and whether its classifier comes trained for these classes."""
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(
            f"name={name!r} is none of torchvision's classification networks; see "
            "torchvision.models.list_models(module=torchvision.models)"
        )
    # Only ViTs are built for one size.
    fixed = {"image_size": size} if size is not None and name.startswith("vit") else {}
    make = partial(torchvision.models.get_model, name, **fixed, **options)
    known = ["DEFAULT", *(entry.name for entry in torchvision.models.get_model_weights(name))]
    if weights is None:
        return make(num_classes=num_classes), False
    if weights in known:
        try:
            model = make(weights=weights)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"weights={weights!r} cannot be downloaded ({error}): give the path of a file with "
                f"{name}'s weights, or null for random ones"
            ) from error
        return model, _fit_classifier(model, num_classes)
    if not Path(weights).is_file():
        raise ValueError(f"weights={weights!r} is neither a file nor one of {name}'s: {known}")
    model = make(num_classes=num_classes)
    classifier = f"{_classifier(model)[0]}."
    # Auxiliary classifiers serve torchvision's own training alone.
    taken = take_weights(model, weights, fresh=(classifier, "aux1.", "aux2.", "AuxLogits."))
    return model, f"{classifier}weight" in taken


def _classifier(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The last layer with weights: linear everywhere but in SqueezeNet, which ends in a 1x1 one."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return layers[-1]


def _fit_classifier(model: nn.Module, num_classes: int) -> bool:
    """Gives the classifier a new last layer if need be; says whether it kept its own."""
    path, last = _classifier(model)
    classes, width = last.weight.shape[:2]
    if classes == num_classes:
        return True
    linear = isinstance(last, nn.Linear)
    new = nn.Linear(width, num_classes) if linear else nn.Conv2d(width, num_classes, 1)
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
    return False


class _Tracer(fx.Tracer):
    """Traces into the modules around the exits and into no others."""

    def __init__(self, exits: list[str]) -> None:
        super().__init__()
        self.exits = exits

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(name.startswith(f"{module_qualified_name}.") for name in self.exits)


def _cut(model: nn.Module, exits: list[str]) -> list[nn.Module]:
    """Cuts a network behind each exit and before its classifier, the last module that it calls."""
    # Tracing in evaluation mode leaves out what only training returns (GoogLeNet, Inception).
    graph = _Tracer(exits).trace(model.eval())
    model.train()
    nodes = list(graph.nodes)
    calls = [node for node in nodes if node.op == "call_module"]
    order = [node.target for node in calls]
    if [name for name in order if name in exits] != exits or order[-1] in exits:
        raise ValueError(
            f"exits={exits} must be modules that run in this order, none inside another, each once "
            f"and before the classifier; the modules run as {order}"
        )
    ends = [node for node in calls if node.target in exits] + [calls[-1].all_input_nodes[0]]
    cuts = [0, *(nodes.index(end) + 1 for end in ends), len(nodes)]
    parts = [nodes[start:stop] for start, stop in pairwise(cuts)]
    return [_part(model, *given) for given in zip([None, *ends], parts, strict=True)]


def _part(model: nn.Module, start: fx.Node | None, nodes: list[fx.Node]) -> nn.Module:
    """Some nodes as a module, which takes the value of the node `start` as its input."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if start is not None:
        copies[start] = part.placeholder("state")

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            raise ValueError(
                f"exits: the value {node.name!r} bypasses {start and start.target!r}; choose a "
                "module that everything passes through"
            )
        return copies[node]

    for node in nodes:
        copies[node] = part.node_copy(node, copied)
    if nodes[-1].op != "output":
        part.output(copies[nodes[-1]])
    return fx.GraphModule(model, part)


def _feature_shapes(stages: list[nn.Module], image_size: int) -> list[torch.Size]:
    """Shapes of what each stage leaves for one image, found without computing anything."""
    x, shapes = torch.empty(1, 3, image_size, image_size, device="meta"), []
    with torch.no_grad():
        for stage in stages:
            x = copy.deepcopy(stage).to("meta").eval()(x)
            shapes.append(x.shape)
    return shapes


class _ClassToken(nn.Module):
    """Takes the first token out of `[B, T, D]`."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


def _head(shape: torch.Size, num_classes: int, convs: int, channels_last: bool) -> nn.Sequential:
    if len(shape) == 3:
        width = shape[-1]
        return nn.Sequential(_ClassToken(), nn.LayerNorm(width), nn.Linear(width, num_classes))
    channels = shape[-1] if channels_last else shape[1]
    order: list[nn.Module] = [Permute([0, 3, 1, 2])] if channels_last else []
    # Not every network's features are normalised, and a frozen one cannot adapt their scale.
    return nn.Sequential(*order, nn.BatchNorm2d(channels), image_head(channels, num_classes, convs))
