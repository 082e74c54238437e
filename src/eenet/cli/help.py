"""What `--help` says where the parser with all settings would take seconds to make."""

from collections.abc import Iterator, Sequence
from pkgutil import resolve_name

from eenet import __version__

HELP = f"""\
eenet {__version__}: adaptive inference with multi-exit networks

  eenet pipeline --config FILE   train a network, fit exit policies, draw the curve; resumes
  eenet fit      --config FILE   train a network (stage 1) or fit policies (stage 2)
  eenet validate --config FILE   validation metrics of a stage's best checkpoint
  eenet test     --config FILE   test metrics of a network, or the curve of fitted policies
  eenet compare  RUN_DIR...      all policies at many budgets and seeds, from exit outputs
  eenet report   RUN_DIR...      one page with all figures of a finished run, and their files
  eenet predict  --config FILE   exit outputs of a network, or where each sample leaves
  eenet predict  RUN_DIR         answers for images, texts or stdin, from a finished pipeline
  eenet push     RUN_DIR TO      shares a finished run: a folder, or hf:USER/NAME on the hub
  eenet sweep    FILE            the trials of a W&B sweep file, in parallel, without a server
  eenet exits    MODEL           where exits can stand in a network, or which of a run's to keep
  eenet recipes  [NAME]          lists the recipes that --config takes by name, or copies one

Each takes --help; eenet --version prints the version. Any setting of a FILE can be changed by a
dotted flag, for example --trainer.max_epochs 3. EENET_TRACEBACK=1 shows where an error came from.
"""

_ALL = """\
  -h, --help            This text.
  --help-all            Every setting with its default: over a thousand lines.
  --print_config        Print all settings as YAML and stop.
"""

_PIPELINE = f"""\
usage: eenet pipeline --config FILE [options] [--stage1.SETTING VALUE] [--stage2.SETTING VALUE]

Train a multi-exit network, collect its exit outputs, fit policies on them, draw the curve. Run it
again to resume where it stopped; finished stages are skipped.

examples:
  eenet pipeline --config digits/resnet20 --run_dir runs/digits
  eenet pipeline --config digits/resnet20 --stage1.trainer.max_epochs 3
  eenet pipeline --config own/images --stage1.data.init_args.root photos
  eenet pipeline --config runs/digits/pipeline.yaml --stage2.model.init_args.budgets '[0.3, 0.6]'
  eenet pipeline --stage1.model.net.help MSDNet

options:
  -c, --config FILE     A recipe (`eenet recipes` lists them), or a YAML file such as
                        RUN_DIR/pipeline.yaml.
  --run_dir RUN_DIR     Folder of all that is written. (default: runs/pipeline)
  --overwrite true      Train from scratch where RUN_DIR holds a network of another config; the old
                        one is kept under another name. (default: false)
  --launcher WORDS      What starts the processes of stage 1: srun in a Slurm job, or 'torchrun
                        --no-python --nproc-per-node 4'. (default: Lightning starts them)
  --stage1.X.help CLASS, --stage2.X.help CLASS
                        Settings of a class, for example of a network: --stage1.model.net.help HRNet
{_ALL}"""

_STAGE = """\
usage: eenet {command} --config FILE [options] [--SETTING VALUE]

{summary}

examples:
{examples}

options:
  -c, --config FILE     YAML file of one stage, such as RUN_DIR/stage1/config.yaml, or the recipe
                        outputs/scheduler.
  --ckpt_path FILE      Checkpoint. {checkpoint}
  --model.help CLASS, --data.help CLASS, --model.net.help CLASS
                        Settings of a class, for example --data.help ImageFolder
{all}"""

_OUTPUTS = "runs/outputs/config.yaml"
_STAGES = {
    "fit": (
        "Train a network (stage 1) or fit exit policies on exit outputs (stage 2), by one config.",
        "  eenet fit --config outputs/scheduler --data.init_args.fit val.safetensors \\\n"
        "      --data.init_args.test test.safetensors --trainer.default_root_dir runs/outputs",
    ),
    "validate": (
        "The validation metrics of a network.",
        "  eenet validate --config runs/digits/stage1/config.yaml",
    ),
    "test": (
        "The test metrics of a network, or the accuracy-vs-budget curve of fitted policies.",
        f"  eenet test --config {_OUTPUTS}",
    ),
    "predict": (
        "Write the exit outputs of a network, or where each sample leaves and with which answer.\n"
        "For answers to images and texts see `eenet predict RUN_DIR --help`.",
        f"  eenet predict --config {_OUTPUTS}\n"
        "  eenet predict --config runs/digits/stage1/config.yaml --data.predict_split val",
    ),
}


def short_help(command: str) -> str:
    """The text for `pipeline`, or one of Lightning's commands."""
    if command == "pipeline":
        return _PIPELINE
    summary, examples = _STAGES[command]
    checkpoint = "By default the best of the run."
    if command == "fit":
        checkpoint = "Train on from it; `last` for the last one of the run."
    texts = {"summary": summary, "examples": examples, "checkpoint": checkpoint}
    return _STAGE.format(command=command, all=_ALL, **texts)


def flags(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The flags among the words of a command, with their values, or "" where there is none."""
    for word, after in zip(words, [*words[1:], ""], strict=False):
        if word.startswith("-"):
            flag, equals, value = word.partition("=")
            yield flag, value if equals else after


def class_help(words: Sequence[str]) -> bool:
    """Prints the settings of the class that a flag `--ANYTHING.help CLASS` asks for, if one does.

    jsonargparse's own flags know them only where the classes around are named as well.
    """
    names = [name for flag, name in flags(words) if flag.endswith(".help")]
    if not names:
        return False
    from jsonargparse import ArgumentParser

    from eenet import data, models, modules, policies

    for package in (data, models, modules, policies):
        if names[0] in package.__all__:
            names[0] = f"{package.__name__}.{names[0]}"
    try:
        kind = resolve_name(names[0])
    except (ImportError, AttributeError, ValueError):
        return False  # short names of others' classes are Lightning's matter
    parser = ArgumentParser(prog=names[0], add_help=False)
    parser.add_class_arguments(kind)
    parser.print_help()
    return True
