"""Where the exits of a run stand and how it was made, to be cited."""

import json
from collections.abc import Sequence
from typing import Any

from eenet.report.numbers import Run
from eenet.run_folder import RunFolder


def places(folder: RunFolder, exits: int) -> list[str]:
    """After what each exit stands, as the network's `exits` say; empty if they do not."""
    named = _setting(folder.stage1.config, "model.init_args.net.init_args.exits") or []
    named = [str(name) for name in named] + ["end"] * (len(named) == exits - 1)
    return named if len(named) == exits else []


def how_made(folders: Sequence[RunFolder], run: Run) -> dict[str, str]:
    """Collects what is needed to repeat the runs, by name; unknown facts are left out.

    Args:
        folders: Runs of one set-up.
        run: The first of them.
    """
    first, known = folders[0], run.test.metadata
    stages = {"stage 1": first.stage1.config, "stage 2": first.stage2.config}
    costs = json.loads(known.get("measured_costs", "{}"))
    sizes = {"validation (policies)": run.val, "test": run.test, "calibration": run.cal}
    seeds = [[_seed(x.stage1), _seed(x.stage2)] for x in folders]
    epochs = {x: _setting(config, "trainer.max_epochs") for x, config in stages.items()}
    clock = (
        "{device}, batch of {batch_size}, CPU threads: {threads}".format(**costs) if costs else ""
    )
    versions = {x: known.get(x) for x in ("eenet", "torch", "python")}
    facts = {
        "network": known.get("network"),
        "data": known.get("data"),
        "command": f"eenet pipeline --config {first.name}/pipeline.yaml",
        "seeds of stage 1, stage 2": "; ".join(f"{one}, {two}" for one, two in seeds),
        "epochs": ", ".join(f"{x}: {count}" for x, count in epochs.items() if count),
        "samples": ", ".join(f"{x.num_samples:,} {name}" for name, x in sizes.items() if x),
        "versions": ", ".join(f"{name} {x}" for name, x in versions.items() if x),
        "hardware": known.get("machine"),
        "latency measured on": clock,
        "exit outputs collected": known.get("date"),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _seed(stage: Any) -> Any:
    return (stage.identity() or stage.config).get("seed_everything")


def _setting(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config
