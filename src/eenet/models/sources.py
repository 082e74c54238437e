"""Networks with one exit by name: torchvision's, timm's, those of transformers, one's own."""

import json
from difflib import get_close_matches
from inspect import signature
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
    trained_stages: bool
    """Whether what stands before the classifier comes trained."""
    size: tuple[int, ...]
    """Shape of the samples for which it was made."""
    restore: Options
    """Arguments that replace others to build it again without weights."""


def load_network(
    model: str | nn.Module,
    num_classes: int | None = None,
    weights: str | None = None,
    options: Options | None = None,
) -> Source:
    """Builds a network from its name; `Backbone` describes the arguments.

    Raises:
        ModuleNotFoundError: If timm or transformers is needed and not installed.
        ValueError: If there is no such network or weights, or they cannot be downloaded.
    """
    options, is_file = dict(options or {}), weights is not None and Path(weights).is_file()
    named, classes, restore = (None if is_file else weights), num_classes, Options()
    if isinstance(model, nn.Module):
        net, trained = model, True
        if named:
            raise ValueError(f"weights={named!r}: there is no such file")
    elif not isinstance(model, str):
        raise ValueError(f"model={model!r} must be a name (with `options`) or a torch.nn.Module")
    else:
        kind, colon, name = model.partition(":")
        if not colon:
            kind, name = ("own" if "." in model else "torchvision"), model
        try:
            net, classes, restore = _build(kind, name, num_classes, named, options)
        except _FAULTS as error:
            if isinstance(error, ModuleNotFoundError) and kind != "own":
                raise
            given = f"model={model!r}" + (f", weights={named!r}" if named else "")
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"{given} cannot be built or downloaded: {reason}; weights may also be the path of "
                "a file, or null for random ones"
            ) from error
        restore, trained = {"weights": None, "options": options} | restore, named is not None
    kept = fit_classifier(net, num_classes) and num_classes in (None, classes)
    if is_file and weights:
        classifier = f"{_classifier(net)[0]}."
        # Auxiliary classifiers only serve torchvision's own training.
        taken = take_weights(net, weights, (classifier, "aux1.", "aux2.", "AuxLogits."))
        trained, kept = True, f"{classifier}weight" in taken
    net.train()  # transformers hands out networks in evaluation mode
    return Source(net, trained and kept, trained, _size(net, options), restore)


_FAULTS = (AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)


def _build(
    kind: str, name: str, classes: int | None, weights: str | None, options: Options
) -> tuple[Any, int | None, Options]:
    """A network, the classes of its weights, and further `Source.restore`."""
    model: Any
    given: Options = {} if classes is None else {"num_classes": classes}
    if kind == "torchvision":
        models = torchvision.models
        _check("network", name, models.list_models(module=models))
        own = [entry.name for entry in models.get_model_weights(name)]
        _check("weights", weights, [None, "DEFAULT", *own])
        model = models.get_model(name, **options, **({"weights": weights} if weights else given))
        # What weights change of the architecture.
        if hasattr(model, "transform_input"):  # GoogLeNet, Inception
            options |= {"transform_input": model.transform_input, "init_weights": False}
        if hasattr(model, "image_size"):  # vision transformers
            options["image_size"] = model.image_size
        return model, 1000, {}
    _check("weights", weights, [None] if kind == "own" else [None, "DEFAULT"])
    if kind == "timm":
        timm = require("timm", "timm")
        if not timm.is_model(name):
            _check("network", name, timm.list_models())
        model = timm.create_model(name, pretrained=weights is not None, **options, **given)
        return model, model.pretrained_cfg["num_classes"], {}
    if kind == "hf":
        transformers = require("transformers", "text")
        models = transformers.AutoModelForImageClassification
        configs, known = transformers.AutoConfig, name in transformers.CONFIG_MAPPING
        options.pop("model_type", None)  # which a whole configuration holds as well
        config = (configs.for_model if known else configs.from_pretrained)(name, **options)
        before, config.num_labels = config.num_labels, classes or config.num_labels
        settings = {"config": config, "dtype": torch.float32, "ignore_mismatched_sizes": True}
        model = models.from_pretrained(name, **settings) if weights else models.from_config(config)
        whole = json.loads(config.to_json_string(use_diff=False))
        return model, before, {"model": f"hf:{config.model_type}", "options": whole}
    if kind != "own":
        raise ValueError(f"before the colon stands timm or hf, not {kind!r}")
    make = resolve_name(name)
    model = make(**options, **(given if "num_classes" in signature(make).parameters else {}))
    if not isinstance(model, nn.Module):
        raise ValueError(f"it gives {type(model).__name__}, not a torch.nn.Module")
    return model, classes, {}


def _check(what: str, name: str | None, known: list[Any]) -> None:
    if name not in known:
        close = get_close_matches(str(name), map(str, known), n=1) if len(known) > 9 else known
        raise ValueError(f"there is no {what} {name!r}" + (f", but {close}" if close else ""))


def _size(model: Any, options: Options) -> tuple[int, ...]:
    known = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))
    about = getattr(model, "config", model)
    channels = options.get("in_chans") or getattr(about, "num_channels", known[0])
    size = options.get("img_size") or getattr(about, "image_size", None) or known[1:]
    return (channels, size, size) if isinstance(size, int) else (channels, *size)


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
    model.set_submodule(path, new)
    return False
