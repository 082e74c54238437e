"""Tables in any of the forms in which users keep them, read as they stand."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import parquet

from eenet.files import sha256

# When a program that writes a tsv quotes a field: where it must (for Python before 3.13, a lone
# carriage return is no reason), where there is a comma too (spreadsheets), always, or where
# there is no number.
_MUST = ('[\t\n"]', '[\t\r\n"]', '[\t\r\n",]', "", r"\A(?!-?\d+(\.\d+)?\Z)")
_QUOTED = [re.compile(pattern) for pattern in _MUST]


def read_table(source: str | list[str], split: str, config_name: str | None = None) -> Any:
    """Reads one split as a `datasets.Dataset`; nothing of a file is kept in a cache.

    All columns of csv and tsv are strings, character by character as in the file: no number, date
    or missing value is made of them. In csv a field in double quotes may hold commas and line ends.
    In tsv a line is a row and quotes are part of the text, unless the whole file is what a program
    writes that quotes.

    Args:
        source: Hub id, file or files, folder of `save_to_disk`, or folder of files whose names
            begin with the split's.
        split: Name of the split, where the source has several.
        config_name: Configuration of the hub's data set.

    Raises:
        FileNotFoundError: If a file does not exist, or a folder holds no such split.
        ValueError: If a file is of an unknown kind, empty or damaged, a row has not as many fields
            as the header, or files of one split are equal or do not fit together.
    """
    import datasets

    paths = [Path(path) for path in ([source] if isinstance(source, str) else source)]
    if len(paths) == 1 and paths[0].is_dir():
        folder = paths[0]
        if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
            saved = _read(datasets.load_from_disk, str(folder))
            if isinstance(saved, datasets.Dataset):
                return saved
            if split not in saved:
                raise FileNotFoundError(f"{folder} holds the splits {list(saved)}, not {split!r}")
            return saved[split]
        paths = sorted(path for path in folder.glob(f"{split}*") if _kind(path) in _READERS)
        if not paths:
            raise FileNotFoundError(
                f"{folder} holds neither what save_to_disk writes nor files named {split}* that "
                f"end in {sorted(_READERS)}"
            )
    elif len(paths) == 1 and _kind(paths[0]) not in _READERS and not paths[0].exists():
        return datasets.load_dataset(source, config_name, split=split)
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no such file: {missing}")
    kinds = {_kind(path) for path in paths}
    if len(kinds) != 1 or not kinds <= set(_READERS):
        raise ValueError(
            f"files must all end in one of {sorted(_READERS)}, got {[str(path) for path in paths]}"
        )
    tables = [_read(_READERS[_kind(path)], path) for path in paths]
    table: Any = datasets.Dataset(_joined(paths, tables))
    table.files = [(path, len(part)) for path, part in zip(paths, tables, strict=True)]
    return table


def place_of(table: Any, row: int, column: str) -> str:
    """What to call a row (from 0) in an error: its file too, where the table came from several."""
    files: list[tuple[Path, int]] = getattr(table, "files", [])
    for path, rows in files if len(files) > 1 else []:
        if row < rows:
            return f"row {row} of {column!r} in {path}"
        row -= rows
    return f"row {row} of {column!r}"


def get_column(table: Any, field: str, name: str, where: str) -> list[Any]:
    """A column; a ValueError names the setting `field` and the columns that there are."""
    columns = table.column_names
    if name not in columns:
        comma = "; fields must be separated by commas (csv) or tabs (tsv)"
        hint = comma if len(columns) == 1 and re.search("[;\t|]", columns[0]) else ""
        raise ValueError(f"{field}={name!r}: {where} has the columns {columns}{hint}")
    return list(table[name][:])


def read_texts(table: Any, name: str, where: str) -> list[str]:
    """The column of the setting `text_column`; a ValueError names rows that hold no text."""
    texts = get_column(table, "text_column", name, where)
    empty = [row for row, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
    if empty:
        raise ValueError(
            f"{where}: no text in {name!r} in the rows {empty[:5]}; "
            f"{place_of(table, empty[0], name)} holds no text but {repr(texts[empty[0]])[:100]}; "
            "remove such rows"
        )
    return texts


def is_one_table(source: str | list[str]) -> bool:
    """Whether a source of `read_table` has no splits: files, or a table of `save_to_disk`."""
    paths = [Path(path) for path in ([source] if isinstance(source, str) else source)]
    return paths[0].is_file() or (paths[0] / "state.json").is_file()


def _kind(path: Path) -> str:
    return path.suffix.lower()


def _read(read: Callable[[Any], Any], path: str | Path) -> Any:
    try:
        table = read(path)
        if hasattr(table, "num_rows") and not table.num_rows:
            raise ValueError("it holds no row")
        return table
    except Exception as error:  # of csv, json, pyarrow or datasets, each with its own
        raise ValueError(
            f"{path} cannot be read: {error} ({type(error).__name__}). Tables must be complete, "
            "not empty, and text in UTF-8."
        ) from error


def _joined(paths: list[Path], tables: list[Any]) -> Any:
    """The tables of a split one below the other."""
    from datasets import ClassLabel, Features

    contents = [sha256(path) for path in paths] if len(paths) > 1 else []
    for path, content in zip(paths, contents, strict=False):
        if (first := paths[contents.index(content)]) != path:
            raise ValueError(f"{first} and {path} hold the same rows: leave one out")
    features = [Features.from_arrow_schema(table.schema) for table in tables]
    names = [{n: x.names for n, x in f.items() if isinstance(x, ClassLabel)} for f in features]
    if any(others != names[0] for others in names):
        raise ValueError(f"{[*map(str, paths)]} differ in their classes: {names}")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(f"{[str(path) for path in paths]} do not fit together: {error}") from error


def _parquet(path: Path) -> Any:
    table = parquet.ParquetFile(path).read()
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):  # categories, for which `datasets` has no type
            column = table.column(index).cast(field.type.value_type)
            table = table.set_column(index, field.name, column)
    return table


def _csv(path: Path) -> Any:
    return _table(_fields(_text(path), ","))


def _tsv(path: Path) -> Any:
    """A tsv by one of two conventions: quotes as text, or quotes around fields that need them."""
    text = _text(path)
    plain = [(number, line.split("\t")) for number, line in enumerate(_lines(text), 1) if line]
    try:
        quoted = [*_fields(text, "\t")]
    except csv.Error:  # no program would quote so
        return _table(plain)
    widths, widths_quoted = ({len(row) for _, row in rows} for rows in (plain, quoted))
    if (
        '"' not in text
        or len(widths_quoted) > 1
        or not any(_writes(quoted, plain, pattern) for pattern in _QUOTED)
    ):
        return _table(plain)
    if len(widths) == 1 and len(plain) != len(quoted):
        if widths != {1}:  # whole rows inside a field: so many tabs have no text by chance
            return _table(plain)
        raise ValueError(
            "quotes can be read as text or as marks around text of several lines; save it as csv"
        )
    return _table(quoted)


def _writes(rows: list[Any], plain: list[Any], needs_quotes: re.Pattern[str]) -> bool:
    """Whether writing the rows, quoting where a field needs it, gives these lines."""
    written = "\n".join(
        "\t".join(
            '"' + field.replace('"', '""') + '"' if needs_quotes.search(field) else field
            for field in row
        )
        for _, row in rows
    )
    return [x for x in _lines(written) if x] == ["\t".join(row) for _, row in plain]


def _lines(text: str) -> list[str]:
    """Lines end with a line feed; a carriage return ends them only where there is no line feed."""
    return re.split("\r?\n", text) if "\n" in text else text.split("\r")


def _fields(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a csv that are not blank, each with the number of its last line."""
    alone = "\n" in text and re.search("\r(?!\n)", text)  # a carriage return that ends no line
    mark = next(x for x in map(chr, range(0xE000, 0xF900)) if x not in text) if alone else "\r"
    text = re.sub("\r(?!\n)", mark, text)
    csv.field_size_limit(2**31 - 1)  # for all of the process; 131,072 characters would be too few
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    for row in reader:
        if row:
            yield reader.line_num, [field.replace(mark, "\r") for field in row]


