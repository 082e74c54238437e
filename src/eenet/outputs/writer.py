"""Exit outputs written batch by batch, by any number of processes, in bounded memory."""

import json
import math
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from eenet.outputs.storage import FORMAT

_BY_SAMPLE = ("labels",)
"""Fields `[N, ...]`; all others are `[E, N, ...]`."""


class OutputsWriter:
    """A file of exit outputs that is laid out at once and filled in place.

    safetensors files cannot be appended to, but their layout follows from the shapes, so each
    process writes its own samples where they belong, once one of them has called `lay_out`. The
    file takes its name when it is complete.

    Args:
        path: The file to be.
        position: Position of the first sample to be written.
    """

    def __init__(self, path: str | Path, position: int = 0) -> None:
        self.path, self.partial, self.position = Path(path), _partial(path), position
        with self.partial.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__")
        self._arrays: dict[str, np.memmap] = {}
        for name, entry in header.items():
            dtype = f"{entry['dtype'][0].lower()}{int(entry['dtype'][1:]) // 8}"
            offset, shape = 8 + length + entry["data_offsets"][0], tuple(entry["shape"])
            self._arrays[name] = np.memmap(self.partial, dtype, "r+", offset, shape)

    @classmethod
    def lay_out(
        cls,
        path: str | Path,
        samples: int,
        first: dict[str, Tensor],
        costs: Tensor,
        metadata: dict[str, str],
    ) -> Self:
        """Makes the file with all but the samples in it, and opens it.

        Args:
            path: The file to be.
            samples: Number of samples N.
            first: The first batch, as for `write`; only its shapes and dtypes count.
            costs: `[E]`.
            metadata: Provenance.
        """
        header: dict[str, Any] = {"__metadata__": {**metadata, "format": FORMAT}}
        fields = {name: value.numpy() for name, value in {"costs": costs, **first}.items()}
        end = 0
        for name, value in sorted(fields.items(), key=lambda field: -field[1].itemsize):
            shape = value.shape
            if name in _BY_SAMPLE:
                shape = (samples, *shape[1:])
            elif name != "costs":
                shape = (shape[1], samples, *shape[2:])
            begin, end = end, end + value.itemsize * math.prod(shape)
            dtype = f"{value.dtype.kind.upper()}{8 * value.itemsize}"
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        partial = _partial(path)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
        writer = cls(path)
        writer._arrays["costs"][:] = fields["costs"]
        return writer

    def write(self, batch: dict[str, Tensor]) -> None:
        """Writes the next samples: fields of `ExitOutputs`, the sample their first dimension."""
        start, self.position = self.position, self.position + len(next(iter(batch.values())))
        for name, value in batch.items():
            if name in _BY_SAMPLE:
                self._arrays[name][start : self.position] = value.numpy()
            else:
                self._arrays[name][:, start : self.position] = value.transpose(0, 1).numpy()

    def flush(self) -> None:
        """Puts what this process wrote on disk."""
        for array in self._arrays.values():
            array.flush()
        self._arrays = {}

    def finish(self) -> None:
        """Gives the file its name, once all processes have flushed."""
        os.replace(self.partial, self.path)


def _partial(path: str | Path) -> Path:
    return Path(path).with_name(f".{Path(path).name}.part")
