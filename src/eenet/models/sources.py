"""Networks by name: torchvision's, timm's, those of transformers, or one's own."""

import inspect
import json
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn

from eenet.extras import require
from eenet.models.weights import take_weights

Options = dict[str, Any]


class Source(NamedTuple):
    """A network with one exit."""

    model: nn.Module
    trained: bool
    """Whether its classifier comes trained for the classes."""
    size: tuple[int, ...]
    """Shape of a sample that it takes."""
    restore: Options
    """Arguments of `load_network` by which it is built again without weights."""


def load_network(
    model: str | nn.Module,
    num_classes: int | None = None,
    weights: str | None = None,
    options: Options | None = None,
) -> Source:
    """Builds a network from its name.

    Args:
        model: A torchvision name ("resnet50"), "timm:NAME", "hf:ID_OR_FOLDER" of an image
            classifier or "hf:MODEL_TYPE", a dotted name of a class or function ("mynet.Net"), or
            the network itself, which is used, not copied.
        num_classes: Number of classes; None for those of the network. If the weights are for
            another number, the classifier's last layer starts anew.
        weights: "DEFAULT" for those that belong to the name, which may be downloaded; torchvision's
            by name; the path of a file of weights of this network, with its classifier or without;
            None for random ones (or the module's own).
        options: Further arguments of the network.

    Raises:
        ModuleNotFoundError: If timm or transformers is needed and not installed.
        ValueError: If there is no such network or weights.
    """
    options = dict(options or {})
    if isinstance(model, nn.Module):
        trained = fit_classifier(model, num_classes) and weights is None
        source = Source(model, trained, _size(model), {})
    else:
        prefix, colon, name = model.partition(":")
        kinds: dict[str, Callable[..., Source]] = {"timm": _timm, "hf": _hugging_face}
        if colon:
            make = kinds.get(prefix)
        else:
            make, name = (_own if "." in model else _torchvision), model
        if make is None:
            raise ValueError(f"model={model!r}: before the colon stands timm or hf, not {prefix!r}")
        file = weights is not None and Path(weights).is_file()
        source = make(name, num_classes, None if file else weights, options)
        restore = {"weights": None, "options": options} | source.restore
        source = source._replace(restore=restore)
    if weights is not None and Path(weights).is_file():
        classifier = f"{_classifier(source.model)[0]}."
        # Auxiliary classifiers serve torchvision's own training alone.
        fresh = (classifier, "aux1.", "aux2.", "AuxLogits.")
        taken = take_weights(source.model, weights, fresh)
        source = source._replace(trained=f"{classifier}weight" in taken)
    source.model.train()  # transformers hands out networks in evaluation mode
    return source


def _torchvision(
    name: str, num_classes: int | None, weights: str | None, options: Options
) -> Source:
    if name not in (known := torchvision.models.list_models(module=torchvision.models)):
        raise ValueError(
            f"model={name!r} is none of torchvision's classification networks{_hint(name, known)}; "
            "see torchvision.models.list_models(module=torchvision.models), or give timm:NAME, "
            "hf:ID_OR_FOLDER or a dotted name"
        )
    make = partial(torchvision.models.get_model, name, **options)
    if weights is None:
        model = make(**_classes(num_classes))
    else:
        names = ["DEFAULT", *(entry.name for entry in torchvision.models.get_model_weights(name))]
        _check_weights(weights, name, names)
        model = _download(partial(make, weights=weights), weights, name)
    trained = fit_classifier(model, num_classes) and weights is not None
    # What torchvision's weights change of the architecture.
    if hasattr(model, "transform_input"):  # GoogLeNet, Inception
        options = options | {"transform_input": model.transform_input, "init_weights": False}
    if hasattr(model, "image_size"):  # vision transformers
        options = options | {"image_size": model.image_size}
    return Source(model, trained, _size(model), {"options": options})


