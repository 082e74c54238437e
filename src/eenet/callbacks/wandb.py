"""All that is special about W&B: names of runs, trials of sweeps, and what is logged of a curve.

A sweep, the script of a trial and the commands agree on this:

- `wandb agent` and `eenet sweep` set WANDB_RUN_ID for a trial. `eenet sweep` also sets
  EENET_TRIAL_DIR, the trial's folder, and WANDB_NAME, the parameters.
- `experiments/sweeps/trial.sh` fits stage 2 in EENET_TRIAL_DIR, or in RUN_DIR/sweep/WANDB_RUN_ID.
- A stage in EENET_TRIAL_DIR logs to a W&B run of that id and name, not to the run whose config it
  was given.
- `eenet sweep` compares trials by the sweep's metric in the newest metrics.csv of their folders.
"""

import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from eenet.files import write_text
from eenet.modules.scheduler import metric_key
from eenet.outputs import ExitOutputs
from eenet.plotting.rows import Row, by_policy, column, exit_rows
from eenet.stage_folder import loggers_of


def wandb_loggers(trainer: Any) -> list[Any]:
    """The WandbLoggers in a trainer's config, be it parsed or plain values."""
    loggers = [x for x in loggers_of(trainer) if isinstance(x, dict | Namespace)]
    return [x for x in loggers if x["class_path"].endswith("WandbLogger")]


def name_stage_run(config: Any, folder: Path) -> None:
    """Gives W&B one run per stage, grouped by run folder; a stage that resumes keeps its run."""
    run, stage = folder.parent.name, folder.name.partition(".")[0]
    net = config.get("model.init_args.net.class_path")
    for logger in wandb_loggers(config.trainer):
        init = logger.init_args
        init.name = init.name or f"{run}-{stage}"
        path = folder / "wandb-id.txt"
        if not path.is_file():
            # The letter in front: YAML would read an id such as 12e45678 as a number.
            write_text(path, init.version or init.id or f"e{uuid.uuid4().hex[:8]}")
        init.version = path.read_text()
        of_the_run: dict[str, Any] = {"group": run, "job_type": stage, "resume": "allow"}
        if net:  # what stage 2 fits on is known from its outputs
            of_the_run["tags"] = [x.rpartition(".")[2] for x in (net, config.data.class_path)]
        logger.dict_kwargs = {**of_the_run, **logger.get("dict_kwargs", {})}


def name_trial_run(trainer: Any) -> None:
    """Makes a trial of `eenet sweep` a W&B run of its own."""
    if trainer.default_root_dir == os.environ.get("EENET_TRIAL_DIR"):
        for logger in wandb_loggers(trainer):
            logger.init_args.version = os.environ["WANDB_RUN_ID"]
            logger.init_args.name = os.environ.get("WANDB_NAME")


def check_online(trainer: Any) -> None:
    """Raises a ValueError if a logger sends to W&B's server and that cannot be reached."""
    online = any(not logger.init_args.get("offline") for logger in wandb_loggers(trainer))
    if not online or os.environ.get("WANDB_MODE", "online") != "online":
        return
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except urllib.error.HTTPError:
        return  # it answers
    except OSError as error:
        raise ValueError(
            f"trainer.logger: W&B's server {url} cannot be reached ({error}). Set "
            "WANDB_MODE=offline and upload later with `wandb sync`"
        ) from error


def drop_anonymous(loggers: list[Any]) -> None:
    """Takes a setting from loggers that Lightning hands on, unset, and W&B warns of."""
    for logger in loggers:
        settings = getattr(logger, "_wandb_init", {})
        if settings.get("anonymous", "") is None:
            del settings["anonymous"]


