"""Exit outputs as files: read, written, at other costs or under a cost matrix."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eenet.files import atomic
from eenet.outputs.exit_outputs import FIELDS, ExitOutputs

FORMAT = "eenet-exit-outputs/1"


def save_outputs(outputs: ExitOutputs, path: str | Path) -> None:
    """Writes exit outputs as safetensors, atomically; the metadata names the format.

    Args:
        outputs: The outputs; fields that are None are left out.
        path: The file.
    """
    tensors: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name in FIELDS:
        if (value := getattr(outputs, name)) is not None:
            value = value.contiguous()
            place = value.untyped_storage().data_ptr()
            tensors[name] = value.clone() if place in memory else value  # a file has no views
            memory.add(place)
    with atomic(path) as temporary:
        save_file(tensors, temporary, {**outputs.metadata, "format": FORMAT})


def load_outputs(path: str | Path) -> ExitOutputs:
    """Reads exit outputs, written by `save_outputs` or any other program.

    Args:
        path: A safetensors file with the fields of `ExitOutputs`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a safetensors file, lacks a field or has an unknown one, or a field
            is not as `ExitOutputs` describes it; the message names the file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"exit outputs: {path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"exit outputs: {path} is not a complete safetensors file ({error}); "
            "docs/exit-outputs.md shows how to write one"
        ) from error
    unknown = sorted(set(tensors) - {*FIELDS, "ids", "features"})
    if unknown or "costs" not in tensors:
        raise ValueError(
            f"exit outputs: {path} holds {sorted(tensors)}; it needs costs and logits, and may "
            f"hold {sorted(set(FIELDS) - {'costs', 'logits'})}"
        )
    metadata.pop("format", None)
    try:
        return ExitOutputs(**tensors, metadata=metadata)
    except ValueError as error:
        raise ValueError(f"exit outputs: {path}: {error}") from error


def recost(outputs: ExitOutputs, costs: list[float] | str) -> ExitOutputs:
    """The same outputs at other costs.

    Args:
        outputs: Exit outputs.
        costs: One cumulative cost per exit, or "macs" or "ms" for those in the metadata.

    Raises:
        ValueError: If the metadata holds no measured costs, or the numbers are not costs.
    """
    unit = "given"
    if isinstance(costs, str):
        unit, measured = costs, outputs.metadata.get("measured_costs")
        if measured is None:
            raise ValueError(f"costs={unit!r}: these outputs hold no measured costs; give numbers")
        costs = json.loads(measured)[unit]
    vector = torch.tensor(costs, dtype=torch.float64)
    return replace(outputs, costs=vector, metadata={**outputs.metadata, "cost_unit": unit})


def with_cost_matrix(outputs: ExitOutputs, matrix: list[list[float]] | None) -> ExitOutputs:
    """The same outputs with the quality of a cost matrix, if there is one.

    Args:
        outputs: Outputs with logits.
        matrix: `[C, C]`, the cost of each answer (column) for each true class (row).

    Raises:
        ValueError: If there are no logits, or the quality is not that of labels, or the matrix does
            not fit the classes.
    """
    if matrix is None:
        return outputs
    if outputs.logits is None or (outputs.quality is not None and outputs.labels is None):
        raise ValueError("cost_matrix: it needs logits, and no quality that was given otherwise")
    return replace(outputs, quality=None, cost_matrix=torch.tensor(matrix))
