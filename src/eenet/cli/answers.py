"""The answers of `eenet predict`, kept line by line until all inputs are through."""

import csv
import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Self

from eenet.files import atomic

_ROWS = 10_000
"""Rows in memory while the output is written."""


class AnswerFile:
    """An output file that an interrupted command resumes.

    Until the end, answers are lines of JSON in OUTPUT.part, the settings in front.

    Args:
        output: File to write, .csv or .parquet.
        settings: What decides the answers, in plain values.

    Raises:
        ValueError: If OUTPUT.part holds answers under other settings.
    """

    def __init__(self, output: str, settings: dict[str, Any]) -> None:
        self.output, self.part = Path(output), Path(f"{output}.part")
        self.unanswered = Path(f"{output}.unanswered.csv")
        self.part.parent.mkdir(parents=True, exist_ok=True)
        head = json.dumps(settings) + "\n"
        self.position = 0
        """Number of inputs that are through."""
        if self.part.is_file():
            with self.part.open("rb+") as file:
                first = file.readline().decode(errors="replace")
                if first.endswith("\n") and first != head:
                    raise ValueError(
                        f"{self.part} holds answers of other inputs or settings: remove it, or "
                        "give another --output"
                    )
                end = file.tell() if first == head else 0
                for line in file if end else ():
                    if not line.endswith(b"\n"):
                        break  # truncated
                    end, self.position = end + len(line), self.position + 1
                file.truncate(end)
        self._file = self.part.open("a", encoding="utf-8")
        if not self._file.tell():
            self._file.write(head)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Writes the answers, or the reasons, of the next inputs."""
        self._file.writelines(json.dumps(row) + "\n" for row in rows)
        self._file.flush()
        self.position += len(rows)

    def finish(self, columns: list[str]) -> list[dict[str, str]]:
        """Writes the output, and what was not answered into OUTPUT.unanswered.csv.

        Args:
            columns: Names of the columns of an answer.

        Returns:
            The unanswered inputs, each with its reason.
        """
        self._file.flush()
        unanswered = [row for row in self.rows() if "reason" in row]
        answers = ({c: row[c] for c in columns} for row in self.rows() if "reason" not in row)
        with atomic(self.output) as temporary:
            if self.output.suffix == ".csv":
                _write_csv(temporary, columns, answers)
            else:
                _write_parquet(temporary, answers)
        self.unanswered.unlink(missing_ok=True)
        if unanswered:
            with atomic(self.unanswered) as temporary:
                _write_csv(temporary, ["input", "reason"], unanswered)
        self._file.close()
        os.unlink(self.part)
        return unanswered

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows so far, in the order of the inputs."""
        with self.part.open(encoding="utf-8") as file:
            next(file)
            yield from map(json.loads, file)


def _write_csv(path: Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    part = pyarrow.Table.from_pylist(list(islice(rows, _ROWS)))
    with parquet.ParquetWriter(path, part.schema) as writer:
        while part.num_rows:
            writer.write_table(part)
            part = pyarrow.Table.from_pylist(list(islice(rows, _ROWS)), schema=part.schema)
