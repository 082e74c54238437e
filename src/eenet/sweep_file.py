"""W&B's sweep files: which trials they ask for, and the command of each."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

Trial = dict[str, Any]
"""Values by parameter name."""

_PLAIN = {"name", "description", "project", "entity", "program", "command", "run_cap"}
_NEEDED: dict[str, Any] = {"method": str, "metric": dict, "parameters": dict}
# W&B's distributions: their settings (with defaults where there are any), and one draw.
_DISTRIBUTIONS: dict[str, tuple[dict[str, Any], Callable[[Random, dict[str, Any]], Any]]] = {
    "constant": ({"value": None}, lambda rng, p: p["value"]),
    "categorical": ({"values": None}, lambda rng, p: rng.choice(p["values"])),
    "int_uniform": ({"min": None, "max": None}, lambda rng, p: rng.randint(p["min"], p["max"])),
    "uniform": ({"min": None, "max": None}, lambda rng, p: rng.uniform(p["min"], p["max"])),
    "log_uniform_values": (
        {"min": None, "max": None},
        lambda rng, p: math.exp(rng.uniform(math.log(p["min"]), math.log(p["max"]))),
    ),
    "q_uniform": (
        {"min": None, "max": None, "q": 1.0},
        lambda rng, p: round(rng.uniform(p["min"], p["max"]) / p["q"]) * p["q"],
    ),
    "normal": ({"mu": 0.0, "sigma": 1.0}, lambda rng, p: rng.gauss(p["mu"], p["sigma"])),
}


def read_sweep(path: str | Path, method: str | None = None) -> dict[str, Any]:
    """Reads a sweep file as `wandb sweep` takes it; every parameter gets its `distribution`.

    Args:
        path: YAML file.
        method: Takes the place of the file's.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no sweep, or asks for what only W&B's server does.
    """
    config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    config = config if isinstance(config, dict) else {}
    config["method"] = method = method or config.get("method")
    for key, kind in _NEEDED.items():
        if not isinstance(config.get(key), kind):
            raise ValueError(f"{path} is no sweep: `{key}` is missing or no {kind.__name__}")
    if unknown := sorted(set(config) - {*_NEEDED, *_PLAIN}):
        raise ValueError(f"{path}: {unknown} is not supported here; use `wandb agent`")
    if method not in ("grid", "random"):
        raise ValueError(
            f"{path}: method={method!r} needs W&B's server. Draw from the same distributions with "
            "--method random --count N, or use `wandb sweep` and `wandb agent`."
        )
    if "name" not in config["metric"]:
        raise ValueError(f"{path}: `metric` needs a `name`, by which trials are compared")
    for name, spec in config["parameters"].items():
        config["parameters"][name] = _complete(f"{path}: parameters.{name}={spec}", spec)
    return config


def _complete(where: str, spec: Any) -> dict[str, Any]:
    """A parameter with its defaults and its distribution, which W&B tells from the settings."""
    spec = spec if isinstance(spec, dict) else {}
    kind = spec.get("distribution", "/".join(sorted(spec)))
    whole = all(isinstance(spec.get(end), int) for end in ("min", "max"))
    guessed = {"max/min": "int_uniform" if whole else "uniform"}
    kind = {"value": "constant", "values": "categorical", **guessed}.get(kind, kind)
    if kind not in _DISTRIBUTIONS:
        raise ValueError(
            f"{where} is not supported; give value, values, min and max, or one of "
            f"the distributions {', '.join(_DISTRIBUTIONS)}"
        )
    settings = _DISTRIBUTIONS[kind][0]
    found = {**settings, **spec, "distribution": kind}
    if set(found) != {*settings, "distribution"} or not set(spec) >= {
        key for key, default in settings.items() if default is None
    }:
        raise ValueError(f"{where}: {kind} takes {', '.join(settings)}")
    for key in settings.keys() - {"value", "values"}:
        if not isinstance(found[key], int | float):
            raise ValueError(f"{where}: {key} is no number (YAML wants 1.0e-3, not 1e-3)")
    if "min" in found and not (0 if "log" in kind else -math.inf) < found["min"] < found["max"]:
        raise ValueError(f"{where}: min must be below max, and above 0 on a logarithmic scale")
    return found


def trials(config: dict[str, Any], count: int | None = None, seed: int = 0) -> list[Trial]:
    """The trials of a sweep, without repetitions.

    Args:
        config: What `read_sweep` gave.
        count: Most trials, in place of the file's `run_cap`. A larger number keeps the first ones.
        seed: Seed of random draws.

    Raises:
        ValueError: If a random sweep has no end, or a grid a continuous parameter.
    """
    parameters, count = config["parameters"], count or config.get("run_cap")
    found: list[Trial] = []
    if config["method"] == "random":
        if count is None:
            raise ValueError("method: random has no end: give --count N, or `run_cap` in the file")
        for number in range(count):
            draws = ((name, Random(f"{seed}/{number}/{name}"), p) for name, p in parameters.items())
            found.append({n: _DISTRIBUTIONS[p["distribution"]][1](rng, p) for n, rng, p in draws})
    else:
        axes = [_points(name, spec) for name, spec in parameters.items()]
        found = [dict(zip(parameters, point, strict=True)) for point in itertools.product(*axes)]
    return list({repr(trial): trial for trial in found}.values())[:count]


def _points(name: str, spec: dict[str, Any]) -> list[Any]:
    kind = spec["distribution"]
    if kind == "int_uniform":
        return list(range(spec["min"], spec["max"] + 1))
    if kind not in ("constant", "categorical"):
        raise ValueError(
            f"parameters.{name}: a grid cannot enumerate {kind}; give `values`, or use "
            "--method random --count N"
        )
    return [spec["value"]] if kind == "constant" else list(spec["values"])


def command_of(config: dict[str, Any], trial: Trial) -> list[str]:
    """The words that `wandb agent` would run for a trial, `${...}` filled in.

    Raises:
        ValueError: If the command uses a macro that is not supported, or `${program}` without one.
    """
    macros = create_sweep_command_args({"args": {k: {"value": v} for k, v in trial.items()}})
    macros |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "args_dict": None}
    macros["program"] = [config["program"]] if "program" in config else None
    words: list[str] = []
    for word in map(str, create_sweep_command(list(config.get("command", [])))):
        filled = macros.get(word[2:-1]) if word.startswith("${") and word.endswith("}") else [word]
        if filled is None:
            raise ValueError(f"command: {word} is not supported, or `program` is missing")
        words += filled
    return words