def _table(rows: Iterable[tuple[int, list[str]]]) -> Any:
    """The rows below a header, each with the number of its line, as columns of strings."""
    (_, header), *rest = [*rows] or [(0, [])]
    if len(header) > 1:  # files that were put one below the other repeat it
        rest = [(line, row) for line, row in rest if row != header]
    # Columns without a name, as of an index or of trailing commas, are called as in pandas.
    names = [name or f"Unnamed: {index}" for index, name in enumerate(header)]
    if len(set(names)) < len(names):
        raise ValueError(f"two columns have the same name: {names}")
    for line, row in rest:
        if len(row) != len(header):
            raise ValueError(
                f"line {line} has {len(row)} fields, the header has {len(header)}; a field that "
                "holds the separator or a line break needs quotes around it"
            )
    columns = zip(*(row for _, row in rest), strict=True) if rest else [[] for _ in names]
    return pa.table([pa.array(column, pa.string()) for column in columns], names)


def _json(path: Path) -> Any:
    """A list of rows, or a row a line."""
    text = _text(path)
    try:
        rows = json.loads(text)
    except json.JSONDecodeError:
        rows = [_row(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if isinstance(rows, dict):
        rows = [rows]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("rows must be objects, in a list or one a line")
    names = dict.fromkeys(name for row in rows for name in row)
    if rows and all(isinstance(value, list | dict) for value in rows[0].values()):
        raise ValueError(f"it must be a list of rows, or one a line, not one object of {[*names]}")
    return pa.table({name: _values([row.get(name) for row in rows]) for name in names})


def _row(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}: {error.msg}") from error


def _values(column: list[Any]) -> Any:
    """Values of JSON; of different kinds, in their own spelling."""
    kinds = set(map(type, column)) - {type(None)}
    if len(kinds) < 2 or kinds == {int, float}:
        try:
            return pa.array(column)
        except (pa.ArrowException, OverflowError):
            pass
    return pa.array([x if x is None or isinstance(x, str) else json.dumps(x) for x in column])


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8-sig")


_READERS = {".parquet": _parquet, ".csv": _csv, ".tsv": _tsv, ".json": _json, ".jsonl": _json}
