"""W&B's sweep files: which trials they ask for, and the command of each."""

import itertools
import json
from collections.abc import Callable
from inspect import signature
from math import exp, inf, log
from pathlib import Path
from random import Random
from typing import Any

import yaml

Trial = dict[str, Any]
"""Values by parameter name."""

_PLAIN = {"name", "description", "project", "entity", "program", "command", "run_cap"}
_NEEDED: dict[str, Any] = {"method": str, "metric": dict, "parameters": dict}
# W&B's distributions: one draw with their settings.
_DISTRIBUTIONS: dict[str, Callable[..., Any]] = {
    "constant": lambda rng, value: value,
    "categorical": lambda rng, values: rng.choice(values),
    "int_uniform": lambda rng, min, max: rng.randint(min, max),
    "uniform": lambda rng, min, max: rng.uniform(min, max),
    "log_uniform_values": lambda rng, min, max: exp(rng.uniform(log(min), log(max))),
    "q_uniform": lambda rng, min, max, q=1.0: round(rng.uniform(min, max) / q) * q,
    "normal": lambda rng, mu=0.0, sigma=1.0: rng.gauss(mu, sigma),
}


def read_sweep(path: str | Path, method: str | None = None) -> dict[str, Any]:
    """Reads a sweep file as `wandb sweep` takes it.

    Args:
        path: YAML file.
        method: Takes the place of the file's.

    Returns:
        The file, where every parameter is the name of its distribution and the settings of that.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a sweep file, or asks for what only W&B's server does.
    """
    config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    config = config if isinstance(config, dict) else {}
    config["method"] = method = method or config.get("method")
    for key, kind in _NEEDED.items():
        if not isinstance(config.get(key), kind):
            raise ValueError(
                f"{path} is not a sweep file: `{key}` is missing or not a {kind.__name__}"
            )
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


def _complete(where: str, spec: Any) -> tuple[str, dict[str, Any]]:
    """A parameter's distribution, which W&B tells from the settings, and its settings."""
    spec = dict(spec) if isinstance(spec, dict) else {}
    kind = spec.pop("distribution", "/".join(sorted(map(str, spec))))
    whole = all(isinstance(spec.get(end), int) for end in ("min", "max"))
    guessed = {"max/min": "int_uniform" if whole else "uniform"}
    kind = {"value": "constant", "values": "categorical", **guessed}.get(kind, kind)
    if kind not in _DISTRIBUTIONS:
        raise ValueError(
            f"{where} is not supported; give value, values, min and max, or one of "
            f"the distributions {', '.join(_DISTRIBUTIONS)}"
        )
    try:
        signature(_DISTRIBUTIONS[kind]).bind(None, **spec)
    except TypeError as error:
        raise ValueError(f"{where}: {kind}: {error}") from None
    for key in spec.keys() - {"value", "values"}:
        if not isinstance(spec[key], int | float):
            raise ValueError(f"{where}: {key} is not a number (in YAML write 1.0e-3, not 1e-3)")
    least = 0 if "log" in kind else -inf
    if "min" in spec and not least < spec["min"] < spec["max"]:
        raise ValueError(f"{where}: min must be below max, and above 0 on a logarithmic scale")
    return kind, spec


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
            draws = ((x, Random(f"{seed}/{number}/{x}"), *spec) for x, spec in parameters.items())
            found.append({x: _DISTRIBUTIONS[kind](rng, **p) for x, rng, kind, p in draws})
    else:
        axes = [_points(name, *spec) for name, spec in parameters.items()]
        found = [dict(zip(parameters, point, strict=True)) for point in itertools.product(*axes)]
    return list({repr(trial): trial for trial in found}.values())[:count]


def _points(name: str, kind: str, settings: dict[str, Any]) -> list[Any]:
    if kind in ("constant", "categorical"):
        return list(settings.get("values", [settings.get("value")]))
    if kind == "int_uniform":
        return list(range(settings["min"], settings["max"] + 1))
    raise ValueError(
        f"parameters.{name}: a grid cannot enumerate {kind}; give `values`, or use "
        "--method random --count N"
    )


def command_of(config: dict[str, Any], trial: Trial) -> list[str]:
    """The words that `wandb agent` would run for a trial, `${...}` filled in.

    Null, and lists and mappings, are written as in YAML: Python's `None` is a word to it, and so
    are backslashes in Python's quotes.

    Raises:
        ValueError: If the command uses a macro that is not supported, or `${program}` without one.
    """
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    texts = {
        name: json.dumps(value) if value is None or isinstance(value, list | dict) else value
        for name, value in trial.items()
    }
    macros = create_sweep_command_args({"args": {x: {"value": v} for x, v in texts.items()}})
    macros["args_json"] = [json.dumps(trial)]
    macros |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "args_dict": None}
    macros["program"] = [config["program"]] if "program" in config else None
    words: list[str] = []
    for word in map(str, create_sweep_command(list(config.get("command", [])))):
        filled = macros.get(word[2:-1]) if word.startswith("${") and word.endswith("}") else [word]
        if filled is None:
            raise ValueError(f"command: {word} is not supported, or `program` is missing")
        words += filled
    return words