def log_curve(logger: Any, rows: list[Row], folder: Path, outputs: ExitOutputs) -> None:
    """Logs the curves of all policies, and which network and data they are of.

    As metrics over "budget", which W&B overlays and averages over runs; as custom charts; as
    table, figure and files. The summary has the quality at three of the budgets.

    Args:
        logger: A WandbLogger.
        rows: From `eenet.plotting.rows.curve_rows`.
        folder: Where the files of the curve are.
        outputs: The labelled outputs that the curve was measured on.
    """
    import wandb

    run: Any = logger.experiment  # a dummy on every rank but the first
    kinds = [outputs.metadata[x] for x in ("network", "data") if x in outputs.metadata]
    exits = {f"exit_{row.pop('exit')}": row for row in exit_rows(outputs)}
    about = dict(zip(("network", "dataset"), kinds, strict=False)) | {"exits": exits}
    run.config.update(about, allow_val_change=True)
    run.tags = tuple(dict.fromkeys((*(run.tags or ()), *kinds)))
    policies = {metric_key(label): part for label, part in by_policy(rows).items()}
    _log_metrics(run, policies, outputs.measure)
    _log_charts(run, policies, rows, folder)
    artifact = wandb.Artifact(f"curve-{run.id}", type="curve")
    for name in ("curve.csv", "curve.json", "curve.png"):
        artifact.add_file(str(folder / name))
    run.log_artifact(artifact)


def link_outputs(loggers: Iterable[Any], paths: Iterable[Path], used: bool) -> None:
    """Makes exit outputs an artifact of the run that wrote them, or an input of the one that reads.

    The same files are the same artifact, so W&B draws the lineage from network to policies. Only
    where the logger keeps checkpoints too (`log_model`); an input needs W&B's server.

    Args:
        loggers: The trainer's.
        paths: Files of exit outputs.
        used: Whether they are the run's inputs.
    """
    for logger in loggers:
        if not getattr(logger, "_log_model", False):
            continue
        import wandb

        run: Any = logger.experiment
        if used and run.settings._offline:
            continue
        for path in paths:
            artifact = wandb.Artifact(f"outputs-{run.group or run.id}-{path.stem}", "exit-outputs")
            artifact.add_file(str(path))
            (run.use_artifact if used else run.log_artifact)(artifact)


def _log_metrics(run: Any, policies: dict[str, list[Row]], measure: str) -> None:
    """Logs a row of history for each budget, and the quality at three of them in the summary."""
    run.define_metric("budget", summary="none")
    for key in policies:
        for name in (measure, "cost"):
            run.define_metric(f"curve/{key}/{name}", step_metric="budget", summary="none")
    points = list(zip(*policies.values(), strict=True))
    for here in points:
        logged = {"budget": here[0]["budget"]}
        for key, row in zip(policies, here, strict=True):
            logged |= {f"curve/{key}/{measure}": row["quality"], f"curve/{key}/cost": row["cost"]}
        run.log(logged)
    if len(points) == 1:  # the module logs that budget's numbers, under names that trials share
        return
    for here in {points[i][0]["budget"]: points[i] for i in (0, len(points) // 2, -1)}.values():
        at = f"{here[0]['budget']:.2f}".replace(".", "_")
        for key, row in zip(policies, here, strict=True):
            run.summary[f"test/{key}/{measure}_at_{at}"] = row["quality"]


def _log_charts(run: Any, policies: dict[str, list[Row]], rows: list[Row], folder: Path) -> None:
    import wandb

    shares = [name for name in rows[0] if name.startswith("share_exit_")]
    plots = {
        "charts/accuracy_vs_cost": wandb.plot.line_series(
            xs=[column(part, "cost") for part in policies.values()],
            ys=[column(part, "quality") for part in policies.values()],
            keys=list(policies),
            title="Accuracy vs cost used",
            xname="cost used",
        )
    }
    for key, part in policies.items():
        plots[f"shares/{key}"] = wandb.plot.line_series(
            xs=column(part, "budget"),
            ys=[column(part, name) for name in shares],
            keys=shares,
            title=f"Exit shares of {part[0]['policy']}",
            xname="budget",
        )
    table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    figure = wandb.Image(str(folder / "curve.png"))
    run.log({"charts/table": table, "charts/figure": figure, **plots})
