"""Weights of trained networks, in the usual forms and names."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from eenet.files import load_weights
from eenet.models.base import MultiExitNetwork


def take_weights(
    model: nn.Module,
    path: str | Path,
    fresh: tuple[str, ...] = (),
    aliases: Mapping[str, str] | None = None,
    field: str = "weights",
) -> set[str]:
    """Loads a file of weights into a network.

    What a file adds in front of all names ("module.", "model.", "net.") is left out. The same
    convolutional network under other names is taken in its order, if all shapes agree.

    Args:
        model: The network, changed in place.
        path: The file, see `load_weights`.
        fresh: Beginnings of names that the file need not hold, or may hold for another task: those
            stay as they are in the network.
        aliases: Other words in names: `{"linear": "fc"}` makes "fc.bias" of "linear.bias".
        field: The setting that gave the path, for errors.

    Returns:
        The names that were taken from the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a file of weights, or one of another network.
    """
    words = aliases or {}
    state = {
        ".".join(words.get(word, word) for word in name.split(".")): tensor
        for name, tensor in _read(path, field).items()
    }
    wanted = model.state_dict()
    state = _in_order(_unwrapped(state, wanted.keys()), wanted, fresh)
    return _fill(model, state, fresh, f"{field}={str(path)!r}")


def _in_order(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor], fresh: tuple[str, ...]
) -> dict[str, Tensor]:
    """The state by the network's names, if it has none of them but the same shapes in order."""
    renamed = dict(zip(wanted, state.values(), strict=False))
    alike = len(wanted) == len(state) and not wanted.keys() & state.keys()
    for name, other in zip(renamed, state, strict=False):
        alike &= name.rpartition(".")[2] == other.rpartition(".")[2]
        # Two matrices of one shape, such as those of attention, might have changed places.
        same = state[other].shape == wanted[name].shape and state[other].dim() not in (2, 3)
        alike &= same or name.startswith(fresh)
    return renamed if alike else state


def take_up(net: MultiExitNetwork, path: str | Path, field: str = "start_from") -> set[str]:
    """Loads a trained multi-exit network, or one with exits elsewhere.

    All stages must be in the file. Heads of another form start from scratch, and with
    exits elsewhere all but the last.

    Args:
        net: The network, changed in place.
        path: A checkpoint of stage 1, or any file of weights with the network's own names.
        field: The setting that gave the path, for errors.

    Returns:
        The names that were taken from the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a file of weights, or one of another network.
    """
    state = _unwrapped(_read(path, field), net.state_dict().keys())
    return _fill(net, _moved(state, net), ("heads.",), f"{field}={str(path)!r}")


def _read(path: str | Path, field: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{field}={str(path)!r}: there is no such file")
    try:
        return load_weights(path)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


def _unwrapped(state: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The names without the prefix whose removal makes most of them the network's."""
    dots = {name[: match.end()] for name in state for match in re.finditer(r"\.", name)}
    versions = [
        {name.removeprefix(start): x for name, x in state.items() if name.startswith(start)}
        for start in ["", *sorted(dots, key=len)]
    ]
    return max(versions, key=lambda names: len(names.keys() & wanted))


def _moved(state: dict[str, Tensor], net: MultiExitNetwork) -> dict[str, Tensor]:
    """The state named after the exits of `net`, if it is the same network with exits elsewhere."""
    ours = {name: x for name, x in net.state_dict().items() if name.startswith("stages.")}
    theirs = {name: x for name, x in state.items() if name.startswith("stages.")}
    if ours.keys() == theirs.keys():
        return state
    # Dividing layers into other stages changes the numbers in their names, not their order.
    old, new = sorted(theirs, key=_natural), sorted(ours, key=_natural)
    if [(_words(n), theirs[n].shape) for n in old] != [(_words(n), ours[n].shape) for n in new]:
        return state
    last = max((int(name.split(".")[1]) for name in state if name.startswith("heads.")), default=0)
    moved = {name: theirs[key] for name, key in zip(new, old, strict=True)}
    for name, x in state.items():
        if name.startswith(f"heads.{last}."):
            moved[f"heads.{net.num_exits - 1}.{name.split('.', 2)[2]}"] = x
    return moved


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(word), "") if word.isdigit() else (-1, word) for word in name.split(".")]


def _words(name: str) -> list[str]:
    return [word for word in name.split(".") if not word.isdigit()]


def _fill(
    model: nn.Module, state: dict[str, Tensor], fresh: tuple[str, ...], source: str
) -> set[str]:
    wanted = model.state_dict()
    state = {
        name: x
        for name, x in state.items()
        if not name.startswith(fresh) or (name in wanted and x.shape == wanted[name].shape)
    }
    # Checkpoints from before torch 0.4.1 do not count batches.
    missing = [
        name
        for name in wanted
        if not (name in state or name.startswith(fresh) or name.endswith("num_batches_tracked"))
    ]
    unknown = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {list(x.shape)} in place of {list(wanted[name].shape)}"
        for name, x in state.items()
        if name in wanted and x.shape != wanted[name].shape
    ]
    faults = {"without": missing, "with unknown": unknown, "with": shapes}
    if any(faults.values()):
        text = "; ".join(f"{word} {_few(names)}" for word, names in faults.items() if names)
        raise ValueError(
            f"{source} holds another network, {text}. Give the network the settings with which the "
            "file was trained, or another file."
        )
    model.load_state_dict(state, strict=False)
    return set(state)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
