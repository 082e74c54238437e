"""`eenet pipeline`: both stages in one run folder, each in a process of its own.

A stage that is complete and unchanged is skipped, an interrupted one is resumed. A process each
keeps W&B's runs apart and lets Lightning launch its own ranks.
"""

from dataclasses import dataclass

from jsonargparse import ActionParser, ArgumentParser, Namespace

from eenet.cli.checks import check_config, check_stages
from eenet.cli.lightning import STRICT, stage_parser
from eenet.cli.recipes import DEFAULTS
from eenet.cli.stage_run import StageRun, swap
from eenet.files import hold, sha256, write_text
from eenet.run_folder import RunFolder
from eenet.stage_folder import StageFolder, folder_of


@dataclass
class _Options:
    """Train a multi-exit network, collect its exit outputs, fit policies on them, draw the curve.

    Args:
        run_dir: Run folder; by default that of a run's own pipeline.yaml, otherwise runs/pipeline.
        overwrite: Train again where the run folder holds a network of another config; the old stage
            is kept under another name.
        launcher: What starts the processes of stage 1: 'srun' in a Slurm job, or 'torchrun
            --no-python --nproc-per-node 4'; nothing where Lightning starts them itself.
    """

    run_dir: str | None = None
    overwrite: bool = False
    launcher: str = ""


def pipeline_parser() -> ArgumentParser:
    """The parser of `eenet pipeline`."""
    parser = ArgumentParser(prog="eenet pipeline", default_config_files=[DEFAULTS], **STRICT)
    parser.add_argument("-c", "--config", action="config", help="Recipe or YAML file.")
    parser.add_class_arguments(_Options)
    for stage in ("stage1", "stage2"):
        parser.add_argument(f"--{stage}", action=ActionParser(parser=stage_parser()))
    return parser


def run_pipeline(args: list[str]) -> None:
    """Runs both stages.

    Args:
        args: Command-line arguments after `pipeline`.

    Raises:
        ValueError: If the run folder holds a network of another config, without `--overwrite`, or
            another process works in it.
        subprocess.CalledProcessError: If a stage fails; what it had finished is kept.
    """
    parser = pipeline_parser()
    config = parser.parse_args(args)
    check_config(config)
    if config.run_dir is None:
        folder = folder_of(config.get("config") or [], "pipeline.yaml")
        config.run_dir = str(folder or "runs/pipeline")
    run = RunFolder(config.run_dir)
    with hold(run.path) as lock:
        _train(run, config, lock)
        _fit(run, config, lock)
        _save(run, config)
    print(_END.format(run=run))
    if list(run.path.glob("stage?/wandb/offline-run-*")):
        print(f"  wandb sync {run}/stage?/wandb/offline-run-*    upload to W&B")


def _train(run: RunFolder, config: Namespace, lock: int) -> None:
    """Runs what is missing of stage 1, once all settings are checked."""
    stage = StageRun(run.stage1, config.stage1)
    data = config.stage2.data.init_args
    data.fit, data.test = (str(run.stage1.outputs_file(split)) for split in ("val", "test"))
    todo = stage.to_do({}, config.overwrite)
    check_stages(config, todo)
    if todo == "all":
        stage.check_identity(config.overwrite)
        _save(run, config)
    if todo:
        stage.execute(todo, {}, config.launcher, lock)


def _fit(run: RunFolder, config: Namespace, lock: int) -> None:
    """Fits the policies beside those that are there, and then puts them in their place."""
    data = config.stage2.data.init_args
    sources = {"outputs": [sha256(data.fit), sha256(data.test)]}
    if not StageRun(run.stage2, config.stage2).to_do(sources):
        return
    new = StageFolder(run.path / "stage2.new")
    stage = StageRun(new, config.stage2)
    if not new.record.is_file() or stage.to_do(sources):
        stage.discard_other()
        stage.execute("all", sources, None, lock)
    swap(new, run.stage2)


def _save(run: RunFolder, config: Namespace) -> None:
    """Writes pipeline.yaml without paths of the run, which are those of the file."""
    config = config.clone()
    config.run_dir = None
    for name in ("stage1", "stage2"):
        config[name].trainer.default_root_dir = None
    data = config.stage2.data.init_args
    data.fit = data.test = None
    write_text(run.config_file, pipeline_parser().dump(config, skip_none=False))


_END = """
Done. Look at
  {run}/stage2/curve.png    the accuracy-vs-budget curve
  {run}/stage2/curve.csv    every policy at every budget: accuracy, cost used, exit shares
  {run}/stage1/costs.json   what each exit costs in MACs and milliseconds
Next
  eenet report {run}        a page with all figures
  eenet compare {run}       all policies at many budgets, with intervals
  eenet predict {run} --input FILES --budget 0.5
  eenet pipeline --config {run}/pipeline.yaml --stage2.model.init_args.budgets '[0.55, 0.75]'
                            other budgets on the same network"""
