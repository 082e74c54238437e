"""`eenet exits MODEL`: where exits can stand in a network, and what it costs to get there."""

from typing import Any

from jsonargparse import ArgumentParser


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
        "multiply-accumulate operations (MACs) up to each and the shape of its features. Nothing "
        "is computed or downloaded.",
    )
    add = parser.add_argument
    add(
        "model",
        help="A name of torchvision, timm:NAME, hf:FOLDER or hf:MODEL_TYPE, or the dotted name of "
        "a class or function that gives a torch.nn.Module.",
    )
    add(
        "--input_size",
        type=str | None,
        help="Shape of one sample, such as 3,224,224; by default that for which the network was "
        "made.",
    )
    add("--options", type=dict[str, Any], default={}, help="Arguments of the network, as JSON.")
    given = parser.parse_args(args)
    size = _size(given.input_size) if given.input_size else None
    from rich.table import Table

    from eenet.models.cutting import find_places
    from eenet.models.sources import load_network
    from eenet.plotting.rows import print_table

    source = load_network(given.model, options=given.options)
    places, total = find_places(source.model, size or source.size)
    table = Table("exit behind", "share", "M MACs", "features", title=f"{given.model}")
    for place in places:
        shape = " x ".join(map(str, place.shape))
        table.add_row(place.name, f"{place.macs / total:.1%}", f"{place.macs / 1e6:,.1f}", shape)
    table.add_row("(the network's own)", "100.0%", f"{total / 1e6:,.1f}", "")
    print_table(table)


def _size(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.strip("[]()").split(","))
    except ValueError:
        raise ValueError(
            f"input_size={text!r} must be whole numbers with commas between, such as 3,224,224"
        ) from None
