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
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from eenet.files import write_text
from eenet.run_folder import loggers_of


def wandb_loggers(trainer: Any) -> list[Any]:
    """The WandbLoggers in a trainer's config, be it parsed or plain values."""
    loggers = [x for x in loggers_of(trainer) if isinstance(x, dict | Namespace)]
    return [x for x in loggers if x["class_path"].endswith("WandbLogger")]


def name_stage_run(trainer: Any, folder: Path) -> None:
    """Gives W&B one run per stage, grouped by run folder; a stage that resumes keeps its run."""
    run, stage = folder.parent.name, folder.name.partition(".")[0]
    for logger in wandb_loggers(trainer):
        init = logger.init_args
        init.name = init.name or f"{run}-{stage}"
        path = folder / "wandb-id.txt"
        if not path.is_file():
            # The letter in front: YAML would read an id such as 12e45678 as a number.
            write_text(path, init.version or init.id or f"e{uuid.uuid4().hex[:8]}")
        init.version = path.read_text()
        of_the_run = {"group": run, "job_type": stage, "resume": "allow"}
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


def log_curve(logger: Any, rows: list[dict[str, Any]], folder: Path) -> None:
    """Logs the table, a line plot of all policies, exit shares, summary values and the files."""
    import wandb

    from eenet.plotting.rows import by_policy, column

    run: Any = logger.experiment  # a dummy on every rank but the first
    table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    policies = by_policy(rows)
    shares = [name for name in rows[0] if name.startswith("share_exit_")]
    plots = {
        "curve/accuracy_vs_budget": wandb.plot.line_series(
            xs=[column(part, "cost") for part in policies.values()],
            ys=[column(part, "quality") for part in policies.values()],
            keys=list(policies),
            title="Accuracy vs budget",
            xname="cost used",
        )
    }
    for policy, part in policies.items():
        plots[f"shares/{policy}"] = wandb.plot.line_series(
            xs=column(part, "budget"),
            ys=[column(part, name) for name in shares],
            keys=shares,
            title=f"Exit shares of {policy}",
            xname="budget",
        )
    run.log({"curve/table": table, "curve/figure": wandb.Image(str(folder / "curve.png")), **plots})
    for row in rows:
        run.summary[f"quality/{row['policy']}@{row['budget']:.3f}"] = row["quality"]
        run.summary[f"cost/{row['policy']}@{row['budget']:.3f}"] = row["cost"]
    artifact = wandb.Artifact(f"curve-{run.id}", type="curve")
    for name in ("curve.csv", "curve.json", "curve.png"):
        artifact.add_file(str(folder / name))
    run.log_artifact(artifact)
