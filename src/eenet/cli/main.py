"""The `eenet` command, which imports nothing before it is needed."""

import logging
import os
import pickle
import re
import subprocess
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import yaml

from eenet import __version__
from eenet.cli.help import HELP, class_help, flags, short_help
from eenet.cli.recipes import with_recipes

_COMMANDS = {
    "pipeline": "eenet.cli.pipeline:run_pipeline",
    "predict": "eenet.cli.predict:predict_command",
    "compare": "eenet.cli.compare:main",
    "report": "eenet.cli.report:main",
    "sweep": "eenet.cli.sweep:sweep_command",
    "recipes": "eenet.cli.recipes:main",
    "exits": "eenet.cli.exits:main",
    "push": "eenet.cli.push:push_command",
}
"""What takes the rest of the command line."""
_STAGE_COMMANDS = ("fit", "validate", "test", "predict")
"""Lightning's, on the config of one stage; `predict` where it is given one."""
_OF_STAGE = re.compile(r"(-c|--(config|model|data|trainer|print_config|help-all))\b")


def main(args: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    words = sys.argv[1:] if args is None else args
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a class_path may name a file that lies here
    with reporting_errors():
        _run(words)


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP)
        return
    if words[0] in ("-V", "--version"):
        print(f"eenet {__version__}")
        return
    command, *rest = words
    if command not in {*_COMMANDS, *_STAGE_COMMANDS}:
        close = get_close_matches(command, {*_COMMANDS, *_STAGE_COMMANDS}, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`eenet --help` lists the commands"
        raise ValueError(f"there is no command {command!r}; {hint}")
    one_stage = command != "pipeline" and (
        command not in _COMMANDS or (command == "predict" and any(map(_OF_STAGE.match, rest)))
    )
    if {"-h", "--help"} & {*rest} and (one_stage or command == "pipeline"):
        print(short_help(command))
        sys.exit(0)
    rest = with_recipes(rest)
    configs = _check_configs(command, rest) if one_stage or command == "pipeline" else []
    if class_help(rest):
        sys.exit(0)
    rest = ["--help" if word == "--help-all" else word for word in rest]
    try:
        if one_stage:
            import_module("eenet.cli.lightning").EENetCLI(args=[command, *rest])
        else:
            module, _, function = _COMMANDS[command].partition(":")
            getattr(import_module(module), function)(rest)
    except ArgumentError as error:
        cause = _cause(error)
        raise ArgumentError(None, cause + _in_which(configs, cause, rest)) from error


def _check_configs(command: str, words: list[str]) -> list[str]:
    """Returns the paths of the config files, of the kind that the command takes.

    Raises:
        ValueError: If a file is not what the command takes, or a pipeline has none.
    """
    names = [value for flag, value in flags(words) if flag in ("-c", "--config")]
    asks = any(re.search(r"help|print_config", word) for word in words)
    if "" in names or (command == "pipeline" and not names and not asks):
        raise ValueError(
            "config: give --config with a recipe (`eenet recipes` lists them) or a file"
        )
    for name in names:
        try:
            config = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = str(error)
            if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
                reason = f"{error.problem}, line {error.problem_mark.line + 1}"
            raise ValueError(f"config={name!r} is not valid YAML: {reason}") from error
        if not isinstance(config, dict):
            raise ValueError(f"config={name!r} is not a config: it holds {type(config).__name__}")
        stages, parts = {"stage1", "stage2"} & {*config}, {"model", "data", "trainer"} & {*config}
        if command == "pipeline" and parts:
            raise ValueError(
                f"config={name!r} describes one stage ({', '.join(sorted(parts))}): use `eenet fit "
                f"--config {name}`, or put it under `stage1:` or `stage2:`"
            )
        if command != "pipeline" and stages:
            raise ValueError(
                f"config={name!r} describes a whole pipeline ({', '.join(sorted(stages))}): use "
                f"`eenet pipeline --config {name}`; `eenet {command}` takes the config of one "
                "stage, such as RUN_DIR/stage1/config.yaml"
            )
    return names


def _in_which(configs: list[str], cause: str, words: list[str]) -> str:
    """The config files, where no flag among the words names the setting at fault."""
    unknown = re.search(r"Option '(.+?)'", cause)
    setting = unknown or re.match(r"(?:\w+\.)*(\w+)(?: \(.*?\))?:", cause)
    if not configs or setting is None or any(setting[1] in word for word in words):
        return ""
    return f" (in {', '.join(configs)})"


_MISTAKES = (
    ValueError,
    TypeError,
    OSError,
    ModuleNotFoundError,
    pickle.UnpicklingError,
    ArgumentError,
)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Ends the process with one line for a user's mistake, unless EENET_TRACEBACK is set."""
    # Lightning 2.6 against torch 2.14; nothing that a user can act on.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    warnings.filterwarnings("ignore", ".*does not have many workers")
    warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended")
    warnings.filterwarnings("ignore", "You passed in a `val_dataloader` but have no")
    warnings.filterwarnings("ignore", "The `srun` command is available")  # `pipeline` starts stages
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the log")
    for name in ("lightning.pytorch", "lightning.fabric"):  # tips, and what was found to run on
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the stage has said what was wrong
    except Exception as error:
        lightnings = type(error).__name__ == "MisconfigurationException"  # it may not be imported
        if not (isinstance(error, _MISTAKES) or lightnings) or os.environ.get("EENET_TRACEBACK"):
            raise
        print(f"eenet: error: {_cause(error)}", file=sys.stderr)
        sys.exit(2)


def _cause(error: Exception) -> str:
    message = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"  # without "[Errno 2]"
    return _of_config(message) if "Parser key" in message or _UNION in message else message


_UNION = "Does not validate against any of the Union subtypes"
_KEY = re.compile(r'(?:Parser key "(.*?)"|([a-z][\w.]*)):(.*)')
_CLASS = re.compile(r"Problem with given class_path '(.*)':")
_AROUND = ("Subtypes:", "Errors:", "Given value type:", "Expected a path but")
_NOT_OF_TYPE = re.compile(r"Not of type \w+: (.*?) ?does not conform to restriction v")


def _of_config(message: str) -> str:
    """Condenses jsonargparse's many lines about a config into one: setting, class and faults."""
    keys, kind, value, faults = [], "", "", []
    for line in message.replace(_UNION, "").splitlines():
        line = re.sub(r"^\s*(- )*\s*", "", line).rstrip()
        if (match := _KEY.match(line)) and (match[1] or not match[3].strip()):
            keys.append(match[1] or match[2])
            line, kind = match[3].strip(), ""
        if match := _CLASS.match(line):
            kind = f" ({match[1]})"
        elif line.startswith("Given value:"):
            value = f", got {line[12:].strip()}" if len(line) < 60 else ""
        elif line and not line.startswith(_AROUND) and line != "Expected a <class 'NoneType'>":
            faults.append(_NOT_OF_TYPE.sub(r"\1 must be ", line).strip())
    certain = [fault for fault in faults if not fault.startswith("Expected a <")]
    certain = [f"{fault}{value}" if fault.startswith("must be") else fault for fault in certain]
    types = " or ".join(re.findall(r"<class '(.*?)'>", " ".join(faults)))
    got = re.search(r"Got value: .*", " ".join(faults))
    wanted = f"expected {types}{got[0].replace('Got value:', ', got', 1) if got else value}"
    return f"{'.'.join(keys)}{kind}: {' '.join(certain) or wanted}".removeprefix(": ")
