"""`eenet compare`: every policy at many budgets, seeds and networks, from exit outputs alone."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from eenet import policies
from eenet.comparison.compare import DEFAULT_POLICIES, compare, default_policies
from eenet.comparison.figure import comparison_table, plot_comparison
from eenet.comparison.fitting import Source
from eenet.files import write_text
from eenet.plotting.style import save_figure
from eenet.plotting.tables import print_table, to_csv


def main(args: list[str]) -> None:
    """Runs `eenet compare`: writes compare.csv, .json, .png and .svg, and prints the table."""
    parser = ArgumentParser(
        prog="eenet compare",
        exit_on_error=False,
        description="Compare exit policies at many budgets, from exit outputs alone.",
    )
    add = parser.add_argument
    add("runs", nargs="*", help="Run folders of `eenet pipeline`; several are network seeds.")
    add("--val", type=str, help="File of exit outputs to fit on, in place of run folders.")
    add("--test", type=str, help="File of exit outputs to report on.")
    add("--split", type=bool, default=False, help="Fit on half of val, report on the other half.")
    add("--cost_matrix", type=list[list[float]] | None, help="Cost of answering a where y is true.")
    add("--output", type=str, default="runs/compare", help="Folder of what is written.")
    parser.add_function_arguments(compare, skip={"sources", "jobs"})
    add("--jobs", type=int, default=os.cpu_count(), help="Number of processes.")
    given = parser.parse_args(with_policies(args))
    paths = "{0}/stage1/outputs/val.safetensors", "{0}/stage1/outputs/test.safetensors"
    files = [tuple(path.format(run) for path in paths) for run in given.runs]
    files += [(given.val, given.test)] if given.val else []
    if not files or (given.val and (given.runs or not (given.test or given.split))):
        raise ValueError("runs: give run folders, or --val FILE with --test FILE or --split true")
    sources = [Source(v, None if given.split else t, given.cost_matrix) for v, t in files]
    chosen = parser.instantiate(given).policies
    settings = given.budgets, given.seeds, chosen, given.reference, given.jobs
    comparison = compare(sources, *settings)
    folder, text = Path(given.output), asdict(comparison) | {"sources": sources}
    write_text(folder / "compare.csv", to_csv(comparison.rows))
    write_text(folder / "compare.json", json.dumps(text, indent=1) + "\n")
    save_figure(plot_comparison(comparison), folder / "compare.png", folder / "compare.svg")
    wide = not sys.stdout.isatty() or shutil.get_terminal_size().columns >= 120
    print_table(comparison_table(comparison, wide))
    print(f"Written: compare.csv, .json, .png and .svg in {folder}")


def with_policies(words: Sequence[str]) -> list[str]:
    """The words of the command with its `--policies` and `--policies+` as one list of classes.

    Each names a policy or several: by `class_path` (and `init_args`), by the label of one that is
    compared by default, or by a YAML file with a list of them. `--policies+` adds to what stands
    before it, at first to those compared by default.

    Raises:
        ValueError: If there is no such policy.
    """
    defaults = dict(zip((p.label for p in default_policies()), DEFAULT_POLICIES, strict=True))
    chosen: list[Any] = [*DEFAULT_POLICIES]
    rest = []
    following = iter(words)
    for word in following:
        flag, equals, value = word.partition("=")
        if flag not in ("--policies", "--policies+"):
            rest.append(word)
            continue
        value = value if equals else next(following, "")
        entries = yaml.safe_load(Path(value).read_text() if os.path.isfile(value) else value)
        if not flag.endswith("+"):
            chosen = []
        for entry in entries if isinstance(entries, list) else [entries]:
            name = str(entry)
            if not (isinstance(entry, dict) or "." in name or name in {*defaults, *dir(policies)}):
                raise ValueError(
                    f"policies: there is no {name!r}; give a class_path, or one of "
                    f"{', '.join(defaults)}"
                )
            chosen.append(entry if isinstance(entry, dict) else defaults.get(name, name))
    return rest if chosen == DEFAULT_POLICIES else [*rest, f"--policies={json.dumps(chosen)}"]
