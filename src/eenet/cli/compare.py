"""`eenet compare`: every policy at many budgets, seeds and networks, from exit outputs."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from eenet.stage_folder import stages_of


def main(args: list[str]) -> None:
    """Runs `eenet compare`: writes compare.csv, .json and figures, and prints the table."""
    words, named = take_policies(args)
    options = _parser().parse_args(words)
    pairs = _files(options)
    from eenet.comparison.compare import compare  # torch, once the words are in order
    from eenet.comparison.figure import comparison_table, plot_comparison
    from eenet.comparison.fitting import Source
    from eenet.files import write_text
    from eenet.plotting.rows import print_table, to_csv
    from eenet.plotting.style import save_figure

    sources = [Source(*pair, options.cost_matrix) for pair in pairs]
    policies = choose_policies(named)
    settings = options.budgets, options.seeds, policies, options.reference, options.jobs
    comparison = compare(sources, *settings)
    folder, text = Path(options.output), asdict(comparison) | {"sources": sources}
    write_text(folder / "compare.csv", to_csv(comparison.rows))
    write_text(folder / "compare.json", json.dumps(text, indent=1) + "\n")
    save_figure(
        plot_comparison(comparison), *(folder / f"compare.{x}" for x in ("png", "svg", "pdf"))
    )
    wide = not sys.stdout.isatty() or shutil.get_terminal_size().columns >= 120
    print_table(comparison_table(comparison, wide))
    print(f"Written: compare.csv, .json, .png, .svg and .pdf in {folder}")


def take_policies(words: Sequence[str]) -> tuple[list[str], list[tuple[bool, Any]]]:
    """The words of the command without `--policies` and `--policies+`, and the values of these.

    Each names a policy or several: by `class_path` (and `init_args`), by the label of one that is
    compared by default, or by a YAML file with a list of them. `--policies+` adds to what stands
    before it, at first to those compared by default.

    Returns:
        The other words; for each value whether it adds, and what it says as YAML.
    """
    rest, named = [], []
    following = iter(words)
    for word in following:
        flag, equals, value = word.partition("=")
        if flag in ("--policies", "--policies+"):
            value = value if equals else next(following, "")
            text = Path(value).read_text("utf-8") if os.path.isfile(value) else value
            named.append((flag.endswith("+"), yaml.safe_load(text)))
        else:
            rest.append(word)
    return rest, named


def choose_policies(named: Sequence[tuple[bool, Any]]) -> Any:
    """The policies that `take_policies` found, or None for those compared by default.

    Raises:
        ValueError: If there is no such policy.
    """
    from eenet import policies
    from eenet.comparison.compare import DEFAULT_POLICIES, default_policies
    from eenet.run_folder import build

    if not named:
        return None
    defaults = dict(zip((p.label for p in default_policies()), DEFAULT_POLICIES, strict=True))
    chosen: list[Any] = [*DEFAULT_POLICIES]
    for adds, value in named:
        chosen = chosen if adds else []
        for entry in value if isinstance(value, list) else [value]:
            name = str(entry)
            if not (isinstance(entry, dict) or "." in name or name in {*defaults, *dir(policies)}):
                raise ValueError(
                    f"policies: there is no {name!r}; give a class_path, or one of "
                    f"{', '.join(defaults)}"
                )
            entry = entry if isinstance(entry, dict) else defaults.get(name, name)
            chosen.append(entry if isinstance(entry, dict) else {"class_path": name})
    return build(list[policies.Policy], chosen)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="eenet compare",
        exit_on_error=False,
        allow_abbrev=False,
        description="Compare exit policies at many budgets, from exit outputs.",
    )
    add = parser.add_argument
    add("runs", nargs="*", help="Run folders of `eenet pipeline`; several are network seeds.")
    add("--val", type=str | None, help="File of exit outputs to fit on, in place of run folders.")
    add("--test", type=str | None, help="File of exit outputs to report on.")
    add("--split", type=bool, default=False, help="Fit on each half of val for the other.")
    add("--cost_matrix", type=list[list[float]] | None, help="Cost of answering a where y is true.")
    add("--output", type=str, default="runs/compare", help="Folder of what is written.")
    add(
        "--budgets",
        type=PositiveInt | list[float],
        default=16,
        help="Fractions of the full network's cost, or how many of them, evenly spaced from 1.1 "
        "times the first exit's cost to 0.95.",
    )
    add("--seeds", type=PositiveInt, default=5, help="Seeds of policies that depend on one.")
    add(
        "--policies",
        type=list[Any] | str | None,
        help="The policies by label, or by class_path and init_args, or a YAML file with a list of "
        "them; --policies+ adds to the default: those that eenet brings, except temperature where "
        "there are no labelled logits.",
    )
    add("--reference", type=str, default="eenet+", help="The policy to compare the others with.")
    add("--jobs", type=PositiveInt, default=os.cpu_count(), help="Number of processes.")
    return parser


def _files(options: Namespace) -> list[tuple[str, str | None]]:
    """The pairs of files to fit and to report on, which exist; to report on None is to split."""
    stages = [stages_of(run)[0] for run in options.runs]
    pairs = [(stage.outputs_file("val"), stage.outputs_file("test")) for stage in stages]
    if options.val:
        if options.runs or (options.test is None) != options.split:
            raise ValueError("val: give --test FILE or --split true with it, and no run folders")
        pairs = [(Path(options.val), Path(options.test or options.val))]
    elif not options.runs:
        raise ValueError("runs: give run folders, or --val FILE with --test FILE or --split true")
    for path in (path for pair in pairs for path in pair):
        if not path.is_file():
            raise FileNotFoundError(f"exit outputs: {path} does not exist")
    return [(str(val), None if options.split else str(test)) for val, test in pairs]
