"""Exit outputs written batch by batch, by any number of processes, in bounded memory."""

import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eenet.data.outputs import FORMAT

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
}
_BY_SAMPLE = ("labels", "ids")
"""Fields `[N, ...]`; all others are `[E, N, ...]`."""


class OutputsWriter:
    """A file of exit outputs that is laid out at once and filled in place.

    safetensors files cannot be appended to, but their layout follows from the shapes, so each
    process writes its own samples where they belong. The file takes its name when it is complete.

    Args:
        path: The file to be.
        creator: Whether this process lays it out; the others must come later.
        samples: Number of samples N.
        first: The first batch, as for `write`; only its shapes and dtypes count.
        costs: `[E]`.
        metadata: Provenance.
    """

    def __init__(
        self,
        path: str | Path,
        creator: bool,
        samples: int,
        first: dict[str, Tensor],
        costs: Tensor,
        metadata: dict[str, str],
    ) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(f".{self.path.name}.part")
        if creator:
            shapes = {"costs": (costs.dtype, costs.shape)}
            for name, value in first.items():
                rest = value.shape[1:]
                place = (samples, *rest) if name in _BY_SAMPLE else (rest[0], samples, *rest[1:])
                shapes[name] = (value.dtype, torch.Size(place))
            _lay_out(self.partial, shapes, metadata)
            _views(self.partial)["costs"][:] = costs.numpy()

    def open(self) -> None:
        """Opens what the creator laid out."""
        self._arrays = _views(self.partial)

    def write(self, start: int, batch: dict[str, Tensor]) -> int:
        """Writes samples from the position `start` on.

        Args:
            start: Position of the batch's first sample.
            batch: Fields of `ExitOutputs`, each with the sample as its first dimension.

        Returns:
            The position behind the batch.
        """
        stop = start + len(next(iter(batch.values())))
        for name, value in batch.items():
            if name in _BY_SAMPLE:
                self._arrays[name][start:stop] = value.numpy()
            else:
                self._arrays[name][:, start:stop] = value.transpose(0, 1).numpy()
        return stop

    def flush(self) -> None:
        """Puts what this process wrote on disk."""
        for array in self._arrays.values():
            array.flush()
        self._arrays = {}

    def finish(self) -> None:
        """Gives the file its name, once all processes have flushed."""
        os.replace(self.partial, self.path)


def _lay_out(
    path: Path, shapes: dict[str, tuple[torch.dtype, torch.Size]], metadata: dict[str, str]
) -> None:
    header: dict[str, object] = {"__metadata__": {**metadata, "format": FORMAT}}
    end = 0
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: -item[1][0].itemsize):
        begin, end = end, end + dtype.itemsize * math.prod(shape)
        entry = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        header[name] = entry
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def _views(path: Path) -> dict[str, np.memmap]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__")
    return {
        name: np.memmap(
            path,
            dtype=f"{entry['dtype'][0].lower()}{int(entry['dtype'][1:]) // 8}",
            mode="r+",
            offset=8 + length + entry["data_offsets"][0],
            shape=tuple(entry["shape"]),
        )
        for name, entry in header.items()
    }
