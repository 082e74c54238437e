"""`eenet report RUN...`: what a finished run does, as a page and as figures."""

from pathlib import Path

from jsonargparse import ArgumentParser

from eenet.stage_folder import HUB, check_finished, stages_of


def main(args: list[str]) -> None:
    """Runs `eenet report`: writes report.html and figures/*.png, *.svg and *.pdf."""
    parser = ArgumentParser(
        prog="eenet report",
        exit_on_error=False,
        allow_abbrev=False,
        description="A page with all figures of a finished run: curves, where samples leave, what "
        "the scheduler looks at, whether the budget holds. It needs no network and no server.",
    )
    add = parser.add_argument
    add("runs", nargs="+", help="Run folders of `eenet pipeline`; several are seeds of one set-up.")
    add(
        "--output",
        type=str | None,
        help="Folder of what is written; by default RUN/report, "
        "for a run from the hub runs/NAME/report.",
    )
    add("--wandb", type=bool, default=False, help="Log the figures to the W&B run of stage 2 too.")
    options = parser.parse_args(args)
    for run in options.runs:
        check_finished(run, *stages_of(run))
    from eenet.report.write import log_to_wandb, write_report

    first = Path(options.runs[0])
    first = Path("runs", first.name) if options.runs[0].startswith(HUB) else first
    folder = Path(options.output or first / "report")
    path = write_report(options.runs, folder)
    if options.wandb:
        log_to_wandb(options.runs[0], folder / "figures")
    print(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB) and the figures beside it")