def _timm(name: str, num_classes: int | None, weights: str | None, options: Options) -> Source:
    timm = require("timm", "timm")
    if not timm.is_model(name):
        raise ValueError(f"model='timm:{name}' is not in timm{_hint(name, timm.list_models())}")
    _check_weights(weights, name, ["DEFAULT"])
    make = partial(timm.create_model, name, weights is not None, **options)
    model = _download(partial(make, **_classes(num_classes)), weights, name)
    own = model.pretrained_cfg
    trained = weights is not None and num_classes in (None, own["num_classes"])
    _, *size = own["input_size"]
    size = [options.get("in_chans", 3), *(_pair(options.get("img_size")) or size)]
    return Source(model, trained, tuple(size), {})


def _hugging_face(
    name: str, num_classes: int | None, weights: str | None, options: Options
) -> Source:
    hub = require("transformers", "text")
    kind, classes = hub.AutoModelForImageClassification, {}
    _check_weights(weights, name, ["DEFAULT"])
    try:
        if name in hub.CONFIG_MAPPING:
            config = hub.AutoConfig.for_model(name, **options)
        else:
            config = hub.AutoConfig.from_pretrained(name, **options)
        before = config.num_labels
        classes = {"num_labels": num_classes or before}
        if weights is None:
            config.num_labels = classes["num_labels"]
            model = kind.from_config(config)
        else:
            model = kind.from_pretrained(
                name, **options, **classes, dtype=torch.float32, ignore_mismatched_sizes=True
            )
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"model='hf:{name}' cannot be loaded ({error}): give an image classifier's id on the "
            "hub, its folder, or its model_type with options"
        ) from error
    restore = json.loads(model.config.to_json_string(use_diff=False))
    named = {"model": f"hf:{model.config.model_type}", "options": restore}
    trained = weights is not None and num_classes in (None, before)
    return Source(model, trained, _size(model), named)


def _own(name: str, num_classes: int | None, weights: str | None, options: Options) -> Source:
    _check_weights(weights, name, [])
    try:
        make = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"model={name!r} cannot be imported: {error}") from error
    taken = "num_classes" in inspect.signature(make).parameters
    model = make(**options, **(_classes(num_classes) if taken else {}))
    if not isinstance(model, nn.Module):
        raise ValueError(f"model={name!r} gives {type(model).__name__}, not a torch.nn.Module")
    fit_classifier(model, num_classes)
    return Source(model, False, _size(model), {})


def _classes(num_classes: int | None) -> Options:
    return {} if num_classes is None else {"num_classes": num_classes}


def _hint(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _size(model: Any) -> tuple[int, ...]:
    config = getattr(model, "config", None)
    size = getattr(model, "image_size", None) or getattr(config, "image_size", None) or 224
    return (getattr(config, "num_channels", 3), *_pair(size))


def _pair(size: Any) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size or ())


def _check_weights(weights: str | None, name: str, known: list[str]) -> None:
    if weights not in (None, *known):
        raise ValueError(f"weights={weights!r} is neither a file nor one of {name}'s: {known}")


def _download(make: Callable[[], nn.Module], weights: str | None, name: str) -> Any:
    try:
        return make()
    except (OSError, RuntimeError) as error:
        if weights is None:
            raise
        raise ValueError(
            f"weights={weights!r} cannot be downloaded ({error}): give the path of a file with "
            f"{name}'s weights, or null for random ones"
        ) from error


def _classifier(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The last layer with weights: linear almost everywhere, in SqueezeNet a 1x1 convolution."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    if not layers:
        raise ValueError(f"model: {type(model).__name__} has no linear layer to classify by")
    return layers[-1]


def fit_classifier(model: nn.Module, num_classes: int | None) -> bool:
    """Gives the classifier a new last layer if need be; says whether it kept its own."""
    path, last = _classifier(model)
    classes, width = last.weight.shape[:2]
    if num_classes in (None, classes):
        return True
    linear = isinstance(last, nn.Linear)
    new = nn.Linear(width, num_classes) if linear else nn.Conv2d(width, num_classes, 1)
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
    return False
