"""`eenet compare`: every policy at many budgets, seeds and networks, from exit outputs alone."""

import json
import os
from pathlib import Path

from jsonargparse import ArgumentParser

from eenet.comparison.compare import Source, compare
from eenet.comparison.figure import comparison_table, plot_comparison
from eenet.files import write_text
from eenet.plotting.style import save_figure
from eenet.plotting.tables import print_table, to_csv
from eenet.run_folder import RunFolder


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
    given = parser.parse_args(args)
    stages = [RunFolder(run).stage1 for run in given.runs]
    files = [tuple(str(s.outputs_file(split)) for split in ("val", "test")) for s in stages]
    files += [(given.val, given.test)] if given.val else []
    if not files or (given.val and (given.runs or not (given.test or given.split))):
        raise ValueError("runs: give run folders, or --val FILE with --test FILE or --split true")
    sources = [Source(v, None if given.split else t, given.cost_matrix) for v, t in files]
    settings = given.budgets, given.seeds, given.policies, given.reference, given.jobs
    found = compare(sources, *settings)
    folder = Path(given.output)
    write_text(folder / "compare.csv", to_csv(found["rows"]))
    write_text(folder / "compare.json", json.dumps(found | {"sources": sources}, indent=1) + "\n")
    save_figure(plot_comparison(found), folder / "compare.png", folder / "compare.svg")
    print_table(comparison_table(found))
    print(f"Written: compare.csv, .json, .png and .svg in {folder}")
