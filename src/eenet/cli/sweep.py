"""`eenet sweep`: the trials of a W&B sweep file on this machine, without a server."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import Any, Literal

from jsonargparse import auto_cli
from jsonargparse.typing import PositiveInt
from rich.table import Table

from eenet.cli.recipes import RECIPES
from eenet.cli.sweep_file import Trial, command_of, read_sweep, trials
from eenet.files import lock, sha256, write_text


def sweep(
    file: str,
    jobs: PositiveInt = 1,
    count: int | None = None,
    seed: int = 0,
    method: Literal["grid", "random"] | None = None,
    output: str | None = None,
) -> int:
    """Runs the trials of a W&B sweep file on this machine and gathers them in one table.

    Complete trials are skipped; one that failed or was interrupted runs again in its folder.

    Args:
        file: YAML file, as `wandb sweep` takes it.
        jobs: Number of trials at a time.
        count: Most trials, in place of the file's run_cap; needed where they are drawn at random.
        seed: Seed of random draws.
        method: In place of the file's.
        output: Folder of the sweep; by default runs/sweeps/NAME_OF_THE_FILE.

    Returns:
        Number of trials that failed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a sweep file, or asks for what only W&B's server does.
    """
    config = read_sweep(file, method)
    folder = Path(output or f"runs/sweeps/{Path(file).stem}").absolute()
    chosen = [_Trial(folder, config, values) for values in trials(config, count, seed)]
    todo = [trial for trial in chosen if not trial.done.is_file()]
    print(f"{len(chosen)} trials, {len(chosen) - len(todo)} of them complete, in {folder}")
    failed, stop, env = 0, Event(), _environment(jobs)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = {pool.submit(trial.run, env, stop): trial for trial in todo}
            for number, future in enumerate(as_completed(futures), 1):
                failed += (problem := future.result()) is not None
                print(f"[{number}/{len(todo)}] {futures[future]}: {problem or 'done'}", flush=True)
                _gather(folder, chosen)
        finally:  # whatever interrupts a sweep, no process stays behind
            stop.set()
            pool.shutdown(cancel_futures=True)
    _show(_gather(folder, chosen), config)
    print(f"{failed} of {len(chosen)} trials failed." if failed else f"Written: {folder}/sweep.csv")
    return failed


def sweep_command(args: list[str]) -> None:
    """Runs `eenet sweep`; ends with status 1 if a trial failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if auto_cli(sweep, args=args, as_positional=True, prog="eenet sweep"):
        sys.exit(1)


class _Trial:
    """A command, and a folder named after it and the content of the files that it names."""

    def __init__(self, sweep: Path, config: dict[str, Any], values: Trial) -> None:
        self.values, self.metric = values, config["metric"]["name"]
        words = command_of(config, values)
        identity = json.dumps([words, [_content(word) for word in words]])
        self.folder = sweep / f"t{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        self.done = self.folder / "done.json"
        # What W&B leaves of ${envvar:EENET_TRIAL_DIR}.
        self.command = [word.replace("EENET_TRIAL_DIR", str(self.folder)) for word in words]

    def __str__(self) -> str:
        return f"{self.folder.name} " + " ".join(f"{k}={v}" for k, v in self.values.items())

    def run(self, env: dict[str, str], stop: Event) -> str | None:
        """Runs the trial and records its result; returns what went wrong, if anything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {"WANDB_RUN_ID": self.folder.name, "EENET_TRIAL_DIR": str(self.folder)}
        own["WANDB_NAME"] = " ".join(f"{k.rpartition('.')[2]}={v}" for k, v in self.values.items())
        begun, path = time.perf_counter(), self.folder / "log.txt"
        with path.open("a") as log:
            # The process inherits the lock, which so lasts as long as anything writes here, even
            # if this program is killed.
            while not lock(log):
                if stop.wait(0.2):
                    return "stopped"
            if self.done.is_file():  # by another sweep of the same file, meanwhile
                return None
            log.truncate(0)
            process = subprocess.Popen(
                self.command,
                env=env | own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            while process.poll() is None:
                if stop.wait(0.1):
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()
                    return "stopped"
            metrics = {} if process.returncode else _metrics(self.folder, self.metric)
            if metrics:
                seconds = round(time.perf_counter() - begun, 1)
                row = {"trial": self.folder.name, **self.values, **metrics, "seconds": seconds}
                write_text(self.done, json.dumps(row, indent=1) + "\n")
                return None
        why = f"exit status {process.returncode}"
        if not process.returncode:
            why = f"no metrics.csv below {self.folder} has {self.metric!r}, by which trials compare"
        tail = path.read_text(errors="replace").splitlines()[-20:]
        return "\n    | ".join([f"FAILED ({why}); the end of {path}:", *tail])


def _content(word: str) -> str | None:
    """What decides the content of a file, a finished pipeline's outputs or a recipe, if named."""
    path = Path(word.partition("=")[2] or word)
    places = path, path / "stage1" / "done.json", RECIPES / f"{path}.yaml"
    return next((sha256(place) for place in places if place.is_file()), None)


def _environment(jobs: int) -> dict[str, str]:
    """This environment without the Slurm job around it, this Python first, the cores shared."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs)), **env}


def _metrics(folder: Path, name: str) -> dict[str, float]:
    """Last values of the newest log of Lightning's CSVLogger with that metric: it, and tests'."""
    for path in sorted(folder.rglob("metrics.csv"), key=lambda p: p.stat().st_mtime, reverse=True):
        with path.open(newline="") as file:
            last = {key: float(x) for row in csv.DictReader(file) for key, x in row.items() if x}
        if name in last:
            return {key: x for key, x in last.items() if key == name or key.startswith("test/")}
    return {}


def _gather(folder: Path, chosen: list[_Trial]) -> list[dict[str, Any]]:
    """Writes the table of all complete trials."""
    rows = [json.loads(trial.done.read_text()) for trial in chosen if trial.done.is_file()]
    if rows:
        from eenet.plotting.rows import to_csv  # torch, once there is a result

        write_text(folder / "sweep.csv", to_csv(rows))
    return rows


def _show(rows: list[dict[str, Any]], config: dict[str, Any]) -> None:
    """Prints the trials, the best on top."""
    from eenet.plotting.rows import print_table

    metric, parameters = config["metric"]["name"], list(config["parameters"])
    best_last = config["metric"].get("goal", "minimize") == "maximize"  # W&B's default
    cost = f"{metric.rpartition('/')[0]}/cost"  # beside an accuracy it says what was paid
    shown = [metric] + [cost] * any(cost in row for row in rows)
    table = Table("trial", *(name.rpartition(".")[2] for name in parameters), *shown)
    for row in sorted(rows, key=lambda row: row[metric], reverse=best_last):
        values = [row[name] for name in parameters]
        cells = [f"{x:.4g}" if isinstance(x, float) else str(x) for x in values]
        table.add_row(row["trial"], *cells, *(f"{row[name]:.5g}" for name in shown if name in row))
    print_table(table)
