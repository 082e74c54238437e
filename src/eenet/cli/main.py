"""The `eenet` command."""

import os
import pickle
import re
import subprocess
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from lightning.fabric.utilities.exceptions import MisconfigurationException

from eenet import __version__
from eenet.cli.lightning import EENetCLI
from eenet.cli.recipes import with_recipes

_HELP = f"""\
eenet {__version__}: adaptive inference with multi-exit networks

  eenet pipeline --config FILE   train a network, fit exit policies, draw the curve; resumes
  eenet fit      --config FILE   train a network (stage 1) or fit policies (stage 2)
  eenet validate --config FILE   validation metrics of a stage's best checkpoint
  eenet test     --config FILE   test metrics of a network, or the curve of fitted policies
  eenet compare  RUN_DIR...      all policies at many budgets and seeds, from exit outputs alone
  eenet report   RUN_DIR...      one page with all figures of a finished run, and their files
  eenet predict  --config FILE   exit outputs of a network, or where each sample leaves
  eenet predict  RUN_DIR         answers for images, texts or stdin, from a finished pipeline
  eenet sweep    FILE            the trials of a W&B sweep file, in parallel, without a server
  eenet recipes  [NAME]          lists the recipes that --config takes by name, or copies one

Each takes --help. Any setting of a FILE can be changed by a dotted flag, for example
--trainer.max_epochs 3. EENET_TRACEBACK=1 shows where an error came from.
"""

_COMMANDS = {
    "pipeline": "eenet.cli.pipeline:run_pipeline",
    "predict RUN_DIR": "eenet.cli.predict:predict_command",
    "compare": "eenet.cli.compare:main",
    "report": "eenet.cli.report:main",
    "sweep": "eenet.cli.sweep:sweep_command",
    "recipes": "eenet.cli.recipes:main",
}
"""What takes the rest of the command line; all else is Lightning's."""


def main(args: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    words = sys.argv[1:] if args is None else args
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a class_path may name a file that lies here
    if not words or words[0] in ("-h", "--help"):
        print(_HELP)
        return
    command, *rest = words
    if command == "predict" and rest and not rest[0].startswith("-"):
        command = "predict RUN_DIR"
    with reporting_errors():
        rest = with_recipes(rest)
        if command in _COMMANDS:
            module, _, function = _COMMANDS[command].partition(":")
            getattr(import_module(module), function)(rest)
        else:
            EENetCLI(args=[command, *rest])


_UNION = "Does not validate against any of the Union subtypes"
_AROUND = re.compile(
    r"(Subtypes:|Errors:|Given value|Subclass types expect|a class path |a dict with"
    r"|Expected a <class 'NoneType'>).*"
)
_MISTAKES = (
    *(ValueError, TypeError, OSError, pickle.UnpicklingError),
    *(ArgumentError, MisconfigurationException),
)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Ends the process with one line for a user's mistake, unless EENET_TRACEBACK is set."""
    # Lightning 2.6 against torch 2.14; nothing that a user can act on.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    warnings.filterwarnings("ignore", ".*does not have many workers")
    try:
        yield
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the stage has said what was wrong
    except _MISTAKES as error:
        if os.environ.get("EENET_TRACEBACK"):
            raise
        print(f"eenet: error: {_cause(str(error))}", file=sys.stderr)
        sys.exit(2)


def _cause(message: str) -> str:
    """One line of what jsonargparse says of a config: keys and faults, without the dump around."""
    if _UNION not in message and "Parser key" not in message:
        return message
    lines = message.replace(_UNION, "").splitlines()
    return " ".join(_AROUND.sub("", line.strip().removeprefix("- ")) for line in lines)
