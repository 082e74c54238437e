"""`eenet exits`: where exits can stand in a network, or which of a run's exits to keep."""

from typing import Any

from jsonargparse import ArgumentParser

from eenet.stage_folder import HUB, check_finished, stages_of


def main(args: list[str]) -> None:
    """Runs `eenet exits`: prints a table.

    Raises:
        ModuleNotFoundError: If timm or transformers is needed and not installed.
        ValueError: If there is no such network, or it cannot be traced.
    """
    parser = ArgumentParser(
        prog="eenet exits",
        exit_on_error=False,
        allow_abbrev=False,
        description="List the modules of a network behind which exits can stand, with the "
        "multiply-accumulate operations (MACs) up to each and the shape of its features; nothing "
        "is computed or downloaded. Or, for the run of a network with many exits, list the best "
        "sets of them, from all down to two, each exit left out being the one that costs the "
        "least accuracy at the budgets (of max probability with one threshold).",
    )
    add = parser.add_argument
    add(
        "model",
        help="A run folder, or a name of torchvision, timm:NAME, hf:FOLDER or hf:MODEL_TYPE, or "
        "the dotted name of a class or function that gives a torch.nn.Module.",
    )
    add(
        "--input_size",
        type=str | None,
        help="Shape of one sample, such as 3,224,224; by default that for which the network was "
        "made.",
    )
    add("--options", type=dict[str, Any], default={}, help="Arguments of the network, as JSON.")
    add("--budgets", type=list[float] | None, help="For a run, by default those of its stage 2.")
    given = parser.parse_args(args)
    if not given.model.startswith(HUB) and stages_of(given.model)[0].path.is_dir():
        _best_of_run(given.model, given.budgets)
        return
    size = _size(given.input_size) if given.input_size else None
    from rich.table import Table

    from eenet.models.cutting import find_places
    from eenet.models.sources import load_network
    from eenet.plotting.rows import print_table

    source = load_network(given.model, options=given.options)
    places, total = find_places(source.model, size or source.size)
    table = Table("exit behind", "share", "M MACs", "features", title=given.model)
    for place in places:
        shape = " x ".join(map(str, place.shape))
        table.add_row(place.name, f"{place.macs / total:.1%}", f"{place.macs / 1e6:,.1f}", shape)
    table.add_row("(the network's own)", "100.0%", f"{total / 1e6:,.1f}", "")
    print_table(table)


def _best_of_run(path: str, budgets: list[float] | None) -> None:
    check_finished(path, *stages_of(path))
    from rich.table import Table

    from eenet.comparison.placement import place_exits
    from eenet.plotting.rows import print_table
    from eenet.run_folder import RunFolder

    run = RunFolder(path)
    budgets = budgets or run.stage2.config["model"]["init_args"]["budgets"]
    outputs = run.outputs("val"), run.outputs("test")
    measure = f"Test {outputs[1].measure} in % by budget, and the mean on val that chose the exits"
    table = Table("exits", "on val", *map(str, budgets), title=measure)
    for exits, chosen_by, reached in place_exits(*outputs, budgets):
        numbers = (f"{100 * x:.1f}" for x in [chosen_by, *reached])
        table.add_row(" ".join(map(str, exits)), *numbers)
    print_table(table)


def _size(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.strip("[]()").split(","))
    except ValueError:
        raise ValueError(
            f"input_size={text!r} must be whole numbers with commas between, such as 3,224,224"
        ) from None
